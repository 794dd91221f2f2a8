//! A guest's visit to a stream, and the memory in which it takes place.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::lock::OwnedMutexGuard;
use pin_project_lite::pin_project;

use super::call::Call;
use super::exchange::Exchange;
use crate::error::{Cause, Phase};
use crate::pool::{CellGuard, Slot};
use crate::running::{Begun, Outcome, Running, first_slice};

/// What a guest is given for one call.
pub(super) struct Visiting {
    pub(super) cell: CellGuard,
    pub(super) exchange: OwnedMutexGuard<Exchange>,
    pub(super) call: Call,
    pub(super) context: u32,
}

/// What a call leaves behind.
pub(crate) struct Visited {
    /// None if the instance has been let go meanwhile.
    pub(super) cell: Option<CellGuard>,
    pub(super) exchange: Option<OwnedMutexGuard<Exchange>>,
    pub(super) result: Result<u32, Cause>,
    pub(super) phase: Phase,
    /// Something is under way that may enter the guest later.
    pub(super) expects_calls: bool,
}

/// Memory for one visit after the other to the guest of one instance: what was used last is nearest to the processor.
pub(crate) struct Berth(Pin<Box<dyn Occupy + Send>>);

/// A future whose place is taken by the next one when it has ended.
trait Occupy: Future<Output = Visited> {
    fn occupy(self: Pin<&mut Self>, visiting: Visiting);
}

pin_project! {
    struct Place<M, F> {
        make: M,
        #[pin]
        future: Option<F>,
    }
}

// === impl Visiting ===

impl Visiting {
    /// Runs the first slice of the call.
    pub(super) fn begin(mut self, slot: &Arc<Slot>) -> Begun<Visited> {
        let Berth(mut place) = self.cell.take_berth().unwrap_or_default();
        place.as_mut().occupy(self);
        match first_slice(slot, place.as_mut()) {
            Poll::Ready(mut visited) => {
                if let Some(cell) = &mut visited.cell {
                    cell.keep_berth(Berth(place));
                }
                Begun::Over(visited)
            }
            Poll::Pending => Begun::Running(Running::begun(slot, place)),
        }
    }

    async fn visit(self) -> Visited {
        let Self { mut cell, exchange, call, context } = self;
        let phase = call.phase();
        let Some(instance) = cell.instance() else {
            let (cell, exchange, result) = (Some(cell), Some(exchange), Err(Cause::InstanceLost));
            return Visited { cell, exchange, result, phase, expects_calls: false };
        };
        instance.lend(exchange);
        let result = call.make(instance, context).await;
        let exchange = instance.give_back();
        let expects_calls = instance.expects_calls(context);
        Visited { cell: Some(cell), exchange, result, phase, expects_calls }
    }
}

// === impl Visited ===

impl Outcome for Visited {
    fn let_go(&mut self, slot: &Slot) {
        let Some(mut cell) = self.cell.take() else { return };
        if let Err(cause) = &self.result {
            slot.bury(&mut cell, self.phase, cause);
        }
        if let Some(exchange) = self.exchange.as_mut() {
            exchange.notify();
        }
    }
}

// === impl Berth ===

impl Default for Berth {
    fn default() -> Self {
        Self(Box::pin(Place { make: Visiting::visit, future: None }))
    }
}

// === impl Place ===

impl<M, F> Occupy for Place<M, F>
where
    M: Fn(Visiting) -> F,
    F: Future<Output = Visited>,
{
    fn occupy(self: Pin<&mut Self>, visiting: Visiting) {
        let mut this = self.project();
        let future = (this.make)(visiting);
        this.future.set(Some(future));
    }
}

impl<M, F> Future for Place<M, F>
where
    F: Future<Output = Visited>,
{
    type Output = Visited;

    /// Pending for ever while nobody is here.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Visited> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else { return Poll::Pending };
        let visited = ready!(future.poll(cx));
        this.future.set(None);
        Poll::Ready(visited)
    }
}

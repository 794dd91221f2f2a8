//! A guest's visit to a stream, and the memory in which it takes place.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::lock::OwnedMutexGuard;
use pin_project_lite::pin_project;

use super::call::Call;
use super::exchange::Exchange;
use crate::error::Cause;
use crate::pool::{CellGuard, Slot};
use crate::running::{Begun, Running, first_slice};
use crate::sandbox::Usage;

/// What a guest is given for one call.
pub(super) struct Visiting {
    pub(super) cell: CellGuard,
    pub(super) exchange: OwnedMutexGuard<Exchange>,
    pub(super) usage: Usage,
    pub(super) call: Call,
    pub(super) context: u32,
}

/// What a call leaves behind.
pub(crate) struct Visited {
    pub(super) cell: CellGuard,
    pub(super) exchange: Option<OwnedMutexGuard<Exchange>>,
    pub(super) usage: Usage,
    pub(super) result: Result<u32, Cause>,
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
                visited.cell.keep_berth(Berth(place));
                Begun::Over(visited)
            }
            Poll::Pending => Begun::Running(Running::begun(slot, place)),
        }
    }

    async fn visit(self) -> Visited {
        let Self { mut cell, exchange, usage, call, context } = self;
        let Some(instance) = cell.instance() else {
            return Visited { cell, exchange: Some(exchange), usage, result: Err(Cause::InstanceLost) };
        };
        instance.lend(exchange, usage);
        let result = call.make(instance, context).await;
        let (exchange, usage) = instance.give_back();
        Visited { cell, exchange, usage, result }
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

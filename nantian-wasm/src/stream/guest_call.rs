//! One call of a guest for a stream, and the memory of its future.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::lock::OwnedMutexGuard;
use pin_project_lite::pin_project;

use super::call::Call;
use super::exchange::Exchange;
use crate::error::{Cause, Phase};
use crate::pool::{InstanceGuard, Slot};
use crate::running::{ReleaseInstance, RunningCall, Started, first_slice};

/// What a guest is given for one call.
pub(super) struct GuestCall {
    pub(super) cell: InstanceGuard,
    pub(super) exchange: OwnedMutexGuard<Exchange>,
    pub(super) call: Call,
    pub(super) context: u32,
}

/// What a call leaves behind.
pub(crate) struct GuestCallResult {
    /// None if the instance has been let go meanwhile.
    pub(super) cell: Option<InstanceGuard>,
    pub(super) exchange: Option<OwnedMutexGuard<Exchange>>,
    pub(super) result: Result<u32, Cause>,
    pub(super) phase: Phase,
}

/// Memory for one call after the other of the guest of one instance: what was used last is nearest to the
/// processor.
pub(crate) struct ReusableFuture(Pin<Box<dyn Reusable + Send>>);

/// A future whose place is taken by the next one when it has ended.
trait Reusable: Future<Output = GuestCallResult> {
    fn restart(self: Pin<&mut Self>, guest_call: GuestCall);
}

pin_project! {
    struct FutureSlot<M, F> {
        make: M,
        #[pin]
        future: Option<F>,
    }
}

// === impl GuestCall ===

impl GuestCall {
    /// Runs the first slice of the call.
    pub(super) fn begin(mut self, slot: &Arc<Slot>) -> Started<GuestCallResult> {
        let ReusableFuture(mut place) = self.cell.take_future().unwrap_or_default();
        place.as_mut().restart(self);
        match first_slice(slot, place.as_mut()) {
            Poll::Ready(mut returned) => {
                if let Some(cell) = &mut returned.cell {
                    cell.keep_future(ReusableFuture(place));
                }
                Started::Over(returned)
            }
            Poll::Pending => Started::Running(RunningCall::begun(slot, place)),
        }
    }

    async fn visit(self) -> GuestCallResult {
        let Self { mut cell, exchange, call, context } = self;
        let phase = call.phase();
        let Some(instance) = cell.instance() else {
            let (cell, exchange, result) = (Some(cell), Some(exchange), Err(Cause::InstanceLost));
            return GuestCallResult { cell, exchange, result, phase };
        };
        instance.lend(exchange);
        let result = call.make(instance, context).await;
        let exchange = instance.give_back();
        GuestCallResult { cell: Some(cell), exchange, result, phase }
    }
}

// === impl GuestCallResult ===

impl ReleaseInstance for GuestCallResult {
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

// === impl ReusableFuture ===

impl Default for ReusableFuture {
    fn default() -> Self {
        Self(Box::pin(FutureSlot { make: GuestCall::visit, future: None }))
    }
}

// === impl FutureSlot ===

impl<M, F> Reusable for FutureSlot<M, F>
where
    M: Fn(GuestCall) -> F,
    F: Future<Output = GuestCallResult>,
{
    fn restart(self: Pin<&mut Self>, guest_call: GuestCall) {
        let mut this = self.project();
        let future = (this.make)(guest_call);
        this.future.set(Some(future));
    }
}

impl<M, F> Future for FutureSlot<M, F>
where
    F: Future<Output = GuestCallResult>,
{
    type Output = GuestCallResult;

    /// Pending for ever while nobody is here.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<GuestCallResult> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else { return Poll::Pending };
        let returned = ready!(future.poll(cx));
        this.future.set(None);
        Poll::Ready(returned)
    }
}

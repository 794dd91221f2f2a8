//! Guest calls that may take several slices of time.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::pool::Slot;

/// A guest call under way, with everything it works on: the locks of its instance and of its exchange among them.
///
/// A guest that runs when the engine ticks gives way: the call is pending then, and goes on when it is polled again.
pub(crate) struct Running<T> {
    slot: Arc<Slot>,
    /// Holds no slot: a call that is left to its slot must not keep it.
    future: Pin<Box<dyn Future<Output = T> + Send>>,
}

/// What the first slice of a call led to.
pub(crate) enum Begun<T> {
    /// The call is over, as most are.
    Over(T),
    Running(Running<T>),
}

// === impl Running ===

impl<T: Send + 'static> Running<T> {
    /// Runs the first slice of a call, with nobody to be woken for the next.
    pub(crate) fn begin(slot: &Arc<Slot>, future: impl Future<Output = T> + Send + 'static) -> Begun<T> {
        let mut future = Box::pin(future);
        match first_slice(slot, future.as_mut()) {
            Poll::Ready(output) => Begun::Over(output),
            Poll::Pending => Begun::Running(Self::begun(slot, future)),
        }
    }

    /// A call whose first slice is over.
    pub(crate) fn begun(slot: &Arc<Slot>, future: Pin<Box<dyn Future<Output = T> + Send>>) -> Self {
        Self { slot: Arc::clone(slot), future }
    }

    /// One slice.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        self.slot.resume();
        self.future.as_mut().poll(cx)
    }

    /// Leaves the call to upkeep, since nobody else will poll it: a guest must not be stopped half way.
    pub(crate) fn leave(self, conclude: impl FnOnce(T) + Send + 'static) {
        let Self { slot, future } = self;
        slot.adopt(Box::pin(async move { conclude(future.await) }));
    }
}

/// Runs the first slice of a call, with nobody to be woken for the next.
pub(crate) fn first_slice<F: Future + ?Sized>(slot: &Slot, future: Pin<&mut F>) -> Poll<F::Output> {
    slot.resume();
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs a guest call to its end on this thread.
pub(crate) fn finish<T>(slot: &Slot, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        slot.resume();
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
}

//! Guest calls that may take several slices of time.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker, ready};

use crate::error::Phase;
use crate::instance::Instance;
use crate::pool::{InstanceGuard, Slot};
use crate::sync::lock;

/// A guest call under way, with everything it works on: the locks of its instance and of its exchange among
/// them.
///
/// A guest that runs when the engine ticks gives way: the call is pending then, and goes on when it is polled
/// again.
pub(crate) struct RunningCall<T> {
    slot: Arc<Slot>,
    stage: Arc<Mutex<Stage<T>>>,
}

/// How far a call has come. Holds no slot: a call that is left to its slot must not keep it.
enum Stage<T> {
    Going(Pin<Box<dyn Future<Output = T> + Send>>),
    Over(T),
    Gone,
}

/// What the first slice of a call led to.
pub(crate) enum Started<T> {
    /// The call is over, as most are.
    Over(T),
    Running(RunningCall<T>),
}

/// What a call leaves behind for whoever waits for it.
pub(crate) trait ReleaseInstance: Send + 'static {
    /// Lets the instance go, since whoever waits may not come for long.
    fn let_go(&mut self, slot: &Slot);
}

/// A call that somebody else may go on with.
pub(crate) trait Resumable: Send + Sync {
    /// One slice; ready when the call is over.
    fn resume(&self, slot: &Weak<Slot>, cx: &mut Context<'_>) -> Poll<()>;
}

// === impl RunningCall ===

impl<T: Send + 'static> RunningCall<T> {
    /// Runs the first slice of a call, with nobody to be woken for the next.
    pub(crate) fn begin(slot: &Arc<Slot>, future: impl Future<Output = T> + Send + 'static) -> Started<T> {
        let mut future = Box::pin(future);
        match first_slice(slot, future.as_mut()) {
            Poll::Ready(output) => Started::Over(output),
            Poll::Pending => Started::Running(Self::begun(slot, future)),
        }
    }

    /// A call whose first slice is over.
    pub(crate) fn begun(slot: &Arc<Slot>, future: Pin<Box<dyn Future<Output = T> + Send>>) -> Self {
        Self { slot: Arc::clone(slot), stage: Arc::new(Mutex::new(Stage::Going(future))) }
    }

    /// One slice.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        let mut stage = lock(&self.stage);
        if let Stage::Going(future) = &mut *stage {
            self.slot.resume();
            *stage = Stage::Over(ready!(future.as_mut().poll(cx)));
        }
        match std::mem::replace(&mut *stage, Stage::Gone) {
            Stage::Over(output) => Poll::Ready(output),
            Stage::Going(_) | Stage::Gone => Poll::Pending,
        }
    }

    /// Leaves the call to upkeep, since nobody else will poll it: a guest must not be stopped half way.
    pub(crate) fn leave(self, conclude: impl FnOnce(T) + Send + 'static) {
        match std::mem::replace(&mut *lock(&self.stage), Stage::Gone) {
            Stage::Going(future) => self.slot.adopt(Box::pin(async move { conclude(future.await) })),
            Stage::Over(output) => conclude(output),
            Stage::Gone => {}
        }
    }
}

impl<T: ReleaseInstance> RunningCall<T> {
    /// Lets upkeep go on with the call while whoever waits for it does not.
    pub(crate) fn share(&self) {
        let stage: Weak<Mutex<Stage<T>>> = Arc::downgrade(&self.stage);
        self.slot.watch(stage);
    }
}

impl<T: ReleaseInstance> Resumable for Mutex<Stage<T>> {
    fn resume(&self, slot: &Weak<Slot>, cx: &mut Context<'_>) -> Poll<()> {
        let mut stage = lock(self);
        if let Stage::Going(future) = &mut *stage {
            let mut output = ready!(future.as_mut().poll(cx));
            if let Some(slot) = slot.upgrade() {
                output.let_go(&slot);
            }
            *stage = Stage::Over(output);
        }
        Poll::Ready(())
    }
}

/// Runs the first slice of a call, with nobody to be woken for the next.
pub(crate) fn first_slice<F: Future + ?Sized>(slot: &Slot, future: Pin<&mut F>) -> Poll<F::Output> {
    slot.resume();
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A guest call for any executor: each time it is polled the guest is let run.
pub(crate) fn attended<T>(slot: &Slot, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let mut future = Box::pin(future);
    poll_fn(move |cx| {
        slot.resume();
        future.as_mut().poll(cx)
    })
}

/// Runs to its end, on this thread, what waits for nothing but guests.
pub(crate) fn finish<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
}

/// Ends an instance whose slot, which is kept meanwhile, another one will have.
pub(crate) async fn end(worn: Option<Instance>, _cell: InstanceGuard) {
    if let Some(worn) = worn {
        worn.end().await;
    }
}

/// Lets an instance tick.
pub(crate) async fn tick(slot: Weak<Slot>, mut cell: InstanceGuard) {
    let Some(instance) = cell.instance() else { return };
    let ticked = instance.tick().await;
    let Some(slot) = slot.upgrade() else { return };
    if let Err(cause) = ticked {
        slot.bury(&mut cell, Phase::Tick, &cause);
    }
    slot.measure(&mut cell);
}

//! The waker of an HTTP/1.1 connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// Tells whoever holds the connection that its driver has something to do.
///
/// The driver is woken by its socket, and by the halves that feed it and read from it. The second kind is not
/// worth a turn of the task: whoever touches a half polls the driver right after, or polls again later. And a
/// connection that nothing has woken since it was last polled is as it was then, so an idle one need not be
/// polled to learn that it is still open.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    task: AtomicWaker,
    muted: AtomicBool,
    rung: AtomicBool,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.muted.load(Relaxed) {
            self.rung.store(true, Relaxed);
            self.task.wake();
        }
    }
}

impl Alarm {
    /// Wakes the task of `cx` from now on; forgets that there was an alarm.
    pub(super) fn set(&self, cx: &Context<'_>) {
        self.rung.store(false, Relaxed);
        self.task.register(cx.waker());
    }

    /// Wakes nobody from now on.
    pub(super) fn unset(&self) {
        self.task.register(Waker::noop());
    }

    /// Whether there was an alarm since the driver was last polled.
    pub(super) fn has_rung(&self) -> bool {
        self.rung.load(Relaxed)
    }

    /// Touches a half of the connection; what that has to tell the driver is no alarm.
    pub(super) fn muted<R>(&self, touch: impl FnOnce() -> R) -> R {
        self.muted.store(true, Relaxed);
        let result = touch();
        self.muted.store(false, Relaxed);
        result
    }
}

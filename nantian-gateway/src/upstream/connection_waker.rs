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
pub(super) struct ConnectionWaker {
    task: AtomicWaker,
    muted: AtomicBool,
    woken: AtomicBool,
}

impl Wake for ConnectionWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.muted.load(Relaxed) {
            self.woken.store(true, Relaxed);
            self.task.wake();
        }
    }
}

impl ConnectionWaker {
    /// Wakes the task of `cx` from now on; forgets that it was woken.
    pub(super) fn set(&self, cx: &Context<'_>) {
        self.woken.store(false, Relaxed);
        self.task.register(cx.waker());
    }

    /// Wakes nobody from now on.
    pub(super) fn unset(&self) {
        self.task.register(Waker::noop());
    }

    /// Whether it was woken since the driver was last polled.
    pub(super) fn is_woken(&self) -> bool {
        self.woken.load(Relaxed)
    }

    /// Touches a half of the connection; what that has to tell the driver does not wake it.
    pub(super) fn muted<R>(&self, touch: impl FnOnce() -> R) -> R {
        self.muted.store(true, Relaxed);
        let result = touch();
        self.muted.store(false, Relaxed);
        result
    }
}

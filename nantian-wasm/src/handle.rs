//! A stream shared by the future and the two bodies of its exchange.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt as _;
use futures_util::lock::{Mutex, OwnedMutexGuard, OwnedMutexLockFuture};

use crate::stream::{Action, Direction, StreamContext};

/// One owner's way to a shared stream. The lock is held for one step of a poll, never across a pending one.
pub(crate) struct StreamHandle {
    shared: Arc<Mutex<Shared>>,
    waiting: Option<OwnedMutexLockFuture<Shared>>,
}

/// A stream, and what a body led to while the headers of its response had not left.
pub(crate) struct Shared {
    pub(crate) context: StreamContext,
    /// [`Action::Respond`] or [`Action::Fail`]: to be sent instead of what the body belonged to.
    pub(crate) refusal: Option<Box<Action>>,
}

// === impl StreamHandle ===

impl StreamHandle {
    pub(crate) fn new(context: StreamContext) -> Self {
        Self { shared: Arc::new(Mutex::new(Shared { context, refusal: None })), waiting: None }
    }

    /// Locks the stream for an owner that is borrowed meanwhile; pending only while another task takes a step with it.
    pub(crate) fn poll_lock(&mut self, cx: &mut Context<'_>) -> Poll<OwnedMutexGuard<Shared>> {
        if self.waiting.is_none()
            && let Some(shared) = self.shared.try_lock_owned()
        {
            return Poll::Ready(shared);
        }
        let waiting = self.waiting.get_or_insert_with(|| Arc::clone(&self.shared).lock_owned());
        let shared = ready!(waiting.poll_unpin(cx));
        self.waiting = None;
        Poll::Ready(shared)
    }

    /// Counts bytes of a body that no plugin was shown.
    pub(crate) fn count(&self, direction: Direction, bytes: usize) {
        if bytes > 0
            && let Some(mut shared) = self.shared.try_lock()
        {
            shared.context.count_unseen(direction, bytes);
        }
    }
}

impl Clone for StreamHandle {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), waiting: None }
    }
}

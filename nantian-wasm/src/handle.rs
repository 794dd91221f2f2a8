//! A stream in the hands of the future and the two bodies of its exchange.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt as _;
use futures_util::lock::{Mutex, OwnedMutexGuard, OwnedMutexLockFuture};

use crate::stream::{Action, Direction, StreamContext};

/// One owner's way to a stream. Most streams have one owner at a time, who needs no lock.
pub(crate) struct StreamHandle {
    owner: Owner,
    /// Of the message that the owner waits with while there are others.
    direction: Direction,
    /// A plugin may answer or end the stream outside of its callbacks.
    may_be_interrupted: bool,
}

enum Owner {
    Alone(Box<StreamState>),
    /// The lock is held for one step of a poll, never across a pending one.
    OneOfSome {
        shared: Arc<Mutex<StreamState>>,
        waiting: Option<OwnedMutexLockFuture<StreamState>>,
    },
    /// Somebody else has it.
    Gone,
}

/// A stream, and what a body led to while the headers of its response had not left.
pub(crate) struct StreamState {
    pub(crate) context: StreamContext,
    /// [`Action::Respond`] or [`Action::Fail`]: to be sent instead of what the body belonged to.
    pub(crate) refusal: Option<Box<Action>>,
}

/// A stream that an owner takes a step with.
pub(crate) enum StreamGuard<'a> {
    Alone(&'a mut StreamState),
    Locked(OwnedMutexGuard<StreamState>),
}

// === impl StreamHandle ===

impl StreamHandle {
    /// The way of who awaits the response.
    pub(crate) fn new(context: StreamContext) -> Self {
        let may_be_interrupted = context.may_interrupt();
        let owner = Owner::Alone(Box::new(StreamState { context, refusal: None }));
        Self { owner, direction: Direction::Response, may_be_interrupted }
    }

    /// The way to the same stream of another owner, who waits with the message of this direction.
    pub(crate) fn share(&mut self, direction: Direction) -> Self {
        let shared = match std::mem::replace(&mut self.owner, Owner::Gone) {
            Owner::Alone(alone) => Arc::new(Mutex::new(*alone)),
            Owner::OneOfSome { shared, .. } => shared,
            Owner::Gone => return Self { owner: Owner::Gone, ..*self },
        };
        self.owner = Owner::OneOfSome { shared: Arc::clone(&shared), waiting: None };
        Self { owner: Owner::OneOfSome { shared, waiting: None }, direction, ..*self }
    }

    /// Gives the stream to another owner, which leaves nothing here.
    pub(crate) fn take(&mut self) -> Self {
        Self { owner: std::mem::replace(&mut self.owner, Owner::Gone), ..*self }
    }

    /// Whether a plugin may answer or end the stream outside of its callbacks.
    pub(crate) fn may_be_interrupted(&self) -> bool {
        self.may_be_interrupted
    }

    /// Takes hold of the stream; pending only while another task takes a step with it, and for ever if it is
    /// gone.
    pub(crate) fn poll_lock(&mut self, cx: &mut Context<'_>) -> Poll<StreamGuard<'_>> {
        let (shared, waiting) = match &mut self.owner {
            Owner::Alone(alone) => return Poll::Ready(StreamGuard::Alone(alone)),
            Owner::OneOfSome { shared, waiting } => (shared, waiting),
            Owner::Gone => return Poll::Pending,
        };
        if waiting.is_none()
            && let Some(locked) = shared.try_lock_owned()
        {
            return Poll::Ready(StreamGuard::Locked(locked));
        }
        let locked = ready!(waiting.get_or_insert_with(|| Arc::clone(shared).lock_owned()).poll_unpin(cx));
        *waiting = None;
        Poll::Ready(StreamGuard::Locked(locked))
    }

    /// Takes hold of the stream, unless another task takes a step with it or it is gone.
    fn try_lock(&mut self) -> Option<StreamGuard<'_>> {
        match &mut self.owner {
            Owner::Alone(alone) => Some(StreamGuard::Alone(alone)),
            Owner::OneOfSome { shared, .. } => shared.try_lock_owned().map(StreamGuard::Locked),
            Owner::Gone => None,
        }
    }

    /// Waits for nothing any more: a wait that nobody polls keeps those behind it waiting.
    pub(crate) fn stop_waiting(&mut self) {
        if let Owner::OneOfSome { waiting, .. } = &mut self.owner {
            *waiting = None;
        }
        let direction = self.direction;
        self.note(|context| context.stop_waiting(direction));
    }

    /// Counts bytes of a body that no plugin was shown.
    pub(crate) fn count(&mut self, direction: Direction, bytes: usize) {
        if bytes > 0 {
            self.note(|context| context.count_unseen(direction, bytes));
        }
    }

    /// Notes that the response has broken off on its way here.
    pub(crate) fn note_broken(&mut self) {
        const UPSTREAM_PROTOCOL_ERROR: u32 = 1 << 23;
        self.note(|context| {
            let details = "upstream_reset_after_response_started{protocol_error}";
            context.explain(details, UPSTREAM_PROTOCOL_ERROR);
        });
    }

    fn note(&mut self, note: impl FnOnce(&mut StreamContext)) {
        if let Some(mut shared) = self.try_lock() {
            note(&mut shared.context);
        }
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        self.stop_waiting();
    }
}

// === impl StreamGuard ===

impl Deref for StreamGuard<'_> {
    type Target = StreamState;

    fn deref(&self) -> &StreamState {
        match self {
            Self::Alone(shared) => shared,
            Self::Locked(shared) => shared,
        }
    }
}

impl DerefMut for StreamGuard<'_> {
    fn deref_mut(&mut self) -> &mut StreamState {
        match self {
            Self::Alone(shared) => shared,
            Self::Locked(shared) => shared,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_that_have_a_stream_go_from_thread_to_thread_as_others_do() {
        fn is_free<T: Send + Sync>() {}
        is_free::<StreamHandle>();
    }
}

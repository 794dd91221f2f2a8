//! A stream in the hands of the future and the two bodies of its exchange.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt as _;
use futures_util::lock::{Mutex, OwnedMutexGuard, OwnedMutexLockFuture};

use crate::stream::{Action, Direction, StreamContext};
use crate::sync::lock;

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
        shared: Arc<SharedStream>,
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

struct SharedStream {
    state: Arc<Mutex<StreamState>>,
    /// What owners have noted and the stream does not know yet. Nobody waits to note something, and whoever
    /// has the stream meanwhile passes it on.
    notes: std::sync::Mutex<Vec<Note>>,
}

/// What an owner says of a stream without taking a step with it.
enum Note {
    /// Nobody polls what waits with this message any more.
    StopWaiting(Direction),
    /// Bytes of a body that no plugin was shown.
    Count(Direction, usize),
    /// The response has broken off on its way here.
    Broken,
}

/// A stream that an owner takes a step with.
pub(crate) enum StreamGuard<'a> {
    Alone(&'a mut StreamState),
    Locked(LockedStream<'a>),
}

/// The lock of a stream. Fields are dropped in their order: what others have noted meanwhile is passed on
/// when it is free.
pub(crate) struct LockedStream<'a> {
    state: OwnedMutexGuard<StreamState>,
    _catch_up: CatchUp<'a>,
}

struct CatchUp<'a>(&'a SharedStream);

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
            Owner::Alone(alone) => Arc::new(SharedStream::new(*alone)),
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
            && let Some(state) = shared.state.try_lock_owned()
        {
            return Poll::Ready(StreamGuard::Locked(shared.locked(state)));
        }
        let lock = waiting.get_or_insert_with(|| Arc::clone(&shared.state).lock_owned());
        let state = ready!(lock.poll_unpin(cx));
        *waiting = None;
        Poll::Ready(StreamGuard::Locked(shared.locked(state)))
    }

    /// Waits for nothing any more: a wait that nobody polls keeps those behind it waiting.
    pub(crate) fn stop_waiting(&mut self) {
        if let Owner::OneOfSome { waiting, .. } = &mut self.owner {
            *waiting = None;
        }
        self.note(Note::StopWaiting(self.direction));
    }

    /// Counts bytes of a body that no plugin was shown.
    pub(crate) fn count(&mut self, direction: Direction, bytes: usize) {
        if bytes > 0 {
            self.note(Note::Count(direction, bytes));
        }
    }

    /// Notes that the response has broken off on its way here.
    pub(crate) fn note_broken(&mut self) {
        self.note(Note::Broken);
    }

    fn note(&mut self, note: Note) {
        match &mut self.owner {
            Owner::Alone(alone) => note.pass_on(&mut alone.context),
            Owner::OneOfSome { shared, .. } => shared.note(note),
            Owner::Gone => {}
        }
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        self.stop_waiting();
    }
}

// === impl SharedStream ===

impl SharedStream {
    fn new(state: StreamState) -> Self {
        Self { state: Arc::new(Mutex::new(state)), notes: std::sync::Mutex::default() }
    }

    /// A step with the stream, which knows what was noted before it.
    fn locked(&self, mut state: OwnedMutexGuard<StreamState>) -> LockedStream<'_> {
        self.pass_on(&mut state);
        LockedStream { state, _catch_up: CatchUp(self) }
    }

    /// Passes a note on behind those before it, at once if nobody has the stream.
    fn note(&self, note: Note) {
        match self.state.try_lock() {
            Some(mut state) => {
                self.pass_on(&mut state);
                note.pass_on(&mut state.context);
            }
            None => lock(&self.notes).push(note),
        }
        self.catch_up();
    }

    /// Passes on what was noted, unless somebody has the stream, who does so when it is free again.
    fn catch_up(&self) {
        while !lock(&self.notes).is_empty() {
            let Some(mut state) = self.state.try_lock() else { return };
            self.pass_on(&mut state);
        }
    }

    fn pass_on(&self, state: &mut StreamState) {
        let notes = std::mem::take(&mut *lock(&self.notes));
        notes.into_iter().for_each(|note| note.pass_on(&mut state.context));
    }
}

// === impl Note ===

impl Note {
    fn pass_on(self, context: &mut StreamContext) {
        const UPSTREAM_PROTOCOL_ERROR: u32 = 1 << 23;
        match self {
            Self::StopWaiting(direction) => context.stop_waiting(direction),
            Self::Count(direction, bytes) => context.count_unseen(direction, bytes),
            Self::Broken => context
                .explain("upstream_reset_after_response_started{protocol_error}", UPSTREAM_PROTOCOL_ERROR),
        }
    }
}

// === impl CatchUp ===

impl Drop for CatchUp<'_> {
    fn drop(&mut self) {
        self.0.catch_up();
    }
}

// === impl StreamGuard ===

impl Deref for StreamGuard<'_> {
    type Target = StreamState;

    fn deref(&self) -> &StreamState {
        match self {
            Self::Alone(shared) => shared,
            Self::Locked(locked) => &locked.state,
        }
    }
}

impl DerefMut for StreamGuard<'_> {
    fn deref_mut(&mut self) -> &mut StreamState {
        match self {
            Self::Alone(shared) => shared,
            Self::Locked(locked) => &mut locked.state,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http::Request;

    use super::*;
    use crate::config::PluginConfig;
    use crate::engine::Engine;
    use crate::module::Module;
    use crate::plugin::Plugin;
    use crate::stream::StreamInfo;

    #[test]
    fn what_is_noted_while_another_owner_takes_a_step_is_known_after_it() {
        let (engine, _threads) = Engine::new().unwrap();
        let guest = include_str!("../tests/guests/log_notes.wat");
        let module = Module::compile(&engine, &wat::parse_str(guest).unwrap(), None).unwrap();
        let plugin = Plugin::new(&module, PluginConfig::new("logging")).unwrap();
        let mut context = StreamContext::new([plugin.clone()].into(), StreamInfo::default());
        let mut parts = Request::new(()).into_parts().0;
        assert!(matches!(context.on_request_headers(&mut parts, true), Action::Continue));

        let mut response = StreamHandle::new(context);
        let mut request = response.share(Direction::Request);
        let guard = response.poll_lock(&mut Context::from_waker(Waker::noop()));
        assert!(guard.is_ready());
        request.count(Direction::Request, 7);
        request.note_broken();
        // Which stops waiting.
        drop(request);
        drop(guard);
        drop(response);
        let metrics = plugin.status().metrics;
        let told: Vec<_> = metrics.iter().map(|metric| (metric.name.as_str(), metric.value)).collect();
        assert_eq!(told, [("code_details", 1), ("size", 7)]);
    }

    #[test]
    fn bodies_that_have_a_stream_go_from_thread_to_thread_as_others_do() {
        fn is_free<T: Send + Sync>() {}
        is_free::<StreamHandle>();
    }
}

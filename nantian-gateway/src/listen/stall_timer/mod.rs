//! How the client of one request keeps up: with the rest of its upload, and over HTTP/2 with its response.
//!
//! Over HTTP/1.1 a client that takes no response is seen at the socket. Over HTTP/2 the socket is shared, and
//! what one stream does not take shows only in that h2 does not let go of it.

use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::{Rc, Weak},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Waker},
    time::Duration,
};

use slab::Slab;
use tokio::task::AbortHandle;

use super::{
    held_upload::HeldUpload,
    state::{ConnectionCommand, InFlight, State},
    tick::{TICK, Wait},
    untaken::{LEAST, MOST_HELD, Untaken},
};
use crate::runtime::spawn_local;

/// Bytes of a body that make up for a second in which its client is waited for, while there is little memory
/// for bodies: as Apache's `MinRate` does, behind a time that every body has.
const MAKE_UP: u32 = 16 * 1024;

/// How many small pieces of a response are as long as a large one: it has as many times their time.
pub(super) const SMALL_IN_LARGE: u32 = 4;

/// How many times as long a stream may wait for its turn as for its client: of a hundred streams each has
/// 16 KiB in four minutes then over a line of 55 kbit/s.
const TURNS: u32 = 4;

/// How long clients may hold up their requests.
pub(super) struct Patience {
    /// For the next bytes of an upload.
    pub(super) upload: Duration,
    /// For room for the next bytes of a response, of which pieces are small if this is less than for those of
    /// an upload.
    pub(super) response: Duration,
    /// For what else a connection has under way to finish that has to end with a response.
    pub(super) finish: Duration,
    /// Whether there is little memory for bodies, so that those which are held have that time in all, but for
    /// what comes meanwhile and makes up for it.
    pub(super) is_memory_scarce: bool,
}

/// The requests of one worker whose clients can hold them up; its clones share them.
#[derive(Clone)]
pub(super) struct StallTimers {
    clock: Arc<AtomicU32>,
    entries: Rc<RefCell<Slab<Weak<StallTimer>>>>,
    /// Whether clients have less time than as a rule to take the next piece of a response.
    is_hurried: Rc<Cell<bool>>,
}

/// How the client of one request keeps up.
pub(super) struct StallTimer {
    timers: StallTimers,
    key: Cell<Option<usize>>,
    /// For the next bytes of the upload.
    upload: Cell<Wait>,
    /// Whether those that have come are held in memory, where they may be.
    held: OnceCell<HeldUpload>,
    /// How much longer it was waited for those that are held than they make up for.
    behind: Cell<Duration>,
    /// For the next piece of the response to be taken, over HTTP/2.
    response: Cell<Wait>,
    /// Pieces of it that were handed over and are not taken.
    pieces: Cell<u32>,
    /// Those of them that are large.
    large_pieces: Cell<u32>,
    /// Until the response is over and taken, or given up.
    busy: RefCell<Option<InFlight>>,
    /// Since its connection is to finish because of the response.
    given_up: Cell<Wait>,
    is_over: Cell<bool>,
    /// Both sides speak as they like, but for what is held: it is a call, or the response has begun.
    is_free: Cell<bool>,
    is_late: Cell<bool>,
    reader: RefCell<Waker>,
    /// The task of the HTTP/2 stream, and its connection.
    stream: OnceCell<(AbortHandle, Arc<State>)>,
}

/// hyper's executor for the streams of one HTTP/2 connection.
///
/// hyper calls the service and hands the stream's task over right after, so the last timer that was announced
/// is that of the task.
#[derive(Clone)]
pub(super) struct StreamExecutor {
    state: Arc<State>,
    announced: Rc<RefCell<Option<Rc<StallTimer>>>>,
}

// === impl StallTimers ===

impl StallTimers {
    pub(super) fn new(clock: Arc<AtomicU32>) -> Self {
        Self { clock, entries: Rc::default(), is_hurried: Rc::default() }
    }

    /// From now on clients have less time than as a rule to take the next piece of a response, or no less.
    pub(super) fn hurry(&self, is_hurried: bool) {
        self.is_hurried.set(is_hurried);
    }

    /// The timer of a request that has begun.
    pub(super) fn begin(&self) -> Rc<StallTimer> {
        let timer = Rc::new(StallTimer {
            timers: self.clone(),
            key: Cell::new(None),
            upload: Cell::default(),
            held: OnceCell::new(),
            behind: Cell::default(),
            response: Cell::default(),
            pieces: Cell::new(0),
            large_pieces: Cell::new(0),
            busy: RefCell::default(),
            given_up: Cell::default(),
            is_over: Cell::new(false),
            is_free: Cell::new(false),
            is_late: Cell::new(false),
            reader: RefCell::new(Waker::noop().clone()),
            stream: OnceCell::new(),
        });
        timer.key.set(Some(self.entries.borrow_mut().insert(Rc::downgrade(&timer))));
        timer
    }

    /// Ends what has waited for its client for too long; returns how many units are held of responses that
    /// are not taken.
    pub(super) fn tick(&self, now: u32, patience: &Patience) -> u32 {
        let mut untaken = 0;
        for (_, entry) in &*self.entries.borrow() {
            if let Some(timer) = entry.upgrade() {
                timer.check(now, patience);
                untaken += if Untaken::counts(timer.response.get(), now) { timer.holds() } else { 0 };
            }
        }
        untaken
    }

    fn now(&self) -> u32 {
        self.clock.load(Relaxed)
    }
}

// === impl StallTimer ===

impl StallTimer {
    /// The next bytes of the upload are waited for by the task of `cx`.
    pub(super) fn upload_waits(&self, cx: &Context<'_>) {
        self.upload.set(self.upload.get().or_from(self.timers.now()));
        self.register(cx);
    }

    /// The task of `cx` is to know when the client's time is over.
    pub(super) fn register(&self, cx: &Context<'_>) {
        self.reader.borrow_mut().clone_from(cx.waker());
    }

    /// Nobody waits for bytes of the upload.
    pub(super) fn upload_rests(&self) {
        self.upload.set(Wait::NONE);
    }

    /// So many bytes of the upload came. They make up for time in which the client was waited for, and buy
    /// none for later: else it had hours for the end of a long body.
    pub(super) fn upload_came(&self, bytes: usize) {
        let waited = TICK * self.upload.replace(Wait::NONE).ticks(self.timers.now());
        let Some(held) = self.held.get() else { return };
        let behind = if held.is_held() { self.behind.get().saturating_add(waited) } else { Duration::ZERO };
        self.behind.set(behind.saturating_sub(Duration::from_secs(bytes as u64) / MAKE_UP));
        if bytes > 0 {
            held.set(true);
        }
    }

    /// What tells whether the upload is held: whoever takes of it for a backend says that there.
    pub(super) fn held_upload(&self) -> HeldUpload {
        self.held.get_or_init(HeldUpload::default).clone()
    }

    /// It is a call, or the response begins: the upload may be silent from now on, unless it is held.
    pub(super) fn free(&self) {
        self.is_free.set(true);
    }

    /// The response begins on the HTTP/2 stream; its connection is `busy` until it is over and taken.
    pub(super) fn response_begins(&self, busy: Option<InFlight>) {
        *self.busy.borrow_mut() = busy;
    }

    /// Whether its client has less time than as a rule to take the next piece of the response.
    pub(super) fn is_hurried(&self) -> bool {
        self.timers.is_hurried.get()
    }

    /// A piece of the response is handed over.
    pub(super) fn piece_waits(&self, is_large: bool) {
        self.pieces.set(self.pieces.get().saturating_add(1));
        self.large_pieces.set(self.large_pieces.get().saturating_add(is_large.into()));
        self.response.set(self.response.get().or_from(self.timers.now()));
    }

    /// A piece was written to its end: the client of the connection goes on reading.
    pub(super) fn note_taken(&self) {
        if let Some((_, state)) = self.stream.get() {
            state.note_taken();
        }
    }

    /// A piece was taken, or its stream is reset. With none left it is the backend that is waited for.
    pub(super) fn piece_goes(&self, is_large: bool) {
        let left = self.pieces.get().saturating_sub(1);
        self.pieces.set(left);
        self.large_pieces.set(self.large_pieces.get().saturating_sub(is_large.into()));
        self.response.set(if left > 0 { Wait(self.timers.now()) } else { Wait::NONE });
        if self.given_up.replace(Wait::NONE) != Wait::NONE {
            *self.busy.borrow_mut() = self.resume();
        }
        self.let_go();
    }

    /// No more of the response is handed over.
    pub(super) fn response_ends(&self) {
        self.is_over.set(true);
        self.let_go();
    }

    fn let_go(&self) {
        if self.is_over.get() && self.pieces.get() == 0 {
            drop(self.busy.take());
        }
    }

    /// The connection of the HTTP/2 stream is busy with what is left of the request.
    pub(super) fn resume(&self) -> Option<InFlight> {
        self.stream.get().map(|(_, state)| InFlight::resume(state))
    }

    /// Whether the client's time is over.
    pub(super) fn is_late(&self) -> bool {
        self.is_late.get()
    }

    fn check(&self, now: u32, patience: &Patience) {
        let is_stuck = self.response.get().is_over(now, self.response_limit(now, patience));
        let is_slow = patience.is_memory_scarce && self.is_slow(now, patience.upload);
        let is_silent = !self.is_free.get() && self.upload.get().is_over(now, patience.upload);
        if is_stuck || is_slow || is_silent {
            self.is_late.set(true);
            self.reader.borrow().wake_by_ref();
        }
        if is_stuck {
            self.end_response(now, patience.finish);
        }
    }

    /// How long the client may take none of the pieces that were handed over.
    ///
    /// Streams take turns by whole pieces: while others of the connection have theirs, it has several times
    /// as long, unless clients have less time than as a rule. Then, while pieces are left from before, it has
    /// at least as long as for so many bytes in small ones.
    fn response_limit(&self, now: u32, patience: &Patience) -> Duration {
        let limit = patience.response;
        if limit < patience.upload {
            let has_large = self.large_pieces.get() > 0;
            return if has_large { limit.max(LEAST * SMALL_IN_LARGE).min(patience.upload) } else { limit };
        }
        let is_its_turn = self.stream.get().is_none_or(|(_, state)| !state.was_taken_from(now, limit));
        if is_its_turn { limit } else { limit.saturating_mul(TURNS) }
    }

    /// What is held of the response: all that can be as long as its task goes on, then what h2 has of it.
    fn holds(&self) -> u32 {
        match self.stream.get() {
            Some((task, _)) if task.is_finished() => {
                let (large, all) = (self.large_pieces.get(), self.pieces.get());
                (large + (all - large) / SMALL_IN_LARGE).clamp(1, MOST_HELD)
            }
            _ => MOST_HELD,
        }
    }

    /// Resets the stream. Nothing but its connection can end one whose response h2 has to its end: that has
    /// `limit` to finish what else it has begun.
    fn end_response(&self, now: u32, limit: Duration) {
        let Some((task, state)) = self.stream.get() else { return };
        let was_busy = self.busy.take().is_some();
        if !task.is_finished() {
            tracing::debug!("the client does not take its response");
            task.abort();
            return;
        }
        if was_busy {
            self.given_up.set(Wait(now));
        }
        if self.given_up.get() != Wait::NONE {
            let is_last = self.given_up.get().is_over(now, limit);
            state.give_later(if is_last { ConnectionCommand::Abort } else { ConnectionCommand::Finish });
        }
    }

    /// Whether the client, which is waited for, has kept what is held of its body waiting for `limit` longer
    /// than what has come makes up for.
    fn is_slow(&self, now: u32, limit: Duration) -> bool {
        let (wait, is_held) = (self.upload.get(), self.held.get().is_some_and(HeldUpload::is_held));
        is_held && wait != Wait::NONE && self.behind.get().saturating_add(TICK * wait.ticks(now)) > limit
    }
}

impl Drop for StallTimer {
    fn drop(&mut self) {
        if let Some(key) = self.key.get() {
            self.timers.entries.borrow_mut().try_remove(key);
        }
    }
}

// === impl StreamExecutor ===

impl StreamExecutor {
    /// That of the connection of `state`.
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state, announced: Rc::default() }
    }

    /// The next task is that of this request.
    pub(super) fn announce(&self, timer: Rc<StallTimer>) {
        *self.announced.borrow_mut() = Some(timer);
    }
}

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, stream: F) {
        let timer = self.announced.borrow_mut().take();
        let task = spawn_local(stream);
        if let Some(timer) = timer {
            // It has one task.
            let _ = timer.stream.set((task, Arc::clone(&self.state)));
        }
    }
}

#[cfg(test)]
mod tests;

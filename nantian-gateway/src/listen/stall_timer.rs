//! How the client of one request keeps up: with the rest of its upload, and over HTTP/2 with its response.
//!
//! Over HTTP/1.1 a client that takes no response is seen at the socket. Over HTTP/2 the socket is shared, and
//! what one stream does not take shows only in that hyper asks for no further frame of its body.

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

use super::{tick::Wait, untaken::Untaken};
use crate::runtime::spawn_local;

/// The requests of one worker whose clients can hold them up; its clones share them.
#[derive(Clone)]
pub(super) struct StallTimers {
    clock: Arc<AtomicU32>,
    entries: Rc<RefCell<Slab<Weak<StallTimer>>>>,
}

/// How the client of one request keeps up.
pub(super) struct StallTimer {
    timers: StallTimers,
    key: Cell<Option<usize>>,
    /// For the next bytes of the upload.
    upload: Cell<Wait>,
    /// For room on the HTTP/2 stream, while a frame of the response is on hand.
    response: Cell<Wait>,
    /// Both sides speak as they like: the response has begun.
    is_free: Cell<bool>,
    is_late: Cell<bool>,
    reader: RefCell<Waker>,
    /// The task of the HTTP/2 stream.
    task: OnceCell<AbortHandle>,
}

/// hyper's executor for the streams of one HTTP/2 connection.
///
/// hyper calls the service and hands the stream's task over right after, so the last pace that was announced
/// is that of the task.
#[derive(Clone, Default)]
pub(super) struct StreamExecutor {
    announced: Rc<RefCell<Option<Rc<StallTimer>>>>,
}

// === impl StallTimers ===

impl StallTimers {
    pub(super) fn new(clock: Arc<AtomicU32>) -> Self {
        Self { clock, entries: Rc::default() }
    }

    /// The pace of a request that has begun.
    pub(super) fn begin(&self) -> Rc<StallTimer> {
        let timer = Rc::new(StallTimer {
            timers: self.clone(),
            key: Cell::new(None),
            upload: Cell::default(),
            response: Cell::default(),
            is_free: Cell::new(false),
            is_late: Cell::new(false),
            reader: RefCell::new(Waker::noop().clone()),
            task: OnceCell::new(),
        });
        timer.key.set(Some(self.entries.borrow_mut().insert(Rc::downgrade(&timer))));
        timer
    }

    /// Ends what has waited for its client longer than `limit`, or `patience` where a response is not taken;
    /// returns how many are not.
    pub(super) fn tick(&self, now: u32, limit: Duration, patience: Duration) -> u32 {
        let mut untaken = 0;
        for (_, entry) in &*self.entries.borrow() {
            if let Some(timer) = entry.upgrade() {
                timer.check(now, limit, patience);
                untaken += u32::from(Untaken::counts(timer.response.get(), now));
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
        if !self.is_free.get() {
            self.upload.set(self.upload.get().or_from(self.timers.now()));
        }
        self.register(cx);
    }

    /// The task of `cx` is to know when the client's time is over.
    pub(super) fn register(&self, cx: &Context<'_>) {
        self.reader.borrow_mut().clone_from(cx.waker());
    }

    /// Bytes of the upload came, or nobody waits for them.
    pub(super) fn upload_goes_on(&self) {
        self.upload.set(Wait::NONE);
    }

    /// The response begins: nobody waits for the upload any more.
    pub(super) fn free(&self) {
        self.is_free.set(true);
        self.upload_goes_on();
    }

    /// A frame of the response was handed over; the next one is asked for when the stream has room.
    pub(super) fn response_waits(&self) {
        self.response.set(Wait(self.timers.now()));
    }

    /// The stream has room; it is the backend that is waited for.
    pub(super) fn response_goes_on(&self) {
        self.response.set(Wait::NONE);
    }

    /// Whether the client's time is over.
    pub(super) fn is_late(&self) -> bool {
        self.is_late.get()
    }

    fn check(&self, now: u32, limit: Duration, patience: Duration) {
        let is_stuck = self.response.get().is_over(now, patience);
        if is_stuck || self.upload.get().is_over(now, limit) {
            self.is_late.set(true);
            self.reader.borrow().wake_by_ref();
        }
        if is_stuck && let Some(task) = self.task.get() {
            tracing::debug!("the client does not take its response");
            task.abort();
        }
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
            let _ = timer.task.set(task);
        }
    }
}

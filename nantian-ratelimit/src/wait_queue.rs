//! Requests that wait until a limit has room for them: first come, first served, for each key, among
//! those who need tokens and among those who need none; who is next of the two is not said.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use crate::error::Denied;
use crate::key::Key;
use crate::policy::Queue;

/// The longest that anybody waits, whatever a policy says.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A request extension: the bytes of its body that are in memory while it waits.
///
/// Whoever reads the body before the limiter puts it there, so that [`Queue::max_held_bytes`] bounds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "it is one number")]
pub struct HeldBytes(pub u64);

/// A request extension: how long whoever asks will wait for an answer, at most.
///
/// Who has a time limit puts it there, so that a request whose turn would come later
/// ([`OnLimit::Queue`](crate::OnLimit::Queue)) is refused at once, and told when to come back, instead of
/// being given up while it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxWait {
    /// Absent if it is too far away for an instant.
    until: Option<Instant>,
}

/// The queues before one limiter: for each key that somebody waits for one for those who need tokens and one
/// for those who do not, and as many for those whose bodies are still to be read.
///
/// Whoever waits has been charged nothing: leaving the queue costs nothing.
#[derive(Debug, Default)]
pub(crate) struct WaitQueues {
    waiting: AtomicUsize,
    /// Nobody waits any more.
    is_lifted: AtomicBool,
    queues: Mutex<Queues>,
}

/// Whom a queue is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct QueueKey {
    pub(crate) key: Key,
    /// Its bodies are still to be read.
    pub(crate) is_opening: bool,
    /// Tokens are needed: who needs none waits behind nobody who waits for some.
    pub(crate) needs_tokens: bool,
}

#[derive(Debug, Default)]
struct Queues {
    by_key: HashMap<QueueKey, VecDeque<Waiter>>,
    /// What those that wait hold together.
    held: u64,
}

/// One that waits.
#[derive(Debug)]
struct Waiter {
    turn: Arc<Notify>,
    /// What it takes of limits of requests.
    requests: u64,
    /// The bytes that it holds.
    held: u64,
}

/// A place in a queue; dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct QueueTicket {
    queues: Arc<WaitQueues>,
    key: QueueKey,
    /// Told when the place is the first, and when its turn may have come.
    turn: Arc<Notify>,
}

impl MaxWait {
    /// So long from now.
    pub fn from_now(wait: Duration) -> Self {
        Self { until: Instant::now().checked_add(wait) }
    }

    /// What is left of it.
    pub(crate) fn left(&self) -> Duration {
        self.until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()))
    }
}

impl WaitQueues {
    /// Whether somebody waits in `key`.
    pub(crate) fn is_waiting(&self, key: QueueKey) -> bool {
        self.waiting.load(Ordering::Acquire) > 0 && self.lock().by_key.contains_key(&key)
    }

    /// What those that wait in `key` take of limits of requests.
    pub(crate) fn requests(&self, key: QueueKey) -> u64 {
        let queues = self.lock();
        let waiting = queues.by_key.get(&key).into_iter().flatten();
        waiting.fold(0, |sum, waiting| sum.saturating_add(waiting.requests))
    }

    /// A place at the end of a queue, for a request that takes so many requests and holds so many bytes;
    /// `None` if the queue, or all queues together, are full, or its key would hold too much. `is_divided`
    /// says whether what all may hold is for several keys.
    pub(crate) fn join(
        self: &Arc<Self>,
        key: QueueKey,
        requests: u64,
        held: u64,
        queue: &Queue,
        is_divided: bool,
    ) -> Option<QueueTicket> {
        let mut queues = self.lock();
        if self.waiting.load(Ordering::Acquire) >= queue.max_waiting
            || !queues.has_room(key.key, held, queue.max_held_bytes, is_divided)
        {
            return None;
        }
        let queue_of_key = queues.by_key.entry(key).or_default();
        if queue_of_key.len() >= queue.max_waiting_for_key.max(1) {
            return None;
        }
        let turn = Arc::new(Notify::new());
        if queue_of_key.is_empty() {
            turn.notify_one();
        }
        queue_of_key.push_back(Waiter { turn: Arc::clone(&turn), requests, held });
        queues.held = queues.held.saturating_add(held);
        self.waiting.fetch_add(1, Ordering::AcqRel);
        Some(QueueTicket { queues: Arc::clone(self), key, turn })
    }

    /// Tells those that are the first to wait for `key` that something was given back.
    pub(crate) fn notify(&self, key: Key) {
        if self.waiting.load(Ordering::Acquire) == 0 {
            return;
        }
        let queues = self.lock();
        queues.of_key(key).filter_map(VecDeque::front).for_each(|first| first.turn.notify_one());
    }

    /// Tells the first of every queue that the limits have changed.
    pub(crate) fn notify_all(&self) {
        self.lock().by_key.values().filter_map(VecDeque::front).for_each(|first| first.turn.notify_one());
    }

    /// Lets everybody pass who waits, or would; each who leaves lets the next one in.
    pub(crate) fn lift(&self) {
        self.is_lifted.store(true, Ordering::Release);
        self.notify_all();
    }

    /// Lets requests wait again.
    pub(crate) fn restore(&self) {
        self.is_lifted.store(false, Ordering::Release);
    }

    /// Whether nobody waits any more.
    pub(crate) fn is_lifted(&self) -> bool {
        self.is_lifted.load(Ordering::Acquire)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queues {
    /// The lines of one key.
    fn of_key(&self, key: Key) -> impl Iterator<Item = &VecDeque<Waiter>> {
        let lines = [(false, false), (false, true), (true, false), (true, true)].into_iter();
        lines.filter_map(move |(is_opening, needs_tokens)| {
            self.by_key.get(&QueueKey { key, is_opening, needs_tokens })
        })
    }

    /// Whether one more that holds so many bytes may wait, where all may hold `most`. If that is divided, a
    /// key that holds some takes half of what others leave at most, so that nobody has all of it.
    fn has_room(&self, key: Key, held: u64, most: u64, is_divided: bool) -> bool {
        if held == 0 {
            return true;
        }
        let of_key = self.of_key(key).flatten().fold(0, |sum: u64, waiting| sum.saturating_add(waiting.held));
        let left = most.saturating_sub(self.held.saturating_sub(of_key));
        let with_it = of_key.saturating_add(held);
        with_it <= if is_divided && of_key > 0 { left / 2 } else { left }
    }
}

impl QueueTicket {
    /// Waits for the turn of this place, then until `decide` denies no more. `None` if it did not come within
    /// `longest`; a denial that will outlast it is told at once. `decide` is asked again after
    /// `longest_sleep` if nothing happens.
    ///
    /// # Cancellation
    ///
    /// Dropping it leaves the queue.
    pub(crate) async fn wait<T, F>(
        self,
        longest: Duration,
        longest_sleep: Duration,
        mut decide: impl FnMut() -> F,
    ) -> Option<Result<T, Denied>>
    where
        F: Future<Output = Result<T, Denied>>,
    {
        let deadline = Instant::now() + longest.min(LONGEST);
        timeout_at(deadline, self.turn.notified()).await.ok()?;
        loop {
            let denied = match decide().await {
                Ok(decided) => return Some(Ok(decided)),
                Err(denied) => denied,
            };
            match denied.retry_after() {
                Some(wait) if wait <= deadline.saturating_duration_since(Instant::now()) => {
                    tokio::select! {
                        () = sleep(wait.min(longest_sleep)) => {}
                        () = self.turn.notified() => {}
                    }
                }
                _ => return Some(Err(denied)),
            }
        }
    }
}

impl Drop for QueueTicket {
    fn drop(&mut self) {
        let mut queues = self.queues.lock();
        let Queues { by_key, held } = &mut *queues;
        let Some(queue) = by_key.get_mut(&self.key) else { return };
        let Some(position) = queue.iter().position(|it| Arc::ptr_eq(&it.turn, &self.turn)) else { return };
        if let Some(left) = queue.remove(position) {
            *held = held.saturating_sub(left.held);
        }
        self.queues.waiting.fetch_sub(1, Ordering::AcqRel);
        match queue.front() {
            Some(next) if position == 0 => next.turn.notify_one(),
            Some(_) => {}
            None => {
                by_key.remove(&self.key);
            }
        }
    }
}

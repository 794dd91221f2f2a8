//! Requests that wait until a limit has room for them: first come, first served, for each key.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
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
pub struct HeldBytes(pub u64);

/// A request extension: how long whoever asks will wait for an answer, at most.
///
/// Who has a time limit puts it there, so that a request whose turn would come later ([`OnLimit::Queue`](crate::OnLimit::Queue)) is
/// refused at once, and told when to come back, instead of being given up while it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxWait {
    /// Absent if it is too far away for an instant.
    until: Option<Instant>,
}

/// The lines before one limiter: for each key that somebody waits for one for those who need tokens and one for those who do not, and as
/// many for those whose bodies are still to be read.
///
/// Whoever waits has been charged nothing: leaving the line costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    waiting: AtomicUsize,
    lines: Mutex<ByLine>,
}

/// Whom a line is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Line {
    pub(crate) key: Key,
    /// Its bodies are still to be read.
    pub(crate) is_opening: bool,
    /// Tokens are needed: who needs none waits behind nobody who waits for some.
    pub(crate) needs_tokens: bool,
}

#[derive(Debug, Default)]
struct ByLine {
    by_line: HashMap<Line, VecDeque<Waiting>>,
    /// What those that wait hold together.
    held: u64,
}

/// One that waits.
#[derive(Debug)]
struct Waiting {
    turn: Arc<Notify>,
    /// What it takes of limits of requests.
    requests: u64,
}

/// A place in a line; dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct Place {
    lines: Arc<Lines>,
    line: Line,
    /// Bytes that whoever has it holds.
    held: u64,
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

impl Lines {
    /// Whether somebody waits in `line`.
    pub(crate) fn is_waiting(&self, line: Line) -> bool {
        self.waiting.load(Ordering::Acquire) > 0 && self.lock().by_line.contains_key(&line)
    }

    /// What those that wait in `line` take of limits of requests.
    pub(crate) fn requests(&self, line: Line) -> u64 {
        let lines = self.lock();
        let waiting = lines.by_line.get(&line).into_iter().flatten();
        waiting.fold(0, |sum, waiting| sum.saturating_add(waiting.requests))
    }

    /// A place at the end of a line, for a request that takes so many requests and holds so many bytes; `None` if the line,
    /// or all lines together, are full.
    pub(crate) fn join(
        self: &Arc<Self>,
        line: Line,
        requests: u64,
        held: u64,
        queue: &Queue,
    ) -> Option<Place> {
        let mut lines = self.lock();
        let held_with_it = lines.held.saturating_add(held);
        if self.waiting.load(Ordering::Acquire) >= queue.max_waiting
            || (held > 0 && held_with_it > queue.max_held_bytes)
        {
            return None;
        }
        let places = lines.by_line.entry(line).or_default();
        if places.len() >= queue.max_waiting_for_key.max(1) {
            return None;
        }
        let turn = Arc::new(Notify::new());
        if places.is_empty() {
            turn.notify_one();
        }
        places.push_back(Waiting { turn: Arc::clone(&turn), requests });
        lines.held = held_with_it;
        self.waiting.fetch_add(1, Ordering::AcqRel);
        Some(Place { lines: Arc::clone(self), line, held, turn })
    }

    /// Tells those that are the first to wait for `key` that something was given back.
    pub(crate) fn nudge(&self, key: Key) {
        if self.waiting.load(Ordering::Acquire) == 0 {
            return;
        }
        let lines = self.lock();
        for (is_opening, needs_tokens) in [(false, false), (false, true), (true, false), (true, true)] {
            let places = lines.by_line.get(&Line { key, is_opening, needs_tokens });
            if let Some(first) = places.and_then(VecDeque::front) {
                first.turn.notify_one();
            }
        }
    }

    /// Tells the first of every line that the limits have changed.
    pub(crate) fn nudge_all(&self) {
        self.lock().by_line.values().filter_map(VecDeque::front).for_each(|first| first.turn.notify_one());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ByLine> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits for the turn of this place, then until `decide` denies no more. `None` if it did not come within `longest`;
    /// a denial that will outlast it is told at once. `decide` is asked again after `longest_sleep` if nothing happens.
    ///
    /// # Cancellation
    ///
    /// Dropping it leaves the line.
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

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.lines.lock();
        let ByLine { by_line, held } = &mut *lines;
        let Some(line) = by_line.get_mut(&self.line) else { return };
        let Some(position) = line.iter().position(|it| Arc::ptr_eq(&it.turn, &self.turn)) else { return };
        line.remove(position);
        *held = held.saturating_sub(self.held);
        self.lines.waiting.fetch_sub(1, Ordering::AcqRel);
        match line.front() {
            Some(next) if position == 0 => next.turn.notify_one(),
            Some(_) => {}
            None => {
                by_line.remove(&self.line);
            }
        }
    }
}

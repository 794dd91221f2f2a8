//! The clock of all time limits, and how fast it has to run.
#![expect(
    clippy::disallowed_types,
    reason = "a guest's clocks are the machine's, and nothing waits for them here"
)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::sync::lock;

/// Longest time the clock stands still while it meets no guest that runs, in milliseconds: to wake a thread
/// costs as much as to take some requests through a plugin. A guest's first slice is so much longer, 5 ms at
/// most.
pub(super) const REST: u64 = 4;
/// Beats for which the clock goes on beating every millisecond after a guest has used up a slice: so long it
/// may wait for the next one.
const HURRY: u64 = 10;

/// The clock of all time limits. Instances have this and not the engine, which owns those that are leaving.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clock(Arc<Times>);

#[derive(Debug, Default)]
struct Times {
    /// Milliseconds.
    ticks: AtomicU64,
    /// How often the clock was moved, by one tick or by several: what guests that run are charged for.
    beats: AtomicU64,
    /// How many milliseconds the last beat came after the one before it, unless the clock stood still.
    last_beat: AtomicU64,
    /// The beat until which each follows the last one after a millisecond.
    hurry_until: AtomicU64,
    /// Who rests, and is to be woken when the clock has to hurry.
    resting: Mutex<Option<Waker>>,
    origin: Origin,
}

/// When the clock was made, by the clocks of the machine.
#[derive(Debug)]
struct Origin {
    instant: Instant,
    since_epoch: Duration,
}

// === impl Clock ===

impl Clock {
    /// Engine ticks so far.
    pub(crate) fn ticks(&self) -> u64 {
        self.0.ticks.load(Ordering::Relaxed)
    }

    /// A time that never goes back, whatever becomes of the machine's wall clock, and is not zero: Go's
    /// runtime starts at no such time.
    pub(crate) fn monotonic(&self) -> Duration {
        let Origin { instant, since_epoch } = self.0.origin;
        since_epoch.saturating_add(instant.elapsed())
    }

    pub(crate) fn beats(&self) -> u64 {
        self.0.beats.load(Ordering::Relaxed)
    }

    /// Milliseconds for which guests have run, each, that the last beat met, on an average of many.
    pub(crate) fn last_beat(&self) -> u64 {
        self.0.last_beat.load(Ordering::Relaxed)
    }

    /// Moves on by so many ticks in one beat.
    pub(super) fn leap(&self, ticks: u64) {
        self.0.last_beat.store(ticks.min(REST), Ordering::Relaxed);
        self.0.ticks.fetch_add(ticks, Ordering::Relaxed);
        self.0.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a beat has met a guest: the next one is to come in a millisecond, and some more if the
    /// guest has used up a slice.
    pub(crate) fn hurry(&self, has_used_slice: bool) {
        let until = self.beats().saturating_add(if has_used_slice { HURRY } else { 1 });
        self.0.hurry_until.fetch_max(until, Ordering::Relaxed);
        if let Some(waker) = lock(&self.0.resting).take() {
            waker.wake();
        }
    }

    /// Ready while the clock has to hurry.
    pub(super) fn poll_hurry(&self, cx: &Context<'_>) -> Poll<()> {
        // Under the lock: whoever makes it hurry finds the waker, or is seen here.
        let mut resting = lock(&self.0.resting);
        if self.beats() < self.0.hurry_until.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        *resting = Some(cx.waker().clone());
        Poll::Pending
    }
}

// === impl Origin ===

impl Default for Origin {
    fn default() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::from_secs(1));
        Self { instant: Instant::now(), since_epoch }
    }
}

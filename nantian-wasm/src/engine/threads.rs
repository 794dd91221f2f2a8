//! What the embedder's two threads do: one moves the clock, the other looks after instances.
#![expect(clippy::disallowed_types, reason = "the time of guests is the machine's, and no test waits for it")]

use std::fmt;
use std::sync::{Arc, Weak};
use std::task::{Context, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::clock::REST;
use super::{Engine, Inner};

/// Time between two rounds of upkeep.
const UPKEEP: Duration = Duration::from_millis(10);
/// A clock that is later than this has stood still, and its guests with it: the process had no processor, or
/// was stopped.
const STANDSTILL: Duration = Duration::from_millis(10);

/// What has to run beside an [`Engine`]: each for a thread of its own.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "no time limit holds and no instance is replaced unless both run"]
pub struct EngineThreads {
    /// Moves the clock of all time limits: for a thread that runs no guest, as one that does cannot stop it.
    /// Without it no time limit holds, and guests that take long hold up everybody.
    ///
    /// The clock beats every millisecond while a guest runs for so long, and every fourth otherwise, when a
    /// guest that begins may run for five until it first gives way. One that stood still, because the process
    /// had no processor or its machine was stopped, is right again at once, and the guests are charged for a
    /// millisecond of that time.
    pub clock: EngineThread,
    /// Calls [`Engine::maintain`] every ten milliseconds: for a thread that runs guests. Without it instances
    /// that end are not replaced, and messages are held for ever.
    pub upkeep: EngineThread,
}

/// What one of the [`EngineThreads`] does.
#[must_use = "it does nothing unless it runs"]
pub struct EngineThread {
    engine: Weak<Inner>,
    run: fn(&Weak<Inner>),
}

/// When the clock beats.
struct Beats {
    last: Instant,
}

/// Wakes the thread that moves the clock.
struct Hurry(Thread);

// === impl EngineThreads ===

impl EngineThreads {
    pub(super) fn new(engine: &Engine) -> Self {
        let thread = |run| EngineThread { engine: Arc::downgrade(&engine.inner), run };
        Self { clock: thread(keep_time), upkeep: thread(keep_up) }
    }
}

// === impl EngineThread ===

impl EngineThread {
    /// Works until the engine, its modules, its plugins, their streams and what these have begun are gone.
    pub fn run(self) {
        (self.run)(&self.engine);
    }
}

impl fmt::Debug for EngineThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineThread").finish_non_exhaustive()
    }
}

fn keep_time(engine: &Weak<Inner>) {
    let waker = Waker::from(Arc::new(Hurry(thread::current())));
    let mut beats = Beats { last: Instant::now() };
    while let Some(inner) = engine.upgrade() {
        let engine = Engine { inner };
        let has_to_hurry = engine.poll_hurry(&Context::from_waker(&waker)).is_ready();
        match beats.next_at(Instant::now(), if has_to_hurry { 1 } else { REST }) {
            Ok(milliseconds) => engine.leap(milliseconds),
            Err(left) => {
                drop(engine);
                // It may be woken because a beat is due earlier now.
                thread::park_timeout(left);
            }
        }
    }
}

fn keep_up(engine: &Weak<Inner>) {
    let (mut next, mut kept) = (Instant::now(), None);
    while let Some(inner) = kept.take().or_else(|| engine.upgrade()) {
        let engine = Engine { inner };
        engine.maintain();
        // Instances outlive their plugins, and need the clock as well.
        kept = engine.has_instances().then_some(engine.inner);
        next += UPKEEP;
        thread::park_timeout(next.saturating_duration_since(Instant::now()));
    }
}

// === impl Beats ===

impl Beats {
    /// The milliseconds of the beat that is due, which comes so many after the last one; or how long none is.
    fn next_at(&mut self, now: Instant, step: u64) -> Result<u64, Duration> {
        let due = self.last + Duration::from_millis(step);
        let left = due.saturating_duration_since(now);
        if !left.is_zero() {
            return Err(left);
        }
        let late = now.saturating_duration_since(due);
        // A thread that wakes a little late makes up for it beat by beat: guests have run meanwhile.
        let missed = if late > STANDSTILL { u64::try_from(late.as_millis()).unwrap_or(u64::MAX) } else { 0 };
        let milliseconds = step.saturating_add(missed);
        self.last += Duration::from_millis(milliseconds);
        Ok(milliseconds)
    }
}

impl Wake for Hurry {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beats of a clock whose thread comes to itself after so many milliseconds each.
    fn beats(step: u64, wakes: &[u64]) -> Vec<u64> {
        let mut now = Instant::now();
        let (mut beats, mut made) = (Beats { last: now }, Vec::new());
        for wake in wakes {
            now += Duration::from_millis(*wake);
            while let Ok(milliseconds) = beats.next_at(now, step) {
                made.push(milliseconds);
            }
        }
        made
    }

    #[test]
    fn late_clock_makes_up_for_each_beat_and_one_that_stood_still_for_all_in_one() {
        assert_eq!(beats(1, &[1, 1]), [1, 1]);
        assert_eq!(beats(1, &[3, 1]), [1, 1, 1, 1]);
        assert_eq!(beats(4, &[3, 1, 9]), [4, 4, 4]);
        assert_eq!(beats(1, &[1, 90, 1]), [1, 90, 1]);
        assert_eq!(beats(4, &[500, 4]), [500, 4]);
    }

    #[test]
    fn threads_end_with_the_last_that_needs_them() {
        let (engine, threads) = Engine::new().unwrap();
        let threads = [threads.clock, threads.upkeep].map(|each| thread::spawn(|| each.run()));
        while engine.ticks() == 0 {
            thread::yield_now();
        }
        drop(engine);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

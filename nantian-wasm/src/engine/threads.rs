//! What the embedder's two threads do: one moves the clock, the other looks after instances.
#![expect(clippy::disallowed_types, reason = "the time of guests is the machine's, and no test waits for it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::Engine;

/// Time between two rounds of upkeep.
const UPKEEP: Duration = Duration::from_millis(10);
/// Longest time the clock stands still while it meets no guest that runs, in milliseconds: to wake a thread
/// costs as much as to take some requests through a plugin. A guest's first slice is so much longer, 5 ms at
/// most.
const REST: u64 = 4;
/// A clock that is later than this has stood still, and its guests with it: the process had no processor, or
/// was stopped.
const STANDSTILL: Duration = Duration::from_millis(10);

/// When the clock beats.
struct Beats {
    last: Instant,
}

/// Wakes the thread that moves the clock.
struct Hurry(Thread);

// === impl Engine ===

impl Engine {
    /// Moves the clock of all time limits until `stop` is set: to be called on a thread of its own, for a
    /// thread that runs a guest cannot stop it.
    ///
    /// The clock beats every millisecond while a guest runs for so long, and every fourth otherwise, when a
    /// guest that begins may run for five until it first gives way. One that stood still, because the process
    /// had no processor or its machine was stopped, is right again at once, and the guests are charged for a
    /// millisecond of that time.
    pub fn run_clock(&self, stop: &AtomicBool) {
        let waker = Waker::from(Arc::new(Hurry(thread::current())));
        let mut beats = Beats { last: Instant::now() };
        while !stop.load(Ordering::Relaxed) {
            let has_to_hurry = self.poll_hurry(&Context::from_waker(&waker)).is_ready();
            match beats.next_at(Instant::now(), if has_to_hurry { 1 } else { REST }) {
                Ok(milliseconds) => self.leap(milliseconds),
                // It may be woken because a beat is due earlier now.
                Err(left) => thread::park_timeout(left),
            }
        }
    }

    /// Calls [`maintain`](Self::maintain) every ten milliseconds until `stop` is set: to be called on a
    /// thread of its own, which runs guests.
    pub fn run_upkeep(&self, stop: &AtomicBool) {
        let mut next = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            next += UPKEEP;
            thread::park_timeout(next.saturating_duration_since(Instant::now()));
            self.maintain();
        }
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
    fn clock_ends_when_it_is_told() {
        let engine = Engine::new().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let threads = [Engine::run_clock, Engine::run_upkeep].map(|run| {
            let (engine, stop) = (engine.clone(), Arc::clone(&stop));
            thread::spawn(move || run(&engine, &stop))
        });
        while engine.ticks() == 0 {
            thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

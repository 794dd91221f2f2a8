//! Whether the server is worth asking.

use std::sync::atomic::{AtomicU32, Ordering};

/// The last twenty answers: a failure is a 1, the newest is the lowest.
const HISTORY: u32 = (1 << 20) - 1;
/// This many failures in a row are enough.
const IN_A_ROW: u32 = (1 << 5) - 1;
/// This many failures among the last twenty answers are enough.
const OF_HISTORY: u32 = 10;
const OPEN: u32 = 1 << 31;

/// Counts failures; open means that nobody asks.
#[derive(Debug, Default)]
pub(super) struct Breaker(AtomicU32);

impl Breaker {
    /// Whether nobody asks.
    pub(super) fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire) & OPEN != 0
    }

    /// Whether the last answer came in time.
    pub(super) fn is_clean(&self) -> bool {
        self.0.load(Ordering::Acquire) & 1 == 0
    }

    /// The server answered in time.
    pub(super) fn succeeded(&self) {
        self.record(false);
    }

    /// It did not; true if that has opened the breaker.
    pub(super) fn failed(&self) -> bool {
        self.record(true)
    }

    /// Forgets all failures.
    pub(super) fn close(&self) {
        self.0.store(0, Ordering::Release);
    }

    fn record(&self, is_failure: bool) -> bool {
        let next = |state: u32| {
            if state & OPEN != 0 || (state == 0 && !is_failure) {
                return None;
            }
            let history = (state << 1 | u32::from(is_failure)) & HISTORY;
            let is_open = history & IN_A_ROW == IN_A_ROW || history.count_ones() >= OF_HISTORY;
            Some(if is_open { history | OPEN } else { history })
        };
        match self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) {
            Ok(before) => next(before).is_some_and(|after| after & OPEN != 0),
            Err(_) => false,
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_row_open_it() {
        let breaker = Breaker::default();
        assert!((0..4).all(|_| !breaker.failed()));
        breaker.succeeded();
        assert!((0..4).all(|_| !breaker.failed()));
        assert!(breaker.failed() && breaker.is_open());
        assert!(!breaker.failed(), "it opens once");
        breaker.succeeded();
        assert!(breaker.is_open(), "a late answer does not close it");
        breaker.close();
        assert!(!breaker.is_open());
    }

    #[test]
    fn ten_failures_of_twenty_open_it() {
        let breaker = Breaker::default();
        for _ in 0..9 {
            assert!(!breaker.failed());
            breaker.succeeded();
        }
        assert!(breaker.failed());
        let rare = Breaker::default();
        for _ in 0..1000 {
            assert!(!rare.failed());
            (0..2).for_each(|_| rare.succeeded());
        }
    }
}

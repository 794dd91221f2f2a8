//! Denials that still hold, so that a flood costs the server nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::cost::Cost;

/// Most denials that are remembered.
const MOST: usize = 4096;
/// How long a denial is believed at most: another replica may refund tokens meanwhile.
const LONGEST: Duration = Duration::from_secs(1);
/// The shortest pause between two searches for denials that are over: each looks at all of them.
const SWEEPS: Duration = Duration::from_millis(10);

/// What was denied lately, by the digest of the key.
#[derive(Debug, Default)]
pub(super) struct Denials {
    count: AtomicUsize,
    known: Mutex<KnownDenials>,
}

#[derive(Debug, Default)]
struct KnownDenials {
    by_key: HashMap<u128, Denial>,
    /// When to look for those that are over.
    next_sweep: Option<Timestamp>,
}

/// One denial.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Denial {
    /// What was asked for: whoever asks for less may pass.
    pub(super) cost: Cost,
    /// When it was decided.
    pub(super) at: Timestamp,
    /// When the cost fits.
    pub(super) until: Timestamp,
    /// What was in use of each limit.
    pub(super) used: Vec<f64>,
}

impl Denials {
    /// The denial that tells the answer for `cost` now.
    pub(super) fn find(&self, key: u128, cost: Cost, now: Timestamp) -> Option<Denial> {
        self.last(key, now).filter(|denial| denial.covers(cost))
    }

    /// The last denial, as long as its levels are believed.
    pub(super) fn last(&self, key: u128, now: Timestamp) -> Option<Denial> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.by_key.get(&key).filter(|denial| denial.holds(now)).cloned()
    }

    /// Remembers a denial, if there is room.
    pub(super) fn insert(&self, key: u128, denial: Denial) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let KnownDenials { by_key, next_sweep } = &mut *known;
        if by_key.len() >= MOST && next_sweep.is_none_or(|next| next <= denial.at) {
            *next_sweep = Some(denial.at.saturating_add(SWEEPS));
            by_key.retain(|_, known| known.holds(denial.at));
        }
        if by_key.len() < MOST || by_key.contains_key(&key) {
            by_key.insert(key, denial);
        }
        self.count.store(by_key.len(), Ordering::Relaxed);
    }

    /// Forgets what was denied to `key` if `is_over` says so.
    pub(super) fn remove_if(&self, key: u128, is_over: impl FnOnce(&Denial) -> bool) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.by_key.get(&key).is_some_and(is_over) {
            known.by_key.remove(&key);
            self.count.store(known.by_key.len(), Ordering::Relaxed);
        }
    }
}

impl Denial {
    fn holds(&self, now: Timestamp) -> bool {
        now < self.until.min(self.at.saturating_add(LONGEST))
    }

    fn covers(&self, cost: Cost) -> bool {
        cost.requests >= self.cost.requests && cost.tokens >= self.cost.tokens
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    fn denial(until: u64) -> Denial {
        let at = Timestamp::ORIGIN;
        let until = at.saturating_add(Duration::from_millis(until));
        Denial { cost: Cost::tokens(10), at, until, used: vec![1.0] }
    }

    #[test]
    fn a_denial_holds_until_its_end_for_what_costs_as_much() {
        let denials = Denials::default();
        let key = 7;
        denials.insert(key, denial(500));
        let at = |millis| Timestamp::ORIGIN.saturating_add(Duration::from_millis(millis));
        assert!(denials.find(key, Cost::tokens(10), at(499)).is_some());
        assert!(denials.find(key, Cost::tokens(9), at(499)).is_none());
        assert!(denials.find(key, Cost::tokens(10), at(500)).is_none());
        assert!(denials.find(8, Cost::tokens(10), at(0)).is_none());
        denials.insert(key, denial(60_000));
        assert!(denials.find(key, Cost::tokens(10), at(999)).is_some());
        assert!(denials.find(key, Cost::tokens(10), at(1000)).is_none());
        denials.insert(key, denial(60_000));
        denials.remove_if(key, |_| false);
        assert!(denials.find(key, Cost::tokens(10), at(0)).is_some());
        denials.remove_if(key, |_| true);
        assert!(denials.find(key, Cost::tokens(10), at(0)).is_none());
    }

    #[test]
    fn denials_are_bounded() {
        let denials = Denials::default();
        for key in 0..2 * MOST as u128 {
            denials.insert(key, denial(500));
        }
        assert_eq!(denials.count.load(Ordering::Relaxed), MOST);
        let later = Denial { at: Timestamp::from_nanos(600_000_000), ..denial(900) };
        denials.insert(u128::MAX, later);
        assert_eq!(denials.count.load(Ordering::Relaxed), 1, "what is over makes room");
    }
}

//! Where the limits of a policy stand for one key.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::cost::Cost;
use crate::ledger::{Ledger, Tats};
use crate::limit::{Limit, Unit};

/// Where the limits of a policy stand for one key, at the time of a decision.
#[derive(Clone)]
pub struct Levels {
    ledger: Arc<Ledger>,
    now: Timestamp,
    tats: Tats,
}

/// Where one limit stands.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Level<'a> {
    /// The limit.
    pub limit: &'a Limit,
    /// What is left, in the limit's unit.
    pub remaining: u64,
    /// Time until the bucket is full.
    pub reset: Duration,
}

// === impl Levels ===

impl Levels {
    pub(crate) fn new(ledger: Arc<Ledger>, now: Timestamp, tats: Tats) -> Self {
        Self { ledger, now, tats }
    }

    /// The time of the decision.
    pub(crate) fn at(&self) -> Timestamp {
        self.now
    }

    /// The same levels at a later time.
    #[cfg(feature = "redis")]
    pub(crate) fn later(self, now: Timestamp) -> Self {
        Self { now, ..self }
    }

    /// The limits, in the order of the policy.
    pub fn iter(&self) -> impl Iterator<Item = Level<'_>> {
        let columns = self.ledger.columns().iter().zip(self.tats);
        columns.map(|(column, tat)| Level {
            limit: column.limit(),
            remaining: column.remaining(tat, self.now),
            reset: column.reset(tat, self.now),
        })
    }

    /// The limit of which the smallest share is left.
    pub fn tightest(&self) -> Option<Level<'_>> {
        self.iter().reduce(|tightest, level| if level.is_tighter_than(&tightest) { level } else { tightest })
    }

    /// Which limit lacks room for `cost`, and how long, if one does: the one that does longest. `None` is for
    /// ever.
    pub(crate) fn shortage(&self, cost: Cost) -> Option<(usize, Option<Duration>)> {
        if let Some(column) = self.ledger.closed_to(cost) {
            return Some((column, None));
        }
        let (column, until) = self.ledger.longest_wait(&self.tats, self.now, cost)?;
        Some((column, Some(until.since(self.now))))
    }

    /// When so many requests will have had room at the earliest, one after the other, if they have it not
    /// now; and by which limit.
    pub(crate) fn requests_in(&self, requests: u64) -> Option<(usize, Duration)> {
        let waits = self.iter().enumerate().filter(|(_, level)| level.limit.unit() == Unit::Requests);
        let waits = waits.map(|(column, level)| {
            // Of the next item some part may be there.
            let missing = requests.saturating_sub(level.remaining).saturating_sub(1) as f64;
            let windows = missing / level.limit.max().max(1) as f64;
            let wait = level.limit.window().as_secs_f64() * windows;
            (column, Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX))
        });
        waits.max_by_key(|(_, wait)| *wait).filter(|(_, wait)| !wait.is_zero())
    }

    /// Items in use of each limit, rounded up.
    #[cfg(feature = "redis")]
    pub(crate) fn used(&self) -> impl Iterator<Item = (&Limit, u64)> {
        let columns = self.ledger.columns().iter().zip(self.tats);
        columns.map(|(column, tat)| (column.limit(), column.used(tat, self.now)))
    }

    #[expect(clippy::indexing_slicing, reason = "positions come from enumerating the same columns")]
    pub(crate) fn limit(&self, position: usize) -> &Limit {
        self.ledger.columns()[position].limit()
    }

    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }
}

impl fmt::Debug for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

// === impl Level ===

impl Level<'_> {
    /// Time until one more is left; none if the bucket is full.
    pub(crate) fn until_more(&self) -> Duration {
        let (capacity, max) = (self.limit.capacity(), self.limit.max().max(1));
        let then_missing = capacity.saturating_sub(self.remaining).saturating_sub(1);
        let from_then_on = self.limit.window().as_nanos() * u128::from(then_missing) / u128::from(max);
        let from_then_on = u64::try_from(from_then_on).unwrap_or(u64::MAX);
        self.reset.saturating_sub(Duration::from_nanos(from_then_on))
    }

    /// Compares shares of the capacity without rounding; there is none of a limit of 0.
    pub(crate) fn is_tighter_than(&self, other: &Self) -> bool {
        let capacity = |level: &Self| u128::from(level.limit.capacity().max(1));
        let share = |level: &Self, of: &Self| u128::from(level.remaining) * capacity(of);
        share(self, other) < share(other, self)
    }
}

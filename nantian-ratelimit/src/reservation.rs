//! Tokens that are taken before they are used, and what follows when the real usage is known.

use crate::clock::Timestamp;
use crate::cost::Cost;
use crate::key::Key;
use crate::levels::Levels;
use crate::limit::Unit;
use crate::limit_column::{Correction, LimitColumn};
use crate::policy::CachedTokenWeight;
use crate::typical::Typical;

/// An admitted request's charge, to be settled once with the real usage.
///
/// Dropping it leaves the charge as it is: what was reserved counts as used. It holds no resource of the
/// limiter.
///
/// A refund never makes a bucket more than full. What the requests use that are admitted in a window, of any
/// length, is at most the bucket, the window's refill, what requests on their way at its start had reserved
/// in excess, and what they themselves use beyond their reservations. The latter is debt, which is paid
/// before anything else is admitted, up to a window of it; [`Settled::forgiven`] is the rest.
#[derive(Debug)]
pub struct Reservation {
    levels: Levels,
    key: Key,
    cost: Cost,
    cached_token_weight: CachedTokenWeight,
    /// It was charged to a bucket that keys without one share, which gives nothing back.
    is_overflow: bool,
}

/// How an admitted request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settlement {
    /// It used exactly these tokens: the difference to the reservation is refunded, or charged as debt.
    Used(u64),
    /// It used these tokens or more, as after an abort in mid-stream: charged on each limit that reserved
    /// less, never refunded. A limit reserves the estimate, but never more than its bucket holds.
    AtLeast(u64),
    /// It used what was reserved, as far as anybody knows.
    AsReserved,
    /// It was not served: its tokens are refunded, its request is not.
    NotServed,
}

/// A settlement some of whose tokens a provider has read from its cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachedSettlement {
    settlement: Settlement,
    cached: u64,
}

/// What a settlement did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settled {
    /// Tokens that had been taken: the most of any limit. It is the estimate, or a whole bucket if that is
    /// less.
    pub reserved: u64,
    /// Tokens that counted in the end: the most of any limit. 0 if no limit counts tokens.
    pub used: u64,
    /// Tokens beyond the cap on debt, which nobody pays: the most of any limit.
    pub forgiven: u64,
}

// === impl Reservation ===

impl Reservation {
    pub(crate) fn new(
        levels: Levels,
        key: Key,
        cost: Cost,
        cached_token_weight: CachedTokenWeight,
        is_overflow: bool,
    ) -> Self {
        Self { levels, key, cost, cached_token_weight, is_overflow }
    }

    /// The same after more was charged for it.
    #[cfg(feature = "redis")]
    pub(crate) fn enlarged(self, cost: Cost, levels: Levels) -> Self {
        Self { cost, levels, ..self }
    }

    /// Whether it was charged to a bucket that keys without one share.
    #[cfg(feature = "redis")]
    pub(crate) fn is_overflow(&self) -> bool {
        self.is_overflow
    }

    /// The cost that was estimated.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    pub(crate) fn key(&self) -> Key {
        self.key
    }

    /// Where the limits stood after the charge.
    pub fn levels(&self) -> &Levels {
        &self.levels
    }

    /// Settles the tokens, now; those [from a cache](Settlement::with_cached) by the weight of the policy
    /// that admitted the request.
    ///
    /// Debt is capped at one window's amount beyond an empty bucket. Limits that a change of policy removed
    /// meanwhile are left out; if the limiter is gone, nothing happens.
    pub fn settle(self, settlement: impl Into<CachedSettlement>) -> Settled {
        let now = self.now();
        self.settle_at(now, settlement)
    }

    /// [`Reservation::settle`] at a given time, on the clock of the limiter that admitted the request.
    pub fn settle_at(self, now: Timestamp, settlement: impl Into<CachedSettlement>) -> Settled {
        let settled = self.settle_once_at(now, settlement.into().under(self.cached_token_weight));
        if settled.used < settled.reserved {
            self.notify();
        }
        settled
    }

    /// Takes the whole charge back, requests too: for a request that another limiter denied.
    pub fn cancel(self) {
        let now = self.now();
        self.cancel_at(now);
    }

    /// [`Reservation::cancel`] at a given time, on the clock of the limiter that admitted the request.
    pub fn cancel_at(self, now: Timestamp) {
        self.cancel_once_at(now);
        self.notify();
    }

    /// The time on the limiter's clock; that of the charge if the limiter is gone.
    fn now(&self) -> Timestamp {
        self.levels.ledger().history().map_or_else(|| self.levels.at(), |history| history.now())
    }

    /// Whoever waits may find room now.
    fn notify(&self) {
        if let Some(history) = self.levels.ledger().history() {
            history.queues().notify(self.key);
        }
    }

    /// [`Reservation::settle_at`] for whoever sees to it that the reservation is not settled again.
    pub(crate) fn settle_once_at(&self, now: Timestamp, settlement: Settlement) -> Settled {
        let mut settled = Settled { reserved: 0, used: 0, forgiven: 0 };
        let columns = self.levels.ledger().columns().iter();
        for column in columns.filter(|column| column.limit().unit() == Unit::Tokens) {
            let reserved = column.reserved(self.cost);
            let used = settlement.used(reserved);
            let forgiven = self.correct(now, column, reserved, used);
            settled.reserved = reserved.max(settled.reserved);
            settled.used = used.max(settled.used);
            settled.forgiven = forgiven.max(settled.forgiven);
        }
        settlement.teach(self.levels.ledger().typical());
        settled
    }

    /// [`Reservation::cancel_at`] for whoever sees to it that the reservation is not settled again.
    pub(crate) fn cancel_once_at(&self, now: Timestamp) {
        for column in self.levels.ledger().columns() {
            self.correct(now, column, column.reserved(self.cost), 0);
        }
    }

    /// Makes up for the difference between what a limit was charged and what was used; returns what was
    /// forgiven.
    fn correct(&self, now: Timestamp, column: &LimitColumn, reserved: u64, used: u64) -> u64 {
        let correction = if used > reserved {
            Correction::Debit(used - reserved)
        } else if used < reserved && !self.is_overflow {
            Correction::Refund(reserved - used)
        } else {
            return 0;
        };
        self.levels.ledger().correct_lastingly(now, self.key, column, correction)
    }
}

// === impl Settlement ===

impl Settlement {
    /// The same, `cached` of whose tokens a provider has read from its cache: each limiter counts these by
    /// the [`cached_token_weight`](crate::PolicyBuilder::cached_token_weight) of its policy.
    pub fn with_cached(self, cached: u64) -> CachedSettlement {
        CachedSettlement { settlement: self, cached }
    }

    /// What a limit counts in the end that was charged `reserved`: the estimate, or a whole bucket if that is
    /// less.
    pub(crate) fn used(self, reserved: u64) -> u64 {
        match self {
            Self::Used(tokens) => tokens,
            Self::AtLeast(tokens) => tokens.max(reserved),
            Self::AsReserved => reserved,
            Self::NotServed => 0,
        }
    }

    /// Lets `typical` learn from it; a request that used nothing says nothing of those that do.
    pub(crate) fn teach(self, typical: &Typical) {
        if let Self::Used(tokens @ 1..) = self {
            typical.learn(tokens);
        }
    }
}

// === impl CachedSettlement ===

impl CachedSettlement {
    /// Whether nothing was served.
    pub(crate) fn is_not_served(self) -> bool {
        self.settlement == Settlement::NotServed
    }

    /// What counts where cached tokens have this weight.
    pub(crate) fn under(self, weight: CachedTokenWeight) -> Settlement {
        let discounted = |tokens: u64| tokens.saturating_sub(weight.discount(self.cached));
        match self.settlement {
            Settlement::Used(tokens) => Settlement::Used(discounted(tokens)),
            Settlement::AtLeast(tokens) => Settlement::AtLeast(discounted(tokens)),
            other => other,
        }
    }
}

impl From<Settlement> for CachedSettlement {
    fn from(settlement: Settlement) -> Self {
        settlement.with_cached(0)
    }
}

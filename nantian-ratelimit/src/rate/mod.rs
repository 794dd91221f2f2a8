//! The arithmetic of one bucket: GCRA over exact integers.
//!
//! A bucket is one number, its *theoretical arrival time* (TAT): the time at which it will be full again.
//! Time is measured in *units* of which one item (a request, a token) costs a whole number
//! `K = ceil(window / max)`, so that a unit is a nanosecond when `max` divides the window and a fraction of
//! one otherwise. Costs and capacities are then exact multiples of `K`, and the only rounding is the floor in
//! [`Rate::tick`], which depends on the absolute time and therefore never accumulates.

use crate::clock::{Timestamp, nanos};
use crate::limit::Limit;

/// How one bucket fills and what fits into it, in units.
///
/// No sum below overflows: a tick is less than twice the last nanosecond of a clock, which is 2^63, and a
/// bucket holds 1000 windows of 31 days at most, a little more than half of that. What a share can owe
/// saturates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    item: u64,
    /// Items that a full bucket holds, and their units.
    most: u64,
    capacity: u64,
    /// Units that pass in one window. Less than twice the window.
    speed: u64,
    /// Units that can be in use at most: more than a bucket and a window where this is the share of a limit.
    ceiling: u64,
    /// The window in nanoseconds.
    window: u64,
    /// Units that pass in a nanosecond beyond the first, in 2^-128, rounded up.
    surplus: [u64; 2],
}

/// A TAT after a correction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Adjusted {
    pub(crate) tat: u64,
    /// Items that the cap on debt let the caller off.
    pub(crate) forgiven: u64,
}

// === impl Rate ===

impl Rate {
    /// The rate of `limit`; for one that denies all, one item per window.
    pub(crate) fn of(limit: &Limit) -> Self {
        let window = nanos(limit.window()).max(1);
        let max = limit.max().clamp(1, window);
        let item = window.div_ceil(max);
        let speed = max.saturating_mul(item);
        let most = limit.capacity().max(1);
        let surplus = fraction(speed - window, window);
        let (capacity, ceiling) = (most.saturating_mul(item), limit.most_in_use().saturating_mul(item));
        Self { item, most, capacity, speed, ceiling, window, surplus }
    }

    /// `now` in units: `floor(now × speed / window)`, without a division.
    #[inline]
    pub(crate) fn tick(&self, now: Timestamp) -> u64 {
        let now = now.as_nanos();
        // Too much by less than 2^-66, which is less than what is missing to the next unit if anything is:
        // 1/window.
        let [high, low] = self.surplus;
        let product = u128::from(now) * u128::from(high);
        if low_half(product).checked_add(now).is_none() {
            // The lower half adds less than `now`: it seldom carries.
            return now + high_half(product + ((u128::from(now) * u128::from(low)) >> 64));
        }
        now + high_half(product)
    }

    /// The TAT after `cost` items, if they fit.
    ///
    /// A cost above the capacity asks for a full bucket and takes all of it.
    #[inline]
    pub(crate) fn charge(&self, tat: u64, tick: u64, cost: u64) -> Option<u64> {
        let (held, cost) = (tat.max(tick), self.charged(cost));
        (held <= tick + (self.capacity - cost)).then(|| held + cost)
    }

    /// When `cost` items fit, if they do not fit now.
    pub(crate) fn room_at(&self, tat: u64, tick: u64, cost: u64) -> Option<Timestamp> {
        let charged = tat.max(tick).saturating_add(self.charged(cost));
        let earliest = charged.saturating_sub(self.capacity);
        (earliest > tick).then(|| self.instant(earliest))
    }

    /// Takes back a charge of `cost` items that was made at this rate.
    pub(crate) fn undo(&self, tat: u64, cost: u64) -> u64 {
        tat.saturating_sub(self.charged(cost))
    }

    /// Takes `items` more, into debt if need be, up to one window of debt: a share of a limit owes as much as
    /// the whole.
    pub(crate) fn debit(&self, tat: u64, tick: u64, items: u64) -> Adjusted {
        let held = tat.max(tick);
        let ceiling = tick.saturating_add(self.ceiling);
        let owed = held.saturating_add(items.saturating_mul(self.item));
        let capped = owed.min(ceiling.max(tat));
        let taken = capped.saturating_sub(held).div_ceil(self.item);
        Adjusted { tat: capped, forgiven: items.saturating_sub(taken) }
    }

    /// Takes `items` more, whatever is owed then.
    #[cfg(feature = "redis")]
    pub(crate) fn owed(&self, tat: u64, tick: u64, items: u64) -> u64 {
        tat.max(tick).saturating_add(items.saturating_mul(self.item))
    }

    /// Gives `items` back; a bucket is never more than full.
    pub(crate) fn refund(&self, tat: u64, tick: u64, items: u64) -> u64 {
        let refunded = tat.saturating_sub(items.saturating_mul(self.item));
        refunded.max(tat.min(tick))
    }

    /// Items that fit now.
    pub(crate) fn remaining(&self, tat: u64, tick: u64) -> u64 {
        self.capacity.saturating_sub(tat.saturating_sub(tick)) / self.item
    }

    /// The units of a number of items, rounded up.
    #[cfg(feature = "redis")]
    pub(crate) fn units(&self, items: f64) -> u64 {
        #[expect(clippy::cast_possible_truncation, reason = "float casts saturate")]
        let units = (items * self.item as f64).ceil() as u64;
        units
    }

    /// The items of a number of units, rounded up.
    #[cfg(feature = "redis")]
    pub(crate) fn items(&self, units: u64) -> u64 {
        units.div_ceil(self.item)
    }

    /// When the bucket is full again.
    pub(crate) fn full_at(&self, tat: u64) -> Timestamp {
        self.instant(tat)
    }

    /// The TAT of the same use at the rate `to`.
    pub(crate) fn convert(&self, tat: u64, to: &Self, now: Timestamp) -> u64 {
        let used = tat.saturating_sub(self.tick(now));
        to.tick(now).saturating_add(scale_up(used, to.item, self.item))
    }

    /// The TAT of a bucket that is empty, and one window in debt.
    pub(crate) fn most(&self, tick: u64) -> u64 {
        tick.saturating_add(self.capacity).saturating_add(self.speed)
    }

    #[inline]
    fn charged(&self, cost: u64) -> u64 {
        cost.min(self.most) * self.item
    }

    /// The first instant whose tick is at least `tick`.
    fn instant(&self, tick: u64) -> Timestamp {
        Timestamp::from_nanos(scale_up(tick, self.window, self.speed))
    }
}

#[inline]
const fn high_half(product: u128) -> u64 {
    (product >> 64) as u64
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low half")]
const fn low_half(product: u128) -> u64 {
    product as u64
}

/// `numerator / denominator`, which is less than 1, in 2^-128, rounded up; the upper half first.
fn fraction(numerator: u64, denominator: u64) -> [u64; 2] {
    let (numerator, denominator) = (u128::from(numerator) << 64, u128::from(denominator));
    let (high, rest) = (numerator / denominator, (numerator % denominator) << 64);
    [high, rest.div_ceil(denominator)].map(|half| u64::try_from(half).unwrap_or(u64::MAX))
}

/// `ceil(value × numerator / denominator)`, saturating.
fn scale_up(value: u64, numerator: u64, denominator: u64) -> u64 {
    let product = u128::from(value) * u128::from(numerator);
    u64::try_from(product.div_ceil(u128::from(denominator))).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

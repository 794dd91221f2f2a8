//! One limit of a ledger: its rate, and the single steps that change a cell of it.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::cost::Cost;
use crate::limit::{Limit, Unit};
use crate::rate::Rate;
use crate::sync::{AtomicU64, Ordering};
use crate::table::{SEALED, Slot};

/// A limit and how it is counted.
#[derive(Debug)]
pub(crate) struct LimitColumn {
    rate: Rate,
    unit: Unit,
    limit: Limit,
    /// Shared with the columns of other ledgers whose levels these are.
    lineage: Arc<()>,
}

/// A correction of a level, in the limit's unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Correction {
    Debit(u64),
    /// A debit that no cap on debt makes less.
    #[cfg(feature = "redis")]
    Owed(u64),
    Refund(u64),
}

/// Why a cell was not charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Uncharged {
    /// It is not the key's any more.
    Lost,
    /// It holds this TAT and has no room.
    Full(u64),
}

// === impl LimitColumn ===

impl LimitColumn {
    pub(crate) fn new(limit: &Limit) -> Self {
        Self { rate: Rate::of(limit), unit: limit.unit(), limit: limit.clone(), lineage: Arc::default() }
    }

    /// The column that takes over these levels for the same limit, whatever its amount. One that denies all
    /// goes on at this rate, so that what was used is there for the amount that follows.
    pub(crate) fn succeeded_by(&self, limit: &Limit) -> Self {
        let next = Self { lineage: Arc::clone(&self.lineage), ..Self::new(limit) };
        if next.is_closed() { Self { rate: self.rate, ..next } } else { next }
    }

    /// Whether one takes over the levels of the other. A limit that was removed and is there again has
    /// others.
    pub(crate) fn is_heir_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.lineage, &other.lineage)
    }

    pub(crate) fn limit(&self) -> &Limit {
        &self.limit
    }

    /// Whether the limit denies all that it counts.
    pub(crate) fn is_closed(&self) -> bool {
        self.limit.max() == 0
    }

    /// What the limit counts of `cost`.
    #[inline]
    pub(crate) fn counted(&self, cost: Cost) -> u64 {
        cost.of(self.unit)
    }

    /// What is taken of the limit for `cost`, before it is settled.
    pub(crate) fn reserved(&self, cost: Cost) -> u64 {
        self.limit.reserved(cost)
    }

    /// The TAT of a bucket that is just full.
    #[inline]
    pub(crate) fn full(&self, now: Timestamp) -> u64 {
        self.rate.tick(now)
    }

    /// The TAT of a bucket of which `used` items are in use.
    #[cfg(feature = "redis")]
    pub(crate) fn tat(&self, used: f64, now: Timestamp) -> u64 {
        self.full(now).saturating_add(self.rate.units(used))
    }

    /// Items in use, rounded up.
    #[cfg(feature = "redis")]
    pub(crate) fn used(&self, tat: u64, now: Timestamp) -> u64 {
        self.rate.items(tat.saturating_sub(self.full(now)))
    }

    /// Whether the bucket is full, so that it may be forgotten.
    pub(crate) fn is_full(&self, tat: u64, now: Timestamp) -> bool {
        tat <= self.rate.tick(now)
    }

    pub(crate) fn remaining(&self, tat: u64, now: Timestamp) -> u64 {
        if self.is_closed() {
            return 0;
        }
        self.rate.remaining(tat, self.rate.tick(now))
    }

    pub(crate) fn reset(&self, tat: u64, now: Timestamp) -> Duration {
        self.rate.full_at(tat).since(now)
    }

    /// The TAT after `cost`, if it fits.
    #[inline]
    pub(crate) fn charged(&self, tat: u64, now: Timestamp, cost: Cost) -> Option<u64> {
        self.charged_when(tat, self.full(now), self.counted(cost))
    }

    /// The TAT after `items`, if they fit when a bucket is just full at the TAT `full`.
    #[inline]
    pub(crate) fn charged_when(&self, tat: u64, full: u64, items: u64) -> Option<u64> {
        if items == 0 { Some(tat) } else { self.rate.charge(tat, full, items) }
    }

    /// When `cost` fits, if it does not fit now.
    pub(crate) fn room_at(&self, tat: u64, now: Timestamp, cost: Cost) -> Option<Timestamp> {
        let items = self.counted(cost);
        if items == 0 {
            return None;
        }
        self.rate.room_at(tat, self.rate.tick(now), items)
    }

    /// The TAT of the same use in the column `to`, as far as that can owe it, or so many like it together.
    pub(crate) fn converted(&self, tat: u64, to: &Self, now: Timestamp, shares: u32) -> u64 {
        let most = to.rate.most(0).saturating_mul(u64::from(shares));
        let most = to.full(now).saturating_add(most).min(SEALED - 1);
        self.rate.convert(tat, &to.rate, now).min(most)
    }

    /// Charges a cell of the slot of `tag` that was overtaken and held `tat` last.
    #[cold]
    pub(crate) fn charge(
        &self,
        slot: Slot<'_>,
        tag: u64,
        (cell, mut tat): (&AtomicU64, u64),
        now: Timestamp,
        cost: Cost,
    ) -> Result<u64, Uncharged> {
        loop {
            if tat == SEALED || !slot.belongs_to(tag) {
                return Err(Uncharged::Lost);
            }
            let charged = self.charged(tat, now, cost).ok_or(Uncharged::Full(tat))?;
            match cell.compare_exchange_weak(tat, charged, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(charged),
                Err(current) => tat = current,
            }
        }
    }

    /// Takes a charge of `cost` back; false if the slot is not that of `tag` or changes hands.
    pub(crate) fn roll_back(&self, slot: Slot<'_>, tag: u64, cell: &AtomicU64, cost: Cost) -> bool {
        update(slot, tag, cell, |tat| self.rate.undo(tat, self.counted(cost)))
    }

    /// Corrects a cell; returns what the cap on debt forgave, or `None` if the slot is not that of `tag`.
    pub(crate) fn correct(
        &self,
        slot: Slot<'_>,
        tag: u64,
        cell: &AtomicU64,
        now: Timestamp,
        correction: Correction,
    ) -> Option<u64> {
        let tick = self.rate.tick(now);
        let mut forgiven = 0;
        let is_done = update(slot, tag, cell, |tat| match correction {
            Correction::Refund(items) => self.rate.refund(tat, tick, items),
            Correction::Debit(items) => {
                let adjusted = self.rate.debit(tat, tick, items);
                forgiven = adjusted.forgiven;
                adjusted.tat.min(SEALED - 1)
            }
            #[cfg(feature = "redis")]
            Correction::Owed(items) => self.rate.owed(tat, tick, items).min(SEALED - 1),
        });
        is_done.then_some(forgiven)
    }
}

// === impl Correction ===

impl Correction {
    /// Takes `items`, or gives them back.
    #[cfg(feature = "redis")]
    pub(crate) fn of(items: i64) -> Self {
        if items < 0 { Self::Refund(items.unsigned_abs()) } else { Self::Debit(items.unsigned_abs()) }
    }
}

/// Changes a cell of the slot of `tag` in one step; false if the slot is not that of `tag` or changes hands.
fn update(slot: Slot<'_>, tag: u64, cell: &AtomicU64, mut change: impl FnMut(u64) -> u64) -> bool {
    let mut tat = cell.load(Ordering::Acquire);
    loop {
        if tat == SEALED || !slot.belongs_to(tag) {
            return false;
        }
        match cell.compare_exchange_weak(tat, change(tat), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return true,
            Err(current) => tat = current,
        }
    }
}

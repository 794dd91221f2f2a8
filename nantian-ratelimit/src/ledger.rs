//! The levels of one set of limits: all-or-nothing charges, and corrections, on a table of cells.

mod succession;

use std::fmt;
use std::sync::{Arc, Weak};

use crate::clock::Timestamp;
use crate::column::{Column, Correction, Uncharged};
use crate::cost::Cost;
use crate::key::Key;
use crate::limiter::Lineage;
use crate::policy::{Limit, MAX_LIMITS};
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::table::{Exclusive, SEALED, Slot, Table};

use self::succession::Custody;

/// The TATs of a slot, in the order of the columns; the rest is unused.
pub(crate) type Tats = [u64; MAX_LIMITS];

/// The levels of all keys for one set of limits.
pub(crate) struct Ledger {
    columns: Box<[Column]>,
    /// Some limit denies all.
    is_closed: bool,
    retired: AtomicBool,
    table: Table<Custody>,
    /// What recent requests used, in tokens; outlives the ledger.
    typical: Arc<AtomicU64>,
    lineage: Weak<Lineage>,
}

/// What a ledger decided.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All limits were charged.
    Admitted(Tats),
    /// Nothing was charged.
    Denied(Refusal),
    /// Another ledger answers for this key.
    Retired,
}

/// Why nothing was charged.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) tats: Tats,
    /// The column that keeps the caller out longest.
    pub(crate) column: usize,
    /// When the cost would fit; `None` if never.
    pub(crate) until: Option<Timestamp>,
}

/// What became of a correction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Corrected {
    Done {
        /// Items that the cap on debt let the caller off.
        forgiven: u64,
    },
    /// Another ledger answers for this key.
    Retired,
}

// === impl Ledger ===

impl Ledger {
    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    pub(crate) fn typical(&self) -> &AtomicU64 {
        &self.typical
    }

    /// Charges every limit, or none.
    #[inline]
    pub(crate) fn admit(&self, now: Timestamp, key: Key, cost: Cost) -> Verdict {
        if self.is_closed
            && let Some(refusal) = self.closed_to(now, key, cost)
        {
            return Verdict::Denied(refusal);
        }
        let found = self.table.find(key);
        found
            .and_then(|slot| self.charge(slot, key.tag, now, cost))
            .unwrap_or_else(|| self.admit_exclusively(now, key, cost))
    }

    /// The TATs of `key`; `None` if another ledger answers for it.
    pub(crate) fn peek(&self, now: Timestamp, key: Key) -> Option<Tats> {
        let found = self.table.find(key);
        if let Some(tats) = found.and_then(|slot| self.read(slot, key.tag)) {
            return Some(tats);
        }
        let _shard = self.lock(self.table.position(key), now)?;
        Some(self.glance(now, key))
    }

    /// Corrects the level of the limit that `limit` is, whatever its amount, if there is one.
    pub(crate) fn correct(
        &self,
        now: Timestamp,
        key: Key,
        limit: &Limit,
        correction: Correction,
    ) -> Corrected {
        let is_meant = |column: &Column| column.limit().is_same_as(limit);
        let Some(position) = self.columns.iter().position(is_meant) else {
            return Corrected::Done { forgiven: 0 };
        };
        let found = self.table.find(key);
        found
            .and_then(|slot| self.correct_slot(slot, key.tag, position, now, correction))
            .unwrap_or_else(|| self.correct_exclusively(now, key, position, correction))
    }

    /// Keys whose buckets are not full.
    pub(crate) fn live_keys(&self, now: Timestamp) -> usize {
        let is_live = |slot: &Slot<'_>| {
            self.columns.iter().zip(slot.cells()).any(|(column, cell)| {
                let tat = cell.load(Ordering::Relaxed);
                tat != SEALED && !column.is_full(tat, now)
            })
        };
        self.table.slots().filter(is_live).count()
    }

    /// The refusal of a limit that denies all.
    fn closed_to(&self, now: Timestamp, key: Key, cost: Cost) -> Option<Refusal> {
        let denies = |column: &Column| column.is_closed() && column.counted(cost) > 0;
        let column = self.columns.iter().position(denies)?;
        Some(Refusal { tats: self.glance(now, key), column, until: None })
    }

    /// The TATs of `key`, or of a full bucket if it has no slot at this moment.
    fn glance(&self, now: Timestamp, key: Key) -> Tats {
        let found = self.table.find(key);
        found.and_then(|slot| self.read(slot, key.tag)).unwrap_or_else(|| self.full(now))
    }

    fn full(&self, now: Timestamp) -> Tats {
        let mut tats = [0; MAX_LIMITS];
        for (tat, column) in tats.iter_mut().zip(&self.columns) {
            *tat = column.full(now);
        }
        tats
    }

    /// The TATs of a slot; `None` if it is not that of `tag` or changes hands.
    #[inline]
    fn read(&self, slot: Slot<'_>, tag: u64) -> Option<Tats> {
        let mut tats = [0; MAX_LIMITS];
        for (tat, cell) in tats.iter_mut().zip(slot.cells()).take(self.columns.len()) {
            *tat = cell.load(Ordering::Acquire);
            if *tat == SEALED {
                return None;
            }
        }
        slot.belongs_to(tag).then_some(tats)
    }

    /// Charges the cells of a slot; `None` if it is not that of `tag` or changes hands.
    #[inline]
    fn charge(&self, slot: Slot<'_>, tag: u64, now: Timestamp, cost: Cost) -> Option<Verdict> {
        let before = self.read(slot, tag)?;
        let mut tats = match self.charged(&before, now, cost) {
            Ok(tats) => tats,
            Err(refusal) => return Some(Verdict::Denied(refusal)),
        };
        let cells = self.columns.iter().zip(slot.cells()).zip(before.iter().zip(&mut tats));
        for (position, ((column, cell), (before, tat))) in cells.enumerate() {
            if *before == *tat {
                continue;
            }
            match column.charge((slot, tag), cell, (*before, *tat), now, cost) {
                Ok(charged) => *tat = charged,
                Err(uncharged) => {
                    self.roll_back(slot, tag, position, cost);
                    return self.lost(slot, tag, position, uncharged);
                }
            }
        }
        // If the slot changed hands and its cells the same values since, its new owner was charged: on the safe side.
        slot.belongs_to(tag).then_some(Verdict::Admitted(tats))
    }

    /// The verdict for a request that another one overtook in the column at `position`.
    fn lost(&self, slot: Slot<'_>, tag: u64, position: usize, uncharged: Uncharged) -> Option<Verdict> {
        let Uncharged::Full(until) = uncharged else {
            return None;
        };
        let tats = self.read(slot, tag)?;
        Some(Verdict::Denied(Refusal { tats, column: position, until: Some(until) }))
    }

    /// The TATs after `cost`, or which limit has no room longest.
    #[inline]
    pub(crate) fn charged(&self, tats: &Tats, now: Timestamp, cost: Cost) -> Result<Tats, Refusal> {
        let mut charged = [0; MAX_LIMITS];
        let mut worst: Option<(usize, Timestamp)> = None;
        let cells = self.columns.iter().zip(tats.iter().zip(&mut charged));
        for (position, (column, (before, after))) in cells.enumerate() {
            match column.charged(*before, now, cost) {
                Ok(tat) => *after = tat,
                Err(until) if worst.is_none_or(|(_, longest)| longest < until) => {
                    worst = Some((position, until));
                }
                Err(_) => {}
            }
        }
        match worst {
            None => Ok(charged),
            Some((column, until)) => Err(Refusal { tats: *tats, column, until: Some(until) }),
        }
    }

    /// Takes the charges of the first `count` columns back.
    fn roll_back(&self, slot: Slot<'_>, tag: u64, count: usize, cost: Cost) {
        for (column, cell) in self.columns.iter().zip(slot.cells()).take(count) {
            column.roll_back(slot, tag, cell, cost);
        }
    }

    /// Charges a key that may have no slot yet, with the right to give it one.
    #[cold]
    fn admit_exclusively(&self, now: Timestamp, key: Key, cost: Cost) -> Verdict {
        let Some(shard) = self.lock(self.table.position(key), now) else {
            return Verdict::Retired;
        };
        let (slot, tag) = match shard.find(key) {
            Some(slot) => (slot, key.tag),
            None => {
                let tats = match self.charged(&self.full(now), now, cost) {
                    Ok(tats) => tats,
                    Err(refusal) => return Verdict::Denied(refusal),
                };
                if self.insert(&shard, key, &tats, now).is_some() {
                    return Verdict::Admitted(tats);
                }
                (shard.shared(), Key::SHARED)
            }
        };
        // Nothing is sealed while this shard is ours: there is a verdict.
        self.charge(slot, tag, now, cost).unwrap_or(Verdict::Retired)
    }

    fn correct_slot(
        &self,
        slot: Slot<'_>,
        tag: u64,
        position: usize,
        now: Timestamp,
        correction: Correction,
    ) -> Option<Corrected> {
        let (column, cell) = (self.columns.get(position)?, slot.cells().get(position)?);
        let forgiven = column.correct(slot, tag, cell, now, correction)?;
        Some(Corrected::Done { forgiven })
    }

    #[cold]
    fn correct_exclusively(
        &self,
        now: Timestamp,
        key: Key,
        position: usize,
        correction: Correction,
    ) -> Corrected {
        let Some(shard) = self.lock(self.table.position(key), now) else {
            return Corrected::Retired;
        };
        let slot = match (shard.find(key), correction) {
            (Some(slot), _) => Some(slot),
            // Its buckets are full, or it shares one with others whom the refund is not due.
            (None, Correction::Refund(_)) => return Corrected::Done { forgiven: 0 },
            (None, Correction::Debit(_)) => self.insert(&shard, key, &self.full(now), now),
        };
        let slot = slot.unwrap_or_else(|| shard.shared());
        self.correct_slot(slot, slot.tag(), position, now, correction).unwrap_or(Corrected::Retired)
    }

    /// Gives `key` a slot with these TATs; `None` if none is free.
    fn insert<'t>(
        &self,
        shard: &Exclusive<'t, Custody>,
        key: Key,
        tats: &Tats,
        now: Timestamp,
    ) -> Option<Slot<'t>> {
        let is_spent = |position: usize, tat: u64| {
            self.columns.get(position).is_some_and(|column| column.is_full(tat, now))
        };
        shard.insert(key, self.used(tats), is_spent)
    }

    /// The TATs that have a column.
    fn used<'a>(&self, tats: &'a Tats) -> &'a [u64] {
        tats.get(..self.columns.len()).unwrap_or_default()
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("columns", &self.columns).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(loom)]
mod races;

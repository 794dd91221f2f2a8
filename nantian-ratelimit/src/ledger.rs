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

/// What became of a charge.
enum Charge {
    /// All limits were charged.
    Done,
    /// Nothing was charged: this column has room at this time only.
    Full { column: usize, until: Timestamp },
    /// Nothing was charged: the slot is not the key's, or changes hands.
    Lost,
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

// === impl Charge ===

impl Charge {
    /// The verdict, with the TATs that the slot holds.
    #[inline]
    fn verdict(self, tats: Tats) -> Option<Verdict> {
        match self {
            Self::Done => Some(Verdict::Admitted(tats)),
            Self::Full { column, until } => {
                Some(Verdict::Denied(Refusal { tats, column, until: Some(until) }))
            }
            Self::Lost => None,
        }
    }
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
        if let Some(slot) = self.table.find(key) {
            let mut tats = [0; MAX_LIMITS];
            let charge = self.charge(slot, key.tag, now, cost, &mut tats);
            if let Some(verdict) = charge.verdict(tats) {
                return verdict;
            }
        }
        self.admit_exclusively(now, key, cost)
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

    /// Charges the cells of a slot, and writes down what they hold.
    #[inline]
    fn charge(&self, slot: Slot<'_>, tag: u64, now: Timestamp, cost: Cost, tats: &mut Tats) -> Charge {
        // A number that the compiler knows takes all loops out of what every request pays for.
        match self.columns.len() {
            1 => self.charge_all::<1>(slot, tag, now, cost, tats),
            2 => self.charge_all::<2>(slot, tag, now, cost, tats),
            3 => self.charge_all::<3>(slot, tag, now, cost, tats),
            4 => self.charge_all::<4>(slot, tag, now, cost, tats),
            5 => self.charge_all::<5>(slot, tag, now, cost, tats),
            6 => self.charge_all::<6>(slot, tag, now, cost, tats),
            _ => self.charge_all::<MAX_LIMITS>(slot, tag, now, cost, tats),
        }
    }

    /// [`Ledger::charge`] of `LIMITS` limits.
    #[inline]
    fn charge_all<const LIMITS: usize>(
        &self,
        slot: Slot<'_>,
        tag: u64,
        now: Timestamp,
        cost: Cost,
        tats: &mut Tats,
    ) -> Charge {
        let (columns, cells) = (self.columns.first_chunk::<LIMITS>(), slot.cells().first_chunk::<LIMITS>());
        let (Some(columns), Some(cells), Some(tats)) = (columns, cells, tats.first_chunk_mut::<LIMITS>())
        else {
            return Charge::Lost;
        };
        for (tat, cell) in tats.iter_mut().zip(cells) {
            *tat = cell.load(Ordering::Acquire);
            if *tat == SEALED {
                return Charge::Lost;
            }
        }
        if !slot.belongs_to(tag) {
            return Charge::Lost;
        }
        let mut after = *tats;
        let mut fits = true;
        for (column, tat) in columns.iter().zip(&mut after) {
            match column.charged(*tat, now, cost) {
                Ok(charged) => *tat = charged,
                Err(_) => fits = false,
            }
        }
        if !fits {
            let longest = self.longest_wait(tats, now, cost);
            return longest.map_or(Charge::Lost, |(column, until)| Charge::Full { column, until });
        }
        let steps = columns.iter().zip(cells).zip(tats.iter_mut()).zip(&after);
        for (position, (((column, cell), tat), charged)) in steps.enumerate() {
            if tat != charged {
                match column.charge((slot, tag), cell, (*tat, *charged), now, cost) {
                    Ok(charged) => *tat = charged,
                    Err(uncharged) => return self.take_back(slot, tag, (position, uncharged), cost, tats),
                }
            }
        }
        // If the slot changed hands and its cells the same values since, its new owner was charged: on the safe side.
        if slot.belongs_to(tag) { Charge::Done } else { Charge::Lost }
    }

    /// Ends a charge that another request overtook in the column at `position`.
    #[cold]
    fn take_back(
        &self,
        slot: Slot<'_>,
        tag: u64,
        (position, uncharged): (usize, Uncharged),
        cost: Cost,
        tats: &mut [u64],
    ) -> Charge {
        self.roll_back(slot, tag, position, cost);
        match (uncharged, self.read(slot, tag)) {
            (Uncharged::Full(until), Some(read)) => {
                tats.iter_mut().zip(read).for_each(|(tat, read)| *tat = read);
                Charge::Full { column: position, until }
            }
            _ => Charge::Lost,
        }
    }

    /// The TATs after `cost`, or which limit has no room longest.
    pub(crate) fn charged(&self, tats: &Tats, now: Timestamp, cost: Cost) -> Result<Tats, Refusal> {
        if let Some((column, until)) = self.longest_wait(tats, now, cost) {
            return Err(Refusal { tats: *tats, column, until: Some(until) });
        }
        let mut charged = *tats;
        for (column, tat) in self.columns.iter().zip(&mut charged) {
            *tat = column.charged(*tat, now, cost).unwrap_or(*tat);
        }
        Ok(charged)
    }

    /// Which limit has no room for `cost` longest, if one has none.
    fn longest_wait(&self, tats: &[u64], now: Timestamp, cost: Cost) -> Option<(usize, Timestamp)> {
        let waits = self.columns.iter().zip(tats).map(|(column, tat)| column.charged(*tat, now, cost).err());
        let waits = waits.enumerate().filter_map(|(column, until)| Some((column, until?)));
        waits.reduce(|longest, wait| if wait.1 > longest.1 { wait } else { longest })
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
        let mut tats = [0; MAX_LIMITS];
        self.charge(slot, tag, now, cost, &mut tats).verdict(tats).unwrap_or(Verdict::Retired)
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

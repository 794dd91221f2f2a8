//! The levels of one set of limits: all-or-nothing charges, and corrections, on a table of cells.

mod charge;
mod handover;
mod history;

use std::fmt;
use std::sync::{Arc, Weak};

use crate::clock::Timestamp;
use crate::cost::Cost;
use crate::key::Key;
use crate::limit_column::{Correction, LimitColumn};
use crate::policy::MAX_LIMITS;
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::table::{Exclusive, SEALED, Slot, Table};
use crate::typical::Typical;

use self::charge::{Charge, has_charged};
use self::handover::ShardOwner;

pub(crate) use self::history::LedgerHistory;

/// The TATs of a slot, in the order of the columns; the rest is unused.
pub(crate) type Tats = [u64; MAX_LIMITS];

/// The levels of all keys for one set of limits.
pub(crate) struct Ledger {
    columns: Box<[LimitColumn]>,
    /// When it took over from its predecessor, if it has one.
    since: Timestamp,
    /// How many ledgers share what its predecessor's levels may owe, this one included.
    shares: u32,
    /// Some limit denies all.
    is_closed: bool,
    retired: AtomicBool,
    table: Table<ShardOwner>,
    /// What recent requests used, in tokens; outlives the ledger.
    typical: Arc<Typical>,
    /// Decisions about keys that share a bucket because there is no room for one more; outlives the ledger.
    overflows: Arc<AtomicU64>,
    history: Weak<LedgerHistory>,
}

/// What a ledger decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All limits were charged.
    Admitted {
        /// In the bucket that keys without one share.
        is_overflow: bool,
    },
    /// Nothing was charged.
    Denied,
    /// Another ledger answers for this key.
    Retired,
}

/// What became of a correction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Corrected {
    Done {
        /// Items that the cap on debt let the caller off.
        forgiven: u64,
    },
    /// Another ledger answers for this key.
    Retired,
}

// === impl Ledger ===

impl Ledger {
    pub(crate) fn columns(&self) -> &[LimitColumn] {
        &self.columns
    }

    /// The limiter's clock and queues; `None` if the limiter is gone.
    pub(crate) fn history(&self) -> Option<Arc<LedgerHistory>> {
        self.history.upgrade()
    }

    pub(crate) fn typical(&self) -> &Typical {
        &self.typical
    }

    pub(crate) fn overflows(&self) -> u64 {
        self.overflows.load(Ordering::Relaxed)
    }

    /// Charges every limit, or none, and writes down where they stand.
    ///
    /// The verdict is a constant of the way that was taken, and nothing that was computed from a cell: a
    /// processor foresees the way, so that who goes by the verdict does not wait for memory. It looks ahead
    /// some three hundred instructions: the less most requests have to do, the more decisions wait for memory
    /// at the same time.
    #[inline(never)]
    pub(crate) fn admit(&self, now: Timestamp, key: Key, cost: Cost, tats: &mut Tats) -> Verdict {
        // A number that the compiler knows takes all loops out.
        match self.columns.len() {
            1 if !self.is_closed => self.admit_single(now, key, cost, tats),
            2 if !self.is_closed => self.admit_near::<2>(now, key, cost, tats),
            3 if !self.is_closed => self.admit_near::<3>(now, key, cost, tats),
            _ => self.admit_elsewhere(now, key, cost, tats),
        }
    }

    /// Which limit keeps out longest whom [`Ledger::admit`] denied at these TATs, and until when; `None` is
    /// for ever.
    pub(crate) fn refusal(&self, tats: &Tats, now: Timestamp, cost: Cost) -> (usize, Option<Timestamp>) {
        if let Some(column) = self.closed_to(cost) {
            return (column, None);
        }
        let (column, until) = self.longest_wait(tats, now, cost).unwrap_or((0, now));
        (column, Some(until))
    }

    /// The TATs of `key`; `None` if another ledger answers for it.
    pub(crate) fn peek(&self, now: Timestamp, key: Key) -> Option<Tats> {
        let found = self.table.find(key);
        if let Some(tats) = found.and_then(|slot| self.read(slot, key.tag)) {
            return Some(tats);
        }
        // A look ahead moves no key there that is still to be taken over.
        let _shard = self.lock(self.table.position(key), self.since)?;
        Some(self.read_key(now, key))
    }

    /// Corrects the level of the limit of `column`, whatever its amount, if there still is one.
    fn correct(&self, now: Timestamp, key: Key, column: &LimitColumn, correction: Correction) -> Corrected {
        let Some(position) = self.columns.iter().position(|heir| heir.is_heir_of(column)) else {
            return Corrected::Done { forgiven: 0 };
        };
        let found = self.table.find(key);
        found
            .and_then(|slot| self.correct_slot(slot, key.tag, position, now, correction))
            .unwrap_or_else(|| self.correct_exclusively(now, key, position, correction))
    }

    /// [`Ledger::correct`] by the ledger that answers for the key; returns what was forgiven. If the limiter
    /// is gone, nothing happens.
    pub(crate) fn correct_lastingly(
        &self,
        now: Timestamp,
        key: Key,
        column: &LimitColumn,
        correction: Correction,
    ) -> u64 {
        let mut corrected = self.correct(now, key, column, correction);
        loop {
            match corrected {
                Corrected::Done { forgiven } => return forgiven,
                Corrected::Retired => match self.successor() {
                    Some(successor) => corrected = successor.correct(now, key, column, correction),
                    None => return 0,
                },
            }
        }
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

    /// The limit that denies all, whatever is left.
    pub(crate) fn closed_to(&self, cost: Cost) -> Option<usize> {
        self.columns.iter().position(|column| column.is_closed() && column.counted(cost) > 0)
    }

    /// The TATs of `key`, or of a full bucket if it has no slot at this moment.
    fn read_key(&self, now: Timestamp, key: Key) -> Tats {
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

    /// Charges a limit that is alone. What is not as usual is begun anew elsewhere, so that most decisions
    /// keep nothing for it.
    #[inline(never)]
    fn admit_single(&self, now: Timestamp, key: Key, cost: Cost, tats: &mut Tats) -> Verdict {
        let Some(column) = self.columns.first() else {
            return self.admit_elsewhere(now, key, cost, tats);
        };
        // First, so that neither is to be kept until the slot is found.
        let (full, items) = (column.full(now), column.counted(cost));
        if let Some(slot) = self.table.find_near::<1>(key)
            && let Some(cell) = slot.cells().first()
        {
            let tat = cell.load(Ordering::Acquire);
            if tat != SEALED && slot.belongs_to(key.tag) {
                let Some(charged) = column.charged_when(tat, full, items) else {
                    tats[0] = tat;
                    return Verdict::Denied;
                };
                let step = cell.compare_exchange(tat, charged, Ordering::AcqRel, Ordering::Relaxed);
                tats[0] = charged;
                if step.is_ok() && has_charged(slot, key.tag) {
                    return Verdict::Admitted { is_overflow: false };
                }
            }
        }
        self.admit_elsewhere(now, key, cost, tats)
    }

    /// Charges two or three limits of a key that is probably where most are.
    #[inline(never)]
    fn admit_near<const LIMITS: usize>(
        &self,
        now: Timestamp,
        key: Key,
        cost: Cost,
        tats: &mut Tats,
    ) -> Verdict {
        if let Some(columns) = self.columns.first_chunk::<LIMITS>()
            && let Some(slot) = self.table.find_near::<2>(key)
        {
            match self.charge(columns, slot, key.tag, now, cost, tats) {
                Charge::Done => return Verdict::Admitted { is_overflow: false },
                Charge::Full => return Verdict::Denied,
                Charge::Lost(moved) => self.give_back(now, key, moved, cost),
            }
        }
        self.admit_elsewhere(now, key, cost, tats)
    }

    /// The TATs after `cost`, if it fits.
    fn charged(&self, tats: &Tats, now: Timestamp, cost: Cost) -> Option<Tats> {
        let mut charged = *tats;
        for (column, tat) in self.columns.iter().zip(&mut charged) {
            *tat = column.charged(*tat, now, cost)?;
        }
        Some(charged)
    }

    /// Which limit has no room for `cost` longest, if one has none.
    pub(crate) fn longest_wait(&self, tats: &Tats, now: Timestamp, cost: Cost) -> Option<(usize, Timestamp)> {
        let waits = self.columns.iter().zip(tats).map(|(column, tat)| column.room_at(*tat, now, cost));
        let waits = waits.enumerate().filter_map(|(column, until)| Some((column, until?)));
        waits.reduce(|longest, wait| if wait.1 > longest.1 { wait } else { longest })
    }

    /// Charges a key that is not where most are, or limits that few policies have.
    #[inline(never)]
    fn admit_elsewhere(&self, now: Timestamp, key: Key, cost: Cost, tats: &mut Tats) -> Verdict {
        if self.is_retired() {
            return Verdict::Retired;
        }
        if self.is_closed && self.closed_to(cost).is_some() {
            *tats = self.read_key(now, key);
            return Verdict::Denied;
        }
        if let Some(slot) = self.table.find(key) {
            match self.charge(&self.columns, slot, key.tag, now, cost, tats) {
                Charge::Done => return Verdict::Admitted { is_overflow: false },
                Charge::Full => return Verdict::Denied,
                Charge::Lost(moved) => self.give_back(now, key, moved, cost),
            }
        }
        self.admit_exclusively(now, key, cost, tats)
    }

    /// Charges a key that may have no slot yet, with the right to give it one.
    #[cold]
    fn admit_exclusively(&self, now: Timestamp, key: Key, cost: Cost, tats: &mut Tats) -> Verdict {
        let Some(mut shard) = self.lock(self.table.position(key), now) else {
            return Verdict::Retired;
        };
        let (slot, tag) = match shard.find(key) {
            Some(slot) => (slot, key.tag),
            None => {
                let latest = shard.state.note(now);
                *tats = self.full(latest);
                let Some(charged) = self.charged(tats, latest, cost) else {
                    return Verdict::Denied;
                };
                if self.insert(&shard, key, &charged).is_some() {
                    *tats = charged;
                    return Verdict::Admitted { is_overflow: false };
                }
                self.overflows.fetch_add(1, Ordering::Relaxed);
                (shard.shared(), Key::SHARED)
            }
        };
        match self.charge(&self.columns, slot, tag, now, cost, tats) {
            Charge::Done => Verdict::Admitted { is_overflow: tag == Key::SHARED },
            // Nothing is sealed, and no key moves, while this shard is ours: it is not lost.
            Charge::Full | Charge::Lost(_) => Verdict::Denied,
        }
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
        let Some(mut shard) = self.lock(self.table.position(key), now) else {
            return Corrected::Retired;
        };
        let slot = match (shard.find(key), correction) {
            (Some(slot), _) => Some(slot),
            // Its buckets are full, or it shares one with others whom the refund is not due.
            (None, Correction::Refund(_)) => return Corrected::Done { forgiven: 0 },
            (None, _) => {
                let latest = shard.state.note(now);
                self.insert(&shard, key, &self.full(latest))
            }
        };
        let slot = slot.unwrap_or_else(|| shard.shared());
        self.correct_slot(slot, slot.tag(), position, now, correction).unwrap_or(Corrected::Retired)
    }

    /// Gives `key` a slot with these TATs; `None` if none is free.
    fn insert<'t>(&self, shard: &Exclusive<'t, ShardOwner>, key: Key, tats: &Tats) -> Option<Slot<'t>> {
        let latest = shard.state.latest();
        let is_spent = |position: usize, tat: u64| {
            self.columns.get(position).is_some_and(|column| column.is_full(tat, latest))
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

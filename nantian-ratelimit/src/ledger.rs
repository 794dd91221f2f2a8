//! The levels of one set of limits: all-or-nothing charges and corrections on a table of cells.
//!
//! A change of amounts makes a new ledger. It takes the shards over from its predecessor one by one, each under the
//! mutexes of both, so that at every instant exactly one ledger answers for a key; the predecessor's cells are sealed
//! from then on, which sends everyone who still holds it to the successor.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::cost::Cost;
use crate::key::Key;
use crate::limiter::Lineage;
use crate::policy::{Limit, MAX_LIMITS};
use crate::rate::Rate;
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::table::{Exclusive, SEALED, Slot, Table};

/// The TATs of a slot, in the order of the columns; the rest is unused.
pub(crate) type Tats = [u64; MAX_LIMITS];

/// The levels of all keys for one set of limits.
pub(crate) struct Ledger {
    columns: Box<[Column]>,
    table: Table<Custody>,
    retired: AtomicBool,
    /// What recent requests used, in tokens; outlives the ledger.
    typical: Arc<AtomicU64>,
    lineage: Weak<Lineage>,
}

/// A limit and its rate.
#[derive(Debug)]
pub(crate) struct Column {
    limit: Limit,
    rate: Rate,
}

/// What a ledger decided.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All limits were charged.
    Admitted(Tats),
    /// Nothing was charged.
    Denied {
        tats: Tats,
        /// The column that keeps the caller out longest.
        column: usize,
        /// When the cost would fit; `None` if never.
        until: Option<Timestamp>,
    },
    /// Another ledger answers for this key.
    Retired,
}

/// A correction of one limit's level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Correction {
    Debit(u64),
    Refund(u64),
}

/// What became of a correction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Correct {
    Done {
        /// Items that the cap on debt let the caller off.
        forgiven: u64,
    },
    /// Another ledger answers for this key.
    Retired,
}

/// Who answers for the keys of a shard.
#[derive(Default)]
struct Custody {
    /// The ledger from which the shard was not yet taken over.
    source: Option<Arc<Ledger>>,
    /// The shard was handed to the successor.
    retired: bool,
}

/// Why a cell was not charged.
enum Uncharged {
    Sealed,
    Full(Timestamp),
}

// === impl Column ===

impl Column {
    fn new(limit: &Limit) -> Self {
        Self { limit: limit.clone(), rate: Rate::of(limit) }
    }

    pub(crate) fn limit(&self) -> &Limit {
        &self.limit
    }

    pub(crate) fn remaining(&self, tat: u64, now: Timestamp) -> u64 {
        if self.limit.max() == 0 {
            return 0;
        }
        self.rate.remaining(tat, self.rate.tick(now))
    }

    pub(crate) fn reset(&self, tat: u64, now: Timestamp) -> Duration {
        self.rate.full_at(tat).since(now)
    }

    /// What was reserved of the cost, in the limit's unit.
    pub(crate) fn reserved(&self, cost: Cost) -> u64 {
        self.rate.reserved(cost.of(self.limit.unit()))
    }

    /// Charges a cell that held `tat` when it was read, whatever it holds by now.
    fn charge(&self, cell: &AtomicU64, mut tat: u64, now: Timestamp, cost: u64) -> Result<u64, Uncharged> {
        let tick = self.rate.tick(now);
        loop {
            if tat == SEALED {
                return Err(Uncharged::Sealed);
            }
            let charged = match self.rate.charge(tat, tick, cost) {
                Ok(charged) => charged,
                Err(short) => return Err(Uncharged::Full(short.until)),
            };
            match cell.compare_exchange_weak(tat, charged, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(charged),
                Err(current) => tat = current,
            }
        }
    }
}

// === impl Ledger ===

impl Ledger {
    /// A ledger in which nobody has used anything.
    pub(crate) fn new(limits: &[Limit], keys: usize, lineage: Weak<Lineage>) -> Self {
        Self {
            columns: limits.iter().map(Column::new).collect(),
            table: Table::new(keys, limits.len(), Custody::default),
            retired: AtomicBool::new(false),
            typical: Arc::default(),
            lineage,
        }
    }

    /// A ledger for other limits that will answer for the same keys once [`Ledger::take_over`] returned; before, it
    /// takes over what it is asked for.
    pub(crate) fn succeeding(predecessor: &Arc<Self>, limits: &[Limit], keys: usize) -> Self {
        Self {
            columns: limits.iter().map(Column::new).collect(),
            table: Table::new(keys, limits.len(), || Custody {
                source: Some(Arc::clone(predecessor)),
                retired: false,
            }),
            retired: AtomicBool::new(false),
            typical: Arc::clone(&predecessor.typical),
            lineage: Weak::clone(&predecessor.lineage),
        }
    }

    /// Takes over all that the predecessor still has.
    pub(crate) fn take_over(&self, now: Timestamp) {
        for position in 0..self.table.shards() {
            drop(self.lock(position, now));
        }
    }

    /// Tells holders to look for the successor. Only a hint: shards are handed over under their mutexes.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// The ledger that answers now; `None` if the limiter is gone.
    pub(crate) fn successor(&self) -> Option<Arc<Self>> {
        self.lineage.upgrade().map(|lineage| lineage.latest())
    }

    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    pub(crate) fn typical(&self) -> &AtomicU64 {
        &self.typical
    }

    /// Charges every limit, or none.
    pub(crate) fn admit(&self, now: Timestamp, key: Key, cost: Cost) -> Verdict {
        if let Some(column) = self.closed_to(cost) {
            return Verdict::Denied { tats: self.glance(now, key), column, until: None };
        }
        self.table
            .find(key)
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
    pub(crate) fn correct(&self, now: Timestamp, key: Key, limit: &Limit, correction: Correction) -> Correct {
        let is_meant = |column: &Column| column.limit.is_same_as(limit);
        let Some(position) = self.columns.iter().position(is_meant) else {
            return Correct::Done { forgiven: 0 };
        };
        let done =
            self.table.find(key).and_then(|slot| self.correct_slot(slot, key.tag, position, now, correction));
        done.unwrap_or_else(|| self.correct_exclusively(now, key, position, correction))
    }

    /// Keys whose buckets are not full.
    pub(crate) fn live_keys(&self, now: Timestamp) -> usize {
        let is_live = |slot: &Slot<'_>| {
            self.columns.iter().zip(slot.cells()).any(|(column, cell)| {
                let tat = cell.load(Ordering::Relaxed);
                tat != SEALED && tat > column.rate.tick(now)
            })
        };
        self.table.slots().filter(is_live).count()
    }

    fn closed_to(&self, cost: Cost) -> Option<usize> {
        self.columns.iter().position(|column| column.limit.max() == 0 && cost.of(column.limit.unit()) > 0)
    }

    /// The TATs of `key`, or of a full bucket if it has no slot at this moment.
    fn glance(&self, now: Timestamp, key: Key) -> Tats {
        let found = self.table.find(key);
        found.and_then(|slot| self.read(slot, key.tag)).unwrap_or_else(|| self.full(now))
    }

    fn full(&self, now: Timestamp) -> Tats {
        let mut tats = [0; MAX_LIMITS];
        for (tat, column) in tats.iter_mut().zip(&self.columns) {
            *tat = column.rate.tick(now);
        }
        tats
    }

    /// The TATs of a slot; `None` if it is not that of `tag` or changes hands.
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
    fn charge(&self, slot: Slot<'_>, tag: u64, now: Timestamp, cost: Cost) -> Option<Verdict> {
        let mut tats = self.read(slot, tag)?;
        if let Err(denied) = self.fits(&tats, now, cost) {
            return Some(denied);
        }
        let cells = self.columns.iter().zip(slot.cells()).enumerate();
        for (position, (column, cell)) in cells {
            let amount = cost.of(column.limit.unit());
            let Some(tat) = tats.get_mut(position).filter(|_| amount > 0) else {
                continue;
            };
            match column.charge(cell, *tat, now, amount) {
                Ok(charged) => *tat = charged,
                Err(lost) => {
                    self.roll_back(slot, tag, position, cost);
                    return match lost {
                        Uncharged::Sealed => None,
                        Uncharged::Full(until) => Some(Verdict::Denied {
                            tats: self.read(slot, tag).unwrap_or(tats),
                            column: position,
                            until: Some(until),
                        }),
                    };
                }
            }
        }
        // If the slot changed hands since it was read, its new owner was charged in error, on the safe side.
        slot.belongs_to(tag).then_some(Verdict::Admitted(tats))
    }

    /// Whether every limit has room; if not, the denial.
    fn fits(&self, tats: &Tats, now: Timestamp, cost: Cost) -> Result<Tats, Verdict> {
        let mut charged = *tats;
        let mut worst: Option<(usize, Timestamp)> = None;
        for (position, (column, tat)) in self.columns.iter().zip(&mut charged).enumerate() {
            let amount = cost.of(column.limit.unit());
            if amount == 0 {
                continue;
            }
            match column.rate.charge(*tat, column.rate.tick(now), amount) {
                Ok(after) => *tat = after,
                Err(short) if worst.is_none_or(|(_, until)| until < short.until) => {
                    worst = Some((position, short.until));
                }
                Err(_) => {}
            }
        }
        match worst {
            None => Ok(charged),
            Some((column, until)) => Err(Verdict::Denied { tats: *tats, column, until: Some(until) }),
        }
    }

    /// Takes the charges of the first `count` columns back.
    fn roll_back(&self, slot: Slot<'_>, tag: u64, count: usize, cost: Cost) {
        for (column, cell) in self.columns.iter().zip(slot.cells()).take(count) {
            let amount = cost.of(column.limit.unit());
            update(slot, tag, cell, |tat| column.rate.undo(tat, amount));
        }
    }

    fn correct_slot(
        &self,
        slot: Slot<'_>,
        tag: u64,
        position: usize,
        now: Timestamp,
        correction: Correction,
    ) -> Option<Correct> {
        let rate = &self.columns.get(position)?.rate;
        let cell = slot.cells().get(position)?;
        let tick = rate.tick(now);
        let mut forgiven = 0;
        update(slot, tag, cell, |tat| match correction {
            Correction::Refund(items) => rate.refund(tat, tick, items),
            Correction::Debit(items) => {
                let adjusted = rate.debit(tat, tick, items);
                forgiven = adjusted.forgiven;
                adjusted.tat
            }
        })
        .then_some(Correct::Done { forgiven })
    }

    fn correct_exclusively(
        &self,
        now: Timestamp,
        key: Key,
        position: usize,
        correction: Correction,
    ) -> Correct {
        let Some(shard) = self.lock(self.table.position(key), now) else {
            return Correct::Retired;
        };
        let slot = match (shard.find(key), correction) {
            (Some(slot), _) => slot,
            // Its buckets are full, or it shares one with others whom the refund is not due.
            (None, Correction::Refund(_)) => return Correct::Done { forgiven: 0 },
            (None, Correction::Debit(_)) => self.insert(&shard, key, &self.full(now), now),
        };
        self.correct_slot(slot, slot.tag(), position, now, correction).unwrap_or(Correct::Retired)
    }

    fn admit_exclusively(&self, now: Timestamp, key: Key, cost: Cost) -> Verdict {
        let Some(shard) = self.lock(self.table.position(key), now) else {
            return Verdict::Retired;
        };
        if let Some(slot) = shard.find(key) {
            let verdict = self.charge(slot, key.tag, now, cost);
            return verdict.unwrap_or(Verdict::Retired);
        }
        let tats = match self.fits(&self.full(now), now, cost) {
            Ok(tats) => tats,
            Err(denied) => return denied,
        };
        let inserted = shard.insert(key, self.used(&tats), |i, tat| self.is_spent(i, tat, now));
        if inserted.is_some() {
            return Verdict::Admitted(tats);
        }
        let verdict = self.charge(shard.shared(), Key::SHARED, now, cost);
        verdict.unwrap_or(Verdict::Retired)
    }

    /// Gives `key` a slot with these TATs, or adds them to the shared one.
    fn insert<'t>(&self, shard: &Exclusive<'t, Custody>, key: Key, tats: &Tats, now: Timestamp) -> Slot<'t> {
        let inserted = shard.insert(key, self.used(tats), |i, tat| self.is_spent(i, tat, now));
        inserted.unwrap_or_else(|| {
            let shared = shard.shared();
            for ((column, cell), tat) in self.columns.iter().zip(shared.cells()).zip(tats) {
                let tick = column.rate.tick(now);
                update(shared, Key::SHARED, cell, |held| {
                    held.max(tick).saturating_add(tat.saturating_sub(tick))
                });
            }
            shared
        })
    }

    /// The TATs that have a column.
    fn used<'a>(&self, tats: &'a Tats) -> &'a [u64] {
        tats.get(..self.columns.len()).unwrap_or_default()
    }

    fn is_spent(&self, position: usize, tat: u64, now: Timestamp) -> bool {
        let column = self.columns.get(position);
        column.is_some_and(|column| tat <= column.rate.tick(now))
    }

    /// The right to add keys to a shard, after taking it over if need be; `None` if it was handed on.
    fn lock(&self, position: usize, now: Timestamp) -> Option<Exclusive<'_, Custody>> {
        let mut shard = self.table.lock(position);
        if shard.state.retired {
            return None;
        }
        let shared = shard.shared();
        if !shared.belongs_to(Key::SHARED) {
            shared.install(Key::SHARED, self.used(&self.full(now)));
        }
        if let Some(source) = shard.state.source.take() {
            self.take_shard(&shard, &source, position, now);
        }
        Some(shard)
    }

    fn take_shard(&self, shard: &Exclusive<'_, Custody>, source: &Self, position: usize, now: Timestamp) {
        let mut old = source.table.lock(position);
        old.state.retired = true;
        let shared = self.converted(source, old.shared(), now);
        shard.shared().install(Key::SHARED, self.used(&shared));
        for slot in old.slots() {
            let tats = self.converted(source, slot, now);
            self.insert(shard, Key::at(position, slot.tag()), &tats, now);
        }
    }

    /// Seals a slot of `source` and tells its levels by the rates of this ledger.
    fn converted(&self, source: &Self, slot: Slot<'_>, now: Timestamp) -> Tats {
        let mut tats = self.full(now);
        for (old, cell) in source.columns.iter().zip(slot.cells()) {
            let taken = Slot::take(cell);
            let is_same = |column: &Column| column.limit.is_same_as(&old.limit);
            let kept = self.columns.iter().zip(&mut tats).find(|(column, _)| is_same(column));
            if let Some((column, tat)) = kept.filter(|_| taken != SEALED) {
                *tat = old.rate.convert(taken, &column.rate, now);
            }
        }
        tats
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("columns", &self.columns).finish_non_exhaustive()
    }
}

/// Changes a cell of the slot of `tag` in one step; false if the slot is not that of `tag` or changes hands.
fn update(slot: Slot<'_>, tag: u64, cell: &AtomicU64, mut change: impl FnMut(u64) -> u64) -> bool {
    let mut tat = cell.load(Ordering::Acquire);
    loop {
        if tat == SEALED || !slot.belongs_to(tag) {
            return false;
        }
        let changed = change(tat);
        match cell.compare_exchange_weak(tat, changed, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return true,
            Err(current) => tat = current,
        }
    }
}

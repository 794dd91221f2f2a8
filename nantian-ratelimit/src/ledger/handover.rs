//! How a ledger for other amounts takes over the levels of the one before.
//!
//! Shards are handed over one by one, each under the mutexes of both ledgers, so that at every instant
//! exactly one ledger answers for a key. The predecessor's cells are sealed from then on, which sends
//! everyone who still holds it to the successor.

use std::sync::{Arc, Weak};

use crate::clock::Timestamp;
use crate::key::Key;
use crate::limit::Limit;
use crate::limit_column::LimitColumn;
use crate::sync::{AtomicBool, Ordering};
use crate::table::{Exclusive, SEALED, Slot, Table};

use super::{Ledger, LedgerHistory, Tats};

/// Who answers for the keys of a shard.
#[derive(Default)]
pub(super) struct ShardOwner {
    /// The ledger from which the shard was not yet taken over.
    source: Option<Arc<Ledger>>,
    /// The shard was handed to the successor.
    is_retired: bool,
    /// The latest time at which a slot may have been given to another key: whose it was is as full as it was
    /// then, though the clock has stepped back since.
    latest: Timestamp,
}

// === impl ShardOwner ===

impl ShardOwner {
    /// Notes that a slot may be given to another key `now`; returns the latest time at which one may have
    /// been.
    pub(super) fn note(&mut self, now: Timestamp) -> Timestamp {
        self.latest = self.latest.max(now);
        self.latest
    }

    pub(super) fn latest(&self) -> Timestamp {
        self.latest
    }
}

// === impl Ledger ===

impl Ledger {
    /// A ledger in which nobody has used anything.
    pub(crate) fn new(limits: &[Limit], keys: usize, history: Weak<LedgerHistory>) -> Self {
        Self::of(limits.iter().map(LimitColumn::new).collect(), keys, history)
    }

    fn of(columns: Box<[LimitColumn]>, keys: usize, history: Weak<LedgerHistory>) -> Self {
        Self {
            is_closed: columns.iter().any(LimitColumn::is_closed),
            table: Table::new(keys, columns.len(), ShardOwner::default),
            columns,
            since: Timestamp::ORIGIN,
            shares: 1,
            retired: AtomicBool::new(false),
            typical: Arc::default(),
            overflows: Arc::default(),
            history,
        }
    }

    /// A ledger for other limits from `now` on, which takes over the levels of `predecessor` shard by shard,
    /// as it is asked for them.
    pub(crate) fn succeeding(predecessor: &Arc<Self>, limits: &[Limit], keys: usize, now: Timestamp) -> Self {
        let column = |limit: &Limit| {
            let old = predecessor.columns.iter().find(|column| column.limit().is_same_as(limit));
            old.map_or_else(|| LimitColumn::new(limit), |old| old.succeeded_by(limit))
        };
        let columns = limits.iter().map(column).collect();
        let mut ledger = Self::of(columns, keys, Weak::clone(&predecessor.history));
        ledger.since = now;
        ledger.typical = Arc::clone(&predecessor.typical);
        ledger.overflows = Arc::clone(&predecessor.overflows);
        for position in 0..ledger.table.shards() {
            ledger.table.lock(position).state.source = Some(Arc::clone(predecessor));
        }
        ledger
    }

    /// Takes over all shards that the predecessor still has.
    pub(crate) fn take_over(&self, now: Timestamp) {
        for position in 0..self.table.shards() {
            drop(self.lock(position, now));
        }
    }

    /// Tells holders to look for the successor. Only a hint: shards are handed over under their mutexes.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    #[inline]
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// The ledger that answers now; `None` if the limiter is gone.
    pub(crate) fn successor(&self) -> Option<Arc<Self>> {
        self.history.upgrade().map(|history| history.latest())
    }

    /// The right to add keys to a shard, after taking it over if need be; `None` if it was handed on.
    pub(super) fn lock(&self, position: usize, now: Timestamp) -> Option<Exclusive<'_, ShardOwner>> {
        let mut shard = self.table.lock(position);
        if shard.state.is_retired {
            return None;
        }
        let shared = shard.shared();
        if !shared.belongs_to(Key::SHARED) {
            shared.install(Key::SHARED, self.used(&self.full(shard.state.latest)));
        }
        if let Some(source) = shard.state.source.take() {
            self.take_shard(&mut shard, &source, position, now);
        }
        Some(shard)
    }

    /// Copies slot by slot, so that every key that had one has one. To insert them anew would leave some
    /// without where the table is full: which keys find room depends on their order.
    fn take_shard(
        &self,
        shard: &mut Exclusive<'_, ShardOwner>,
        source: &Self,
        position: usize,
        now: Timestamp,
    ) {
        let mut old = source.table.lock(position);
        old.state.is_retired = true;
        shard.state.note(old.state.latest);
        shard.shared().install(Key::SHARED, self.used(&self.taken(source, old.shared(), now)));
        for (free, slot) in shard.pair_with(&old) {
            free.install(slot.tag(), self.used(&self.taken(source, slot, now)));
        }
    }

    /// Seals a slot of `source` and tells its levels by the columns of this ledger.
    fn taken(&self, source: &Self, slot: Slot<'_>, now: Timestamp) -> Tats {
        let mut tats = self.full(now);
        for (old, cell) in source.columns.iter().zip(slot.cells()) {
            let taken = Slot::take(cell);
            let mut columns = self.columns.iter().zip(&mut tats);
            let kept = columns.find(|(column, _)| column.is_heir_of(old));
            if let Some((column, tat)) = kept.filter(|_| taken != SEALED) {
                *tat = old.converted(taken, column, now, self.shares);
            }
        }
        tats
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::cost::Cost;
    use crate::key::Secret;
    use crate::policy::MAX_LIMITS;

    #[test]
    fn who_looks_ahead_while_limits_change_moves_no_level() {
        let limits = |max| [Limit::requests_per_minute(max)];
        let (now, later) = (Timestamp::ORIGIN, Timestamp::from_nanos(60_000_000_000));
        let key = Secret::new(1 << 63).hasher().finish();
        let old = Arc::new(Ledger::new(&limits(10), 1, Weak::new()));
        old.admit(now, key, Cost::new(4, 0), &mut [0; MAX_LIMITS]);
        let new = Ledger::succeeding(&old, &limits(20), 1, now);
        let left = |time| new.columns[0].remaining(new.peek(time, key).unwrap()[0], time);
        assert_eq!((left(later), left(now)), (20, 16));
    }
}

//! What is counted of every stream and every call of a guest: by slot, so that threads do not write to one
//! word.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::sync::lock;

/// What is counted in one slot, by whoever has its instance: what is read is current. Alone on its cache
/// lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Tally {
    streams: AtomicU64,
    calls: AtomicU64,
    milliseconds: AtomicU64,
}

/// Those of a plugin, of its slots and of those of versions before it.
#[derive(Debug, Default)]
pub(crate) struct Tallies(Mutex<Vec<Arc<Tally>>>);

/// What all slots have counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Total {
    pub(crate) streams: u64,
    pub(crate) calls: u64,
    pub(crate) guest_time: Duration,
}

// === impl Tally ===

impl Tally {
    pub(crate) fn count_stream(&self) {
        add(&self.streams, 1);
    }

    pub(crate) fn count_call(&self) {
        add(&self.calls, 1);
    }

    pub(crate) fn count_time(&self, milliseconds: u64) {
        add(&self.milliseconds, milliseconds);
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed).saturating_add(count), Ordering::Relaxed);
}

// === impl Tallies ===

impl Tallies {
    /// One for a slot: that of one which is gone, if there is one.
    pub(crate) fn begin(&self) -> Arc<Tally> {
        let mut tallies = lock(&self.0);
        let free = |tally: &mut Arc<Tally>| Arc::get_mut(tally).is_some().then(|| Arc::clone(tally));
        if let Some(tally) = tallies.iter_mut().find_map(free) {
            return tally;
        }
        let new = Arc::<Tally>::default();
        tallies.push(Arc::clone(&new));
        new
    }

    pub(crate) fn total(&self) -> Total {
        let mut total = Total::default();
        for tally in lock(&self.0).iter() {
            total.streams += tally.streams.load(Ordering::Relaxed);
            total.calls += tally.calls.load(Ordering::Relaxed);
            total.guest_time += Duration::from_millis(tally.milliseconds.load(Ordering::Relaxed));
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_slot_has_counted_stays_when_it_is_gone_and_its_place_is_taken_by_another() {
        let tallies = Tallies::default();
        let (first, second) = (tallies.begin(), tallies.begin());
        first.count_stream();
        second.count_stream();
        drop(first);
        tallies.begin().count_stream();
        assert_eq!(tallies.total().streams, 3);
        assert_eq!(lock(&tallies.0).len(), 2, "as many as there are at a time");
    }
}

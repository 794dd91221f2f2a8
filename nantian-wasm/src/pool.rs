//! Warm instances of one plugin, and which of them serves whom.
//!
//! An instance runs one guest call at a time, so each sits in a slot with a lock that is only ever tried. A thread takes
//! the slot it used last: with one slot for each thread, none finds its slot taken.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use futures_util::lock::{Mutex, MutexGuard, OwnedMutexLockFuture};

use crate::error::Cause;
use crate::instance::{Instance, Loan};
use crate::sandbox::Usage;
use crate::stream::Exchange;

/// Milliseconds that earn one replacement of an instance.
const REBUILD_EVERY: u64 = 50;
/// Replacements that may be made at once after a quiet time.
const REBUILD_BURST: u64 = 20;
/// How many times as long as a replacement took upkeep leaves the plugin's other instances dead, once the burst is used up.
const REBUILD_REST: u64 = 4;

/// The instances of a plugin.
pub(crate) struct Pool {
    slots: Box<[Arc<Slot>]>,
    rebuilds: RebuildBudget,
}

/// A place for one instance; streams hold on to their slot.
pub(crate) struct Slot {
    cell: Arc<Mutex<Cell>>,
    /// The thread that used the slot last; zero when none did.
    owner: AtomicU64,
    streams: AtomicU64,
    live: AtomicBool,
    orphans: StdMutex<Vec<Orphan>>,
    has_orphans: AtomicBool,
}

/// What the lock of a slot protects.
pub(crate) struct Cell {
    instance: Option<Instance>,
    /// Counts the instances the slot has had, so that a stream knows whether its own still lives.
    generation: u64,
}

/// A stream's hold on the instance it is pinned to.
#[derive(Clone)]
pub(crate) struct Lease {
    slot: Arc<Slot>,
    generation: u64,
}

/// A stream that was dropped while its instance was busy: it is finished by whoever comes next.
struct Orphan {
    generation: u64,
    context: u32,
    exchange: Option<Box<Exchange>>,
}

/// Why no instance was leased.
pub(crate) enum LeaseError {
    /// All are running a guest; this one was asked last.
    Busy(Arc<Slot>),
    /// None is alive until upkeep replaces one.
    Dead(Cause),
}

/// How fast dead instances are replaced, so that a guest that always traps does not cost its building each time.
///
/// The time, in engine ticks, at which the budget is full again. One word: a step is one exchange.
#[derive(Debug, Default)]
pub(crate) struct RebuildBudget(AtomicU64);

// === impl Pool ===

impl Pool {
    pub(crate) fn new(instances: Vec<Instance>) -> Self {
        Self {
            slots: instances.into_iter().map(Slot::new).map(Arc::new).collect(),
            rebuilds: RebuildBudget::default(),
        }
    }

    pub(crate) fn slots(&self) -> &[Arc<Slot>] {
        &self.slots
    }

    /// Takes an instance for a new stream: this thread's own if it can be had, else any that is alive.
    ///
    /// Builds none: starting a guest may take a second, which upkeep has and a request has not.
    pub(crate) fn lease(&self) -> Result<(Lease, MutexGuard<'_, Cell>), LeaseError> {
        let thread = thread_key();
        let mut busy = None;
        for pass in [Slot::is_own, Slot::is_free, Slot::is_foreign] {
            for slot in self.slots.iter().filter(|slot| pass(slot, thread)) {
                match slot.cell.try_lock() {
                    Some(cell) if cell.instance.is_some() => {
                        slot.claim(thread);
                        return Ok((Lease::new(slot, &cell), cell));
                    }
                    Some(_) => {}
                    None => busy = Some(slot),
                }
            }
        }
        Err(busy.map_or(LeaseError::Dead(Cause::NoInstance), |slot| LeaseError::Busy(Arc::clone(slot))))
    }

    /// Whether another dead instance may be replaced now.
    pub(crate) fn may_rebuild_at(&self, now: u64) -> bool {
        self.rebuilds.spend_at(now)
    }

    /// Notes how long a replacement took, in engine ticks.
    pub(crate) fn rebuilt_in(&self, took: u64) {
        self.rebuilds.charge(took);
    }
}

// === impl Slot ===

impl Slot {
    fn new(instance: Instance) -> Self {
        Self {
            cell: Arc::new(Mutex::new(Cell { instance: Some(instance), generation: 0 })),
            owner: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            live: AtomicBool::new(true),
            orphans: StdMutex::default(),
            has_orphans: AtomicBool::new(false),
        }
    }

    fn is_own(&self, thread: u64) -> bool {
        self.owner.load(Ordering::Relaxed) == thread
    }

    fn is_free(&self, _: u64) -> bool {
        self.owner.load(Ordering::Relaxed) == 0
    }

    fn is_foreign(&self, thread: u64) -> bool {
        !self.is_own(thread) && !self.is_free(thread)
    }

    fn claim(&self, thread: u64) {
        if !self.is_own(thread) {
            self.owner.store(thread, Ordering::Relaxed);
        }
        self.streams.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, Cell>> {
        self.cell.try_lock()
    }

    /// Waits for the slot; the lock is let go again by whoever polls this.
    pub(crate) fn wait(&self) -> OwnedMutexLockFuture<Cell> {
        Arc::clone(&self.cell).lock_owned()
    }

    /// Puts a new instance in.
    pub(crate) fn fill(&self, cell: &mut Cell, instance: Instance) {
        cell.instance = Some(instance);
        cell.generation += 1;
        self.live.store(true, Ordering::Relaxed);
    }

    /// Drops an instance that ended.
    pub(crate) fn bury(&self, cell: &mut Cell) {
        if cell.instance.take_if(|instance| !instance.is_alive()).is_some() {
            self.live.store(false, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.live.load(Ordering::Relaxed)
    }

    pub(crate) fn streams(&self) -> u64 {
        self.streams.load(Ordering::Relaxed)
    }

    /// Finishes streams that were dropped while the instance was busy.
    pub(crate) fn finish_orphans(&self, cell: &mut Cell) -> Result<(), Cause> {
        if !self.has_orphans.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let orphans = std::mem::take(&mut *self.orphans.lock().unwrap_or_else(PoisonError::into_inner));
        for orphan in orphans {
            let Some(instance) = cell.instance_of(orphan.generation) else { continue };
            instance.lend(Loan { exchange: orphan.exchange, usage: Usage::default() });
            let closed = instance.close(orphan.context);
            drop(instance.give_back());
            if closed.is_err() {
                self.bury(cell);
                return closed;
            }
        }
        Ok(())
    }
}

// === impl Cell ===

impl Cell {
    /// The instance, if it is still the one a stream was pinned to.
    pub(crate) fn instance_of(&mut self, generation: u64) -> Option<&mut Instance> {
        self.instance.as_mut().filter(|_| self.generation == generation)
    }

    pub(crate) fn instance(&mut self) -> Option<&mut Instance> {
        self.instance.as_mut()
    }
}

// === impl Lease ===

impl Lease {
    fn new(slot: &Arc<Slot>, cell: &Cell) -> Self {
        Self { slot: Arc::clone(slot), generation: cell.generation }
    }

    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Leaves a stream to whoever uses the instance next.
    pub(crate) fn orphan(&self, context: u32, exchange: Option<Box<Exchange>>) {
        let orphan = Orphan { generation: self.generation, context, exchange };
        self.slot.orphans.lock().unwrap_or_else(PoisonError::into_inner).push(orphan);
        self.slot.has_orphans.store(true, Ordering::Release);
    }
}

// === impl RebuildBudget ===

impl RebuildBudget {
    fn spend_at(&self, now: u64) -> bool {
        let spent = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let full_at = full_at.max(now).saturating_add(REBUILD_EVERY);
            (full_at <= now.saturating_add(REBUILD_EVERY * REBUILD_BURST)).then_some(full_at)
        });
        spent.is_ok()
    }

    /// Charges for the time a replacement took, so that a guest that is slow to start leaves upkeep to the others.
    fn charge(&self, took: u64) {
        self.0.fetch_add(took.saturating_mul(REBUILD_REST), Ordering::Relaxed);
    }
}

/// A number that tells threads apart, never zero.
fn thread_key() -> u64 {
    let mut hasher = DefaultHasher::new();
    std::thread::current().id().hash(&mut hasher);
    hasher.finish() | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacements_are_bounded_in_number_and_rate() {
        let budget = RebuildBudget::default();
        assert_eq!((0..100).filter(|_| budget.spend_at(7)).count(), 20);
        assert_eq!((0..1_000).filter(|tick| budget.spend_at(7 + tick)).count(), 19);
    }

    #[test]
    fn a_guest_that_is_slow_to_start_takes_a_fifth_of_the_time_of_upkeep() {
        let budget = RebuildBudget::default();
        let (mut now, mut building) = (0, 0);
        while now < 100_000 {
            if budget.spend_at(now) {
                budget.charge(1_000);
                now += 1_000;
                building += 1_000;
            }
            now += 10;
        }
        assert!((15_000..=25_000).contains(&building), "{building} of 100 000 ms");
    }
}

//! Warm instances of one plugin, and which of them serves whom.
//!
//! An instance runs one guest call at a time, so each sits in a slot with a lock that is only ever tried. A
//! thread takes the slot it used last: with one slot for each thread, none finds its slot taken.

use std::cmp::Ordering::{Equal, Greater, Less};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use futures_util::lock::{Mutex, OwnedMutexGuard, OwnedMutexLockFuture};

use crate::background_calls::BackgroundCalls;
use crate::engine::Clock;
use crate::error::{Cause, Phase};
use crate::inbox::Inbox;
use crate::instance::Instance;
use crate::lease::Lease;
use crate::proxy_wasm::SharedPlugin;
use crate::rebuild_budget::RebuildBudget;
use crate::room::Kept;
use crate::sandbox::Peaks;
use crate::stream::ReusableFuture;
use crate::tally::Tally;
use crate::thread_key::thread_key;

/// The instances of a plugin.
pub(crate) struct Pool {
    /// One more than there are to be instances.
    slots: Box<[Arc<Slot>]>,
    kept: Kept,
    rebuilds: RebuildBudget,
    /// Until when, in engine ticks, the successor of a worn instance is taken to find no place beside it;
    /// zero where none was refused one.
    full_until: AtomicU64,
}

/// After how many engine ticks it is tried again whether there is a place.
pub(crate) const PLACE_RETRY: u64 = 1_000;

/// A place for one instance; streams hold on to their slot.
pub(crate) struct Slot {
    plugin: Arc<SharedPlugin>,
    cell: Arc<Mutex<InstanceCell>>,
    /// Counts the instances that ended here, so that a stream knows whether its own still lives.
    generation: AtomicU64,
    /// The thread that used the slot last; zero when none did.
    owner: AtomicU64,
    tally: Arc<Tally>,
    live: AtomicBool,
    /// An instance is on its way into the slot.
    is_starting: AtomicBool,
    /// The guest asks for another instance in its place.
    is_worn: AtomicBool,
    memory: AtomicU64,
    peaks: Peaks,
    inbox: Inbox,
    background_calls: BackgroundCalls,
    /// How many streams wait for the instance.
    waiting: AtomicUsize,
    /// The beat of the engine's clock after which the guest that runs was last let run.
    resumed_at: AtomicU64,
}

/// The lock of a slot.
pub(crate) type InstanceGuard = OwnedMutexGuard<InstanceCell>;

/// What the lock of a slot protects.
pub(crate) struct InstanceCell {
    instance: Option<Instance>,
    /// The memory of the next call's future.
    future: Option<ReusableFuture>,
}

/// Why no instance was leased.
pub(crate) enum LeaseError {
    /// All are running a guest; for this one fewest wait.
    Busy(Arc<Slot>),
    /// None is alive, or those that are have no room for another stream.
    Unavailable(Cause),
}

// === impl Pool ===

impl Pool {
    /// Instances that have started, and places for more.
    pub(crate) fn new(slots: Vec<Arc<Slot>>) -> Self {
        Self {
            kept: Kept::new(count(&slots, Slot::is_live).max(1)),
            slots: slots.into(),
            rebuilds: RebuildBudget::default(),
            full_until: AtomicU64::new(0),
        }
    }

    pub(crate) fn slots(&self) -> &[Arc<Slot>] {
        &self.slots
    }

    /// Takes an instance for a new stream: this thread's own if it can be had, else any that is alive and has
    /// room.
    ///
    /// Builds none: starting a guest may take seconds, which upkeep has and a request has not.
    pub(crate) fn lease(&self) -> Result<(Lease, InstanceGuard), LeaseError> {
        let thread = thread_key();
        let (mut busy, mut cause) = (None, Cause::NoInstance);
        for round in 0..=Slot::LAST + 1 {
            // The surplus is to end: it serves where there is nobody to wait for.
            if round > Slot::LAST && busy.is_some() {
                break;
            }
            let mut needed = if round == Slot::LAST { self.worn_and_needed() } else { 0 };
            let mut is_due = |slot: &Slot| match round.cmp(&Slot::LAST) {
                Less => slot.rank(thread) == round,
                // A rank may have fallen since it was passed: from now on, all are asked.
                Equal if slot.is_worn() => take_one(&mut needed),
                Equal | Greater => true,
            };
            for slot in &self.slots {
                if !is_due(slot) {
                    continue;
                }
                let Some(cell) = slot.try_lock() else {
                    // One that starts may take longer than any callback.
                    let delay = (!slot.is_live(), slot.waiting());
                    if round >= Slot::LAST && busy.is_none_or(|(least, _)| delay < least) {
                        busy = Some((delay, slot));
                    }
                    continue;
                };
                match &cell.instance {
                    Some(instance) if instance.has_room() => {
                        slot.claim(thread);
                        return Ok((Lease::new(slot), cell));
                    }
                    Some(_) => cause = Cause::Budget { what: "stream contexts" },
                    None => {}
                }
            }
        }
        Err(match busy {
            Some((_, slot)) => LeaseError::Busy(Arc::clone(slot)),
            None => LeaseError::Unavailable(cause),
        })
    }

    /// How many worn instances serve until there are others in their place.
    fn worn_and_needed(&self) -> u64 {
        self.kept.number().saturating_sub(self.fresh_and_worn().0)
    }

    /// How many instances serve that do not ask for another in their place, and how many that do.
    pub(crate) fn fresh_and_worn(&self) -> (u64, u64) {
        let that_live = |is_worn| count(&self.slots, |slot| slot.is_live() && slot.is_worn() == is_worn);
        (that_live(false), that_live(true))
    }

    /// How many instances are to be started for as many to serve as are kept that do not ask for another in
    /// their place, unless that finds no place beside them, and how many more than so many there are.
    pub(crate) fn missing_and_surplus(&self, now: u64) -> (u64, u64) {
        let wanted = self.kept.number();
        let lacks_place = now < self.full_until.load(Ordering::Relaxed);
        let is_fresh = |slot: &Slot| slot.is_starting() || slot.is_live() && (lacks_place || !slot.is_worn());
        let (fresh, live) = (count(&self.slots, is_fresh), count(&self.slots, Slot::is_live));
        (wanted.saturating_sub(fresh), live.saturating_sub(wanted))
    }

    /// How many instances are kept.
    pub(crate) fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Notes that an instance finds no place to start in; whether a worn one will give it its own.
    pub(crate) fn give_place(&self, now: u64) -> bool {
        let gives = self.slots.iter().any(|slot| slot.is_live() && slot.is_worn());
        let until = if gives { now.saturating_add(PLACE_RETRY) } else { 0 };
        self.full_until.store(until, Ordering::Relaxed);
        gives
    }

    /// Whether a worn instance has to end before its successor starts, asked once.
    pub(crate) fn takes_place(&self) -> bool {
        self.full_until.swap(0, Ordering::Relaxed) > 0
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
    /// A place without an instance.
    pub(crate) fn new(plugin: Arc<SharedPlugin>) -> Arc<Self> {
        Arc::new(Self {
            tally: plugin.shared.tallies.begin(),
            plugin,
            cell: Arc::new(Mutex::new(InstanceCell { instance: None, future: None })),
            generation: AtomicU64::new(0),
            owner: AtomicU64::new(0),
            live: AtomicBool::new(false),
            is_starting: AtomicBool::new(false),
            is_worn: AtomicBool::new(false),
            memory: AtomicU64::new(0),
            peaks: Peaks::default(),
            inbox: Inbox::default(),
            background_calls: BackgroundCalls::default(),
            waiting: AtomicUsize::new(0),
            resumed_at: AtomicU64::new(0),
        })
    }

    /// The last of the ranks.
    const LAST: u8 = 3;

    /// Where the slot stands among those in which a thread looks for an instance: its own come first, and
    /// those whose guest asks for another instance last, with those where one starts.
    fn rank(&self, thread: u64) -> u8 {
        match self.owner.load(Ordering::Relaxed) {
            _ if self.is_worn() || !self.is_live() => Self::LAST,
            owner if owner == thread => 0,
            0 => 1,
            _ => 2,
        }
    }

    fn claim(&self, thread: u64) {
        if self.owner.load(Ordering::Relaxed) != thread {
            self.owner.store(thread, Ordering::Relaxed);
        }
        self.tally.count_stream();
    }

    pub(crate) fn plugin(&self) -> &Arc<SharedPlugin> {
        &self.plugin
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn try_lock(&self) -> Option<InstanceGuard> {
        self.cell.try_lock_owned()
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.plugin.clock
    }

    /// Notes that the guest is let run from now on.
    pub(crate) fn resume(&self) {
        self.resumed_at.store(self.plugin.clock.beats(), Ordering::Relaxed);
    }

    pub(crate) fn resumed_at(&self) -> u64 {
        self.resumed_at.load(Ordering::Relaxed)
    }

    /// Waits for the slot; the lock is let go again by whoever polls this. It counts among those that wait
    /// until [`stop_waiting`](Self::stop_waiting).
    pub(crate) fn wait(&self) -> OwnedMutexLockFuture<InstanceCell> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Arc::clone(&self.cell).lock_owned()
    }

    pub(crate) fn stop_waiting(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Puts a new instance in.
    pub(crate) fn fill(&self, cell: &mut InstanceCell, instance: Instance) {
        self.memory.store(instance.memory_bytes(), Ordering::Relaxed);
        cell.instance = Some(instance);
        self.set_worn(false);
        self.live.store(true, Ordering::Relaxed);
    }

    /// Drops an instance that ended, and wakes the streams it held.
    pub(crate) fn bury(&self, cell: &mut InstanceCell, phase: Phase, cause: &Cause) {
        let SharedPlugin { name, shared, clock, log, .. } = &*self.plugin;
        shared.counters.trapped(cause);
        log.trapped(name, phase, cause, || shared.counters.last_backtrace(), clock.ticks());
        if cell.instance.take_if(|instance| !instance.is_alive()).is_none() {
            return;
        }
        self.vacate();
        self.wake_at(0);
    }

    /// Takes out an instance, if there is one, that no stream is on.
    pub(crate) fn take_out(&self, cell: &mut InstanceCell) -> Option<Instance> {
        let instance = cell.instance.take()?;
        self.vacate();
        Some(instance)
    }

    fn vacate(&self) {
        self.live.store(false, Ordering::Relaxed);
        // Whoever had it does not look here first for as long as it is empty.
        self.owner.store(0, Ordering::Relaxed);
        self.set_worn(false);
        self.memory.store(0, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Notes whether the guest asks for another instance in its place.
    pub(crate) fn set_worn(&self, is_worn: bool) {
        self.is_worn.store(is_worn, Ordering::Relaxed);
    }

    pub(crate) fn is_worn(&self) -> bool {
        self.is_worn.load(Ordering::Relaxed)
    }

    /// Notes whether an instance is on its way into the slot.
    pub(crate) fn set_starting(&self, is_starting: bool) {
        self.is_starting.store(is_starting, Ordering::Relaxed);
    }

    pub(crate) fn is_starting(&self) -> bool {
        self.is_starting.load(Ordering::Relaxed)
    }

    pub(crate) fn is_live(&self) -> bool {
        self.live.load(Ordering::Relaxed)
    }

    pub(crate) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    pub(crate) fn background_calls(&self) -> &BackgroundCalls {
        &self.background_calls
    }

    pub(crate) fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    pub(crate) fn peaks(&self) -> &Peaks {
        &self.peaks
    }

    pub(crate) fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    /// Notes how much memory the guest has now.
    pub(crate) fn measure(&self, cell: &mut InstanceCell) {
        if let Some(instance) = cell.instance() {
            self.memory.store(instance.memory_bytes(), Ordering::Relaxed);
        }
    }
}

// === impl InstanceCell ===

impl InstanceCell {
    /// The instance, if it is still the one a stream was pinned to.
    pub(crate) fn instance_of(&mut self, slot: &Slot, generation: u64) -> Option<&mut Instance> {
        self.instance.as_mut().filter(|_| slot.generation() == generation)
    }

    pub(crate) fn instance(&mut self) -> Option<&mut Instance> {
        self.instance.as_mut()
    }

    pub(crate) fn take_future(&mut self) -> Option<ReusableFuture> {
        self.future.take()
    }

    pub(crate) fn keep_future(&mut self, future: ReusableFuture) {
        self.future = Some(future);
    }
}

fn take_one(number: &mut u64) -> bool {
    let is_some = *number > 0;
    *number = number.saturating_sub(1);
    is_some
}

fn count(slots: &[Arc<Slot>], is_counted: impl Fn(&Slot) -> bool) -> u64 {
    u64::try_from(slots.iter().filter(|slot| is_counted(slot)).count()).unwrap_or(u64::MAX)
}

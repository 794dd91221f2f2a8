//! Room for the instances of a plugin.
//!
//! It has as many as it is to have where there is memory for them. All but the first leave room for another
//! one, in which the first one of an edit starts while they serve; where guests have grown so much that they
//! leave none, one of them goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::Sandbox;
use crate::engine::Engine;
use crate::error::PluginError;
use crate::instance::Instance;
use crate::module::Module;
use crate::observe;
use crate::pool::{PLACE_RETRY, Pool, Slot};
use crate::running::attended;

/// How many instances of a plugin are kept: as many as there are to be, or as there is memory for.
#[derive(Debug)]
pub(crate) struct Kept {
    number: AtomicU64,
    /// Until when, in engine ticks, there is taken to be no place for more.
    short_until: AtomicU64,
}

// === impl Kept ===

impl Kept {
    pub(crate) fn new(number: u64) -> Self {
        Self { number: AtomicU64::new(number), short_until: AtomicU64::new(0) }
    }

    pub(crate) fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// One more, unless there was no place for it a moment ago.
    fn add(&self, now: u64) {
        if now >= self.short_until.load(Ordering::Relaxed) {
            self.number.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One less, except for the last, and for a moment no more than that; whether there was one to spare.
    pub(crate) fn spare(&self, now: u64) -> bool {
        self.short_until.store(now.saturating_add(PLACE_RETRY), Ordering::Relaxed);
        let less = |number: u64| (number > 1).then(|| number - 1);
        self.number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// Starts an instance in each slot for which there is room, in the first one in any case.
pub(crate) async fn fill(slots: &[Arc<Slot>], module: &Module, sandbox: &Sandbox) -> Result<(), PluginError> {
    for (started, slot) in slots.iter().enumerate() {
        if !has_room(slots, module.engine()) {
            break;
        }
        let Some(mut cell) = slot.try_lock() else { continue };
        match attended(slot, Instance::start(module, sandbox, slot)).await {
            Ok(instance) => slot.fill(&mut cell, instance),
            Err(PluginError::NoMemory { .. }) if started > 0 => break,
            Err(error) => return Err(error),
        }
        drop(cell);
        slot.settle();
    }
    let live = slots.iter().filter(|slot| slot.is_live()).count();
    if let Some(slot) = slots.first().filter(|_| live < slots.len()) {
        observe::has_few_instances(&slot.plugin().name, live, slots.len());
    }
    Ok(())
}

/// Keeps one instance more where there is room, and one less where there is none for an edit. One at a time:
/// what an instance takes is known when its guest has started.
pub(crate) fn adapt(pool: &Pool, most: u64, engine: &Engine) {
    let (slots, kept, now) = (pool.slots(), pool.kept(), engine.ticks());
    if slots.iter().any(|slot| slot.is_starting()) {
        return;
    }
    let (fresh, worn) = pool.fresh_and_worn();
    if fresh == kept.number() && fresh < most && has_room(slots, engine) {
        kept.add(now);
    } else if fresh == kept.number() && worn == 0 && is_crowded(slots, engine) {
        kept.spare(now);
    } else if fresh > kept.number() && worn == 0 {
        // It goes when it is idle.
        largest(slots).into_iter().for_each(|(slot, _)| slot.set_worn(true));
    }
}

/// Whether there is room for one more instance like the largest, or none is live.
fn has_room(slots: &[Arc<Slot>], engine: &Engine) -> bool {
    largest(slots).is_none_or(|(slot, bytes)| {
        engine.linear_memory().has_room_beside(slot.plugin().space.memory(), bytes)
    })
}

/// Whether the first instance of an edit has no room, if it is like the largest.
fn is_crowded(slots: &[Arc<Slot>], engine: &Engine) -> bool {
    largest(slots)
        .is_some_and(|(slot, bytes)| engine.linear_memory().is_crowded(slot.plugin().space.memory(), bytes))
}

fn largest(slots: &[Arc<Slot>]) -> Option<(&Arc<Slot>, usize)> {
    let largest = slots.iter().filter(|slot| slot.is_live()).max_by_key(|slot| slot.memory())?;
    Some((largest, usize::try_from(largest.memory()).unwrap_or(usize::MAX)))
}

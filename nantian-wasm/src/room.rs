//! Room for the instances of a plugin.
//!
//! It has as many as it is to have where there is memory for them. All but the first leave room for another
//! one, in which the first one of an edit starts while they serve.

use std::sync::Arc;

use crate::config::Sandbox;
use crate::engine::Engine;
use crate::error::PluginError;
use crate::instance::Instance;
use crate::module::Module;
use crate::observe;
use crate::pool::Slot;
use crate::running::attended;

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

/// Whether there is room for one more instance like the largest that is live, or none is.
pub(crate) fn has_room(slots: &[Arc<Slot>], engine: &Engine) -> bool {
    let largest = slots.iter().filter(|slot| slot.is_live()).max_by_key(|slot| slot.memory());
    largest.is_none_or(|largest| {
        let bytes = usize::try_from(largest.memory()).unwrap_or(usize::MAX);
        engine.linear_memory().has_room_beside(largest.plugin().space.memory(), bytes)
    })
}

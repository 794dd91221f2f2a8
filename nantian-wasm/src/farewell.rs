//! The end of an instance whose plugin is gone.

use std::sync::Arc;

use crate::error::{Cause, Phase};
use crate::inbox::work_off;
use crate::instance::Instance;
use crate::pool::Slot;
use crate::running::finish;

/// Longest time a guest may take to be done, in engine ticks: a minute, as in Envoy.
const PATIENCE: u64 = 60_000;

/// An instance that serves no stream any more, and may have streams and calls to end.
pub(crate) struct Farewell {
    slot: Arc<Slot>,
    /// Until when the guest is waited for, once it has been told.
    until: Option<u64>,
}

// === impl Farewell ===

impl Farewell {
    /// That of an instance which has something to end; one that has not can go at once.
    pub(crate) fn of(slot: &Arc<Slot>) -> Option<Self> {
        let has_calls = slot.has_left() || !slot.inbox().is_empty();
        let has_end =
            slot.try_lock().is_none_or(|mut cell| cell.instance().is_some_and(|it| it.has_root_end()));
        (has_calls || has_end).then(|| Self { slot: Arc::clone(slot), until: None })
    }

    /// One round of upkeep; whether it was the last one.
    pub(crate) fn is_over_at(&mut self, now: u64) -> bool {
        let slot = &self.slot;
        slot.finish_left();
        // Whoever has the slot brings a reply.
        let Some(mut cell) = slot.try_lock() else { return false };
        finish(slot, work_off(&Arc::downgrade(slot), &mut cell));
        let Some(instance) = cell.instance() else { return true };
        if slot.inbox().has_deferred() {
            // Streams whose exchange another plugin has end when it has given that back.
            return false;
        }
        match finish(slot, proceed(instance, &mut self.until, now)) {
            Ok(is_over) => is_over,
            Err(cause) => {
                slot.bury(&mut cell, Phase::End, &cause);
                true
            }
        }
    }
}

/// Tells the guest that nothing more comes, waits until it is done, and lets it go.
async fn proceed(instance: &mut Instance, until: &mut Option<u64>, now: u64) -> Result<bool, Cause> {
    let until = match *until {
        Some(until) => until,
        None => {
            instance.on_root_done().await?;
            *until.insert(now.saturating_add(PATIENCE))
        }
    };
    if instance.is_ending() && now < until {
        instance.tick_at(now).await?;
        return Ok(false);
    }
    instance.on_root_delete().await?;
    Ok(true)
}

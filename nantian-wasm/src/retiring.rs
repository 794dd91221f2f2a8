//! The end of an instance whose plugin is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Cause, Phase};
use crate::instance::Instance;
use crate::pool::Slot;

/// Longest time a guest may take to be done, in engine ticks: a minute, as in Envoy.
const PATIENCE: u64 = 60_000;

/// An instance that serves no stream any more, and may have streams and calls to end.
pub(crate) struct RetiringInstance {
    slot: Arc<Slot>,
    progress: Arc<Progress>,
}

#[derive(Default)]
struct Progress {
    /// Until when the guest is waited for, once it has been told; zero before.
    until: AtomicU64,
    is_over: AtomicBool,
}

// === impl RetiringInstance ===

impl RetiringInstance {
    /// That of an instance which has something to end; one that has not can go at once.
    pub(crate) fn of(slot: &Arc<Slot>) -> Option<Self> {
        let has_calls = slot.has_left() || !slot.inbox().is_empty();
        let has_end =
            slot.try_lock().is_none_or(|mut cell| cell.instance().is_some_and(|it| it.has_root_end()));
        (has_calls || has_end).then(|| Self { slot: Arc::clone(slot), progress: Arc::default() })
    }

    /// One round of upkeep; whether it was the last one.
    pub(crate) fn is_over_at(&self, now: u64) -> bool {
        let Self { slot, progress } = self;
        slot.adopt_stalled();
        if slot.give_turns() {
            return false;
        }
        if progress.is_over.load(Ordering::Relaxed) {
            return true;
        }
        // Whoever has the slot brings a reply.
        let Some(mut cell) = slot.try_lock() else { return false };
        if cell.instance().is_none() {
            return true;
        }
        if slot.inbox().has_deferred() {
            // Streams whose exchange another plugin has end when it has given that back.
            return false;
        }
        let (progress, slot_of) = (Arc::clone(progress), Arc::downgrade(slot));
        slot.set_off(async move {
            let Some(instance) = cell.instance() else { return };
            let is_over = proceed(instance, &progress.until, now).await.unwrap_or_else(|cause| {
                if let Some(slot) = slot_of.upgrade() {
                    slot.bury(&mut cell, Phase::End, &cause);
                }
                true
            });
            progress.is_over.store(is_over, Ordering::Relaxed);
        });
        self.progress.is_over.load(Ordering::Relaxed)
    }
}

/// Tells the guest that nothing more comes, waits until it is done, and lets it go.
async fn proceed(instance: &mut Instance, until: &AtomicU64, now: u64) -> Result<bool, Cause> {
    if until.load(Ordering::Relaxed) == 0 {
        until.store(now.saturating_add(PATIENCE), Ordering::Relaxed);
        instance.on_root_done().await?;
    }
    if instance.is_ending() && now < until.load(Ordering::Relaxed) {
        if instance.is_tick_due_at(now) {
            instance.tick().await?;
        }
        return Ok(false);
    }
    instance.on_root_delete().await?;
    Ok(true)
}

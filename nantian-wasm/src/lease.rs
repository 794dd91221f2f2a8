//! Which instance a stream is on.

use std::sync::Arc;

use crate::inbox::Job;
use crate::pool::Slot;
use crate::stream::{PendingNotes, SharedExchange};

/// A stream's hold on the instance it is pinned to.
#[derive(Clone)]
pub(crate) struct Lease {
    slot: Arc<Slot>,
    generation: u64,
}

// === impl Lease ===

impl Lease {
    pub(crate) fn new(slot: &Arc<Slot>) -> Self {
        Self { slot: Arc::clone(slot), generation: slot.generation() }
    }

    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether the instance has ended since.
    pub(crate) fn is_lost(&self) -> bool {
        self.slot.generation() != self.generation
    }

    /// Leaves a stream to whoever uses the instance next.
    pub(crate) fn orphan(
        &self,
        context: u32,
        exchange: SharedExchange,
        is_logged: bool,
        notes: PendingNotes,
    ) {
        self.slot.post(self.generation, Job::Close { context, exchange, is_logged, notes });
    }
}

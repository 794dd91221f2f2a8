//! What all ledgers of one limiter's history have in common.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Ledger;
use crate::clock::{Clock, Timestamp};
use crate::policy::Policy;
use crate::sync::{Mutex, lock};
use crate::wait_queue::WaitQueues;

/// The ledgers of a limiter, one after the other, and what outlives each of them.
pub(crate) struct LedgerHistory {
    latest: ArcSwap<Ledger>,
    /// Held while a ledger is replaced.
    handover: Mutex<()>,
    max_keys: usize,
    clock: Arc<dyn Clock>,
    queues: Arc<WaitQueues>,
}

impl LedgerHistory {
    pub(crate) fn new(first: Ledger, max_keys: usize, clock: Arc<dyn Clock>) -> Self {
        let latest = ArcSwap::from_pointee(first);
        Self { latest, handover: Mutex::new(()), max_keys, clock, queues: Arc::default() }
    }

    /// The time on the limiter's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A recent time on it, if that is cheaper to tell.
    #[inline]
    pub(crate) fn recent(&self) -> Option<Timestamp> {
        self.clock.recent()
    }

    /// Where requests wait.
    pub(crate) fn queues(&self) -> &Arc<WaitQueues> {
        &self.queues
    }

    /// The ledger that answers now.
    pub(crate) fn latest(&self) -> Arc<Ledger> {
        self.latest.load_full()
    }

    /// The ledger for the limits of `policy`, with the levels of the latest, which may owe as much as so many
    /// of its kind.
    pub(crate) fn succeed(&self, now: Timestamp, policy: &Policy, shares: u32) -> Arc<Ledger> {
        let _succession = lock(&self.handover);
        let latest = self.latest();
        let limits = latest.columns().iter().map(|column| column.limit());
        if limits.eq(policy.limits()) {
            return latest;
        }
        let next = Ledger::succeeding(&latest, policy.limits(), self.max_keys, now);
        let next = Arc::new(Ledger { shares, ..next });
        self.latest.store(Arc::clone(&next));
        latest.retire();
        next.take_over(now);
        next
    }
}

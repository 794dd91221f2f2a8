//! What the endpoints of one balancer share.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::clock::{Clock, Timestamp};
use crate::config::BalanceConfig;
use crate::sync::{AtomicU64, AtomicUsize, Ordering};

/// What the endpoints of one balancer share, and their requests in flight with them.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The configuration in force, for what is recorded of requests.
    pub(crate) config: ArcSwap<BalanceConfig>,
    clock: Arc<dyn Clock>,
    /// The time when somebody asked last, to a millisecond.
    recent: AtomicU64,
    /// When the next plan is due; it is far more often read than written.
    due: AtomicU64,
    /// Requests in flight that are counted together.
    counted: Counted,
}

/// On cache lines of its own, for it is written by every request that is counted.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counted(AtomicUsize);

// === impl Cluster ===

impl Cluster {
    pub(crate) fn new(config: BalanceConfig, clock: Arc<dyn Clock>) -> Self {
        Self {
            config: ArcSwap::from_pointee(config),
            clock,
            recent: AtomicU64::default(),
            due: AtomicU64::new(u64::MAX),
            counted: Counted::default(),
        }
    }

    /// The time.
    pub(crate) fn now(&self) -> Timestamp {
        let now = self.clock.now();
        // Written rarely, for all threads read it.
        if now.since(self.recent()) >= Duration::from_millis(1) {
            self.recent.store(now.as_nanos(), Ordering::Relaxed);
        }
        now
    }

    /// The time when [`now`](Self::now) was asked last: recent while there are requests, for some of them
    /// ask.
    pub(crate) fn recent(&self) -> Timestamp {
        Timestamp::from_nanos(self.recent.load(Ordering::Relaxed))
    }

    /// Asks for a new plan, by the health of the endpoints, as soon as possible.
    pub(crate) fn request_replan(&self) {
        self.due.swap(0, Ordering::AcqRel);
    }

    /// Asks for a new plan at that time.
    pub(crate) fn replan_at(&self, at: Timestamp) {
        self.due.fetch_min(at.as_nanos(), Ordering::AcqRel);
    }

    /// Whether it is time for a new plan.
    pub(crate) fn is_due(&self) -> bool {
        match self.due.load(Ordering::Relaxed) {
            u64::MAX => false,
            due => self.now().as_nanos() >= due,
        }
    }

    /// A new plan is begun: what is noted from now on asks for another one.
    pub(crate) fn begin_replan(&self) {
        self.due.swap(u64::MAX, Ordering::AcqRel);
    }

    /// Requests in flight that are counted together.
    pub(crate) fn counted(&self) -> usize {
        self.counted.0.load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self) {
        self.counted.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn uncount(&self) {
        self.counted.0.fetch_sub(1, Ordering::Relaxed);
    }
}

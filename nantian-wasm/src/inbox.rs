//! Guest calls that wait until their instance is free, and the exchange they are about.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::host::{CallFailure, GrpcEvent, HttpCallResponse};
use crate::pool::{Cell, Slot};
use crate::running::{Begun, Running};
use crate::sandbox::Usage;
use crate::stream::SharedExchange;

/// Most replies and messages that wait for one instance; more are dropped, and their calls fail.
const MAX_JOBS: usize = 4_096;

/// Most rounds of waiting calls that are made at once: a guest that posts to its own queue makes a round of each.
const MAX_ROUNDS: usize = 4;

/// The calls that wait, each with the generation of the instance it is meant for.
#[derive(Default)]
pub(crate) struct Inbox {
    jobs: Mutex<Vec<(u64, Job)>>,
    has_jobs: AtomicBool,
    /// Some have been tried, and wait for an exchange.
    has_deferred: AtomicBool,
}

/// A guest call that waits until its instance is free.
pub(crate) enum Job {
    /// A stream was dropped while its instance was busy.
    Close {
        context: u32,
        exchange: SharedExchange,
        usage: Usage,
    },
    HttpReply {
        id: u32,
        outcome: Result<Box<HttpCallResponse>, CallFailure>,
    },
    Grpc {
        id: u32,
        event: Box<GrpcEvent>,
    },
    QueueReady {
        token: u32,
    },
}

// === impl Inbox ===

impl Inbox {
    fn take(&self) -> Vec<(u64, Job)> {
        self.has_jobs.store(false, Ordering::Release);
        std::mem::take(&mut *self.jobs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts calls back in front of those that came meanwhile.
    fn defer(&self, mut deferred: Vec<(u64, Job)>) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        deferred.append(&mut jobs);
        *jobs = deferred;
        drop(jobs);
        self.has_deferred.store(true, Ordering::Release);
    }
}

// === impl Job ===

impl Job {
    /// Whether another job must not pass this one: both are about the same call.
    fn is_before(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Grpc { id, .. }, Self::Grpc { id: other, .. }) => id == other,
            _ => false,
        }
    }
}

// === impl Slot ===

impl Slot {
    /// Leaves a guest call to whoever uses the instance next.
    pub(crate) fn post(&self, generation: u64, job: Job) {
        let mut jobs = self.inbox().jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.len() < MAX_JOBS || matches!(job, Job::Close { .. }) {
            jobs.push((generation, job));
        }
        self.inbox().has_jobs.store(true, Ordering::Release);
    }

    /// Makes the guest calls that wait, unless another thread has the instance and will make them. One that takes longer
    /// than a slice is left to upkeep, and so are those that come of [`MAX_ROUNDS`] rounds.
    pub(crate) fn settle(self: &Arc<Self>) {
        let inbox = self.inbox();
        if inbox.has_deferred.load(Ordering::Acquire) {
            inbox.has_deferred.store(false, Ordering::Release);
            inbox.has_jobs.store(true, Ordering::Release);
        }
        for _ in 0..MAX_ROUNDS {
            if !inbox.has_jobs.load(Ordering::Acquire) {
                return;
            }
            let Some(mut cell) = self.try_lock() else { return };
            let slot = Arc::downgrade(self);
            let work = async move { work_off(&slot, &mut cell).await };
            if let Begun::Running(running) = Running::begin(self, work) {
                running.leave(|()| {});
            }
        }
    }
}

/// Makes the guest calls that wait. Those about an exchange that somebody has wait on, in their order.
pub(crate) async fn work_off(slot: &Weak<Slot>, cell: &mut Cell) {
    let jobs = slot.upgrade().map(|slot| slot.inbox().take()).unwrap_or_default();
    let mut deferred: Vec<(u64, Job)> = Vec::new();
    for (generation, job) in jobs {
        let is_behind = deferred.iter().any(|(_, earlier)| earlier.is_before(&job));
        let is_present = slot.upgrade().is_some_and(|slot| slot.generation() == generation);
        let Some(instance) = cell.instance().filter(|_| is_present) else { continue };
        if is_behind || !instance.prepare(&job) {
            deferred.push((generation, job));
            continue;
        }
        if let Err((phase, cause)) = instance.run(job).await
            && let Some(slot) = slot.upgrade()
        {
            slot.bury(cell, phase, &cause);
        }
    }
    if let Some(slot) = slot.upgrade().filter(|_| !deferred.is_empty()) {
        slot.inbox().defer(deferred);
    }
}

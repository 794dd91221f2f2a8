//! Guest calls that wait until their instance is free, and the exchange they are about.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crate::host::{CallFailure, GrpcEvent, HttpCallResponse};
use crate::pool::{InstanceCell, Slot};
use crate::stream::{PendingNotes, SharedExchange};
use crate::sync::lock;

/// Bytes of replies and messages that wait for one instance: as many as one stream may await, 16 replies of 4
/// MiB.
const MAX_BYTES: usize = 64 << 20;

/// What a job takes besides what it brings, in bytes: about.
const JOB: usize = 256;

/// Most items of queues that wait to be told of: as many as can be queued.
const MAX_NOTICES: usize = 16_000;

/// Most rounds of waiting calls that are made at once: a guest that posts to its own queue makes a round of
/// each.
const MAX_ROUNDS: usize = 4;

/// The calls that wait.
#[derive(Default)]
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    has_jobs: AtomicBool,
    /// Some have been tried, and wait for an exchange.
    has_deferred: AtomicBool,
}

#[derive(Default)]
struct Waiting {
    /// Each with the generation of the instance it is meant for.
    jobs: Vec<(u64, Job)>,
    /// What they weigh, and those that are being made with them.
    bytes: usize,
    notices: usize,
}

/// A guest call that waits until its instance is free.
pub(crate) enum Job {
    /// A stream was dropped while its instance was busy.
    Close {
        context: u32,
        exchange: SharedExchange,
        is_logged: bool,
        /// What the exchange does not know yet.
        notes: PendingNotes,
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
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.waiting).jobs.is_empty()
    }

    /// Whether calls wait for an exchange that somebody has.
    pub(crate) fn has_deferred(&self) -> bool {
        self.has_deferred.load(Ordering::Acquire)
    }

    fn take(&self) -> Vec<(u64, Job)> {
        self.has_jobs.store(false, Ordering::Release);
        self.has_deferred.store(false, Ordering::Release);
        std::mem::take(&mut lock(&self.waiting).jobs)
    }

    /// Notes that a call has been made, or need not be.
    fn forget(&self, job: &Job) {
        let mut waiting = lock(&self.waiting);
        waiting.bytes = waiting.bytes.saturating_sub(job.weight());
        waiting.notices = waiting.notices.saturating_sub(job.notices());
    }

    /// Puts calls back in front of those that came meanwhile.
    fn defer(&self, mut deferred: Vec<(u64, Job)>) {
        let mut waiting = lock(&self.waiting);
        deferred.append(&mut waiting.jobs);
        waiting.jobs = deferred;
        drop(waiting);
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

    /// Bytes it keeps while it waits.
    fn weight(&self) -> usize {
        let content = match self {
            Self::HttpReply { outcome: Ok(reply), .. } => reply.weight(),
            Self::Grpc { event, .. } => event.weight(),
            Self::HttpReply { outcome: Err(_), .. } | Self::Close { .. } | Self::QueueReady { .. } => 0,
        };
        content.saturating_add(JOB)
    }

    fn notices(&self) -> usize {
        usize::from(matches!(self, Self::QueueReady { .. }))
    }

    /// What is left of it where there is no room for all of it: a call must hear of its end, whatever waits.
    /// Nothing, if it is about no end.
    fn shortened(self) -> Option<Self> {
        match self {
            Self::Close { .. } => Some(self),
            Self::HttpReply { id, .. } => Some(Self::HttpReply { id, outcome: Err(CallFailure::Reset) }),
            Self::Grpc { id, event } => match *event {
                GrpcEvent::Close { status, .. } => Some(Self::Grpc {
                    id,
                    event: Box::new(GrpcEvent::Close { status, message: String::new() }),
                }),
                _ => None,
            },
            Self::QueueReady { .. } => None,
        }
    }
}

// === impl Slot ===

impl Slot {
    /// Leaves a guest call to whoever uses the instance next. False when there is no room for it.
    pub(crate) fn post(&self, generation: u64, job: Job) -> bool {
        let mut waiting = lock(&self.inbox().waiting);
        let is_too_much = waiting.bytes.saturating_add(job.weight()) > MAX_BYTES
            || waiting.notices.saturating_add(job.notices()) > MAX_NOTICES;
        let Some(job) = (if is_too_much { job.shortened() } else { Some(job) }) else { return false };
        waiting.bytes = waiting.bytes.saturating_add(job.weight());
        waiting.notices += job.notices();
        waiting.jobs.push((generation, job));
        self.inbox().has_jobs.store(true, Ordering::Release);
        true
    }

    /// Makes the guest calls that wait, unless another thread has the instance and will make them. One that
    /// takes longer than a slice is left to upkeep, and so are those that come of [`MAX_ROUNDS`] rounds.
    pub(crate) fn settle(self: &Arc<Self>) {
        let inbox = self.inbox();
        if inbox.has_deferred() {
            inbox.has_jobs.store(true, Ordering::Release);
        }
        for _ in 0..MAX_ROUNDS {
            if !inbox.has_jobs.load(Ordering::Acquire) {
                return;
            }
            let Some(mut cell) = self.try_lock() else { return };
            let slot = Arc::downgrade(self);
            self.set_off(async move { work_off(&slot, &mut cell).await });
        }
    }
}

/// Makes the guest calls that wait. Those about an exchange that somebody has wait on, in their order.
async fn work_off(slot: &Weak<Slot>, cell: &mut InstanceCell) {
    let jobs = slot.upgrade().map(|slot| slot.inbox().take()).unwrap_or_default();
    let mut deferred: Vec<(u64, Job)> = Vec::new();
    for (generation, job) in jobs {
        let is_behind = deferred.iter().any(|(_, earlier)| earlier.is_before(&job));
        let is_present = slot.upgrade().is_some_and(|slot| slot.generation() == generation);
        let mut instance = cell.instance().filter(|_| is_present);
        if instance.as_mut().is_some_and(|instance| is_behind || !instance.prepare(&job)) {
            deferred.push((generation, job));
            continue;
        }
        if let Some(slot) = slot.upgrade() {
            slot.inbox().forget(&job);
        }
        let Some(instance) = instance else { continue };
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

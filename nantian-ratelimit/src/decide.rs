//! Who decides for a layer: a limiter of this process, or one whose levels several processes share.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::cost::Cost;
use crate::decision_request::{DecisionRequest, Part};
use crate::error::Denied;
use crate::key::{Key, KeyHasher};
use crate::levels::Levels;
use crate::limiter::Limiter;
use crate::policy::{OnLimit, Policy, Queue};
#[cfg(feature = "redis")]
use crate::redis::{SharedKey, SharedLimiter, SharedReservation, Verdict};
use crate::reservation::{Reservation, Settled, Settlement};
use crate::wait_queue::WaitQueues;

/// Who decides.
#[derive(Debug, Clone)]
pub(crate) enum Decider {
    Process(Limiter),
    #[cfg(feature = "redis")]
    Shared(SharedLimiter),
}

/// Whose levels a request uses.
#[derive(Debug, Clone)]
pub(crate) enum BucketKey {
    Process(Key),
    #[cfg(feature = "redis")]
    Shared(SharedKey),
}

/// What was charged.
#[derive(Debug)]
pub(crate) enum Charge {
    Process(Limiter, Reservation),
    #[cfg(feature = "redis")]
    Shared(SharedReservation),
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    Admitted(Charge),
    Denied(Denied),
    /// The store is away, or the policy is gone, and the request passes.
    Unchecked,
    /// The store is away and the request does not pass.
    #[cfg(feature = "redis")]
    Unavailable,
}

/// When it is known.
pub(crate) enum Decided {
    Now(Outcome),
    Later(Decision),
}

/// A decision that takes time.
///
/// Dropping it leaves the queue it may wait in.
pub(crate) type Decision = Pin<Box<dyn Future<Output = Outcome> + Send>>;

// === impl Decider ===

impl Decider {
    pub(crate) fn policy(&self) -> &Policy {
        self.limiter().policy()
    }

    pub(crate) fn typical_tokens(&self) -> u64 {
        self.limiter().typical_tokens()
    }

    /// The key whose values `write` adds.
    pub(crate) fn key(&self, write: impl Fn(&mut KeyHasher)) -> BucketKey {
        match self {
            Self::Process(limiter) => {
                let mut hasher = limiter.hasher();
                write(&mut hasher);
                BucketKey::Process(hasher.finish())
            }
            #[cfg(feature = "redis")]
            Self::Shared(limiter) => BucketKey::Shared(limiter.key_with(write)),
        }
    }

    /// Decides, at once if that is possible.
    pub(crate) fn decide(&self, request: DecisionRequest) -> Decided {
        let queue = match self.policy().on_limit() {
            OnLimit::Queue(queue) => Some(queue),
            _ => None,
        };
        let is_behind =
            queue.is_some() && self.wants(&request) && self.queues().is_waiting(request.queue_key());
        if !is_behind && let Some(outcome) = self.decide_at_once(&request) {
            match (outcome, queue) {
                (Outcome::Denied(denied), Some(queue)) if denied.retry_after().is_some() => {
                    return self.clone().enqueue(request, queue, Some(denied));
                }
                (outcome, _) => return Decided::Now(outcome),
            }
        }
        let decider = self.clone();
        match queue {
            Some(queue) if is_behind => decider.enqueue(request, queue, None),
            Some(queue) => Decided::Later(Box::pin(async move {
                match decider.decide_later(&request).await {
                    Outcome::Denied(denied) if denied.retry_after().is_some() => {
                        match decider.enqueue(request, queue, Some(denied)) {
                            Decided::Now(outcome) => outcome,
                            Decided::Later(decision) => decision.await,
                        }
                    }
                    outcome => outcome,
                }
            })),
            None => Decided::Later(Box::pin(async move { decider.decide_later(&request).await })),
        }
    }

    /// Waits for room behind all that wait already; `denied` is what was decided a moment ago, if anything
    /// was.
    fn enqueue(self, request: DecisionRequest, queue: Queue, denied: Option<Denied>) -> Decided {
        if self.queues().is_lifted() {
            return Decided::Now(Outcome::Unchecked);
        }
        let longest = queue.max_wait.saturating_sub(request.waited).min(request.time_left());
        let denied = denied.or_else(|| self.known_denial(&request));
        if let Some(late) = denied.as_ref().and_then(|denied| self.comes_later(&request, denied, longest)) {
            return Decided::Now(Outcome::Denied(late));
        }
        let is_divided = !self.policy().scope().is_global();
        let requests = request.cost.requests;
        let Some(place) = self.queues().join(request.queue_key(), requests, request.held, &queue, is_divided)
        else {
            let denied = denied.unwrap_or_else(|| self.denial(&request));
            return Decided::Now(Outcome::Denied(denied));
        };
        Decided::Later(Box::pin(async move {
            let decide = || async {
                if self.queues().is_lifted() {
                    return Ok(Outcome::Unchecked);
                }
                match self.decide_later(&request).await {
                    Outcome::Denied(denied) => Err(denied),
                    outcome => Ok(outcome),
                }
            };
            match place.wait(longest, self.longest_sleep(), decide).await {
                Some(Ok(outcome)) => outcome,
                Some(Err(denied)) => Outcome::Denied(denied),
                None => Outcome::Denied(self.denial(&request)),
            }
        }))
    }

    /// The denial of a request whose turn comes in more than `longest`, since others are before it: each
    /// takes requests, and those do not come back. What they will leave of their tokens nobody knows.
    fn comes_later(&self, request: &DecisionRequest, denied: &Denied, longest: Duration) -> Option<Denied> {
        let requests = self.queues().requests(request.queue_key()).saturating_add(request.cost.requests);
        let (column, wait) = denied.levels().requests_in(requests)?;
        let is_longer = denied.retry_after().is_some_and(|known| known < wait);
        (wait > longest && is_longer).then(|| Denied::new(denied.levels().clone(), column, Some(wait)))
    }

    /// Decides, if nobody else must be asked.
    fn decide_at_once(&self, request: &DecisionRequest) -> Option<Outcome> {
        if let Some(denied) = self.used_up(request) {
            return Some(Outcome::Denied(denied));
        }
        match (self, &request.key) {
            (Self::Process(limiter), BucketKey::Process(key)) => {
                Some(match limiter.admit(*key, request.cost) {
                    Ok(admitted) => Outcome::Admitted(Charge::Process(limiter.clone(), admitted.reserve())),
                    Err(denied) => Outcome::Denied(denied),
                })
            }
            #[cfg(feature = "redis")]
            // What takes nothing need not be asked for.
            (Self::Shared(limiter), BucketKey::Shared(key)) if !self.charges(request.cost) => {
                Some(match request.part {
                    Part::Rest => {
                        let nothing = limiter.reserve_nothing(key.clone(), request.cost);
                        Outcome::Admitted(Charge::Shared(nothing))
                    }
                    Part::Opening { .. } => Outcome::Unchecked,
                })
            }
            #[cfg(feature = "redis")]
            _ => None,
        }
    }

    async fn decide_later(&self, request: &DecisionRequest) -> Outcome {
        match (self, &request.key) {
            #[cfg(feature = "redis")]
            (Self::Shared(limiter), BucketKey::Shared(key)) => {
                if let Some(outcome) = self.decide_at_once(request) {
                    return outcome;
                }
                match limiter.admit_of(key.clone(), request.cost, request.unanswered.as_ref()).await {
                    Verdict::Admitted(reservation) => Outcome::Admitted(Charge::Shared(reservation)),
                    Verdict::Denied(denied) => Outcome::Denied(denied),
                    Verdict::Unchecked => Outcome::Unchecked,
                    Verdict::Unavailable(_) => Outcome::Unavailable,
                }
            }
            _ => self.decide_at_once(request).unwrap_or_else(|| {
                // A key of another limiter: nobody makes one.
                Outcome::Denied(self.denial(request))
            }),
        }
    }

    /// The denial of a request that will use tokens, of which none are left as far as this process knows.
    fn used_up(&self, request: &DecisionRequest) -> Option<Denied> {
        const ONE: Cost = Cost { requests: 0, tokens: 1 };
        if request.part != (Part::Opening { spends: true }) {
            return None;
        }
        match (self, &request.key) {
            #[cfg(feature = "redis")]
            (Self::Shared(limiter), BucketKey::Shared(key)) => limiter.known_shortage(key, ONE),
            _ => {
                let limiter = self.limiter();
                let levels = limiter.levels(request.key.key());
                let (column, wait) = levels.shortage(ONE)?;
                Some(Denied::new(levels, column, wait))
            }
        }
    }

    /// Whether it takes something of a limit, or looks whether something is left: all else passes those that
    /// wait.
    fn wants(&self, request: &DecisionRequest) -> bool {
        request.part == (Part::Opening { spends: true }) || self.charges(request.cost)
    }

    /// Whether some limit counts what is asked for.
    fn charges(&self, cost: Cost) -> bool {
        self.policy().limits().iter().any(|limit| cost.of(limit.unit()) > 0)
    }

    fn queues(&self) -> &Arc<WaitQueues> {
        self.limiter().queues()
    }

    /// The policy and what this process keeps for it.
    fn limiter(&self) -> &Limiter {
        match self {
            Self::Process(limiter) => limiter,
            #[cfg(feature = "redis")]
            Self::Shared(limiter) => limiter.whole(),
        }
    }

    /// The denial of a request whose turn does not come, by what is known without asking.
    fn denial(&self, request: &DecisionRequest) -> Denied {
        self.known_denial(request).unwrap_or_else(|| {
            let (key, cost) = (request.key.key(), request.cost);
            match self {
                Self::Process(limiter) => limiter.denial(key, cost),
                #[cfg(feature = "redis")]
                Self::Shared(limiter) => limiter.denial(key, cost),
            }
        })
    }

    /// The same, if whoever has the levels is known to deny it.
    fn known_denial(&self, request: &DecisionRequest) -> Option<Denied> {
        match (self, &request.key) {
            (Self::Process(limiter), BucketKey::Process(key)) => Some(limiter.denial(*key, request.cost)),
            #[cfg(feature = "redis")]
            (Self::Shared(limiter), BucketKey::Shared(key)) => limiter.known_denial(key, request.cost),
            // A key of another limiter: nobody makes one.
            #[cfg(feature = "redis")]
            _ => None,
        }
    }

    /// How long the first in the queue sleeps at most: nobody wakes it when another process gives something
    /// back.
    fn longest_sleep(&self) -> Duration {
        match self {
            Self::Process(_) => Duration::MAX,
            #[cfg(feature = "redis")]
            Self::Shared(_) => Duration::from_secs(1),
        }
    }
}

// === impl BucketKey ===

impl BucketKey {
    pub(crate) fn key(&self) -> Key {
        match self {
            Self::Process(key) => *key,
            #[cfg(feature = "redis")]
            Self::Shared(key) => key.own(),
        }
    }
}

// === impl Charge ===

impl Charge {
    pub(crate) fn cost(&self) -> Cost {
        match self {
            Self::Process(_, reservation) => reservation.cost(),
            #[cfg(feature = "redis")]
            Self::Shared(reservation) => reservation.cost(),
        }
    }

    pub(crate) fn levels(&self) -> &Levels {
        match self {
            Self::Process(_, reservation) => reservation.levels(),
            #[cfg(feature = "redis")]
            Self::Shared(reservation) => reservation.levels(),
        }
    }

    /// Whether somebody was asked for the levels who knows them.
    pub(crate) fn knows_levels(&self) -> bool {
        match self {
            Self::Process(..) => true,
            #[cfg(feature = "redis")]
            Self::Shared(reservation) => reservation.knows_levels(),
        }
    }

    /// Denied beside it, with the levels as they are without it.
    pub(crate) fn denied_beside(&self, denied: Denied) -> Denied {
        match self {
            Self::Process(limiter, reservation) => denied.with_levels(limiter.levels(reservation.key())),
            #[cfg(feature = "redis")]
            Self::Shared(_) => denied,
        }
    }

    /// Settles the tokens; to be called once.
    pub(crate) fn settle_once(&self, settlement: Settlement) -> Settled {
        match self {
            Self::Process(limiter, reservation) => {
                let settled = reservation.settle_once_at(limiter.now(), settlement);
                if settled.used < settled.reserved {
                    limiter.queues().notify(reservation.key());
                }
                settled
            }
            #[cfg(feature = "redis")]
            Self::Shared(reservation) => reservation.settle_once(settlement),
        }
    }

    /// Takes the whole charge back; to be called once, instead of settling.
    pub(crate) fn cancel_once(&self) {
        match self {
            Self::Process(limiter, reservation) => {
                reservation.cancel_once_at(limiter.now());
                limiter.queues().notify(reservation.key());
            }
            #[cfg(feature = "redis")]
            Self::Shared(reservation) => reservation.cancel_once(),
        }
    }
}

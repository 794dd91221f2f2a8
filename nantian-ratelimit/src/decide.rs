//! Who decides for a layer: a limiter of this process, or one whose levels several processes share.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::cost::Cost;
use crate::error::Denied;
use crate::key::{Key, KeyHasher};
use crate::levels::Levels;
use crate::limiter::Limiter;
use crate::line::Lines;
use crate::policy::{OnLimit, Policy, Queue};
#[cfg(feature = "redis")]
use crate::redis::{SharedKey, SharedLimiter, SharedReservation, Verdict};
use crate::reservation::{Reservation, Settled, Settlement};

/// Who decides.
#[derive(Debug, Clone)]
pub(crate) enum Decider {
    Process(Limiter),
    #[cfg(feature = "redis")]
    Shared(SharedLimiter),
}

/// Whose levels a request uses.
#[derive(Debug, Clone)]
pub(crate) enum Claim {
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
    /// The store is away and the request passes.
    #[cfg(feature = "redis")]
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
/// Dropping it leaves the line it may wait in.
pub(crate) type Decision = Pin<Box<dyn Future<Output = Outcome> + Send>>;

// === impl Decider ===

impl Decider {
    pub(crate) fn policy(&self) -> &Policy {
        self.limiter().policy()
    }

    pub(crate) fn typical_tokens(&self) -> u64 {
        self.limiter().typical_tokens()
    }

    /// The claim whose values `write` adds.
    pub(crate) fn claim(&self, write: impl Fn(&mut KeyHasher)) -> Claim {
        match self {
            Self::Process(limiter) => {
                let mut hasher = limiter.hasher();
                write(&mut hasher);
                Claim::Process(hasher.finish())
            }
            #[cfg(feature = "redis")]
            Self::Shared(limiter) => Claim::Shared(limiter.key_of(write)),
        }
    }

    /// Decides, at once if that is possible; a request that must wait holds so many bytes.
    pub(crate) fn decide(&self, claim: Claim, cost: Cost, held: u64) -> Decided {
        let queue = match self.policy().on_limit() {
            OnLimit::Queue(queue) => Some(queue),
            _ => None,
        };
        let is_behind = queue.is_some() && self.lines().is_waiting(claim.key());
        if !is_behind && let Some(outcome) = self.decide_at_once(&claim, cost) {
            match (outcome, queue) {
                (Outcome::Denied(denied), Some(queue)) if denied.retry_after().is_some() => {
                    return self.clone().line_up(claim, cost, held, queue, Some(denied));
                }
                (outcome, _) => return Decided::Now(outcome),
            }
        }
        match queue {
            Some(queue) if is_behind => self.clone().line_up(claim, cost, held, queue, None),
            Some(queue) => {
                let decider = self.clone();
                Decided::Later(Box::pin(async move {
                    match decider.decide_later(&claim, cost).await {
                        Outcome::Denied(denied) if denied.retry_after().is_some() => {
                            match decider.line_up(claim, cost, held, queue, Some(denied)) {
                                Decided::Now(outcome) => outcome,
                                Decided::Later(decision) => decision.await,
                            }
                        }
                        outcome => outcome,
                    }
                }))
            }
            None => {
                let decider = self.clone();
                Decided::Later(Box::pin(async move { decider.decide_later(&claim, cost).await }))
            }
        }
    }

    /// Waits for room behind all that wait already; `denied` is what was decided a moment ago, if anything was.
    fn line_up(self, claim: Claim, cost: Cost, held: u64, queue: Queue, denied: Option<Denied>) -> Decided {
        let Some(place) = self.lines().join(claim.key(), held, &queue) else {
            let denied = denied.unwrap_or_else(|| self.denial(&claim, cost));
            return Decided::Now(Outcome::Denied(denied));
        };
        Decided::Later(Box::pin(async move {
            let decide = || async {
                match self.decide_later(&claim, cost).await {
                    Outcome::Denied(denied) => Err(denied),
                    outcome => Ok(outcome),
                }
            };
            match place.wait(queue.max_wait, self.longest_sleep(), decide).await {
                Some(Ok(outcome)) => outcome,
                Some(Err(denied)) => Outcome::Denied(denied),
                None => Outcome::Denied(self.denial(&claim, cost)),
            }
        }))
    }

    /// Decides, if nobody else must be asked.
    fn decide_at_once(&self, claim: &Claim, cost: Cost) -> Option<Outcome> {
        match (self, claim) {
            (Self::Process(limiter), Claim::Process(key)) => Some(match limiter.admit(*key, cost) {
                Ok(admitted) => Outcome::Admitted(Charge::Process(limiter.clone(), admitted.reserve())),
                Err(denied) => Outcome::Denied(denied),
            }),
            #[cfg(feature = "redis")]
            _ => None,
        }
    }

    async fn decide_later(&self, claim: &Claim, cost: Cost) -> Outcome {
        match (self, claim) {
            #[cfg(feature = "redis")]
            (Self::Shared(limiter), Claim::Shared(key)) => match limiter.admit(key.clone(), cost).await {
                Verdict::Admitted(reservation) => Outcome::Admitted(Charge::Shared(reservation)),
                Verdict::Denied(denied) => Outcome::Denied(denied),
                Verdict::Unchecked => Outcome::Unchecked,
                Verdict::Unavailable => Outcome::Unavailable,
            },
            _ => self.decide_at_once(claim, cost).unwrap_or_else(|| {
                // A claim of another limiter: nobody makes one.
                Outcome::Denied(self.denial(claim, cost))
            }),
        }
    }

    fn lines(&self) -> &Arc<Lines> {
        self.limiter().lines()
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
    fn denial(&self, claim: &Claim, cost: Cost) -> Denied {
        match (self, claim) {
            #[cfg(feature = "redis")]
            (Self::Shared(limiter), Claim::Shared(key)) => {
                limiter.known_denial(key, cost).unwrap_or_else(|| limiter.local().denial(key.own(), cost))
            }
            _ => self.limiter().denial(claim.key(), cost),
        }
    }

    /// How long the first in line sleeps at most: nobody wakes it when another process gives something back.
    fn longest_sleep(&self) -> Duration {
        match self {
            Self::Process(_) => Duration::MAX,
            #[cfg(feature = "redis")]
            Self::Shared(_) => Duration::from_secs(1),
        }
    }
}

// === impl Claim ===

impl Claim {
    fn key(&self) -> Key {
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

    /// Settles the tokens; to be called once.
    pub(crate) fn settle_once(&self, settlement: Settlement) -> Settled {
        match self {
            Self::Process(limiter, reservation) => {
                let settled = reservation.settle_once_at(limiter.now(), settlement);
                if settled.used < settled.reserved {
                    limiter.lines().nudge(reservation.key());
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
                limiter.lines().nudge(reservation.key());
            }
            #[cfg(feature = "redis")]
            Self::Shared(reservation) => reservation.cancel_once(),
        }
    }
}

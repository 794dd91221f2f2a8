//! Counting the requests that an endpoint is working on.
//!
//! A guard is a reference to the endpoint's state, and the count is the number of references: one atomic
//! increment at the pick keeps the state alive and counts the request, one decrement at the end undoes both.
//! So the count cannot leak, become negative or outlive its guards. References that are not guards are
//! [`EndpointHandle`]s, which sets hold; the state counts them, so that they can be subtracted.

use std::num::NonZeroU32;
use std::sync::{Arc, Weak};
use std::time::Duration;

pub(crate) use self::interest::Interest;
use crate::clock::Timestamp;
use crate::cluster::Cluster;
use crate::endpoint::EndpointId;
use crate::hash::EndpointHash;
use crate::health::state::HealthState;
use crate::latency::Latency;
use crate::outcome::Outcome;
use crate::sync::{AtomicUsize, Ordering, fence};

mod interest;

/// How often a pick that lost a race for an endpoint's last place tries again before it takes the endpoint
/// for full.
const RACES: u32 = 16;
/// How often an endpoint is to be found full before it is: for a moment a handle that comes or goes looks
/// like a request.
const FULL_CHECKS: u32 = 3;

/// What is known about an endpoint, for as long as a set lists it or a request is in flight.
///
/// In this order, so that what a pick reads lies side by side with the reference count that it writes.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct EndpointState {
    handles: AtomicUsize,
    health: HealthState,
    hash: EndpointHash,
    id: EndpointId,
    cluster: Arc<Cluster>,
}

/// A reference to an endpoint's state that is not a request in flight.
#[derive(Debug)]
pub(crate) struct EndpointHandle {
    state: Arc<EndpointState>,
}

/// The way back to the state of an endpoint that left the set, should it return while requests are in flight.
#[derive(Debug)]
pub(crate) struct WeakHandle {
    state: Weak<EndpointState>,
}

/// One request in flight at an endpoint: it is counted until this guard is dropped.
///
/// Two words, so that it is handed on in registers.
#[derive(Debug)]
#[must_use = "dropping the guard ends the count of the request"]
pub struct InFlight {
    state: Arc<EndpointState>,
    interest: Interest,
}

/// The request in flight behind an upgraded connection, found in the extensions of the response that upgrades
/// it (101, or a successful reply to CONNECT).
///
/// Whoever carries on with the connection takes it along: the endpoint counts the request until the last
/// clone is dropped.
#[derive(Debug, Clone)]
pub struct UpgradeGuard {
    in_flight: Arc<InFlight>,
}

// === impl EndpointHandle ===

impl EndpointHandle {
    /// The first handle of an endpoint that is well since `since`.
    pub(crate) fn new(id: EndpointId, cluster: &Arc<Cluster>, since: Timestamp) -> Self {
        let hash = EndpointHash::of(id.as_str());
        let (cluster, health) = (Arc::clone(cluster), HealthState::new(since));
        Self::of(Arc::new(EndpointState { handles: AtomicUsize::new(0), health, hash, id, cluster }))
    }

    /// Makes a reference a handle.
    fn of(state: Arc<EndpointState>) -> Self {
        // Until it is noted here the reference counts as a request: a count that is too high for a moment
        // exceeds no limit.
        state.handles.fetch_add(1, Ordering::AcqRel);
        Self { state }
    }

    pub(crate) fn id(&self) -> &EndpointId {
        &self.state.id
    }

    pub(crate) fn hash(&self) -> EndpointHash {
        self.state.hash
    }

    pub(crate) fn health(&self) -> &HealthState {
        &self.state.health
    }

    /// Requests in flight, to compare; one more or less while sets come and go.
    #[inline]
    pub(crate) fn load(&self) -> usize {
        Arc::strong_count(&self.state).saturating_sub(self.state.handles.load(Ordering::Relaxed))
    }

    #[inline]
    pub(crate) fn latency(&self) -> &Latency {
        &self.state.health.latency
    }

    /// Requests in flight; more than that for a moment while sets come and go.
    #[inline]
    pub(crate) fn in_flight(&self) -> usize {
        without_handles(&self.state.handles, || Arc::strong_count(&self.state))
    }

    #[inline]
    pub(crate) fn enter(&self, interest: Interest) -> InFlight {
        InFlight::new(Arc::clone(&self.state), interest)
    }

    /// Enters unless `max` requests are in flight. The limit is never exceeded: of several picks that race
    /// for the last place each sees the others, and those that see too many step back and try again.
    pub(crate) fn try_enter(&self, max: NonZeroU32, interest: Interest) -> Option<InFlight> {
        let max = usize::try_from(max.get()).unwrap_or(usize::MAX);
        let state = enter_below(max, || self.in_flight(), || Arc::clone(&self.state))?;
        Some(InFlight::new(state, interest))
    }

    /// Enters with `enter` as the one request that probation allows, if there is none yet.
    pub(crate) fn probe(
        &self,
        interest: Interest,
        enter: impl FnOnce(Interest) -> Option<InFlight>,
    ) -> Option<InFlight> {
        if !self.health().begin_probe() {
            return None;
        }
        let entered = enter(interest.probing());
        if entered.is_none() {
            self.health().end_probe();
        }
        entered
    }
}

/// The references that are no handles; more than that for a moment while handles come and go.
#[inline]
fn without_handles(handles: &AtomicUsize, references: impl Fn() -> usize) -> usize {
    let before = handles.load(Ordering::Acquire);
    let references = references();
    // Whose reference is gone is no handle any more: the count is read without an order of its own.
    fence(Ordering::Acquire);
    references.saturating_sub(before.min(handles.load(Ordering::Acquire)))
}

/// Enters if fewer than `max` are inside.
fn enter_below<G>(max: usize, inside: impl Fn() -> usize, enter: impl Fn() -> G) -> Option<G> {
    for _ in 0..RACES {
        if (0..FULL_CHECKS).all(|_| inside() >= max) {
            return None;
        }
        let guard = enter();
        if inside() <= max {
            return Some(guard);
        }
        drop(guard);
        std::hint::spin_loop();
    }
    None
}

impl Clone for EndpointHandle {
    fn clone(&self) -> Self {
        Self::of(Arc::clone(&self.state))
    }
}

impl Drop for EndpointHandle {
    fn drop(&mut self) {
        // Before the reference goes, for the reason given in `of`.
        self.state.handles.fetch_sub(1, Ordering::AcqRel);
    }
}

// === impl WeakHandle ===

impl WeakHandle {
    pub(crate) fn new(handle: &EndpointHandle) -> Self {
        Self { state: Arc::downgrade(&handle.state) }
    }

    /// A handle of the endpoint with its requests in flight, or nothing if none is left.
    pub(crate) fn upgrade(&self) -> Option<EndpointHandle> {
        self.state.upgrade().map(EndpointHandle::of)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state.strong_count() == 0
    }
}

// === impl InFlight ===

impl InFlight {
    #[inline]
    fn new(state: Arc<EndpointState>, interest: Interest) -> Self {
        let interest =
            if interest.has(Interest::TIME) { interest.since(state.cluster.now()) } else { interest };
        let interest =
            if interest.has(Interest::OUTCOME) { interest.in_term(state.health.term()) } else { interest };
        if interest.has(Interest::COUNT) {
            state.cluster.count();
        }
        Self { state, interest }
    }

    /// The endpoint that works on the request.
    #[must_use]
    pub fn endpoint(&self) -> &EndpointId {
        &self.state.id
    }

    pub(crate) fn hash(&self) -> EndpointHash {
        self.state.hash
    }

    /// The time on the balancer's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.state.cluster.now()
    }

    /// Tells what became of the request: call it when the head of the response is there, or none will come.
    ///
    /// The endpoint counts the request on until the guard is dropped. What is told first counts.
    #[inline]
    pub fn record(&mut self, outcome: Outcome) {
        let interest = self.interest;
        self.interest = interest.after_the_outcome();
        // What nearly all requests come to needs no configuration.
        if outcome == Outcome::Success && !interest.has(Interest::TIME) {
            let (cluster, health) = (&self.state.cluster, &self.state.health);
            if interest.has(Interest::OUTCOME) && interest.term() == health.term() && health.note_answer() {
                cluster.request_replan();
            }
        } else if self.interest != interest {
            self.note(interest, outcome);
        }
    }

    /// Ends the count among all and the probe, and notes what is known of a request of which nothing was
    /// told.
    fn end(&mut self) {
        let cluster = &self.state.cluster;
        if self.interest.has(Interest::COUNT) {
            cluster.uncount();
        }
        let health = &self.state.health;
        // A later probation has a probe of its own.
        if self.interest.has(Interest::PROBE) && self.interest.term() == health.term() {
            health.end_probe();
        }
        // Given up before there was a response: it would have taken longer.
        if self.interest.has(Interest::TIME) {
            let now = cluster.now();
            let (latency, took) = (&health.latency, self.interest.until(now));
            match cluster.config.load().decay() {
                Some(decay) => latency.observe_at_least(now, took, decay),
                None => latency.sample_at_least(now, took),
            }
        }
    }

    fn note(&self, interest: Interest, outcome: Outcome) {
        let (cluster, health) = (&self.state.cluster, &self.state.health);
        let config = cluster.config.load();
        let outlier = config.outlier.as_ref();
        let is_judged = outlier.is_some_and(|outlier| outlier.judges(outcome));
        let penalty = penalty(outcome);
        let is_timed = match (config.decay(), penalty) {
            (_, None) => interest.has(Interest::TIME),
            // A peak, whether it is the turn of the request to be timed or not.
            (Some(_), Some(_)) => true,
            // Who is spared fails too seldom to be ejected; `HealthState` spares it if it may not be.
            (None, Some(_)) => interest.has(Interest::TIME) && !is_judged,
        };
        if is_timed {
            let now = cluster.now();
            let took = if interest.has(Interest::TIME) { interest.until(now) } else { Duration::ZERO };
            // Who fails fast is not fast.
            let took = took.max(penalty.unwrap_or_default());
            match config.decay() {
                Some(decay) => health.latency.observe(now, took, decay),
                None => health.latency.sample(now, took),
            }
        }
        // It is asked all the same while the set panics: who fails at once would always have the fewest
        // requests.
        if is_judged && config.samples_times() && health.is_left_out() {
            health.latency.set_infinite();
        }
        let outlier = outlier.filter(|_| interest.term() == health.term());
        if outlier.is_some_and(|outlier| health.note(outcome, || cluster.now(), outlier)) {
            cluster.request_replan();
        }
    }
}

impl Drop for InFlight {
    #[inline]
    fn drop(&mut self) {
        if self.interest != Interest::NOTHING {
            self.end();
        }
    }
}

/// The response time that a failure counts as at least, as in Linkerd.
fn penalty(outcome: Outcome) -> Option<Duration> {
    match outcome {
        Outcome::Success => None,
        Outcome::Busy { retry_after: Some(after) } => Some(after.clamp(FAILURE, LONGEST_WAIT)),
        _ => Some(FAILURE),
    }
}

const FAILURE: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

// === impl UpgradeGuard ===

impl UpgradeGuard {
    pub(crate) fn new(in_flight: InFlight) -> Self {
        Self { in_flight: Arc::new(in_flight) }
    }

    /// The endpoint at the other end of the connection.
    #[must_use]
    pub fn endpoint(&self) -> &EndpointId {
        self.in_flight.endpoint()
    }
}

#[cfg(all(test, loom))]
mod races;

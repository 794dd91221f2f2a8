//! Counting the requests that an endpoint is working on.
//!
//! A guard is a reference to the endpoint's state, and the count is the number of references: one atomic increment at the pick
//! keeps the state alive and counts the request, one decrement at the end undoes both. So the count cannot leak, become
//! negative or outlive its guards. References that are not guards are [`Seat`]s, which sets hold; the state counts them, so
//! that they can be subtracted.

use std::num::NonZeroU32;
use std::sync::{Arc, Weak};
use std::time::Duration;

pub(crate) use self::watch::Watch;
use crate::clock::Timestamp;
use crate::endpoint::EndpointId;
use crate::group::Group;
use crate::hash::EndpointHash;
use crate::health::standing::Standing;
use crate::latency::Latency;
use crate::outcome::Outcome;
use crate::sync::{AtomicUsize, Ordering, fence};

mod watch;

/// How often a pick that lost a race for an endpoint's last place tries again before it takes the endpoint for full.
const RACES: u32 = 16;
/// How often an endpoint is to be found full before it is: for a moment a seat that comes or goes looks like a request.
const LOOKS: u32 = 3;

/// What is known about an endpoint, for as long as a set lists it or a request is in flight.
///
/// In this order, so that what a pick reads lies side by side with the reference count that it writes.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct EndpointState {
    seats: AtomicUsize,
    standing: Standing,
    hash: EndpointHash,
    id: EndpointId,
    group: Arc<Group>,
}

/// A reference to an endpoint's state that is not a request in flight.
#[derive(Debug)]
pub(crate) struct Seat {
    state: Arc<EndpointState>,
}

/// The way back to the state of an endpoint that left the set, should it return while requests are in flight.
#[derive(Debug)]
pub(crate) struct Departed {
    state: Weak<EndpointState>,
}

/// One request in flight at an endpoint: it is counted until this guard is dropped.
///
/// Two words, so that it is handed on in registers.
#[derive(Debug)]
#[must_use = "dropping the guard ends the count of the request"]
pub struct InFlight {
    state: Arc<EndpointState>,
    watch: Watch,
}

/// The request in flight behind an upgraded connection, found in the extensions of the response that upgrades it
/// (101, or a successful reply to CONNECT).
///
/// Whoever carries on with the connection takes it along: the endpoint counts the request until the last clone is dropped.
#[derive(Debug, Clone)]
pub struct UpgradeGuard {
    in_flight: Arc<InFlight>,
}

// === impl Seat ===

impl Seat {
    /// The first seat of an endpoint that is well since `since`.
    pub(crate) fn new(id: EndpointId, group: &Arc<Group>, since: Timestamp) -> Self {
        let hash = EndpointHash::of(id.as_str());
        let (group, standing) = (Arc::clone(group), Standing::new(since));
        Self::of(Arc::new(EndpointState { seats: AtomicUsize::new(0), standing, hash, id, group }))
    }

    /// Makes a reference a seat.
    fn of(state: Arc<EndpointState>) -> Self {
        // Until it is noted here the reference counts as a request: a count that is too high for a moment exceeds no limit.
        state.seats.fetch_add(1, Ordering::AcqRel);
        Self { state }
    }

    pub(crate) fn id(&self) -> &EndpointId {
        &self.state.id
    }

    pub(crate) fn hash(&self) -> EndpointHash {
        self.state.hash
    }

    pub(crate) fn standing(&self) -> &Standing {
        &self.state.standing
    }

    /// Requests in flight, to compare; one more or less while sets come and go.
    #[inline]
    pub(crate) fn load(&self) -> usize {
        Arc::strong_count(&self.state).saturating_sub(self.state.seats.load(Ordering::Relaxed))
    }

    #[inline]
    pub(crate) fn latency(&self) -> &Latency {
        &self.state.standing.latency
    }

    /// Requests in flight; more than that for a moment while sets come and go.
    #[inline]
    pub(crate) fn in_flight(&self) -> usize {
        without_seats(&self.state.seats, || Arc::strong_count(&self.state))
    }

    #[inline]
    pub(crate) fn enter(&self, watch: Watch) -> InFlight {
        InFlight::new(Arc::clone(&self.state), watch)
    }

    /// Enters unless `max` requests are in flight. The limit is never exceeded: of several picks that race for the last place
    /// each sees the others, and those that see too many step back and try again.
    pub(crate) fn try_enter(&self, max: NonZeroU32, watch: Watch) -> Option<InFlight> {
        let max = usize::try_from(max.get()).unwrap_or(usize::MAX);
        let state = enter_below(max, || self.in_flight(), || Arc::clone(&self.state))?;
        Some(InFlight::new(state, watch))
    }

    /// Enters with `enter` as the one request that probation allows, if there is none yet.
    pub(crate) fn probe(
        &self,
        watch: Watch,
        enter: impl FnOnce(Watch) -> Option<InFlight>,
    ) -> Option<InFlight> {
        if !self.standing().begin_probe() {
            return None;
        }
        let entered = enter(watch.probing());
        if entered.is_none() {
            self.standing().end_probe();
        }
        entered
    }
}

/// The references that are no seats; more than that for a moment while seats come and go.
#[inline]
fn without_seats(seats: &AtomicUsize, references: impl Fn() -> usize) -> usize {
    let before = seats.load(Ordering::Acquire);
    let references = references();
    // Whose reference is gone is no seat any more: the count is read without an order of its own.
    fence(Ordering::Acquire);
    references.saturating_sub(before.min(seats.load(Ordering::Acquire)))
}

/// Enters if fewer than `max` are inside.
fn enter_below<G>(max: usize, inside: impl Fn() -> usize, enter: impl Fn() -> G) -> Option<G> {
    for _ in 0..RACES {
        if (0..LOOKS).all(|_| inside() >= max) {
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

impl Clone for Seat {
    fn clone(&self) -> Self {
        Self::of(Arc::clone(&self.state))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Before the reference goes, for the reason given in `of`.
        self.state.seats.fetch_sub(1, Ordering::AcqRel);
    }
}

// === impl Departed ===

impl Departed {
    pub(crate) fn new(seat: &Seat) -> Self {
        Self { state: Arc::downgrade(&seat.state) }
    }

    /// A seat of the endpoint with its requests in flight, or nothing if none is left.
    pub(crate) fn revive(&self) -> Option<Seat> {
        self.state.upgrade().map(Seat::of)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state.strong_count() == 0
    }
}

// === impl InFlight ===

impl InFlight {
    #[inline]
    fn new(state: Arc<EndpointState>, watch: Watch) -> Self {
        let watch = if watch.has(Watch::TIME) { watch.since(state.group.now()) } else { watch };
        let watch = if watch.has(Watch::OUTCOME) { watch.in_term(state.standing.term()) } else { watch };
        if watch.has(Watch::COUNT) {
            state.group.count();
        }
        Self { state, watch }
    }

    /// The endpoint that works on the request.
    #[must_use]
    pub fn endpoint(&self) -> &EndpointId {
        &self.state.id
    }

    pub(crate) fn hash(&self) -> EndpointHash {
        self.state.hash
    }

    /// Tells what became of the request: call it when the head of the response is there, or none will come.
    ///
    /// The endpoint counts the request on until the guard is dropped. What is told first counts.
    #[inline]
    pub fn record(&mut self, outcome: Outcome) {
        let watch = self.watch;
        self.watch = watch.after_the_outcome();
        // What nearly all requests come to needs no configuration.
        if outcome == Outcome::Success && !watch.has(Watch::TIME) {
            let (group, standing) = (&self.state.group, &self.state.standing);
            if watch.has(Watch::OUTCOME) && watch.term() == standing.term() && standing.note_answer() {
                group.ask_for_a_look();
            }
        } else if self.watch != watch {
            self.note(watch, outcome);
        }
    }

    /// Ends the count among all and the probe, and notes what is known of a request of which nothing was told.
    fn end(&mut self) {
        let group = &self.state.group;
        if self.watch.has(Watch::COUNT) {
            group.uncount();
        }
        if self.watch.has(Watch::PROBE) {
            self.state.standing.end_probe();
        }
        // Given up before there was a response: it would have taken longer.
        if self.watch.has(Watch::TIME) {
            let now = group.now();
            let (latency, took) = (&self.state.standing.latency, self.watch.until(now));
            match group.config.load().decay() {
                Some(decay) => latency.observe_at_least(now, took, decay),
                None => latency.sample_at_least(now, took),
            }
        }
    }

    fn note(&self, watch: Watch, outcome: Outcome) {
        let (group, standing) = (&self.state.group, &self.state.standing);
        let config = group.config.load();
        let outlier = config.outlier.as_ref();
        let is_judged = outlier.is_some_and(|outlier| outlier.judges(outcome));
        let penalty = penalty(outcome);
        let is_timed = match (config.decay(), penalty) {
            (_, None) => watch.has(Watch::TIME),
            // A peak, whether it is the turn of the request to be timed or not.
            (Some(_), Some(_)) => true,
            // Who is spared fails too seldom to be ejected; `Standing` spares it if it may not be.
            (None, Some(_)) => watch.has(Watch::TIME) && !is_judged,
        };
        if is_timed {
            let now = group.now();
            let took = if watch.has(Watch::TIME) { watch.until(now) } else { Duration::ZERO };
            // Who fails fast is not fast.
            let took = took.max(penalty.unwrap_or_default());
            match config.decay() {
                Some(decay) => standing.latency.observe(now, took, decay),
                None => standing.latency.sample(now, took),
            }
        }
        // It is asked all the same while the set panics: who fails at once would always have the fewest requests.
        if is_judged && config.samples_times() && standing.is_left_out() {
            standing.latency.despair();
        }
        let outlier = outlier.filter(|_| watch.term() == standing.term());
        if outlier.is_some_and(|outlier| standing.note(outcome, || group.now(), outlier)) {
            group.ask_for_a_look();
        }
    }
}

impl Drop for InFlight {
    #[inline]
    fn drop(&mut self) {
        if self.watch != Watch::NOTHING {
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

//! Counting the requests that an endpoint is working on.
//!
//! A guard is a reference to the endpoint's state, and the count is the number of references: one atomic increment at the pick
//! keeps the state alive and counts the request, one decrement at the end undoes both. So the count cannot leak, become
//! negative or outlive its guards. For this to hold, exactly one reference is not a guard: that of the endpoint's [`Seat`],
//! which all sets that list the endpoint share.

use std::num::NonZeroU32;
use std::sync::{Arc, Weak};

use crate::endpoint::EndpointId;

/// How often a pick that lost a race for an endpoint's last place tries again before it takes the endpoint for full.
const RACES: u32 = 16;

/// What is known about an endpoint, for as long as a set lists it or a request is in flight.
///
/// The alignment gives the reference count, which every pick writes, cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct EndpointState {
    id: EndpointId,
}

/// The one owner of an endpoint's state that is not a request in flight.
#[derive(Debug)]
pub(crate) struct Seat {
    state: Arc<EndpointState>,
}

/// The way back to the state of an endpoint that left the set, should it return while requests are in flight.
#[derive(Debug)]
pub(crate) struct Departed {
    seat: Weak<Seat>,
    state: Weak<EndpointState>,
}

/// One request in flight at an endpoint: it is counted until this guard is dropped.
#[derive(Debug)]
#[must_use = "dropping the guard ends the count of the request"]
pub struct InFlight {
    state: Arc<EndpointState>,
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
    pub(crate) fn new(id: EndpointId) -> Self {
        Self { state: Arc::new(EndpointState { id }) }
    }

    pub(crate) fn id(&self) -> &EndpointId {
        &self.state.id
    }

    pub(crate) fn in_flight(&self) -> usize {
        Arc::strong_count(&self.state).saturating_sub(1)
    }

    pub(crate) fn enter(&self) -> InFlight {
        InFlight { state: Arc::clone(&self.state) }
    }

    /// Enters unless `max` requests are in flight. The limit is never exceeded: of several picks that race for the last place
    /// each sees the others, and those that see too many step back and try again.
    pub(crate) fn try_enter(&self, max: NonZeroU32) -> Option<InFlight> {
        let max = usize::try_from(max.get()).unwrap_or(usize::MAX);
        for _ in 0..RACES {
            if self.in_flight() >= max {
                return None;
            }
            let guard = self.enter();
            if self.in_flight() <= max {
                return Some(guard);
            }
            drop(guard);
            std::hint::spin_loop();
        }
        None
    }
}

// === impl Departed ===

impl Departed {
    pub(crate) fn new(seat: &Arc<Seat>) -> Self {
        Self { seat: Arc::downgrade(seat), state: Arc::downgrade(&seat.state) }
    }

    /// The endpoint's seat with its requests in flight, or nothing if none is left.
    pub(crate) fn revive(&self) -> Option<Arc<Seat>> {
        let seat = self.seat.upgrade();
        seat.or_else(|| self.state.upgrade().map(|state| Arc::new(Seat { state })))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state.strong_count() == 0
    }
}

// === impl InFlight ===

impl InFlight {
    /// The endpoint that works on the request.
    #[must_use]
    pub fn endpoint(&self) -> &EndpointId {
        &self.state.id
    }
}

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

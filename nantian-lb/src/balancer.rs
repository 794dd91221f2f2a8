//! The shared handle that picks, and the update that keeps what is known.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Cache};

use crate::config::BalanceConfig;
use crate::context::PickContext;
use crate::endpoint::{Endpoint, EndpointId};
use crate::error::PickError;
use crate::in_flight::{Departed, InFlight};
use crate::observe::EndpointStatus;
use crate::set::Set;

/// Picks endpoints out of a set that can be replaced at any time.
///
/// Clones share everything. A pick takes no lock and never waits for an update.
pub struct Balancer<T> {
    shared: Arc<Shared<T>>,
}

/// A [`Balancer`] for one worker, which remembers the set that it saw last and so picks in about half the time.
///
/// A pick always uses the newest set. A picker that is not used keeps the set of its last pick alive.
pub struct Picker<T> {
    shared: Arc<Shared<T>>,
    set: Cache<SharedSet<T>, Arc<Set<T>>>,
}

/// The endpoint that a request is to be sent to, counted as a request in flight until this, or its [`InFlight`] guard, is dropped.
#[derive(Debug)]
#[must_use = "dropping a pick ends the count of the request"]
pub struct Picked<T> {
    target: T,
    in_flight: InFlight,
}

struct Shared<T> {
    set: ArcSwap<Set<T>>,
    /// The position in the round, shared by all sets so that it survives their change.
    cursor: Cursor,
    /// Endpoints that left while requests were in flight. Locked by updates, never by picks.
    departed: Mutex<HashMap<EndpointId, Departed>>,
}

/// The alignment keeps picks, which write it, off the cache lines of the set, which they read.
#[derive(Debug)]
#[repr(align(128))]
struct Cursor(AtomicU64);

struct SharedSet<T>(Arc<Shared<T>>);

// === impl Balancer ===

impl<T> Balancer<T> {
    /// Balances over `endpoints`. Of endpoints with the same id the first counts.
    ///
    /// Round robin begins at a random endpoint, lest many balancers that start together all begin at the same one.
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint<T>>, config: &BalanceConfig) -> Self {
        Self {
            shared: Arc::new(Shared {
                set: ArcSwap::from_pointee(Set::new(endpoints, config)),
                cursor: Cursor(AtomicU64::new(u64::from(fastrand::u32(..)))),
                departed: Mutex::default(),
            }),
        }
    }

    /// Replaces the endpoints and the configuration. Of endpoints with the same id the first counts.
    ///
    /// Endpoints that stay keep their requests in flight, whatever else of them changes, and so do endpoints that return while
    /// requests of their first life are in flight. Round robin goes on where it was. Picks that run meanwhile see the old set
    /// or the new one, never a mixture.
    ///
    /// Building a hash table takes about a millisecond, which is why an update is no work for a request.
    pub fn update(&self, endpoints: impl IntoIterator<Item = Endpoint<T>>, config: &BalanceConfig) {
        let mut departed = self.shared.departed.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.shared.set.load_full();
        let new = Arc::new(old.succeed(endpoints, config, |id| departed.get(id)?.revive()));
        self.shared.set.store(Arc::clone(&new));

        departed.retain(|id, endpoint| !endpoint.is_over() && new.seat(id).is_none());
        for seat in old.seats().filter(|seat| new.seat(seat.id()).is_none()) {
            departed.insert(seat.id().clone(), Departed::new(seat));
        }
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> BalanceConfig {
        self.shared.set.load().config().clone()
    }

    /// A handle for one worker that picks faster.
    #[must_use]
    pub fn picker(&self) -> Picker<T> {
        Picker { shared: Arc::clone(&self.shared), set: Cache::new(SharedSet(Arc::clone(&self.shared))) }
    }
}

impl<T: Clone> Balancer<T> {
    /// Picks the endpoint for a request, and counts the request as in flight there.
    ///
    /// # Errors
    ///
    /// [`PickError::NoEndpoints`] if no endpoint has a weight above 0, [`PickError::Saturated`] if all that have are at
    /// [`max_inflight_requests`](BalanceConfig::max_inflight_requests).
    pub fn pick(&self, context: &PickContext<'_>) -> Result<Picked<T>, PickError> {
        let set = self.shared.set.load();
        let (target, in_flight) = set.pick(context, &self.shared.cursor.0)?;
        Ok(Picked { target, in_flight })
    }

    /// The endpoints as they stand, those that can be picked first, each part in the order of the ids.
    #[must_use]
    pub fn status(&self) -> Vec<EndpointStatus<T>> {
        self.shared.set.load().status()
    }
}

impl<T> Clone for Balancer<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> fmt::Debug for Balancer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.shared.set.load();
        f.debug_struct("Balancer")
            .field("config", set.config())
            .field("endpoints", &set.seats().count())
            .finish()
    }
}

// === impl Picker ===

impl<T: Clone> Picker<T> {
    /// [`Balancer::pick`] for one worker.
    ///
    /// # Errors
    ///
    /// Those of [`Balancer::pick`].
    pub fn pick(&mut self, context: &PickContext<'_>) -> Result<Picked<T>, PickError> {
        let set = self.set.load();
        let (target, in_flight) = set.pick(context, &self.shared.cursor.0)?;
        Ok(Picked { target, in_flight })
    }
}

impl<T> Clone for Picker<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), set: self.set.clone() }
    }
}

impl<T> fmt::Debug for Picker<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picker").finish_non_exhaustive()
    }
}

// === impl Picked ===

impl<T> Picked<T> {
    /// The id of the endpoint.
    #[must_use]
    pub fn id(&self) -> &EndpointId {
        self.in_flight.endpoint()
    }

    /// Where to send the request.
    #[must_use]
    pub fn target(&self) -> &T {
        &self.target
    }

    /// The target, and the guard to hold until the response has ended.
    pub fn into_parts(self) -> (T, InFlight) {
        (self.target, self.in_flight)
    }
}

// === impl SharedSet ===

impl<T> std::ops::Deref for SharedSet<T> {
    type Target = ArcSwap<Set<T>>;

    fn deref(&self) -> &Self::Target {
        &self.0.set
    }
}

impl<T> Clone for SharedSet<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

//! The shared handle that picks, and the update that keeps what is known.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use thread_local::ThreadLocal;

use crate::clock::{Clock, MonotonicClock, Timestamp};
use crate::cluster::Cluster;
use crate::config::BalanceConfig;
use crate::context::PickContext;
use crate::endpoint::{Endpoint, EndpointId, Readiness};
use crate::error::PickError;
use crate::health::Verdict;
use crate::in_flight::{EndpointHandle, InFlight, WeakHandle};
use crate::members::Members;
use crate::observe::EndpointStatus;
use crate::set::{Reason, Set};
use crate::thread_cache::{ThreadCache, VersionedSet};

/// Picks endpoints out of a set that can be replaced at any time.
///
/// Clones share everything. A pick takes no lock and never waits for an update. Each thread keeps the set
/// that it picked from last, with its targets, until it picks from a newer one or the balancer is dropped.
pub struct Balancer<T: Send + Sync> {
    shared: Arc<Shared<T>>,
}

/// A [`Balancer`] for one worker, which need not look up what its thread keeps: it keeps the set that it saw
/// last itself.
///
/// A pick always uses the newest set.
pub struct Picker<T: Send + Sync> {
    shared: Arc<Shared<T>>,
    cache: ThreadCache<T>,
}

/// The endpoint that a request is to be sent to, counted as a request in flight until this, or its
/// [`InFlight`] guard, is dropped.
#[derive(Debug)]
#[must_use = "dropping a pick ends the count of the request"]
pub struct Picked<T> {
    pub(crate) target: T,
    pub(crate) in_flight: InFlight,
    pub(crate) reason: Reason,
}

struct Shared<T: Send + Sync> {
    set: VersionedSet<T>,
    /// What each thread that picks keeps, which spares it from being counted as a reader of the set.
    caches: ThreadLocal<RefCell<ThreadCache<T>>>,
    /// The position in the round, shared by all sets so that it survives their change.
    cursor: Cursor,
    cluster: Arc<Cluster>,
    /// Endpoints that left while requests were in flight. Whoever replaces the set holds the lock; picks
    /// never wait for it.
    departed: Mutex<HashMap<EndpointId, WeakHandle>>,
}

/// The alignment keeps picks, which write it, off the cache lines of the set, which they read.
#[derive(Debug)]
#[repr(align(128))]
struct Cursor(AtomicU64);

// === impl Balancer ===

impl<T: Send + Sync> Balancer<T> {
    /// Balances over `endpoints`. Of endpoints with the same id the first counts.
    ///
    /// Round robin begins at a random endpoint, lest many balancers that start together all begin at the same
    /// one.
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint<T>>, config: &BalanceConfig) -> Self {
        Self::with_clock(endpoints, config, MonotonicClock::new())
    }

    /// As [`new`](Self::new), with another clock than the operating system's.
    pub fn with_clock(
        endpoints: impl IntoIterator<Item = Endpoint<T>>,
        config: &BalanceConfig,
        clock: impl Clock + 'static,
    ) -> Self {
        let cluster = Arc::new(Cluster::new(config.clone(), Arc::new(clock)));
        let members = Members::new(endpoints, |id| EndpointHandle::new(id, &cluster, Timestamp::ORIGIN));
        let set = Set::new(cluster.config.load_full(), Arc::new(members), cluster.now(), None);
        Self {
            shared: Arc::new(Shared {
                set: VersionedSet::new(set),
                caches: ThreadLocal::new(),
                cursor: Cursor(AtomicU64::new(u64::from(fastrand::u32(..)))),
                cluster,
                departed: Mutex::default(),
            }),
        }
    }

    /// Replaces the endpoints and the configuration. Of endpoints with the same id the first counts.
    ///
    /// Endpoints that stay keep their requests in flight, their health and their response times, whatever
    /// else of them changes, and so do endpoints that return while requests of their first life are in
    /// flight. Round robin goes on where it was. Picks that run meanwhile see the old set or the new one,
    /// never a mixture.
    ///
    /// Building a hash table takes about a millisecond, which is why an update is no work for a request.
    pub fn update(&self, endpoints: impl IntoIterator<Item = Endpoint<T>>, config: &BalanceConfig) {
        let shared = &*self.shared;
        let mut departed = shared.departed.lock().unwrap_or_else(PoisonError::into_inner);
        let old = shared.set.load();
        let now = shared.cluster.now();
        // A set that is new altogether has nobody to spare its members.
        let has_past = !old.members.all().is_empty();
        let starts = config.slow_start.as_ref().is_some_and(|start| start.new_endpoints) && has_past;
        let since = if starts { now } else { Timestamp::ORIGIN };
        let members = Members::new(endpoints, |id| {
            let handle = old.members.handle(&id).cloned();
            let handle = handle.or_else(|| departed.get(&id)?.upgrade());
            handle.unwrap_or_else(|| EndpointHandle::new(id, &shared.cluster, since))
        });
        if config.decay().is_some() {
            members.introduce_newcomers(now);
        }
        shared.cluster.config.store(Arc::new(config.clone()));
        shared.cluster.begin_replan();
        let new = Set::new(shared.cluster.config.load_full(), Arc::new(members), now, Some(&old));
        shared.cluster.replan_at(new.next());

        let is_listed = |id: &EndpointId| new.members.handle(id).is_some();
        departed.retain(|id, endpoint| !endpoint.is_over() && !is_listed(id));
        for member in old.members.all().iter().filter(|member| !is_listed(member.handle.id())) {
            departed.insert(member.handle.id().clone(), WeakHandle::new(&member.handle));
        }
        shared.set.store(new);
    }

    /// Notes what an active check of an endpoint found. One that is not in the set is ignored.
    ///
    /// [`Checks`](crate::health::Checks) decides how many checks in a row it takes.
    pub fn set_check(&self, id: &EndpointId, found: Verdict) {
        let set = self.shared.set.load();
        if let Some(handle) = set.members.handle(id)
            && handle.health().note_check(found == Verdict::Fails)
        {
            self.shared.cluster.request_replan();
        }
    }

    /// Whether it has an endpoint of this id, whatever is to be said of it.
    #[must_use]
    pub fn has(&self, id: &EndpointId) -> bool {
        self.shared.set.load().members.handle(id).is_some()
    }

    /// Whether it has no endpoint that takes requests, be it those of sessions alone.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let set = self.shared.set.load();
        !set.members.all().iter().any(|member| member.readiness != Readiness::NotReady)
    }

    /// The time of its clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.shared.cluster.now()
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> BalanceConfig {
        BalanceConfig::clone(self.shared.set.load().config())
    }

    /// A handle for one worker that picks faster.
    #[must_use]
    pub fn picker(&self) -> Picker<T> {
        Picker { shared: Arc::clone(&self.shared), cache: ThreadCache::new(&self.shared.set) }
    }
}

impl<T: Clone + Send + Sync> Balancer<T> {
    /// Picks the endpoint for a request, and counts the request as in flight there.
    ///
    /// # Errors
    ///
    /// [`PickError::NoEndpoints`] if no endpoint is ready and has a weight above 0, [`PickError::Saturated`]
    /// if all that are have [`max_inflight_requests`](BalanceConfig::max_inflight_requests),
    /// [`PickError::NoneHealthy`] if none is healthy and that is not to be ignored.
    pub fn pick(&self, context: &PickContext<'_>) -> Result<Picked<T>, PickError> {
        let shared = &*self.shared;
        match shared.caches.get_or(|| RefCell::new(ThreadCache::new(&shared.set))).try_borrow_mut() {
            Ok(mut cache) => shared.pick(&mut cache, context),
            // A pick inside of a pick: the target's clone, or the source of a key, asks the same balancer.
            Err(_) => shared.pick(&mut ThreadCache::new(&shared.set), context),
        }
    }
}

impl<T: Clone + Send + Sync> Balancer<T> {
    /// The endpoints as they stand, in the order of the ids.
    #[must_use]
    pub fn status(&self) -> Vec<EndpointStatus<T>> {
        self.shared.replan_if_due();
        let set = self.shared.set.load();
        let now = self.shared.cluster.now();
        set.members.all().iter().map(|member| EndpointStatus::of(member, now, set.config())).collect()
    }
}

impl<T: Send + Sync> Clone for Balancer<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T: Send + Sync> fmt::Debug for Balancer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.shared.set.load();
        f.debug_struct("Balancer")
            .field("config", set.config())
            .field("endpoints", &set.members.all().len())
            .finish()
    }
}

// === impl Picker ===

impl<T: Clone + Send + Sync> Picker<T> {
    /// [`Balancer::pick`] for one worker.
    ///
    /// # Errors
    ///
    /// Those of [`Balancer::pick`].
    pub fn pick(&mut self, context: &PickContext<'_>) -> Result<Picked<T>, PickError> {
        self.shared.pick(&mut self.cache, context)
    }
}

impl<T: Send + Sync> Clone for Picker<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), cache: self.cache.clone() }
    }
}

impl<T: Send + Sync> fmt::Debug for Picker<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Picker").finish_non_exhaustive()
    }
}

// === impl Shared ===

impl<T: Clone + Send + Sync> Shared<T> {
    #[inline]
    fn pick(&self, cache: &mut ThreadCache<T>, context: &PickContext<'_>) -> Result<Picked<T>, PickError> {
        self.replan_if_due();
        let (set, rng) = cache.current(&self.set);
        set.pick(context, rng, &self.cursor.0, &self.cluster)
    }
}

impl<T: Send + Sync> Shared<T> {
    /// Plans anew if the health of some endpoint has changed, or its time has come.
    fn replan_if_due(&self) {
        if self.cluster.is_due() {
            self.replan();
        }
    }

    #[cold]
    fn replan(&self) {
        // Who finds it locked goes on with the old plan: somebody is at it.
        let _lock = match self.departed.try_lock() {
            Ok(lock) => lock,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        self.cluster.begin_replan();
        let old = self.set.load();
        let (config, members) = (Arc::clone(old.config()), Arc::clone(&old.members));
        let new = Set::new(config, members, self.cluster.now(), Some(&old));
        self.cluster.replan_at(new.next());
        self.set.store(new);
    }
}

// === impl Picked ===

impl<T> Picked<T> {
    /// Whether the endpoint of the session was passed over for the moment, so that the session stays with it.
    pub(crate) fn is_detour(&self) -> bool {
        self.reason == Reason::Detour
    }

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

    /// The guard.
    pub fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }

    /// The target, and the guard to hold until the response has ended.
    #[inline]
    pub fn into_parts(self) -> (T, InFlight) {
        (self.target, self.in_flight)
    }
}

//! The connection to the server, and what all limiters on it have in common.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::time::Instant;
#[cfg(feature = "redis-tls")]
use tokio_rustls::rustls::ClientConfig;

use super::agreed_secret::AgreedSecret;
use super::driver::RedisDriver;
use super::fault::StoreFault;
use super::layout::Layout;
use super::node::{DriverTask, Node, Route};
use super::node_driver::NodeDriver;
use super::replica_count::ReplicaCount;
use super::script;
use super::shared::{OnOutage, SharedLimiter};
use super::shared_key::SharedKey;
use super::transport::Transport;
use super::unreported::{Flushed, UnreportedKeys};
use super::url::RedisUrl;
use crate::key::SharedSecret;
use crate::policy::{MAX_LIMITS, Policy};

/// Upper bounds of the latencies that are counted apart.
const LATENCIES: [Duration; 7] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
];

/// A connection to Redis or Valkey that limiters share.
///
/// Clones are the same connection. It is there as long as the [`RedisDriver`] that came with it is polled.
#[derive(Clone)]
pub struct RedisStore(pub(super) Arc<StoreState>);

/// Makes a [`RedisStore`] with other than default settings.
#[derive(Clone)]
#[must_use]
pub struct RedisStoreBuilder {
    url: RedisUrl,
    transport: Transport,
    command_timeout: Duration,
    connect_timeout: Duration,
    on_outage: OnOutage,
    replicas: Option<u32>,
}

/// How the server is doing, and what was asked of it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StoreStatus {
    /// Whether decisions ask the server at present: in a cluster those about every key.
    pub is_reachable: bool,
    /// Servers that have a part of the keys: the masters of a cluster, or one.
    pub nodes: usize,
    /// Which of them are not asked, as `HOST:PORT`: decisions about their keys are made without them.
    pub away: Vec<String>,
    /// Who decides while it is away: [`RedisStoreBuilder::on_outage`].
    pub on_outage: OnOutage,
    /// Why the last attempt to reach it, or some node, failed; `None` once one has succeeded.
    pub fault: Option<StoreFault>,
    /// Whether the server makes room for new keys by forgetting others (`maxmemory-policy` other than
    /// `noeviction`), if it says so: limits are then forgotten as well.
    pub may_evict: bool,
    /// Processes that share the limits, this one included; `None` until the server or
    /// [`RedisStoreBuilder::replicas`] has told.
    pub replicas: Option<u32>,
    /// Decisions of the server.
    pub answers: u64,
    /// Decisions that the server was asked for in vain.
    pub failures: u64,
    /// Decisions for which nobody asked, because the server was away.
    pub unasked: u64,
    /// Denials that were still known.
    pub remembered: u64,
    /// Answers by latency: the upper bound, and how many took no longer. The rest took longer.
    pub latencies: Vec<(Duration, u64)>,
    /// The latencies of all answers together.
    pub latency: Duration,
}

/// What the handles and drivers of one store share.
pub(super) struct StoreState {
    pub(super) url: RedisUrl,
    pub(super) transport: Transport,
    pub(super) command_timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) on_outage: OnOutage,
    /// What this process is called.
    pub(super) name: u128,
    fixed_replicas: Option<u32>,
    /// As many as the server has counted; 0 until it has.
    pub(super) replicas: AtomicU32,
    replica_count: Mutex<ReplicaCount>,
    /// The text of the script for each number of limits, from 1.
    pub(super) scripts: Box<[String]>,
    /// What keys are hashed under; what this process proposes until it hears from the server.
    pub(super) agreed: ArcSwap<AgreedSecret>,
    pub(super) layout: ArcSwap<Layout>,
    /// Told when a key is not where the layout says.
    pub(super) moved: Notify,
    /// Why the layout is not known, or nobody asks for it.
    pub(super) fault: ArcSwapOption<StoreFault>,
    /// Keys whose use the server has not been told of.
    pub(super) unreported: UnreportedKeys,
    /// Whether something was used that nobody can tell the server of any more.
    pub(super) has_lost: AtomicBool,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    failures: AtomicU64,
    unasked: AtomicU64,
    remembered: AtomicU64,
    latencies: [AtomicU64; LATENCIES.len() + 1],
    latency_micros: AtomicU64,
}

// === impl RedisStore ===

impl RedisStore {
    /// Starts a store at `url`. Nothing is connected before the driver is polled.
    pub fn builder(url: RedisUrl) -> RedisStoreBuilder {
        RedisStoreBuilder {
            url,
            transport: Transport::default(),
            command_timeout: Duration::from_millis(20),
            connect_timeout: Duration::from_secs(1),
            on_outage: OnOutage::default(),
            replicas: None,
        }
    }

    /// A limiter for `policy` whose levels are those of all limiters with the same `id` on the same server.
    ///
    /// `id` is what the policy is called by all replicas. It must survive edits of the policy, and no other
    /// policy may have it.
    pub fn limiter(&self, id: &str, policy: Policy) -> SharedLimiter {
        SharedLimiter::new(self.clone(), id, policy)
    }

    /// Tells the server what has been settled until now, and what was used without it; what it knows of that
    /// then. For whoever ends: the [`RedisDriver`] must still be polled meanwhile, and the limiters be there,
    /// which alone know what was used. What was used
    /// [without the server](crate::redis#when-the-server-does-not-answer) it tells of 4096 keys at most, and
    /// does not say that there were others.
    ///
    /// It waits for one answer at most [`RedisStoreBuilder::connect_timeout`], but there may be many.
    ///
    /// # Cancellation
    ///
    /// Dropping it leaves the rest to the driver.
    pub async fn flush(&self) -> Flushed {
        self.0.report();
        let layout = self.0.layout.load_full();
        join_all(layout.nodes().iter().map(|node| node.flush())).await;
        self.0.flushed()
    }

    /// The address, for messages.
    pub fn url(&self) -> &RedisUrl {
        &self.0.url
    }

    /// How the server is doing.
    pub fn status(&self) -> StoreStatus {
        let (counts, layout) = (&self.0.counts, self.0.layout.load());
        let mut answers = 0;
        let latencies = LATENCIES.iter().zip(&counts.latencies).map(|(bound, count)| {
            answers += count.load(Ordering::Relaxed);
            (*bound, answers)
        });
        let latencies = latencies.collect();
        let slow = counts.latencies.last().map_or(0, |slow| slow.load(Ordering::Relaxed));
        let away = layout.away();
        StoreStatus {
            is_reachable: layout.is_complete() && away.is_empty(),
            nodes: layout.nodes().len(),
            away,
            on_outage: self.0.on_outage,
            fault: self.0.fault.load().as_deref().copied().or_else(|| layout.fault()),
            may_evict: layout.may_evict(),
            replicas: self.0.known_replicas(),
            answers: answers + slow,
            failures: counts.failures.load(Ordering::Relaxed),
            unasked: counts.unasked.load(Ordering::Relaxed),
            remembered: counts.remembered.load(Ordering::Relaxed),
            latencies,
            latency: Duration::from_micros(counts.latency_micros.load(Ordering::Relaxed)),
        }
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("url", &self.0.url).finish_non_exhaustive()
    }
}

// === impl RedisStoreBuilder ===

impl RedisStoreBuilder {
    /// Sets how long a decision waits for the server, give or take the millisecond that timers are exact to.
    /// Range: 1 ms to 10 s. Default: 20 ms.
    pub fn command_timeout(mut self, timeout: Duration) -> Self {
        self.command_timeout = timeout.clamp(Duration::from_millis(1), Duration::from_secs(10));
        self
    }

    /// Sets how long the driver waits for a connection to one of the server's addresses, TLS and login
    /// included, for the answer to its first greeting, and for that to what was settled. Range: 1 ms to 60 s.
    /// Default: 1 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout.clamp(Duration::from_millis(1), Duration::from_secs(60));
        self
    }

    /// Sets who decides while the server does not. Default: [`OnOutage::Local`].
    pub fn on_outage(mut self, on_outage: OnOutage) -> Self {
        self.on_outage = on_outage;
        self
    }

    /// Sets how many processes share the limits, this one included. Range: from 1. Default: as many as greet
    /// the server.
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = Some(replicas.max(1));
        self
    }

    /// Sets what tells the password, in place of that of the address. It is asked for each connection, on the
    /// task of the driver, so that a password may change while the store is in use: return at once. What it
    /// fails with is not shown: [`StoreStatus::fault`] is [`StoreFault::Unreadable`].
    pub fn password_from(mut self, read: impl Fn() -> io::Result<String> + Send + Sync + 'static) -> Self {
        self.transport.password = Some(Arc::new(read));
        self
    }

    /// Sets whom to trust, and whom to be, where the address begins with `rediss://`. The server must prove
    /// to be its host. Without it such a server is never reached, and [`StoreStatus::fault`] says so.
    #[cfg(feature = "redis-tls")]
    pub fn tls(self, config: Arc<ClientConfig>) -> Self {
        self.tls_from(move || Ok(Arc::clone(&config)))
    }

    /// The same, asked for each connection, as a password is: certificates end.
    #[cfg(feature = "redis-tls")]
    pub fn tls_from(
        mut self,
        read: impl Fn() -> io::Result<Arc<ClientConfig>> + Send + Sync + 'static,
    ) -> Self {
        self.transport.tls = Some(Arc::new(read));
        self
    }

    /// The store, and the future that connects it.
    pub fn build(self) -> (RedisStore, RedisDriver) {
        let (node, tasks) = Node::new(self.url.endpoint.clone());
        let store = RedisStore(Arc::new(StoreState {
            url: self.url,
            transport: self.transport,
            command_timeout: self.command_timeout,
            connect_timeout: self.connect_timeout,
            on_outage: self.on_outage,
            name: u128::from_le_bytes(SharedSecret::random_bytes()),
            fixed_replicas: self.replicas,
            replicas: AtomicU32::new(0),
            replica_count: Mutex::default(),
            scripts: (1..=MAX_LIMITS).map(script::decide).collect(),
            agreed: ArcSwap::from_pointee(AgreedSecret::proposed()),
            layout: ArcSwap::from_pointee(Layout::alone(Arc::clone(&node))),
            moved: Notify::new(),
            fault: ArcSwapOption::empty(),
            unreported: UnreportedKeys::default(),
            has_lost: AtomicBool::new(false),
            counts: Counts::default(),
        }));
        let driver = RedisDriver::new(NodeDriver::alone(Arc::clone(&store.0), node, tasks));
        (store, driver)
    }
}

impl fmt::Debug for RedisStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreBuilder").field("url", &self.url).finish_non_exhaustive()
    }
}

// === impl StoreState ===

impl StoreState {
    /// Whom to ask about `key`, if decisions are to ask.
    pub(super) fn route(&self, key: &SharedKey) -> Option<Route> {
        let layout = self.layout.load();
        layout.node_at(|| key.slot())?.route().filter(|_| key.is_known_by(self))
    }

    /// The server has told of so many replicas.
    pub(super) fn count_replicas(&self, now: Instant, told: u32) {
        let mut count = self.replica_count.lock().unwrap_or_else(PoisonError::into_inner);
        self.replicas.store(count.told(now, told), Ordering::Relaxed);
    }

    /// The server was away: what it tells of replicas from now on may be news to itself.
    pub(super) fn interrupt_replica_count(&self) {
        self.replica_count.lock().unwrap_or_else(PoisonError::into_inner).interrupted();
    }

    fn known_replicas(&self) -> Option<u32> {
        self.fixed_replicas.or(Some(self.replicas.load(Ordering::Relaxed)).filter(|counted| *counted > 0))
    }

    pub(super) fn replicas(&self) -> u32 {
        self.known_replicas().unwrap_or(1)
    }

    /// Hands a task about `key` to a driver; it comes back if the server is away, or there is no room.
    pub(super) fn hand_over(&self, key: &SharedKey, task: DriverTask) -> Result<(), DriverTask> {
        match self.layout.load().node_at(|| key.slot()) {
            Some(node) => node.hand_over(task),
            None => Err(task),
        }
    }

    /// How long the driver waits for an answer that no request waits for.
    pub(super) fn patience(&self) -> Duration {
        self.connect_timeout.max(self.command_timeout)
    }

    /// A decision for which the server was asked in vain.
    pub(super) fn count_failure(&self) {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_answer(&self, latency: Duration) {
        self.counts.answered(latency);
    }

    pub(super) fn count_unasked(&self) {
        self.counts.unasked.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_remembered(&self) {
        self.counts.remembered.fetch_add(1, Ordering::Relaxed);
    }
}

// === impl Counts ===

impl Counts {
    fn answered(&self, latency: Duration) {
        let bucket = LATENCIES.iter().position(|bound| latency <= *bound).unwrap_or(LATENCIES.len());
        if let Some(count) = self.latencies.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

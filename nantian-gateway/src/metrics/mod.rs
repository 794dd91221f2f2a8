//! What the gateway counts, and how Prometheus reads it.
//!
//! The data path writes to handles that were resolved when its route was compiled. Every worker has a shard
//! of its own in each of them, so counting never makes two cores share a cache line. Labels are names of
//! configured objects and status classes, so their number is bounded by the configuration.

mod ai;
mod collector;
mod endpoints;
mod family;
mod plugins;
mod rate_limits;
mod route;
mod stream;
mod tls;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use nantian_ai::BodyMemory;
use nantian_lb::Balancer;
use nantian_ratelimit::redis::RedisStore;
use nantian_wasm::Plugin;
use prometheus_client::{encoding::text::encode, registry::Registry};

use self::tls::TlsMetrics;
pub(crate) use self::{
    ai::AiMetrics,
    rate_limits::{Keys, LimitMetrics, Limited},
    route::RouteMetrics,
    stream::{StreamMetrics, StreamShard},
    tls::HandshakeFailure,
};
use crate::{gates::Feature, ir::BackendId, sync::lock, upstream::Destination};

/// Every metric of the process.
#[derive(Debug)]
pub struct Metrics {
    workers: usize,
    /// By the name of the route.
    routes: Mutex<BTreeMap<String, Arc<RouteMetrics>>>,
    /// The routes of connections and datagrams, by name.
    streams: Mutex<BTreeMap<String, Arc<StreamMetrics>>>,
    /// Requests that no route answered.
    unmatched: Arc<RouteMetrics>,
    /// By the name of the TokenPolicy.
    limits: Mutex<BTreeMap<String, Arc<LimitMetrics>>>,
    /// By the name of the AIService.
    ai_services: Mutex<BTreeMap<String, Arc<AiMetrics>>>,
    /// Where limits are kept, if not in this process.
    store: OnceLock<RedisStore>,
    /// What the bodies that are read whole take.
    body_memory: OnceLock<BodyMemory>,
    /// Lines of the log that are lost.
    log: OnceLock<Arc<AtomicU64>>,
    connections: Box<[AtomicU64]>,
    reloads: AtomicU64,
    rejected_reloads: AtomicU64,
    reload_micros: AtomicU64,
    faults: AtomicU64,
    lost_log_lines: Arc<AtomicU64>,
    ignored: Mutex<BTreeMap<Feature, u64>>,
    tls: TlsMetrics,
    plugins: Mutex<Vec<Plugin>>,
    /// The endpoints of each backend, which tell themselves how they are.
    balancers: Mutex<Vec<(BackendId, Balancer<Destination>)>>,
}

impl Metrics {
    /// Metrics for `workers` workers, all at zero.
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            routes: Mutex::default(),
            streams: Mutex::default(),
            unmatched: Arc::new(RouteMetrics::new(workers)),
            limits: Mutex::default(),
            ai_services: Mutex::default(),
            store: OnceLock::new(),
            body_memory: OnceLock::new(),
            log: OnceLock::new(),
            connections: (0..workers).map(|_| AtomicU64::default()).collect(),
            reloads: AtomicU64::default(),
            rejected_reloads: AtomicU64::default(),
            reload_micros: AtomicU64::default(),
            faults: AtomicU64::default(),
            lost_log_lines: Arc::default(),
            ignored: Mutex::default(),
            tls: TlsMetrics::default(),
            plugins: Mutex::default(),
            balancers: Mutex::default(),
        }
    }

    /// How many workers there are.
    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    /// The metrics of a route, the same for as long as there is one of this name.
    pub(crate) fn route(&self, name: &str) -> Arc<RouteMetrics> {
        let mut routes = lock(&self.routes);
        let metrics = routes.entry(name.to_owned());
        Arc::clone(metrics.or_insert_with(|| Arc::new(RouteMetrics::new(self.workers))))
    }

    /// The metrics of a route of connections or datagrams, the same for as long as there is one of this name.
    pub(crate) fn stream(&self, name: &str) -> Arc<StreamMetrics> {
        let mut streams = lock(&self.streams);
        let metrics = streams.entry(name.to_owned());
        Arc::clone(metrics.or_insert_with(|| Arc::new(StreamMetrics::new(self.workers))))
    }

    /// Forgets the routes that `keep` does not know.
    pub(crate) fn retain_routes(&self, keep: impl Fn(&str) -> bool) {
        lock(&self.streams).retain(|name, _| keep(name));
        lock(&self.routes).retain(|name, _| keep(name));
    }

    /// The metrics of a TokenPolicy, the same for as long as there is one of this name.
    pub(crate) fn limits(&self, name: &str) -> Arc<LimitMetrics> {
        let mut limits = lock(&self.limits);
        Arc::clone(limits.entry(name.to_owned()).or_default())
    }

    /// Forgets the TokenPolicies that `keep` does not know.
    pub(crate) fn retain_limits(&self, keep: impl Fn(&str) -> bool) {
        lock(&self.limits).retain(|name, _| keep(name));
    }

    /// The metrics of an AIService, the same for as long as there is one of this name.
    pub(crate) fn ai_service(&self, name: &str) -> Arc<AiMetrics> {
        let mut services = lock(&self.ai_services);
        Arc::clone(services.entry(name.to_owned()).or_default())
    }

    /// Forgets the AIServices that `keep` does not know.
    pub(crate) fn retain_ai_services(&self, keep: impl Fn(&str) -> bool) {
        lock(&self.ai_services).retain(|name, _| keep(name));
    }

    /// Sets the store whose state is shown, once.
    pub(crate) fn show_store(&self, store: RedisStore) {
        let _ = self.store.set(store);
    }

    /// Sets the memory of bodies that is shown, once.
    pub(crate) fn show_body_memory(&self, memory: BodyMemory) {
        let _ = self.body_memory.set(memory);
    }

    /// Sets where lines of the log are counted that are lost, once.
    pub(crate) fn show_log(&self, lost: Arc<AtomicU64>) {
        let _ = self.log.set(lost);
    }

    /// The metrics of requests that no route answered.
    pub(crate) fn unmatched(&self) -> Arc<RouteMetrics> {
        Arc::clone(&self.unmatched)
    }

    /// Notes how many connections a worker has open.
    pub(crate) fn set_connections(&self, worker: usize, open: usize) {
        if let Some(connections) = self.connections.get(worker) {
            connections.store(open as u64, Relaxed);
        }
    }

    /// Notes a reload, how long it took, and how many faults its sources have.
    pub(crate) fn reloaded(&self, took: Duration, changed: bool, faults: usize) {
        let counter = if faults == 0 { &self.reloads } else { &self.rejected_reloads };
        if changed || faults > 0 {
            counter.fetch_add(1, Relaxed);
        }
        self.reload_micros.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
        self.faults.store(faults as u64, Relaxed);
    }

    /// Where lines of the access log are counted that could not be written.
    pub(crate) fn lost_log_lines(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lost_log_lines)
    }

    /// Notes the closed gate of each object that one hides.
    pub(crate) fn set_ignored(&self, gates: impl Iterator<Item = Feature>) {
        let mut ignored: BTreeMap<_, _> = Feature::ALL.into_iter().map(|feature| (feature, 0)).collect();
        for gate in gates {
            *ignored.entry(gate).or_default() += 1;
        }
        *lock(&self.ignored) = ignored;
    }

    /// Tells of these endpoints from now on.
    pub(crate) fn set_balancers(&self, balancers: Vec<(BackendId, Balancer<Destination>)>) {
        *lock(&self.balancers) = balancers;
    }

    /// Everything in the OpenMetrics text format.
    ///
    /// # Errors
    /// When a value cannot be written.
    pub(crate) fn encode(self: &Arc<Self>) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(self)));
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

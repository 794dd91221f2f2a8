//! What the gateway counts, and how Prometheus reads it.
//!
//! The data path writes to handles that were resolved when its route was compiled. Every worker has a shard
//! of its own in each of them, so counting never makes two cores share a cache line. Labels are names of
//! configured objects and status classes, so their number is bounded by the configuration.

mod ai;
mod collector;
mod config;
mod endpoints;
mod family;
mod plugins;
mod preamble;
#[cfg(target_os = "linux")]
mod process;
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
    time::{Duration, SystemTime},
};

use nantian_ai::BodyMemory;
use nantian_lb::Balancer;
use nantian_ratelimit::redis::RedisStore;
use nantian_wasm::Plugin;
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::time::Instant;

pub(crate) use self::{
    ai::AiMetrics,
    preamble::PreambleFailure,
    rate_limits::{Keys, LimitMetrics, Limited, counted},
    route::{MirrorResult, RouteMetrics},
    stream::{StreamMetrics, StreamShard},
    tls::HandshakeFailure,
};
use self::{config::ConfigMetrics, preamble::PreambleMetrics, tls::TlsMetrics};
use crate::{ir::BackendId, sync::lock, upstream::Destination};

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
    /// When each worker was last seen, in milliseconds since `begun`.
    ticks: Box<[AtomicU64]>,
    begun: Instant,
    started: SystemTime,
    lost_log_lines: Arc<AtomicU64>,
    config: ConfigMetrics,
    tls: TlsMetrics,
    preambles: PreambleMetrics,
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
            ticks: (0..workers).map(|_| AtomicU64::default()).collect(),
            begun: Instant::now(),
            started: SystemTime::now(),
            lost_log_lines: Arc::default(),
            config: ConfigMetrics::default(),
            tls: TlsMetrics::default(),
            preambles: PreambleMetrics::default(),
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

    /// Notes that a worker is at work, and how many connections it has open.
    pub(crate) fn worker_ticked(&self, worker: usize, open: usize) {
        if let (Some(connections), Some(tick)) = (self.connections.get(worker), self.ticks.get(worker)) {
            connections.store(open as u64, Relaxed);
            tick.store(millis(self.begun.elapsed()), Relaxed);
        }
    }

    /// A worker that was not at work for longer than `limit`.
    pub(crate) fn overdue_worker(&self, limit: Duration) -> Option<usize> {
        let latest = self.begun.elapsed().checked_sub(limit).map(millis)?;
        self.ticks.iter().position(|tick| tick.load(Relaxed) < latest)
    }

    /// Where lines of the access log are counted that could not be written.
    pub(crate) fn lost_log_lines(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lost_log_lines)
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

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::sync::watch;

    use super::*;

    /// Name and type of each, as the older text format has them.
    const LISTED: &str = include_str!("../../../docs/metrics.md");

    #[tokio::test]
    async fn every_metric_is_listed_and_every_one_that_is_listed_is_told() {
        let metrics = Arc::new(Metrics::new(1));
        metrics.show_store(RedisStore::builder("redis://127.0.0.1".parse().unwrap()).build().0);
        metrics.show_body_memory(BodyMemory::new(1));
        metrics.show_log(Arc::default());
        let (is_up, leads) = (watch::Sender::new(true).subscribe(), watch::Sender::new(true).subscribe());
        metrics.show_cluster(is_up, leads);
        let text = metrics.encode().unwrap();
        let told: BTreeSet<(String, &str)> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
            .map(|(name, kind)| (name.to_owned() + if kind == "counter" { "_total" } else { "" }, kind))
            .collect();
        let rows = LISTED.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
        let listed = rows.map(|(name, rest)| (name.to_owned(), rest.split(' ').next().unwrap()));
        assert_eq!(told, listed.collect());
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_stands_still_is_found() {
        const LIMIT: Duration = Duration::from_secs(10);
        let metrics = Metrics::new(2);
        assert_eq!(metrics.overdue_worker(LIMIT), None, "they have just started");
        tokio::time::advance(LIMIT + Duration::from_millis(1)).await;
        metrics.worker_ticked(0, 0);
        assert_eq!(metrics.overdue_worker(LIMIT), Some(1));
        metrics.worker_ticked(1, 0);
        assert_eq!(metrics.overdue_worker(LIMIT), None);
    }
}

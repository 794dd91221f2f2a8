//! One worker: a thread, its runtime, and what belongs to it alone.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use nantian_ai::BodyMemory;
use tokio::{sync::Semaphore, time::Instant};

use super::LocalSnapshot;
use crate::{
    compile::Context,
    listen::{Connections, Networks, Shortages, Timeouts, Untaken},
    metrics::Metrics,
    observe::{AccessLog, Refusals},
    policy::Cutoff,
    snapshot::Snapshot,
    stream::{StreamProxy, UdpConfig},
    upstream::{Client, ClientConfig},
};

/// What every worker is told at its start.
#[derive(Debug, Clone)]
pub(crate) struct WorkerConfig {
    /// Limits on slow clients.
    pub(crate) timeouts: Timeouts,
    /// The client connections of all workers together. Default: one for each 64 KiB of memory, at most 65536.
    pub(crate) max_connections: usize,
    /// About how old a client connection becomes; `None` is no limit. Default: none.
    pub(crate) max_connection_age: Option<Duration>,
    /// The bytes of a request head. Default: 65536.
    pub(crate) max_request_head: usize,
    /// The bytes of a request body. Default: 134217728.
    pub(crate) max_request_body: u64,
    /// Memory for the bodies that are read whole, of all workers together. Default: 268435456.
    pub(crate) body_memory: BodyMemory,
    /// What the responses may hold together that clients do not take, of all workers: from half of it on
    /// these have less than the stall timeout. Default: 268435456.
    pub(crate) untaken_memory: u64,
    /// Whose `X-Forwarded-For` is believed. Default: nobody's.
    pub(crate) trusted_proxies: Networks,
    /// Whose connections begin with a PROXY protocol header. Default: nobody's.
    pub(crate) proxy_protocol_from: Networks,
    /// Connections to backends.
    pub(crate) client: ClientConfig,
    /// How long a worker that has read looks for more before it rests; `None` is not at all. Default: none.
    pub(crate) busy_poll: Option<Duration>,
    /// Limits of sessions of datagrams.
    pub(crate) udp: UdpConfig,
    /// The access log, if there is one.
    pub(crate) access_log: Option<AccessLog>,
    /// How long requests may take to finish after SIGTERM. Default: 30 s.
    pub(crate) drain_timeout: Duration,
}

/// How long a connection may be unused at least where there is little room for others.
const LEAST_IDLE: Duration = Duration::from_secs(1);

/// What all workers together have room for, and where there is not enough.
#[derive(Debug, Clone)]
pub(super) struct Capacity {
    connections: Arc<Semaphore>,
    sessions: Arc<Semaphore>,
    shortages: Arc<Shortages>,
    untaken: Untaken,
}

impl Capacity {
    pub(super) fn new(config: &WorkerConfig) -> Self {
        let room = |places: usize| Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        Self {
            connections: room(config.max_connections),
            sessions: room(config.udp.max_sessions),
            shortages: Arc::default(),
            untaken: Untaken::within(config.untaken_memory),
        }
    }
}

/// One worker.
pub(crate) struct Worker {
    pub(crate) config: WorkerConfig,
    pub(crate) connections: Connections,
    context: Context,
    /// Room for client connections, shared by all workers.
    pub(crate) room: Arc<Semaphore>,
    /// Room for sessions of datagrams, shared by all workers.
    pub(crate) udp_room: Arc<Semaphore>,
    /// What there is not enough of, shared by all workers.
    pub(crate) shortages: Arc<Shortages>,
    pub(crate) refusals: Refusals,
    metrics: Arc<Metrics>,
    proxy: StreamProxy,
    snapshot: RefCell<Rc<LocalSnapshot>>,
}

impl Worker {
    pub(super) fn new(
        index: usize,
        config: WorkerConfig,
        Capacity { connections: room, sessions: udp_room, shortages, untaken }: Capacity,
        metrics: Arc<Metrics>,
    ) -> Self {
        let context = Context {
            worker: index,
            client: Client::new(config.client.clone()),
            body_memory: config.body_memory.clone(),
            cutoff: Cutoff::default(),
            access_log: config.access_log.clone(),
            unmatched: metrics.unmatched(),
        };
        let snapshot = LocalSnapshot::new(Arc::default(), context.clone());
        let proxy = StreamProxy::new(index, &config.client, config.access_log.clone());
        let refusals = Refusals::new(metrics.unmatched(), index, config.access_log.clone());
        let connections = Connections::new(untaken, config.body_memory.clone());
        Self {
            config,
            connections,
            room,
            udp_room,
            shortages,
            refusals,
            metrics,
            proxy,
            snapshot: RefCell::new(Rc::new(snapshot)),
            context,
        }
    }

    /// Its number.
    pub(crate) fn index(&self) -> usize {
        self.context.worker
    }

    /// What the process counts.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The connections that are passed on as they are.
    pub(crate) fn proxy(&self) -> &StreamProxy {
        &self.proxy
    }

    /// The present snapshot: taken once for each request, without touching what another worker touches.
    pub(crate) fn snapshot(&self) -> Rc<LocalSnapshot> {
        Rc::clone(&self.snapshot.borrow())
    }

    /// Serves `snapshot` from the next request on.
    pub(super) fn install(&self, snapshot: Arc<Snapshot>) {
        let local = Rc::new(LocalSnapshot::new(snapshot, self.context.clone()));
        // The old one may be the last of its kind: it is dropped after the borrow.
        let old = self.snapshot.replace(local);
        drop(old);
        let snapshot = self.snapshot();
        self.connections.end_streams(|place| snapshot.carries(place));
    }

    /// What is done once in a while: slow clients are ended, idle connections closed.
    pub(super) fn tick(&self) {
        let (free, places) = (self.room.available_permits(), self.config.max_connections);
        let idle = idle_timeout(self.config.timeouts.idle, free, places);
        self.connections.tick(&Timeouts { idle, ..self.config.timeouts });
        self.metrics.worker_ticked(self.context.worker, self.connections.len());
    }

    /// Breaks off the answers of AIServices, which tells their clients.
    pub(super) fn cut_answers(&self) {
        self.context.cutoff.cut();
    }

    pub(super) fn sweep(&self, now: Instant) {
        self.context.client.sweep(now);
    }
}

/// How long a connection may be unused where so many places are free: as long as it is told, and less where
/// that is less than a sixteenth of them, so that who has said nothing for longest makes room for others.
fn idle_timeout(told: Duration, free: usize, places: usize) -> Duration {
    let enough = places / 16;
    if free >= enough {
        return told;
    }
    let whole = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    (told / whole(enough) * whole(free)).max(told.min(LEAST_IDLE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_may_be_unused_for_less_where_there_is_less_room() {
        let seconds = |free, places| idle_timeout(Duration::from_secs(75), free, places).as_secs();
        assert_eq!([1600, 100, 99, 50, 2, 1, 0].map(|free| seconds(free, 1600)), [75, 75, 74, 37, 1, 1, 1]);
        assert_eq!(seconds(0, 15), 75, "there is no sixteenth");
        let short = Duration::from_millis(200);
        assert_eq!(idle_timeout(short, 0, 1600), short);
    }
}

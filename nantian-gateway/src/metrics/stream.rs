//! Counters of one route of connections or datagrams.

use std::{
    fmt,
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
};

use prometheus_client::encoding::DescriptorEncoder;

use super::{
    Metrics,
    family::{counters, gauges},
};
use crate::sync::lock;

/// Counters of one route, one shard a worker.
#[derive(Debug)]
pub(crate) struct StreamMetrics {
    shards: Box<[StreamShard]>,
}

/// One worker's part; alone on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct StreamShard {
    open: AtomicI64,
    carried: AtomicU64,
    failed: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    dropped: AtomicU64,
}

/// The sum over all workers.
#[derive(Debug, Default)]
struct Totals {
    open: i64,
    carried: u64,
    failed: u64,
    received: u64,
    sent: u64,
    dropped: u64,
}

// === impl StreamMetrics ===

impl StreamMetrics {
    pub(super) fn new(workers: usize) -> Self {
        Self { shards: (0..workers.max(1)).map(|_| StreamShard::default()).collect() }
    }

    /// The shard of a worker.
    pub(crate) fn shard(&self, worker: usize) -> Option<&StreamShard> {
        self.shards.get(worker)
    }

    fn totals(&self) -> Totals {
        self.shards.iter().fold(Totals::default(), |sum, shard| Totals {
            open: sum.open + shard.open.load(Relaxed),
            carried: sum.carried + shard.carried.load(Relaxed),
            failed: sum.failed + shard.failed.load(Relaxed),
            received: sum.received + shard.received.load(Relaxed),
            sent: sum.sent + shard.sent.load(Relaxed),
            dropped: sum.dropped + shard.dropped.load(Relaxed),
        })
    }
}

// === impl StreamShard ===

impl StreamShard {
    /// A connection, or a session of datagrams, has begun.
    pub(crate) fn begin(&self) {
        self.open.fetch_add(1, Relaxed);
    }

    /// It is over; whether it had a backend.
    pub(crate) fn end(&self, was_carried: bool) {
        self.open.fetch_sub(1, Relaxed);
        let counter = if was_carried { &self.carried } else { &self.failed };
        counter.fetch_add(1, Relaxed);
    }

    /// Bytes came from the client.
    pub(crate) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Relaxed);
    }

    /// Bytes came from the backend.
    pub(crate) fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Relaxed);
    }

    /// A datagram was left out.
    pub(crate) fn dropped(&self) {
        self.dropped.fetch_add(1, Relaxed);
    }
}

// === impl Metrics ===

impl Metrics {
    pub(super) fn encode_streams(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let routes: Vec<(String, Totals)> = {
            let streams = lock(&self.streams);
            streams.iter().map(|(name, metrics)| (name.clone(), metrics.totals())).collect()
        };
        let ended = routes.iter().flat_map(|(route, totals)| {
            let results = [("carried", totals.carried), ("failed", totals.failed)];
            results.map(|(result, count)| ([("route", route.as_str()), ("result", result)], count))
        });
        counters(
            encoder,
            "nantian_stream_connections",
            "Connections of a TLSRoute or TCPRoute, and sessions of a UDPRoute, that have ended: carried, or failed for want \
             of a backend",
            ended,
        )?;
        gauges(
            encoder,
            "nantian_stream_connections_open",
            "Connections of a TLSRoute or TCPRoute, and sessions of a UDPRoute, that have not ended",
            routes.iter().map(|(route, totals)| ([("route", route.as_str())], totals.open)),
        )?;
        let bytes = routes.iter().flat_map(|(route, totals)| {
            let directions = [("in", totals.received), ("out", totals.sent)];
            directions
                .map(|(direction, count)| ([("route", route.as_str()), ("direction", direction)], count))
        });
        counters(
            encoder,
            "nantian_stream_bytes",
            "Bytes that were passed on from clients (in) and from backends (out)",
            bytes,
        )?;
        counters(
            encoder,
            "nantian_stream_dropped_datagrams",
            "Datagrams that were left out: no backend, no room for a session, or none on the way",
            routes.iter().map(|(route, totals)| ([("route", route.as_str())], totals.dropped)),
        )
    }
}

//! Counters of one route.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use http::StatusCode;

use super::family::labels;

/// Upper bounds of the duration buckets.
pub(super) const BOUNDS: [Duration; 18] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    // Answers of models.
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(120),
    Duration::from_secs(300),
];

/// The status classes, by their first digit less one, and last what ended without a status because its client
/// left.
pub(super) const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "aborted"];

labels! {
    /// What became of a copy of a request for a mirror.
    pub(crate) enum MirrorResult {
        /// The mirror has answered it.
        Answered = "answered",
        /// The mirror cannot be reached or does not answer in time.
        Failed = "failed",
        /// It is too long or one too many.
        LeftOut = "left_out",
    }
}

/// Counters of one route, one shard a worker.
#[derive(Debug)]
pub(crate) struct RouteMetrics {
    shards: Box<[Shard]>,
    mirrors: AtomicBool,
}

/// One worker's part; alone on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Shard {
    classes: [AtomicU64; CLASSES.len()],
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
    in_flight: AtomicI64,
    retries: AtomicU64,
    mirrored: [AtomicU64; MirrorResult::LABELS.len()],
}

/// The sum over all workers.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Totals {
    pub(super) classes: [u64; CLASSES.len()],
    pub(super) buckets: [u64; BOUNDS.len() + 1],
    pub(super) seconds: f64,
    pub(super) in_flight: i64,
    pub(super) retries: u64,
    /// None where no rule has had a mirror.
    pub(super) mirrored: Option<[u64; MirrorResult::LABELS.len()]>,
}

impl RouteMetrics {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            shards: (0..workers.max(1)).map(|_| Shard::default()).collect(),
            mirrors: AtomicBool::new(false),
        }
    }

    /// A rule of the route has a mirror: copies are counted from none on.
    pub(crate) fn has_mirror(&self) {
        self.mirrors.store(true, Relaxed);
    }

    /// The shard of a worker.
    pub(crate) fn shard(&self, worker: usize) -> Option<&Shard> {
        self.shards.get(worker)
    }

    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        let mut mirrored = [0; MirrorResult::LABELS.len()];
        for shard in &self.shards {
            add(&mut totals.classes, &shard.classes);
            add(&mut totals.buckets, &shard.buckets);
            totals.seconds += Duration::from_micros(shard.micros.load(Relaxed)).as_secs_f64();
            totals.in_flight += shard.in_flight.load(Relaxed);
            totals.retries += shard.retries.load(Relaxed);
            add(&mut mirrored, &shard.mirrored);
        }
        totals.mirrored = self.mirrors.load(Relaxed).then_some(mirrored);
        totals
    }
}

fn add(totals: &mut [u64], counters: &[AtomicU64]) {
    for (total, counter) in totals.iter_mut().zip(counters) {
        *total += counter.load(Relaxed);
    }
}

impl Shard {
    /// A request has begun.
    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    /// A request is sent once more.
    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    /// What became of a copy of a request for a mirror.
    pub(crate) fn mirrored(&self, result: MirrorResult) {
        if let Some(counter) = self.mirrored.get(result as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// A request is over; without a status if its client left before there was a response.
    pub(crate) fn end(&self, status: Option<StatusCode>, took: Duration) {
        self.in_flight.fetch_sub(1, Relaxed);
        // A class that nobody knows is taken for that of the server's errors (RFC 9110, section 15).
        let of_status = |status: StatusCode| usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        let class = status.map_or(CLASSES.len() - 1, of_status);
        if let Some(counter) = self.classes.get(class) {
            counter.fetch_add(1, Relaxed);
        }
        let bucket = BOUNDS.iter().position(|bound| took <= *bound).unwrap_or(BOUNDS.len());
        if let Some(counter) = self.buckets.get(bucket) {
            counter.fetch_add(1, Relaxed);
        }
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_add_up() {
        let metrics = RouteMetrics::new(2);
        for worker in 0..2 {
            let shard = metrics.shard(worker).unwrap();
            shard.begin();
            shard.begin();
            shard.end(Some(StatusCode::OK), Duration::from_millis(3));
        }
        metrics.shard(0).unwrap().end(None, Duration::ZERO);
        let totals = metrics.totals();
        assert_eq!(totals.classes, [0, 2, 0, 0, 0, 1]);
        assert_eq!(totals.buckets.iter().sum::<u64>(), 3);
        assert_eq!(totals.buckets[3], 2);
        assert_eq!(totals.in_flight, 1);
        assert!((totals.seconds - 0.006).abs() < 1e-9);
    }

    #[test]
    fn each_request_is_counted_also_those_whose_client_left_and_those_of_unknown_statuses() {
        let metrics = RouteMetrics::new(1);
        let shard = metrics.shard(0).unwrap();
        for status in [Some(200), Some(799), None] {
            shard.begin();
            shard.end(status.map(|status| StatusCode::from_u16(status).unwrap()), Duration::from_secs(7));
        }
        let totals = metrics.totals();
        let mut counted: Vec<_> = CLASSES.into_iter().zip(totals.classes).collect();
        counted.retain(|(_, count)| *count > 0);
        assert_eq!(counted, [("2xx", 1), ("5xx", 1), ("aborted", 1)]);
        assert_eq!(totals.buckets.iter().sum::<u64>(), 3, "and how long each client waited");
        assert_eq!(totals.in_flight, 0);
    }
}

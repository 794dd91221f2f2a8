//! What is known of each call of an AIService, told to collectors: OTLP over HTTP, as JSON.
//!
//! The data path only counts a call and puts its record into a bounded queue, or counts that it was full.
//! Everything else happens on a thread of its own, one task for each collector of each AIService, so that a
//! collector that hangs holds up neither requests nor other collectors. Contents of requests and answers are
//! told only where the operator wants it, and blacked out before.

mod content;
mod delivery;
mod exporter;
mod measures;
mod otlp;
mod record;

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::mpsc;

pub(crate) use self::otlp::outcome_name;
pub(crate) use self::record::{CallRecord, ServiceInfo, TraceParent};
use self::{
    content::Redaction,
    delivery::Delivery,
    exporter::{Exporter, Losses},
    measures::SharedMeasures,
};
use crate::{
    ir,
    pattern::{InvalidPattern, Patterns},
    runtime::CallThread,
    upstream::{ClientConfig, Destination},
};

/// How many records wait for one collector at most.
const QUEUE: usize = 2048;

/// How many with their contents.
const FULL_QUEUE: usize = 256;

/// Starts the tasks that tell collectors.
#[derive(Debug)]
pub(crate) struct Telemetry {
    client: ClientConfig,
    /// `service.instance.id` of this process.
    instance: Arc<str>,
    /// Started with the first collector.
    thread: Option<CallThread>,
    /// Those that are being told, by the AIService whose calls they are told.
    exports: BTreeMap<String, Vec<Weak<Export>>>,
    /// Held by every task, so that its end is seen.
    running: mpsc::Sender<()>,
}

/// The collector of an AIService.
#[derive(Debug)]
pub(crate) struct Export {
    service: Arc<ServiceInfo>,
    collector: ir::Collector,
    queue: mpsc::Sender<CallRecord>,
    /// `None` for a collector that takes no metrics.
    measures: Option<SharedMeasures>,
    counts: Arc<ExportCounts>,
}

/// What became of the records for the collectors of one AIService.
#[derive(Debug, Default)]
pub(crate) struct ExportCounts {
    sent: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

/// The end of all tasks.
pub(crate) struct ExportersDone(mpsc::Receiver<()>);

/// A collector that cannot be told anything.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum InvalidCollector {
    /// Its endpoint is no URL of a server.
    #[error("`{endpoint}` is not the URL of a collector")]
    Endpoint {
        /// The endpoint as given.
        endpoint: String,
    },
    /// What is to be blacked out is no regular expression.
    #[error(transparent)]
    Redaction(#[from] InvalidPattern),
}

/// Whether a collector can be told anything at this endpoint.
///
/// # Errors
/// [`InvalidCollector::Endpoint`] if it is no `http` or `https` URL.
pub(crate) fn check(endpoint: &str) -> Result<(), InvalidCollector> {
    CollectorEndpoint::of(endpoint).map(drop)
}

/// Where a collector takes spans or metrics.
#[derive(Debug, Clone)]
struct CollectorEndpoint {
    destination: Destination,
    authority: String,
    /// The path that the signals' own are below.
    base: String,
}

// === impl Telemetry ===

impl Telemetry {
    /// No tasks yet; the client of their thread is made of `client`.
    pub(crate) fn new(client: ClientConfig) -> (Self, ExportersDone) {
        let (running, ended) = mpsc::channel(1);
        let instance = format!("{:032x}", fastrand::u128(..)).into();
        let telemetry = Self { client, instance, thread: None, exports: BTreeMap::new(), running };
        (telemetry, ExportersDone(ended))
    }

    /// Starts to tell a collector, or goes on if it is being told the same; that ends when the last who holds
    /// the handle is gone.
    ///
    /// # Errors
    /// [`InvalidCollector`] if its endpoint is no URL, or a pattern no regular expression; a thread that
    /// cannot be had is logged, and records are dropped.
    pub(crate) fn export(
        &mut self,
        service: &Arc<ServiceInfo>,
        collector: &ir::Collector,
        counts: &Arc<ExportCounts>,
        patterns: &Patterns,
    ) -> Result<Arc<Export>, InvalidCollector> {
        let known = self.exports.get(&service.name).into_iter().flatten().filter_map(Weak::upgrade);
        let known: Vec<_> = known.filter(|known| known.service == *service).collect();
        if let Some(same) = known.iter().find(|known| known.is_of(collector, counts)) {
            return Ok(Arc::clone(same));
        }
        let place = CollectorEndpoint::of(&collector.endpoint)?;
        let redaction =
            collector.redact.as_ref().map(|redact| Redaction::new(redact, patterns)).transpose()?;
        let (queue, inbox) = mpsc::channel(if redaction.is_some() { FULL_QUEUE } else { QUEUE });
        let shared = known.iter().find_map(|known| known.measures_of(collector));
        let measures =
            shared.or_else(|| (collector.kind == ir::CollectorKind::Otlp).then(SharedMeasures::default));
        let export = Arc::new(Export {
            service: Arc::clone(service),
            collector: collector.clone(),
            queue,
            measures: measures.clone(),
            counts: Arc::clone(counts),
        });
        let exporter = Exporter {
            measures,
            delivery: Delivery {
                place,
                kind: collector.kind,
                authorization: collector.authorization.clone(),
            },
            collector: collector.clone(),
            instance: Arc::clone(&self.instance),
            service: Arc::clone(service),
            counts: Arc::clone(counts),
            losses: Losses::default(),
            redaction,
        };
        let running = self.running.clone();
        match self.thread().cloned() {
            Ok(thread) => {
                // The thread lives as long as there is something to tell.
                let held = (thread.clone(), running);
                thread.run(move |client| async move {
                    exporter.run(client, inbox).await;
                    drop(held);
                });
                self.exports.entry(service.name.clone()).or_default().push(Arc::downgrade(&export));
            }
            Err(error) => tracing::error!(%error, "collectors cannot be told anything"),
        }
        Ok(export)
    }

    /// Forgets the collectors that are told nothing more.
    pub(crate) fn sweep(&mut self) {
        self.exports.retain(|_, exports| {
            exports.retain(|export| export.strong_count() > 0);
            !exports.is_empty()
        });
    }

    fn thread(&mut self) -> io::Result<&CallThread> {
        let thread = match self.thread.take() {
            Some(thread) => thread,
            None => CallThread::start("telemetry", self.client.clone())?,
        };
        Ok(self.thread.insert(thread))
    }
}

// === impl Export ===

impl Export {
    /// Whether the collector is told what was asked and answered.
    pub(crate) fn tells_contents(&self) -> bool {
        self.collector.redact.is_some()
    }

    /// Whether `collector` is told the same, and counted in `counts`.
    fn is_of(&self, collector: &ir::Collector, counts: &Arc<ExportCounts>) -> bool {
        self.collector == *collector && Arc::ptr_eq(&self.counts, counts)
    }

    /// The measures, if `collector` would take its own for them.
    fn measures_of(&self, collector: &ir::Collector) -> Option<SharedMeasures> {
        let of = &self.collector;
        let is_same = of.endpoint == collector.endpoint && of.service_name == collector.service_name;
        self.measures.clone().filter(|_| is_same && collector.kind == ir::CollectorKind::Otlp)
    }

    /// Counts a call, and puts its record into the queue if its trace is recorded and one of those that are
    /// told; without a place there it is dropped.
    pub(crate) fn tell(&self, record: CallRecord) {
        if let Some(measures) = &self.measures {
            measures.add(&record);
        }
        let is_told = self.collector.sample_rate.is_none_or(|rate| is_sampled(record.trace, rate));
        if !is_told || record.parent.is_some_and(|parent| !parent.sampled) {
            return;
        }
        if self.queue.try_send(record).is_err() {
            self.counts.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// Whether a trace is one of the share that is told, as OpenTelemetry's `TraceIdRatioBased` decides: by the
/// lower half of its id.
fn is_sampled(trace: u128, rate: f64) -> bool {
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is what counts")]
    let drawn = trace as u64;
    #[expect(clippy::cast_precision_loss, reason = "no rate is as fine")]
    let share = drawn as f64 / u64::MAX as f64;
    rate >= 1.0 || share < rate
}

// === impl ExportCounts ===

impl ExportCounts {
    /// How many records a collector has taken, how many it has not, and how many found no place in the queue.
    pub(crate) fn get(&self) -> [(&'static str, u64); 3] {
        [
            ("sent", self.sent.load(Relaxed)),
            ("failed", self.failed.load(Relaxed)),
            ("dropped", self.dropped.load(Relaxed)),
        ]
    }
}

// === impl ExportersDone ===

impl ExportersDone {
    /// Waits until all tasks have told what they had, once nothing more can come.
    pub(crate) async fn wait(&mut self) {
        // Nothing is ever sent.
        let _ = self.0.recv().await;
    }
}

// === impl CollectorEndpoint ===

impl CollectorEndpoint {
    fn of(endpoint: &str) -> Result<Self, InvalidCollector> {
        Self::parse(endpoint).ok_or_else(|| InvalidCollector::Endpoint { endpoint: endpoint.to_owned() })
    }

    fn parse(endpoint: &str) -> Option<Self> {
        let uri: http::Uri = endpoint.parse().ok()?;
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        let destination = Destination::of_url(authority, tls)?;
        let base = uri.path().trim_end_matches('/').to_owned();
        Some(Self { destination, authority: authority.to_string(), base })
    }

    /// The path of a signal: `traces` or `metrics`.
    fn path(&self, signal: &str) -> String {
        format!("{}/v1/{signal}", self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_told_by_its_id_whoever_asks() {
        let trace = |lower: u64| (u128::from(fastrand::u64(..)) << 64) | u128::from(lower);
        for (lower, rate, told) in [
            (0, 0.0, false),
            (0, 0.001, true),
            (u64::MAX / 4, 0.5, true),
            (u64::MAX / 4 * 3, 0.5, false),
            (u64::MAX / 4 * 3, 0.8, true),
            (u64::MAX, 0.999, false),
            (u64::MAX, 1.0, true),
        ] {
            assert_eq!(is_sampled(trace(lower), rate), told, "{lower} {rate}");
        }
    }

    #[test]
    fn signals_are_below_the_path_of_the_endpoint() {
        for (endpoint, authority, path) in [
            ("http://collector:4318", "collector:4318", "/v1/traces"),
            ("http://collector:4318/", "collector:4318", "/v1/traces"),
            (
                "https://cloud.langfuse.com/api/public/otel",
                "cloud.langfuse.com",
                "/api/public/otel/v1/traces",
            ),
        ] {
            let place = CollectorEndpoint::of(endpoint).unwrap();
            assert_eq!((place.authority.as_str(), place.path("traces").as_str()), (authority, path));
            assert_eq!(place.destination.security.tls().is_some(), endpoint.starts_with("https"));
        }
        for endpoint in ["", "collector:4318", "ftp://collector", "/v1/traces"] {
            assert!(CollectorEndpoint::of(endpoint).is_err(), "{endpoint}");
        }
    }
}

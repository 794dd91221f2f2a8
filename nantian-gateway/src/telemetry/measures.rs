//! Histograms of calls, as OTLP metrics: cumulative since the exporter began.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::SystemTime,
};

use nantian_ai::usage::Outcome;
use serde_json::{Value, json};

use super::{
    CallRecord, ServiceInfo,
    otlp::{count, nanos, resource, scope, text},
};
use crate::{ir, sync::lock};

/// Upper bounds for durations, in seconds; those of the semantic conventions.
const SECONDS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

/// Upper bounds for tokens; those of the semantic conventions.
const TOKENS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// Cumulative: each point holds all since the start.
const CUMULATIVE: u8 = 2;

/// The measures of one AIService, counted by the data path, whether a call is traced or not, and told by its
/// exporter.
#[derive(Debug, Clone)]
pub(super) struct SharedMeasures(Arc<Mutex<Measures>>);

/// What is known of the calls of one AIService.
#[derive(Debug, Clone)]
pub(super) struct Measures {
    since: SystemTime,
    series: BTreeMap<Series, Histogram>,
}

/// What one histogram is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    metric: Metric,
    operation: &'static str,
    /// `error.type`, or `gen_ai.token.type`.
    detail: Option<(&'static str, &'static str)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Metric {
    Duration,
    FirstChunk,
    BetweenChunks,
    Tokens,
}

#[derive(Debug, Clone, Default)]
struct Histogram {
    counts: [u64; SECONDS.len() + 1],
    sum: f64,
}

// === impl SharedMeasures ===

impl SharedMeasures {
    /// Counts a call.
    pub(super) fn add(&self, record: &CallRecord) {
        self.lock().add(record);
    }

    /// What has been counted until now.
    pub(super) fn so_far(&self) -> Measures {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Measures> {
        lock(&self.0)
    }
}

impl Default for SharedMeasures {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Measures::new(SystemTime::now()))))
    }
}

// === impl Measures ===

impl Measures {
    fn new(since: SystemTime) -> Self {
        Self { since, series: BTreeMap::new() }
    }

    fn add(&mut self, record: &CallRecord) {
        let (call, usage) = (&record.report.call, &record.report.usage);
        let error = record.error().map(|error| ("error.type", error));
        let operation = record.operation_name();
        let mut observe = |metric, detail, value| {
            self.series.entry(Series { metric, operation, detail }).or_default().observe(metric, value);
        };
        observe(Metric::Duration, error, call.duration.as_secs_f64());
        if let Some(first) = call.first_token {
            observe(Metric::FirstChunk, None, first.as_secs_f64());
        }
        if let Some(between) = call.between_tokens {
            observe(Metric::BetweenChunks, None, between.as_secs_f64());
        }
        if record.report.outcome != Outcome::NotServed {
            for (kind, tokens) in [("input", usage.input), ("output", usage.output)] {
                // Beyond 2^53 tokens nobody minds the last digit.
                #[expect(clippy::cast_precision_loss, reason = "no call has that many tokens")]
                observe(Metric::Tokens, Some(("gen_ai.token.type", kind)), tokens as f64);
            }
        }
    }

    /// The body of a request to `/v1/metrics`; `None` if there is nothing to tell.
    pub(super) fn to_otlp(
        &self,
        service: &ServiceInfo,
        collector: &ir::Collector,
        now: SystemTime,
    ) -> Option<Value> {
        let of = |metric: Metric| {
            let points = self.series.iter().filter(|(series, _)| series.metric == metric);
            let points: Vec<Value> =
                points.map(|(series, histogram)| self.point(series, histogram, service, now)).collect();
            (!points.is_empty()).then(|| {
                let (name, unit) = metric.name();
                let histogram = json!({"aggregationTemporality": CUMULATIVE, "dataPoints": points});
                json!({"name": name, "unit": unit, "histogram": histogram})
            })
        };
        let metrics = [Metric::Duration, Metric::FirstChunk, Metric::BetweenChunks, Metric::Tokens];
        let metrics: Vec<Value> = metrics.into_iter().filter_map(of).collect();
        (!metrics.is_empty()).then(|| {
            json!({"resourceMetrics": [{
                "resource": resource(collector),
                "scopeMetrics": [{"scope": scope(), "metrics": metrics}],
            }]})
        })
    }

    fn point(&self, series: &Series, histogram: &Histogram, service: &ServiceInfo, now: SystemTime) -> Value {
        let mut attributes = vec![
            text("gen_ai.operation.name", series.operation),
            text("gen_ai.provider.name", &service.provider),
            text("gen_ai.request.model", &service.model),
            text("server.address", &service.host),
            count("server.port", service.port.into()),
            text("nantian.ai_service", &service.name),
        ];
        attributes.extend(series.detail.map(|(key, value)| text(key, value)));
        let counts: Vec<String> = histogram.counts.iter().map(u64::to_string).collect();
        json!({
            "attributes": attributes,
            "startTimeUnixNano": nanos(self.since),
            "timeUnixNano": nanos(now),
            "count": histogram.counts.iter().sum::<u64>().to_string(),
            "sum": histogram.sum,
            "bucketCounts": counts,
            "explicitBounds": series.metric.bounds(),
        })
    }
}

// === impl Metric ===

impl Metric {
    fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::Duration => ("gen_ai.client.operation.duration", "s"),
            Self::FirstChunk => ("gen_ai.client.operation.time_to_first_chunk", "s"),
            Self::BetweenChunks => ("gen_ai.client.operation.time_per_output_chunk", "s"),
            Self::Tokens => ("gen_ai.client.token.usage", "{token}"),
        }
    }

    fn bounds(self) -> [f64; SECONDS.len()] {
        if self == Self::Tokens { TOKENS } else { SECONDS }
    }
}

// === impl Histogram ===

impl Histogram {
    fn observe(&mut self, metric: Metric, value: f64) {
        let bounds = metric.bounds();
        let at = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
        }
        self.sum += value;
    }
}

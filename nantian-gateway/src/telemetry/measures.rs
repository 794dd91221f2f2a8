//! Histograms of calls, as OTLP metrics: cumulative since the collector was first told.

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

/// The most models that are told apart by what providers say has answered.
const MODELS: usize = 32;

/// Upper bounds for durations, in seconds; these and the others are those of the semantic conventions.
const SECONDS: &[f64] =
    &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

/// Upper bounds for the time to the first token, in seconds.
const FIRST_TOKEN: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Upper bounds for the time of each token, in seconds.
const EACH_TOKEN: &[f64] = &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];

/// Upper bounds for tokens.
const TOKENS: &[f64] = &[
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
/// exporters.
#[derive(Debug, Clone)]
pub(super) struct SharedMeasures(Arc<Mutex<Measures>>);

/// What is known of the calls of one AIService.
#[derive(Debug, Clone)]
pub(super) struct Measures {
    since: SystemTime,
    /// By the model that has answered, as its provider says; empty for none.
    models: BTreeMap<String, BTreeMap<Series, Histogram>>,
}

/// What one histogram is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    metric: Metric,
    operation: &'static str,
    /// `error.type`, or `gen_ai.token.type`.
    detail: Option<(&'static str, &'static str)>,
}

/// Towards the provider, and below towards the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Metric {
    Duration,
    FirstChunk,
    BetweenChunks,
    Tokens,
    RequestDuration,
    FirstToken,
    EachToken,
}

#[derive(Debug, Clone, Default)]
struct Histogram {
    /// Of each bucket; the last is for what exceeds all bounds.
    counts: Vec<u64>,
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
        Self { since, models: BTreeMap::new() }
    }

    fn add(&mut self, record: &CallRecord) {
        let (call, usage) = (&record.report.call, &record.report.usage);
        let error = record.error().map(|error| ("error.type", error));
        let operation = record.operation_name();
        let model = call.model.as_deref().unwrap_or_default();
        let is_apart = self.models.len() < MODELS || self.models.contains_key(model);
        let series = self.models.entry(if is_apart { model.to_owned() } else { String::new() }).or_default();
        let mut observe = |metric, detail, value| {
            series.entry(Series { metric, operation, detail }).or_default().observe(metric, value);
        };
        observe(Metric::Duration, error, call.duration.as_secs_f64());
        if let Some(first) = call.first_token {
            observe(Metric::FirstChunk, None, first.as_secs_f64());
        }
        if let Some(between) = call.between_tokens {
            observe(Metric::BetweenChunks, None, between.as_secs_f64());
        }
        // Estimates are told by spans alone.
        if record.report.outcome != Outcome::NotServed && !usage.estimated {
            for (kind, tokens) in [("input", usage.input), ("output", usage.output)] {
                // Beyond 2^53 tokens nobody minds the last digit.
                #[expect(clippy::cast_precision_loss, reason = "no call has that many tokens")]
                observe(Metric::Tokens, Some(("gen_ai.token.type", kind)), tokens as f64);
            }
        }
        // The client hears the AIService that was asked last, as a rule.
        if record.failed_over {
            return;
        }
        let until_end = record.waited.saturating_add(call.duration);
        observe(Metric::RequestDuration, error, until_end.as_secs_f64());
        if error.is_none() {
            let first = call.first_token.map(|first| record.waited.saturating_add(first));
            first.into_iter().for_each(|first| observe(Metric::FirstToken, None, first.as_secs_f64()));
            let each = record.time_per_token();
            each.into_iter().for_each(|each| observe(Metric::EachToken, None, each.as_secs_f64()));
        }
    }

    /// The body of a request to `/v1/metrics`; `None` if there is nothing to tell.
    pub(super) fn to_otlp(
        &self,
        service: &ServiceInfo,
        (collector, instance): (&ir::Collector, &str),
        now: SystemTime,
    ) -> Option<Value> {
        let of = |metric: Metric| {
            let all = self.models.iter().flat_map(|(model, series)| series.iter().map(move |it| (model, it)));
            let points = all.filter(|(_, (series, _))| series.metric == metric);
            let points: Vec<Value> = points
                .map(|(model, (series, histogram))| {
                    let attributes = attributes(service, model, series);
                    self.point(metric, histogram, attributes, now)
                })
                .collect();
            (!points.is_empty()).then(|| {
                let (name, unit) = metric.name();
                let histogram = json!({"aggregationTemporality": CUMULATIVE, "dataPoints": points});
                json!({"name": name, "unit": unit, "histogram": histogram})
            })
        };
        let metrics: Vec<Value> = Metric::ALL.into_iter().filter_map(of).collect();
        (!metrics.is_empty()).then(|| {
            json!({"resourceMetrics": [{
                "resource": resource(collector, instance),
                "scopeMetrics": [{"scope": scope(), "metrics": metrics}],
            }]})
        })
    }

    fn point(&self, metric: Metric, histogram: &Histogram, attributes: Vec<Value>, now: SystemTime) -> Value {
        let counts: Vec<String> = histogram.counts.iter().map(u64::to_string).collect();
        json!({
            "attributes": attributes,
            "startTimeUnixNano": nanos(self.since),
            "timeUnixNano": nanos(now),
            "count": histogram.counts.iter().sum::<u64>().to_string(),
            "sum": histogram.sum,
            "bucketCounts": counts,
            "explicitBounds": metric.bounds(),
        })
    }
}

fn attributes(service: &ServiceInfo, model: &str, series: &Series) -> Vec<Value> {
    let mut attributes = vec![
        text("gen_ai.operation.name", series.operation),
        text("gen_ai.provider.name", &service.provider),
        text("gen_ai.request.model", &service.model),
        text("server.address", &service.host),
        count("server.port", service.port.into()),
        text("nantian.ai_service", &service.name),
    ];
    if !model.is_empty() {
        attributes.push(text("gen_ai.response.model", model));
    }
    attributes.extend(series.detail.map(|(key, value)| text(key, value)));
    attributes
}

// === impl Metric ===

impl Metric {
    const ALL: [Self; 7] = [
        Self::Duration,
        Self::FirstChunk,
        Self::BetweenChunks,
        Self::Tokens,
        Self::RequestDuration,
        Self::FirstToken,
        Self::EachToken,
    ];

    fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::Duration => ("gen_ai.client.operation.duration", "s"),
            Self::FirstChunk => ("gen_ai.client.operation.time_to_first_chunk", "s"),
            Self::BetweenChunks => ("gen_ai.client.operation.time_per_output_chunk", "s"),
            Self::Tokens => ("gen_ai.client.token.usage", "{token}"),
            Self::RequestDuration => ("gen_ai.server.request.duration", "s"),
            Self::FirstToken => ("gen_ai.server.time_to_first_token", "s"),
            Self::EachToken => ("gen_ai.server.time_per_output_token", "s"),
        }
    }

    fn bounds(self) -> &'static [f64] {
        match self {
            Self::Duration | Self::FirstChunk | Self::BetweenChunks | Self::RequestDuration => SECONDS,
            Self::Tokens => TOKENS,
            Self::FirstToken => FIRST_TOKEN,
            Self::EachToken => EACH_TOKEN,
        }
    }
}

// === impl Histogram ===

impl Histogram {
    fn observe(&mut self, metric: Metric, value: f64) {
        let bounds = metric.bounds();
        self.counts.resize(bounds.len() + 1, 0);
        let at = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
        }
        self.sum += value;
    }
}

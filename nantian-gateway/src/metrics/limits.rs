//! The bridge to Prometheus for limits and the store that they are in.

use std::{
    fmt,
    sync::{Arc, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::{LimitMetrics, Metrics};

impl Metrics {
    pub(super) fn encode_limits(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let limits: Vec<(String, Arc<LimitMetrics>)> = {
            let limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
            limits.iter().map(|(name, metrics)| (name.clone(), Arc::clone(metrics))).collect()
        };
        let mut decisions = encoder.encode_descriptor(
            "nantian_rate_limit_decisions",
            "Requests that a TokenPolicy was asked about, by what it decided",
            None,
            MetricType::Counter,
        )?;
        for (policy, metrics) in &limits {
            for (decision, count) in metrics.decisions() {
                decisions
                    .encode_family(&[("policy", policy.as_str()), ("decision", decision)])?
                    .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        let mut tokens = encoder.encode_descriptor(
            "nantian_rate_limit_tokens",
            "LLM tokens of requests that are over: reserved before, used after, the difference, and debt that nobody pays",
            None,
            MetricType::Counter,
        )?;
        for (policy, metrics) in &limits {
            for (kind, count) in metrics.tokens() {
                tokens
                    .encode_family(&[("policy", policy.as_str()), ("kind", kind)])?
                    .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        let mut keys = encoder.encode_descriptor(
            "nantian_rate_limit_live_keys",
            "Keys whose buckets this process knows not to be full",
            None,
            MetricType::Gauge,
        )?;
        for (policy, metrics) in &limits {
            keys.encode_family(&[("policy", policy.as_str())])?.encode_gauge(&metrics.keys())?;
        }
        self.encode_store(encoder)
    }

    fn encode_store(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(store) = self.store.get() else { return Ok(()) };
        let status = store.status();
        super::collector::gauge(
            encoder,
            "nantian_rate_limit_store_up",
            "Whether the store of the limits is asked; 0 means that each replica goes on with its share",
            status.is_reachable.into(),
        )?;
        super::collector::gauge(
            encoder,
            "nantian_rate_limit_store_replicas",
            "Processes that share the limits",
            status.replicas.into(),
        )?;
        let mut decisions = encoder.encode_descriptor(
            "nantian_rate_limit_store_decisions",
            "Decisions by how the store took part: it answered, it did not in time, it was away, its last denial still held",
            None,
            MetricType::Counter,
        )?;
        for (how, count) in [
            ("answered", status.answers),
            ("failed", status.failures),
            ("unasked", status.unasked),
            ("remembered", status.remembered),
        ] {
            decisions.encode_family(&[("how", how)])?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        let mut before = 0;
        let within = status.latencies.iter().map(|(bound, count)| {
            let bucket = (bound.as_secs_f64(), count - before);
            before = *count;
            bucket
        });
        let mut buckets: Vec<(f64, u64)> = within.collect();
        buckets.push((f64::INFINITY, status.answers.saturating_sub(before)));
        let seconds = Duration::as_secs_f64(&status.latency);
        encoder
            .encode_descriptor(
                "nantian_rate_limit_store_latency_seconds",
                "Time that a decision waited for the store",
                None,
                MetricType::Histogram,
            )?
            .encode_histogram::<NoLabelSet>(seconds, status.answers, &buckets, None)
    }
}

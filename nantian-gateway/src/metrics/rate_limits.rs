//! What the limits of one TokenPolicy decided and what was used of them, and the bridge to Prometheus for it
//! and for the store that limits are in.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::{
    Metrics,
    family::{counters, gauge, gauges},
};
use crate::sync::lock;

/// What a TokenPolicy decided about a request, and by which of its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum Limited<'a> {
    /// It passed.
    Admitted,
    /// It was refused: by none of the limits where they could not be read.
    Refused(&'a str),
    /// It passed though this limit was exhausted.
    Warned(&'a str),
    /// Nobody was asked, or nobody answered.
    Unchecked,
}

/// What limits count, and that no limit is to blame.
const LIMITS: [&str; 4] = ["requests-per-minute", "tokens-per-minute", "tokens-per-hour", ""];
const TOKENS: [&str; 5] = ["reserved", "used", "refunded", "debt", "forgiven"];

/// The counters of one TokenPolicy.
#[derive(Default)]
pub(crate) struct LimitMetrics {
    admitted: AtomicU64,
    unchecked: AtomicU64,
    refused: [AtomicU64; LIMITS.len()],
    warned: [AtomicU64; LIMITS.len()],
    tokens: [AtomicU64; TOKENS.len()],
    /// What the limits admit, by what they count.
    amounts: Mutex<Vec<(&'static str, u64)>>,
    keys: Mutex<Option<Box<dyn Fn() -> Keys + Send>>>,
}

/// The keys by which the limits of one TokenPolicy count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Keys {
    /// Those in use.
    pub(crate) live: usize,
    /// Decisions about those that share a bucket for want of room.
    pub(crate) overflows: u64,
}

impl LimitMetrics {
    /// Notes a decision.
    pub(crate) fn decided(&self, decision: Limited<'_>) {
        let counter = match decision {
            Limited::Admitted => &self.admitted,
            Limited::Unchecked => &self.unchecked,
            Limited::Refused(limit) => of_limit(&self.refused, limit),
            Limited::Warned(limit) => of_limit(&self.warned, limit),
        };
        counter.fetch_add(1, Relaxed);
    }

    /// Notes what a request had reserved, what it used, and what of that nobody pays; in tokens.
    pub(crate) fn settled(&self, reserved: u64, used: u64, forgiven: u64) {
        let counts = [reserved, used, reserved.saturating_sub(used), used.saturating_sub(reserved), forgiven];
        for (counter, count) in self.tokens.iter().zip(counts) {
            counter.fetch_add(count, Relaxed);
        }
    }

    /// Sets what the limits admit.
    pub(crate) fn set_amounts<'a>(&self, amounts: impl Iterator<Item = (&'a str, u64)>) {
        let known = |(name, max)| {
            let limit = LIMITS.into_iter().find(|known| *known == counted(name))?;
            Some((limit, max))
        };
        *lock(&self.amounts) = amounts.filter_map(known).collect();
    }

    /// Sets who counts the keys.
    pub(crate) fn count_keys(&self, keys: impl Fn() -> Keys + Send + 'static) {
        *lock(&self.keys) = Some(Box::new(keys));
    }

    /// The decisions, by their word and their limit.
    fn decisions(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let of_no_limit = [("admitted", &self.admitted), ("unchecked", &self.unchecked)];
        let of_no_limit = of_no_limit.map(|(decision, count)| (decision, "", count)).into_iter();
        let by_limit = [("refused", &self.refused), ("warned", &self.warned)].into_iter();
        let by_limit = by_limit.flat_map(|(decision, counts)| {
            LIMITS.into_iter().zip(counts).map(move |(limit, count)| (decision, limit, count))
        });
        of_no_limit.chain(by_limit).map(|(decision, limit, count)| (decision, limit, count.load(Relaxed)))
    }

    fn tokens(&self) -> impl Iterator<Item = (&'static str, u64)> {
        TOKENS.into_iter().zip(self.tokens.iter().map(|count| count.load(Relaxed)))
    }

    fn keys(&self) -> Keys {
        lock(&self.keys).as_ref().map_or_else(Keys::default, |count| count())
    }
}

/// What a limit counts, as in `tokens-per-minute`: the last part of its name.
pub(crate) fn counted(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, counted)| counted)
}

/// The one of these counters that is for this limit.
fn of_limit<'a>(counters: &'a [AtomicU64; LIMITS.len()], limit: &str) -> &'a AtomicU64 {
    let [.., of_none] = counters;
    let known = LIMITS.iter().zip(counters).find(|(known, _)| **known == limit);
    known.map_or(of_none, |(_, counter)| counter)
}

impl fmt::Debug for LimitMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decisions: Vec<_> = self.decisions().collect();
        f.debug_struct("LimitMetrics").field("decisions", &decisions).finish_non_exhaustive()
    }
}

// === impl Metrics ===

impl Metrics {
    pub(super) fn encode_limits(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let limits: Vec<(String, Arc<LimitMetrics>)> = {
            let limits = lock(&self.limits);
            limits.iter().map(|(name, metrics)| (name.clone(), Arc::clone(metrics))).collect()
        };
        let decisions = limits.iter().flat_map(|(policy, metrics)| {
            metrics.decisions().map(|(decision, limit, count)| {
                ([("policy", policy.as_str()), ("decision", decision), ("limit", limit)], count)
            })
        });
        counters(
            encoder,
            "nantian_rate_limit_decisions",
            "Requests that a TokenPolicy was asked about, by what it decided itself, and by which limit where one was exhausted: those that another one then refused, which cost it nothing, are among the admitted",
            decisions,
        )?;
        let tokens = limits.iter().flat_map(|(policy, metrics)| {
            let tokens = metrics.tokens();
            tokens.map(|(kind, count)| ([("policy", policy.as_str()), ("kind", kind)], count))
        });
        counters(
            encoder,
            "nantian_rate_limit_tokens",
            "LLM tokens of requests that are over: reserved before, used after, the difference, and debt that nobody pays, which only limits of this process tell",
            tokens,
        )?;
        let amounts = limits.iter().flat_map(|(policy, metrics)| {
            let amounts = lock(&metrics.amounts).clone();
            amounts.into_iter().map(|(limit, max)| ([("policy", policy.as_str()), ("limit", limit)], max))
        });
        gauges(
            encoder,
            "nantian_rate_limit_limit",
            "What a limit of a TokenPolicy lets each key use in its window, without the burst",
            amounts,
        )?;
        let keys: Vec<_> =
            limits.iter().map(|(policy, metrics)| ([("policy", policy.as_str())], metrics.keys())).collect();
        gauges(
            encoder,
            "nantian_rate_limit_live_keys",
            "Keys whose buckets this process knows not to be full",
            keys.iter().map(|(labels, keys)| (*labels, keys.live as u64)),
        )?;
        counters(
            encoder,
            "nantian_rate_limit_overflows",
            "Decisions about keys that share a bucket with others: a process keeps 131072 of a TokenPolicy apart",
            keys.iter().map(|(labels, keys)| (*labels, keys.overflows)),
        )?;
        self.encode_store(encoder)
    }

    fn encode_store(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(store) = self.store.get() else { return Ok(()) };
        let status = store.status();
        gauge(
            encoder,
            "nantian_rate_limit_store_up",
            "Whether the store of the limits is asked, about every key; 0 means that each replica goes on with its share, or with all as long as it knows of no others",
            u64::from(status.is_reachable),
        )?;
        gauge(
            encoder,
            "nantian_rate_limit_store_replicas",
            "Processes that share the limits",
            u64::from(status.replicas.unwrap_or(1)),
        )?;
        let decisions = [
            ("answered", status.answers),
            ("failed", status.failures),
            ("unasked", status.unasked),
            ("remembered", status.remembered),
        ];
        counters(
            encoder,
            "nantian_rate_limit_store_decisions",
            "Decisions by how the store took part: it answered, it did not in time, it was away, its last denial still held",
            decisions.map(|(how, count)| ([("how", how)], count)),
        )?;
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

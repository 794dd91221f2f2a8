//! What plugins do, by the plugin's name.

use std::fmt;

use nantian_wasm::{
    Plugin,
    observe::{MetricKind, PluginStatus},
};
use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::{
    Metrics,
    family::{counters, gauges},
};
use crate::sync::lock;

/// A number of a plugin's status.
type Number = fn(&PluginStatus) -> u64;

const COUNTERS: [(&str, &str, Number); 7] = [
    ("nantian_wasm_streams", "Streams that a plugin has seen", |status| status.streams),
    ("nantian_wasm_calls", "Calls into guests, each of one callback or several at once", |status| {
        status.calls
    }),
    ("nantian_wasm_rebuilds", "Attempts to replace an instance that ended or lacked memory", |status| {
        status.rebuilds
    }),
    ("nantian_wasm_dropped_log_lines", "Log lines over the budget of a stream or of the plugin", |status| {
        status.dropped_log_lines
    }),
    ("nantian_wasm_dropped_metrics", "Definitions of metrics for which there was no room", |status| {
        status.dropped_metrics
    }),
    ("nantian_wasm_dropped_shared_data", "Values of shared data that made room for others", |status| {
        status.dropped_shared_data
    }),
    ("nantian_wasm_dropped_queue_items", "Items lost from full queues", |status| status.dropped_queue_items),
];

const GAUGES: [(&str, &str, Number); 3] = [
    ("nantian_wasm_instances", "Instances that a plugin keeps", |status| count(status.instances)),
    ("nantian_wasm_live_instances", "Instances that are ready", |status| count(status.live_instances)),
    ("nantian_wasm_memory_bytes", "Linear memory of all instances", |status| status.memory),
];

impl Metrics {
    /// Shows these plugins from now on.
    pub fn set_plugins(&self, plugins: Vec<Plugin>) {
        *lock(&self.plugins) = plugins;
    }

    pub(super) fn encode_plugins(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let plugins: Vec<(String, PluginStatus)> = {
            let plugins = lock(&self.plugins);
            plugins.iter().map(|plugin| (plugin.name().to_owned(), plugin.status())).collect()
        };
        for (name, help, number) in COUNTERS {
            let samples =
                plugins.iter().map(|(plugin, status)| ([("plugin", plugin.as_str())], number(status)));
            counters(encoder, name, help, samples)?;
        }
        let times = plugins
            .iter()
            .map(|(plugin, status)| ([("plugin", plugin.as_str())], status.guest_time.as_secs_f64()));
        let help = "Time that guests have run, as the clock's beats have found them";
        counters(encoder, "nantian_wasm_guest_seconds", help, times)?;
        for (name, help, number) in GAUGES {
            let samples =
                plugins.iter().map(|(plugin, status)| ([("plugin", plugin.as_str())], number(status)));
            gauges(encoder, name, help, samples)?;
        }
        encode_failures(encoder, &plugins)?;
        encode_refused_calls(encoder, &plugins)?;
        encode_traps(encoder, &plugins)?;
        encode_guests(encoder, &plugins)
    }
}

fn encode_failures(encoder: &mut DescriptorEncoder<'_>, plugins: &[(String, PluginStatus)]) -> fmt::Result {
    let failures = plugins.iter().flat_map(|(plugin, status)| {
        let by_cause = status.failures_by_cause.iter();
        by_cause.map(move |(cause, count)| ([("plugin", plugin.as_str()), ("cause", *cause)], *count))
    });
    counters(encoder, "nantian_wasm_failures", "Streams that a plugin has failed, by cause", failures)
}

fn encode_refused_calls(
    encoder: &mut DescriptorEncoder<'_>,
    plugins: &[(String, PluginStatus)],
) -> fmt::Result {
    let refused = plugins.iter().flat_map(|(plugin, status)| {
        let by_reason = status.refused_calls.iter();
        by_reason.map(move |(reason, count)| ([("plugin", plugin.as_str()), ("reason", *reason)], *count))
    });
    let help = "Call-outs of a plugin that were not made, by reason";
    counters(encoder, "nantian_wasm_refused_calls", help, refused)
}

fn encode_traps(encoder: &mut DescriptorEncoder<'_>, plugins: &[(String, PluginStatus)]) -> fmt::Result {
    let traps = plugins.iter().flat_map(|(plugin, status)| {
        let traps = status.traps;
        let causes = [
            ("trap", traps.trap),
            ("time_limit", traps.time_limit),
            ("budget", traps.budget),
            ("exit", traps.exit),
        ];
        causes.map(|(cause, count)| ([("plugin", plugin.as_str()), ("cause", cause)], count))
    });
    counters(encoder, "nantian_wasm_traps", "Guest calls that cost their instance, by cause", traps)
}

/// The guests' own metrics, each kind under one name: all that have a name, which are a thousand of a plugin
/// at most.
fn encode_guests(encoder: &mut DescriptorEncoder<'_>, plugins: &[(String, PluginStatus)]) -> fmt::Result {
    let of_kind = |kind: MetricKind| {
        plugins.iter().flat_map(move |(plugin, status)| {
            let metrics = status.metrics.iter().filter(move |metric| metric.kind == kind);
            metrics.map(move |metric| {
                ([("plugin", plugin.as_str()), ("name", metric.name.as_str())], metric.value)
            })
        })
    };
    let help = "Counters that plugins have defined";
    counters(encoder, "nantian_wasm_guest_counter", help, of_kind(MetricKind::Counter))?;
    let help = "Gauges that plugins have defined";
    gauges(encoder, "nantian_wasm_guest_gauge", help, of_kind(MetricKind::Gauge))?;
    encode_histograms(encoder, plugins)
}

/// The guests' histograms: how often they observed something, and the sum of it.
fn encode_histograms(encoder: &mut DescriptorEncoder<'_>, plugins: &[(String, PluginStatus)]) -> fmt::Result {
    let (name, help) = ("nantian_wasm_guest_histogram", "Histograms that plugins have defined");
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (plugin, status) in plugins {
        for metric in status.metrics.iter().filter(|metric| metric.kind == MetricKind::Histogram) {
            #[expect(clippy::cast_precision_loss, reason = "the format has no other numbers for sums")]
            let (sum, count) = (metric.value as f64, metric.observations);
            let labels = [("plugin", plugin.as_str()), ("name", metric.name.as_str())];
            let mut encoder = family.encode_family(&labels)?;
            encoder.encode_histogram::<NoLabelSet>(sum, count, &[(f64::INFINITY, count)], None)?;
        }
    }
    Ok(())
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

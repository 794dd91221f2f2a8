//! What plugins do, by the plugin's name.

use std::{fmt, sync::PoisonError};

use nantian_wasm::{MetricKind, Plugin, PluginStatus};
use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::Metrics;

/// Guest metrics shown of one plugin: their names are the guest's, their number must not be.
const MAX_GUEST_METRICS: usize = 200;

/// A number of a plugin's status.
type Number = fn(&PluginStatus) -> u64;

const COUNTERS: [(&str, &str, Number); 4] = [
    ("nantian_wasm_streams", "Streams that a plugin has seen", |status| status.streams),
    ("nantian_wasm_failures", "Streams that a plugin has failed", |status| status.failures),
    ("nantian_wasm_rebuilds", "Attempts to replace an instance that ended", |status| status.rebuilds),
    ("nantian_wasm_dropped_log_lines", "Log lines over the budget of a stream", |status| {
        status.dropped_log_lines
    }),
];

const GAUGES: [(&str, &str, Number); 3] = [
    ("nantian_wasm_instances", "Instances that a plugin keeps", |status| count(status.instances)),
    ("nantian_wasm_live_instances", "Instances that are ready", |status| count(status.live_instances)),
    ("nantian_wasm_memory_bytes", "Linear memory of all instances", |status| status.memory),
];

impl Metrics {
    /// Shows these plugins from now on.
    pub fn set_plugins(&self, plugins: Vec<Plugin>) {
        *self.plugins.lock().unwrap_or_else(PoisonError::into_inner) = plugins;
    }

    pub(super) fn encode_plugins(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let plugins: Vec<(String, PluginStatus)> = {
            let plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
            plugins.iter().map(|plugin| (plugin.name().to_owned(), plugin.status())).collect()
        };
        if plugins.is_empty() {
            return Ok(());
        }
        for (name, help, number) in COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (plugin, status) in &plugins {
                let labels = [("plugin", plugin.as_str())];
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&number(status), None)?;
            }
        }
        for (name, help, number) in GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (plugin, status) in &plugins {
                family.encode_family(&[("plugin", plugin.as_str())])?.encode_gauge(&number(status))?;
            }
        }
        encode_traps(encoder, &plugins)?;
        encode_guests(encoder, &plugins)
    }
}

fn encode_traps(encoder: &mut DescriptorEncoder<'_>, plugins: &[(String, PluginStatus)]) -> fmt::Result {
    let help = "Guest calls that cost their instance, by cause";
    let mut family = encoder.encode_descriptor("nantian_wasm_traps", help, None, MetricType::Counter)?;
    for (plugin, status) in plugins {
        let traps = status.traps;
        for (cause, value) in [
            ("trap", traps.trap),
            ("time_limit", traps.time_limit),
            ("budget", traps.budget),
            ("exit", traps.exit),
        ] {
            family
                .encode_family(&[("plugin", plugin.as_str()), ("cause", cause)])?
                .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
    }
    Ok(())
}

/// The guests' own metrics, each kind under one name.
fn encode_guests(encoder: &mut DescriptorEncoder<'_>, plugins: &[(String, PluginStatus)]) -> fmt::Result {
    let of_kind = |kind: MetricKind| {
        plugins.iter().flat_map(move |(plugin, status)| {
            let metrics = status.metrics.iter().take(MAX_GUEST_METRICS);
            metrics.filter(move |metric| metric.kind == kind).map(move |metric| (plugin.as_str(), metric))
        })
    };
    let help = "Counters that plugins have defined";
    let mut counters =
        encoder.encode_descriptor("nantian_wasm_guest_counter", help, None, MetricType::Counter)?;
    for (plugin, metric) in of_kind(MetricKind::Counter) {
        counters
            .encode_family(&[("plugin", plugin), ("name", metric.name.as_str())])?
            .encode_counter::<NoLabelSet, _, u64>(&metric.value, None)?;
    }
    let help = "Gauges that plugins have defined";
    let mut gauges = encoder.encode_descriptor("nantian_wasm_guest_gauge", help, None, MetricType::Gauge)?;
    for (plugin, metric) in of_kind(MetricKind::Gauge) {
        gauges
            .encode_family(&[("plugin", plugin), ("name", metric.name.as_str())])?
            .encode_gauge(&metric.value)?;
    }
    Ok(())
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

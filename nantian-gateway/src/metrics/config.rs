//! How the configuration and its source are.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus_client::encoding::DescriptorEncoder;
use tokio::sync::watch;

use super::{
    Metrics,
    family::{counters, gauge, gauges},
};
use crate::{gates::Feature, sync::lock, translate::status::Unmet};

/// What is counted of the configuration.
#[derive(Debug, Default)]
pub(super) struct ConfigMetrics {
    /// Of a cluster, whether all of it is followed, and whether this replica leads.
    cluster: OnceLock<[watch::Receiver<bool>; 2]>,
    reloads: AtomicU64,
    rejected_reloads: AtomicU64,
    reload_micros: AtomicU64,
    faults: AtomicU64,
    ignored: Mutex<BTreeMap<Feature, u64>>,
    /// How many objects have each.
    unmet: Mutex<BTreeMap<Unmet, u64>>,
}

impl Metrics {
    /// Tells of a cluster whether all of it is followed, and whether this replica is the one that writes
    /// status; set once.
    #[cfg(any(feature = "kubernetes", test))]
    pub(crate) fn show_cluster(&self, is_up: watch::Receiver<bool>, leads: watch::Receiver<bool>) {
        let _ = self.config.cluster.set([is_up, leads]);
    }

    /// Notes a reload, how long it took, and how many faults its sources have. It counts if what is served,
    /// or what is wrong, is something else than before.
    pub(crate) fn reloaded(&self, took: Duration, counts: bool, faults: usize) {
        let config = &self.config;
        let counter = if faults == 0 { &config.reloads } else { &config.rejected_reloads };
        if counts {
            counter.fetch_add(1, Relaxed);
        }
        config.reload_micros.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
        config.faults.store(faults as u64, Relaxed);
    }

    /// Notes the closed gate of each object that one hides.
    pub(crate) fn set_ignored(&self, gates: impl Iterator<Item = Feature>) {
        let mut ignored: BTreeMap<_, _> = Feature::ALL.into_iter().map(|feature| (feature, 0)).collect();
        for gate in gates {
            *ignored.entry(gate).or_default() += 1;
        }
        *lock(&self.config.ignored) = ignored;
    }

    /// Notes how many objects have conditions that do not hold.
    pub(crate) fn set_unmet(&self, unmet: BTreeMap<Unmet, u64>) {
        *lock(&self.config.unmet) = unmet;
    }

    pub(super) fn encode_config(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let config = &self.config;
        gauge(
            encoder,
            "nantian_config_faults",
            "Faults in the sources of the configuration",
            config.faults.load(Relaxed),
        )?;
        gauge(
            encoder,
            "nantian_config_last_reload_duration_seconds",
            "Time that the last reload took",
            Duration::from_micros(config.reload_micros.load(Relaxed)).as_secs_f64(),
        )?;
        counters(
            encoder,
            "nantian_config_reloads",
            "Reloads by result",
            [("clean", &config.reloads), ("with_faults", &config.rejected_reloads)]
                .map(|(result, count)| ([("result", result)], count.load(Relaxed))),
        )?;
        let ignored = lock(&config.ignored);
        gauges(
            encoder,
            "nantian_config_gated_objects",
            "Objects that a closed feature gate hides",
            ignored.iter().map(|(feature, count)| ([("feature", feature.name())], *count)),
        )?;
        let unmet = lock(&config.unmet);
        gauges(
            encoder,
            "nantian_config_unmet_conditions",
            "Objects with a condition that does not hold and should, such as of what refers to a Secret that is not there \
             or listens on a port that is taken; not of plugins that nothing refers to",
            unmet.iter().map(|(unmet, count)| {
                let Unmet { kind, condition, reason } = *unmet;
                ([("kind", kind), ("condition", condition.as_str()), ("reason", reason.as_str())], *count)
            }),
        )?;
        let Some([is_up, leads]) = config.cluster.get() else { return Ok(()) };
        gauge(
            encoder,
            "nantian_config_source_up",
            "Whether the API server is there and every kind is watched; 0 means that what it said last is served on",
            u64::from(*is_up.borrow()),
        )?;
        gauge(
            encoder,
            "nantian_leader",
            "Whether this replica is the one that writes status",
            u64::from(*leads.borrow()),
        )
    }
}

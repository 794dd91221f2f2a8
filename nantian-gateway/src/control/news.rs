//! What a reload has changed, and its line in the log.

use super::reload::Reload;
use crate::source::ObjectRef;

/// Changed objects that the line names.
const LISTED: usize = 8;

/// The kinds that a cluster is full of, most of which have nothing to do with the gateway.
const OF_OTHERS: [&str; 5] = ["ConfigMap", "EndpointSlice", "Namespace", "Secret", "Service"];

/// What is new after a reload.
#[derive(Debug)]
pub(super) struct ReloadNews {
    /// What is served, or what is wrong: it is counted.
    pub(super) counts: bool,
    /// Something that somebody waits for: it has a line in the log.
    pub(super) is_told: bool,
}

/// Whether an object of ours is among those that have changed, whose author waits for it to be read.
pub(super) fn is_ours(changed: &[ObjectRef]) -> bool {
    changed.iter().any(|object| !OF_OTHERS.contains(&object.kind))
}

impl ReloadNews {
    /// Says what a reload has done, after which this generation serves.
    pub(super) fn say(&self, reload: &Reload, generation: u64) {
        let changed: Vec<_> = reload.changed.iter().take(LISTED).map(ToString::to_string).collect();
        let objects = changed.join(", ");
        if !self.is_told {
            tracing::debug!(objects, "nothing has changed that is served or told");
            return;
        }
        tracing::info!(
            generation,
            changed = reload.changed.len(),
            objects,
            faults = reload.faults,
            installed = reload.installed,
            took_ms = reload.took.as_secs_f64() * 1e3,
            "reloaded"
        );
    }
}

//! What the log tells of faults.

use std::collections::HashSet;

/// Logs each line of `said` that is not among the `last` ones, once: several listeners may have the same
/// fault. Those that are `passing` are nothing to be warned of, as time mends them.
pub(super) fn log_once(said: &[String], last: &[String], passing: &[String]) {
    let mut known: HashSet<_> = last.iter().collect();
    for line in said.iter().filter(|line| known.insert(*line)) {
        if passing.contains(line) {
            tracing::info!("{line}");
        } else {
            tracing::warn!("{line}");
        }
    }
}

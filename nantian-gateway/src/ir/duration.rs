//! How durations are shown: `1.5s` rather than seconds and nanoseconds apart.

use std::time::Duration;

use serde::Serializer;

/// Shows a duration.
pub(super) fn show<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{duration:?}"))
}

/// Shows a limit; the absence of one stays absent.
pub(super) fn show_limit<S: Serializer>(limit: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match limit {
        Some(duration) => show(duration, serializer),
        None => serializer.serialize_none(),
    }
}

//! What a `content-type` says of a reply.

use crate::wire::frames;

/// How a reply is to be read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Format {
    Frames,
    Json,
    Ndjson,
    Other,
    Sse,
}

// === impl Format ===

impl Format {
    pub(super) fn of(content_type: &str) -> Self {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let is = |name| essence.eq_ignore_ascii_case(name);
        if is("text/event-stream") {
            Self::Sse
        } else if is("application/json") {
            Self::Json
        } else if is("application/x-ndjson") {
            Self::Ndjson
        } else if is(frames::MEDIA_TYPE) {
            Self::Frames
        } else {
            Self::Other
        }
    }

    /// Whether it is a stream of events.
    pub(super) fn is_stream(self) -> bool {
        matches!(self, Self::Frames | Self::Ndjson | Self::Sse)
    }
}

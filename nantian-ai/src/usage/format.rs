//! What a `content-type` says of a reply.

use crate::dialect::{Dialect, Operation};
use crate::facts::RequestFacts;
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
    /// `None` where it says nothing: servers tell these of what nobody has given a type.
    pub(super) fn of(content_type: &str) -> Option<Self> {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let is = |name| essence.eq_ignore_ascii_case(name);
        if is("text/plain") || is("application/octet-stream") {
            return None;
        }
        Some(if is("text/event-stream") {
            Self::Sse
        } else if is("application/json") {
            Self::Json
        } else if is("application/x-ndjson") {
            Self::Ndjson
        } else if is(frames::MEDIA_TYPE) {
            Self::Frames
        } else {
            Self::Other
        })
    }

    /// What is asked for, as far as anybody knows.
    pub(super) fn asked(dialect: Dialect, operation: Operation, facts: &RequestFacts) -> Self {
        match dialect {
            _ if facts.operation.is_none() || !operation.spends() => Self::Other,
            _ if !facts.stream => Self::Json,
            Dialect::Bedrock => Self::Frames,
            Dialect::Ollama => Self::Ndjson,
            _ => Self::Sse,
        }
    }

    /// Whether it is a stream of events.
    pub(super) fn is_stream(self) -> bool {
        matches!(self, Self::Frames | Self::Ndjson | Self::Sse)
    }
}

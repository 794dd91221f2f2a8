//! How a reply is read.

use crate::dialect::Dialect;
use crate::usage::format::Format;
use crate::usage::reply::Reply;
use crate::usage::tally::members;
use crate::wire::EVENT_LIMIT;
use crate::wire::frames::FrameDecoder;
use crate::wire::ndjson::NdjsonDecoder;
use crate::wire::sse::SseDecoder;

#[derive(Clone, Debug)]
pub(super) enum Reader {
    /// No reply yet.
    Waiting,
    /// A reply that is no answer, and may tell of one.
    Refusal(Box<Reply>),
    Buffered(Box<Reply>),
    Frames(Box<FrameDecoder>),
    Sse(Box<SseDecoder>),
    Ndjson(Box<NdjsonDecoder>),
    /// A reply that cannot be read.
    Opaque,
}

// === impl Reader ===

impl Reader {
    /// Of a reply that is no answer.
    pub(super) fn of_refusal() -> Self {
        Self::Refusal(Box::new(Reply::new(&["error"])))
    }

    /// Of a reply of this format.
    pub(super) fn of(format: Format, dialect: Dialect) -> Self {
        match format {
            Format::Json => Self::Buffered(Box::new(Reply::new(members(dialect)))),
            Format::Frames => Self::Frames(Box::new(FrameDecoder::new(EVENT_LIMIT))),
            Format::Ndjson => Self::Ndjson(Box::new(NdjsonDecoder::new(EVENT_LIMIT))),
            Format::Sse => Self::Sse(Box::new(SseDecoder::new(EVENT_LIMIT))),
            Format::Other => Self::Opaque,
        }
    }

    /// How much is kept of an event whose end has not come, in bytes.
    pub(super) fn kept(&self) -> usize {
        match self {
            Self::Frames(decoder) => decoder.kept(),
            Self::Ndjson(decoder) => decoder.kept(),
            Self::Sse(decoder) => decoder.kept(),
            Self::Waiting | Self::Refusal(_) | Self::Buffered(_) | Self::Opaque => 0,
        }
    }
}

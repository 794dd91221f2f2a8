//! Replies that are called JSON where a stream was asked for.

use super::Meter;
use super::reader::Reader;
use crate::usage::format::Format;
use crate::wire::sse;

/// Whether it is known what a reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    None,
    /// At most space has come.
    Unbegun,
    /// A brace has, which is to be read before what follows.
    Brace,
}

// === impl Meter ===

impl Meter {
    /// Reads the reply as the stream that was asked for if it begins as one. Returns what is to be read by
    /// now, in two parts.
    pub(super) fn settle_doubt<'c>(&mut self, chunk: &'c [u8]) -> (&'static [u8], &'c [u8]) {
        let (front, begun): (&[u8], _) = match self.doubt {
            Doubt::Brace => (b"{", chunk),
            Doubt::None | Doubt::Unbegun => (b"", chunk.trim_ascii_start()),
        };
        let mut bytes = front.iter().chain(begun);
        let (Some(first), second) = (bytes.next(), bytes.next()) else { return (b"", chunk) };
        if matches!(self.asked, Format::Ndjson) && *first == b'{' && second.is_none() {
            self.doubt = Doubt::Brace;
            return (b"", b"");
        }
        self.doubt = Doubt::None;
        self.stream = match self.asked {
            // A length of less than 16 MiB.
            Format::Frames => *first == 0,
            // One answer in a line is a stream, too; over several lines it is none.
            Format::Ndjson => *first == b'{' && second == Some(&b'"'),
            Format::Sse => sse::may_begin_with(*first),
            Format::Json | Format::Other => false,
        };
        if self.stream {
            self.reader = Reader::of(self.asked, self.dialect);
        }
        (front, begun)
    }

    /// Whether more must come before it is known what the reply is.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.doubt != Doubt::None
    }
}

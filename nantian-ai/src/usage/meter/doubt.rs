//! Replies that are called JSON where a stream was asked for.

use super::Meter;
use super::reader::Reader;
use crate::usage::format::Format;
use crate::wire::sse;

// === impl Meter ===

impl Meter {
    /// Reads the reply as the stream that was asked for if it begins as one.
    pub(super) fn settle_doubt<'c>(&mut self, chunk: &'c [u8]) -> &'c [u8] {
        let begun = chunk.trim_ascii_start();
        let Some(first) = begun.first() else { return chunk };
        self.in_doubt = false;
        self.stream = match self.asked {
            // A length of less than 16 MiB.
            Format::Frames => *first == 0,
            // One answer in a line is a stream, too; over several lines it is none.
            Format::Ndjson => begun.starts_with(b"{\""),
            Format::Sse => sse::may_begin_with(*first),
            Format::Json | Format::Other => false,
        };
        if self.stream {
            self.reader = Reader::of(self.asked, self.dialect);
        }
        begun
    }

    /// Whether more must come before it is known what the reply is.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }
}

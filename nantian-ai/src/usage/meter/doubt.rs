//! Replies that are called JSON where a stream of events was asked for.

use super::{Meter, Reader};
use crate::wire::{EVENT_LIMIT, sse};

// === impl Meter ===

impl Meter {
    /// Reads the reply as the stream that was asked for if it begins as one.
    pub(super) fn settle_doubt<'c>(&mut self, chunk: &'c [u8]) -> &'c [u8] {
        let begun = chunk.trim_ascii_start();
        let Some(first) = begun.first() else { return chunk };
        self.in_doubt = false;
        if sse::may_begin_with(*first) {
            self.stream = true;
            self.reader = Reader::Sse(Box::new(sse::SseDecoder::new(EVENT_LIMIT)));
        }
        begun
    }

    /// Whether more must come before it is known what the reply is.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }
}

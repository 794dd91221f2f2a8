//! Server-sent events (`text/event-stream`), as the HTML standard defines them, in any chunks.
//!
//! Unlike a browser, an event that the end of the stream cuts off before its blank line is reported:
//! some providers leave the last one out.

use memchr::memchr2;

use super::BYTE_ORDER_MARK;

/// An incremental decoder of one stream.
#[derive(Clone, Debug)]
pub struct SseDecoder {
    line: Vec<u8>,
    event: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    oversized: bool,
    limit: usize,
    after_cr: bool,
    at_start: bool,
}

/// What a stream holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Item<'a> {
    /// An event with data.
    Event {
        /// Its name; empty if it has none.
        event: &'a [u8],
        /// Its data, several lines joined by a line feed.
        data: &'a [u8],
    },
    /// A comment: it keeps a connection alive and says nothing. One within an event comes before it.
    Comment,
    /// An event above the limit, which was skipped.
    Oversized,
}

/// A comment, which keeps a connection alive and says nothing.
pub(crate) const PING: &[u8] = b": ping\n\n";

/// Whether a stream may begin with this byte: with a comment, or the name of a field.
pub(crate) fn may_begin_with(first: u8) -> bool {
    matches!(first, b':' | b'd' | b'e' | b'i' | b'r')
}

// === impl SseDecoder ===

impl SseDecoder {
    /// A decoder that keeps at most `limit` bytes of an event.
    pub fn new(limit: usize) -> Self {
        Self {
            line: Vec::new(),
            event: Vec::new(),
            data: Vec::new(),
            has_data: false,
            oversized: false,
            limit,
            after_cr: false,
            at_start: true,
        }
    }

    /// Reads the next chunk and reports the events that end in it, in order.
    pub fn push(&mut self, chunk: &[u8], mut sink: impl FnMut(Item<'_>)) {
        let mut rest = chunk;
        while let Some(&first) = rest.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                rest = rest.get(1..).unwrap_or_default();
                continue;
            }
            let Some((line, end)) = memchr2(b'\r', b'\n', rest).and_then(|at| rest.split_at_checked(at))
            else {
                return self.keep(rest);
            };
            self.after_cr = end.starts_with(b"\r");
            rest = end.get(1..).unwrap_or_default();
            if self.line.is_empty() {
                self.take_line(line, &mut sink);
            } else {
                self.keep(line);
                let mut line = std::mem::take(&mut self.line);
                self.take_line(&line, &mut sink);
                super::empty(&mut line);
                self.line = line;
            }
        }
    }

    /// Reports an event that the end of the stream has cut off before its blank line.
    pub fn finish(&mut self, mut sink: impl FnMut(Item<'_>)) {
        let line = std::mem::take(&mut self.line);
        self.take_line(&line, &mut sink);
        self.dispatch(&mut sink);
    }

    /// How much is kept of an event whose end has not come, in bytes.
    pub(crate) fn kept(&self) -> usize {
        self.line.capacity() + self.event.capacity() + self.data.capacity()
    }

    /// Skips the event whose end has not come, as one above the limit.
    pub(crate) fn skip(&mut self) {
        self.skip_event();
        if !self.line.is_empty() {
            self.skip_line();
        }
    }

    /// Keeps the start of a line whose end has not come.
    fn keep(&mut self, piece: &[u8]) {
        if piece.is_empty() {
            return;
        }
        // A byte order mark is still in the first line here; it counts for nothing.
        let mark = if self.at_start { BYTE_ORDER_MARK.len() } else { 0 };
        if self.oversized || self.exceeds((self.line.len() + piece.len()).saturating_sub(mark)) {
            self.skip_event();
            self.skip_line();
        } else {
            self.line.extend_from_slice(piece);
        }
    }

    /// What is left of the line is a comment: skipped, yet not the blank line that ends an event.
    fn skip_line(&mut self) {
        self.line = vec![b':'];
    }

    fn exceeds(&self, line: usize) -> bool {
        self.data.len() + line > self.limit
    }

    fn skip_event(&mut self) {
        self.oversized = true;
        self.event = Vec::new();
        self.data = Vec::new();
    }

    fn take_line(&mut self, line: &[u8], sink: &mut impl FnMut(Item<'_>)) {
        let line = match std::mem::take(&mut self.at_start) {
            true => line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line),
            false => line,
        };
        if line.is_empty() {
            return self.dispatch(sink);
        }
        if self.oversized || self.exceeds(line.len()) {
            return self.skip_event();
        }
        let (field, value) = match memchr::memchr(b':', line).and_then(|at| line.split_at_checked(at)) {
            Some((field, value)) => (field, value.get(1..).unwrap_or_default()),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"" => sink(Item::Comment),
            b"data" => self.take_data(value),
            b"event" => {
                self.event.clear();
                self.event.extend_from_slice(value);
            }
            _ => {}
        }
    }

    fn take_data(&mut self, value: &[u8]) {
        if std::mem::replace(&mut self.has_data, true) {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(value);
    }

    fn dispatch(&mut self, sink: &mut impl FnMut(Item<'_>)) {
        if std::mem::take(&mut self.oversized) {
            sink(Item::Oversized);
        } else if self.has_data {
            sink(Item::Event { event: &self.event, data: &self.data });
        }
        self.has_data = false;
        super::empty(&mut self.event);
        super::empty(&mut self.data);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn decode(limit: usize, chunks: &[&[u8]]) -> Vec<(String, String)> {
        let mut decoder = SseDecoder::new(limit);
        let mut items = Vec::new();
        let mut keep = |item: Item<'_>| {
            items.push(match item {
                Item::Event { event, data } => {
                    (String::from_utf8_lossy(event).into_owned(), String::from_utf8_lossy(data).into_owned())
                }
                Item::Comment => ("comment".to_owned(), String::new()),
                Item::Oversized => ("oversized".to_owned(), String::new()),
            });
        };
        for chunk in chunks {
            decoder.push(chunk, &mut keep);
        }
        decoder.finish(&mut keep);
        items
    }

    fn event(name: &str, data: &str) -> (String, String) {
        (name.to_owned(), data.to_owned())
    }

    #[test]
    fn every_line_end_and_both_spacings_are_read() {
        for end in ["\n", "\r\n", "\r"] {
            let text = "event:a\ndata: 1\n\n: comment\ndata:2\ndata: 3\nid: 7\n\n".replace('\n', end);
            let items = decode(100, &[text.as_bytes()]);
            assert_eq!(items, [event("a", "1"), event("comment", ""), event("", "2\n3")], "{end:?}");
        }
    }

    #[test]
    fn an_event_without_data_is_none() {
        assert_eq!(decode(100, &[b"event: ping\n\n: only a comment\n\n\n"]), [event("comment", "")]);
    }

    #[test]
    fn the_end_of_the_stream_ends_an_event() {
        let items = decode(100, &[b"data: [DO", b"NE]"]);
        assert_eq!(items, [event("", "[DONE]")]);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_line() {
        assert_eq!(decode(100, &[b"\xEF\xBB\xBFdata: x\n\n"]), [event("", "x")]);
        let bytewise: Vec<_> = b"\xEF\xBB\xBFdata: x\n\n".chunks(1).collect();
        assert_eq!(decode(7, &bytewise), [event("", "x")]);
    }

    #[test]
    fn an_event_above_the_limit_is_skipped_and_said() {
        let text = b"data: 0123456789abcdef\n\ndata: x\n\n";
        let expected = [event("oversized", ""), event("", "x")];
        assert_eq!(decode(12, &[text]), expected);
        let bytewise: Vec<_> = text.chunks(1).collect();
        assert_eq!(decode(12, &bytewise), expected);
    }

    #[test]
    fn nothing_of_a_large_event_is_kept_once_it_is_over_or_skipped() {
        let long = "x".repeat(1 << 20);
        for event in [format!("data: {long}"), format!("event: {long}"), format!("data: 1\ndata: {long}\n")] {
            let (begun, rest) = event.split_at(event.len() - 1);
            let mut decoder = SseDecoder::new(8 << 20);
            decoder.push(begun.as_bytes(), |_| unreachable!());
            assert!(decoder.kept() > 1 << 20);
            let mut skipping = decoder.clone();
            decoder.push(format!("{rest}\n\n").as_bytes(), |_| {});
            assert!(decoder.kept() <= 3 * crate::wire::KEPT);
            skipping.skip();
            assert!(skipping.kept() <= crate::wire::KEPT);
            let mut seen = Vec::new();
            skipping.push(format!("{rest}\n\ndata: x\n\n").as_bytes(), |item| {
                seen.push(matches!(item, Item::Oversized));
            });
            assert_eq!(seen, [true, false]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_chunking_gives_the_same_events(
            chunks in vec("(data: ?[ab]{0,3}|event:c|:x|[\r\n]{1,3}|[a:]|é){0,4}", 0..8),
            limit in prop_oneof![Just(6_usize), Just(1000)],
        ) {
            let whole = chunks.concat();
            let bytes: Vec<_> = whole.as_bytes().chunks(1).collect();
            let chunks: Vec<_> = chunks.iter().map(String::as_bytes).collect();
            let expected = decode(limit, &[whole.as_bytes()]);
            prop_assert_eq!(decode(limit, &chunks), expected.clone());
            prop_assert_eq!(decode(limit, &bytes), expected);
        }
    }
}

//! Lines of JSON (`application/x-ndjson`).

use memchr::memchr;

/// An incremental splitter of lines.
#[derive(Clone, Debug)]
pub struct NdjsonDecoder {
    line: Vec<u8>,
    limit: usize,
    oversized: bool,
}

/// What a stream of lines holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Item<'a> {
    /// A line, without its end. Blank lines are left out.
    Line(&'a [u8]),
    /// A line above the limit, which was skipped.
    Oversized,
}

// === impl NdjsonDecoder ===

impl NdjsonDecoder {
    /// A decoder that keeps at most `limit` bytes of a line.
    pub fn new(limit: usize) -> Self {
        Self { line: Vec::new(), limit, oversized: false }
    }

    /// Reads the next chunk and reports the lines that end in it, in order.
    pub fn push(&mut self, chunk: &[u8], mut sink: impl FnMut(Item<'_>)) {
        let mut rest = chunk;
        while let Some((line, after)) = memchr(b'\n', rest).and_then(|at| {
            let (line, end) = rest.split_at_checked(at)?;
            Some((line, end.get(1..)?))
        }) {
            rest = after;
            if self.line.is_empty() && !self.oversized && line.len() <= self.limit {
                report(line, &mut sink);
                continue;
            }
            self.keep(line);
            self.flush(&mut sink);
        }
        self.keep(rest);
    }

    /// Reports a last line without an end.
    pub fn finish(&mut self, mut sink: impl FnMut(Item<'_>)) {
        self.flush(&mut sink);
    }

    /// How much is kept of a line whose end has not come, in bytes.
    pub(crate) fn kept(&self) -> usize {
        self.line.capacity()
    }

    /// Skips the line whose end has not come, as one above the limit.
    pub(crate) fn skip(&mut self) {
        self.oversized = true;
        self.line = Vec::new();
    }

    fn keep(&mut self, piece: &[u8]) {
        if self.oversized || self.line.len() + piece.len() > self.limit {
            self.skip();
        } else {
            self.line.extend_from_slice(piece);
        }
    }

    fn flush(&mut self, sink: &mut impl FnMut(Item<'_>)) {
        if std::mem::take(&mut self.oversized) {
            sink(Item::Oversized);
        } else {
            report(&self.line, sink);
        }
        super::empty(&mut self.line);
    }
}

fn report(line: &[u8], sink: &mut impl FnMut(Item<'_>)) {
    let line = line.trim_ascii();
    if !line.is_empty() {
        sink(Item::Line(line));
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn decode(chunks: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
        let mut decoder = NdjsonDecoder::new(8);
        let mut items = Vec::new();
        let mut keep = |item: Item<'_>| {
            items.push(match item {
                Item::Line(line) => Some(line.to_vec()),
                Item::Oversized => None,
            });
        };
        for chunk in chunks {
            decoder.push(chunk, &mut keep);
        }
        decoder.finish(&mut keep);
        items
    }

    #[test]
    fn lines_end_with_the_stream_too() {
        let items = decode(&[b"{}\r\n\n{\"a\"", b":1}"]);
        assert_eq!(items, [Some(b"{}".to_vec()), Some(b"{\"a\":1}".to_vec())]);
    }

    #[test]
    fn a_line_above_the_limit_is_skipped_and_said() {
        let items = decode(&[b"123456", b"789\nab\n"]);
        assert_eq!(items, [None, Some(b"ab".to_vec())]);
    }

    #[test]
    fn a_line_that_is_skipped_is_said_and_not_kept() {
        let mut decoder = NdjsonDecoder::new(1 << 20);
        decoder.push(&[b'x'; 1 << 17], |_| unreachable!());
        assert!(decoder.kept() >= 1 << 17);
        decoder.skip();
        assert_eq!(decoder.kept(), 0);
        let mut seen = Vec::new();
        decoder.push(b"x\nab\n", |item| seen.push(item != Item::Oversized));
        assert_eq!(seen, [false, true]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_chunking_gives_the_same_lines(chunks in vec("[ab\r\n]{0,7}", 0..8)) {
            let whole = chunks.concat();
            let chunks: Vec<_> = chunks.iter().map(String::as_bytes).collect();
            prop_assert_eq!(decode(&chunks), decode(&[whole.as_bytes()]));
        }
    }
}

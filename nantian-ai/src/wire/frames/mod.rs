//! Binary frames (`application/vnd.amazon.eventstream`), in which AWS streams: two lengths and their
//! checksum, named headers, a payload, and a checksum of all of it.

use flate2::Crc;

/// Two lengths of four bytes, and their checksum.
const PRELUDE: usize = 12;

/// The checksum at the end.
const CHECKSUM: usize = 4;

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.amazon.eventstream";

/// An incremental splitter of frames.
///
/// ```
/// use nantian_ai::wire::frames::{FrameDecoder, Item};
///
/// // Nothing but a header `a` that is true.
/// let frame = [0, 0, 0, 19, 0, 0, 0, 3, 0xdb, 0x6b, 0x63, 0x81, 1, b'a', 0, 0x1f, 0x7e, 0x7f, 0x3c];
/// let mut frames = 0;
/// let mut decoder = FrameDecoder::new(1024);
/// for byte in frame {
///     decoder.push(&[byte], |item| frames += usize::from(matches!(item, Item::Frame(_))));
/// }
/// assert_eq!(frames, 1);
/// ```
#[derive(Clone, Debug)]
pub struct FrameDecoder {
    /// The start of a frame whose end has not come.
    begun: Vec<u8>,
    limit: usize,
    /// What is left of a frame above the limit.
    skipped: usize,
    lost: bool,
}

/// What a stream of frames holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Item<'a> {
    /// A frame whose checksums are right.
    Frame(Frame<'a>),
    /// A frame above the limit, which was skipped.
    Oversized,
    /// What cannot be a frame. Nobody knows where the next one begins, so this is the last item.
    Malformed,
}

/// A frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Frame<'a> {
    headers: &'a [u8],
    payload: &'a [u8],
}

/// What a frame says about itself first.
#[derive(Clone, Copy, Debug)]
struct Prelude {
    total: usize,
    headers: usize,
}

/// A header, and the bytes after it.
struct Header<'a> {
    name: &'a [u8],
    text: Option<&'a str>,
    rest: &'a [u8],
}

// === impl FrameDecoder ===

impl FrameDecoder {
    /// A decoder that keeps at most `limit` bytes of a frame.
    pub fn new(limit: usize) -> Self {
        Self { begun: Vec::new(), limit, skipped: 0, lost: false }
    }

    /// Reads the next chunk and reports the frames that end in it, in order.
    pub fn push(&mut self, chunk: &[u8], mut sink: impl FnMut(Item<'_>)) {
        let mut rest = chunk;
        while !self.lost && !rest.is_empty() {
            rest = match (self.skipped, self.begun.is_empty()) {
                (0, true) => self.read(rest, &mut sink),
                (0, false) => self.read_on(rest, &mut sink),
                (skipped, _) => {
                    let over = skipped.min(rest.len());
                    self.skipped -= over;
                    rest.get(over..).unwrap_or_default()
                }
            };
        }
    }

    /// How much is kept of a frame whose end has not come, in bytes.
    pub(crate) fn kept(&self) -> usize {
        self.begun.capacity()
    }

    /// Skips the frame whose end has not come, as one above the limit. Of one of which not even the length is
    /// known little is kept.
    pub(crate) fn skip(&mut self, mut sink: impl FnMut(Item<'_>)) {
        if let Some(prelude) = Prelude::read(&self.begun) {
            self.skipped = prelude.total.saturating_sub(self.begun.len());
            self.begun = Vec::new();
            sink(Item::Oversized);
        }
    }

    /// Reads a frame from its beginning, in place if all of it is here.
    fn read<'c>(&mut self, chunk: &'c [u8], sink: &mut impl FnMut(Item<'_>)) -> &'c [u8] {
        let Some(prelude) = chunk.get(..PRELUDE) else { return self.keep(chunk) };
        let Some(prelude) = self.judge(prelude, sink) else { return chunk };
        match chunk.split_at_checked(prelude.total) {
            Some((frame, after)) => {
                self.report(prelude, frame, sink);
                after
            }
            None => self.keep(chunk),
        }
    }

    /// Reads on in a frame that has begun in an earlier chunk.
    fn read_on<'c>(&mut self, chunk: &'c [u8], sink: &mut impl FnMut(Item<'_>)) -> &'c [u8] {
        let total = Prelude::read(&self.begun).map_or(PRELUDE, |prelude| prelude.total);
        let missing = total.saturating_sub(self.begun.len());
        let (more, after) = chunk.split_at_checked(missing).unwrap_or((chunk, &[]));
        self.begun.extend_from_slice(more);
        if self.begun.len() < total {
            return after;
        }
        let mut begun = std::mem::take(&mut self.begun);
        if total == PRELUDE {
            if self.judge(&begun, sink).is_some() {
                self.begun = begun;
            } else {
                self.skipped = self.skipped.saturating_sub(PRELUDE);
            }
        } else if let Some(prelude) = Prelude::read(&begun) {
            self.report(prelude, &begun, sink);
            super::empty(&mut begun);
            self.begun = begun;
        }
        after
    }

    fn keep<'c>(&mut self, chunk: &[u8]) -> &'c [u8] {
        self.begun.extend_from_slice(chunk);
        &[]
    }

    /// What a prelude says, if the frame is to be read.
    fn judge(&mut self, bytes: &[u8], sink: &mut impl FnMut(Item<'_>)) -> Option<Prelude> {
        let prelude = Prelude::read(bytes).filter(|prelude| prelude.fits() && is_summed_up(bytes, PRELUDE));
        match prelude {
            None => self.lose(sink),
            Some(prelude) if prelude.total > self.limit => {
                self.skipped = prelude.total;
                sink(Item::Oversized);
                return None;
            }
            Some(_) => {}
        }
        prelude
    }

    fn report(&mut self, prelude: Prelude, bytes: &[u8], sink: &mut impl FnMut(Item<'_>)) {
        match Frame::read(prelude, bytes) {
            Some(frame) => sink(Item::Frame(frame)),
            None => self.lose(sink),
        }
    }

    fn lose(&mut self, sink: &mut impl FnMut(Item<'_>)) {
        self.lost = true;
        self.begun = Vec::new();
        sink(Item::Malformed);
    }
}

// === impl Prelude ===

impl Prelude {
    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.get(..PRELUDE)?;
        let (total, rest) = number(bytes)?;
        let (headers, _) = number(rest)?;
        Some(Self { total: usize::try_from(total).ok()?, headers: usize::try_from(headers).ok()? })
    }

    fn fits(self) -> bool {
        self.total.checked_sub(PRELUDE + CHECKSUM).is_some_and(|most| self.headers <= most)
    }
}

// === impl Frame ===

impl<'a> Frame<'a> {
    fn read(prelude: Prelude, bytes: &'a [u8]) -> Option<Self> {
        let content = bytes.get(PRELUDE..bytes.len().checked_sub(CHECKSUM)?)?;
        let (headers, payload) = content.split_at_checked(prelude.headers)?;
        let mut rest = headers;
        while !rest.is_empty() {
            rest = Header::read(rest)?.rest;
        }
        is_summed_up(bytes, bytes.len()).then_some(Self { headers, payload })
    }

    /// The payload.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// A header that is text. Of several of one name the first counts.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        let mut rest = self.headers;
        loop {
            let header = Header::read(rest)?;
            if header.name == name.as_bytes() {
                return header.text;
            }
            rest = header.rest;
        }
    }
}

// === impl Header ===

impl<'a> Header<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (&length, rest) = bytes.split_first()?;
        let (name, rest) = rest.split_at_checked(length.into())?;
        std::str::from_utf8(name).ok()?;
        let (&kind, rest) = rest.split_first()?;
        // True, false; whole numbers of one to eight bytes; bytes, text; a time, a UUID.
        let (size, rest) = match kind {
            0 | 1 => (0, rest),
            2 => (1, rest),
            3 => (2, rest),
            4 => (4, rest),
            5 | 8 => (8, rest),
            9 => (16, rest),
            6 | 7 => {
                let (length, rest) = rest.split_first_chunk()?;
                (usize::from(u16::from_be_bytes(*length)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(size)?;
        let text = if kind == 7 { Some(std::str::from_utf8(value).ok()?) } else { None };
        Some(Self { name, text, rest })
    }
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*number), rest))
}

/// Whether the last four of so many bytes are the checksum of those before them.
fn is_summed_up(bytes: &[u8], length: usize) -> bool {
    let summed = length.checked_sub(CHECKSUM).and_then(|at| bytes.get(..length)?.split_at_checked(at));
    summed.is_some_and(|(content, sum)| {
        let mut crc = Crc::new();
        crc.update(content);
        sum == crc.sum().to_be_bytes()
    })
}

#[cfg(test)]
mod tests;

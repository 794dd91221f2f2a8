//! Finds where heads begin and end over HTTP/2.
//!
//! h2 tells of a head when it is complete, and waits for the rest of one for as long as it takes. So the
//! frames are followed on their way in, each by its own head (RFC 9113, section 4.1).

/// The length of what a client begins with (RFC 9113, section 3.4).
const PREFACE: usize = 24;
/// The length of the head of a frame.
const FRAME_HEAD: usize = 9;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Follows the frames of one connection.
#[derive(Debug)]
pub(super) struct FrameScanner {
    /// What is left of the preface, or of the content of a frame.
    left: usize,
    /// The head of a frame, as far as it has come.
    frame_head: [u8; FRAME_HEAD],
    known: usize,
    in_head: bool,
    /// Whether the head ends with the present frame.
    ends_head: bool,
}

impl Default for FrameScanner {
    fn default() -> Self {
        // The preface is waited for as a head is.
        Self { left: PREFACE, frame_head: [0; FRAME_HEAD], known: 0, in_head: true, ends_head: true }
    }
}

impl FrameScanner {
    /// Takes further bytes; returns whether a head has ended in them.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> bool {
        let mut has_ended = false;
        while !bytes.is_empty() {
            let taken = if self.left > 0 { self.skip(bytes) } else { self.read(bytes) };
            bytes = bytes.get(taken..).unwrap_or_default();
            if self.left == 0 && self.known == 0 && self.ends_head {
                (self.in_head, self.ends_head) = (false, false);
                has_ended = true;
            }
        }
        has_ended
    }

    /// Whether a head has begun and not ended.
    pub(super) fn is_in_head(&self) -> bool {
        self.in_head
    }

    fn skip(&mut self, bytes: &[u8]) -> usize {
        let taken = self.left.min(bytes.len());
        self.left -= taken;
        taken
    }

    fn read(&mut self, bytes: &[u8]) -> usize {
        let before = self.known;
        for (slot, byte) in self.frame_head.iter_mut().skip(before).zip(bytes) {
            *slot = *byte;
            self.known += 1;
        }
        if self.known == FRAME_HEAD {
            let [high, middle, low, kind, flags, ..] = self.frame_head;
            self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            self.known = 0;
            if kind == HEADERS || kind == CONTINUATION {
                (self.in_head, self.ends_head) = (true, flags & END_HEADERS != 0);
            }
            return FRAME_HEAD - before;
        }
        bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: u8 = 0;

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        frame.extend(vec![0xff; length.into()]);
        frame
    }

    /// A connection that has begun.
    fn begun() -> FrameScanner {
        let mut scanner = FrameScanner::default();
        assert!(!scanner.feed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r") && scanner.is_in_head());
        assert!(scanner.feed(b"\n") && !scanner.is_in_head());
        scanner
    }

    #[test]
    fn a_head_ends_with_its_last_frame_however_its_bytes_come() {
        let head = [frame(HEADERS, 1, 7), frame(CONTINUATION, 0, 0), frame(CONTINUATION, END_HEADERS, 3)];
        let bytes = [frame(DATA, END_HEADERS, 5), head.concat(), frame(DATA, 0, 0)].concat();
        let (begins, ends) = (14 + 9, 14 + 16 + 9 + 12);
        for size in 1..=bytes.len() {
            let mut scanner = begun();
            for (number, part) in bytes.chunks(size).enumerate() {
                let (from, to) = (number * size, number * size + part.len());
                assert_eq!(scanner.feed(part), from < ends && to >= ends, "{size}: {to}");
                assert_eq!(scanner.is_in_head(), (begins..ends).contains(&to), "{size}: {to}");
            }
        }
    }

    #[test]
    fn a_head_may_begin_where_another_one_has_ended() {
        let mut scanner = begun();
        let both = [frame(HEADERS, END_HEADERS, 4), frame(HEADERS, 0, 4)].concat();
        assert!(scanner.feed(&both) && scanner.is_in_head());
        assert!(!scanner.feed(&frame(CONTINUATION, 0, 4)) && scanner.is_in_head());
        assert!(scanner.feed(&frame(CONTINUATION, END_HEADERS, 0)) && !scanner.is_in_head());
    }
}

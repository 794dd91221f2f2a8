//! Finds heads that name both Content-Length and Transfer-Encoding.
//!
//! hyper resolves the ambiguity as RFC 9112, section 6.3 allows: Transfer-Encoding wins, Content-Length is
//! dropped, the connection is closed after the response. That is safe, but the same section calls such a
//! message a likely smuggling attempt that ought to be handled as an error, and after parsing nothing of it
//! can be seen. So the bytes are looked at on their way in, line by line.

/// The longest name looked for, with its colon.
const LONGEST: usize = b"transfer-encoding:".len();

/// Looks at the bytes of one head after the other.
#[derive(Debug, Default)]
pub(super) struct HeadScanner {
    /// The beginning of a line that the last bytes broke off in.
    carry: [u8; LONGEST],
    carried: usize,
    /// The line is longer than what was carried of it.
    inside_line: bool,
    content_length: bool,
    transfer_encoding: bool,
    /// The head is over and a body may follow; what comes is not looked at.
    in_body: bool,
}

impl HeadScanner {
    /// Expects a new head.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Takes further bytes; returns whether a head ended in them that is ambiguous.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> bool {
        let mut ambiguous = false;
        while !self.in_body {
            let Some(end) = memchr::memchr(b'\n', bytes) else {
                self.keep(bytes);
                break;
            };
            let (line, rest) = bytes.split_at(end);
            self.end_line(line, &mut ambiguous);
            bytes = rest.get(1..).unwrap_or_default();
        }
        ambiguous
    }

    fn keep(&mut self, bytes: &[u8]) {
        for (slot, byte) in self.carry.iter_mut().skip(self.carried).zip(bytes) {
            *slot = *byte;
            self.carried += 1;
        }
        self.inside_line |= !bytes.is_empty();
    }

    fn end_line(&mut self, line: &[u8], ambiguous: &mut bool) {
        let start = if self.inside_line {
            self.keep(line);
            self.carry.get(..self.carried).unwrap_or_default()
        } else {
            line
        };
        match start.first() {
            Some(b'c' | b'C') if names(start, b"content-length:") => self.content_length = true,
            Some(b't' | b'T') if names(start, b"transfer-encoding:") => self.transfer_encoding = true,
            None | Some(b'\r') => {
                *ambiguous |= self.content_length && self.transfer_encoding;
                self.in_body = self.content_length || self.transfer_encoding;
            }
            _ => {}
        }
        self.carried = 0;
        self.inside_line = false;
    }
}

fn names(line: &[u8], name: &[u8]) -> bool {
    line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMBIGUOUS: &[u8] =
        b"POST / HTTP/1.1\r\nHost: a\r\nCONTENT-length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    const PLAIN: &[u8] =
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 21\r\n\r\nTransfer-Encoding: x\r\n\r\n";

    #[test]
    fn both_framing_headers_are_seen_however_the_bytes_are_split() {
        for cut in 0..AMBIGUOUS.len() {
            let (first, second) = AMBIGUOUS.split_at(cut);
            let mut scanner = HeadScanner::default();
            assert!(scanner.feed(first) | scanner.feed(second), "cut at {cut}");
        }
        let mut scanner = HeadScanner::default();
        assert!(AMBIGUOUS.chunks(1).fold(false, |seen, byte| seen | scanner.feed(byte)));
    }

    #[test]
    fn a_body_that_looks_like_a_header_is_no_ambiguity() {
        let mut scanner = HeadScanner::default();
        assert!(!scanner.feed(PLAIN));
        scanner.reset();
        assert!(!scanner.feed(PLAIN));
    }

    #[test]
    fn a_pipelined_head_is_looked_at_too() {
        let mut pipelined = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
        pipelined.extend_from_slice(AMBIGUOUS);
        assert!(HeadScanner::default().feed(&pipelined));
    }
}

//! The few members of a buffered reply that tell the usage, taken out while it passes.

use crate::wire::json::{Mark, Scanner};

/// The most that is kept of a name or a value; `usage` objects are far smaller.
const LIMIT: usize = 8 * 1024;

/// Looks for members of the outermost object.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    scanner: Scanner,
    wanted: &'static [&'static str],
    capture: Capture,
    /// Not JSON after all.
    broken: bool,
}

#[derive(Clone, Debug)]
struct Capture {
    name: Vec<u8>,
    value: Vec<u8>,
    of: Of,
}

/// What the bytes that come next belong to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Of {
    Nothing,
    Name,
    Value,
}

// === impl Reply ===

impl Reply {
    pub(super) fn new(wanted: &'static [&'static str]) -> Self {
        // As much as names and counts mostly take.
        let (name, value) = (Vec::with_capacity(32), Vec::with_capacity(256));
        let capture = Capture { name, value, of: Of::Nothing };
        Self { scanner: Scanner::new(), wanted, capture, broken: false }
    }

    /// Reads the next chunk and reports the wanted members that end in it, with their JSON.
    pub(super) fn push(&mut self, chunk: &[u8], mut sink: impl FnMut(&'static str, &[u8])) {
        if self.broken {
            return;
        }
        let Self { scanner, wanted, capture, .. } = self;
        let mut from = 0;
        let scanned = scanner.push(chunk, |mark, at| match mark {
            Mark::KeyStart => {
                capture.start(Of::Name);
                from = at;
            }
            Mark::KeyEnd => {
                capture.take(chunk.get(from..at));
                capture.of = Of::Nothing;
            }
            Mark::ValueStart if capture.find(wanted).is_some() => {
                capture.start(Of::Value);
                from = at;
            }
            Mark::ValueStart => {}
            Mark::ValueEnd if capture.of == Of::Value => {
                capture.take(chunk.get(from..at));
                capture.of = Of::Nothing;
                if let Some(name) = capture.find(wanted) {
                    sink(name, &capture.value);
                }
            }
            Mark::ValueEnd => {}
        });
        capture.take(chunk.get(from..));
        self.broken = scanned.is_err();
    }

    pub(super) fn is_complete(&self) -> bool {
        !self.broken && self.scanner.is_complete()
    }
}

// === impl Capture ===

impl Capture {
    fn start(&mut self, of: Of) {
        self.of = of;
        match of {
            Of::Nothing => {}
            Of::Name => self.name.clear(),
            Of::Value => self.value.clear(),
        }
    }

    /// Keeps a piece of what is being captured. One byte above the limit is enough to make it unreadable.
    fn take(&mut self, piece: Option<&[u8]>) {
        let buffer = match self.of {
            Of::Nothing => return,
            Of::Name => &mut self.name,
            Of::Value => &mut self.value,
        };
        let piece = piece.unwrap_or_default();
        let room = (LIMIT + 1).saturating_sub(buffer.len());
        buffer.extend_from_slice(piece.get(..room).unwrap_or(piece));
    }

    fn find(&self, wanted: &'static [&'static str]) -> Option<&'static str> {
        wanted.iter().find(|name| name.as_bytes() == self.name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &[u8] = br#"{"id":"x","choices":[{"usage":1}],"usage":{"prompt_tokens":9},"z":0}"#;

    fn read(chunks: &[&[u8]]) -> (Vec<String>, bool) {
        let mut reply = Reply::new(&["usage"]);
        let mut found = Vec::new();
        for chunk in chunks {
            reply.push(chunk, |name, value| {
                found.push(format!("{name}={}", String::from_utf8_lossy(value)));
            });
        }
        (found, reply.is_complete())
    }

    #[test]
    fn the_outermost_member_is_found_in_any_chunking() {
        let expected = (vec![r#"usage={"prompt_tokens":9}"#.to_owned()], true);
        for size in 1..=REPLY.len() {
            let chunks: Vec<_> = REPLY.chunks(size).collect();
            assert_eq!(read(&chunks), expected, "{size}");
        }
    }

    #[test]
    fn a_huge_value_is_not_kept() {
        let huge = format!(r#"{{"usage":"{}"}}"#, "x".repeat(100_000));
        let mut reply = Reply::new(&["usage"]);
        reply.push(huge.as_bytes(), |_, value| assert!(value.len() <= LIMIT + 1));
        assert!(reply.capture.value.capacity() < 4 * LIMIT);
    }

    #[test]
    fn what_is_not_json_is_never_complete() {
        assert_eq!(read(&[b"<html>", b"{}"]), (Vec::new(), false));
    }
}

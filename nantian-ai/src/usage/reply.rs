//! The few members of a buffered reply that tell the usage, taken out while it passes.

use super::about;
use crate::wire::BYTE_ORDER_MARK;
use crate::wire::json::{Mark, Scanner};

/// The most that is kept of a name or a value; `usage` objects are far smaller.
const LIMIT: usize = 8 * 1024;

/// Looks for members of the outermost object.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    /// What may yet come of the mark that may stand before it.
    mark: &'static [u8],
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
    first: First,
}

/// Why the first of several answers has ended.
#[derive(Clone, Debug, Default)]
struct First {
    answer: Option<Box<Reply>>,
    reason: Vec<u8>,
}

/// How an answer of a list says why it has ended.
const REASONS: [&str; 2] = ["finish_reason", "finishReason"];

/// What the bytes that come next belong to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Of {
    Nothing,
    Name,
    Value,
    /// Answers, each of which says why it has ended.
    Answers,
}

// === impl Reply ===

impl Reply {
    pub(super) fn new(wanted: &'static [&'static str]) -> Self {
        // As much as names and counts mostly take.
        let (name, value) = (Vec::with_capacity(32), Vec::with_capacity(256));
        let capture = Capture { name, value, of: Of::Nothing, first: First::default() };
        Self { mark: BYTE_ORDER_MARK, scanner: Scanner::new(), wanted, capture, broken: false }
    }

    /// Reads the next chunk and reports the wanted members that end in it, with their JSON.
    pub(super) fn push(&mut self, chunk: &[u8], mut sink: impl FnMut(&'static str, &[u8])) {
        if self.broken {
            return;
        }
        let chunk = self.after_mark(chunk);
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
            Mark::ValueStart => {
                if let Some(name) = capture.find(wanted) {
                    let lists = [about::CHOICES, about::CANDIDATES].contains(&name);
                    capture.start(if lists { Of::Answers } else { Of::Value });
                    from = at;
                }
            }
            Mark::ValueEnd if capture.of == Of::Nothing => {}
            Mark::ValueEnd => {
                capture.take(chunk.get(from..at));
                let of_answers = std::mem::replace(&mut capture.of, Of::Nothing) == Of::Answers;
                if let Some(name) = capture.find(wanted) {
                    sink(name, if of_answers { &capture.first.reason } else { &capture.value });
                }
            }
        });
        capture.take(chunk.get(from..));
        self.broken = scanned.is_err();
    }

    /// The chunk without what is in it of the mark.
    fn after_mark<'c>(&mut self, chunk: &'c [u8]) -> &'c [u8] {
        let length = chunk.iter().zip(self.mark).take_while(|(byte, expected)| byte == expected).count();
        let text = chunk.get(length..).unwrap_or_default();
        self.mark = if text.is_empty() { self.mark.get(length..).unwrap_or_default() } else { &[] };
        text
    }

    pub(super) fn is_complete(&self) -> bool {
        !self.broken && self.scanner.is_complete()
    }

    /// Whether something is missing that may yet come.
    pub(super) fn lacks_end(&self) -> bool {
        !self.broken && !self.scanner.is_complete()
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
            Of::Answers => self.first = First::default(),
        }
    }

    /// Keeps a piece of what is being captured. One byte above the limit is enough to make it unreadable.
    fn take(&mut self, piece: Option<&[u8]>) {
        let piece = piece.unwrap_or_default();
        let buffer = match self.of {
            Of::Nothing => return,
            Of::Name => &mut self.name,
            Of::Value => &mut self.value,
            Of::Answers => return self.first.take(piece),
        };
        let room = (LIMIT + 1).saturating_sub(buffer.len());
        buffer.extend_from_slice(piece.get(..room).unwrap_or(piece));
    }

    fn find(&self, wanted: &'static [&'static str]) -> Option<&'static str> {
        wanted.iter().find(|name| name.as_bytes() == self.name).copied()
    }
}

// === impl First ===

impl First {
    /// Reads more of the list, until the first answer has said it.
    fn take(&mut self, piece: &[u8]) {
        if !self.reason.is_empty() {
            return;
        }
        let piece = match &self.answer {
            Some(_) => piece,
            None => match memchr::memchr(b'{', piece) {
                Some(at) => piece.get(at..).unwrap_or_default(),
                None => return,
            },
        };
        let answer = self.answer.get_or_insert_with(|| Box::new(Reply::new(&REASONS)));
        let reason = &mut self.reason;
        // What comes after the first answer is no part of it, and is not read.
        answer.push(piece, |_, json| {
            reason.clear();
            reason.extend_from_slice(json);
        });
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
        for reply in [REPLY.to_vec(), [BYTE_ORDER_MARK, REPLY].concat()] {
            for size in 1..=reply.len() {
                let chunks: Vec<_> = reply.chunks(size).collect();
                assert_eq!(read(&chunks), expected, "{size}");
            }
        }
    }

    #[test]
    fn why_the_first_answer_has_ended_is_found_in_any_chunking() {
        for (reply, reason) in [
            (
                r#"{"choices":[{"message":{"content":"}]{"},"finish_reason":"stop"},{"finish_reason":"length"}],"z":0}"#,
                r#"choices="stop""#,
            ),
            (
                r#"{"candidates": [ {"finishReason":"STOP","content":{"parts":[{"finishReason":"no"}]}} ]}"#,
                r#"candidates="STOP""#,
            ),
            (r#"{"choices":[]}"#, "choices="),
            (r#"{"choices":[{"finish_reason":null}]}"#, "choices=null"),
        ] {
            for size in 1..=reply.len() {
                let mut found = Vec::new();
                let mut reader = Reply::new(&["choices", "candidates"]);
                for chunk in reply.as_bytes().chunks(size) {
                    reader.push(chunk, |name, value| {
                        found.push(format!("{name}={}", String::from_utf8_lossy(value)));
                    });
                }
                assert_eq!((found, reader.is_complete()), (vec![reason.to_owned()], true), "{size}");
            }
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
        assert_eq!(read(&[b"{}", BYTE_ORDER_MARK]), (Vec::new(), false));
    }
}

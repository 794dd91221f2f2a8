//! Takes out of an OpenAI stream the usage that the client has not asked for.
//!
//! Whole events are looked at, and only those that speak of usage; every other byte passes as it came. OpenAI
//! says `"usage":null` in every event but one, so that is found and taken out without reading the rest of the
//! event.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use memchr::{memchr2, memchr2_iter, memmem::Finder, memrchr2_iter};

use crate::edit::Object;

/// An event above this size passes as it is. Those that tell usage are short, and what is kept of others is
/// not counted.
const LIMIT: usize = 64 * 1024;

/// The end of an event, in each of the three ways to end a line.
const ENDS: [&[u8]; 3] = [b"\n\n", b"\r\n\r\n", b"\r\r"];

/// The longest of them.
const LONGEST_END: usize = 4;

/// An incremental filter of one stream, for a client that has not asked for the usage that
/// [`Target::prepare`](crate::Target::prepare) or [`ask_for_usage`](super::ask_for_usage) has.
///
/// ```
/// use bytes::Bytes;
/// use nantian_ai::usage::HideUsage;
///
/// let mut hide = HideUsage::new();
/// let event = Bytes::from_static(b"data: {\"choices\":[{\"delta\":{}}],\"usage\":null}\n\n");
/// assert_eq!(hide.push(event), "data: {\"choices\":[{\"delta\":{}}]}\n\n");
/// let event = Bytes::from_static(b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9}}\n\n");
/// assert_eq!(hide.push(event), "");
/// ```
#[derive(Debug)]
pub struct HideUsage {
    /// An event whose end has not come.
    pending: BytesMut,
    usage: Finder<'static>,
}

// === impl HideUsage ===

impl HideUsage {
    /// A filter at the start of a stream.
    pub fn new() -> Self {
        Self { pending: BytesMut::new(), usage: Finder::new(b"\"usage\"") }
    }

    /// The events that end in this chunk.
    pub fn push(&mut self, mut chunk: Bytes) -> Bytes {
        if self.pending.is_empty() {
            let end = passing(&chunk, 0);
            self.keep(&chunk.split_off(end));
            return self.edit(chunk);
        }
        let seen = self.pending.len().saturating_sub(LONGEST_END);
        self.pending.extend_from_slice(&chunk);
        let end = passing(&self.pending, seen);
        if end == 0 {
            return Bytes::new();
        }
        let whole = self.pending.split_to(end).freeze();
        self.edit(whole)
    }

    /// An event that the end of the stream has cut off.
    pub fn finish(&mut self) -> Bytes {
        let rest = std::mem::take(&mut self.pending).freeze();
        self.edit(rest)
    }

    fn keep(&mut self, rest: &[u8]) {
        self.pending.extend_from_slice(rest);
    }

    /// Events without their usage.
    fn edit(&self, events: Bytes) -> Bytes {
        let Some(mut at) = self.usage.find(&events) else { return events };
        let mut out = BytesMut::with_capacity(events.len());
        // Before this, everything has been passed on or taken out.
        let mut from = 0;
        loop {
            let whole = event_around(&events, from, at);
            let event = events.get(whole.clone()).unwrap_or_default();
            out.extend_from_slice(events.get(from..whole.start).unwrap_or_default());
            self.pass(event, at - whole.start, &mut out);
            from = whole.end;
            let rest = events.get(from..).unwrap_or_default();
            match self.usage.find(rest) {
                Some(next) => at = from + next,
                None => {
                    out.extend_from_slice(rest);
                    return out.freeze();
                }
            }
        }
    }

    /// Passes an event on that speaks of usage, for the first time at `at`.
    fn pass(&self, event: &[u8], at: usize, out: &mut BytesMut) {
        let more = event.get(at + 1..).is_some_and(|rest| self.usage.find(rest).is_some());
        match null_member(event, at).filter(|_| !more) {
            Some(member) => {
                out.extend_from_slice(event.get(..member.start).unwrap_or_default());
                out.extend_from_slice(event.get(member.end..).unwrap_or_default());
            }
            None => pass_parsed(event, out),
        }
    }
}

impl Default for HideUsage {
    fn default() -> Self {
        Self::new()
    }
}

/// Passes an event on that says more of usage, or says it otherwise.
fn pass_parsed(event: &[u8], out: &mut BytesMut) {
    let Some((before, data)) =
        memchr::memmem::find(event, b"data:").and_then(|at| event.split_at_checked(at + 5))
    else {
        return out.extend_from_slice(event);
    };
    let json = data.trim_ascii();
    let Ok(object) = Object::parse(json) else {
        return out.extend_from_slice(event);
    };
    let empty = object.value("choices").is_some_and(|list| {
        list.strip_prefix(b"[").is_some_and(|rest| rest.trim_ascii_start().starts_with(b"]"))
    });
    if empty && object.value("usage").is_some_and(|usage| usage != b"null") {
        // Blank lines before it are not its own.
        let blank = event.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
        return out.extend_from_slice(event.get(..blank).unwrap_or_default());
    }
    let start = data.len() - data.trim_ascii_start().len();
    let end = data.trim_ascii_end().len();
    out.extend_from_slice(before);
    out.extend_from_slice(data.get(..start).unwrap_or_default());
    object.without("usage").into_iter().for_each(|piece| out.extend_from_slice(piece));
    out.extend_from_slice(data.get(end..).unwrap_or_default());
}

/// `,"usage":null` around the name at `at`, if that is a member of the outermost object of its line.
///
/// Within a string its quotes would be escaped, so it is a member of some object; and it is the outermost one
/// that ends with the line.
fn null_member(event: &[u8], at: usize) -> Option<Range<usize>> {
    let before = event.get(..at)?.trim_ascii_end();
    before.ends_with(b",").then_some(())?;
    let start = before.len() - 1;
    let rest = event.get(at + b"\"usage\"".len()..)?;
    let rest = rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"null")?;
    closes_with_the_line(rest).then(|| start..event.len() - rest.len())
}

/// Whether nothing but one object is closed before the line ends.
fn closes_with_the_line(mut rest: &[u8]) -> bool {
    let mut depth = 0_u32;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'"' => match end_of_text(rest) {
                Some(after) => rest = after,
                None => return false,
            },
            b'{' | b'[' => depth += 1,
            b']' if depth == 0 => return false,
            b'}' if depth == 0 => {
                let line = memchr2(b'\n', b'\r', rest).and_then(|end| rest.get(..end)).unwrap_or(rest);
                return line.trim_ascii().is_empty();
            }
            b'}' | b']' => depth -= 1,
            b'\n' | b'\r' => return false,
            _ => {}
        }
    }
    false
}

/// What comes after a string whose first quote has been read.
fn end_of_text(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let at = memchr2(b'"', b'\\', rest)?;
        let (found, after) = rest.get(at..)?.split_first()?;
        if *found == b'"' {
            return Some(after);
        }
        rest = after.get(1..)?;
    }
}

/// The event that `at` is in, none of it before `from`.
fn event_around(events: &[u8], from: usize, at: usize) -> Range<usize> {
    let start = from + last_end(events.get(from..at).unwrap_or_default(), 0);
    let rest = events.get(at..).unwrap_or_default();
    let end = memchr2_iter(b'\n', b'\r', rest).map(|end| at + end + 1).find(|end| ends_at(events, *end));
    start..end.unwrap_or(events.len())
}

/// How much is not kept: the events that end after `from`, and what comes behind them if that is too much.
fn passing(bytes: &[u8], from: usize) -> usize {
    let end = last_end(bytes, from);
    if bytes.len() - end > LIMIT { bytes.len() } else { end }
}

/// Where the last event ends that ends after `from`; 0 if none does.
fn last_end(bytes: &[u8], from: usize) -> usize {
    let late = bytes.get(from..).unwrap_or_default();
    memrchr2_iter(b'\n', b'\r', late).map(|end| from + end + 1).find(|end| ends_at(bytes, *end)).unwrap_or(0)
}

fn ends_at(bytes: &[u8], end: usize) -> bool {
    let bytes = bytes.get(..end).unwrap_or_default();
    ENDS.iter().any(|end| bytes.ends_with(end))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn hide(stream: &str, size: usize) -> String {
        let mut hide = HideUsage::new();
        let mut out = Vec::new();
        for chunk in stream.as_bytes().chunks(size) {
            out.extend_from_slice(&hide.push(Bytes::copy_from_slice(chunk)));
        }
        out.extend_from_slice(&hide.finish());
        String::from_utf8(out).unwrap()
    }

    const STREAM: &str = ": comment\n\ndata: {\"id\":\"x\",\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\" h\u{e9}\"}}],\"usage\":null}\n\n\
        data:{\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":9},\"z\":1}\r\n\r\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9}}\n\ndata: [DONE]\n\n";

    const HIDDEN: &str = ": comment\n\ndata: {\"id\":\"x\",\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\" h\u{e9}\"}}]}\n\n\
        data:{\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"z\":1}\r\n\r\n\
        data: [DONE]\n\n";

    #[test]
    fn only_usage_is_taken_out_in_any_chunking() {
        for size in 1..=STREAM.len() {
            assert_eq!(hide(STREAM, size), HIDDEN, "{size}");
        }
    }

    #[test]
    fn nulls_go_wherever_they_are_and_nothing_that_only_looks_like_them() {
        for (event, expected) in [
            (
                "data: {\"choices\":[{}],\"usage\":null,\"obfuscation\":\"}{\\\"\"}\n\n",
                "data: {\"choices\":[{}],\"obfuscation\":\"}{\\\"\"}\n\n",
            ),
            ("data: {\"usage\": null, \"choices\":[{}]}\r\r", "data: { \"choices\":[{}]}\r\r"),
            ("data: {\"a\" : 1 , \"usage\" : null }\n\n", "data: {\"a\" : 1  }\n\n"),
            ("data: {\"a\":1,\"usage\":null,\"usage\":null}\n\n", "data: {\"a\":1}\n\n"),
        ] {
            assert_eq!(hide(event, event.len()), expected);
        }
        for event in [
            "data: {\"choices\":[{\"delta\":{},\"usage\":null}]}\n\n",
            "data: {\"x\":{\"a\":1,\"usage\":null}}\n\n",
            "data: {\"x\":[1,\"usage\"]}\n\n",
            "data: {\"x\":\",\\\"usage\\\":null\"}\n\n",
            "data: {\"a\":1,\"usage\":null\n\n",
        ] {
            assert_eq!(hide(event, event.len()), event);
        }
    }

    #[test]
    fn an_event_without_end_is_passed_on_at_last() {
        let long = format!("data: {{\"a\":\"{}", "x".repeat(LIMIT));
        assert_eq!(hide(&long, 4_096), long);
        assert_eq!(HideUsage::new().push(long.clone().into()), long, "it is not kept");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn what_is_left_is_the_object_without_its_usage(
            members in vec(("usage|a|choices", "null|\\{\"usage\":null\\}|\\[\\{\"a\":1,\"usage\":null\\}\\]|\",\"|\"\\\\\"usage\""), 0..5),
            space in "| ",
            size in 1_usize..80,
        ) {
            let body = members.iter().map(|(name, value)| format!("\"{name}\"{space}:{space}{value}"));
            let body = body.collect::<Vec<_>>().join(&format!("{space},{space}"));
            let event = format!("data: {{{body}}}\n\n");
            let hidden = hide(&event.repeat(3), size);
            let mut expected: serde_json::Value = serde_json::from_str(&event[6..]).unwrap();
            expected.as_object_mut().unwrap().remove("usage");
            let events: Vec<_> = hidden.split_inclusive("\n\n").collect();
            prop_assert_eq!(events.len(), 3);
            for event in events {
                let left: serde_json::Value = serde_json::from_str(&event[6..]).unwrap();
                prop_assert_eq!(&left, &expected);
            }
        }
    }

    #[test]
    fn what_does_not_speak_of_usage_is_not_copied() {
        let chunk = Bytes::from_static(b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n");
        let out = HideUsage::new().push(chunk.clone());
        assert_eq!(out.as_ptr(), chunk.as_ptr());
    }
}

//! Takes out of an OpenAI stream the usage that the client has not asked for.
//!
//! Whole events are looked at, and only those that speak of usage; every other byte passes as it came.

use bytes::{Bytes, BytesMut};
use memchr::memmem::Finder;

use crate::edit::Object;

/// An event above this size passes as it is.
const LIMIT: usize = 1024 * 1024;

/// The end of an event, in each of the three ways to end a line.
const ENDS: [&[u8]; 3] = [b"\n\n", b"\r\n\r\n", b"\r\r"];

/// An incremental filter of one stream.
#[derive(Debug)]
pub(crate) struct HideUsage {
    /// An event whose end has not come.
    pending: BytesMut,
    usage: Finder<'static>,
}

// === impl HideUsage ===

impl HideUsage {
    pub(crate) fn new() -> Self {
        Self { pending: BytesMut::new(), usage: Finder::new(b"\"usage\"") }
    }

    /// The events that end in this chunk.
    pub(crate) fn push(&mut self, chunk: Bytes) -> Bytes {
        if self.pending.is_empty() && ends_an_event(&chunk) && self.usage.find(&chunk).is_none() {
            return chunk;
        }
        self.pending.extend_from_slice(&chunk);
        let mut out = BytesMut::new();
        while let Some(end) = end_of_event(&self.pending) {
            let event = self.pending.split_to(end);
            self.pass(&event, &mut out);
        }
        if self.pending.len() > LIMIT {
            out.extend_from_slice(&std::mem::take(&mut self.pending));
        }
        out.freeze()
    }

    /// An event that the end of the stream has cut off.
    pub(crate) fn finish(&mut self) -> Bytes {
        let mut out = BytesMut::new();
        let event = std::mem::take(&mut self.pending);
        self.pass(&event, &mut out);
        out.freeze()
    }

    fn pass(&self, event: &[u8], out: &mut BytesMut) {
        if self.usage.find(event).is_none() {
            return out.extend_from_slice(event);
        }
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
            return;
        }
        out.extend_from_slice(before);
        out.extend_from_slice(b" ");
        object.without("usage").into_iter().for_each(|piece| out.extend_from_slice(piece));
        let end = data.len() - data.trim_ascii_end().len();
        out.extend_from_slice(data.get(data.len() - end..).unwrap_or_default());
    }
}

fn ends_an_event(bytes: &[u8]) -> bool {
    ENDS.iter().any(|end| bytes.ends_with(end))
}

/// Where the first event ends, if it does.
fn end_of_event(bytes: &[u8]) -> Option<usize> {
    ENDS.iter().filter_map(|end| Some(memchr::memmem::find(bytes, end)? + end.len())).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": comment\n\ndata: {\"id\":\"x\",\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\" h\u{e9}\"}}],\"usage\":null}\n\n\
        data:{\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":9},\"z\":1}\r\n\r\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9}}\n\ndata: [DONE]\n\n";

    const HIDDEN: &str = ": comment\n\ndata: {\"id\":\"x\",\"choices\":[{\"delta\":{\"content\":\"\\\"usage\\\" h\u{e9}\"}}]}\n\n\
        data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"z\":1}\r\n\r\n\
        data: [DONE]\n\n";

    #[test]
    fn only_usage_is_taken_out_in_any_chunking() {
        for size in 1..=STREAM.len() {
            let mut hide = HideUsage::new();
            let mut out = Vec::new();
            for chunk in STREAM.as_bytes().chunks(size) {
                out.extend_from_slice(&hide.push(Bytes::copy_from_slice(chunk)));
            }
            out.extend_from_slice(&hide.finish());
            assert_eq!(String::from_utf8(out).unwrap(), HIDDEN, "{size}");
        }
    }

    #[test]
    fn what_does_not_speak_of_usage_is_not_copied() {
        let chunk = Bytes::from_static(b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n");
        let out = HideUsage::new().push(chunk.clone());
        assert_eq!(out.as_ptr(), chunk.as_ptr());
    }
}

//! The frames of a Converse stream into the common form. Token counts come after the reason why the answer
//! ends, so the answer is complete with them, or where the bytes end after that reason.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::read_reply::{malformed, read_tokens, rest_beside};
use super::{EVENT_TYPE, OF_BEDROCK, exception, is_malformed, read_stop};
use crate::codec::Fields;
use crate::ir::{Event, Fault, Losses, Part};
use crate::wire::frames::Frame;

/// Reads the frames of one stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamReader {
    started: bool,
    open: Option<Open>,
    /// It has said something that is no thought.
    said: bool,
    calls: bool,
    stopped: bool,
    losses: Losses,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Open {
    Text,
    Reasoning,
    Call(Option<u64>),
    /// Reasoning that is told once it is whole.
    Encrypted(Vec<u8>),
}

// === impl StreamReader ===

impl StreamReader {
    /// Reads one frame.
    pub(crate) fn frame(&mut self, frame: &Frame<'_>, sink: &mut impl FnMut(Event)) {
        let Some(kind) = frame.text(EVENT_TYPE) else {
            return sink(Event::Failed(exception(frame)));
        };
        let payload: &[u8] = if frame.payload().is_empty() { b"{}" } else { frame.payload() };
        let Ok(mut event) = Fields::parse_said(payload) else {
            return sink(Event::Failed(Fault::unreadable()));
        };
        if !std::mem::replace(&mut self.started, true) {
            sink(Event::Start { id: None, model: None });
        }
        let index = event.any_count("contentBlockIndex");
        match kind {
            "contentBlockStart" => self.begin(index, event.any_object("start"), sink),
            "contentBlockDelta" => self.delta(index, event.any_object("delta"), sink),
            "contentBlockStop" => self.close(sink),
            "messageStop" => self.stop(event.any_text("stopReason").as_deref(), sink),
            "metadata" => {
                sink(Event::Tokens(read_tokens(&mut event.any_object("usage"))));
                if self.stopped {
                    sink(Event::End);
                }
            }
            "messageStart" => event.ignore(&["role"]),
            added => {
                self.losses.add_below("", added);
                return;
            }
        }
        rest_beside(event, &mut self.losses);
    }

    /// The stream has ended.
    pub(crate) fn finish(&mut self, sink: &mut impl FnMut(Event)) {
        sink(if self.stopped { Event::End } else { Event::Failed(Fault::truncated()) });
    }

    /// What has no place in the common form.
    pub(crate) fn losses(&self) -> &Losses {
        &self.losses
    }

    /// How much is kept of what is told once it is whole, in bytes.
    pub(crate) fn kept(&self) -> usize {
        match &self.open {
            Some(Open::Encrypted(data)) => data.len(),
            _ => 0,
        }
    }

    /// Only tool calls are begun so; other blocks begin with what is said.
    fn begin(&mut self, index: Option<u64>, mut start: Fields, sink: &mut impl FnMut(Event)) {
        let mut call = start.any_object("toolUse");
        let name = call.some_text("name");
        let id = call.any_text("toolUseId").unwrap_or_default();
        call.rest_below("content.toolUse", &mut self.losses);
        start.rest_below("content", &mut self.losses);
        let Some(name) = name else { return };
        self.close(sink);
        self.calls = true;
        self.said = true;
        self.open = Some(Open::Call(index));
        sink(Event::Open(Part::ToolCall { id, name }));
    }

    fn delta(&mut self, index: Option<u64>, mut delta: Fields, sink: &mut impl FnMut(Event)) {
        if let Some(text) = delta.some_text("text") {
            self.open(Open::Text, sink);
            sink(Event::Delta(text));
        }
        let mut call = delta.any_object("toolUse");
        if let Some(more) = call.some_text("input")
            && self.open == Some(Open::Call(index))
        {
            sink(Event::Delta(more));
        }
        call.rest_below("content.toolUse", &mut self.losses);
        let mut reasoning = delta.any_object("reasoningContent");
        if let Some(text) = reasoning.some_text("text") {
            self.open(Open::Reasoning, sink);
            sink(Event::Delta(text));
        }
        if let Some(signature) = reasoning.some_text("signature") {
            self.open(Open::Reasoning, sink);
            sink(Event::Signature(signature));
        }
        if let Some(data) = reasoning.some_text("redactedContent") {
            self.encrypted(&data, sink);
        }
        reasoning.rest_below("content.reasoningContent", &mut self.losses);
        delta.rest_below("content", &mut self.losses);
    }

    /// Each piece is base64 by itself.
    fn encrypted(&mut self, data: &str, sink: &mut impl FnMut(Event)) {
        let Ok(data) = STANDARD.decode(data) else {
            return sink(Event::Failed(Fault::unreadable()));
        };
        if !matches!(self.open, Some(Open::Encrypted(_))) {
            self.close(sink);
            self.open = Some(Open::Encrypted(Vec::new()));
        }
        if let Some(Open::Encrypted(kept)) = &mut self.open {
            kept.extend_from_slice(&data);
        }
    }

    fn open(&mut self, what: Open, sink: &mut impl FnMut(Event)) {
        if self.open.as_ref() == Some(&what) {
            return;
        }
        self.close(sink);
        self.said |= what == Open::Text;
        sink(Event::Open(if what == Open::Text { Part::Text } else { Part::Reasoning }));
        self.open = Some(what);
    }

    fn close(&mut self, sink: &mut impl FnMut(Event)) {
        let Some(open) = self.open.take() else { return };
        if let Open::Encrypted(data) = open {
            let data = format!("{OF_BEDROCK}{}", STANDARD.encode(data));
            sink(Event::Open(Part::RedactedReasoning(data)));
        }
        sink(Event::Close);
    }

    fn stop(&mut self, reason: Option<&str>, sink: &mut impl FnMut(Event)) {
        self.close(sink);
        if !self.said && is_malformed(reason) {
            return sink(Event::Failed(malformed()));
        }
        if !std::mem::replace(&mut self.stopped, true) {
            sink(Event::Stop(read_stop(reason).with_calls(self.calls)));
        }
    }
}

//! The events of a Messages stream into the common form.

use super::read_content::own_signature;
use super::read_reply::{ABOUT_ITSELF, Counts, read_stop};
use crate::codec::{Fields, fault};
use crate::ir::{Event, Fault, Json, Losses, Part};

/// Reads the events of one stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamReader {
    started: bool,
    open: bool,
    counts: Counts,
    losses: Losses,
}

// === impl StreamReader ===

impl StreamReader {
    /// Reads the data of one event.
    pub(crate) fn event(&mut self, data: &[u8], sink: &mut impl FnMut(Event)) {
        let Ok(mut event) = Fields::parse_said(data) else {
            return sink(Event::Failed(Fault::unreadable()));
        };
        let kind = event.any_text("type").unwrap_or_default();
        match kind.as_str() {
            "message_start" => {
                let mut message = event.any_object("message");
                if !std::mem::replace(&mut self.started, true) {
                    sink(Event::Start { id: message.some_text("id"), model: message.some_text("model") });
                    self.count(message.any_object("usage"), sink);
                }
                message.ignore(&ABOUT_ITSELF);
                message.ignore(&["stop_reason"]);
                message.rest(&mut self.losses);
            }
            "content_block_start" => {
                self.close(sink);
                self.begin(event.any_object("content_block"), sink);
            }
            "content_block_delta" if self.open => self.delta(event.any_object("delta"), sink),
            // The block has been named.
            "content_block_delta" => event.ignore(&["delta"]),
            "content_block_stop" => self.close(sink),
            "message_delta" => {
                self.close(sink);
                let mut delta = event.any_object("delta");
                self.count(event.any_object("usage"), sink);
                let sequence = delta.any_text("stop_sequence");
                if let Some(reason) = delta.any_text("stop_reason") {
                    sink(Event::Stop(read_stop(Some(&reason), sequence)));
                }
                delta.rest(&mut self.losses);
            }
            "message_stop" => {
                self.close(sink);
                sink(Event::End);
            }
            "error" => sink(Event::Failed(fault::of_error(event.take("error").unwrap_or_default()))),
            "ping" => sink(Event::Ping),
            added => self.losses.add_below("", added),
        }
        event.ignore(&["index"]);
        event.rest(&mut self.losses);
    }

    /// The stream has ended without saying so.
    pub(crate) fn finish(&mut self, sink: &mut impl FnMut(Event)) {
        sink(Event::Failed(Fault::truncated()));
    }

    /// What has no place in the common form.
    pub(crate) fn losses(&self) -> &Losses {
        &self.losses
    }

    fn begin(&mut self, mut block: Fields, sink: &mut impl FnMut(Event)) {
        let kind = block.any_text("type").unwrap_or_default();
        let mut first = None;
        let part = match kind.as_str() {
            "text" => {
                first = block.some_text("text");
                Part::Text
            }
            "thinking" => {
                first = block.some_text("thinking");
                Part::Reasoning
            }
            "redacted_thinking" => Part::RedactedReasoning(block.any_text("data").unwrap_or_default()),
            "tool_use" => {
                let input = block.arguments("input");
                first = (input != Json::empty_object()).then(|| input.to_string());
                Part::ToolCall {
                    id: block.any_text("id").unwrap_or_default(),
                    name: block.any_text("name").unwrap_or_default(),
                }
            }
            // Blocks of tools that the provider runs itself.
            kind => return self.losses.add_below("content", kind),
        };
        self.open = true;
        sink(Event::Open(part));
        if let Some(first) = first {
            sink(Event::Delta(first));
        }
        if let Some(signature) = block.any_text("signature").and_then(own_signature) {
            sink(Event::Signature(signature));
        }
        block.ignore(&["caller", "thinking", "text"]);
        block.rest(&mut self.losses);
    }

    fn delta(&mut self, mut delta: Fields, sink: &mut impl FnMut(Event)) {
        for name in ["text", "thinking", "partial_json"] {
            if let Some(text) = delta.some_text(name) {
                sink(Event::Delta(text));
            }
        }
        if let Some(signature) = delta.any_text("signature").and_then(own_signature) {
            sink(Event::Signature(signature));
        }
        // One of several, where the whole reply has a list.
        if delta.take("citation").is_some() {
            self.losses.add("citations");
        }
        delta.ignore(&["type", "text", "thinking", "partial_json"]);
        delta.rest(&mut self.losses);
    }

    fn count(&mut self, mut usage: Fields, sink: &mut impl FnMut(Event)) {
        self.counts.merge(&mut usage);
        sink(Event::Tokens(self.counts.tokens()));
    }

    fn close(&mut self, sink: &mut impl FnMut(Event)) {
        if std::mem::take(&mut self.open) {
            sink(Event::Close);
        }
    }
}

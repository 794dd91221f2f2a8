//! The events of the common form into a Messages stream.

use super::write_reply::{head, write_stop, write_tier, write_tokens};
use crate::codec::{Defaults, Object, append, fault};
use crate::ir::{Event, Part, Stop, Tokens, safe_id};

/// Writes the events of one stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamWriter {
    defaults: Defaults,
    open: Option<Part>,
    signature: Option<String>,
    index: u64,
    /// Whether the model has declined to answer, for which there is no part here.
    refuses: bool,
    stop: Stop,
    tokens: Tokens,
}

// === impl StreamWriter ===

impl StreamWriter {
    pub(crate) fn new(defaults: Defaults) -> Self {
        Self {
            defaults,
            open: None,
            signature: None,
            index: 0,
            refuses: false,
            stop: Stop::End,
            tokens: Tokens::default(),
        }
    }

    pub(crate) fn event(&mut self, event: Event, out: &mut Vec<u8>) {
        match event {
            Event::Start { id, model } => self.start(id.as_deref(), model.as_deref(), out),
            Event::Open(part) => self.begin(part, out),
            Event::Delta(text) => self.say(&text, out),
            Event::Signature(signature) => self.signature = Some(signature),
            Event::Close => self.close(out),
            Event::Logprobs(_) => {}
            Event::Ping => write(out, "ping", |_| {}),
            Event::Tokens(tokens) => self.tokens.merge(tokens),
            Event::Stop(stop) => self.stop = stop.with_refusal(self.refuses),
            Event::End => self.end(out),
            Event::Failed(fault) => {
                out.extend_from_slice(b"event: error\ndata: ");
                append(out, |body| fault::write_anthropic(body, &fault));
                out.extend_from_slice(b"\n\n");
            }
        }
    }

    /// How much is kept until the open part is complete, in bytes.
    pub(crate) fn kept(&self) -> usize {
        self.open.as_ref().map_or(0, Part::weight) + self.signature.as_ref().map_or(0, String::len)
    }

    /// Clients show the input from the first event on: where the provider tells it only at the end, an
    /// estimate stands for it.
    fn start(&mut self, id: Option<&str>, model: Option<&str>, out: &mut Vec<u8>) {
        let estimate =
            Tokens { input: Some(self.defaults.input_estimate), output: Some(0), ..Tokens::default() };
        write(out, "message_start", |event| {
            event.object("message", |message| {
                head(message, id, model, &self.defaults);
                message.list("content", |_| {});
                write_stop(message, None);
                message.object("usage", |usage| {
                    write_tokens(usage, &estimate);
                    write_tier(usage, self.tokens.tier);
                });
            });
        });
    }

    fn begin(&mut self, part: Part, out: &mut Vec<u8>) {
        write(out, "content_block_start", |event| {
            event.count("index", self.index);
            event.object("content_block", |block| match &part {
                Part::Text | Part::Refusal => {
                    block.text("type", "text");
                    block.text("text", "");
                }
                Part::Reasoning => {
                    block.text("type", "thinking");
                    block.text("thinking", "");
                    block.text("signature", "");
                }
                Part::RedactedReasoning(data) => {
                    block.text("type", "redacted_thinking");
                    block.text("data", data);
                }
                Part::ToolCall { id, name } => {
                    block.text("type", "tool_use");
                    block.text("id", &safe_id(id));
                    block.text("name", name);
                    block.object("input", |_| {});
                }
            });
        });
        self.refuses |= part == Part::Refusal;
        self.open = Some(part);
    }

    fn say(&self, text: &str, out: &mut Vec<u8>) {
        let (kind, name) = match &self.open {
            Some(Part::Reasoning) => ("thinking_delta", "thinking"),
            Some(Part::ToolCall { .. }) => ("input_json_delta", "partial_json"),
            _ => ("text_delta", "text"),
        };
        self.delta(out, kind, name, text);
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let signature = self.signature.take();
        if self.open.take() == Some(Part::Reasoning) {
            let signature = super::signature(signature.as_deref());
            self.delta(out, "signature_delta", "signature", &signature);
        }
        write(out, "content_block_stop", |event| event.count("index", self.index));
        self.index += 1;
    }

    fn delta(&self, out: &mut Vec<u8>, kind: &str, name: &'static str, text: &str) {
        write(out, "content_block_delta", |event| {
            event.count("index", self.index);
            event.object("delta", |delta| {
                delta.text("type", kind);
                delta.text(name, text);
            });
        });
    }

    fn end(&self, out: &mut Vec<u8>) {
        write(out, "message_delta", |event| {
            event.object("delta", |delta| write_stop(delta, Some(&self.stop)));
            event.object("usage", |usage| write_tokens(usage, &self.tokens));
        });
        write(out, "message_stop", |_| {});
    }
}

/// One event: its name and its type agree.
fn write(out: &mut Vec<u8>, kind: &str, body: impl FnOnce(&mut Object<'_>)) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    append(out, |event| {
        event.text("type", kind);
        body(event);
    });
    out.extend_from_slice(b"\n\n");
}

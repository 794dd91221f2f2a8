//! The events of the common form into a Chat Completions stream.

use super::options::write_tier;
use super::signatures::Signature;
use super::write_reply::{head, stop_name, write_logprobs, write_thinking_block, write_tokens};
use crate::codec::{Defaults, Object, append, fault};
use crate::dialect::responses::{Called, text_of};
use crate::ir::{Block, Event, Json, Part, Reasoning, Stop, Tokens, arguments, safe_id};
use crate::wire::sse::PING;

/// Writes the events of one stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamWriter {
    defaults: Defaults,
    id: Option<String>,
    model: Option<String>,
    open: Option<Part>,
    /// What the open reasoning says, to be repeated with its signature.
    thought: String,
    signature: Option<String>,
    /// What the next part is signed with, if it is a call of Gemini's.
    of_call: Option<String>,
    /// Whether the open part has said anything.
    said: bool,
    /// The arguments of the open call so far, where the client wants the text that they hold.
    held: Option<String>,
    calls: u64,
    /// The thoughts that have been given with a signature, or encrypted.
    signed: u64,
    /// Those of the text that comes next, and how long they are.
    logprobs: Vec<Json>,
    weight: usize,
    stop: Stop,
    tokens: Tokens,
}

// === impl StreamWriter ===

impl StreamWriter {
    pub(crate) fn new(defaults: Defaults) -> Self {
        Self {
            defaults,
            id: None,
            model: None,
            open: None,
            thought: String::new(),
            signature: None,
            of_call: None,
            said: false,
            held: None,
            calls: 0,
            signed: 0,
            logprobs: Vec::new(),
            weight: 0,
            stop: Stop::End,
            tokens: Tokens::default(),
        }
    }

    pub(crate) fn event(&mut self, event: Event, out: &mut Vec<u8>) {
        match event {
            Event::Start { id, model } => {
                self.id = id;
                self.model = model;
                self.delta(out, |delta| {
                    delta.text("role", "assistant");
                    delta.text("content", "");
                });
            }
            Event::Open(part) => self.begin(part, out),
            Event::Delta(text) => self.say(&text, out),
            Event::Signature(signature) => self.signature = Some(signature),
            Event::Logprobs(more) => {
                self.weight += Json::weight(&more);
                self.logprobs.extend(more);
            }
            Event::Close => self.close(out),
            Event::Ping => out.extend_from_slice(PING),
            Event::Tokens(tokens) => self.tokens.merge(tokens),
            Event::Stop(stop) => self.stop = stop,
            Event::End => self.end(out),
            Event::Failed(fault) => {
                out.extend_from_slice(b"data: ");
                append(out, |body| fault::write_openai(body, &fault));
                out.extend_from_slice(b"\n\n");
            }
        }
    }

    /// How much is kept of the open part, and to be said later, in bytes.
    pub(crate) fn kept(&self) -> usize {
        let open = self.open.as_ref().map_or(0, Part::weight);
        let texts = [&self.held, &self.signature, &self.of_call];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        open + self.thought.len() + texts + self.weight
    }

    fn begin(&mut self, part: Part, out: &mut Vec<u8>) {
        self.said = false;
        let signature = self.of_call.take();
        match &part {
            Part::ToolCall { id, name } => {
                self.held = (self.defaults.echo.called(name) == Called::Custom).then(String::new);
                let at = self.calls;
                self.delta(out, |delta| {
                    delta.list("tool_calls", |list| {
                        list.object(|call| {
                            call.count("index", at);
                            call.text("id", &safe_id(id));
                            call.text("type", "function");
                            call.object("function", |function| {
                                function.text("name", name);
                                function.text("arguments", "");
                            });
                            if let Some(signature) = signature.as_deref().and_then(Signature::of) {
                                signature.write(call);
                            }
                        });
                    });
                });
            }
            Part::RedactedReasoning(data) => self.thinking(&Block::RedactedReasoning(data.clone()), out),
            Part::Text | Part::Refusal | Part::Reasoning => {}
        }
        self.open = Some(part);
    }

    fn say(&mut self, text: &str, out: &mut Vec<u8>) {
        self.said = true;
        match &self.open {
            Some(Part::ToolCall { .. }) => match &mut self.held {
                Some(held) => held.push_str(text),
                None => self.arguments(text, out),
            },
            Some(Part::Reasoning) => {
                self.thought.push_str(text);
                self.delta(out, |delta| delta.text("reasoning_content", text));
            }
            Some(Part::Refusal) => self.delta(out, |delta| delta.text("refusal", text)),
            Some(Part::Text | Part::RedactedReasoning(_)) | None => {
                let logprobs = std::mem::take(&mut self.logprobs);
                self.weight = 0;
                self.choice(out, |delta| delta.text("content", text), &logprobs, None);
            }
        }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let text = std::mem::take(&mut self.thought);
        let signature = self.signature.take();
        match self.open.take() {
            Some(Part::ToolCall { .. }) => {
                match self.held.take() {
                    Some(held) => self.arguments(&text_of(&arguments(&held)), out),
                    None if !self.said => self.arguments("{}", out),
                    None => {}
                }
                self.calls += 1;
            }
            Some(Part::Reasoning) if signature.is_some() => {
                self.of_call.clone_from(&signature);
                self.thinking(&Block::Reasoning(Reasoning { text, signature }), out);
            }
            _ => {}
        }
    }

    fn arguments(&self, text: &str, out: &mut Vec<u8>) {
        self.delta(out, |delta| {
            delta.list("tool_calls", |list| {
                list.object(|call| {
                    call.count("index", self.calls);
                    call.object("function", |function| function.text("arguments", text));
                });
            });
        });
    }

    /// Reasoning with its signature, so that a client can give it back. OpenAI's SDK for Python puts lists
    /// together by the index of each item, and fails at a second one without.
    fn thinking(&mut self, block: &Block, out: &mut Vec<u8>) {
        self.delta(out, |delta| {
            delta.list("thinking_blocks", |list| {
                list.object(|item| {
                    item.count("index", self.signed);
                    write_thinking_block(item, block);
                });
            });
        });
        self.signed += 1;
    }

    fn end(&self, out: &mut Vec<u8>) {
        let stop = stop_name(&self.stop);
        self.choice(out, |_| {}, &self.logprobs, Some(stop));
        if self.defaults.stream_usage {
            self.chunk(out, |body| {
                body.list("choices", |_| {});
                body.object("usage", |usage| write_tokens(usage, &self.tokens));
            });
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn delta(&self, out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
        self.choice(out, write, &[], None);
    }

    fn choice(
        &self,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Object<'_>),
        logprobs: &[Json],
        stop: Option<&str>,
    ) {
        self.chunk(out, |body| {
            body.list("choices", |list| {
                list.object(|choice| {
                    choice.count("index", 0);
                    choice.object("delta", write);
                    if !logprobs.is_empty() {
                        write_logprobs(choice, logprobs);
                    }
                    match stop {
                        Some(stop) => choice.text("finish_reason", stop),
                        None => choice.null("finish_reason"),
                    }
                });
            });
        });
    }

    fn chunk(&self, out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
        out.extend_from_slice(b"data: ");
        append(out, |body| {
            let (id, model) = (self.id.as_deref(), self.model.as_deref());
            head(body, "chat.completion.chunk", id, model, &self.defaults);
            write_tier(body, self.tokens.tier);
            write(body);
        });
        out.extend_from_slice(b"\n\n");
    }
}

//! The events of the common form into a `streamGenerateContent` stream. Calls are written whole.

use super::own;
use super::write_reply::{stop_name, write_part, write_tail};
use crate::codec::{Defaults, append, fault, object};
use crate::dialect::Dialect;
use crate::ir::{Block, Event, Part, Reasoning, Stop, Tokens};

/// Writes the events of one stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamWriter {
    defaults: Defaults,
    id: Option<String>,
    model: Option<String>,
    open: Option<(Part, String)>,
    /// Of what comes next.
    signature: Option<String>,
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
            signature: None,
            stop: Stop::End,
            tokens: Tokens::default(),
        }
    }

    pub(crate) fn event(&mut self, event: Event, out: &mut Vec<u8>) {
        match event {
            Event::Start { id, model } => {
                self.id = id;
                self.model = model;
            }
            Event::Open(part) => self.open = Some((part, String::new())),
            Event::Delta(text) => self.say(text, out),
            Event::Signature(signature) => self.signature = own(&signature).map(str::to_owned),
            Event::Close => self.close(out),
            Event::Tokens(tokens) => self.tokens.merge(tokens),
            Event::Stop(stop) => self.stop = stop,
            Event::End => {
                let last = self.signature.is_some().then(|| Block::Text(String::new()));
                self.chunk(last.as_ref(), true, out);
            }
            Event::Failed(fault) => {
                out.extend_from_slice(b"data: ");
                append(out, |body| fault::write(body, &fault, Dialect::Gemini));
                out.extend_from_slice(b"\n\n");
            }
        }
    }

    fn say(&mut self, text: String, out: &mut Vec<u8>) {
        let block = match &mut self.open {
            Some((Part::ToolCall { .. }, arguments)) => {
                arguments.push_str(&text);
                return;
            }
            Some((Part::Reasoning, _)) => Block::Reasoning(Reasoning { text, signature: None }),
            _ => Block::Text(text),
        };
        self.chunk(Some(&block), false, out);
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if let Some((part @ Part::ToolCall { .. }, arguments)) = self.open.take() {
            let block = part.into_block(arguments, None);
            self.chunk(Some(&block), false, out);
        }
    }

    fn chunk(&mut self, block: Option<&Block>, is_last: bool, out: &mut Vec<u8>) {
        let is_thought = matches!(block, Some(Block::Reasoning(_)));
        let signature = if is_thought { None } else { self.signature.take() };
        let body = object(|body| {
            body.list("candidates", |list| {
                list.object(|candidate| {
                    candidate.object("content", |content| {
                        content.list("parts", |list| {
                            if let Some(block) = block {
                                list.object(|part| write_part(part, block, signature.as_deref()));
                            }
                        });
                        content.text("role", "model");
                    });
                    if is_last {
                        candidate.text("finishReason", stop_name(&self.stop));
                    }
                    candidate.count("index", 0);
                });
            });
            let (id, model) = (self.id.as_deref(), self.model.as_deref());
            write_tail(body, &self.tokens, id, model, &self.defaults);
        });
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&body);
        out.extend_from_slice(b"\n\n");
    }
}

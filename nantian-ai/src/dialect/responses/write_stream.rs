//! The events of the common form into a Responses stream.

use super::tools::{Called, text_of};
use super::write_error;
use super::write_reply::{
    State, error_code, item_id, reason_of_cut, write_item, write_logprobs, write_name, write_part,
    write_response, write_text,
};
use crate::codec::fault::openai_names;
use crate::codec::{Defaults, Echo, Object, append};
use crate::ir::{Block, Event, Fault, Json, Part, Stop, Tokens, arguments, safe_id};
use crate::usage::{About, Meter};
use crate::wire::sse::PING;

/// The most log probabilities that are repeated at the end of a text, in bytes; more have been told by its
/// deltas alone.
const MOST_LOGPROBS: usize = 1024 * 1024;

/// Writes the events of one stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamWriter {
    defaults: Defaults,
    id: Option<String>,
    model: Option<String>,
    /// The number of the next event.
    number: u64,
    open: Option<Open>,
    /// It is over; whether it is complete is known with what comes next.
    is_closing: bool,
    /// The log probabilities of the text that comes next, and how long they are.
    logprobs: Vec<Json>,
    weight: usize,
    /// The items that are complete, as they stand in a list.
    output: Vec<u8>,
    items: usize,
    stop: Stop,
    tokens: Tokens,
}

/// The item that is being written.
#[derive(Clone, Debug)]
struct Open {
    part: Part,
    id: String,
    text: String,
    logprobs: Vec<Json>,
    /// How long all are that have come, in bytes.
    weight: usize,
    signature: Option<String>,
}

/// The last events of a stream that has come as it is, as far as the meter has read it.
pub(crate) fn failed(names: (&str, &str), fault: &Fault, meter: &Meter) -> Vec<u8> {
    let About { id, model, .. } = meter.about().clone();
    let defaults = Defaults::of_failure(id.unwrap_or_default(), model.unwrap_or_default());
    let mut writer = StreamWriter { number: meter.events(), ..StreamWriter::new(defaults) };
    let mut out = Vec::new();
    writer.fail(names, fault, &mut out);
    out
}

// === impl StreamWriter ===

impl StreamWriter {
    pub(crate) fn new(defaults: Defaults) -> Self {
        Self {
            defaults,
            id: None,
            model: None,
            number: 0,
            open: None,
            is_closing: false,
            logprobs: Vec::new(),
            weight: 0,
            output: Vec::new(),
            items: 0,
            stop: Stop::End,
            tokens: Tokens::default(),
        }
    }

    pub(crate) fn event(&mut self, event: Event, out: &mut Vec<u8>) {
        if self.is_closing && !matches!(event, Event::Ping | Event::Tokens(_)) {
            let is_cut = matches!(&event, Event::Stop(stop) if reason_of_cut(stop).is_some());
            self.close(is_cut, out);
        }
        match event {
            Event::Start { id, model } => {
                self.id = id;
                self.model = model;
                self.response(out, "response.created", &State::Begun);
                self.response(out, "response.in_progress", &State::Begun);
            }
            Event::Open(part) => self.begin(part, out),
            Event::Delta(text) => self.say(&text, out),
            Event::Signature(signature) => {
                if let Some(open) = &mut self.open {
                    open.signature = Some(signature);
                }
            }
            Event::Logprobs(more) => {
                self.weight += Json::weight(&more);
                self.logprobs.extend(more);
            }
            Event::Close => self.is_closing = true,
            Event::Ping => out.extend_from_slice(PING),
            Event::Tokens(tokens) => self.tokens.merge(tokens),
            Event::Stop(stop) => self.stop = stop,
            Event::End => {
                let (stop, tokens) = (self.stop.clone(), self.tokens);
                let kind = match reason_of_cut(&stop) {
                    Some(_) => "response.incomplete",
                    None => "response.completed",
                };
                self.response(out, kind, &State::Ended { stop: &stop, tokens: &tokens });
            }
            Event::Failed(fault) => {
                let names = (openai_names(&fault).0, error_code(fault.kind));
                self.fail(names, &fault, out);
            }
        }
    }

    /// How much is kept to be said again, in bytes.
    pub(crate) fn kept(&self) -> usize {
        self.output.len() + self.open.as_ref().map_or(0, Open::kept) + self.weight
    }

    /// As OpenAI does it: its clients take the one for a failure, or the other.
    fn fail(&mut self, (kind, code): (&str, &str), fault: &Fault, out: &mut Vec<u8>) {
        self.write(out, "error", |event, _| write_error(event, kind, code, &fault.message));
        self.response(out, "response.failed", &State::Failed(fault));
    }

    fn begin(&mut self, part: Part, out: &mut Vec<u8>) {
        let prefix = match &part {
            Part::Text | Part::Refusal => "msg",
            Part::Reasoning | Part::RedactedReasoning(_) => "rs",
            Part::ToolCall { name, .. } => self.defaults.echo.called(name).prefix(),
        };
        let id = item_id(prefix, self.response_id(), self.items);
        let echo = self.defaults.echo.clone();
        self.write(out, "response.output_item.added", |event, index| {
            event.count("output_index", index);
            event.object("item", |item| write_begun(item, &part, &id, &echo));
        });
        match &part {
            Part::Text | Part::Refusal => self.write(out, "response.content_part.added", |event, index| {
                place(event, &id, index, Some("content_index"));
                event.object("part", |body| write_content(body, &part, "", &[]));
            }),
            _ => {}
        }
        let (text, logprobs) = (String::new(), Vec::new());
        self.open = Some(Open { part, id, text, logprobs, weight: 0, signature: None });
    }

    fn say(&mut self, text: &str, out: &mut Vec<u8>) {
        let Some(mut open) = self.open.take() else { return };
        let (kind, place_in_item) = match &open.part {
            Part::Text => ("response.output_text.delta", Some("content_index")),
            Part::Refusal => ("response.refusal.delta", Some("content_index")),
            Part::Reasoning => ("response.reasoning_summary_text.delta", Some("summary_index")),
            // Its text is an argument, and is known when they all are, as those of a search are.
            Part::ToolCall { name, .. } if self.defaults.echo.called(name) != Called::Function => {
                open.text.push_str(text);
                self.open = Some(open);
                return;
            }
            Part::ToolCall { .. } => ("response.function_call_arguments.delta", None),
            Part::RedactedReasoning(_) => {
                self.open = Some(open);
                return;
            }
        };
        if open.part == Part::Reasoning && open.text.is_empty() {
            self.write(out, "response.reasoning_summary_part.added", |event, index| {
                place(event, &open.id, index, place_in_item);
                event.object("part", |part| write_part(part, "summary_text", "text", ""));
            });
        }
        open.text.push_str(text);
        let (logprobs, weight) = match open.part {
            Part::Text => (std::mem::take(&mut self.logprobs), std::mem::take(&mut self.weight)),
            _ => (Vec::new(), 0),
        };
        self.write(out, kind, |event, index| {
            place(event, &open.id, index, place_in_item);
            event.text("delta", text);
            if open.part == Part::Text {
                write_logprobs(event, &logprobs);
            }
        });
        open.weight += weight;
        open.logprobs.extend(logprobs);
        if open.weight > MOST_LOGPROBS {
            open.logprobs = Vec::new();
        }
        self.open = Some(open);
    }

    fn close(&mut self, is_cut: bool, out: &mut Vec<u8>) {
        self.is_closing = false;
        let is_without = |open: &Open| {
            let Part::ToolCall { name, .. } = &open.part else { return false };
            self.defaults.echo.called(name) == Called::Function && open.text.trim().is_empty()
        };
        if self.open.as_ref().is_some_and(is_without) {
            self.say("{}", out);
        }
        let Some(open) = self.open.take() else { return };
        let Open { part, id, text, logprobs, signature, .. } = open;
        let echo = self.defaults.echo.clone();
        match &part {
            Part::Text | Part::Refusal => {
                let (kind, name) = match &part {
                    Part::Refusal => ("response.refusal.done", "refusal"),
                    _ => ("response.output_text.done", "text"),
                };
                self.write(out, kind, |event, index| {
                    place(event, &id, index, Some("content_index"));
                    event.text(name, &text);
                    if part == Part::Text {
                        write_logprobs(event, &logprobs);
                    }
                });
                self.write(out, "response.content_part.done", |event, index| {
                    place(event, &id, index, Some("content_index"));
                    event.object("part", |body| write_content(body, &part, &text, &logprobs));
                });
            }
            Part::Reasoning if !text.is_empty() => {
                self.write(out, "response.reasoning_summary_text.done", |event, index| {
                    place(event, &id, index, Some("summary_index"));
                    event.text("text", &text);
                });
                self.write(out, "response.reasoning_summary_part.done", |event, index| {
                    place(event, &id, index, Some("summary_index"));
                    event.object("part", |part| write_part(part, "summary_text", "text", &text));
                });
            }
            Part::ToolCall { name, .. } if echo.called(name) == Called::Search => {}
            Part::ToolCall { name, .. } if echo.called(name) == Called::Custom => {
                let input = text_of(&arguments(&text));
                for (kind, member) in [("delta", "delta"), ("done", "input")] {
                    self.write(out, &format!("response.custom_tool_call_input.{kind}"), |event, index| {
                        place(event, &id, index, None);
                        event.text(member, &input);
                    });
                }
            }
            Part::ToolCall { name, .. } => {
                self.write(out, "response.function_call_arguments.done", |event, index| {
                    place(event, &id, index, None);
                    event.text("arguments", &text);
                    event.text("name", echo.own_name(name).map_or(name, |own| &own.name));
                });
            }
            Part::Reasoning | Part::RedactedReasoning(_) => {}
        }
        let has_deltas =
            matches!(&part, Part::ToolCall { name, .. } if echo.called(name) == Called::Function);
        let said = has_deltas.then(|| text.clone());
        let mut block = part.into_block(text, signature);
        if let (Block::ToolCall(call), Some(said)) = (&mut block, said) {
            // The item is what its deltas make.
            call.arguments = Json::as_written(&said).unwrap_or_else(|| call.arguments.clone());
        }
        self.write(out, "response.output_item.done", |event, index| {
            event.count("output_index", index);
            event.object("item", |item| write_item(item, &block, &logprobs, (id.as_str(), is_cut), &echo));
        });
        if self.items > 0 {
            self.output.push(b',');
        }
        append(&mut self.output, |item| write_item(item, &block, &logprobs, (id.as_str(), is_cut), &echo));
        self.items += 1;
    }

    fn response_id(&self) -> &str {
        self.id.as_deref().unwrap_or(&self.defaults.id)
    }

    /// An event that shows the whole response.
    fn response(&mut self, out: &mut Vec<u8>, kind: &str, state: &State<'_>) {
        let output = std::mem::take(&mut self.output);
        let (id, model) = (self.response_id().to_owned(), self.model.take());
        let defaults = self.defaults.clone();
        self.write(out, kind, |event, _| {
            event.object("response", |body| {
                write_response(body, &id, model.as_deref(), &defaults, state, |list| list.raw(&output));
            });
        });
        self.model = model;
        self.output = output;
    }

    /// One event: its name and its type agree, and all of them are counted.
    fn write(&mut self, out: &mut Vec<u8>, kind: &str, body: impl FnOnce(&mut Object<'_>, u64)) {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\ndata: ");
        append(out, |event| {
            event.text("type", kind);
            event.count("sequence_number", self.number);
            body(event, self.items as u64);
        });
        out.extend_from_slice(b"\n\n");
        self.number += 1;
    }
}

// === impl Open ===

impl Open {
    fn kept(&self) -> usize {
        let signature = self.signature.as_ref().map_or(0, String::len);
        self.part.weight() + self.text.len() + self.weight.min(MOST_LOGPROBS) + signature
    }
}

/// Where in the answer something is.
fn place(event: &mut Object<'_>, id: &str, index: u64, place_in_item: Option<&'static str>) {
    event.text("item_id", id);
    event.count("output_index", index);
    if let Some(name) = place_in_item {
        event.count(name, 0);
    }
}

/// An item of which nothing has been said.
fn write_begun(item: &mut Object<'_>, part: &Part, id: &str, echo: &Echo) {
    item.text("id", id);
    match part {
        Part::Text | Part::Refusal => {
            item.text("type", "message");
            item.text("status", "in_progress");
            item.text("role", "assistant");
            item.list("content", |_| {});
        }
        Part::Reasoning | Part::RedactedReasoning(_) => {
            item.text("type", "reasoning");
            item.list("summary", |_| {});
        }
        Part::ToolCall { id: call, name } => {
            let called = echo.called(name);
            item.text("type", called.item());
            item.text("status", "in_progress");
            match called {
                Called::Function => item.text("arguments", ""),
                Called::Custom => item.text("input", ""),
                Called::Search => item.object("arguments", |_| {}),
            }
            item.text("call_id", &safe_id(call));
            write_name(item, name, echo);
        }
    }
}

/// The content of a message.
fn write_content(body: &mut Object<'_>, part: &Part, text: &str, logprobs: &[Json]) {
    match part {
        Part::Refusal => write_part(body, "refusal", "refusal", text),
        _ => write_text(body, text, logprobs),
    }
}

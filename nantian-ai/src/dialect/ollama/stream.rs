//! The lines of an Ollama stream from and into the common form.

use std::time::Duration;

use super::reply::{ABOUT_ITSELF, has_details, head, read_call, read_stop, read_tokens, write_end};
use super::write_request::write_call;
use crate::codec::{Defaults, Fields, Object, Value, append, lost_of_stop};
use crate::ir::{Event, Fault, Losses, Part, Stop, Tokens, ToolCall, ToolIds, arguments};

/// Reads the lines of one stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamReader {
    ids: ToolIds,
    started: bool,
    called: bool,
    open: Option<Part>,
    losses: Losses,
}

/// Writes the lines of one stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamWriter {
    defaults: Defaults,
    model: Option<String>,
    /// How long it took until there was something of the answer itself.
    first: Option<Duration>,
    open: Option<Part>,
    /// The arguments of the call that is open: they are sent as a whole.
    arguments: String,
    stop: Stop,
    tokens: Tokens,
    losses: Losses,
}

// === impl StreamReader ===

impl StreamReader {
    pub(crate) fn new(ids: ToolIds) -> Self {
        Self { ids, started: false, called: false, open: None, losses: Losses::default() }
    }

    pub(crate) fn line(&mut self, data: &[u8], sink: &mut impl FnMut(Event)) {
        let mut line = match Fields::parse_unless_error(data) {
            Ok(line) => line,
            Err(fault) => return sink(Event::Failed(fault)),
        };
        if !std::mem::replace(&mut self.started, true) {
            sink(Event::Start { id: None, model: line.some_text("model") });
        }
        let mut message = line.any_object("message");
        if let Some(text) = message.some_text("thinking") {
            self.say(Part::Reasoning, text, sink);
        }
        if let Some(text) = message.some_text("content") {
            self.say(Part::Text, text, sink);
        }
        for call in message.any_list("tool_calls") {
            self.close(sink);
            self.called = true;
            let call = read_call(call, &mut self.ids, &mut self.losses);
            sink(Event::Open(Part::ToolCall { id: call.id, name: call.name }));
            sink(Event::Delta(call.arguments.to_string()));
            sink(Event::Close);
        }
        message.ignore(&["role"]);
        message.rest(&mut self.losses);
        if line.take("done") == Some(Value::Bool(true)) {
            self.close(sink);
            sink(Event::Tokens(read_tokens(&mut line)));
            let stop = read_stop(line.any_text("done_reason").as_deref());
            sink(Event::Stop(stop.with_calls(self.called)));
            sink(Event::End);
        }
        line.ignore(&ABOUT_ITSELF);
        line.ignore(&["model"]);
        line.rest(&mut self.losses);
    }

    /// What has no place in the common form.
    pub(crate) fn losses(&self) -> &Losses {
        &self.losses
    }

    pub(crate) fn finish(&mut self, sink: &mut impl FnMut(Event)) {
        sink(Event::Failed(Fault::truncated()));
    }

    fn say(&mut self, part: Part, text: String, sink: &mut impl FnMut(Event)) {
        if self.open.as_ref() != Some(&part) {
            self.close(sink);
            self.open = Some(part.clone());
            sink(Event::Open(part));
        }
        sink(Event::Delta(text));
    }

    fn close(&mut self, sink: &mut impl FnMut(Event)) {
        if self.open.take().is_some() {
            sink(Event::Close);
        }
    }
}

// === impl StreamWriter ===

impl StreamWriter {
    pub(crate) fn new(defaults: Defaults) -> Self {
        Self {
            defaults,
            model: None,
            first: None,
            open: None,
            arguments: String::new(),
            stop: Stop::End,
            tokens: Tokens::default(),
            losses: Losses::default(),
        }
    }

    /// How long ago the answer was asked for.
    pub(crate) fn set_took(&mut self, took: Duration) {
        self.defaults.took = took;
    }

    pub(crate) fn event(&mut self, event: Event, out: &mut Vec<u8>) {
        match event {
            Event::Start { model, .. } => self.model = model,
            Event::Open(part) => {
                self.first.get_or_insert(self.defaults.took);
                match &part {
                    Part::RedactedReasoning(_) => self.losses.add("reasoning.redacted"),
                    Part::Refusal => self.losses.add("stop"),
                    _ => {}
                }
                self.open = Some(part);
            }
            Event::Delta(text) => match &self.open {
                Some(Part::ToolCall { .. }) => self.arguments.push_str(&text),
                Some(Part::Reasoning) => self.message(out, |message| {
                    message.text("content", "");
                    message.text("thinking", &text);
                }),
                _ => self.message(out, |message| message.text("content", &text)),
            },
            Event::Close => self.close(out),
            // Each line is an answer to its clients.
            Event::Ping => {}
            Event::Logprobs(_) => self.losses.add("logprobs"),
            Event::Signature(_) => self.losses.add("reasoning.signature"),
            Event::Tokens(tokens) => {
                self.tokens.merge(tokens);
                if has_details(&self.tokens) {
                    self.losses.add("usage.details");
                }
            }
            Event::Stop(stop) => {
                if stop == Stop::Refused {
                    self.losses.add("stop");
                }
                self.losses.extend(lost_of_stop(&stop));
                self.stop = stop;
            }
            Event::End => self.line(out, |line| {
                line.object("message", |message| {
                    message.text("role", "assistant");
                    message.text("content", "");
                });
                let took = self.defaults.took;
                write_end(line, &self.stop, &self.tokens, self.first.unwrap_or(took), took);
            }),
            Event::Failed(fault) => {
                append(out, |line| line.text("error", &fault.message));
                out.push(b'\n');
            }
        }
    }

    /// What has no place in a stream.
    pub(crate) fn losses(&self) -> &Losses {
        &self.losses
    }

    /// How much is kept to be said later, in bytes.
    pub(crate) fn kept(&self) -> usize {
        self.open.as_ref().map_or(0, Part::weight) + self.arguments.len()
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if let Some(Part::ToolCall { id, name }) = self.open.take() {
            let arguments = arguments(&std::mem::take(&mut self.arguments));
            let call = ToolCall { id, name, arguments };
            self.message(out, |message| {
                message.text("content", "");
                message.list("tool_calls", |list| write_call(list, &call));
            });
        }
    }

    fn message(&self, out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
        self.line(out, |line| {
            line.object("message", |message| {
                message.text("role", "assistant");
                write(message);
            });
            line.flag("done", false);
        });
    }

    fn line(&self, out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
        append(out, |line| {
            head(line, self.model.as_deref(), &self.defaults);
            write(line);
        });
        out.push(b'\n');
    }
}

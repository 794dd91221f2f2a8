//! The events of a `streamGenerateContent` stream into the common form. None of them says that it is the last
//! one: the answer is complete if one has said why it ends.

use super::read_reply::{Said, error_of, name_held, read_part, read_tokens, rest_of_answer, rest_of_reply};
use super::{failure, read_stop, tagged};
use crate::codec::{Fields, Value, fault};
use crate::ir::{Event, Fault, Losses, Part, Stop, Tokens, ToolIds};

/// Reads the events of one stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamReader {
    ids: ToolIds,
    started: bool,
    open: Option<Open>,
    /// A signature on a part that says nothing, which is for the next one.
    held: Option<String>,
    /// It has said something that is no thought.
    said: bool,
    calls: bool,
    reason: Option<String>,
    refused: bool,
    tokens: Tokens,
    losses: Losses,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Open {
    Text,
    Reasoning,
}

// === impl StreamReader ===

impl StreamReader {
    pub(crate) fn new(ids: ToolIds) -> Self {
        Self {
            ids,
            started: false,
            open: None,
            held: None,
            said: false,
            calls: false,
            reason: None,
            refused: false,
            tokens: Tokens::default(),
            losses: Losses::default(),
        }
    }

    /// Reads the data of one event.
    pub(crate) fn event(&mut self, data: &[u8], sink: &mut impl FnMut(Event)) {
        let body = match Value::parse_said(data) {
            Ok(body @ Value::Object(_)) => body,
            Ok(body @ Value::Array(_)) => return sink(Event::Failed(error_of(body))),
            _ => return sink(Event::Failed(Fault::unreadable())),
        };
        let mut chunk = Fields::lenient(body);
        if let Some(error) = chunk.take("error") {
            return sink(Event::Failed(fault::of_error(error)));
        }
        if !std::mem::replace(&mut self.started, true) {
            sink(Event::Start { id: chunk.some_text("responseId"), model: chunk.some_text("modelVersion") });
        }
        chunk.ignore(&["modelVersion", "responseId"]);
        self.refused |= chunk.any_object("promptFeedback").some_text("blockReason").is_some();
        self.tokens.merge(read_tokens(&mut chunk.any_object("usageMetadata")));
        let candidate = chunk.any_list("candidates").into_iter().next();
        rest_of_reply(chunk, &mut self.losses);
        let Some(candidate) = candidate else { return };
        let mut candidate = Fields::lenient(candidate);
        let mut content = candidate.any_object("content");
        for part in content.any_list("parts") {
            self.part(Fields::lenient(part), sink);
        }
        // It may come with any chunk; the last one counts.
        self.reason = candidate.some_text("finishReason").or(self.reason.take());
        rest_of_answer(candidate, content, &mut self.losses);
    }

    /// The stream has ended.
    pub(crate) fn finish(&mut self, sink: &mut impl FnMut(Event)) {
        if self.reason.is_none() && !self.refused {
            return sink(Event::Failed(Fault::truncated()));
        }
        if let Some(failure) = failure(self.reason.as_deref()).filter(|_| !self.said) {
            return sink(Event::Failed(failure));
        }
        name_held(self.held.as_deref(), &mut self.losses);
        self.close(sink);
        sink(Event::Tokens(self.tokens));
        let stop = if self.refused { Stop::Refused } else { read_stop(self.reason.as_deref()) };
        sink(Event::Stop(stop.with_calls(self.calls)));
        sink(Event::End);
    }

    /// What has no place in the common form.
    pub(crate) fn losses(&self) -> &Losses {
        &self.losses
    }

    /// How much is kept of what is for the next part, and for the end, in bytes.
    pub(crate) fn kept(&self) -> usize {
        [&self.held, &self.reason].into_iter().flatten().map(String::len).sum()
    }

    fn part(&mut self, mut part: Fields, sink: &mut impl FnMut(Event)) {
        let signature = part.some_text("thoughtSignature").or(self.held.take());
        let said = read_part(&mut part, &mut self.losses);
        part.rest_below("content.parts", &mut self.losses);
        if matches!(said, Said::Nothing) && self.open != Some(Open::Reasoning) {
            self.held = signature;
            return;
        }
        match (&signature, &said) {
            (None, _) | (_, Said::Thought(_)) => {}
            (Some(signature), Said::Text(_)) if self.open != Some(Open::Reasoning) => {
                name_held(Some(signature), &mut self.losses);
            }
            (Some(signature), _) => {
                self.open(Open::Reasoning, sink);
                sink(Event::Signature(tagged(signature)));
                self.close(sink);
            }
        }
        match said {
            Said::Thought(text) => {
                self.say(Open::Reasoning, text, sink);
                if let Some(signature) = signature {
                    sink(Event::Signature(tagged(&signature)));
                    self.close(sink);
                }
            }
            Said::Text(text) => self.say(Open::Text, text, sink),
            Said::Call { id, name, arguments } => {
                self.close(sink);
                self.calls = true;
                self.said = true;
                let id = id.unwrap_or_else(|| self.ids.next());
                sink(Event::Open(Part::ToolCall { id, name }));
                sink(Event::Delta(arguments.to_string()));
                sink(Event::Close);
            }
            Said::Other(name) => self.losses.add_below("content.parts", &name),
            Said::Nothing => {}
        }
    }

    fn say(&mut self, what: Open, text: String, sink: &mut impl FnMut(Event)) {
        self.said |= what == Open::Text;
        self.open(what, sink);
        sink(Event::Delta(text));
    }

    fn open(&mut self, what: Open, sink: &mut impl FnMut(Event)) {
        if self.open == Some(what) {
            return;
        }
        self.close(sink);
        self.open = Some(what);
        sink(Event::Open(match what {
            Open::Text => Part::Text,
            Open::Reasoning => Part::Reasoning,
        }));
    }

    fn close(&mut self, sink: &mut impl FnMut(Event)) {
        if self.open.take().is_some() {
            sink(Event::Close);
        }
    }
}

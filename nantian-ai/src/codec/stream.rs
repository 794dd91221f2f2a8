//! Streams: bytes of one dialect to events, and events to bytes of another.

use std::collections::VecDeque;
use std::time::Duration;

use super::Defaults;
use crate::dialect::{ClientDialect, Dialect, anthropic, bedrock, gemini, ollama, openai, responses};
use crate::estimate::Weight;
use crate::ir::{Event, Fault, Losses, Part, Stop, Tokens, ToolIds, ToolNames};
use crate::wire::{EVENT_LIMIT, frames, ndjson, sse};

/// The most that is kept of a streamed answer to be said later, or again at its end, in bytes.
pub(crate) const MOST_KEPT: usize = 8 * 1024 * 1024;

/// The longest id of an answer, and name of a model, that is said, in bytes: each event may say them again.
const LONGEST_NAME: usize = 1024;

/// Reads the stream of a provider, in any chunks.
///
/// It gives exactly one last event, whatever the bytes: [`Event::End`] if the provider says that the answer
/// is complete, [`Event::Failed`] if it says anything else or nothing at all.
#[derive(Clone, Debug)]
pub struct StreamDecoder {
    wire: Wire,
    reader: Reader,
    ended: bool,
}

/// Writes a stream for a client.
///
/// It knows no clock: [`StreamEncoder::set_took`] tells it the time.
#[derive(Clone, Debug)]
pub struct StreamEncoder {
    writer: Writer,
    names: ToolNames,
    /// How much is kept of the request to be repeated, in bytes.
    echoed: usize,
    input_estimate: u64,
    begun: bool,
    /// What the provider has told, and what has come.
    told: Tokens,
    said: Weight,
    losses: Losses,
}

#[derive(Clone, Debug)]
enum Wire {
    Frames(frames::FrameDecoder),
    Sse(sse::SseDecoder),
    Ndjson(ndjson::NdjsonDecoder),
}

#[derive(Clone, Debug)]
enum Reader {
    Anthropic(anthropic::StreamReader),
    Bedrock(bedrock::StreamReader),
    Gemini(gemini::StreamReader),
    Ollama(ollama::StreamReader),
    OpenAi(openai::StreamReader),
    Responses(responses::StreamReader),
}

#[derive(Clone, Debug)]
enum Writer {
    Anthropic(anthropic::StreamWriter),
    Ollama(ollama::StreamWriter),
    OpenAi(openai::StreamWriter),
    Responses(Box<responses::StreamWriter>),
}

// === impl StreamDecoder ===

impl StreamDecoder {
    /// A decoder of one stream. `seed` makes the ids of tool calls that the provider gives none.
    pub fn new(dialect: Dialect, seed: u64) -> Self {
        let ids = ToolIds::new(seed);
        let (wire, reader) = match dialect {
            Dialect::Anthropic => (Wire::sse(), Reader::Anthropic(anthropic::StreamReader::default())),
            Dialect::Bedrock => (Wire::frames(), Reader::Bedrock(bedrock::StreamReader::default())),
            Dialect::Gemini => (Wire::sse(), Reader::Gemini(gemini::StreamReader::new(ids))),
            Dialect::Ollama => (Wire::ndjson(), Reader::Ollama(ollama::StreamReader::new(ids))),
            Dialect::OpenAi => (Wire::sse(), Reader::OpenAi(openai::StreamReader::new(ids))),
            Dialect::Responses => (Wire::sse(), Reader::Responses(responses::StreamReader::new(ids))),
        };
        Self { wire, reader, ended: false }
    }

    /// Reads the next chunk.
    pub fn push(&mut self, chunk: &[u8], events: &mut VecDeque<Event>) {
        let Self { wire, reader, ended } = self;
        match wire {
            Wire::Frames(decoder) => decoder.push(chunk, |item| reader.frame(item, ended, events)),
            Wire::Sse(decoder) => decoder.push(chunk, |item| reader.sse(item, ended, events)),
            Wire::Ndjson(decoder) => decoder.push(chunk, |item| reader.line(item, ended, events)),
        }
    }

    /// The bytes have ended.
    pub fn finish(&mut self, events: &mut VecDeque<Event>) {
        let Self { wire, reader, ended } = self;
        match wire {
            // What is left of a frame says nothing.
            Wire::Frames(_) => {}
            Wire::Sse(decoder) => decoder.finish(|item| reader.sse(item, ended, events)),
            Wire::Ndjson(decoder) => decoder.finish(|item| reader.line(item, ended, events)),
        }
        reader.finish(&mut once(ended, events));
    }

    /// Whether the last event has come.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// How much is kept of an event whose end has not come, and of what has not had its turn, in bytes.
    pub(crate) fn kept(&self) -> usize {
        let unread = match &self.wire {
            Wire::Frames(decoder) => decoder.kept(),
            Wire::Sse(decoder) => decoder.kept(),
            Wire::Ndjson(decoder) => decoder.kept(),
        };
        unread + self.reader.kept()
    }

    /// What the common form cannot hold of the stream so far.
    pub fn losses(&self) -> &Losses {
        self.reader.losses()
    }
}

/// Takes events up to the last one.
fn once<'a>(ended: &'a mut bool, events: &'a mut VecDeque<Event>) -> impl FnMut(Event) + use<'a> {
    move |event| {
        if !*ended {
            *ended = event.is_last();
            events.push_back(event);
        }
    }
}

/// Ends a stream of which too much is kept.
fn bound(kept: usize, sink: &mut impl FnMut(Event)) {
    if kept > MOST_KEPT {
        sink(Event::Failed(Fault::too_large()));
    }
}

// === impl Wire ===

impl Wire {
    fn frames() -> Self {
        Self::Frames(frames::FrameDecoder::new(EVENT_LIMIT))
    }

    fn sse() -> Self {
        Self::Sse(sse::SseDecoder::new(EVENT_LIMIT))
    }

    fn ndjson() -> Self {
        Self::Ndjson(ndjson::NdjsonDecoder::new(EVENT_LIMIT))
    }
}

// === impl Reader ===

impl Reader {
    fn frame(&mut self, item: frames::Item<'_>, ended: &mut bool, events: &mut VecDeque<Event>) {
        match (self, item) {
            (_, _) if *ended => {}
            (Self::Bedrock(reader), frames::Item::Frame(frame)) => {
                let sink = &mut once(ended, events);
                reader.frame(&frame, sink);
                bound(reader.kept(), sink);
            }
            _ => once(ended, events)(Event::Failed(Fault::unreadable())),
        }
    }

    fn sse(&mut self, item: sse::Item<'_>, ended: &mut bool, events: &mut VecDeque<Event>) {
        match item {
            sse::Item::Event { data, .. } => self.data(data, ended, events),
            sse::Item::Comment => once(ended, events)(Event::Ping),
            sse::Item::Oversized => once(ended, events)(Event::Failed(Fault::unreadable())),
        }
    }

    fn line(&mut self, item: ndjson::Item<'_>, ended: &mut bool, events: &mut VecDeque<Event>) {
        match item {
            ndjson::Item::Line(line) => self.data(line, ended, events),
            ndjson::Item::Oversized => once(ended, events)(Event::Failed(Fault::unreadable())),
        }
    }

    fn data(&mut self, data: &[u8], ended: &mut bool, events: &mut VecDeque<Event>) {
        if *ended {
            return;
        }
        let sink = &mut once(ended, events);
        match self {
            Self::Anthropic(reader) => reader.event(data, sink),
            Self::Bedrock(_) => {}
            Self::Gemini(reader) => reader.event(data, sink),
            Self::Ollama(reader) => reader.line(data, sink),
            Self::OpenAi(reader) => reader.event(data, sink),
            Self::Responses(reader) => reader.event(data, sink),
        }
        bound(self.kept(), sink);
    }

    fn losses(&self) -> &Losses {
        match self {
            Self::Anthropic(reader) => reader.losses(),
            Self::Bedrock(reader) => reader.losses(),
            Self::Gemini(reader) => reader.losses(),
            Self::Ollama(reader) => reader.losses(),
            Self::OpenAi(reader) => reader.losses(),
            Self::Responses(reader) => reader.losses(),
        }
    }

    fn kept(&self) -> usize {
        match self {
            // They say all at once.
            Self::Anthropic(_) | Self::Ollama(_) => 0,
            Self::Bedrock(reader) => reader.kept(),
            Self::Gemini(reader) => reader.kept(),
            Self::OpenAi(reader) => reader.kept(),
            Self::Responses(reader) => reader.kept(),
        }
    }

    fn finish(&mut self, sink: &mut impl FnMut(Event)) {
        match self {
            Self::Anthropic(reader) => reader.finish(sink),
            Self::Bedrock(reader) => reader.finish(sink),
            Self::Gemini(reader) => reader.finish(sink),
            Self::Ollama(reader) => reader.finish(sink),
            Self::OpenAi(reader) => reader.finish(sink),
            Self::Responses(reader) => reader.finish(sink),
        }
    }
}

// === impl StreamEncoder ===

impl StreamEncoder {
    /// An encoder of one stream. `names` gives tools the names back that the client knows them by, and calls
    /// ids that no others have.
    pub fn new(dialect: ClientDialect, defaults: Defaults, names: ToolNames) -> Self {
        let (echoed, input_estimate) = (defaults.echo.weight(), defaults.input_estimate);
        let writer = match dialect {
            ClientDialect::Anthropic => Writer::Anthropic(anthropic::StreamWriter::new(defaults)),
            ClientDialect::Ollama => Writer::Ollama(ollama::StreamWriter::new(defaults)),
            ClientDialect::OpenAi => Writer::OpenAi(openai::StreamWriter::new(defaults)),
            ClientDialect::Responses => Writer::Responses(Box::new(responses::StreamWriter::new(defaults))),
        };
        let (told, said, losses) = <(Tokens, Weight, Losses)>::default();
        Self { writer, names, echoed, input_estimate, begun: false, told, said, losses }
    }

    /// The type of the stream.
    pub fn content_type(dialect: ClientDialect) -> &'static str {
        match dialect {
            ClientDialect::Ollama => "application/x-ndjson",
            _ => "text/event-stream",
        }
    }

    /// How long ago the answer was asked for, when the events come that follow. Ollama's clients are told how
    /// long an answer takes: by [`Defaults::took`] if nothing else is said.
    pub fn set_took(&mut self, took: Duration) {
        if let Writer::Ollama(writer) = &mut self.writer {
            writer.set_took(took);
        }
    }

    /// Writes an event after what is in `out` already.
    pub fn push(&mut self, mut event: Event, out: &mut Vec<u8>) {
        match &mut event {
            Event::Start { id, model } => {
                self.begun = true;
                for name in [id, model] {
                    if name.as_ref().is_some_and(|name| name.len() > LONGEST_NAME) {
                        *name = None;
                    }
                }
            }
            // A stream begins with its beginning.
            Event::Ping if !self.begun => return,
            Event::Open(Part::ToolCall { id, name }) => {
                self.names.tell_apart(id);
                self.names.restore(name);
            }
            Event::Logprobs(_) if matches!(self.writer, Writer::Anthropic(_)) => {
                self.losses.add("logprobs");
            }
            Event::Delta(text) => self.said += Weight::of(text.as_bytes()),
            Event::Tokens(tokens) => self.told.merge(*tokens),
            Event::Stop(stop) if !matches!(self.writer, Writer::Anthropic(_)) => {
                self.losses.extend(lost_of_stop(stop));
            }
            Event::End => {
                let input = self.told.input.or(Some(self.input_estimate));
                let output = self.told.output.or_else(|| Some(self.said.tokens()));
                self.writer.event(Event::Tokens(Tokens { input, output, ..Tokens::default() }), out);
            }
            _ => {}
        }
        self.writer.event(event, out);
    }

    /// How much is kept of the answer, in bytes.
    pub(crate) fn kept(&self) -> usize {
        self.writer.kept()
    }

    /// How much is kept for it of what the client has sent, in bytes.
    pub(crate) fn kept_of_request(&self) -> usize {
        self.names.kept() + self.echoed
    }

    /// Whether a client can be told that there is nothing to say yet.
    pub(crate) fn pings(&self) -> bool {
        !matches!(self.writer, Writer::Ollama(_))
    }

    /// What the dialect cannot say of the stream so far; `None` if nothing was lost.
    pub fn losses(&self) -> Option<&Losses> {
        match &self.writer {
            Writer::Ollama(writer) => Some(writer.losses()),
            // The sequence that an answer stopped at, and log probabilities, are all that has no place.
            _ => Some(&self.losses).filter(|losses| !losses.is_empty()),
        }
    }
}

/// What is lost of why an answer ends where there is no place for a sequence.
pub(crate) fn lost_of_stop(stop: &Stop) -> Losses {
    let mut losses = Losses::default();
    if matches!(stop, Stop::Sequence(Some(_))) {
        losses.add("stop_sequence");
    }
    losses
}

// === impl Writer ===

impl Writer {
    fn event(&mut self, event: Event, out: &mut Vec<u8>) {
        match self {
            Self::Anthropic(writer) => writer.event(event, out),
            Self::Ollama(writer) => writer.event(event, out),
            Self::OpenAi(writer) => writer.event(event, out),
            Self::Responses(writer) => writer.event(event, out),
        }
    }

    fn kept(&self) -> usize {
        match self {
            Self::Anthropic(writer) => writer.kept(),
            Self::Ollama(writer) => writer.kept(),
            Self::OpenAi(writer) => writer.kept(),
            Self::Responses(writer) => writer.kept(),
        }
    }
}

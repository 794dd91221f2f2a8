//! Reads the usage of a reply while it passes, in bounded memory.

mod counts;
mod doubt;
mod reader;

use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::de::IgnoredAny;

use self::doubt::Doubt;
use self::reader::Reader;
use super::about::About;
use super::format::Format;
use super::tally::Tally;
use super::{CallReport, Outcome, Usage, UsageReport};
use crate::codec::fault;
use crate::dialect::{Dialect, Operation, Surface, bedrock};
use crate::facts::RequestFacts;
use crate::wire::{ndjson, sse};

/// A meter of one request, without IO: [`begin`](Self::begin) with the head of the reply,
/// [`push`](Self::push) its body, [`report`](Self::report) at its end.
///
/// Reported are the provider's own counts: of a buffered reply, of the last chunk of an OpenAI stream, of
/// `message_start` and `message_delta`, of Ollama's last line. What the provider does not report is estimated
/// and flagged: an OpenAI stream without `stream_options.include_usage`, one that ended early, a compressed
/// reply. An event above 16 MiB, or for which there is no memory, passes unread: if it is the last one, the
/// stream counts as complete.
///
/// ```
/// use http::{HeaderMap, HeaderValue, Method, StatusCode};
/// use nantian_ai::usage::{End, Meter, Outcome};
/// use nantian_ai::{RequestFacts, Surface};
///
/// let surface = Surface::detect(&Method::POST, "/v1/chat/completions", &HeaderMap::new()).unwrap();
/// let facts = RequestFacts::read(&surface, br#"{"model":"m","messages":[]}"#).unwrap();
/// let mut meter = Meter::new(&surface, &facts);
///
/// let mut headers = HeaderMap::new();
/// headers.insert("content-type", HeaderValue::from_static("application/json"));
/// meter.begin(StatusCode::OK, &headers);
/// meter.push(br#"{"choices":[],"usage":{"prompt_tokens":9,"comp"#);
/// meter.push(br#"letion_tokens":3}}"#);
///
/// let report = meter.report(End::Finished);
/// assert_eq!(report.outcome, Outcome::Completed);
/// assert_eq!((report.usage.input, report.usage.output), (9, 3));
/// assert!(!report.usage.estimated);
/// ```
#[derive(Clone, Debug)]
pub struct Meter {
    /// What the upstream speaks, and is asked for.
    dialect: Dialect,
    operation: Operation,
    input_estimate: u64,
    choices: u64,
    /// How a reply is read that does not say what it is.
    asked: Format,
    /// The reply does not.
    unsaid: bool,
    /// The reply is called JSON, and a stream was asked for: its first bytes tell what it is.
    doubt: Doubt,
    /// The upstream has the prompt, even if no answer comes of it.
    sent: bool,
    reader: Reader,
    stream: bool,
    within_line: bool,
    tally: Tally,
}

/// How a body came to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum End {
    /// Dropped before its end: the client is gone.
    Dropped,
    /// An error, or a timeout.
    Failed,
    /// Its regular end.
    Finished,
}

// === impl Meter ===

impl Meter {
    /// A meter of a request that is about to be sent to an upstream in the client's own dialect; of one that
    /// a [`Target`](crate::Target) has prepared, that may say it in another dialect, it is
    /// [`Prepared::meter`](crate::Prepared::meter). It reads what the upstream says: an answer that has been
    /// said anew tells estimates as if they were the provider's counts.
    pub fn new(surface: &Surface, facts: &RequestFacts) -> Self {
        Self::of(surface.dialect().into(), surface.operation(), facts)
    }

    /// A meter of what is asked of an upstream in its own dialect.
    pub(crate) fn of(dialect: Dialect, operation: Operation, facts: &RequestFacts) -> Self {
        Self {
            asked: Format::asked(dialect, operation, facts),
            unsaid: false,
            doubt: Doubt::None,
            dialect,
            operation,
            input_estimate: facts.input_estimate,
            choices: facts.choices,
            sent: false,
            reader: Reader::Waiting,
            stream: false,
            within_line: false,
            tally: Tally::default(),
        }
    }

    /// Notes that an upstream may have worked on the prompt though no answer comes of it: after a timeout, or
    /// an error of which nobody knows when it happened.
    ///
    /// Without an answer the outcome is [`Outcome::Truncated`] then, and after a refusal
    /// [`Outcome::Refused`], with the estimate of the input.
    pub fn mark_sent(&mut self) {
        self.sent = true;
    }

    /// Whether an upstream may have worked on the prompt though no answer came of it.
    pub(crate) fn is_sent(&self) -> bool {
        self.sent
    }

    /// Takes the head of the reply, and forgets an earlier one. A 504 says that somebody further on has the
    /// prompt.
    pub fn begin(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.sent |= status == StatusCode::GATEWAY_TIMEOUT;
        self.tally = Tally::of(self.choices);
        if self.dialect == Dialect::Bedrock {
            let count = text(headers.get(bedrock::INPUT_TOKENS));
            self.tally.reported.input = count.and_then(|count| count.parse().ok());
        }
        let said = text(headers.get(CONTENT_TYPE)).and_then(Format::of);
        self.unsaid = said.is_none();
        let format = said.unwrap_or(self.asked);
        self.stream = format.is_stream();
        let plain = text(headers.get(CONTENT_ENCODING)).is_none_or(|it| it.eq_ignore_ascii_case("identity"));
        self.reader = match format {
            _ if !status.is_success() => Reader::of_refusal(),
            _ if !plain => Reader::Opaque,
            format => Reader::of(format, self.dialect),
        };
        let in_doubt = self.reads_whole() && self.asked.is_stream();
        self.doubt = if in_doubt { Doubt::Unbegun } else { Doubt::None };
    }

    /// Takes a reply that was read as a stream because it does not say what it is, if it is one JSON text.
    pub(crate) fn reads_json(&mut self, body: &[u8]) -> bool {
        let is_json = self.unsaid && serde_json::from_slice::<IgnoredAny>(body).is_ok();
        if is_json {
            self.asked = Format::Json;
            self.begin(StatusCode::OK, &HeaderMap::new());
            self.push(body);
        }
        is_json
    }

    /// Takes the next chunk of the reply's body.
    pub fn push(&mut self, chunk: &[u8]) {
        if let Some(last) = chunk.last() {
            self.within_line = *last != b'\n';
        }
        self.tally.bytes += chunk.len() as u64;
        if self.is_in_doubt() {
            let (front, chunk) = self.settle_doubt(chunk);
            self.read(front);
            self.read(chunk);
        } else {
            self.read(chunk);
        }
    }

    fn read(&mut self, chunk: &[u8]) {
        let Self { dialect, reader, tally, sent, .. } = self;
        match reader {
            Reader::Waiting => {}
            Reader::Refusal(reply) => reply.push(chunk, |_, error| *sent |= fault::is_of_an_answer(error)),
            Reader::Opaque => tally.token = true,
            Reader::Buffered(reply) => {
                reply.push(chunk, |name, json| tally.member(*dialect, name, json));
                tally.complete = reply.is_complete();
                tally.settled = tally.complete;
            }
            Reader::Frames(decoder) => decoder.push(chunk, |item| tally.frame(item)),
            Reader::Sse(decoder) => decoder.push(chunk, |item| tally.sse(*dialect, item)),
            Reader::Ndjson(decoder) => decoder.push(chunk, |item| tally.line(item)),
        }
    }

    /// How much is kept of an event whose end has not come, in bytes.
    pub(crate) fn kept(&self) -> usize {
        self.reader.kept()
    }

    /// Does not read the event whose end has not come.
    pub(crate) fn skip_event(&mut self) {
        let Self { reader, tally, .. } = self;
        match reader {
            Reader::Frames(decoder) => decoder.skip(|item| tally.frame(item)),
            Reader::Ndjson(decoder) => decoder.skip(),
            Reader::Sse(decoder) => decoder.skip(),
            Reader::Waiting | Reader::Refusal(_) | Reader::Buffered(_) | Reader::Opaque => {}
        }
    }

    /// The input tokens that were expected.
    pub(crate) fn input_estimate(&self) -> u64 {
        self.input_estimate
    }

    /// The input tokens that the provider has told so far.
    pub(crate) fn told_input(&self) -> Option<u64> {
        self.tally.reported.input
    }

    /// Whether the provider has told less than all counts so far.
    pub(crate) fn is_estimated(&self) -> bool {
        self.usage().estimated
    }

    /// What the upstream speaks.
    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whether the reply is a stream.
    pub fn is_stream(&self) -> bool {
        self.stream
    }

    /// Whether the reply is a stream of readable events.
    pub(crate) fn reads_events(&self) -> bool {
        matches!(self.reader, Reader::Frames(_) | Reader::Ndjson(_) | Reader::Sse(_))
    }

    /// Whether the reply is one JSON text that can be read.
    pub(crate) fn reads_whole(&self) -> bool {
        matches!(self.reader, Reader::Buffered(_))
    }

    /// Whether the reply is one JSON text of which something is missing so far.
    pub(crate) fn lacks_end(&self) -> bool {
        matches!(&self.reader, Reader::Buffered(reply) if reply.lacks_end())
    }

    /// Whether what has come of the reply ends within a line.
    pub(crate) fn is_within_line(&self) -> bool {
        self.within_line
    }

    /// Whether something of the answer itself has come: text, reasoning, a tool call.
    pub fn has_token(&self) -> bool {
        self.tally.token
    }

    /// What the reply has said of itself so far.
    pub(crate) fn about(&self) -> &About {
        &self.tally.about
    }

    /// How many events of a stream have come.
    pub(crate) fn events(&self) -> u64 {
        self.tally.events
    }

    /// How many events of a stream have said something.
    pub(crate) fn spoken_events(&self) -> u64 {
        self.tally.spoken
    }

    /// Whether the answer is complete, even if the body goes on.
    pub fn is_complete(&self) -> bool {
        self.tally.complete
    }

    /// Whether the reply has said how it ends: complete, or failed; or may have, in an event that was not
    /// read.
    pub(crate) fn has_end(&self) -> bool {
        self.tally.complete || self.tally.failed || self.tally.unread
    }

    /// Whether the reply says that the answer failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.tally.failed
    }

    /// Notes that the client has been told of a failure: what has come of the answer could not be said.
    pub(crate) fn fail(&mut self) {
        self.tally.failed = true;
    }

    /// Notes that the upstream has answered, and that nobody can read it: it was not free, and the client
    /// gets nothing of it.
    pub(crate) fn mark_unread(&mut self) {
        self.mark_sent();
        self.fail();
    }

    /// Notes that the reply is no answer, whatever its status says.
    pub(crate) fn refuse(&mut self) {
        self.reader = Reader::of_refusal();
    }

    /// The report at the end of the reply.
    pub fn report(&mut self, end: End) -> UsageReport {
        if end == End::Finished {
            self.finish();
        }
        let outcome = self.outcome(end);
        let usage = match outcome {
            Outcome::NotServed => Usage::default(),
            _ => self.usage(),
        };
        let About { id, model, finish_reason } = std::mem::take(&mut self.tally.about);
        let unseen = self.tally.is_unseen();
        let (dialect, stream) = (Some(self.dialect), self.stream);
        let call = CallReport { dialect, stream, unseen, id, model, finish_reason, ..CallReport::default() };
        UsageReport { usage, outcome, call }
    }

    /// Reads what the end of the body completes. What is cut off within says nothing.
    pub(crate) fn finish(&mut self) {
        let Self { dialect, reader, tally, .. } = self;
        let is_cut = |data: &[u8]| {
            data.trim_ascii() != b"[DONE]" && serde_json::from_slice::<IgnoredAny>(data).is_err()
        };
        match reader {
            Reader::Sse(decoder) => decoder.finish(|item| match item {
                sse::Item::Event { data, .. } if is_cut(data) => {}
                item => tally.sse(*dialect, item),
            }),
            Reader::Ndjson(decoder) => decoder.finish(|item| match item {
                ndjson::Item::Line(line) if is_cut(line) => {}
                item => tally.line(item),
            }),
            Reader::Opaque => tally.complete = true,
            Reader::Waiting | Reader::Refusal(_) | Reader::Buffered(_) | Reader::Frames(_) => {}
        }
    }

    fn outcome(&self, end: End) -> Outcome {
        match (&self.reader, end) {
            (Reader::Refusal(_), _) if self.sent => Outcome::Refused,
            (Reader::Waiting, End::Failed | End::Finished) if self.sent => Outcome::Truncated,
            (Reader::Refusal(_), _) | (Reader::Waiting, End::Failed | End::Finished) => Outcome::NotServed,
            _ if self.tally.failed => Outcome::Truncated,
            _ if self.tally.complete => Outcome::Completed,
            (_, End::Finished) if self.tally.unread => Outcome::Completed,
            (_, End::Dropped) => Outcome::Aborted,
            (_, End::Failed | End::Finished) => Outcome::Truncated,
        }
    }
}

fn text(value: Option<&HeaderValue>) -> Option<&str> {
    value?.to_str().ok()
}

#[cfg(test)]
mod tests;

//! One request in another dialect, and how its answer comes back into the client's.

use std::collections::VecDeque;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::response::Parts;

use crate::DROPPED;
use crate::codec::{Defaults, StreamDecoder, StreamEncoder};
use crate::dialect::Dialect;
use crate::error::Error;
use crate::facts::RequestFacts;
use crate::ir::{Collector, Event, Fault, Losses, ToolNames, pieces};
use crate::target::Target;

/// What the answer to a translated request needs to know about it.
#[derive(Clone, Debug)]
pub(crate) struct Translation {
    client: Dialect,
    upstream: Dialect,
    stream: bool,
    stream_usage: bool,
    names: ToolNames,
    losses: Losses,
    model: String,
    input_estimate: u64,
}

/// Turns a stream of the upstream into one of the client while it passes.
#[derive(Debug)]
pub(crate) struct Translator {
    decoder: StreamDecoder,
    encoder: StreamEncoder,
    events: VecDeque<Event>,
    ended: bool,
}

/// What an upstream says about the answer in any dialect; its other headers are for its own clients.
const KEPT: [&str; 6] =
    ["content-language", "date", "request-id", "retry-after", "retry-after-ms", "x-request-id"];

/// The headers of a response that has been said anew.
pub(crate) fn kept_headers(headers: &HeaderMap) -> HeaderMap {
    let kept = KEPT.iter().filter_map(|name| {
        let value = headers.get(*name)?;
        Some((HeaderName::from_static(name), value.clone()))
    });
    kept.collect()
}

// === impl Translation ===

impl Translation {
    /// Says a chat in the dialect of the target.
    ///
    /// # Errors
    /// [`Error::Untranslatable`], and [`Error::Lossy`] if nothing may be lost.
    pub(crate) fn begin(
        target: &Target,
        client: Dialect,
        body: &[u8],
        facts: &RequestFacts,
        strict: bool,
    ) -> Result<(Self, Bytes), Error> {
        let (mut request, mut losses) = client.decode_request(body)?;
        target.model().clone_into(&mut request.model);
        let names = ToolNames::adapt(&mut request);
        let (body, more) = target.dialect().encode_request(&request, &target.config().provider)?;
        losses.extend(more);
        if strict && !losses.is_empty() {
            return Err(Error::Lossy { losses });
        }
        let translation = Self {
            client,
            upstream: target.dialect(),
            stream: request.stream,
            stream_usage: request.stream_usage,
            names,
            losses,
            model: request.model,
            input_estimate: facts.input_estimate,
        };
        Ok((translation, body))
    }

    /// What the other dialect has no words for in the request.
    pub(crate) fn losses(&self) -> &Losses {
        &self.losses
    }

    /// A whole answer, in events or not, said anew, and what is lost of it.
    ///
    /// # Errors
    /// What the provider says instead of an answer, or that this is none.
    pub(crate) fn reply(
        &self,
        head: &mut Parts,
        body: &[u8],
        events: bool,
    ) -> Result<(Bytes, Losses), Fault> {
        let (mut reply, mut losses) = if events {
            (self.collect(body)?, Losses::default())
        } else {
            self.upstream.decode_reply(body, fastrand::u64(..))?
        };
        let defaults = self.defaults();
        let (content_type, body) = if self.stream {
            let mut encoder = StreamEncoder::new(self.client, defaults, self.names.clone());
            let mut out = Vec::new();
            pieces(reply).into_iter().for_each(|event| encoder.push(event, &mut out));
            (StreamEncoder::content_type(self.client), Bytes::from(out))
        } else {
            self.names.restore_in(&mut reply);
            let (body, more) = self.client.encode_reply(reply, &defaults);
            losses.extend(more);
            ("application/json", body)
        };
        self.write_head(head, content_type, &losses);
        Ok((body, losses))
    }

    /// The head of a streamed answer, and what says its body anew.
    pub(crate) fn stream(&self, head: &mut Parts) -> Translator {
        self.write_head(head, StreamEncoder::content_type(self.client), &Losses::default());
        Translator {
            decoder: StreamDecoder::new(self.upstream, fastrand::u64(..)),
            encoder: StreamEncoder::new(self.client, self.defaults(), self.names.clone()),
            events: VecDeque::new(),
            ended: false,
        }
    }

    /// Whether the client asked for a stream.
    pub(crate) fn is_stream(&self) -> bool {
        self.stream
    }

    fn collect(&self, body: &[u8]) -> Result<crate::ir::Reply, Fault> {
        let mut decoder = StreamDecoder::new(self.upstream, fastrand::u64(..));
        let mut events = VecDeque::new();
        decoder.push(body, &mut events);
        decoder.finish(&mut events);
        let mut collector = Collector::default();
        events.into_iter().for_each(|event| collector.push(event));
        collector.finish()
    }

    fn write_head(&self, head: &mut Parts, content_type: &'static str, losses: &Losses) {
        head.headers = kept_headers(&head.headers);
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        let mut all = self.losses.clone();
        all.extend(losses.clone());
        if let Some(value) = all.header_value() {
            head.headers.insert(DROPPED, value);
        }
    }

    fn defaults(&self) -> Defaults {
        let prefix = match self.client {
            Dialect::OpenAi => "chatcmpl-",
            Dialect::Responses => "resp_",
            Dialect::Anthropic | Dialect::Gemini | Dialect::Ollama => "msg_",
        };
        Defaults {
            id: format!("{prefix}{:032x}", fastrand::u128(..)),
            model: self.model.clone(),
            created: SystemTime::now(),
            stream_usage: self.stream_usage,
            input_estimate: self.input_estimate,
        }
    }
}

// === impl Translator ===

impl Translator {
    /// The next chunk, said anew; may be empty.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Bytes {
        self.decoder.push(chunk, &mut self.events);
        self.write()
    }

    /// The end of the bytes, said anew.
    pub(crate) fn finish(&mut self) -> Bytes {
        self.decoder.finish(&mut self.events);
        self.write()
    }

    /// The end of a stream that cannot go on.
    pub(crate) fn fail(&mut self, fault: Fault) -> Bytes {
        if !self.ended {
            self.events.push_back(Event::Failed(fault));
        }
        self.write()
    }

    /// Whether the client has been told the end.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    fn write(&mut self) -> Bytes {
        let mut out = Vec::new();
        while let Some(event) = self.events.pop_front() {
            self.ended |= event.is_last();
            self.encoder.push(event, &mut out);
        }
        Bytes::from(out)
    }
}

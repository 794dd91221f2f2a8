//! One request in another dialect, and how its answer comes back into the client's.
//!
//! A proxy of callbacks makes the request with [`Target::prepare`] and asks [`Prepared::translation`] what is
//! to become of the answer; where the bodies alone are its business, a [`Translation`] does.
//!
//! Where a provider gives none, ids are drawn and the time is read here; the [`codec`](crate::codec)s below
//! are told both.
//!
//! ```
//! use http::{HeaderMap, Method};
//! use nantian_ai::translate::Translation;
//! use nantian_ai::{Surface, Target, TargetConfig};
//!
//! let target = Target::new(TargetConfig::new("demo/gpt", "openai", "gpt-4o"))?;
//! let surface = Surface::detect(&Method::POST, "/v1/messages", &HeaderMap::new())?;
//!
//! // When the body of the request is there.
//! let asked = br#"{"model":"any","max_tokens":9,"stream":true,"top_k":3,"messages":[{"role":"user","content":"Hi"}]}"#;
//! let (translation, body) = Translation::begin(&target, &surface, asked, false)?;
//! assert!(body.starts_with(br#"{"model":"gpt-4o","messages":[{"role":"user","content":"Hi"}]"#));
//! assert_eq!(translation.losses().to_string(), "top_k");
//!
//! // With each chunk of the answer.
//! let mut translator = translation.translator();
//! let mut out = Vec::new();
//! for chunk in ["data: {\"choices\":[{\"delta\":{\"content\":\"Hel", "lo\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"] {
//!     out.extend(translator.push(chunk.as_bytes()));
//! }
//! out.extend(translator.finish());
//! let out = String::from_utf8(out)?;
//! assert!(out.starts_with("event: message_start") && out.ends_with("data: {\"type\":\"message_stop\"}\n\n"));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Target::prepare`]: crate::Target::prepare
//! [`Prepared::translation`]: crate::Prepared::translation

pub(crate) mod refusal;
mod translator;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::SystemTime;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TRAILER};
use http::response::Parts;
use tokio::time::Instant;

use crate::codec::{Defaults, Echo, StreamDecoder, StreamEncoder, decode_count};
use crate::dialect::{
    ClientDialect, Dialect, Operation, Surface, anthropic, bedrock, gemini, openai, responses,
};
use crate::edit::{Object, model_of};
use crate::error::Error;
use crate::facts::RequestFacts;
use crate::headers::{DROPPED, TRAILERS};
use crate::ir::{Collector, Fault, Losses, Reply, ToolNames, VectorForm, pieces};
use crate::outbound::{ANTHROPIC_BETA, OPENAI_BETA, kept_headers};
use crate::target::{Refusals, Target};
use crate::wish::{Wish, Wishes};

pub use self::translator::Translator;

/// What the answer to a translated request needs to know about it.
#[derive(Clone, Debug)]
pub struct Translation {
    client: ClientDialect,
    upstream: Dialect,
    refusals: Refusals,
    asked: Asked,
    begun: Instant,
    losses: Losses,
    model: String,
    /// The model as the client has named it, where the answer must name it so.
    named: Option<String>,
    input_estimate: u64,
    /// The most tokens of the answer that are asked for, if the client has named them.
    max_output: Option<u64>,
    echo: Echo,
}

/// What was asked for.
#[derive(Clone, Debug)]
enum Asked {
    Chat { stream: bool, stream_usage: bool, names: Box<ToolNames>, wishes: Wishes },
    Count,
    Embeddings { form: VectorForm },
}

// === impl Translation ===

impl Translation {
    /// Says a chat, a request for embeddings, or for a count of tokens, in the dialect of the target: the
    /// body that the provider gets. `strict` refuses what cannot be said whole.
    ///
    /// # Errors
    /// [`Error::UnsupportedPair`] for other operations, [`Error::NotJson`], [`Error::Untranslatable`], and
    /// [`Error::Lossy`] if nothing may be lost.
    pub fn begin(
        target: &Target,
        client: &Surface,
        body: &[u8],
        strict: bool,
    ) -> Result<(Self, Bytes), Error> {
        if !target.translates(client) {
            return Err(target.unsupported(client));
        }
        let facts = target.facts(client, &Object::parse(body)?, body);
        Self::with_facts(target, client, &HeaderMap::new(), body, &facts, strict)
    }

    pub(crate) fn with_facts(
        target: &Target,
        client: &Surface,
        headers: &HeaderMap,
        request: &[u8],
        facts: &RequestFacts,
        strict: bool,
    ) -> Result<(Self, Bytes), Error> {
        let spoken = client.dialect();
        let (asked, body, losses) = match client.operation() {
            Operation::Embeddings => say_embed(target, spoken, request)?,
            Operation::CountTokens => say_count(target, spoken, request)?,
            _ => say_chat(target, spoken, headers, request, strict)?,
        };
        if strict && !losses.is_empty() {
            return Err(Error::Lossy { losses });
        }
        let translation = Self {
            echo: match spoken {
                ClientDialect::Responses => Echo::of_responses(request, &losses),
                ClientDialect::OpenAi => Echo::of_chat(request),
                _ => Echo::default(),
            },
            client: spoken,
            upstream: target.dialect(),
            refusals: target.refusals(),
            asked,
            begun: Instant::now(),
            losses,
            model: target.model().to_owned(),
            // Claude Code gives reasoning back only to the model that it is told has thought it.
            named: match spoken {
                ClientDialect::Anthropic => model_of(request).map(Cow::into_owned),
                _ => None,
            },
            input_estimate: facts.input_estimate,
            max_output: facts.max_output(),
        };
        Ok((translation, body))
    }

    /// What the other dialect has no words for in the request.
    pub fn losses(&self) -> &Losses {
        &self.losses
    }

    /// The same, to note what is not asked for any more.
    pub(crate) fn losses_mut(&mut self) -> &mut Losses {
        &mut self.losses
    }

    /// What the provider may refuse.
    pub(crate) fn wishes(&self) -> Wishes {
        match self.asked {
            Asked::Chat { wishes, .. } => wishes,
            Asked::Count | Asked::Embeddings { .. } => Wishes::default(),
        }
    }

    /// Notes that so many tokens are asked for.
    pub(crate) fn limit(&mut self, most: u64) {
        self.max_output = Some(most);
    }

    /// Whether the client asked for a stream.
    pub fn is_stream(&self) -> bool {
        matches!(self.asked, Asked::Chat { stream: true, .. })
    }

    /// What is asked of the provider.
    pub(crate) fn operation(&self) -> Operation {
        match self.asked {
            Asked::Chat { .. } => Operation::Chat,
            Asked::Count => Operation::CountTokens,
            Asked::Embeddings { .. } => Operation::Embeddings,
        }
    }

    /// The `content-type` of the answer that the client gets.
    pub fn content_type(&self) -> &'static str {
        if self.is_stream() { StreamEncoder::content_type(self.client) } else { "application/json" }
    }

    /// A whole answer said anew, and what is lost of it; `events` says that it has come as a stream, which
    /// some providers send unasked. Who asked for a stream gets one.
    ///
    /// # Errors
    /// What the provider says instead of an answer, or that this is none.
    pub fn reply(&self, body: &[u8], events: bool) -> Result<(Bytes, Losses), Fault> {
        self.reply_with(body, events, None)
    }

    /// The same, with the count of input tokens that the head of the answer tells.
    pub(crate) fn reply_with(
        &self,
        body: &[u8],
        events: bool,
        input: Option<u64>,
    ) -> Result<(Bytes, Losses), Fault> {
        let defaults = self.defaults();
        let (stream, names) = match &self.asked {
            Asked::Chat { stream, names, .. } => (*stream, names),
            Asked::Count => {
                let count = decode_count(body)?;
                return Ok((self.client.encode_count(count), Losses::default()));
            }
            Asked::Embeddings { form } => {
                let mut reply = self.upstream.decode_embeddings(body)?;
                reply.tokens = reply.tokens.or(input);
                return Ok((self.client.encode_embeddings(&reply, *form, &defaults), Losses::default()));
            }
        };
        let (mut reply, mut losses) =
            if events { self.collect(body)? } else { self.upstream.decode_reply(body, fastrand::u64(..))? };
        reply.model = self.named.clone().or(reply.model);
        let (body, more) = if stream {
            let mut encoder = StreamEncoder::new(self.client, defaults, ToolNames::clone(names));
            let mut out = Vec::new();
            pieces(reply).into_iter().for_each(|event| encoder.push(event, &mut out));
            (Bytes::from(out), encoder.losses().cloned().unwrap_or_default())
        } else {
            names.restore_in(&mut reply);
            self.client.encode_reply(reply, &defaults)
        };
        losses.extend(more);
        Ok((body, losses))
    }

    /// What says a streamed answer anew, chunk by chunk.
    pub fn translator(&self) -> Translator {
        let names = match &self.asked {
            Asked::Chat { names, .. } => ToolNames::clone(names),
            Asked::Count | Asked::Embeddings { .. } => ToolNames::default(),
        };
        Translator::new(
            StreamDecoder::new(self.upstream, fastrand::u64(..)),
            StreamEncoder::new(self.client, self.defaults(), names),
            self.named.clone(),
            self.begun,
        )
    }

    /// The answer of the provider that a refusal stands for: one without a word, for the model has thought
    /// for as long as it may answer. Clients of the same API know the refusal.
    pub(crate) fn unfinished(&self, status: StatusCode, message: &str) -> Option<Bytes> {
        let is_chat = self.operation() == Operation::Chat && self.upstream == Dialect::OpenAi;
        let stands =
            is_chat && self.client != ClientDialect::OpenAi && openai::is_unfinished(status, message);
        self.max_output.filter(|_| stands).map(openai::unfinished)
    }

    /// What the client is told of a status that is no success.
    ///
    /// Who has to write the head before the body is there takes the status for an empty body: more than its
    /// status says a refusal seldom does.
    ///
    /// ```
    /// use nantian_ai::translate::Translation;
    /// use nantian_ai::{Target, TargetConfig};
    ///
    /// let target = Target::new(TargetConfig::new("example/gpt", "openai", "gpt-4o"))?;
    /// let (head, ()) = http::Request::post("/v1/messages").body(())?.into_parts();
    /// let body = br#"{"model":"any","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#;
    /// let (translation, _) = Translation::begin(&target, &target.admit(&head)?, body, false)?;
    ///
    /// // The operator's key is no concern of the client's.
    /// let (status, _) = translation.refusal(http::StatusCode::UNAUTHORIZED, b"");
    /// assert_eq!(status, 502);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn refusal(&self, status: StatusCode, body: &[u8]) -> (StatusCode, Bytes) {
        self.client.encode_fault(&self.refusals.read(status, body))
    }

    /// Makes the head of a whole answer the client's: of the provider's headers those are kept that mean
    /// something in any dialect, and [`DROPPED`] names what is lost, `losses` of the answer included.
    pub fn write_head(&self, head: &mut Parts, losses: Losses) {
        head.headers = kept_headers(&head.headers);
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type()));
        let mut all = self.losses.clone();
        all.extend(losses);
        if let Some(value) = all.header_value() {
            head.headers.insert(DROPPED, value);
        }
    }

    /// The same for a streamed answer. What is lost of it is not known yet, and is said at its end, in a
    /// trailer that the head announces.
    pub fn write_stream_head(&self, head: &mut Parts) {
        self.write_head(head, Losses::default());
        head.headers.insert(TRAILER, HeaderValue::from_static(TRAILERS));
    }

    fn collect(&self, body: &[u8]) -> Result<(Reply, Losses), Fault> {
        let mut decoder = StreamDecoder::new(self.upstream, fastrand::u64(..));
        let mut events = VecDeque::new();
        decoder.push(body, &mut events);
        decoder.finish(&mut events);
        let mut collector = Collector::default();
        events.into_iter().for_each(|event| collector.push(event));
        Ok((collector.finish()?, decoder.losses().clone()))
    }

    fn defaults(&self) -> Defaults {
        let prefix = match self.client {
            ClientDialect::OpenAi => "chatcmpl-",
            ClientDialect::Responses => "resp_",
            _ => "msg_",
        };
        Defaults {
            id: format!("{prefix}{:032x}", fastrand::u128(..)),
            model: self.model.clone(),
            created: SystemTime::now(),
            took: self.begun.elapsed(),
            stream_usage: matches!(self.asked, Asked::Chat { stream_usage: true, .. }),
            input_estimate: self.input_estimate,
            echo: self.echo.clone(),
        }
    }
}

fn say_chat(
    target: &Target,
    client: ClientDialect,
    headers: &HeaderMap,
    body: &[u8],
    strict: bool,
) -> Result<(Asked, Bytes, Losses), Error> {
    let (mut request, mut losses) = client.decode_request(body)?;
    request.betas = named_in(headers, ANTHROPIC_BETA).map(str::to_owned).collect();
    target.model().clone_into(&mut request.model);
    let names = Box::new(ToolNames::adapt(&mut request));
    // Who refuses what the model has said without its reasoning gets it from then on.
    let echoes = target.forgoes(Wish::Silence);
    let (body, more) = target.dialect().encode_echoing(&request, &target.config().provider, echoes)?;
    losses.extend(more);
    let is_openai = matches!(target.dialect(), Dialect::OpenAi | Dialect::Responses);
    if !is_openai && named_in(headers, OPENAI_BETA).next().is_some() {
        losses.add(OPENAI_BETA);
    }
    let wishes = Wishes::of(&request, target, strict);
    let asked = Asked::Chat { stream: request.stream, stream_usage: request.stream_usage, names, wishes };
    Ok((asked, body, losses))
}

/// The names in a header that is a list.
fn named_in<'h>(headers: &'h HeaderMap, header: &str) -> impl Iterator<Item = &'h str> + use<'h> {
    let values = headers.get_all(header).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|name| !name.is_empty())
}

fn say_count(target: &Target, client: ClientDialect, body: &[u8]) -> Result<(Asked, Bytes, Losses), Error> {
    let (mut request, mut losses) = client.decode_request(body)?;
    target.model().clone_into(&mut request.model);
    ToolNames::adapt(&mut request);
    let (body, more) = match target.dialect() {
        Dialect::Anthropic => anthropic::encode_count(&request),
        Dialect::Gemini => gemini::count::encode(request, target.is_vertex()),
        Dialect::OpenAi | Dialect::Responses => responses::encode_count(&request, &target.config().provider),
        _ => bedrock::count::encode(&request),
    }?;
    losses.extend(more);
    Ok((Asked::Count, Bytes::from(body), losses))
}

fn say_embed(target: &Target, client: ClientDialect, body: &[u8]) -> Result<(Asked, Bytes, Losses), Error> {
    let (mut request, mut losses) = client.decode_embed_request(body)?;
    target.model().clone_into(&mut request.model);
    let (body, more) = target.dialect().encode_embed_request(&request)?;
    losses.extend(more);
    Ok((Asked::Embeddings { form: request.form }, body, losses))
}

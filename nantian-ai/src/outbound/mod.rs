//! A client's request made into the request that the upstream gets, without IO.

pub(crate) mod answer_model;
mod edits;
pub(crate) mod fitted_limit;
pub(crate) mod foreign;
mod headers;
mod prepared;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue,
};
use http::request::Parts;
use http::{Uri, Version};

use self::headers::upstream_headers;
pub(crate) use self::headers::{ANTHROPIC_BETA, OPENAI_BETA, clean_response, kept_headers};
use crate::body::RequestBody;
use crate::dialect::{
    ClientDialect, Dialect, Operation, Surface, anthropic, bedrock, gemini, ollama, openai, responses,
};
use crate::edit::Object;
use crate::error::Error;
use crate::facts::RequestFacts;
use crate::headers::STRICT;
use crate::ir::Losses;
use crate::packed::{coding, unpack};
use crate::target::Target;
use crate::translate::Translation;
use crate::usage::{is_added, options_that_ask};
use crate::wish::{Wish, Wishes, continued};

/// A request as the upstream gets it, to be made as often as it is tried.
#[derive(Clone, Debug)]
pub struct Prepared {
    head: Parts,
    body: RequestBody,
    /// The body is Messages, which Claude at Vertex AI gets in its own form.
    is_at_vertex: bool,
    facts: RequestFacts,
    /// What the upstream speaks, and is asked for.
    asked: (Dialect, Operation),
    way: Way,
    /// What the provider may refuse, and is asked without then.
    wishes: Wishes,
    /// A limit on the tokens of the answer may become another one.
    may_fit: bool,
    lost: Losses,
}

/// How the answer comes back to the client.
#[derive(Clone, Debug, Default)]
pub(crate) enum Way {
    /// As it is.
    #[default]
    Same,
    /// As it is, without the usage that only this side has asked for.
    HidingUsage,
    /// As it is, with this JSON for the name of its model.
    Renamed(Arc<str>),
    /// In another dialect.
    Translated(Arc<Translation>),
}

/// What goes on in the dialect of both.
#[derive(Default)]
struct Passing {
    facts: RequestFacts,
    body: RequestBody,
    way: Way,
    wishes: Wishes,
    lost: Losses,
}

// === impl Target ===

impl Target {
    /// Decides from its head whether a request can be served; its body need not be read if not.
    ///
    /// # Errors
    /// [`Error::UnknownPath`], [`Error::MethodNotAllowed`], [`Error::NoWebSocket`],
    /// [`Error::UnsupportedPair`], [`Error::UnsupportedEncoding`].
    pub fn admit(&self, head: &Parts) -> Result<Surface, Error> {
        let surface = Surface::detect(&head.method, head.uri.path(), &head.headers)?;
        // Tokens are counted here where the provider counts none.
        let counted = surface.operation() == Operation::CountTokens;
        if !self.speaks(&surface) && !self.translates(&surface) && !counted {
            return Err(self.unsupported(&surface));
        }
        coding(&head.headers)?;
        Ok(surface)
    }

    /// Makes the upstream's request. In the client's own dialect that is the target's address, credential and
    /// model, and everything else stays as it is, the body byte for byte; in another one it is said anew.
    /// What is signed for AWS gets its signature by [`sign_at`](Self::sign_at).
    ///
    /// # Errors
    /// [`Error::NotJson`], [`Error::MalformedQuery`], [`Error::Untranslatable`], [`Error::Lossy`]; and those
    /// of a body that is compressed: [`Error::UnsupportedEncoding`], [`Error::BodyTooLarge`],
    /// [`Error::BodyRead`].
    pub fn prepare(&self, surface: &Surface, mut head: Parts, body: Bytes) -> Result<Prepared, Error> {
        let body = unpack(&mut head.headers, body, self.config().max_body)?;
        if self.speaks(surface) {
            self.pass(surface, head, body)
        } else {
            self.translate(surface, head, &body)
        }
    }

    fn pass(&self, surface: &Surface, mut head: Parts, body: Bytes) -> Result<Prepared, Error> {
        let query = head.uri.query().map(Self::passing_query);
        let query = query.as_deref().filter(|query| !query.is_empty());
        let has_body = surface.operation().names_a_model();
        let passing = if has_body {
            let object = Object::parse(&body)?;
            let is_strict = self.is_strict(&head.headers);
            if !is_strict && self.refuses(surface, &object) {
                return self.translate(surface, head, &body);
            }
            self.passing(surface, &object, &body, is_strict)?
        } else {
            Passing { facts: RequestFacts::without_body(surface), ..Passing::default() }
        };
        let Passing { facts, body, way, wishes, lost } = passing;
        let asked = (surface.dialect().into(), surface.operation());
        let at_vertex = self.uri_at_vertex(surface.operation(), facts.stream);
        head.uri = at_vertex.or_else(|| self.uri(surface.path(), query)).ok_or(Error::MalformedQuery)?;
        head.headers = upstream_headers(&head.headers);
        self.introduce(&mut head, surface.operation());
        if has_body {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            head.headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        }
        let is_at_vertex = has_body && self.is_claude_at_vertex();
        let mut prepared =
            Prepared { head, body, is_at_vertex, facts, asked, wishes, may_fit: false, way, lost };
        // What is sent is filled, of which something may have been cut.
        if wishes.has(Wish::Silence) && self.forgoes(Wish::Silence) {
            prepared.leave_out(Wish::Silence);
        }
        Ok(prepared)
    }

    /// What passes in the dialect of both, with what has to change for the target.
    fn passing(
        &self,
        surface: &Surface,
        object: &Object<'_>,
        body: &Bytes,
        is_strict: bool,
    ) -> Result<Passing, Error> {
        let facts = self.facts(surface, object, body);
        let mut lost = Losses::default();
        let adapted = self.adapted(surface, object, &mut lost);
        let mut edits = self.edits(surface, object, &adapted, &mut lost)?;
        if !lost.is_empty() && is_strict {
            return Err(Error::Lossy { losses: lost });
        }
        let mut wishes = match (surface.dialect(), surface.operation()) {
            (ClientDialect::OpenAi, Operation::Chat) => Wishes::of_a_passing_chat(is_strict),
            _ => Wishes::default(),
        };
        if !is_strict && foreign::has_thoughts(surface, object) {
            wishes.add(Wish::Reasoning);
            if surface.dialect() == ClientDialect::Responses {
                wishes.add(Wish::Afterthought);
            }
        }
        let is_messages =
            (surface.dialect(), surface.operation()) == (ClientDialect::Anthropic, Operation::Chat);
        if is_messages && !is_strict && object.text("model").is_some_and(|asked| asked != self.model()) {
            if !self.forgoes(Wish::Prefill) {
                wishes.add(Wish::Prefill);
            } else if let Some(word) = continued(object) {
                lost.add("messages.prefill");
                edits.push(word);
            }
        }
        let mut way = answer_model::passing(surface, &facts, self.model()).map_or(Way::Same, Way::Renamed);
        let model = ("model", self.model_json());
        let pieces = match self.usage_wish(surface, &facts, object) {
            None => object.set_and(body, &[model], edits),
            Some(options) => {
                way = Way::HidingUsage;
                if is_added(object) {
                    wishes.add(Wish::Usage);
                }
                object.set_and(body, &[model, ("stream_options", &options)], edits)
            }
        };
        Ok(Passing { facts, body: RequestBody::from(pieces), way, wishes, lost })
    }

    fn translate(&self, client: &Surface, mut head: Parts, body: &Bytes) -> Result<Prepared, Error> {
        let object = Object::parse(body)?;
        if ollama::Loading::of(client, &object).is_some() {
            // Nobody else loads models, and an answer would be paid for.
            return Err(self.unsupported(client));
        }
        // No translation carries tools that the provider would run.
        let facts = RequestFacts { runs_tools: false, ..self.facts(client, &object, body) };
        let strict = self.is_strict(&head.headers);
        let (translation, body) = Translation::with_facts(self, client, &head.headers, body, &facts, strict)?;
        head.uri = self.translated_uri(&translation).ok_or(Error::MalformedQuery)?;
        head.headers = upstream_headers(&head.headers);
        let is_foreign = |name: &&HeaderName| self.is_foreign(name);
        let theirs: Vec<_> = head.headers.keys().filter(is_foreign).cloned().collect();
        for name in theirs {
            head.headers.remove(name);
        }
        self.introduce(&mut head, client.operation());
        if self.dialect() == Dialect::Bedrock {
            head.headers.insert(ACCEPT, bedrock::accept(translation.is_stream()));
        }
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let wishes = translation.wishes();
        let mut prepared = Prepared {
            head,
            body: RequestBody::from(vec![body]),
            is_at_vertex: self.is_claude_at_vertex(),
            may_fit: !strict && facts.max_tokens.is_some(),
            facts,
            asked: (self.dialect(), translation.operation()),
            wishes,
            lost: Losses::default(),
            way: Way::Translated(Arc::new(translation)),
        };
        for wish in wishes.iter().filter(|wish| self.forgoes(*wish) && wishes.may_teach(*wish)) {
            prepared.leave_out(wish);
        }
        Ok(prepared)
    }

    /// Where the provider is asked for what is said anew.
    fn translated_uri(&self, translation: &Translation) -> Option<Uri> {
        let (model, streams) = (self.model(), translation.is_stream());
        match (self.dialect(), translation.operation()) {
            (Dialect::Bedrock, Operation::CountTokens) => {
                self.endpoint().uri(&bedrock::count::path(model)?, None)
            }
            (Dialect::Bedrock, Operation::Embeddings) => {
                self.endpoint().uri(&bedrock::embeddings::path(model), None)
            }
            (Dialect::Bedrock, _) => self.endpoint().uri(&bedrock::chat_path(model, streams), None),
            (Dialect::Gemini, Operation::CountTokens) => {
                self.endpoint().uri(&gemini::count::path(model)?, None)
            }
            (Dialect::Gemini, Operation::Embeddings) => {
                self.endpoint().uri(&gemini::embeddings::path(model)?, None)
            }
            (Dialect::Gemini, _) => {
                let (path, query) = gemini::chat_path(model, streams)?;
                self.endpoint().uri(&path, query)
            }
            (Dialect::Ollama, Operation::Embeddings) => self.uri("/embed", None),
            (_, Operation::Embeddings) => self.uri("/embeddings", None),
            (Dialect::OpenAi | Dialect::Responses, Operation::CountTokens) => {
                self.uri("/responses/input_tokens", None)
            }
            (Dialect::Anthropic, operation) => self.uri_at_vertex(operation, streams).or_else(|| {
                let is_count = operation == Operation::CountTokens;
                self.uri(if is_count { "/messages/count_tokens" } else { "/messages" }, None)
            }),
            (Dialect::Ollama, _) => self.uri("/chat", None),
            (Dialect::OpenAi, _) => self.uri("/chat/completions", None),
            (Dialect::Responses, _) => self.uri("/responses", None),
        }
    }

    /// Where Claude is asked at Vertex AI; `None` for any other, and for what is where Anthropic has it.
    fn uri_at_vertex(&self, operation: Operation, streams: bool) -> Option<Uri> {
        let path = anthropic::vertex::path(operation, self.model(), streams);
        self.endpoint().uri(&path.filter(|_| self.is_claude_at_vertex())?, None)
    }

    /// What is known of a request, with the estimate that the model's earlier ones have taught.
    pub(crate) fn facts(&self, surface: &Surface, object: &Object<'_>, body: &[u8]) -> RequestFacts {
        let mut facts = RequestFacts::of_object(surface, object, body);
        facts.input_estimate = self.calibration().apply(facts.input_estimate);
        facts
    }

    /// Whether the model or its provider is known to refuse what a client says in the dialect of both, so
    /// that it is said anew.
    fn refuses(&self, surface: &Surface, object: &Object<'_>) -> bool {
        match (surface.dialect(), surface.operation()) {
            (ClientDialect::Anthropic, Operation::Chat | Operation::CountTokens) => {
                anthropic::is_for_another(object, self.model())
            }
            (ClientDialect::OpenAi, Operation::Chat) => openai::is_of_cursor(object),
            (ClientDialect::Responses, Operation::Chat) => {
                self.is_xai() && responses::is_for_openai_alone(object)
            }
            _ => false,
        }
    }

    fn is_xai(&self) -> bool {
        self.provider().is_some_and(|provider| provider.name == "xai")
    }

    /// Whether nothing may be lost.
    fn is_strict(&self, headers: &HeaderMap) -> bool {
        self.config().strict || headers.get(&STRICT).is_some_and(|value| value == "true")
    }

    /// The `stream_options` that let a stream tell its usage, where the client's do not.
    fn usage_wish(&self, surface: &Surface, facts: &RequestFacts, object: &Object<'_>) -> Option<String> {
        let asks = self.must_ask_for_usage() && !self.forgoes(Wish::Usage);
        let streams = surface.may_hold_usage_back() && facts.stream;
        (asks && streams).then(|| options_that_ask(object)).flatten()
    }

    /// Whether a stream tells its usage only where it is asked to.
    pub(crate) fn must_ask_for_usage(&self) -> bool {
        self.provider().is_none_or(|provider| provider.asks_for_usage)
    }

    /// Writes what the upstream wants to see of this side, but for a signature, and leaves out what it
    /// refuses.
    fn introduce(&self, head: &mut Parts, operation: Operation) {
        head.version = Version::HTTP_11;
        let headers = &mut head.headers;
        headers.insert(HOST, self.endpoint().host().clone());
        // A compressed reply could not be metered.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if self.dialect() == Dialect::Anthropic {
            headers.entry("anthropic-version").or_insert(anthropic::VERSION);
        }
        // Of a count it refuses features that it takes of a chat.
        if operation == Operation::CountTokens && self.is_claude_at_vertex() {
            headers.remove(ANTHROPIC_BETA);
        }
        self.stamp(0, headers);
    }
}

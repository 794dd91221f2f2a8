//! A checked target: where requests go, in which dialect, with which credential.

pub(crate) mod azure;
pub(crate) mod calibration;
pub(crate) mod config;
pub(crate) mod endpoint;
mod error;
mod place;
pub(crate) mod provider;
mod refusals;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use http::header::HeaderMap;
use http::{Request, Uri};

use self::calibration::Calibration;
use self::config::TargetConfig;
use self::endpoint::Endpoint;
pub use self::error::InvalidTarget;
use self::place::{base, check_place, in_its_header, is_azure, unknown};
use self::provider::Provider;
pub(crate) use self::refusals::Refusals;
use crate::body::RequestBody;
use crate::call::budget::RetryBudget;
use crate::credential::Scheme;
use crate::credential::stamp::Stamp;
use crate::dialect::{ClientDialect, Dialect, Operation, Surface, anthropic, bedrock, gemini};
use crate::error::Error;
use crate::token::{Look, Source, TokenClient, TokenError};
use crate::wish::Wish;

/// A checked [`TargetConfig`], its calls under way, and what they have taught about the model. A changed
/// Secret or spec makes a new one.
#[derive(Clone, Debug)]
pub struct Target {
    config: TargetConfig,
    provider: Option<&'static Provider>,
    dialect: Dialect,
    endpoint: Endpoint,
    stamps: Vec<Stamp>,
    budget: Arc<RetryBudget>,
    calibration: Arc<Calibration>,
    /// What the provider has refused, and served the same request without.
    forgone: Arc<AtomicU32>,
    model_json: String,
}

// === impl Target ===

impl Target {
    /// Checks a configuration and fills in the provider's defaults.
    ///
    /// # Errors
    /// [`InvalidTarget`] names what is missing or cannot be used; a credential that is exchanged for tokens
    /// cannot.
    pub fn new(config: TargetConfig) -> Result<Self, InvalidTarget> {
        Self::checked(config, None)
    }

    /// Checks a configuration whose credential may be one that is exchanged for tokens, by this client.
    ///
    /// # Errors
    /// [`InvalidTarget`] names what is missing or cannot be used.
    pub fn with_tokens(config: TargetConfig, client: Arc<dyn TokenClient>) -> Result<Self, InvalidTarget> {
        Self::checked(config, Some(&client))
    }

    fn checked(config: TargetConfig, client: Option<&Arc<dyn TokenClient>>) -> Result<Self, InvalidTarget> {
        let provider = Provider::find(&config.provider);
        let dialect = match (config.format, provider) {
            (Some(format), _) => format,
            (None, Some(provider)) => provider.dialect,
            (None, None) => return Err(unknown(&config)),
        };
        check_place(&config, provider, dialect)?;
        let base = base(&config, provider, dialect)?;
        let endpoint = match is_azure(provider) {
            true => Endpoint::below(&base, azure::prefix(config.api_version.as_deref()))?,
            false => Endpoint::parse(&base, dialect)?,
        };
        let region = config.region.as_deref().or_else(|| bedrock::region_of(endpoint.authority().host()));
        if region.is_none() && config.credential.scheme == Scheme::Aws {
            return Err(InvalidTarget::RegionRequired { provider: config.provider });
        }
        if config.model.is_empty() {
            return Err(InvalidTarget::EmptyModel);
        }
        if dialect == Dialect::Gemini && gemini::chat_path(&config.model, false).is_none() {
            return Err(InvalidTarget::Model { model: config.model });
        }
        Ok(Self {
            stamps: in_its_header(&config.credential, provider, dialect).stamps(region, client)?,
            budget: Arc::new(RetryBudget::new(config.retry.budget)),
            calibration: Arc::default(),
            forgone: Arc::default(),
            model_json: serde_json::Value::from(config.model.as_str()).to_string(),
            provider,
            dialect,
            endpoint,
            config,
        })
    }

    /// The same target with another time for each attempt: what it has learnt, its budget and its tokens are
    /// shared.
    #[must_use]
    pub fn with_attempt_timeout(&self, timeout: Duration) -> Self {
        let mut target = self.clone();
        target.config.timeouts.attempt = Some(timeout);
        target
    }

    /// The name shown in errors and logs.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The dialect the upstream speaks; in conversations, unless the client's passes, see
    /// [`speaks`](Self::speaks).
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whether the upstream knows what a client asks for in the client's own dialect, so that it passes as it
    /// is.
    ///
    /// OpenAI has two dialects for conversations at one base URL. A provider that is known to speak both gets
    /// what the client speaks, unless the target's format is `openai-responses`: then all conversations are
    /// Responses.
    pub fn speaks(&self, surface: &Surface) -> bool {
        match (surface.dialect(), self.dialect) {
            (client, own) if Dialect::from(client) == own => true,
            (ClientDialect::Responses, Dialect::OpenAi) => {
                self.provider.is_some_and(|provider| provider.speaks(Dialect::Responses))
            }
            (ClientDialect::OpenAi, Dialect::Responses) => surface.operation() != Operation::Chat,
            _ => false,
        }
    }

    /// Whether what a client asks for can be said in the upstream's dialect.
    pub(crate) fn translates(&self, surface: &Surface) -> bool {
        match surface.operation() {
            Operation::Chat => true,
            Operation::Embeddings => self.dialect.embeds(),
            Operation::CountTokens => match self.dialect {
                Dialect::Anthropic => true,
                Dialect::Bedrock => bedrock::count::path(self.model()).is_some(),
                Dialect::Gemini => gemini::count::path(self.model()).is_some(),
                Dialect::Ollama => false,
                // What is only compatible with OpenAI is not known to count.
                Dialect::OpenAi => {
                    self.is_openai() && self.endpoint.authority().host().ends_with("api.openai.com")
                }
                Dialect::Responses => self.is_openai(),
            },
            _ => false,
        }
    }

    fn is_openai(&self) -> bool {
        self.provider.is_some_and(|provider| provider.name == "openai")
    }

    /// The refusal of what can neither be passed on nor translated.
    pub(crate) fn unsupported(&self, surface: &Surface) -> Error {
        Error::UnsupportedPair {
            operation: surface.operation(),
            client: surface.dialect(),
            upstream: self.dialect,
        }
    }

    /// Whether the provider is Vertex AI, whose base URLs end like this at whatever host.
    pub fn is_vertex(&self) -> bool {
        let ends = ["/publishers/google", "/endpoints/openapi", anthropic::vertex::BASE];
        ends.iter().any(|end| self.endpoint.prefix().ends_with(end))
    }

    /// Whether Claude is asked there, in words of its own.
    pub(crate) fn is_claude_at_vertex(&self) -> bool {
        self.dialect == Dialect::Anthropic && self.endpoint.prefix().ends_with(anthropic::vertex::BASE)
    }

    /// How the provider refuses.
    pub(crate) fn refusals(&self) -> Refusals {
        Refusals { dialect: self.dialect, is_vertex: self.is_vertex() }
    }

    /// What is known of the provider.
    pub(crate) fn provider(&self) -> Option<&'static Provider> {
        self.provider
    }

    /// The model the upstream sees.
    pub fn model(&self) -> &str {
        &self.config.model
    }

    /// The base URL.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The absolute URL of an operation; `None` if the path or the query cannot be part of one.
    pub(crate) fn uri(&self, path: &str, query: Option<&str>) -> Option<Uri> {
        if !is_azure(self.provider) {
            return self.endpoint.uri(path, query);
        }
        let version = self.config.api_version.as_deref();
        let path = azure::path(path, version, &self.config.model);
        self.endpoint.uri(&path, azure::query(query, version).as_deref())
    }

    /// What the target was made of.
    pub fn config(&self) -> &TargetConfig {
        &self.config
    }

    /// The calls of this target that are under way, those of its clones included.
    pub fn budget(&self) -> &Arc<RetryBudget> {
        &self.budget
    }

    /// Goes on with what another target has learned of the provider's counting, as after an edit of the first
    /// one.
    #[must_use]
    pub fn with_calibration(mut self, calibration: Arc<Calibration>) -> Self {
        self.calibration = calibration;
        self
    }

    /// How far estimates of input tokens are from what the provider reports, for this target and its clones.
    pub fn calibration(&self) -> &Arc<Calibration> {
        &self.calibration
    }

    /// Whether the provider is known to refuse this.
    pub(crate) fn forgoes(&self, wish: Wish) -> bool {
        self.forgone.load(Ordering::Relaxed) & wish.bit() != 0
    }

    /// Notes that the provider has refused this and served the same request without it.
    pub(crate) fn forgo(&self, wish: Wish) {
        if let Some(opposite) = wish.opposite() {
            self.wish_again(opposite);
        }
        if self.forgone.fetch_or(wish.bit(), Ordering::Relaxed) & wish.bit() == 0 {
            tracing::info!(target = self.name(), "{}", wish.farewell());
        }
    }

    /// Notes that it does not hold any more.
    pub(crate) fn wish_again(&self, wish: Wish) {
        self.forgone.fetch_and(!wish.bit(), Ordering::Relaxed);
    }

    /// How many secrets there are to be used in turn.
    pub(crate) fn secrets(&self) -> usize {
        self.stamps.len()
    }

    /// Writes the secret whose turn it is where it does not depend on the request.
    pub(crate) fn stamp(&self, turn: usize, headers: &mut HeaderMap) {
        if let Some(stamp) = self.stamp_of(turn) {
            stamp.write(headers);
        }
    }

    /// Waits until the credential whose turn it is can be written into a request: until there is a token,
    /// where it is exchanged for one.
    ///
    /// # Errors
    /// [`TokenError`]
    ///
    /// # Cancellation
    /// Dropping the future leaves the exchange to other requests.
    pub fn ready(&self, turn: usize) -> impl Future<Output = Result<(), TokenError>> + Send + use<> {
        let source = self.source(turn).cloned();
        async move {
            match source {
                Some(source) => source.token().await.map(drop),
                None => Ok(()),
            }
        }
    }

    /// What has no token yet that a request which is sent now could show.
    pub(crate) fn awaited_at(&self, now: SystemTime, turn: usize) -> Option<Arc<Source>> {
        let source = self.source(turn)?;
        (!matches!(source.look_at(now), Look::Ready(_))).then(|| Arc::clone(source))
    }

    fn source(&self, turn: usize) -> Option<&Arc<Source>> {
        match self.stamp_of(turn)? {
            Stamp::Token(source) => Some(source),
            _ => None,
        }
    }

    /// Gives a [`Prepared`](crate::Prepared) request the credential whose turn it is, in place of any other.
    /// A signature holds for a few minutes from `now`, and a token until its end, so each attempt needs its
    /// own, and has to wait until the credential is [ready](Self::ready); any other credential is there
    /// already.
    pub fn sign_at(&self, now: SystemTime, turn: usize, request: &mut Request<RequestBody>) {
        if let Some(stamp) = self.stamp_of(turn) {
            stamp.sign_at(now, request);
        }
    }

    fn stamp_of(&self, turn: usize) -> Option<&Stamp> {
        self.stamps.get(turn.checked_rem(self.stamps.len())?)
    }

    /// The model's name as a JSON string.
    pub(crate) fn model_json(&self) -> &str {
        &self.model_json
    }
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        self.config == other.config
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Credential;

    #[test]
    fn an_unknown_provider_needs_format_and_endpoint() {
        let config = TargetConfig::new("ns/a", "acme", "m");
        for incomplete in [
            config.clone(),
            config.clone().with_format(Dialect::OpenAi),
            config.clone().with_endpoint("http://acme"),
        ] {
            assert!(matches!(Target::new(incomplete), Err(InvalidTarget::UnknownProvider { .. })));
        }
        Target::new(config.with_format(Dialect::OpenAi).with_endpoint("http://acme")).unwrap();
    }

    #[test]
    fn a_known_provider_needs_no_more_than_its_name() {
        let target = Target::new(TargetConfig::new("ns/a", "OpenAI", "gpt-4o")).unwrap();
        assert_eq!(target.dialect(), Dialect::OpenAi);
        assert_eq!(target.endpoint().authority().as_str(), "api.openai.com");
    }

    #[test]
    fn a_default_base_url_is_not_used_for_a_dialect_it_does_not_speak() {
        let ollama = TargetConfig::new("ns/a", "ollama", "llama3").with_format(Dialect::OpenAi);
        let target = Target::new(ollama).unwrap();
        assert_eq!(
            target.endpoint().uri("/embeddings", None).unwrap(),
            "http://localhost:11434/v1/embeddings"
        );
        let router = TargetConfig::new("ns/a", "openrouter", "anthropic/claude-opus-5")
            .with_format(Dialect::Anthropic);
        let uri = Target::new(router).unwrap().endpoint().uri("/messages", None);
        assert_eq!(uri.unwrap(), "https://openrouter.ai/api/v1/messages");
        let deepseek = TargetConfig::new("ns/a", "deepseek", "chat").with_format(Dialect::Anthropic);
        assert!(matches!(Target::new(deepseek), Err(InvalidTarget::EndpointRequired { .. })));
    }

    #[test]
    fn targets_are_equal_when_their_configuration_is() {
        let config = TargetConfig::new("ns/a", "openai", "gpt-4o");
        let one = Target::new(config.clone().with_credential(Credential::bearer("a"))).unwrap();
        let same = Target::new(config.clone().with_credential(Credential::bearer("a"))).unwrap();
        let rotated = Target::new(config.with_credential(Credential::bearer("b"))).unwrap();
        assert_eq!(one, same);
        assert_ne!(one, rotated);
    }
}

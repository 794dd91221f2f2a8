//! A checked target: where requests go, in which dialect, with which credential.

use std::str::FromStr;

use http::Uri;
use http::header::{HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme as UriScheme};

use crate::config::TargetConfig;
use crate::credential::{Credential, InvalidCredential, Scheme, Stamp};
use crate::dialect::{Dialect, Operation, Surface, UnknownDialect, gemini};
use crate::provider::Provider;

/// A checked [`TargetConfig`]. Immutable: a changed Secret or spec makes a new one.
#[derive(Clone, Debug)]
pub struct Target {
    config: TargetConfig,
    dialect: Dialect,
    endpoint: Endpoint,
    stamps: Vec<Stamp>,
    model_json: String,
}

/// A base URL: everything before the path of an operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    scheme: UriScheme,
    authority: Authority,
    host: HeaderValue,
    prefix: String,
}

/// A target that cannot work, found before any request is sent.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTarget {
    /// The provider is not known, so both dialect and base URL must be given.
    #[error("provider `{provider}` is not known: format and endpoint are required")]
    UnknownProvider {
        /// The name as given.
        provider: String,
    },
    /// The format is not a dialect.
    #[error(transparent)]
    UnknownFormat(#[from] UnknownDialect),
    /// The provider's default base URL does not speak the format.
    #[error("provider `{provider}` speaks {format} at another base URL: endpoint is required")]
    EndpointRequired {
        /// The provider.
        provider: String,
        /// The format asked for.
        format: Dialect,
    },
    /// The base URL cannot be used.
    #[error(transparent)]
    Endpoint(#[from] InvalidEndpoint),
    /// No model is named.
    #[error("the model's name is empty")]
    EmptyModel,
    /// The dialect names the model in the path, and this name cannot be part of one.
    #[error("the model's name `{model}` cannot be part of a path")]
    Model {
        /// The name as given.
        model: String,
    },
    /// The credential cannot be sent.
    #[error(transparent)]
    Credential(#[from] InvalidCredential),
}

/// A base URL that cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("endpoint `{endpoint}` {reason}")]
#[non_exhaustive]
pub struct InvalidEndpoint {
    /// The URL as given; cut before the host if it held user information.
    pub endpoint: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

// === impl Target ===

impl Target {
    /// Checks a configuration and fills in the provider's defaults.
    ///
    /// # Errors
    /// [`InvalidTarget`] names what is missing or cannot be used.
    pub fn new(config: TargetConfig) -> Result<Self, InvalidTarget> {
        let provider = Provider::find(&config.provider);
        let dialect = match (&config.format, provider) {
            (Some(format), _) => format.parse()?,
            (None, Some(provider)) => provider.dialect,
            (None, None) => return Err(unknown(&config)),
        };
        let base = match (&config.endpoint, provider) {
            (Some(endpoint), _) => endpoint.as_str(),
            (None, None) => return Err(unknown(&config)),
            (None, Some(provider)) if provider.has_at_its_base(dialect) => provider.endpoint,
            (None, Some(provider)) => {
                return Err(InvalidTarget::EndpointRequired {
                    provider: provider.name.to_owned(),
                    format: dialect,
                });
            }
        };
        let endpoint = Endpoint::parse(base, dialect)?;
        if config.model.is_empty() {
            return Err(InvalidTarget::EmptyModel);
        }
        if dialect == Dialect::Gemini && gemini::chat_path(&config.model, false).is_none() {
            return Err(InvalidTarget::Model { model: config.model });
        }
        Ok(Self {
            stamps: in_its_header(&config.credential, dialect).stamps()?,
            model_json: serde_json::Value::from(config.model.as_str()).to_string(),
            dialect,
            endpoint,
            config,
        })
    }

    /// The name shown in errors and logs.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The dialect the upstream speaks; in conversations, unless the client's passes, see [`speaks`](Self::speaks).
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whether the upstream knows what a client asks for in the client's own dialect, so that it passes as it is.
    ///
    /// OpenAI has two dialects for conversations at one base URL. A provider that is known to speak both gets what the
    /// client speaks, unless the target's format is `openai-responses`: then all conversations are Responses.
    pub fn speaks(&self, surface: &Surface) -> bool {
        match (surface.dialect(), self.dialect) {
            (client, own) if client == own => true,
            (Dialect::Responses, Dialect::OpenAi) => Provider::find(&self.config.provider)
                .is_some_and(|provider| provider.speaks(Dialect::Responses)),
            (Dialect::OpenAi, Dialect::Responses) => surface.operation() != Operation::Chat,
            _ => false,
        }
    }

    /// The model the upstream sees.
    pub fn model(&self) -> &str {
        &self.config.model
    }

    /// The base URL.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What the target was made of.
    pub fn config(&self) -> &TargetConfig {
        &self.config
    }

    /// How many secrets there are to be used in turn.
    pub(crate) fn secrets(&self) -> usize {
        self.stamps.len()
    }

    /// Writes the secret whose turn it is.
    pub(crate) fn stamp(&self, turn: usize, headers: &mut HeaderMap) {
        let at = turn.checked_rem(self.stamps.len());
        if let Some(stamp) = at.and_then(|at| self.stamps.get(at))
            && let Some(value) = stamp.header_value()
        {
            headers.insert(stamp.name().clone(), value);
        }
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

/// A credential in the header where the dialect's providers look for it.
fn in_its_header(credential: &Credential, dialect: Dialect) -> Credential {
    let credential = credential.clone();
    match (dialect, credential.scheme, &credential.header) {
        (Dialect::Gemini, Scheme::ApiKey, None) => credential.in_header("x-goog-api-key"),
        _ => credential,
    }
}

fn unknown(config: &TargetConfig) -> InvalidTarget {
    InvalidTarget::UnknownProvider { provider: config.provider.clone() }
}

// === impl Endpoint ===

impl Endpoint {
    /// Reads a base URL. Without a path, the customary prefix of the dialect is used: `/v1` or `/api`.
    ///
    /// # Errors
    /// [`InvalidEndpoint`] for anything but an absolute `http` or `https` URL without query and user info, with a port from
    /// 1 to 65535 if with any.
    pub fn parse(endpoint: &str, dialect: Dialect) -> Result<Self, InvalidEndpoint> {
        let refuse = |endpoint: &str, reason| InvalidEndpoint { endpoint: endpoint.to_owned(), reason };
        let uri = Uri::from_str(endpoint.trim()).map_err(|_| refuse(endpoint, "is not a URL"))?;
        let parts = uri.into_parts();
        let authority = parts.authority.ok_or_else(|| refuse(endpoint, "has no host"))?;
        if authority.as_str().contains('@') {
            let scheme = endpoint.split("://").next().unwrap_or_default();
            return Err(refuse(scheme, "holds user information"));
        }
        if !has_valid_port(&authority) {
            return Err(refuse(endpoint, "has a port that is no number from 1 to 65535"));
        }
        let scheme = parts
            .scheme
            .filter(|scheme| *scheme == UriScheme::HTTP || *scheme == UriScheme::HTTPS)
            .ok_or_else(|| refuse(endpoint, "is neither http nor https"))?;
        let path = parts.path_and_query.as_ref();
        if path.is_some_and(|path| path.query().is_some()) {
            return Err(refuse(endpoint, "has a query"));
        }
        let prefix = match path.map_or("", |path| path.path()).trim_end_matches('/') {
            "" => dialect.prefix(),
            prefix => prefix,
        };
        Ok(Self {
            host: HeaderValue::from_str(without_default_port(&scheme, &authority))
                .map_err(|_| refuse(endpoint, "has no usable host"))?,
            prefix: prefix.to_owned(),
            scheme,
            authority,
        })
    }

    /// The scheme: `http` or `https`.
    pub fn scheme(&self) -> &UriScheme {
        &self.scheme
    }

    /// Host and port.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The value of the `host` header.
    pub(crate) fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// The absolute URL of an operation; `None` if the path or the query cannot be part of one.
    pub(crate) fn uri(&self, path: &str, query: Option<&str>) -> Option<Uri> {
        let mut target = String::with_capacity(self.prefix.len() + path.len() + 16);
        target.push_str(&self.prefix);
        target.push_str(path);
        if let Some(query) = query {
            target.push('?');
            target.push_str(query);
        }
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(PathAndQuery::try_from(target).ok()?)
            .build()
            .ok()
    }
}

/// Whether there is no port, or one that can be connected to.
fn has_valid_port(authority: &Authority) -> bool {
    match authority.as_str().strip_prefix(authority.host()) {
        Some("") => true,
        _ => authority.port_u16().is_some_and(|port| port > 0),
    }
}

fn without_default_port<'a>(scheme: &UriScheme, authority: &'a Authority) -> &'a str {
    let suffix = if *scheme == UriScheme::HTTPS { ":443" } else { ":80" };
    authority.as_str().strip_suffix(suffix).unwrap_or(authority.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Credential;

    fn uri(endpoint: &str, dialect: Dialect, path: &str) -> String {
        Endpoint::parse(endpoint, dialect).unwrap().uri(path, None).unwrap().to_string()
    }

    #[test]
    fn the_path_of_an_endpoint_comes_before_the_operation() {
        for (endpoint, dialect, path, expected) in [
            (
                "https://api.groq.com/openai/v1/",
                Dialect::OpenAi,
                "/chat/completions",
                "https://api.groq.com/openai/v1/chat/completions",
            ),
            ("http://vllm:8000", Dialect::OpenAi, "/embeddings", "http://vllm:8000/v1/embeddings"),
            ("http://ollama:11434/", Dialect::Ollama, "/chat", "http://ollama:11434/api/chat"),
            ("http://[::1]:9000", Dialect::Anthropic, "/messages", "http://[::1]:9000/v1/messages"),
        ] {
            assert_eq!(uri(endpoint, dialect, path), expected);
        }
    }

    #[test]
    fn an_endpoint_that_cannot_be_a_base_url_is_refused() {
        for endpoint in [
            "",
            "api.openai.com/v1",
            "/v1",
            "ftp://host/v1",
            "https://host/v1?key=1",
            "https://user:password@host/v1",
        ] {
            let error = Endpoint::parse(endpoint, Dialect::OpenAi).unwrap_err();
            assert!(!error.to_string().contains("password"), "{error}");
        }
    }

    #[test]
    fn a_port_that_is_none_is_refused_and_named() {
        for endpoint in [
            "http://host:99999",
            "http://host:65536/v1",
            "https://host:80x/v1",
            "http://host:",
            "http://host:0",
            "http://[::1]:x",
        ] {
            let error = Endpoint::parse(endpoint, Dialect::OpenAi).unwrap_err().to_string();
            assert!(error.contains(endpoint) && error.contains("port"), "{error}");
        }
        for endpoint in ["http://host:65535", "http://[::1]:1/v1", "https://[::1]/v1", "http://host"] {
            Endpoint::parse(endpoint, Dialect::OpenAi).unwrap();
        }
    }

    #[test]
    fn an_unknown_provider_needs_format_and_endpoint() {
        let config = TargetConfig::new("ns/a", "acme", "m");
        for incomplete in
            [config.clone(), config.clone().format("openai"), config.clone().endpoint("http://acme")]
        {
            assert!(matches!(Target::new(incomplete), Err(InvalidTarget::UnknownProvider { .. })));
        }
        Target::new(config.format("openai").endpoint("http://acme")).unwrap();
    }

    #[test]
    fn a_known_provider_needs_no_more_than_its_name() {
        let target = Target::new(TargetConfig::new("ns/a", "OpenAI", "gpt-4o")).unwrap();
        assert_eq!(target.dialect(), Dialect::OpenAi);
        assert_eq!(target.endpoint().authority().as_str(), "api.openai.com");
    }

    #[test]
    fn a_default_base_url_is_not_used_for_a_dialect_it_does_not_speak() {
        let ollama = TargetConfig::new("ns/a", "ollama", "llama3").format("openai");
        let target = Target::new(ollama).unwrap();
        assert_eq!(
            target.endpoint().uri("/embeddings", None).unwrap(),
            "http://localhost:11434/v1/embeddings"
        );
        let deepseek = TargetConfig::new("ns/a", "deepseek", "chat").format("anthropic");
        assert!(matches!(Target::new(deepseek), Err(InvalidTarget::EndpointRequired { .. })));
    }

    #[test]
    fn targets_are_equal_when_their_configuration_is() {
        let config = TargetConfig::new("ns/a", "openai", "gpt-4o");
        let one = Target::new(config.clone().credential(Credential::bearer("a"))).unwrap();
        let same = Target::new(config.clone().credential(Credential::bearer("a"))).unwrap();
        let rotated = Target::new(config.credential(Credential::bearer("b"))).unwrap();
        assert_eq!(one, same);
        assert_ne!(one, rotated);
    }
}

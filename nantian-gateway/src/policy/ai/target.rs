//! From an AIService of the IR to the target of its calls.

use std::sync::Arc;

use nantian_ai::{
    Credential, Dialect, Scheme, Secret, Target, TargetConfig, Timeouts,
    retry::{Growth, RetryPolicy},
    token::Exchange,
};
use nantian_crd::{AuthType, Format};

use super::tokens::{OwnIdentities, Tokens};
use crate::{
    ir::{self, ObjectName},
    upstream::Destination,
};

/// An AIService that cannot be an upstream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum InvalidAiService {
    /// The provider, model, endpoint or credential does not fit.
    #[error(transparent)]
    Target(#[from] nantian_ai::InvalidTarget),
    /// The credential is no text.
    #[error("the credential is not UTF-8")]
    Credential,
    /// The gateway's own identity is meant, and may not be used.
    #[error(
        "auth.secret is missing, and AIServices of this namespace may not use the gateway's own identity"
    )]
    Own,
    /// The gateway's own identity is meant, and it has none there.
    #[error("auth.secret is missing, and the gateway's environment names no identity of type {scheme}")]
    NoIdentity {
        /// The cloud.
        scheme: Scheme,
    },
    /// The endpoint has no host and port.
    #[error("the endpoint names no host")]
    Endpoint,
}

/// The target of an AIService and where it is. What its credential is exchanged for comes from `tokens`.
///
/// # Errors
/// [`InvalidAiService`].
pub(crate) fn ai_target(
    name: &ObjectName,
    service: &ir::AiService,
    tokens: &mut Tokens,
) -> Result<(Target, Destination), InvalidAiService> {
    let mut config = config(name, service)?;
    let scheme = config.credential.scheme;
    let is_own = is_own(&service.auth);
    let target = if is_own || matches!(scheme, Scheme::Azure | Scheme::Gcp) {
        if is_own {
            config.credential.workload = Some(tokens.own(&name.namespace, scheme)?);
        }
        Target::with_tokens(config, tokens.client(is_own))?
    } else {
        Target::new(config)?
    };
    let destination = destination(&target).ok_or(InvalidAiService::Endpoint)?;
    Ok((target, destination))
}

/// Whether an AIService with a credential of its own could be an upstream.
///
/// # Errors
/// [`InvalidAiService`].
pub(crate) fn check_ai_service(name: &ObjectName, service: &ir::AiService) -> Result<(), InvalidAiService> {
    // It is never asked.
    let target = Target::with_tokens(config(name, service)?, Arc::new(drop::<Exchange>))?;
    destination(&target).map(drop).ok_or(InvalidAiService::Endpoint)
}

/// Whether an AIService may be what it is, where it means the gateway's own identity.
///
/// # Errors
/// [`InvalidAiService::Own`], [`InvalidAiService::NoIdentity`].
pub(crate) fn check_identity(
    name: &ObjectName,
    service: &ir::AiService,
    own: &OwnIdentities,
) -> Result<(), InvalidAiService> {
    if is_own(&service.auth) {
        own.of(&name.namespace, config(name, service)?.credential.scheme)?;
    }
    Ok(())
}

/// Whether the gateway's own identity is meant.
fn is_own(auth: &ir::AiAuth) -> bool {
    auth.secret.is_none() && auth.kind != AuthType::None
}

fn config(name: &ObjectName, service: &ir::AiService) -> Result<TargetConfig, InvalidAiService> {
    let mut config = TargetConfig::new(name.to_string(), &service.provider, &service.model)
        .with_credential(credential(&service.auth)?)
        // The client of the upstreams has a time of its own for connections.
        .with_timeouts(service.timeout.map_or(Timeouts::none(), Timeouts::uniform).with_connect(None))
        .with_retry(retry(service.retry));
    if let Some(format) = service.format {
        config = config.with_format(dialect(format));
    }
    if let Some(endpoint) = &service.endpoint {
        config = config.with_endpoint(endpoint);
    }
    if let Some(region) = &service.region {
        config = config.with_region(region);
    }
    if let Some(version) = &service.api_version {
        config = config.with_api_version(version);
    }
    Ok(config)
}

fn dialect(format: Format) -> Dialect {
    match format {
        Format::OpenAi | Format::OpenAiCompat => Dialect::OpenAi,
        Format::OpenAiResponses => Dialect::Responses,
        Format::Anthropic => Dialect::Anthropic,
        Format::Bedrock => Dialect::Bedrock,
        Format::Gemini => Dialect::Gemini,
        Format::Ollama => Dialect::Ollama,
    }
}

fn credential(auth: &ir::AiAuth) -> Result<Credential, InvalidAiService> {
    let scheme = match auth.kind {
        AuthType::Bearer => Scheme::Bearer,
        AuthType::ApiKey => Scheme::ApiKey,
        AuthType::Basic => Scheme::Basic,
        AuthType::Aws => Scheme::Aws,
        AuthType::Azure => Scheme::Azure,
        AuthType::Gcp => Scheme::Gcp,
        AuthType::None => return Ok(Credential::none()),
    };
    let secret = auth.secret.as_ref().map_or(&b""[..], |secret| secret.0.trim_ascii());
    let secret = std::str::from_utf8(secret).map_err(|_| InvalidAiService::Credential)?;
    let mut credential = Credential::new(scheme, "");
    credential.secrets = match scheme {
        _ if is_own(auth) => Vec::new(),
        // Each object of JSON is an account.
        Scheme::Azure | Scheme::Gcp => objects(secret),
        // A line is a key; several are used in turn.
        _ => secret.lines().map(str::trim).filter(|key| !key.is_empty()).map(Secret::new).collect(),
    };
    Ok(match &auth.header {
        Some(header) => credential.in_header(header),
        None => credential,
    })
}

/// The objects of JSON in a text, one after the other; where they end, the rest is one that cannot be read.
fn objects(text: &str) -> Vec<Secret> {
    let mut objects = serde_json::Deserializer::from_str(text).into_iter::<serde::de::IgnoredAny>();
    let mut found = Vec::new();
    let mut start = 0;
    while let Some(object) = objects.next() {
        let end = if object.is_ok() { objects.byte_offset() } else { text.len() };
        found.extend(text.get(start..end).map(|object| Secret::new(object.trim())));
        if object.is_err() {
            break;
        }
        start = end;
    }
    found
}

fn retry(retry: ir::Retry) -> RetryPolicy {
    let (backoff, growth) = match retry.backoff {
        ir::RetryBackoff::Exponential(backoff) => (backoff, Growth::Exponential),
        ir::RetryBackoff::Linear(backoff) => (backoff, Growth::Linear),
        ir::RetryBackoff::Fixed(backoff) => (backoff, Growth::Fixed),
    };
    RetryPolicy::new(retry.max_retries, backoff).with_growth(growth)
}

fn destination(target: &Target) -> Option<Destination> {
    let endpoint = target.endpoint();
    Destination::of_url(endpoint.authority(), endpoint.scheme() == &http::uri::Scheme::HTTPS)
}

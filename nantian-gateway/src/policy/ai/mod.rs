//! AIService.

mod asking;
mod cutoff;
mod observe;
mod settle;
mod tokens;
mod words;

use std::{fmt, sync::Arc};

use http::{Request, Response};
use nantian_ai::{
    AiLayer, BodyMemory, Credential, Dialect, Error, Scheme, Secret, Target, TargetConfig, Timeouts,
    body::RequestBody,
    retry::{Growth, RetryPolicy},
    route::{Choice, ModelRoute, RouteBody, StandIn},
    token::Exchange,
    usage::UsageLayer,
};
use nantian_crd::{AuthType, Format};
use nantian_ratelimit::{Attempted, HeldBytes};
use tower::{Layer, Service, ServiceBuilder};

use self::{
    asking::{AskAgainLayer, AskLayer, Asking},
    settle::settle,
};
use super::verdict::{UNMETERED, UNSENT, mark_unsent};
use crate::{
    body::{Body, BoxError},
    compile::{BackendService, LocalService},
    ir::{self, ObjectName},
    respond::{ErrorChain, LoggedError},
    telemetry::TraceParent,
    upstream::Destination,
};

pub(crate) use self::{
    cutoff::Cutoff,
    observe::{AiObserver, service_info},
    tokens::{OwnIdentities, Tokens},
    words::{WordsLayer, refusal_of as refusal},
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

/// The layer of an AIService, which reads bodies within `memory`, and whose answers `cutoff` breaks off.
pub(crate) fn ai_layer(
    target: Arc<Target>,
    observer: AiObserver,
    memory: &BodyMemory,
    cutoff: &Cutoff,
) -> Ai {
    Ai { target, observer, memory: memory.clone(), cutoff: cutoff.clone() }
}

/// The layer of an AIService: the usage of every reply settles the reservation that a TokenPolicy made, and
/// how it went is counted and told.
#[derive(Debug, Clone)]
pub(crate) struct Ai {
    target: Arc<Target>,
    observer: AiObserver,
    memory: BodyMemory,
    cutoff: Cutoff,
}

impl<S> Layer<S> for Ai
where
    S: Service<Request<RequestBody>, Response = Response<Body>, Error = BoxError> + Clone + 'static,
    S::Future: 'static,
{
    type Service = BackendService;

    fn layer(&self, inner: S) -> Self::Service {
        let (traced, cutoff) = (self.observer.asks_for_traces(), self.cutoff.clone());
        LocalService::new(
            ServiceBuilder::new()
                .map_response(|response: Response<_>| note_failure(response).map(Body::boxed))
                .layer(UNSENT)
                .map_request(move |request: Request<Body>| if traced { with_trace(request) } else { request })
                .layer(
                    AiLayer::new(Arc::clone(&self.target))
                        .observer(self.observer.clone())
                        .memory(self.memory.clone()),
                )
                .map_err(mark_unsent)
                .map_response(move |response: Response<_>| response.map(|body| cutoff.bind(body)))
                .service(inner),
        )
    }
}

/// Notes the trace that the client names.
fn with_trace(mut request: Request<Body>) -> Request<Body> {
    let header = request.headers().get("traceparent").and_then(|header| header.to_str().ok());
    if let Some(parent) = header.and_then(TraceParent::parse) {
        request.extensions_mut().insert(parent);
    }
    request
}

/// One AIService of a rule: its target, its share, and all that stands before it.
pub(crate) type ModelChoice = Choice<BackendService>;

/// The AIServices of a rule: by the `model` of a request's body, which is read within `memory`, else by
/// weight, and on to the others where one fails.
pub(crate) fn model_route(
    models: impl IntoIterator<Item = ModelChoice>,
    memory: &BodyMemory,
) -> BackendService {
    let models = models.into_iter().map(|model| {
        let service = ServiceBuilder::new()
            .map_request(|mut request: Request<RequestBody>| {
                // Limits behind a plugin could not tell from its body.
                let held = HeldBytes(request.body().len());
                request.extensions_mut().insert(held);
                request.map(Body::from)
            })
            .service(model.service);
        Choice::new(model.name, model.model, service).with_weight(model.weight)
    });
    LocalService::new(
        ServiceBuilder::new()
            .map_response(|response: Response<RouteBody<_>>| {
                note_attempts(note_failure(response)).map(Body::from)
            })
            .layer(UNSENT)
            .service(ModelRoute::new(models).memory(memory.clone())),
    )
}

/// Tells the limits around that an AIService was asked before the one that has answered, or was refused by
/// its limits.
fn note_attempts<B>(mut response: Response<B>) -> Response<B> {
    if response.extensions().get::<StandIn>().is_some() {
        response.extensions_mut().insert(Attempted);
    }
    response
}

/// Tells the access log why there is no answer, or that a body found no memory. What a provider says may
/// repeat what it was asked.
fn note_failure<B>(mut response: Response<B>) -> Response<B> {
    if let Some(error) = response.extensions().get::<Arc<Error>>()
        && (response.status().is_server_error() || matches!(**error, Error::TooManyBodies))
        && !matches!(**error, Error::Provider { .. })
    {
        let why = LoggedError(ErrorChain(error).to_string().into());
        response.extensions_mut().insert(why);
    }
    response
}

/// Meters the replies of a plain Service that speaks a dialect, for a TokenPolicy that counts tokens, and
/// asks its streams what they used.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    asking: Asking,
}

impl Meter {
    /// Of a Service that is told of by this name.
    pub(crate) fn of(service: &dyn fmt::Display) -> Self {
        Self { asking: Asking::of(service) }
    }
}

impl<S> Layer<S> for Meter
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError> + Clone + 'static,
    S::Future: 'static,
{
    type Service = BackendService;

    fn layer(&self, inner: S) -> Self::Service {
        LocalService::new(
            ServiceBuilder::new()
                .layer(AskLayer(self.asking.clone()))
                .map_response(|response: Response<_>| response.map(Body::boxed))
                .layer(UsageLayer::new(settle))
                .map_request(|request: Request<_>| request.map(Body::boxed))
                .layer(UNMETERED)
                .layer(UNSENT)
                .layer(AskAgainLayer(self.asking.clone()))
                .service(inner),
        )
    }
}

#[cfg(test)]
mod tests {
    use tower::{ServiceExt, service_fn};

    use super::*;

    #[tokio::test]
    async fn whatever_hides_a_body_from_limits_they_know_how_much_is_held() {
        const BODY: &str = r#"{"model":"m","messages":[]}"#;
        let limits = service_fn(async |request: Request<Body>| {
            let held = request.extensions().get::<HeldBytes>().map(|HeldBytes(bytes)| *bytes);
            assert_eq!(held, Some(BODY.len() as u64));
            Ok::<_, BoxError>(Response::new(Body::empty()))
        });
        let choice = Choice::new("demo/m", "m", LocalService::new(limits));
        let request = Request::post("/v1/chat/completions").header("content-type", "application/json");
        let request = request.body(Body::full(BODY)).unwrap();
        assert_eq!(
            model_route([choice], &BodyMemory::new(1 << 20)).oneshot(request).await.unwrap().status(),
            200
        );
    }
}

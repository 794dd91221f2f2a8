//! AIService.

mod asking;
mod cutoff;
mod langfuse;
mod observe;
mod settle;
mod target;
mod tokens;
mod words;

use std::sync::Arc;

use http::{Request, Response};
use nantian_ai::{
    AiLayer, BodyMemory, Error, Target,
    body::RequestBody,
    route::{Choice, ModelRoute, RouteBody, StandIn},
};
use nantian_ratelimit::{Attempted, HeldBytes};
use tower::{Layer, Service, ServiceBuilder};

use super::verdict::{UNSENT, mark_unsent};
use crate::{
    body::{Body, BoxError},
    compile::{BackendService, LocalService},
    respond::{ErrorChain, LoggedError},
    telemetry::TraceParent,
};

pub(crate) use self::{
    asking::ServiceUsage,
    cutoff::Cutoff,
    observe::{AiObserver, service_info},
    target::{InvalidAiService, ai_target, check_ai_service, check_identity},
    tokens::{OwnIdentities, Tokens},
    words::{WordsLayer, refusal_of as refusal},
};

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
                .layer(UNSENT)
                .map_response(|response: Response<_>| note_failure(response).map(Body::boxed))
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
            .layer(UNSENT)
            .map_response(|response: Response<RouteBody<_>>| {
                note_attempts(note_failure(response)).map(Body::from)
            })
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

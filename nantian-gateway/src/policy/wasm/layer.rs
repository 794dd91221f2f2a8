//! The plugins of one place as a layer of its route.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use nantian_wasm::{
    Cause, Failure, Plugin, WasmLayer,
    body::BodyError,
    respond::{DefaultResponder, Responder as _},
};
use tower::{Layer, Service, ServiceBuilder, service_fn};

use super::PluginPlace;
use crate::{
    body::{Body, BoxError},
    compile::{BackendService, LocalService},
    policy::keep_refusal,
    respond::{self, ErrorChain, LocalReplyText, LoggedError},
};

/// The plugins at one place.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub(crate) enum Plugins {
    /// They run in this order.
    Run(WasmLayer),
    /// One that fails closed cannot be had: nothing passes.
    Missing,
}

// === impl Plugins ===

impl Plugins {
    /// Runs some at a place, in this order.
    pub(super) fn run(plugins: Vec<Plugin>, place: PluginPlace) -> Self {
        let wants_address = plugins.iter().any(Plugin::reads_properties_of_responses);
        let place = PluginPlace { wants_address, ..place };
        let layer = WasmLayer::new(plugins).stream_info(move |known| place.tell(known));
        Self::Run(layer.responder(refuse))
    }
}

impl<S> Layer<S> for Plugins
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError> + Clone + 'static,
    S::Future: 'static,
{
    type Service = BackendService;

    fn layer(&self, inner: S) -> Self::Service {
        match self {
            Self::Run(layer) => LocalService::new(
                ServiceBuilder::new()
                    .map_response(|response: Response<_>| keep_refusal(response).map(Body::from))
                    .layer(layer.clone())
                    .map_request(|request: Request<_>| request.map(Body::from))
                    .service(inner),
            ),
            Self::Missing => LocalService::new(service_fn(|_: Request<Body>| {
                let answer =
                    respond::plain(StatusCode::SERVICE_UNAVAILABLE, "a plugin of this route is missing");
                std::future::ready(Ok(answer))
            })),
        }
    }
}

/// What Envoy says, with words for whoever has to say more than nothing.
fn refuse(failure: &Failure) -> Response<Bytes> {
    let mut response = DefaultResponder.respond(failure);
    let words = match std::str::from_utf8(response.body()) {
        Ok("") | Err(_) => "a plugin of this route has failed",
        Ok(words) => words,
    };
    let words = LocalReplyText(words.into());
    response.extensions_mut().insert(words);
    response.extensions_mut().insert(LoggedError(ErrorChain(failure).to_string().into()));
    response
}

/// Whether a body breaks off because a plugin has closed its stream.
pub(crate) fn is_closed_by_plugin(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(
        respond::find(error),
        Some(BodyError::Failed(failure)) if failure.cause == Cause::Closed
    )
}

//! Streams of a plain Service are asked what they used, whether their clients ask or not.
//!
//! Around the meter the question is added to the request, and its answer is hidden from a client that did not
//! ask; within it a request whose question was refused is sent again without. A refusal has used nothing.

use std::{
    collections::HashMap,
    fmt,
    hash::BuildHasher as _,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use foldhash::quality::RandomState;
use http::{
    HeaderMap, Request, Response, Uri,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue},
    request::Parts,
};
use http_body::Frame;
use nantian_ai::{
    BodyMemory, Surface,
    body::RequestBody,
    usage::{AsksForUsage, HideUsage, UsageLayer, ask_for_usage, refuses_to_tell_usage},
};
use tower::{Layer, Service, ServiceBuilder, layer::layer_fn};

use super::settle::settle;
use crate::{
    body::{Body, BoxError},
    compile::{BackendService, LocalFuture, LocalService},
    kept::KeptBytes,
    policy::{
        peeked_body::PeekedBody,
        verdict::{UNMETERED, UNSENT},
    },
    sync::lock,
};

/// The most bytes of a request that are looked into; the limits have waited for as many.
const MOST: u64 = 1 << 20;
/// The most bytes of a refusal that are.
const MOST_OF_REFUSAL: u64 = 64 << 10;
/// The most models of a Service of which something is known: clients name whatever they like.
const MOST_MODELS: usize = 256;

/// Meters the replies of a plain Service that speaks a dialect, for a TokenPolicy that counts tokens, and
/// knows what its models do when their streams are asked what they used. Its clones share that.
#[derive(Debug, Clone)]
pub(crate) struct ServiceUsage {
    service: Arc<str>,
    hasher: RandomState,
    learnt: Arc<Mutex<HashMap<Key, Model, RandomState>>>,
}

/// The layer of a [`ServiceUsage`].
#[derive(Debug)]
pub(crate) struct MeterLayer {
    usage: ServiceUsage,
    memory: BodyMemory,
}

/// The hash of a path, a model, and whether its stream is one for some readers only.
type Key = u64;

/// What is known of a model, if anything is; the more the later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Model {
    /// It has streamed: what clients say need not be kept to be said again.
    Takes,
    /// It has streamed and then refused, as where only some endpoints take it.
    Doubted,
    /// It is asked no more.
    Refuses,
}

/// Asks, and hides what is told.
#[derive(Debug, Clone)]
struct Ask {
    inner: BackendService,
    usage: ServiceUsage,
}

/// Sends what was refused for being asked as its client has said it.
#[derive(Debug, Clone)]
struct AskAgain {
    inner: BackendService,
    usage: ServiceUsage,
}

/// In the extensions of a request that asks more than its client.
#[derive(Debug, Clone)]
struct Asked {
    key: Key,
    /// Not of a model that takes it.
    said: Option<Arc<Said>>,
}

/// What the client has said.
#[derive(Debug)]
struct Said {
    body: Bytes,
    _kept: KeptBytes,
}

/// A stream without the usage that its client did not ask for.
struct HidingBody {
    body: Body,
    hide: HideUsage,
    /// What comes after the last event.
    end: Option<Frame<Bytes>>,
    is_over: bool,
}

impl<S> Layer<S> for MeterLayer
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError> + Clone + 'static,
    S::Future: 'static,
{
    type Service = BackendService;

    fn layer(&self, inner: S) -> Self::Service {
        LocalService::new(
            ServiceBuilder::new()
                .layer(layer_fn(|inner| Ask { inner: LocalService::new(inner), usage: self.usage.clone() }))
                .map_response(|response: Response<_>| response.map(Body::boxed))
                .layer(UsageLayer::new(settle).memory(self.memory.clone()))
                .map_request(|request: Request<_>| request.map(Body::boxed))
                .layer(UNMETERED)
                .layer(UNSENT)
                .service(AskAgain { inner: LocalService::new(inner), usage: self.usage.clone() }),
        )
    }
}

impl Service<Request<Body>> for Ask {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = LocalFuture<Response<Body>, BoxError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    /// # Cancellation
    /// Dropping the future drops the request.
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match surface(&request) {
            Some(surface) => LocalFuture::new(self.clone().ask(request, surface)),
            None => self.inner.call(request),
        }
    }
}

impl Service<Request<Body>> for AskAgain {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = LocalFuture<Response<Body>, BoxError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    /// # Cancellation
    /// Dropping the future drops the present attempt; no other is made.
    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match request.extensions_mut().remove::<Asked>() {
            Some(asked) => LocalFuture::new(self.clone().send(request, asked)),
            None => self.inner.call(request),
        }
    }
}

// === impl ServiceUsage ===

impl ServiceUsage {
    /// Of a Service that is told of by this name.
    pub(crate) fn of(service: &dyn fmt::Display) -> Self {
        let service = service.to_string().into();
        Self { service, hasher: RandomState::default(), learnt: Arc::default() }
    }

    /// The layer that meters, which reads events within `memory`.
    pub(crate) fn within(&self, memory: &BodyMemory) -> MeterLayer {
        MeterLayer { usage: self.clone(), memory: memory.clone() }
    }

    fn key(&self, uri: &Uri, asks: &AsksForUsage) -> Key {
        self.hasher.hash_one((uri.path(), &asks.model, asks.is_resembling))
    }

    /// How a model is asked more than its client has `said`; `None` if it is not, or may refuse and that
    /// cannot be kept.
    fn way(&self, key: Key, said: &Bytes) -> Option<Asked> {
        let known = lock(&self.learnt).get(&key).copied();
        let said = match known {
            Some(Model::Refuses) => return None,
            Some(Model::Takes) => None,
            Some(Model::Doubted) | None => Some(Said::keep(said.clone())?),
        };
        Some(Asked { key, said })
    }

    /// Learns of a model, unless more is known of it.
    fn learn(&self, key: Key, model: Model) {
        let mut learnt = lock(&self.learnt);
        let known = learnt.get(&key).copied();
        if known >= Some(model) {
            return;
        }
        if known.is_none() && learnt.len() == MOST_MODELS {
            learnt.clear();
        }
        learnt.insert(key, model);
        if model == Model::Refuses {
            let service = &*self.service;
            tracing::info!(service, "a model refuses `stream_options`: usage of its streams is estimated");
        }
    }
}

// === impl Ask ===

impl Ask {
    async fn ask(self, request: Request<Body>, surface: Surface) -> Result<Response<Body>, BoxError> {
        let (mut parts, mut body) = request.into_parts();
        let said = PeekedBody::read(&mut body, MOST, None).await?;
        let asking = Some(&said.data).filter(|_| said.has_nothing_else());
        let Some(asking) = asking.and_then(|said| self.asked(&mut parts, said, &surface)) else {
            return self.inner.call(Request::from_parts(parts, said.then(body))).await;
        };
        drop(said);
        let response = self.inner.call(with_body(parts, asking)).await?;
        Ok(if is_stream(&response) { hiding(response) } else { response })
    }

    /// The body that asks, if any does.
    fn asked(&self, parts: &mut Parts, said: &Bytes, surface: &Surface) -> Option<RequestBody> {
        let asks = ask_for_usage(surface, said)?;
        // Of its own words a client is told the refusal, and nothing is learnt of them.
        if asks.is_added {
            let asked = self.usage.way(self.usage.key(&parts.uri, &asks), said)?;
            parts.extensions.insert(asked);
        }
        Some(asks.body)
    }
}

// === impl AskAgain ===

impl AskAgain {
    async fn send(self, request: Request<Body>, asked: Asked) -> Result<Response<Body>, BoxError> {
        let (parts, body) = request.into_parts();
        let again = asked.said.map(|said| (parts.clone(), said));
        let response = self.inner.call(Request::from_parts(parts, body)).await?;
        if again.is_some() && is_stream(&response) {
            self.usage.learn(asked.key, Model::Takes);
        }
        if !matches!(response.status().as_u16(), 400 | 422) {
            return Ok(response);
        }
        let (head, mut body) = response.into_parts();
        let refusal = PeekedBody::read(&mut body, MOST_OF_REFUSAL, None).await?;
        let is_refused = refuses_to_tell_usage(head.status, &refusal.data);
        let Some((parts, said)) = again.filter(|_| is_refused) else {
            if is_refused {
                self.usage.learn(asked.key, Model::Doubted);
            }
            return Ok(Response::from_parts(head, refusal.then(body)));
        };
        let response = self.inner.call(with_body(parts, RequestBody::from(said.body.clone()))).await?;
        // An answer in one piece says nothing of streams: another request was read there than here.
        if is_stream(&response) {
            self.usage.learn(asked.key, Model::Refuses);
        }
        Ok(response)
    }
}

// === impl Said ===

impl Said {
    /// Keeps it, if there is room.
    fn keep(body: Bytes) -> Option<Arc<Self>> {
        let mut kept = KeptBytes::default();
        kept.set(body.len()).then(|| Arc::new(Self { body, _kept: kept }))
    }
}

/// The operation, if its stream may have to be asked.
fn surface(request: &Request<Body>) -> Option<Surface> {
    let headers = request.headers();
    let surface = Surface::detect_decoded(request.method(), request.uri().path(), headers).ok()?;
    (surface.may_hold_usage_back() && !headers.contains_key(CONTENT_ENCODING)).then_some(surface)
}

fn with_body(mut parts: Parts, body: RequestBody) -> Request<Body> {
    if let Some(length) = parts.headers.get_mut(CONTENT_LENGTH) {
        *length = HeaderValue::from(body.len());
    }
    Request::from_parts(parts, Body::from(body))
}

/// Whether it is a stream of events that can be read.
fn is_stream(response: &Response<Body>) -> bool {
    let says = |headers: &HeaderMap| {
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.as_bytes().get(..17));
        kind.is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"))
    };
    response.status().is_success()
        && says(response.headers())
        && !response.headers().contains_key(CONTENT_ENCODING)
}

fn hiding(response: Response<Body>) -> Response<Body> {
    let mut response = response
        .map(|body| Body::boxed(HidingBody { body, hide: HideUsage::new(), end: None, is_over: false }));
    response.headers_mut().remove(CONTENT_LENGTH);
    response
}

impl http_body::Body for HidingBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        while !self.is_over {
            let shown =
                match ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()?.map(Frame::into_data) {
                    Some(Ok(data)) => self.hide.push(data),
                    end => {
                        self.is_over = true;
                        self.end = end.and_then(Result::err);
                        self.hide.finish()
                    }
                };
            if !shown.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(shown))));
            }
        }
        Poll::Ready(self.end.take().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over && self.end.is_none()
    }
}

#[cfg(test)]
mod tests;

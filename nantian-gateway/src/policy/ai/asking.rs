//! Streams of a plain Service are asked what they used, whether their clients ask or not.
//!
//! Around the meter the question is added to the request, and its answer is hidden from a client that did not
//! ask; within it a request whose question was refused is sent again without. A refusal has used nothing.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    HeaderMap, Request, Response,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue},
    request::Parts,
};
use http_body::Frame;
use nantian_ai::{
    Surface,
    body::RequestBody,
    usage::{HideUsage, ask_for_usage, refuses_to_tell_usage},
};
use tower::{Layer, Service};

use crate::{
    body::{Body, BoxError},
    compile::{BackendService, LocalFuture, LocalService},
    kept::KeptBytes,
    policy::replayed_body::ReplayedBody,
};

/// The most bytes of a request that are looked into; the limits have waited for as many.
const MOST: u64 = 1 << 20;
/// The most bytes of a refusal that are.
const MOST_OF_REFUSAL: u64 = 64 << 10;

/// Whether a Service is asked: not any more once it has refused a stream for being asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Asking {
    is_refused: Arc<AtomicBool>,
}

/// Asks, and hides what is told.
#[derive(Debug, Clone)]
pub(super) struct AskLayer(pub(super) Asking);

#[derive(Debug, Clone)]
pub(super) struct Ask {
    inner: BackendService,
    asking: Asking,
}

/// Sends what was refused for being asked as its client has said it.
#[derive(Debug, Clone)]
pub(super) struct AskAgainLayer(pub(super) Asking);

#[derive(Debug, Clone)]
pub(super) struct AskAgain {
    inner: BackendService,
    asking: Asking,
}

/// In the extensions of a request that asks more than its client.
#[derive(Debug, Clone)]
struct Asked(Arc<Said>);

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

impl<S> Layer<S> for AskLayer
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError> + 'static,
    S::Future: 'static,
{
    type Service = Ask;

    fn layer(&self, inner: S) -> Ask {
        Ask { inner: LocalService::new(inner), asking: self.0.clone() }
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
        match self.asking.surface(&request) {
            Some(surface) => LocalFuture::new(self.clone().ask(request, surface)),
            None => self.inner.call(request),
        }
    }
}

impl<S> Layer<S> for AskAgainLayer
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError> + 'static,
    S::Future: 'static,
{
    type Service = AskAgain;

    fn layer(&self, inner: S) -> AskAgain {
        AskAgain { inner: LocalService::new(inner), asking: self.0.clone() }
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
            Some(Asked(said)) => LocalFuture::new(self.clone().send(request, said)),
            None => self.inner.call(request),
        }
    }
}

// === impl Asking ===

impl Asking {
    /// The operation, if its stream may have to be asked.
    fn surface(&self, request: &Request<Body>) -> Option<Surface> {
        let headers = request.headers();
        let surface = Surface::detect_decoded(request.method(), request.uri().path(), headers).ok()?;
        let may_ask = !self.is_refused.load(Ordering::Relaxed) && !headers.contains_key(CONTENT_ENCODING);
        (may_ask && surface.may_hold_usage_back()).then_some(surface)
    }

    /// Nobody is asked any more.
    fn give_up(&self) {
        if !self.is_refused.swap(true, Ordering::Relaxed) {
            tracing::info!("a Service refuses `stream_options`: usage of its streams is estimated");
        }
    }
}

// === impl Ask ===

impl Ask {
    async fn ask(self, request: Request<Body>, surface: Surface) -> Result<Response<Body>, BoxError> {
        let (mut parts, mut body) = request.into_parts();
        let said = ReplayedBody::read(&mut body, MOST, None).await?;
        let asking = Some(&said.data).filter(|_| said.has_nothing_else());
        let Some(asking) = asking.and_then(|said| ask_for_usage(&surface, said)) else {
            return self.inner.call(Request::from_parts(parts, said.then(body))).await;
        };
        // Of its own words a client is told the refusal, and nothing is learnt of them.
        if let Some(said) = asking.is_added.then(|| Said::keep(said.data)).flatten() {
            parts.extensions.insert(Asked(said));
        }
        let response = self.inner.call(with_body(parts, asking.body)).await?;
        Ok(if is_stream(&response) { hiding(response) } else { response })
    }
}

// === impl AskAgain ===

impl AskAgain {
    async fn send(self, request: Request<Body>, said: Arc<Said>) -> Result<Response<Body>, BoxError> {
        let (parts, body) = request.into_parts();
        let response = self.inner.call(Request::from_parts(parts.clone(), body)).await?;
        if !matches!(response.status().as_u16(), 400 | 422) {
            return Ok(response);
        }
        let (head, mut body) = response.into_parts();
        let refusal = ReplayedBody::read(&mut body, MOST_OF_REFUSAL, None).await?;
        if !refuses_to_tell_usage(head.status, &refusal.data) {
            return Ok(Response::from_parts(head, refusal.then(body)));
        }
        let response = self.inner.call(with_body(parts, RequestBody::from(said.body.clone()))).await?;
        // An answer in one piece says nothing of streams: another request was read there than here.
        if is_stream(&response) {
            self.asking.give_up();
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
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use http::StatusCode;
    use http_body_util::BodyExt as _;
    use tower::{ServiceExt as _, service_fn};

    use super::{super::Meter, *};

    const STREAM: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\ndata: [DONE]\n\n";

    /// What a server was sent.
    type Seen = Rc<RefCell<Vec<String>>>;

    /// A server that knows no `stream_options`.
    fn refusing(seen: &Seen) -> BackendService {
        let seen = Rc::clone(seen);
        LocalService::new(service_fn(move |request: Request<Body>| {
            let seen = Rc::clone(&seen);
            async move {
                let length = request.headers()[CONTENT_LENGTH].clone();
                let body = request.into_body().collect().await?.to_bytes();
                assert_eq!(length, HeaderValue::from(body.len()));
                let body = String::from_utf8(body.to_vec()).unwrap();
                let (status, kind, answer) = match &*body {
                    body if body.contains("bad") => (422, "application/json", r#"{"error":"bad"}"#),
                    body if body.contains("stream_options") => (
                        400,
                        "application/json",
                        r#"{"error":{"message":"Unknown parameter: 'stream_options'"}}"#,
                    ),
                    _ => (200, "text/event-stream", STREAM),
                };
                seen.borrow_mut().push(body);
                let response = Response::builder().status(status).header(CONTENT_TYPE, kind);
                Ok::<_, BoxError>(response.body(Body::full(answer))?)
            }
        }))
    }

    async fn ask(meter: &Meter, seen: &Seen, body: &'static str) -> (StatusCode, Bytes) {
        let request = Request::post("/v1/chat/completions").header(CONTENT_LENGTH, body.len());
        let response =
            meter.layer(refusing(seen)).oneshot(request.body(Body::full(body)).unwrap()).await.unwrap();
        (response.status(), response.into_body().collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn a_service_that_refuses_to_be_asked_is_asked_without_and_then_no_more() {
        const STREAMS: &str = r#"{"model":"m","stream":true,"messages":[]}"#;
        let (meter, seen) = (Meter::default(), Seen::default());
        for (asked, last) in [(2, "once it has refused"), (3, "it is asked no more")] {
            assert_eq!(ask(&meter, &seen, STREAMS).await, (StatusCode::OK, Bytes::from(STREAM)), "{last}");
            assert_eq!(seen.borrow().len(), asked, "{last}");
            assert_eq!(seen.borrow().last().unwrap(), STREAMS, "{last}");
        }
    }

    #[tokio::test]
    async fn what_is_refused_for_another_reason_is_not_sent_twice() {
        let (meter, seen) = (Meter::default(), Seen::default());
        let (status, body) = ask(&meter, &seen, r#"{"model":"bad","stream":true,"messages":[]}"#).await;
        assert_eq!((status.as_u16(), &*body), (422, &br#"{"error":"bad"}"#[..]));
        assert_eq!(seen.borrow().len(), 1);
        const ITS_OWN: &str = r#"{"stream":true,"stream_options":{"include_usage":false},"messages":[]}"#;
        let (status, _) = ask(&meter, &seen, ITS_OWN).await;
        assert_eq!((status.as_u16(), seen.borrow().len()), (400, 2), "the client has said it");
        assert!(!meter.asking.is_refused.load(Ordering::Relaxed), "nothing is learnt of others");
    }
}

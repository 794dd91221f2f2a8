//! A fake upstream with a script, and clients of each dialect.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::{Request, Response, request::Parts};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use nantian_ai::body::RequestBody;
use nantian_ai::usage::{UsageObserver, UsageReport};
use nantian_ai::{AiLayer, BoxError, Credential, Target, TargetConfig, Unsent};
use tower::{Layer as _, Service, ServiceExt as _};

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;
type Reply = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

/// Plays its script, one entry for each request, and keeps the requests.
#[derive(Clone, Default)]
pub(crate) struct Upstream {
    script: Arc<Mutex<VecDeque<Reply>>>,
    seen: Arc<Mutex<Vec<(Parts, Bytes)>>>,
}

/// Keeps the reports.
#[derive(Clone, Default)]
pub(crate) struct Reports(Arc<Mutex<Vec<UsageReport>>>);

impl Upstream {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn then(
        self,
        reply: impl Future<Output = Result<Response<Body>, BoxError>> + Send + 'static,
    ) -> Self {
        self.script.lock().unwrap().push_back(Box::pin(reply));
        self
    }

    pub(crate) fn replies(self, response: Response<Body>) -> Self {
        self.then(async { Ok(response) })
    }

    pub(crate) fn refuses_connection(self) -> Self {
        self.then(async { Err(Unsent(io::Error::from(io::ErrorKind::ConnectionRefused).into()).into()) })
    }

    /// Takes the request, and the connection breaks.
    pub(crate) fn breaks_off(self) -> Self {
        self.then(async { Err(io::Error::from(io::ErrorKind::ConnectionReset).into()) })
    }

    /// Never answers.
    pub(crate) fn hangs(self) -> Self {
        self.then(std::future::pending())
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// All requests.
    pub(crate) fn all(&self) -> Vec<(Parts, Bytes)> {
        self.seen.lock().unwrap().clone()
    }

    /// The only request.
    pub(crate) fn request(&self) -> (Parts, Bytes) {
        let mut seen = self.seen.lock().unwrap();
        assert_eq!(seen.len(), 1);
        seen.pop().unwrap()
    }
}

impl Service<Request<RequestBody>> for Upstream {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Reply;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Reply {
        let next = self.script.lock().unwrap().pop_front();
        let seen = Arc::clone(&self.seen);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            seen.lock().unwrap().push((head, body));
            next.expect("more requests than replies").await
        })
    }
}

impl UsageObserver for Reports {
    type Sink = Box<dyn FnOnce(UsageReport) + Send>;

    fn begin(&self, _: &http::Extensions, _: &nantian_ai::RequestFacts) -> Self::Sink {
        let reports = Arc::clone(&self.0);
        Box::new(move |report| reports.lock().unwrap().push(report))
    }
}

impl Reports {
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// All reports.
    pub(crate) fn all(&self) -> Vec<UsageReport> {
        self.0.lock().unwrap().clone()
    }

    /// The only report.
    pub(crate) fn only(&self) -> UsageReport {
        let reports = self.0.lock().unwrap();
        assert_eq!(reports.len(), 1);
        reports[0].clone()
    }
}

/// An OpenAI target with a credential.
pub(crate) fn openai() -> TargetConfig {
    TargetConfig::new("demo/openai", "openai", "gpt-4o").with_credential(Credential::bearer("sk-ours"))
}

pub(crate) fn claude() -> TargetConfig {
    TargetConfig::new("demo/claude", "anthropic", "claude-sonnet-4-5")
}

pub(crate) fn layer(config: TargetConfig) -> AiLayer {
    AiLayer::new(Arc::new(Target::new(config).unwrap()))
}

pub(crate) fn post(path: &str, body: &str) -> Request<Full<Bytes>> {
    Request::post(path).header("content-type", "application/json").body(Full::from(body.to_owned())).unwrap()
}

/// A request for a chat in OpenAI's dialect.
pub(crate) fn chat() -> Request<Full<Bytes>> {
    post("/v1/chat/completions", r#"{"model":"any","messages":[]}"#)
}

/// The same as a stream.
pub(crate) fn stream_chat() -> Request<Full<Bytes>> {
    post("/v1/chat/completions", r#"{"model":"any","messages":[],"stream":true}"#)
}

pub(crate) fn json(status: u16, body: &str) -> Response<Body> {
    let body = Full::from(body.to_owned());
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(body.map_err(|error: Infallible| match error {}).boxed_unsync())
        .unwrap()
}

/// A page, where JSON belongs.
pub(crate) fn html(status: u16, body: &str) -> Response<Body> {
    let mut page = json(status, body);
    page.headers_mut().insert("content-type", "text/html".parse().unwrap());
    page
}

/// A stream of events, each after a pause; it ends in an error if the last chunk is `None`.
pub(crate) fn events<T: Into<Bytes> + Send + 'static>(
    content_type: &str,
    chunks: impl IntoIterator<Item = (Duration, Option<T>), IntoIter: Send + 'static>,
) -> Response<Body> {
    let frames = stream::iter(chunks).then(|(pause, chunk)| async move {
        tokio::time::sleep(pause).await;
        match chunk {
            Some(chunk) => Ok(Frame::data(chunk.into())),
            None => Err(io::ErrorKind::ConnectionReset.into()),
        }
    });
    Response::builder()
        .header("content-type", content_type)
        .body(StreamBody::new(frames).boxed_unsync())
        .unwrap()
}

/// What the client gets: head and whole body.
pub(crate) async fn send<O>(
    layer: AiLayer<O>,
    upstream: &Upstream,
    request: Request<Full<Bytes>>,
) -> (http::response::Parts, String)
where
    O: UsageObserver,
    O::Sink: Send + 'static,
{
    let response = layer.layer(upstream.clone()).oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head, String::from_utf8(body.to_vec()).unwrap())
}

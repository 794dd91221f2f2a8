//! The gateway's own refusals, in the words of the API that a client speaks.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, request::Parts};
use http_body::Body as _;
use nantian_ai::{ClientDialect, Error, Surface, respond::refusal};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::observe::Arrived;
use crate::{
    body::Body,
    respond::{self, LocalReplyText, of_body},
};

/// Says the gateway's own refusals in the dialect that a request's path tells: the library that has sent it
/// reads no other text. Notes when the request came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WordsLayer;

/// The service of [`WordsLayer`].
#[derive(Debug, Clone)]
pub(crate) struct Words<S> {
    inner: S,
}

impl<S> Layer<S> for WordsLayer {
    type Service = Words<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Words { inner }
    }
}

impl<S> Service<Request<Body>> for Words<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = WordsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.extensions_mut().insert(Arrived(Instant::now()));
        let surface = Surface::detect_decoded(request.method(), request.uri().path(), request.headers());
        let dialect = surface.ok().map(|surface| surface.dialect());
        WordsFuture { inner: self.inner.call(request), dialect }
    }
}

pin_project! {
    /// The future of [`Words`]; dropping it drops the inner call.
    #[derive(Debug)]
    pub(crate) struct WordsFuture<F> {
        #[pin]
        inner: F,
        dialect: Option<ClientDialect>,
    }
}

impl<F, E> Future for WordsFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx))?;
        Poll::Ready(Ok(match *this.dialect {
            Some(dialect) => worded(response, dialect),
            None => response,
        }))
    }
}

/// A refusal of a request that has no route yet, in the dialect that its path tells, or as plain text.
pub(crate) fn refusal_of(request: &Parts, status: StatusCode, text: &str) -> Response<Bytes> {
    let surface = Surface::detect_decoded(&request.method, request.uri.path(), &request.headers);
    match surface {
        Ok(surface) => refusal(status, text, surface.dialect()),
        Err(_) => respond::plain(status, text),
    }
}

/// The response in a dialect, if it is the gateway's own.
fn worded(response: Response<Body>, dialect: ClientDialect) -> Response<Body> {
    let Some((status, text)) = own(&response) else { return response };
    let (mut head, _) = response.into_parts();
    let (said, body) = refusal(status, &text, dialect).into_parts();
    head.status = status;
    head.headers.remove(http::header::CONTENT_LENGTH);
    head.headers.extend(said.headers);
    Response::from_parts(head, Body::full(body))
}

/// What the gateway itself says, if the response is its own.
fn own(response: &Response<Body>) -> Option<(StatusCode, Arc<str>)> {
    let extensions = response.extensions();
    if let Some(LocalReplyText(text)) = extensions.get() {
        // What a plugin has made of it on the way is not.
        let written = response.body().size_hint().exact().and_then(|length| usize::try_from(length).ok());
        let is_own = written.is_some_and(|length| [0, text.len(), text.len() + 1].contains(&length));
        return is_own.then(|| (response.status(), Arc::clone(text)));
    }
    // Of a request that cannot be read an AIService knows no more than that.
    match extensions.get::<Arc<Error>>().map(Arc::as_ref) {
        Some(Error::BodyRead { source }) => {
            of_body(source.as_ref()).map(|(status, text)| (status, text.into()))
        }
        _ => None,
    }
}

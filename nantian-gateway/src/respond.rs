//! The one table from errors to responses.

use std::{
    convert::Infallible,
    error::Error,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::LengthLimitError;
use nantian_ratelimit::{Denied, Unavailable};
use nantian_wasm::respond::LocalReply;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::{
    body::{Body, BoxError},
    filter::TimedOut,
    listen::{BrokenBody, LateBody},
    upstream::UpstreamError,
};

/// In the extensions of a response of the gateway's own: its text, for whoever says it in the words of an
/// API.
#[derive(Debug, Clone)]
pub(crate) struct LocalReplyText(pub(crate) Arc<str>);

/// In the extensions of a response of the gateway's own: why it is one, for the access log. Clients are not
/// told.
#[derive(Debug, Clone)]
pub(crate) struct LoggedError(pub(crate) Arc<str>);

/// A response of the gateway's own: a status and one line of text.
pub(crate) fn plain<B: From<Bytes>>(status: StatusCode, text: &str) -> Response<B> {
    let mut response = Response::new(B::from(format!("{text}\n").into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.extensions_mut().insert(LocalReplyText(text.into()));
    response.extensions_mut().insert(match status {
        StatusCode::NOT_FOUND => LocalReply::new("route_not_found", NO_ROUTE_FOUND),
        _ => LocalReply::new("direct_response", 0),
    });
    response
}

/// The same, where the access log says more than the client is told.
pub(crate) fn plain_because<B: From<Bytes>>(status: StatusCode, text: &str, why: &str) -> Response<B> {
    let mut response = plain(status, text);
    response.extensions_mut().insert(LoggedError(why.into()));
    response
}

/// Turns every error of the layers below into a response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RespondLayer;

/// The service of [`RespondLayer`].
#[derive(Debug, Clone)]
pub(crate) struct Respond<S> {
    inner: S,
}

impl<S> Layer<S> for RespondLayer {
    type Service = Respond<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Respond { inner }
    }
}

impl<S> Service<Request<Body>> for Respond<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = RespondFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // What is not ready for good will say so in `call`.
        self.inner.poll_ready(cx).map(|_| Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        RespondFuture { inner: self.inner.call(request) }
    }
}

pin_project! {
    /// The future of [`Respond`]; dropping it drops the inner call.
    #[derive(Debug)]
    pub(crate) struct RespondFuture<F> {
        #[pin]
        inner: F,
    }
}

impl<F> Future for RespondFuture<F>
where
    F: Future<Output = Result<Response<Body>, BoxError>>,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(self.project().inner.poll(cx));
        Poll::Ready(Ok(result.unwrap_or_else(|error| respond(error.as_ref()))))
    }
}

/// The response to an error; the details go to the log, not to the client.
fn respond(error: &(dyn Error + 'static)) -> Response<Body> {
    let (status, text) = status_of(error);
    tracing::debug!(status = status.as_u16(), error = %ErrorChain(error), "request failed");
    let mut response: Response<Body> = plain_because(status, text, &ErrorChain(error).to_string());
    response.extensions_mut().insert(told_of(error));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Says of a response what plugins are told of it, where limits or an AIService have made it.
pub(crate) fn told_to_plugins(mut response: Response<Body>) -> Response<Body> {
    if response.extensions().get::<LocalReply>().is_none()
        && let Some(own) = own(&response)
    {
        response.extensions_mut().insert(own);
    }
    response
}

fn own(response: &Response<Body>) -> Option<LocalReply> {
    let extensions = response.extensions();
    if extensions.get::<Denied>().is_some() {
        return Some(LocalReply::new("request_rate_limited", RATE_LIMITED));
    }
    if extensions.get::<Unavailable>().is_some() {
        return Some(LocalReply::new("direct_response", 0));
    }
    let error = extensions.get::<Arc<nantian_ai::Error>>()?;
    (!matches!(**error, nantian_ai::Error::Provider { .. })).then(|| told_of(&**error))
}

/// Bits of `response.flags`, as plugins know them from Envoy.
const UPSTREAM_REQUEST_TIMEOUT: u32 = 1 << 2;
const UPSTREAM_CONNECTION_FAILURE: u32 = 1 << 5;
const UPSTREAM_CONNECTION_TERMINATION: u32 = 1 << 6;
const NO_ROUTE_FOUND: u32 = 1 << 8;
const RATE_LIMITED: u32 = 1 << 11;
const DOWNSTREAM_CONNECTION_TERMINATION: u32 = 1 << 14;

/// What plugins are told of an error, in the words of Envoy.
fn told_of(error: &(dyn Error + 'static)) -> LocalReply {
    if find::<BrokenBody>(error).is_some_and(BrokenBody::is_of_one_who_left) {
        return LocalReply::for_nobody("downstream_remote_disconnect", DOWNSTREAM_CONNECTION_TERMINATION);
    }
    let is_too_large = matches!(find(error), Some(nantian_ai::Error::BodyTooLarge { .. }));
    if is_too_large || find::<LengthLimitError>(error).is_some() {
        return LocalReply::new("request_payload_too_large", 0);
    }
    let is_late = find::<TimedOut>(error).is_some()
        || matches!(find(error), Some(UpstreamError::Stalled { .. }))
        || matches!(find(error), Some(nantian_ai::Error::Timeout { .. }));
    if is_late {
        return LocalReply::new("response_timeout", UPSTREAM_REQUEST_TIMEOUT);
    }
    match find(error) {
        Some(
            UpstreamError::Connect { .. }
            | UpstreamError::ConnectTimeout { .. }
            | UpstreamError::Unspoken { .. },
        ) => LocalReply::new(
            "upstream_reset_before_response_started{remote_connection_failure}",
            UPSTREAM_CONNECTION_FAILURE,
        ),
        Some(UpstreamError::Exchange { .. }) => LocalReply::new(
            "upstream_reset_before_response_started{connection_termination}",
            UPSTREAM_CONNECTION_TERMINATION,
        ),
        _ => LocalReply::new("direct_response", 0),
    }
}

const TOO_LARGE: (StatusCode, &str) = (StatusCode::PAYLOAD_TOO_LARGE, "the request body is too large");

/// What an error of the request's body is, if it is one.
pub(crate) fn of_body(error: &(dyn Error + 'static)) -> Option<(StatusCode, &'static str)> {
    if find::<LengthLimitError>(error).is_some() {
        return Some(TOO_LARGE);
    }
    if find::<BrokenBody>(error).is_some() {
        return Some((StatusCode::BAD_REQUEST, "the request body is malformed"));
    }
    let is_late = find::<LateBody>(error).is_some();
    is_late.then_some((StatusCode::REQUEST_TIMEOUT, "the request body takes too long"))
}

fn status_of(error: &(dyn Error + 'static)) -> (StatusCode, &'static str) {
    if let Some(of_body) = of_body(error) {
        return of_body;
    }
    if find::<TimedOut>(error).is_some() {
        return (StatusCode::GATEWAY_TIMEOUT, "the request took too long");
    }
    match find(error) {
        Some(nantian_ai::Error::TooManyBodies) => {
            let text = "there is no memory for the body, too many others are being read";
            return (StatusCode::SERVICE_UNAVAILABLE, text);
        }
        Some(nantian_ai::Error::BodyTooLarge { .. }) => return TOO_LARGE,
        _ => {}
    }
    match find::<UpstreamError>(error) {
        Some(UpstreamError::ConnectTimeout { .. }) => {
            (StatusCode::GATEWAY_TIMEOUT, "the backend does not answer")
        }
        Some(UpstreamError::Stalled { .. }) => {
            (StatusCode::GATEWAY_TIMEOUT, "the backend does not take the request")
        }
        Some(UpstreamError::Refused { .. }) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "this route has no valid backend")
        }
        Some(UpstreamError::InvalidHost { .. }) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "this route makes a host that is not valid")
        }
        Some(UpstreamError::Connect { .. } | UpstreamError::Unspoken { .. }) => {
            (StatusCode::BAD_GATEWAY, "the backend cannot be reached")
        }
        Some(_) => (StatusCode::BAD_GATEWAY, "the backend gave no answer that can be passed on"),
        None => (StatusCode::INTERNAL_SERVER_ERROR, "internal error"),
    }
}

/// The first `E` in the chain of causes.
pub(crate) fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        // One that is shared has the sources of what is in it, not that itself.
        let error = error.downcast_ref::<Arc<dyn Error + Send + Sync>>().map_or(error, |shared| &**shared);
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// An error and its causes, in one line.
pub(crate) struct ErrorChain<'a>(pub(crate) &'a (dyn Error + 'static));

impl std::fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_a_shared_error_is_is_found() {
        let stalled = UpstreamError::Stalled { destination: "a".to_owned(), limit: Duration::ZERO };
        let error = nantian_ai::Error::Upstream { target: "a".to_owned(), source: Arc::new(stalled) };
        assert!(find::<UpstreamError>(&error).is_some());
    }
}

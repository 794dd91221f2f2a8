//! The future of an exchange.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::body::{Relay, RequestBody, ResponseBody};
use crate::handle::StreamHandle;
use crate::respond::Responder;
use crate::stream::{Action, Direction, StreamContext};

pin_project! {
    /// Takes one exchange through the plugins and the inner service.
    ///
    /// # Cancellation
    ///
    /// Dropping it drops the inner future and ends the stream for the plugins that have seen it.
    pub struct ResponseFuture<S, B, R>
    where
        S: Service<Request<RequestBody<B>>>,
    {
        #[pin]
        state: State<S, B, S::Future, S::Response, S::Error>,
        // Absent without plugins.
        stream: Option<StreamHandle>,
        // The response has no body, whatever its headers say.
        is_bodiless: bool,
        responder: R,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, B, F, T, E> {
        // Every instance of a plugin was busy.
        Request { service: Option<S>, request: Option<Request<B>> },
        Inner { #[pin] future: F },
        Result { result: Option<Result<T, E>> },
        Reply { reply: Option<Reply<T>> },
    }
}

/// A response whose headers the plugins have not seen to the end.
enum Reply<T> {
    Upstream(T),
    /// A plugin answered or failed in the request's phases.
    Local(Response<Bytes>),
}

/// What showing a request's headers led to.
enum Shown<B> {
    /// The request goes on; `watched` when a plugin looks at its body.
    Forward {
        request: Request<B>,
        watched: bool,
    },
    Local(Response<Bytes>),
    Busy(Request<B>),
}

/// Where a response comes from, and how its payload becomes a body.
struct Origin<P, T> {
    is_local: bool,
    wrap: fn(P, StreamHandle, Option<Relay>) -> ResponseBody<T>,
}

// === impl Origin ===

impl<T> Origin<T, T> {
    const UPSTREAM: Self = Self { is_local: false, wrap: ResponseBody::upstream };
}

impl<T> Origin<Bytes, T> {
    const LOCAL: Self = Self { is_local: true, wrap: ResponseBody::local };
}

// === impl ResponseFuture ===

impl<S, B, R> ResponseFuture<S, B, R>
where
    S: Service<Request<RequestBody<B>>>,
{
    /// An exchange without plugins.
    pub(crate) fn unwatched(future: S::Future, responder: R) -> Self {
        Self { state: State::Inner { future }, stream: None, is_bodiless: false, responder }
    }

    /// Shows the request's headers to the plugins at once; the inner service is cloned only if that has to wait.
    pub(crate) fn start(mut context: StreamContext, inner: &mut S, request: Request<B>, responder: R) -> Self
    where
        S: Clone,
        B: Body,
        R: Responder,
    {
        let is_bodiless = matches!(*request.method(), Method::HEAD | Method::CONNECT);
        let shown = show_request(&mut context, request, &responder);
        let stream = StreamHandle::new(context);
        let state = match shown {
            Shown::Forward { request, watched } => {
                State::Inner { future: inner.call(forwarded(request, watched, &stream)) }
            }
            Shown::Local(response) => State::Reply { reply: Some(Reply::Local(response)) },
            Shown::Busy(request) => {
                // The clone is not ready; the service that was polled ready goes with the request.
                let clone = inner.clone();
                State::Request { service: Some(std::mem::replace(inner, clone)), request: Some(request) }
            }
        };
        Self { state, stream: Some(stream), is_bodiless, responder }
    }
}

impl<S, B, R, T> Future for ResponseFuture<S, B, R>
where
    S: Service<Request<RequestBody<B>>, Response = Response<T>>,
    B: Body,
    R: Responder,
    T: Body,
{
    type Output = Result<Response<ResponseBody<T>>, S::Error>;

    /// Polled again after it is ready, it stays pending for ever.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let Some(stream) = this.stream.as_mut() else {
                let StateProjection::Inner { future } = this.state.as_mut().project() else {
                    return Poll::Pending;
                };
                return future.poll(cx).map_ok(|response| response.map(ResponseBody::unwatched));
            };
            let next = match this.state.as_mut().project() {
                StateProjection::Request { service, request } => {
                    let mut shared = ready!(stream.poll_lock(cx));
                    ready!(shared.context.poll_free(cx));
                    let (Some(mut ready), Some(waiting)) = (service.take(), request.take()) else {
                        return Poll::Pending;
                    };
                    match show_request(&mut shared.context, waiting, this.responder) {
                        Shown::Forward { request, watched } => {
                            State::Inner { future: ready.call(forwarded(request, watched, stream)) }
                        }
                        Shown::Local(response) => State::Reply { reply: Some(Reply::Local(response)) },
                        Shown::Busy(request) => {
                            State::Request { service: Some(ready), request: Some(request) }
                        }
                    }
                }
                StateProjection::Inner { future } => State::Result { result: Some(ready!(future.poll(cx))) },
                StateProjection::Result { result } => {
                    let mut shared = ready!(stream.poll_lock(cx));
                    let refusal = shared.refusal.take();
                    let refusal = refusal.and_then(|refusal| local(refusal, &shared.context, this.responder));
                    let reply = match (refusal, result.take()) {
                        (Some(response), _) => Reply::Local(response),
                        (None, Some(Ok(response))) => Reply::Upstream(response),
                        (None, Some(Err(error))) => return Poll::Ready(Err(error)),
                        (None, None) => return Poll::Pending,
                    };
                    State::Reply { reply: Some(reply) }
                }
                StateProjection::Reply { reply } => {
                    let mut shared = ready!(stream.poll_lock(cx));
                    ready!(shared.context.poll_free(cx));
                    let context = &mut shared.context;
                    let reply = match reply.take() {
                        Some(Reply::Upstream(response)) => {
                            let end = *this.is_bodiless || response.body().is_end_stream();
                            show_response(context, stream, response, Origin::UPSTREAM, end, this.responder)
                                .map_err(Reply::Upstream)
                        }
                        Some(Reply::Local(response)) => {
                            let end = *this.is_bodiless || response.body().is_empty();
                            show_response(context, stream, response, Origin::LOCAL, end, this.responder)
                                .map_err(Reply::Local)
                        }
                        None => return Poll::Pending,
                    };
                    match reply {
                        Ok(response) => return Poll::Ready(Ok(response)),
                        Err(busy) => State::Reply { reply: Some(busy) },
                    }
                }
            };
            this.state.set(next);
        }
    }
}

impl<S, B, R> fmt::Debug for ResponseFuture<S, B, R>
where
    S: Service<Request<RequestBody<B>>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("watched", &self.stream.is_some()).finish_non_exhaustive()
    }
}

/// Takes a request's headers past the plugins.
fn show_request<B: Body>(
    context: &mut StreamContext,
    request: Request<B>,
    responder: &impl Responder,
) -> Shown<B> {
    let (mut parts, body) = request.into_parts();
    let end = body.is_end_stream();
    let action = context.on_request_headers(&mut parts, end);
    let is_busy = matches!(action, Action::Busy);
    let local = local(action, context, responder);
    let request = Request::from_parts(parts, body);
    match local {
        Some(response) => Shown::Local(response),
        None if is_busy => Shown::Busy(request),
        None => Shown::Forward { request, watched: !end && context.wants_request_body() },
    }
}

/// A request as the inner service gets it.
fn forwarded<B>(request: Request<B>, watched: bool, stream: &StreamHandle) -> Request<RequestBody<B>> {
    let (parts, body) = request.into_parts();
    let body = if watched {
        RequestBody::watched(body, Relay::new(stream.clone(), Direction::Request, &parts.headers, false))
    } else {
        RequestBody::unwatched(body)
    };
    Request::from_parts(parts, body)
}

/// Takes a response's headers past the plugins; it comes back when an instance is busy.
fn show_response<P, T>(
    context: &mut StreamContext,
    stream: &StreamHandle,
    response: Response<P>,
    origin: Origin<P, T>,
    end: bool,
    responder: &impl Responder,
) -> Result<Response<ResponseBody<T>>, Response<P>> {
    let (mut parts, payload) = response.into_parts();
    let action = context.on_response_headers(&mut parts, end);
    if matches!(action, Action::Busy) {
        return Err(Response::from_parts(parts, payload));
    }
    if let Some(response) = local(action, context, responder) {
        return Ok(response.map(|bytes| ResponseBody::local(bytes, stream.clone(), None)));
    }
    // Behind a switch of protocols there are no messages to look at.
    let watched = !end && parts.status != StatusCode::SWITCHING_PROTOCOLS && context.wants_response_body();
    if watched && origin.is_local {
        // Made here, so the length is not yet promised to anybody.
        parts.headers.remove(CONTENT_LENGTH);
    }
    let relay =
        watched.then(|| Relay::new(stream.clone(), Direction::Response, &parts.headers, origin.is_local));
    Ok(Response::from_parts(parts, (origin.wrap)(payload, stream.clone(), relay)))
}

/// The response a plugin's answer or failure stands for.
fn local(action: Action, context: &StreamContext, responder: &impl Responder) -> Option<Response<Bytes>> {
    match action {
        Action::Respond(answer) => Some(answer.into_response(context.is_grpc())),
        Action::Fail(failure) => Some(responder.respond(&failure)),
        Action::Continue | Action::Busy => None,
    }
}

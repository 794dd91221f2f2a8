//! The future of an exchange.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::lock::OwnedMutexGuard;
use http::{Method, Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::body::{RequestBody, ResponseBody, Source};
use crate::error::BoxError;
use crate::handle::{Shared, StreamHandle};
use crate::held::Held;
use crate::respond::Responder;
use crate::show::{Shown, forwarded, local, replied, replied_locally, show_request, show_response};
use crate::stream::{Direction, StreamContext};

pin_project! {
    /// Takes one exchange through the plugins and the inner service.
    ///
    /// # Cancellation
    ///
    /// Dropping it drops the inner future and ends the stream for the plugins that have seen it.
    pub struct ResponseFuture<S, B, R>
    where
        S: Service<Request<RequestBody<B>>>,
        S::Response: Reply,
    {
        #[pin]
        state: State<S, B, S::Future, <S::Response as Reply>::Body, S::Error>,
        // Absent without plugins.
        stream: Option<StreamHandle>,
        // The response has no body, whatever its headers say.
        is_bodiless: bool,
        responder: R,
    }
}

/// Responses, so that the type of their bodies can be named.
pub trait Reply {
    /// The body.
    type Body;
}

impl<T> Reply for Response<T> {
    type Body = T;
}

pin_project! {
    #[project = StateProjection]
    enum State<S, B, F, T, E> {
        // A plugin holds the headers, or all its instances are busy.
        Request { service: Option<S>, request: Option<Request<B>> },
        // A plugin holds the headers until it has seen parts of the body.
        HeldRequest { service: Option<S>, held: Option<Held<http::request::Parts, B>> },
        Inner { #[pin] future: F },
        Result { result: Option<Result<Response<T>, E>> },
        Reply { reply: Option<Response<Source<T>>>, is_local: bool },
        // A plugin holds the headers until it has seen parts of the body.
        HeldReply { held: Option<Held<http::response::Parts, Source<T>>>, is_local: bool },
    }
}

// === impl ResponseFuture ===

impl<S, B, R, T> ResponseFuture<S, B, R>
where
    S: Service<Request<RequestBody<B>>, Response = Response<T>>,
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
        // The clone is not ready; the service that was polled ready goes with the request.
        let mut ready = || {
            let clone = inner.clone();
            Some(std::mem::replace(inner, clone))
        };
        let state = match shown {
            Shown::Forward(request, watched) => {
                State::Inner { future: inner.call(forwarded(request, watched, &stream)) }
            }
            Shown::Local(response) => reply_locally(response),
            Shown::Pending(request) => State::Request { service: ready(), request: Some(request) },
            Shown::Hold(request) => State::HeldRequest {
                service: ready(),
                held: Some(Held::new(request.into_parts(), Direction::Request, false, &stream)),
            },
        };
        Self { state, stream: Some(stream), is_bodiless, responder }
    }
}

impl<S, B, R, T> Future for ResponseFuture<S, B, R>
where
    S: Service<Request<RequestBody<B>>, Response = Response<T>>,
    B: Body,
    B::Error: Into<BoxError>,
    R: Responder,
    T: Body,
    T::Error: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody<T>>, S::Error>;

    /// Polled again after it is ready, it stays pending for ever.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        // From one state to the next, at most.
        let mut locked = None;
        loop {
            let Some(stream) = this.stream.as_mut() else {
                let StateProjection::Inner { future } = this.state.as_mut().project() else {
                    return Poll::Pending;
                };
                return future.poll(cx).map_ok(|response| response.map(ResponseBody::unwatched));
            };
            let next = match this.state.as_mut().project() {
                StateProjection::Request { service, request } => {
                    ready!(poll_request(service, request, stream, this.responder, cx))
                }
                StateProjection::HeldRequest { service, held } => {
                    ready!(poll_held_request(service, held, stream, this.responder, cx))
                }
                StateProjection::Inner { future } => match future.poll(cx) {
                    Poll::Ready(result) => State::Result { result: Some(result) },
                    Poll::Pending => {
                        let mut shared = ready!(stream.poll_lock(cx));
                        let action = ready!(shared.context.poll_interrupt(cx));
                        match local(action, &shared.context, this.responder) {
                            Some(response) => reply_locally(response),
                            None => return Poll::Pending,
                        }
                    }
                },
                StateProjection::Result { result } => {
                    let mut shared = ready!(stream.poll_lock(cx));
                    let refusal = shared.refusal.take();
                    let refusal =
                        refusal.and_then(|refusal| local(*refusal, &shared.context, this.responder));
                    let next = match (refusal, result.take()) {
                        (Some(response), _) => reply_locally(response),
                        (None, Some(Ok(response))) => {
                            let reply = response.map(|body| Source::Upstream { body });
                            State::Reply { reply: Some(reply), is_local: false }
                        }
                        (None, Some(Err(error))) => return Poll::Ready(Err(error)),
                        (None, None) => return Poll::Pending,
                    };
                    locked = Some(shared);
                    next
                }
                StateProjection::Reply { reply, is_local } => {
                    let shared = match locked.take() {
                        Some(shared) => shared,
                        None => ready!(stream.poll_lock(cx)),
                    };
                    let is = (*is_local, *this.is_bodiless);
                    match ready!(poll_reply(reply, is, shared, stream, this.responder, cx)) {
                        Replied::Done(response) => return Poll::Ready(Ok(response)),
                        Replied::Held(held) => State::HeldReply { held: Some(*held), is_local: *is_local },
                    }
                }
                StateProjection::HeldReply { held, is_local } => {
                    return poll_held_reply(held, *is_local, stream, this.responder, cx).map(Ok);
                }
            };
            this.state.set(next);
        }
    }
}

impl<S, B, R> fmt::Debug for ResponseFuture<S, B, R>
where
    S: Service<Request<RequestBody<B>>>,
    S::Response: Reply,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("watched", &self.stream.is_some()).finish_non_exhaustive()
    }
}

/// What showing a response's headers led to.
#[expect(clippy::large_enum_variant, reason = "nearly every response is the larger one, and is moved once")]
enum Replied<T> {
    Done(Response<ResponseBody<T>>),
    Held(Box<Held<http::response::Parts, Source<T>>>),
}

/// Shows a request's headers again after they had to wait.
fn poll_request<S, B, R, F, T, E>(
    service: &mut Option<S>,
    request: &mut Option<Request<B>>,
    stream: &mut StreamHandle,
    responder: &R,
    cx: &mut Context<'_>,
) -> Poll<State<S, B, F, T, E>>
where
    S: Service<Request<RequestBody<B>>, Future = F>,
    B: Body,
    R: Responder,
{
    let mut shared = ready!(stream.poll_lock(cx));
    loop {
        ready!(shared.context.poll_wait(Direction::Request, cx));
        let Some(waiting) = request.take() else { return Poll::Pending };
        match show_request(&mut shared.context, waiting, responder) {
            Shown::Pending(waiting) => *request = Some(waiting),
            Shown::Local(response) => return Poll::Ready(reply_locally(response)),
            Shown::Forward(request, watched) => {
                drop(shared);
                let Some(mut ready) = service.take() else { return Poll::Pending };
                return Poll::Ready(State::Inner { future: ready.call(forwarded(request, watched, stream)) });
            }
            Shown::Hold(request) => {
                drop(shared);
                let held = Held::new(request.into_parts(), Direction::Request, false, stream);
                return Poll::Ready(State::HeldRequest { service: service.take(), held: Some(held) });
            }
        }
    }
}

/// Shows the body of a request whose headers wait for it.
fn poll_held_request<S, B, R, F, T, E>(
    service: &mut Option<S>,
    held: &mut Option<Held<http::request::Parts, B>>,
    stream: &mut StreamHandle,
    responder: &R,
    cx: &mut Context<'_>,
) -> Poll<State<S, B, F, T, E>>
where
    S: Service<Request<RequestBody<B>>, Future = F>,
    B: Body,
    B::Error: Into<BoxError>,
    R: Responder,
{
    let Some(waiting) = held.as_mut() else { return Poll::Pending };
    if let Some(response) = ready!(waiting.poll_request(stream, responder, cx)) {
        return Poll::Ready(reply_locally(response));
    }
    let (Some(mut ready), Some(held)) = (service.take(), held.take()) else { return Poll::Pending };
    Poll::Ready(State::Inner { future: ready.call(held.into_request()) })
}

/// Shows a response's headers.
fn poll_reply<T, R>(
    reply: &mut Option<Response<Source<T>>>,
    (is_local, is_bodiless): (bool, bool),
    mut shared: OwnedMutexGuard<Shared>,
    stream: &StreamHandle,
    responder: &R,
    cx: &mut Context<'_>,
) -> Poll<Replied<T>>
where
    T: Body,
    T::Error: Into<BoxError>,
    R: Responder,
{
    loop {
        ready!(shared.context.poll_wait(Direction::Response, cx));
        let Some(waiting) = reply.take() else { return Poll::Pending };
        let end = is_bodiless || waiting.body().is_end_stream();
        let replied = match show_response(&mut shared.context, waiting, end, responder) {
            Shown::Pending(waiting) => {
                *reply = Some(waiting);
                continue;
            }
            Shown::Forward(response, true) if is_local => {
                drop(shared);
                replied_locally(response, stream, cx)
            }
            Shown::Forward(response, watched) => replied(response, watched, stream),
            Shown::Local(response) => replied(response.map(|bytes| Source::Local { bytes }), false, stream),
            Shown::Hold(response) => {
                let held = Held::new(response.into_parts(), Direction::Response, is_local, stream);
                return Poll::Ready(Replied::Held(Box::new(held)));
            }
        };
        return Poll::Ready(Replied::Done(replied));
    }
}

/// Shows the body of a response whose headers wait for it.
fn poll_held_reply<T, R>(
    held: &mut Option<Held<http::response::Parts, Source<T>>>,
    is_local: bool,
    stream: &mut StreamHandle,
    responder: &R,
    cx: &mut Context<'_>,
) -> Poll<Response<ResponseBody<T>>>
where
    T: Body,
    T::Error: Into<BoxError>,
    R: Responder,
{
    let Some(waiting) = held.as_mut() else { return Poll::Pending };
    if let Some(response) = ready!(waiting.poll_response(stream, responder, cx)) {
        let response = response.map(|bytes| Source::Local { bytes });
        return Poll::Ready(replied(response, false, stream));
    }
    held.take().map_or(Poll::Pending, |held| Poll::Ready(held.into_response(is_local, stream)))
}

fn reply_locally<S, B, F, T, E>(response: Response<Bytes>) -> State<S, B, F, T, E> {
    State::Reply { reply: Some(response.map(|bytes| Source::Local { bytes })), is_local: true }
}

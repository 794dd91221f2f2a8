//! The future of an exchange.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, Request, Response, request, response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::body::{RequestBody, ResponseBody, Source};
use crate::error::BoxError;
use crate::handle::StreamHandle;
use crate::headers_phase::{
    Shown, Watching, folds_end, in_place_of, local, made_here, made_in_place_of, own_reply, replied,
    replied_here, replied_locally, show_request, show_response,
};
use crate::held_message::HeldMessage;
use crate::pending_message::{PendingMessage, Released};
use crate::respond::{Responder, SharedResponder};
use crate::stream::{Direction, StreamContext};

pin_project! {
    /// Takes one exchange through the plugins and the inner service, whose responses have bodies of type `T`.
    ///
    /// # Cancellation
    ///
    /// Dropping it drops the inner future and ends the stream for the plugins that have seen it.
    pub struct ResponseFuture<S, B, T>
    where
        S: Service<Request<RequestBody<B>>>,
    {
        #[pin]
        state: State<S, B, S::Future, T, S::Error>,
        // Absent without plugins.
        stream: Option<StreamHandle>,
        // The response has no body, whatever its headers say; one to HEAD not even a body that is made here.
        is_bodiless: bool,
        is_head: bool,
        responder: SharedResponder,
    }
}

pin_project! {
    // Messages that wait are in boxes: most never do, and the future is moved before it is polled.
    #[project = StateProjection]
    enum State<S, B, F, T, E> {
        // A plugin holds the headers, or all its instances are busy.
        Request { service: Option<S>, request: Option<Box<PendingMessage<request::Parts, B>>> },
        // A plugin holds the headers until it has seen parts of the body.
        HeldRequest { service: Option<S>, held: Option<Box<HeldMessage<request::Parts, B>>> },
        Inner { #[pin] future: F },
        // Another task takes a step with the stream.
        Answered { result: Option<Box<Result<Response<T>, E>>> },
        // A plugin holds the headers.
        Reply { reply: Option<Box<PendingMessage<response::Parts, Source<T>>>>, is_local: bool },
        // A plugin holds the headers until it has seen parts of the body.
        HeldReply { held: Option<Box<HeldMessage<response::Parts, Source<T>>>>, is_local: bool },
        Over,
    }
}

// === impl ResponseFuture ===

impl<S, B, T> ResponseFuture<S, B, T>
where
    S: Service<Request<RequestBody<B>>, Response = Response<T>>,
{
    /// An exchange without plugins.
    pub(crate) fn unwatched(future: S::Future) -> Self {
        Self {
            state: State::Inner { future },
            stream: None,
            is_bodiless: false,
            is_head: false,
            responder: SharedResponder::default(),
        }
    }

    /// Shows the request's headers to the plugins at once; the inner service is cloned if that has to wait.
    pub(crate) fn start(
        mut context: StreamContext,
        inner: &mut S,
        request: Request<B>,
        responder: SharedResponder,
    ) -> Self
    where
        S: Clone,
        B: Body,
    {
        let is_head = *request.method() == Method::HEAD;
        let is_bodiless = is_head || *request.method() == Method::CONNECT;
        let (parts, body) = request.into_parts();
        let end = body.is_end_stream();
        let mut waiting = PendingMessage::new(folds_end(parts.version), parts, body, end);
        let shown = show_request(&mut context, &mut waiting.parts, end, responder.get());
        let mut stream = StreamHandle::new(context);
        // The clone is not ready; the service that was polled ready goes with the request.
        let mut ready = || {
            let clone = inner.clone();
            Some(std::mem::replace(inner, clone))
        };
        let state = match shown {
            Shown::Forward(watching) => match waiting.released(watching, &mut stream) {
                Released::Now(request) => State::Inner { future: inner.call(request) },
                Released::Later(held) => State::HeldRequest { service: ready(), held: Some(held) },
            },
            Shown::Local(response) => reply_locally(response),
            Shown::Pending => State::Request { service: ready(), request: Some(Box::new(waiting)) },
            Shown::Hold => State::HeldRequest {
                service: ready(),
                held: Some(Box::new(waiting.into_held(Direction::Request, &mut stream))),
            },
        };
        Self { state, stream: Some(stream), is_bodiless, is_head, responder }
    }
}

impl<S, B, T> Future for ResponseFuture<S, B, T>
where
    S: Service<Request<RequestBody<B>>, Response = Response<T>>,
    B: Body,
    B::Error: Into<BoxError>,
    T: Body,
    T::Error: Into<BoxError>,
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
                    Next::Go(ready!(poll_request(service, request, stream, this.responder.get(), cx)))
                }
                StateProjection::HeldRequest { service, held } => {
                    Next::Go(ready!(poll_held_request(service, held, stream, this.responder.get(), cx)))
                }
                StateProjection::Inner { future } => match future.poll(cx) {
                    Poll::Ready(result) => {
                        answer(result, *this.is_bodiless, stream, this.responder.get(), cx)
                    }
                    Poll::Pending if !stream.may_be_interrupted() => return Poll::Pending,
                    Poll::Pending => {
                        let mut shared = ready!(stream.poll_lock(cx));
                        let action = ready!(shared.context.poll_interrupt(cx));
                        match local(action, &shared.context, this.responder.get()) {
                            Some(response) => Next::Go(reply_locally(response)),
                            None => return Poll::Pending,
                        }
                    }
                },
                StateProjection::Answered { result } => {
                    let Some(result) = result.take() else { return Poll::Pending };
                    answer(*result, *this.is_bodiless, stream, this.responder.get(), cx)
                }
                StateProjection::Reply { reply, is_local } => {
                    let Some(mut reply) = reply.take() else { return Poll::Pending };
                    reply.end |= *this.is_bodiless;
                    show(*reply, *is_local, stream, this.responder.get(), cx)
                }
                StateProjection::HeldReply { held, is_local } => {
                    Next::Over(Ok(ready!(poll_held_reply(held, *is_local, stream, this.responder.get(), cx))))
                }
                StateProjection::Over => return Poll::Pending,
            };
            match next {
                Next::Go(state) => this.state.set(state),
                Next::Wait(state) => {
                    this.state.set(state);
                    return Poll::Pending;
                }
                Next::Over(result) => {
                    this.state.set(State::Over);
                    return Poll::Ready(result.map(|reply| reply.map(|body| body.sent(*this.is_head))));
                }
            }
        }
    }
}

impl<S, B, T> fmt::Debug for ResponseFuture<S, B, T>
where
    S: Service<Request<RequestBody<B>>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("watched", &self.stream.is_some()).finish_non_exhaustive()
    }
}

/// What follows a step.
enum Next<S, B, F, T, E> {
    /// This state, to be polled at once.
    Go(State<S, B, F, T, E>),
    /// This state, once something has woken the task.
    Wait(State<S, B, F, T, E>),
    Over(Result<Response<ResponseBody<T>>, E>),
}

/// Shows a request's headers again after they had to wait.
fn poll_request<S, B, F, T, E>(
    service: &mut Option<S>,
    request: &mut Option<Box<PendingMessage<request::Parts, B>>>,
    stream: &mut StreamHandle,
    responder: &dyn Responder,
    cx: &mut Context<'_>,
) -> Poll<State<S, B, F, T, E>>
where
    S: Service<Request<RequestBody<B>>, Future = F>,
    B: Body,
    B::Error: Into<BoxError>,
    T: Body,
    T::Error: Into<BoxError>,
{
    let mut shared = ready!(stream.poll_lock(cx));
    let (waiting, shown) = loop {
        let limit = shared.context.gathers(Direction::Request);
        let is_free = shared.context.poll_wait(Direction::Request, cx).is_ready();
        let Some(mut waiting) = request.take() else { return Poll::Pending };
        if let Some(limit) = waiting.limit(limit) {
            *waiting = (*waiting).gather(limit, &shared.context, cx);
        }
        if !is_free && !shared.context.outgrows(Direction::Request, waiting.gathered_bytes()) {
            *request = Some(waiting);
            return Poll::Pending;
        }
        match show_request(&mut shared.context, &mut waiting.parts, waiting.end, responder) {
            Shown::Pending => *request = Some(waiting),
            shown => break (waiting, shown),
        }
    };
    drop(shared);
    let held = match shown {
        Shown::Local(response) => return Poll::Ready(reply_locally(response)),
        Shown::Forward(watching) => match waiting.released(watching, stream) {
            Released::Now(request) => {
                let Some(mut ready) = service.take() else { return Poll::Pending };
                return Poll::Ready(State::Inner { future: ready.call(request) });
            }
            Released::Later(held) => held,
        },
        // What is pending has been shown again.
        Shown::Hold | Shown::Pending => Box::new(waiting.into_held(Direction::Request, stream)),
    };
    Poll::Ready(State::HeldRequest { service: service.take(), held: Some(held) })
}

/// Shows the body of a request whose headers wait for it.
fn poll_held_request<S, B, F, T, E>(
    service: &mut Option<S>,
    held: &mut Option<Box<HeldMessage<request::Parts, B>>>,
    stream: &mut StreamHandle,
    responder: &dyn Responder,
    cx: &mut Context<'_>,
) -> Poll<State<S, B, F, T, E>>
where
    S: Service<Request<RequestBody<B>>, Future = F>,
    B: Body,
    B::Error: Into<BoxError>,
{
    let Some(waiting) = held.as_mut() else { return Poll::Pending };
    if let Some(response) = ready!(waiting.poll_request(stream, responder, cx)) {
        return Poll::Ready(reply_locally(response));
    }
    let (Some(mut ready), Some(held)) = (service.take(), held.take()) else { return Poll::Pending };
    Poll::Ready(State::Inner { future: ready.call(held.into_request()) })
}

/// Shows what the inner service has answered, or what is to be sent instead.
fn answer<S, B, F, T, E>(
    result: Result<Response<T>, E>,
    is_bodiless: bool,
    stream: &mut StreamHandle,
    responder: &dyn Responder,
    cx: &mut Context<'_>,
) -> Next<S, B, F, T, E>
where
    T: Body,
    T::Error: Into<BoxError>,
{
    // A lock that is tried would leave its wait behind, which takes the wake of the next task that waits.
    let Poll::Ready(mut shared) = stream.poll_lock(cx) else {
        return Next::Wait(State::Answered { result: Some(Box::new(result)) });
    };
    let refusal = shared.refusal.take().and_then(|refusal| local(*refusal, &shared.context, responder));
    let ((parts, source), is_local): ((_, Source<T>), _) = match (refusal, result) {
        (Some(response), replaced) => (made_in_place_of(replaced, response), true),
        (None, Ok(response)) => {
            let (mut parts, body) = response.into_parts();
            let own = own_reply(&mut shared.context, &mut parts, &body);
            if own.as_ref().is_some_and(|own| own.is_for_nobody) {
                drop(shared);
                return Next::Over(Ok(replied(parts, Source::Upstream { body }, Watching::No, stream)));
            }
            ((parts, Source::Upstream { body }), own.is_some())
        }
        (None, Err(error)) => {
            drop(shared);
            stream.stop_waiting();
            return Next::Over(Err(error));
        }
    };
    let end = is_bodiless || source.is_end_stream();
    drop(shared);
    let waiting = PendingMessage::new(is_local || folds_end(parts.version), parts, source, end);
    show(waiting, is_local, stream, responder, cx)
}

/// Shows a response's headers.
fn show<S, B, F, T, E>(
    mut waiting: PendingMessage<response::Parts, Source<T>>,
    is_local: bool,
    stream: &mut StreamHandle,
    responder: &dyn Responder,
    cx: &mut Context<'_>,
) -> Next<S, B, F, T, E>
where
    T: Body,
    T::Error: Into<BoxError>,
{
    let Poll::Ready(mut shared) = stream.poll_lock(cx) else {
        return Next::Wait(State::Reply { reply: Some(Box::new(waiting)), is_local });
    };
    let shown = loop {
        // The request may have been answered or failed while its response was waiting.
        let refusal = shared.refusal.take().and_then(|refusal| local(*refusal, &shared.context, responder));
        if let Some(response) = refusal {
            break Shown::Local(in_place_of(std::mem::take(&mut waiting.parts.extensions), response));
        }
        let limit = shared.context.gathers(Direction::Response).filter(|_| !is_local);
        let is_free = shared.context.poll_wait(Direction::Response, cx).is_ready();
        if let Some(limit) = waiting.limit(limit) {
            waiting = waiting.gather(limit, &shared.context, cx);
        }
        if !is_free && !shared.context.outgrows(Direction::Response, waiting.gathered_bytes()) {
            return Next::Wait(State::Reply { reply: Some(Box::new(waiting)), is_local });
        }
        match show_response(&mut shared.context, &mut waiting.parts, waiting.end, responder) {
            Shown::Pending => {}
            shown => break shown,
        }
    };
    let is_unseen = !shared.context.has_shown_response();
    drop(shared);
    Next::Over(Ok(match shown {
        Shown::Forward(Watching::Parts | Watching::Length) if is_local => {
            let (parts, source, relay) = waiting.open(Direction::Response, stream);
            replied_locally(parts, source, relay, stream, cx)
        }
        Shown::Forward(watching) => match waiting.released(watching, stream) {
            Released::Now(response) => response,
            Released::Later(held) => return Next::Go(State::HeldReply { held: Some(held), is_local }),
        },
        Shown::Local(response) if is_unseen => return Next::Go(reply_locally(response)),
        Shown::Local(response) => replied_here(response, stream),
        Shown::Hold | Shown::Pending => {
            let held = Box::new(waiting.into_held(Direction::Response, stream));
            return Next::Go(State::HeldReply { held: Some(held), is_local });
        }
    }))
}

/// Shows the body of a response whose headers wait for it.
fn poll_held_reply<T>(
    held: &mut Option<Box<HeldMessage<response::Parts, Source<T>>>>,
    is_local: bool,
    stream: &mut StreamHandle,
    responder: &dyn Responder,
    cx: &mut Context<'_>,
) -> Poll<Response<ResponseBody<T>>>
where
    T: Body,
    T::Error: Into<BoxError>,
{
    let Some(waiting) = held.as_mut() else { return Poll::Pending };
    if let Some(response) = ready!(waiting.poll_response(stream, responder, cx)) {
        return Poll::Ready(replied_here(response, stream));
    }
    held.take().map_or(Poll::Pending, |held| Poll::Ready(held.into_response(is_local, stream)))
}

fn reply_locally<S, B, F, T, E>(response: Response<Bytes>) -> State<S, B, F, T, E> {
    let (parts, source) = made_here(response);
    let end = matches!(&source, Source::Local { bytes } if bytes.is_empty());
    State::Reply { reply: Some(Box::new(PendingMessage::new(true, parts, source, end))), is_local: true }
}

//! Messages whose headers a plugin holds while it looks at their body.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Request, Response};
use http_body::Body;

use crate::body::{Passed, Relay, RequestBody, ResponseBody, Source};
use crate::error::BoxError;
use crate::handle::StreamHandle;
use crate::respond::Responder;
use crate::show::{local, reset};
use crate::stream::{Action, Direction, StreamContext};

/// A message whose headers wait for its body. The headers are in the stream's hands.
pub(crate) struct Held<P, B> {
    parts: P,
    body: Pin<Box<B>>,
    relay: Relay,
    front: Option<Passed>,
}

// === impl Held ===

impl<P, B> Held<P, B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// Shows the body to the plugins until they let the headers go, or until there is something else to send.
    fn poll_body(
        &mut self,
        stream: &mut StreamHandle,
        responder: &impl Responder,
        cx: &mut Context<'_>,
        direction: Direction,
        take: fn(&mut StreamContext, &mut P) -> Action,
    ) -> Poll<Option<Response<Bytes>>> {
        loop {
            let polled = match &self.front {
                // What passed the plugins waits for the headers; more of it is read when they have left.
                Some(_) => Poll::Pending,
                None => self.relay.poll_frame(self.body.as_mut(), cx),
            };
            if let Poll::Ready(frame) = polled {
                self.front = frame;
            }
            let mut shared = ready!(stream.poll_lock(cx));
            if let Some(refusal) = shared.refusal.take() {
                return Poll::Ready(local(*refusal, &shared.context, responder));
            }
            let action = match take(&mut shared.context, &mut self.parts) {
                // Nothing more comes that could make the guest let them go.
                Action::Hold if matches!(self.front, Some(Err(_))) => shared.context.break_off(direction),
                action => action,
            };
            match action {
                Action::Hold => return Poll::Pending,
                Action::Pending => ready!(shared.context.poll_wait(direction, cx)),
                action => return Poll::Ready(local(action, &shared.context, responder)),
            }
        }
    }
}

impl<P, B> Held<P, B> {
    pub(crate) fn new(
        (parts, body): (P, B),
        direction: Direction,
        is_local: bool,
        stream: &StreamHandle,
    ) -> Self {
        let relay = Relay::new(stream.clone(), direction, is_local);
        Self { parts, body: Box::pin(body), relay, front: None }
    }
}

impl<B> Held<http::request::Parts, B> {
    /// The request, once its headers are let go.
    pub(crate) fn into_request(self) -> Request<RequestBody<B>> {
        let relay = self.relay.declare(&self.parts.headers);
        Request::from_parts(self.parts, RequestBody::begun(self.body, relay, self.front))
    }
}

impl<T> Held<http::response::Parts, Source<T>> {
    /// The response, once its headers are let go; the length of one that is made here is not promised to anybody.
    pub(crate) fn into_response(
        mut self,
        is_local: bool,
        stream: &StreamHandle,
    ) -> Response<ResponseBody<T>> {
        if is_local {
            self.parts.headers.remove(CONTENT_LENGTH);
        }
        let front = reset(&mut self.parts).or(self.front);
        let relay = self.relay.declare(&self.parts.headers);
        let body = ResponseBody::begun(self.body, stream.clone(), relay, front);
        Response::from_parts(self.parts, body)
    }
}

impl<B> Held<http::request::Parts, B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// Waits for the headers of a request; ready with what is to be answered instead of passing it on, if anything is.
    pub(crate) fn poll_request(
        &mut self,
        stream: &mut StreamHandle,
        responder: &impl Responder,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Response<Bytes>>> {
        self.poll_body(stream, responder, cx, Direction::Request, StreamContext::take_request)
    }
}

impl<B> Held<http::response::Parts, B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// Waits for the headers of a response; ready with what is to be sent in its place, if anything is.
    pub(crate) fn poll_response(
        &mut self,
        stream: &mut StreamHandle,
        responder: &impl Responder,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Response<Bytes>>> {
        self.poll_body(stream, responder, cx, Direction::Response, StreamContext::take_response)
    }
}

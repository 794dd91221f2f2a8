//! Messages whose headers wait for what plugins do with their body.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Body;

use crate::body::{BodyError, Passed, Relay, RequestBody, ResponseBody, Source};
use crate::error::BoxError;
use crate::handle::StreamHandle;
use crate::headers_phase::{has_content, in_place_of, local, reset};
use crate::proxy_wasm::remove_header;
use crate::respond::Responder;
use crate::stream::{Action, Direction, StreamContext};

/// A message whose headers wait for its body. The headers are in the stream's hands.
pub(crate) struct HeldMessage<P, B> {
    parts: P,
    body: Pin<Box<B>>,
    relay: Relay,
    front: Option<Passed>,
    awaited: Awaited,
    /// A plugin has written a length of its own.
    is_resized: bool,
}

/// What the headers wait for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// A plugin that holds them.
    Plugin,
    /// The first part that passes the plugins: it shows whether the body keeps the length that they announce.
    Part,
    /// Nothing: they are to leave.
    Nothing,
}

// === impl HeldMessage ===

impl<P, B> HeldMessage<P, B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// Shows the body to the plugins until they let the headers go, or until there is something else to send.
    fn poll_body(
        &mut self,
        stream: &mut StreamHandle,
        responder: &dyn Responder,
        cx: &mut Context<'_>,
        direction: Direction,
        take: fn(&mut StreamContext, &mut P) -> Action,
    ) -> Poll<Option<Response<Bytes>>> {
        loop {
            let polled = match &self.front {
                // What passed the plugins waits for the headers; more of it is read when they have left.
                Some(_) => Poll::Pending,
                None => self.relay.poll_front(self.body.as_mut(), cx),
            };
            if let Poll::Ready(frame) = polled {
                self.front = frame;
                if self.awaited == Awaited::Part {
                    self.awaited = Awaited::Nothing;
                }
            }
            let mut shared = ready!(stream.poll_lock(cx));
            // A response that its plugins have let go is broken off, as if its headers had left.
            let is_let_go = direction == Direction::Response && self.awaited != Awaited::Plugin;
            if let Some(refusal) = shared.refusal.take_if(|_| !is_let_go) {
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
                Action::Continue if self.awaited == Awaited::Part => {
                    if is_let_go {
                        return Poll::Pending;
                    }
                    let action = ready!(shared.context.poll_interrupt(cx));
                    return Poll::Ready(local(action, &shared.context, responder));
                }
                action => {
                    self.is_resized = shared.context.is_resized(direction);
                    if is_let_go && let Some(error) = BodyError::of(&action) {
                        // Behind what has passed before, the relay breaks off.
                        if self.relay.is_done() || !matches!(self.front, Some(Ok(_))) {
                            self.front = Some(Err(error.into()));
                        }
                        return Poll::Ready(None);
                    }
                    return Poll::Ready(local(action, &shared.context, responder));
                }
            }
        }
    }
}

impl<P, B> HeldMessage<P, B> {
    pub(crate) fn new(parts: P, body: Pin<Box<B>>, relay: Relay) -> Self {
        Self { parts, body, relay, front: None, awaited: Awaited::Plugin, is_resized: false }
    }

    /// A message that its plugins have let go, whose headers announce a length.
    pub(crate) fn until_first_part(self) -> Self {
        Self { awaited: Awaited::Part, ..self }
    }

    /// Whether all of the body has passed, and is in front.
    fn is_whole(&self) -> bool {
        self.relay.is_done() && !self.is_broken()
    }

    fn is_broken(&self) -> bool {
        matches!(self.front, Some(Err(_)))
    }

    /// Puts the body's length into headers that have not left, as far as it is known; one that is not is not
    /// promised. What breaks off keeps the length that it does not come to.
    fn announce(&self, headers: &mut HeaderMap) {
        let (is_promised, keeps) = (headers.contains_key(CONTENT_LENGTH), self.relay.keeps_length());
        if self.is_whole() && (is_promised || self.is_resized) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(self.relay.sent()));
        } else if is_promised && !self.is_broken() && (self.is_resized || !keeps) {
            remove_header(headers, &CONTENT_LENGTH);
        }
    }
}

impl<B> HeldMessage<http::request::Parts, B> {
    /// The request, once its headers are let go.
    pub(crate) fn into_request(mut self) -> Request<RequestBody<B>> {
        let mut headers = std::mem::take(&mut self.parts.headers);
        self.announce(&mut headers);
        let relay = self.relay.declare(&headers);
        self.parts.headers = headers;
        Request::from_parts(self.parts, RequestBody::begun(self.body, relay, self.front))
    }
}

impl<T> HeldMessage<http::response::Parts, Source<T>> {
    /// The response, once its headers are let go; one that is made here is promised no length that it may not
    /// have.
    pub(crate) fn into_response(
        mut self,
        is_local: bool,
        stream: &mut StreamHandle,
    ) -> Response<ResponseBody<T>> {
        let status = self.parts.status;
        if !has_content(&mut self.parts, status) {
            let reset = reset(&mut self.parts);
            let body = ResponseBody::whole(Bytes::new(), stream.take());
            return Response::from_parts(self.parts, body.broken_by(reset));
        }
        let mut headers = std::mem::take(&mut self.parts.headers);
        self.announce(&mut headers);
        if is_local && !self.is_whole() {
            remove_header(&mut headers, &CONTENT_LENGTH);
        }
        self.parts.headers = headers;
        let reset = reset(&mut self.parts);
        let relay = self.relay.declare(&self.parts.headers);
        let body = ResponseBody::begun(self.body, stream.take(), relay, self.front);
        Response::from_parts(self.parts, body.broken_by(reset))
    }
}

impl<B> HeldMessage<http::request::Parts, B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// Waits for the headers of a request; ready with what is to be answered instead of passing it on, if
    /// anything is.
    pub(crate) fn poll_request(
        &mut self,
        stream: &mut StreamHandle,
        responder: &dyn Responder,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Response<Bytes>>> {
        self.poll_body(stream, responder, cx, Direction::Request, StreamContext::take_request)
    }
}

impl<B> HeldMessage<http::response::Parts, B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// Waits for the headers of a response; ready with what is to be sent in its place, if anything is.
    pub(crate) fn poll_response(
        &mut self,
        stream: &mut StreamHandle,
        responder: &dyn Responder,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Response<Bytes>>> {
        let found = self.parts.status;
        let replaced =
            ready!(self.poll_body(stream, responder, cx, Direction::Response, StreamContext::take_response));
        has_content(&mut self.parts, found);
        Poll::Ready(replaced.map(|by| in_place_of(std::mem::take(&mut self.parts.extensions), by)))
    }
}

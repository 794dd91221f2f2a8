//! Takes the headers of a message past the plugins.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{Request, Response, StatusCode, request, response};
use http_body::{Body, Frame};

use crate::body::{BodyError, Passed, Relay, RequestBody, ResponseBody, Source};
use crate::error::{BoxError, Cause, Failure};
use crate::handle::StreamHandle;
use crate::respond::Responder;
use crate::stream::{Action, Direction, StreamContext};

/// What showing a message's headers led to.
pub(crate) enum Shown {
    /// It goes on; a plugin looks at its body, or none does.
    Forward {
        watched: bool,
    },
    /// This is sent instead.
    Local(Response<Bytes>),
    Pending,
    Hold,
}

/// Marks a response of which nothing is to be sent: a plugin has closed the stream.
#[derive(Clone)]
struct Reset(Failure);

/// Takes a request's headers past the plugins.
pub(crate) fn show_request(
    context: &mut StreamContext,
    parts: &mut request::Parts,
    end: bool,
    responder: &impl Responder,
) -> Shown {
    let action = context.on_request_headers(parts, end);
    shown(action, context, responder, |context| !end && context.wants_request_body())
}

/// A request as the inner service gets it.
pub(crate) fn forwarded<B>(
    parts: request::Parts,
    body: B,
    watched: bool,
    stream: &StreamHandle,
) -> Request<RequestBody<B>> {
    let body = if watched {
        let relay = Relay::new(stream.clone(), Direction::Request, false);
        RequestBody::watched(body, relay.declare(&parts.headers))
    } else {
        RequestBody::unwatched(body)
    };
    Request::from_parts(parts, body)
}

/// Takes a response's headers past the plugins.
pub(crate) fn show_response(
    context: &mut StreamContext,
    parts: &mut response::Parts,
    end: bool,
    responder: &impl Responder,
) -> Shown {
    let action = context.on_response_headers(parts, end);
    // Behind a switch of protocols there are no messages to look at.
    let has_messages = parts.status != StatusCode::SWITCHING_PROTOCOLS;
    shown(action, context, responder, |context| !end && has_messages && context.wants_response_body())
}

fn shown(
    action: Action,
    context: &StreamContext,
    responder: &impl Responder,
    is_watched: impl FnOnce(&StreamContext) -> bool,
) -> Shown {
    match action {
        Action::Continue => Shown::Forward { watched: is_watched(context) },
        Action::Hold => Shown::Hold,
        Action::Pending => Shown::Pending,
        action => local(action, context, responder).map_or(Shown::Pending, Shown::Local),
    }
}

/// A response that was made here, as the client gets it, once its plugins have seen its body.
///
/// The body is there as a whole: what they make of it at once is what its headers announce. Its length is promised to
/// nobody if they take longer.
pub(crate) fn replied_locally<T>(
    mut parts: response::Parts,
    source: Source<T>,
    stream: &StreamHandle,
    cx: &mut Context<'_>,
) -> Response<ResponseBody<T>>
where
    T: Body,
    T::Error: Into<BoxError>,
{
    let mut source = Box::pin(source);
    let mut relay = Relay::new(stream.clone(), Direction::Response, true);
    let mut front = match relay.poll_frame(source.as_mut(), cx) {
        Poll::Ready(None) => Some(Ok(Frame::data(Bytes::new()))),
        Poll::Ready(front) => front,
        Poll::Pending => None,
    };
    if relay.is_done()
        && let Some(Ok(frame)) = front.take_if(|front| front.as_ref().is_ok_and(Frame::is_data))
    {
        let bytes = frame.into_data().unwrap_or_default();
        if parts.headers.contains_key(CONTENT_LENGTH) {
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        }
        return Response::from_parts(
            parts,
            ResponseBody::new(Source::Local { bytes }, stream.clone(), None, None),
        );
    }
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, ResponseBody::begun(source, stream.clone(), relay, front))
}

/// A response as the client gets it.
pub(crate) fn replied<T>(
    mut parts: response::Parts,
    source: Source<T>,
    watched: bool,
    stream: &StreamHandle,
) -> Response<ResponseBody<T>> {
    let front = reset(&mut parts);
    let relay =
        watched.then(|| Relay::new(stream.clone(), Direction::Response, false).declare(&parts.headers));
    Response::from_parts(parts, ResponseBody::new(source, stream.clone(), relay, front))
}

/// What a body begins with that breaks off before its first byte, if it is to do that.
pub(crate) fn reset(parts: &mut response::Parts) -> Option<Passed> {
    let Reset(failure) = parts.extensions.remove()?;
    // A server must not take it for one that is over.
    parts.headers.remove(CONTENT_LENGTH);
    Some(Err(BodyError::Failed(failure).into()))
}

/// The response a plugin's answer or failure stands for.
pub(crate) fn local(
    action: Action,
    context: &StreamContext,
    responder: &impl Responder,
) -> Option<Response<Bytes>> {
    match action {
        Action::Respond(answer) => Some(answer.into_response(context.is_grpc())),
        Action::Fail(failure) => {
            let mut response = responder.respond(&failure);
            if failure.cause == Cause::Closed {
                response.extensions_mut().insert(Reset(failure));
            }
            Some(response)
        }
        Action::Continue | Action::Hold | Action::Pending => None,
    }
}

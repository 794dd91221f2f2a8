//! Takes the headers of a message past the plugins.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{Extensions, HeaderMap, Request, Response, StatusCode, Version, request, response};
use http_body::{Body, Frame};

use crate::body::{BodyError, Relay, RequestBody, ResponseBody, Source};
use crate::error::{BoxError, Cause, Failure};
use crate::handle::StreamHandle;
use crate::proxy_wasm::remove_header;
use crate::respond::{LocalReply, ReplacedExtensions, Responder};
use crate::stream::{Action, Direction, LocalResponse, StreamContext};

/// What showing a message's headers led to.
pub(crate) enum Shown {
    /// It goes on.
    Forward(Watching),
    /// This is sent instead.
    Local(Response<Bytes>),
    Pending,
    Hold,
}

/// How plugins look at the body of a message that goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watching {
    /// Not at all.
    No,
    /// Not at all, but one may ask for the size of a request whose headers do not tell it.
    Counted,
    Parts,
    /// Its headers announce a length, which the body may not keep: they wait for its first part.
    Length,
    /// Not at all, and nobody gets it: a plugin has made the response one without content.
    Emptied,
}

/// Marks a response of which nothing is to be sent: a plugin has closed the stream.
#[derive(Clone)]
struct Reset(Failure);

/// Takes a request's headers past the plugins.
pub(crate) fn show_request(
    context: &mut StreamContext,
    parts: &mut request::Parts,
    end: bool,
    responder: &dyn Responder,
) -> Shown {
    let action = context.on_request_headers(parts, end);
    shown(action, context, responder, |context| {
        let is_watched = !end && context.wants_request_body();
        let has_length = end || parts.headers.contains_key(CONTENT_LENGTH);
        if !is_watched && !has_length && context.counts_requests() {
            return Watching::Counted;
        }
        watching(context, Direction::Request, is_watched, &parts.headers)
    })
}

/// A request as the inner service gets it.
pub(crate) fn forwarded<B>(
    parts: request::Parts,
    body: B,
    watching: Watching,
    stream: &mut StreamHandle,
) -> Request<RequestBody<B>> {
    let body = match watching {
        Watching::No => RequestBody::unwatched(body),
        Watching::Counted => RequestBody::counted(body, stream.share(Direction::Request)),
        _ => {
            let folds_end = folds_end(parts.version);
            RequestBody::watched(body, Relay::new(stream, Direction::Request, folds_end))
        }
    };
    Request::from_parts(parts, body)
}

/// Takes a response's headers past the plugins.
pub(crate) fn show_response(
    context: &mut StreamContext,
    parts: &mut response::Parts,
    end: bool,
    responder: &dyn Responder,
) -> Shown {
    let status = parts.status;
    let action = context.on_response_headers(parts, end);
    let shown = shown(action, context, responder, |context| {
        if !has_content(parts, status) && parts.status != status {
            return Watching::Emptied;
        }
        // Behind a switch of protocols there are no messages to look at.
        let has_messages = parts.status != StatusCode::SWITCHING_PROTOCOLS;
        let is_watched = !end && has_messages && context.wants_response_body();
        watching(context, Direction::Response, is_watched, &parts.headers)
    });
    match shown {
        Shown::Local(response) => Shown::Local(in_place_of(std::mem::take(&mut parts.extensions), response)),
        shown => shown,
    }
}

/// Whether a response has content, by its status. The length of content that it has not is taken away, but
/// for that of a 304 that was `found` as one: it is what has not changed that is so long.
pub(crate) fn has_content(parts: &mut response::Parts, found: StatusCode) -> bool {
    let is_empty = parts.status == StatusCode::NO_CONTENT;
    let is_unmodified = parts.status == StatusCode::NOT_MODIFIED;
    if is_empty || is_unmodified && found != parts.status {
        remove_header(&mut parts.headers, &CONTENT_LENGTH);
    }
    !is_empty && !is_unmodified
}

/// Whether the frame that is the last of a body says so itself: one of HTTP/1.1 ends behind it.
pub(crate) fn folds_end(version: Version) -> bool {
    version >= Version::HTTP_2
}

fn watching(
    context: &StreamContext,
    direction: Direction,
    is_watched: bool,
    headers: &HeaderMap,
) -> Watching {
    match is_watched {
        false => Watching::No,
        true if headers.contains_key(CONTENT_LENGTH) || context.is_resized(direction) => Watching::Length,
        true => Watching::Parts,
    }
}

fn shown(
    action: Action,
    context: &StreamContext,
    responder: &dyn Responder,
    watching: impl FnOnce(&StreamContext) -> Watching,
) -> Shown {
    match action {
        Action::Continue => Shown::Forward(watching(context)),
        Action::Hold => Shown::Hold,
        Action::Pending => Shown::Pending,
        action => local(action, context, responder).map_or(Shown::Pending, Shown::Local),
    }
}

/// What the inner service says of a response that it has made itself. Plugins are shown how long that is.
pub(crate) fn own_reply(
    context: &mut StreamContext,
    parts: &mut response::Parts,
    body: &impl Body,
) -> Option<LocalReply> {
    let own = parts.extensions.get::<LocalReply>()?.clone();
    context.explain(&own.details, own.flags);
    if let Some(length @ 1..) = body.size_hint().exact() {
        parts.headers.entry(CONTENT_LENGTH).or_insert(HeaderValue::from(length));
    }
    Some(own)
}

/// A response that was made here, as the client gets it, once its plugins have seen its body.
///
/// The body is there as a whole: what they make of it at once is what its headers announce. Its length is
/// promised to nobody if they take longer.
pub(crate) fn replied_locally<T>(
    mut parts: response::Parts,
    mut source: Pin<Box<Source<T>>>,
    mut relay: Relay,
    stream: &mut StreamHandle,
    cx: &mut Context<'_>,
) -> Response<ResponseBody<T>>
where
    T: Body,
    T::Error: Into<BoxError>,
{
    let mut front = match relay.poll_front(source.as_mut(), cx) {
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
        return Response::from_parts(parts, ResponseBody::whole(bytes, stream.take()));
    }
    remove_header(&mut parts.headers, &CONTENT_LENGTH);
    Response::from_parts(parts, ResponseBody::begun(source, stream.take(), relay, front))
}

/// A response as the client gets it.
pub(crate) fn replied<T>(
    mut parts: response::Parts,
    source: Source<T>,
    watching: Watching,
    stream: &mut StreamHandle,
) -> Response<ResponseBody<T>> {
    let reset = reset(&mut parts);
    let body = match watching {
        Watching::No | Watching::Counted => ResponseBody::new(source, stream.take(), None),
        Watching::Parts | Watching::Length => {
            let relay = Relay::new(stream, Direction::Response, folds_end(parts.version));
            ResponseBody::new(source, stream.take(), Some(relay))
        }
        Watching::Emptied => ResponseBody::whole(Bytes::new(), stream.take()),
    };
    Response::from_parts(parts, body.broken_by(reset))
}

/// A response that was made here and that no plugin looks at any more.
pub(crate) fn replied_here<T>(
    response: Response<Bytes>,
    stream: &mut StreamHandle,
) -> Response<ResponseBody<T>> {
    let (parts, source) = made_here(response);
    replied(parts, source, Watching::No, stream)
}

/// Why the response is to break off before its first byte, if it is.
pub(crate) fn reset(parts: &mut response::Parts) -> Option<BoxError> {
    let Reset(failure) = parts.extensions.remove()?;
    // A server must not take it for one that is over.
    parts.headers.remove(CONTENT_LENGTH);
    Some(BodyError::Failed(failure).into())
}

/// The response, which is sent in the place of one with these extensions.
pub(crate) fn in_place_of(mut replaced: Extensions, mut response: Response<Bytes>) -> Response<Bytes> {
    let first = replaced.remove().unwrap_or(ReplacedExtensions(replaced));
    response.extensions_mut().insert(first);
    response
}

/// A response that was made here, and its body.
pub(crate) fn made_here<T>(response: Response<Bytes>) -> (response::Parts, Source<T>) {
    let (mut parts, bytes) = response.into_parts();
    let bytes = if has_content(&mut parts, StatusCode::OK) { bytes } else { Bytes::new() };
    (parts, Source::Local { bytes })
}

/// The same of one that is sent in the place of what the inner service has answered.
pub(crate) fn made_in_place_of<T, E>(
    replaced: Result<Response<T>, E>,
    response: Response<Bytes>,
) -> (response::Parts, Source<T>) {
    made_here(match replaced {
        Ok(replaced) => in_place_of(replaced.into_parts().0.extensions, response),
        Err(_) => response,
    })
}

/// The response a plugin's answer or failure stands for.
pub(crate) fn local(
    action: Action,
    context: &StreamContext,
    responder: &dyn Responder,
) -> Option<Response<Bytes>> {
    match action {
        Action::Respond(mut answer) => {
            let own = LocalReply::of_plugin(std::mem::take(&mut answer.details));
            let mut response = answer.into_response(context.is_grpc());
            response.extensions_mut().insert(own);
            Some(response)
        }
        Action::Fail(failure) => {
            let mut response = responder.respond(&failure);
            if context.is_grpc() {
                response = LocalResponse::of(response).into_response(true);
            }
            if failure.cause == Cause::Closed {
                response.extensions_mut().insert(Reset(failure.clone()));
            }
            if let Some(details) = failure.details() {
                response.extensions_mut().insert(LocalReply::new(details, 0));
            }
            response.extensions_mut().insert(failure);
            Some(response)
        }
        Action::Continue | Action::Hold | Action::Pending | Action::BreakOff(_) => None,
    }
}

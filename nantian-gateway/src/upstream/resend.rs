//! Requests that are sent again, because that is safe.

use std::{error::Error as _, io};

use http::Request;
use http_body::Body as _;
use hyper::client::conn::TrySendError;

use super::{Destination, Unanswered, UpstreamError, http2::Http2, upload::Failure};
use crate::{body::Body, replay::ReplayBuffer};

/// The most bytes of a body that are kept until it is known that the backend has accepted an HTTP/2 stream.
const KEPT: usize = 65_536;

/// How often a request comes back of which nothing was written: connections that are going away may not know
/// it yet.
const RETURNS: u32 = 16;

/// The attempts to send a request over HTTP/2: one, another one if that is safe, and any that nothing is
/// written in.
pub(super) struct Attempt {
    replay: Option<ReplayBuffer>,
    /// The head of the request; there is none once something was written twice.
    copy: Option<Request<Body>>,
    failure: Option<Failure>,
    failed_on: Option<Http2>,
    returns: u32,
}

// === impl Attempt ===

impl Attempt {
    /// Keeps what `request` sends.
    pub(super) fn first(request: &mut Request<Body>) -> Self {
        let replay = ReplayBuffer::of(std::mem::take(request.body_mut()), KEPT);
        let copy = Some(head_of(request));
        if let Some(replay) = &replay {
            *request.body_mut() = replay.next();
        }
        Self { replay, copy, failure: None, failed_on: None, returns: 0 }
    }

    /// Keeps what goes wrong with the body of `request`.
    pub(super) fn begin(&mut self, request: &mut Request<Body>) {
        self.failure = Failure::of(request);
    }

    /// The connection of the last attempt.
    pub(super) fn failed_on(&self) -> Option<&Http2> {
        self.failed_on.as_ref()
    }

    /// The request for another attempt; or the error, if that is not safe.
    ///
    /// It is safe if nothing was written, if the backend says that it has not looked at the request, or if
    /// the request is idempotent, has no body, and a pooled connection died under it.
    pub(super) fn again(
        &mut self,
        destination: &Destination,
        mut error: TrySendError<Request<Body>>,
        connection: Http2,
        is_pooled: bool,
    ) -> Result<Request<Body>, Unanswered> {
        let unsent = error.take_message();
        let error = error.into_error();
        if let Some(source) = self.failure.take().and_then(|failure| failure.take()) {
            return Err(UpstreamError::Upload { destination: destination.to_string(), source }.into());
        }
        self.failed_on = Some(connection);
        if let Some(request) = unsent {
            self.returns += 1;
            if self.returns > RETURNS {
                return Err(Unanswered::unsent(broken(destination, error), request, destination.clone()));
            }
            return Ok(request);
        }
        let Some(mut copy) = self.copy.take() else { return Err(broken(destination, error).into()) };
        match &self.replay {
            Some(replay) if was_refused(&error) && replay.is_whole() => *copy.body_mut() = replay.next(),
            None if was_refused(&error) => {}
            None if is_pooled && copy.method().is_idempotent() && has_died(&error) => {}
            _ => return Err(broken(destination, error).into()),
        }
        // There is no further one that would send it again.
        self.replay = None;
        Ok(copy)
    }
}

/// A copy of a request that may be sent twice.
pub(super) fn repeatable(request: &Request<Body>) -> Option<Request<Body>> {
    let is_repeatable = request.method().is_idempotent() && request.body().is_end_stream();
    is_repeatable.then(|| head_of(request))
}

/// A copy without a body.
fn head_of(request: &Request<Body>) -> Request<Body> {
    let mut copy = Request::new(Body::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// The request to send once more after a pooled connection failed, or the error if that is not safe.
pub(super) fn unsent(
    destination: &Destination,
    mut error: TrySendError<Request<Body>>,
    copy: Option<Request<Body>>,
) -> Result<Request<Body>, UpstreamError> {
    if let Some(request) = error.take_message() {
        return Ok(request);
    }
    let error = error.into_error();
    match copy {
        Some(request) if has_died(&error) => Ok(request),
        _ => Err(broken(destination, error)),
    }
}

/// Whether the connection has ended, or over HTTP/2 the stream, rather than that the backend has said
/// something wrong.
fn has_died(error: &hyper::Error) -> bool {
    let is_of_http2 = || error.source().is_some_and(|source| !source.is::<io::Error>());
    error.is_incomplete_message()
        || error.is_closed()
        || error.is_canceled()
        || was_reset(error)
        || (!error.is_parse() && is_of_http2())
}

/// Whether the backend has told that it has not looked at the request: it has refused the stream, or has gone
/// away before it (RFC 9113, section 8.7). h2 blames a GOAWAY only for streams above the last one that it
/// names.
fn was_refused(error: &hyper::Error) -> bool {
    let error = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    error.is_some_and(|error| {
        let is_refusal = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (error.is_go_away() || is_refusal)
    })
}

/// Whether the backend has closed the connection by a reset, as it does when a request meets its keep-alive
/// timer.
fn was_reset(error: &hyper::Error) -> bool {
    error.source().and_then(|source| source.downcast_ref::<io::Error>()).is_some_and(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted
        )
    })
}

pub(super) fn broken(destination: &Destination, source: hyper::Error) -> UpstreamError {
    UpstreamError::Exchange { destination: destination.to_string(), source }
}

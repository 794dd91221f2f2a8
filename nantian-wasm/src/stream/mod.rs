//! The synchronous core: one stream and the plugins it passes, without a socket or a future.

mod answer;
mod course;
mod exchange;
mod visit;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::lock::OwnedMutexLockFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, request, response};

pub use self::answer::LocalResponse;
use self::answer::is_grpc;
pub use self::exchange::StreamInfo;
pub(crate) use self::exchange::{Content, Direction, Exchange, RequestHead, ResponseHead, Window};
use self::visit::{Course, Member};
use crate::error::Failure;
use crate::plugin::Plugin;
use crate::pool::Cell;

/// A stream on its way through a list of plugins: requests pass first to last, responses last to first.
///
/// Any proxy can drive it: call the `on_*` methods in the order things happen and do what the [`Action`] says. Guests
/// run inside these calls, each within its time limit. Dropping the context ends the stream for its plugins: they log,
/// finish and forget it.
///
/// ```
/// use nantian_wasm::{Action, StreamContext, StreamInfo};
///
/// fn request_filter(stream: &mut StreamContext, mut parts: http::request::Parts) -> Option<http::request::Parts> {
///     match stream.on_request_headers(&mut parts, true) {
///         Action::Continue => Some(parts),
///         Action::Respond(_) | Action::Fail(_) => None,
///         _ => unreachable!("with one instance for each thread none is busy"),
///     }
/// }
/// # let (parts, ()) = http::Request::new(()).into_parts();
/// # assert!(request_filter(&mut StreamContext::new([].into(), StreamInfo::default()), parts).is_some());
/// ```
pub struct StreamContext {
    plugins: Arc<[Plugin]>,
    /// Absent only while it is lent to an instance.
    exchange: Option<Box<Exchange>>,
    /// One for each plugin the request has reached.
    members: Vec<Member>,
    request: Course,
    response: Course,
    is_grpc: bool,
    is_streaming: bool,
    waiting: Option<OwnedMutexLockFuture<Cell>>,
}

/// What becomes of a message after its plugins saw a part of it.
#[derive(Debug)]
#[must_use]
#[non_exhaustive]
pub enum Action {
    /// Pass on what the arguments now hold; body bytes may be none when a plugin holds them back.
    Continue,
    /// Send this instead. In the request's phases, its headers go through
    /// [`on_response_headers`](StreamContext::on_response_headers) first.
    Respond(LocalResponse),
    /// Refuse the stream; once response headers have left, break it off.
    Fail(Failure),
    /// An instance is running another stream's guest on another thread: wait with
    /// [`poll_free`](StreamContext::poll_free), then call the same method with the same arguments again.
    Busy,
}

// === impl StreamContext ===

impl StreamContext {
    /// A stream that no plugin has seen yet.
    pub fn new(plugins: Arc<[Plugin]>, info: StreamInfo) -> Self {
        Self {
            members: Vec::with_capacity(plugins.len()),
            plugins,
            exchange: Some(Box::new(Exchange::new(info))),
            request: Course::default(),
            response: Course::default(),
            is_grpc: false,
            is_streaming: false,
            waiting: None,
        }
    }

    /// Shows the plugins a request's headers, and lets them change `parts`.
    ///
    /// `end_of_stream` says that no body and no trailers follow.
    pub fn on_request_headers(&mut self, parts: &mut request::Parts, end_of_stream: bool) -> Action {
        self.is_grpc = is_grpc(&parts.headers);
        if let Some(exchange) = self.exchange.as_mut() {
            exchange.swap_request(parts);
        }
        let action = self.drive_request_headers(end_of_stream);
        let keep = self.plugins.iter().any(Plugin::needs_request_later);
        if let Some(exchange) = self.exchange.as_mut() {
            exchange.swap_request(parts);
            if keep && !matches!(action, Action::Busy) {
                exchange.keep_request(parts);
            }
        }
        action
    }

    /// Shows the plugins a part of a request's body; `chunk` becomes what is to be passed on now.
    pub fn on_request_body(&mut self, chunk: &mut Bytes, end_of_stream: bool) -> Action {
        self.drive_body(Direction::Request, chunk, end_of_stream, None)
    }

    /// Shows the plugins a request's trailers; `chunk` becomes the bytes to be passed on before them.
    pub fn on_request_trailers(&mut self, chunk: &mut Bytes, trailers: &mut HeaderMap) -> Action {
        self.drive_body(Direction::Request, chunk, false, Some(trailers))
    }

    /// Shows the plugins a response's headers, and lets them change `parts`.
    ///
    /// The response may be upstream's or one that [`Action::Respond`] or [`Action::Fail`] led to.
    pub fn on_response_headers(&mut self, parts: &mut response::Parts, end_of_stream: bool) -> Action {
        if self.response.is_at_start() {
            self.is_streaming = is_streaming(&parts.headers);
        }
        if let Some(exchange) = self.exchange.as_mut() {
            exchange.lend_response(parts);
        }
        let action = self.drive_response_headers(end_of_stream);
        let keep = self.plugins.iter().any(Plugin::reads_exchange);
        if let Some(exchange) = self.exchange.as_mut() {
            exchange.return_response(parts, keep);
        }
        action
    }

    /// Shows the plugins a part of a response's body; `chunk` becomes what is to be passed on now.
    pub fn on_response_body(&mut self, chunk: &mut Bytes, end_of_stream: bool) -> Action {
        self.drive_body(Direction::Response, chunk, end_of_stream, None)
    }

    /// Shows the plugins a response's trailers; `chunk` becomes the bytes to be passed on before them.
    pub fn on_response_trailers(&mut self, chunk: &mut Bytes, trailers: &mut HeaderMap) -> Action {
        self.drive_body(Direction::Response, chunk, false, Some(trailers))
    }

    /// Whether a plugin looks at the request's body; if none does, it need not be shown.
    pub fn wants_request_body(&self) -> bool {
        self.wants_body(Direction::Request)
    }

    /// Whether a plugin looks at the response's body; to be asked after its headers were shown.
    pub fn wants_response_body(&self) -> bool {
        self.wants_body(Direction::Response)
    }

    /// Whether the client speaks gRPC, and wants answers in its form.
    pub fn is_grpc(&self) -> bool {
        self.is_grpc
    }

    /// Waits until the instance that answered [`Action::Busy`] is free.
    ///
    /// # Cancellation
    ///
    /// Not polling it again costs nothing; the stream can be dropped at any time.
    pub fn poll_free(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(waiting) = self.waiting.as_mut() {
            drop(ready!(waiting.poll_unpin(cx)));
            self.waiting = None;
        }
        Poll::Ready(())
    }

    fn wants_body(&self, direction: Direction) -> bool {
        let course = match direction {
            Direction::Request => &self.request,
            Direction::Response => &self.response,
        };
        !course.is_over
            && self
                .members
                .iter()
                .zip(self.plugins.iter())
                .any(|(member, plugin)| member.is_active() && plugin.wants_body(direction, self.is_streaming))
    }
}

impl Drop for StreamContext {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for StreamContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamContext").field("exchange", &self.exchange).finish_non_exhaustive()
    }
}

/// Whether a response is a stream of events whose parts mean something by themselves.
fn is_streaming(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    [&b"text/event-stream"[..], b"application/x-ndjson", b"application/grpc"]
        .iter()
        .any(|streaming| essence.eq_ignore_ascii_case(streaming))
        || is_grpc(headers)
}

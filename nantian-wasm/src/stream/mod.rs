//! The synchronous core: one stream and the plugins it passes, without a socket or a future.

mod active_plugin;
mod answer;
mod body;
mod call;
mod direction;
mod end;
mod events;
mod exchange;
mod fields;
mod filter_state;
mod guest_call;
mod headers;
mod info;
mod memory;
mod notes;
mod plugin_state;
mod release;
mod removed_pseudo_headers;
mod trailers;
mod upstream;
mod wait;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::lock::{Mutex, OwnedMutexGuard};
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Version, request, response};
use smallvec::SmallVec;

use self::active_plugin::{ActivePlugin, MessageState};
pub use self::answer::LocalResponse;
pub(crate) use self::answer::grpc_status_of;
use self::answer::is_grpc;
use self::body::PluginCursor;
use self::call::StreamCalls;
use self::direction::ByDirection;
pub(crate) use self::direction::Direction;
pub(crate) use self::exchange::{Exchange, RequestHead, ResponseHead, SharedExchange};
pub use self::filter_state::FilterState;
pub(crate) use self::guest_call::ReusableFuture;
pub use self::info::{ClientCertificate, StreamInfo};
pub(crate) use self::notes::PendingNotes;
pub(crate) use self::plugin_state::{BodyBuffer, BodyBytes};
pub(crate) use self::removed_pseudo_headers::RemovedPseudoHeaders;
pub use self::upstream::UpstreamAddress;
use self::wait::Wait;
use crate::body::BodyError;
use crate::error::Failure;
use crate::held_bodies::HeldBodies;
use crate::plugin::Plugin;
use crate::proxy_wasm::{MapKind, join, join_cookies, remove_header};

/// A stream on its way through a list of plugins: requests pass first to last, responses last to first.
///
/// Any proxy can drive it: call the `on_*` methods in the order things happen and do what the [`Action`]
/// says. Guests run inside these calls, each within its time limit. Dropping the context ends the stream for
/// its plugins: they log, finish and forget it.
///
/// ```
/// use nantian_wasm::{Action, StreamContext, StreamInfo};
///
/// fn request_filter(stream: &mut StreamContext, mut parts: http::request::Parts) -> Option<http::request::Parts> {
///     match stream.on_request_headers(&mut parts, true) {
///         Action::Continue => Some(parts),
///         // A proxy that cannot wait refuses what its plugins hold; others wait with `poll_request`.
///         _ => None,
///     }
/// }
/// # let (parts, ()) = http::Request::new(()).into_parts();
/// # assert!(request_filter(&mut StreamContext::new([].into(), StreamInfo::default()), parts).is_some());
/// ```
pub struct StreamContext {
    /// Absent while headers are on their way past them: who takes them along has them then.
    plugins: Option<Arc<[Plugin]>>,
    shared: SharedExchange,
    /// Present during a step, and until the next one if no guest wants it meanwhile.
    exchange: Option<OwnedMutexGuard<Exchange>>,
    /// One for each plugin the request has reached.
    active: SmallVec<[ActivePlugin; 1]>,
    messages: ByDirection<MessageState>,
    is_grpc: bool,
    /// The client has asked for a stream of events.
    awaits_events: bool,
    /// Whoever drives the stream writes the lengths of bodies that plugins may change.
    keeps_lengths: bool,
    streaming: Streaming,
    is_event_stream: bool,
    waits: ByDirection<Option<Wait>>,
    calls: StreamCalls,
    /// What the exchange does not know yet.
    pending_notes: PendingNotes,
    /// What its plugins hold of bodies, as the embedder counts it.
    held: Option<HeldBodies>,
    /// The memory of what the last step let go of that.
    passing: Option<HeldBodies>,
}

/// What becomes of a message after its plugins saw a part of it.
#[derive(Debug)]
#[must_use]
#[non_exhaustive]
pub enum Action {
    /// Pass on what the arguments now hold; body bytes may be none when a plugin holds them back.
    Continue,
    /// The headers wait for the body: show its parts, and pass nothing on before
    /// [`take_request`](StreamContext::take_request) or [`take_response`](StreamContext::take_response) gives
    /// the headers.
    Hold,
    /// Send this instead; unless [`has_shown_response`](StreamContext::has_shown_response), show its headers
    /// by [`on_response_headers`](StreamContext::on_response_headers) first.
    Respond(Box<LocalResponse>),
    /// Refuse the stream; once response headers have left, break it off.
    Fail(Failure),
    /// Break this message off: nothing more of it may go on. A plugin has answered or failed the stream in
    /// another step, which has said what to send.
    BreakOff(BodyError),
    /// A plugin holds the message, its guest has used up a slice of time, or its instance is running another
    /// stream's guest: wait with [`poll_request`](StreamContext::poll_request) or
    /// [`poll_response`](StreamContext::poll_response), then call the same method with the same arguments
    /// again. Until then the stream keeps what they held.
    Pending,
}

/// Whether a response is a stream of parts that mean something by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Streaming {
    No,
    /// Its client asks for a stream of events, and it has no length. A client must not choose who looks at a
    /// response: those who look at other responses look at this one too.
    AskedFor,
    /// Its content type says so.
    Declared,
}

// === impl StreamContext ===

impl StreamContext {
    /// A stream that no plugin has seen yet.
    pub fn new(plugins: Arc<[Plugin]>, info: StreamInfo) -> Self {
        Self {
            active: SmallVec::with_capacity(plugins.len()),
            shared: Arc::new(Mutex::new(Exchange::new(info, plugins.len()))),
            plugins: Some(plugins),
            exchange: None,
            messages: ByDirection::default(),
            is_grpc: false,
            awaits_events: false,
            keeps_lengths: false,
            streaming: Streaming::No,
            is_event_stream: false,
            waits: ByDirection::default(),
            calls: StreamCalls::default(),
            pending_notes: PendingNotes::default(),
            held: None,
            passing: None,
        }
    }

    /// Shows the plugins a request's headers, and lets them change `parts`.
    ///
    /// `end_of_stream` says that no body and no trailers follow. Else the headers of a message, be it request
    /// or response, leave without a `content-length` if a plugin looks at the body, which may change it.
    pub fn on_request_headers(&mut self, parts: &mut request::Parts, end_of_stream: bool) -> Action {
        self.step(Direction::Request, |this| {
            if !this.messages.request.has_headers {
                this.messages.request.has_headers = true;
                this.is_grpc = is_grpc(content_type(&parts.headers));
                this.awaits_events =
                    this.plugins().iter().any(Plugin::tells_streams_apart) && accepts_events(&parts.headers);
                if let Some(exchange) = this.exchange.as_mut() {
                    join(&mut parts.headers, MapKind::RequestHeaders);
                    if parts.version >= Version::HTTP_2 {
                        join_cookies(&mut parts.headers);
                    }
                    exchange.lend_request(parts);
                }
            }
            let action = this.drive_headers(Direction::Request, end_of_stream);
            this.return_request(&action, parts, end_of_stream);
            action
        })
    }

    /// Gives the headers of a held request back when every plugin has let them go.
    ///
    /// To be asked after each part of the body that was shown, and after
    /// [`poll_request`](Self::poll_request).
    pub fn take_request(&mut self, parts: &mut request::Parts) -> Action {
        self.step(Direction::Request, |this| {
            let action = this.drive_headers(Direction::Request, false);
            this.return_request(&action, parts, false);
            action
        })
    }

    /// Shows the plugins a part of a request's body; `chunk` becomes what is to be passed on now.
    pub fn on_request_body(&mut self, chunk: &mut Bytes, end_of_stream: bool) -> Action {
        self.on_body(Direction::Request, chunk, end_of_stream, None)
    }

    /// Shows the plugins a request's trailers; `chunk` becomes the bytes to be passed on before them.
    pub fn on_request_trailers(&mut self, chunk: &mut Bytes, trailers: &mut HeaderMap) -> Action {
        self.on_body(Direction::Request, chunk, false, Some(trailers))
    }

    /// Shows the plugins a response's headers, and lets them change `parts`.
    ///
    /// The response may be upstream's or one that [`Action::Respond`] or [`Action::Fail`] led to.
    pub fn on_response_headers(&mut self, parts: &mut response::Parts, end_of_stream: bool) -> Action {
        self.step(Direction::Response, |this| {
            if !this.messages.response.has_headers {
                this.messages.response.has_headers = true;
                let essence = essence(content_type(&parts.headers));
                let is_asked_for = this.awaits_events && !parts.headers.contains_key(CONTENT_LENGTH);
                this.streaming = Streaming::of(essence, is_asked_for);
                // Where events end cannot be seen in a stream that is compressed.
                this.is_event_stream = essence.eq_ignore_ascii_case(EVENT_STREAM)
                    && !parts.headers.contains_key(CONTENT_ENCODING);
                if let Some(exchange) = this.exchange.as_mut() {
                    exchange.streaming = this.streaming;
                    // As in Envoy, what the backend says of its own connection is over before plugins look.
                    remove_header(&mut parts.headers, &KEEP_ALIVE);
                    join(&mut parts.headers, MapKind::ResponseHeaders);
                    exchange.lend_response(parts);
                }
            }
            let action = this.drive_headers(Direction::Response, end_of_stream);
            this.return_response(&action, parts, end_of_stream);
            action
        })
    }

    /// Gives the headers of a held response back when every plugin has let them go.
    ///
    /// To be asked after each part of the body that was shown, and after
    /// [`poll_response`](Self::poll_response).
    pub fn take_response(&mut self, parts: &mut response::Parts) -> Action {
        self.step(Direction::Response, |this| {
            let action = this.drive_headers(Direction::Response, false);
            this.return_response(&action, parts, false);
            action
        })
    }

    /// Shows the plugins a part of a response's body; `chunk` becomes what is to be passed on now.
    pub fn on_response_body(&mut self, chunk: &mut Bytes, end_of_stream: bool) -> Action {
        self.on_body(Direction::Response, chunk, end_of_stream, None)
    }

    /// Shows the plugins a response's trailers; `chunk` becomes the bytes to be passed on before them.
    pub fn on_response_trailers(&mut self, chunk: &mut Bytes, trailers: &mut HeaderMap) -> Action {
        self.on_body(Direction::Response, chunk, false, Some(trailers))
    }

    /// Takes the trailers that plugins have added to a request that has none of its own: to be asked for when
    /// the end of its body was shown, and sent behind it.
    pub fn take_request_trailers(&mut self) -> Option<HeaderMap> {
        self.take_trailers(Direction::Request)
    }

    /// Takes the trailers that plugins have added to a response, as
    /// [`take_request_trailers`](Self::take_request_trailers) does those of a request.
    pub fn take_response_trailers(&mut self) -> Option<HeaderMap> {
        self.take_trailers(Direction::Response)
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

    /// Waits until the request's next step can be taken, after [`Action::Pending`]; and between its parts,
    /// until a plugin lets go what it holds or the request is over: then an empty part is to be shown.
    ///
    /// # Cancellation
    ///
    /// Not polling it again costs nothing; the stream can be dropped at any time.
    pub fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_step(Direction::Request, cx)
    }

    /// Waits until the response's next step can be taken, as [`poll_request`](Self::poll_request) does for
    /// the request; also where no plugin looks at its body, since one may end the stream while it passes.
    pub fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_step(Direction::Response, cx)
    }

    /// Waits until a plugin answers or ends the stream outside of its callbacks, such as when a call-out
    /// returns.
    ///
    /// To be polled while the response is awaited; never ready when no plugin can do so.
    pub fn poll_interrupt(&mut self, cx: &mut Context<'_>) -> Poll<Action> {
        self.poll_interrupted(cx)
    }

    /// Whether the plugins have been shown headers of a response, or are to be shown none.
    pub fn has_shown_response(&self) -> bool {
        let response = &self.messages.response;
        response.has_headers || response.over.is_some()
    }

    /// Whether a plugin may ask for the size of a request when that has passed.
    pub(crate) fn counts_requests(&self) -> bool {
        self.plugins().iter().any(Plugin::reads_properties_of_responses)
    }

    /// Whether a plugin has written a length of its own into the headers of a message that have left the
    /// stream.
    pub(crate) fn is_resized(&self, direction: Direction) -> bool {
        self.messages.get(direction).is_resized
    }

    fn plugins(&self) -> &[Plugin] {
        self.plugins.as_deref().unwrap_or_default()
    }

    fn wants_body(&self, direction: Direction) -> bool {
        self.messages.get(direction).over.is_none()
            && self
                .active
                .iter()
                .zip(self.plugins())
                .any(|(active, plugin)| active.is_active() && plugin.wants_body(direction, self.streaming))
    }
}

impl Drop for StreamContext {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for StreamContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamContext").field("plugins", &self.plugins()).finish_non_exhaustive()
    }
}

// === impl Streaming ===

impl Streaming {
    fn of(essence: &[u8], is_asked_for: bool) -> Self {
        let is_declared = [EVENT_STREAM, b"application/x-ndjson", b"application/grpc"]
            .iter()
            .any(|streaming| essence.eq_ignore_ascii_case(streaming))
            || is_grpc(essence);
        match (is_declared, is_asked_for) {
            (true, _) => Self::Declared,
            (false, true) => Self::AskedFor,
            (false, false) => Self::No,
        }
    }
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

const EVENT_STREAM: &[u8] = b"text/event-stream";

fn content_type(headers: &HeaderMap) -> &[u8] {
    headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes)
}

/// Whether a client asks for a stream of events.
fn accepts_events(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(ACCEPT).iter().map(HeaderValue::as_bytes);
    // Few types have a hyphen, and to look for one is a fraction of the work.
    values.any(|value| value.contains(&b'-') && value.split(|byte| *byte == b',').any(is_events))
}

/// Whether a type is that of a stream of events, whatever its parameters are.
fn is_events(one: &[u8]) -> bool {
    let parts = one.trim_ascii_start().split_at_checked(EVENT_STREAM.len());
    parts.is_some_and(|(name, rest)| {
        let rest = rest.trim_ascii_start();
        name.eq_ignore_ascii_case(EVENT_STREAM) && (rest.is_empty() || rest.starts_with(b";"))
    })
}

/// A content type without its parameters.
fn essence(content_type: &[u8]) -> &[u8] {
    content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

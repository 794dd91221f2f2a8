//! What guests may reach outside their exchange, if the embedder lets them.

use std::fmt;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::lock::Mutex;
use http::{HeaderMap, Request, Response, StatusCode};

use crate::callout_limits::CalloutPermit;
use crate::inbox::Job;
use crate::pool::Slot;
use crate::stream::Exchange;

/// Largest response body of a call-out that reaches a guest, in bytes.
const MAX_RESPONSE_BODY: usize = 4 << 20;

/// Statuses of gRPC that calls are closed with here.
const RESOURCE_EXHAUSTED: u32 = 8;
const UNAVAILABLE: u32 = 14;

/// The embedder's side of call-outs and foreign functions; every method has a default that refuses.
///
/// A guest is running while these methods are called, on whichever thread it runs: they must start what is
/// asked for and return. Replies may come later from any thread, which runs the guest if it
/// [may](Host::may_run_guests), or else leaves the reply to whoever does.
pub trait Host: Send + Sync + 'static {
    /// Whether a thread that brings a reply runs the guest, if its instance is free: for a slice of a
    /// millisecond or two.
    ///
    /// Where it must not, because it brings the replies of many plugins, the task of the stream runs the
    /// guest that has called out and waits, or else [`Engine::maintain`](crate::Engine::maintain) does in its
    /// next round. Default: it runs it.
    fn may_run_guests(&self) -> bool {
        true
    }

    /// Sends a request to `call.upstream` and gives the outcome to `reply`; dropping `reply` counts as
    /// [`CallFailure::Unreachable`].
    ///
    /// # Errors
    ///
    /// [`CallError`] when nothing was sent.
    fn http_call(&self, plugin: &str, call: HttpCall, reply: HttpReply) -> Result<(), CallError> {
        let _ = (plugin, call, reply);
        Err(CallError::Unavailable)
    }

    /// Opens a gRPC call to `call.upstream`; dropping the returned stream cancels it.
    ///
    /// # Errors
    ///
    /// [`CallError`] when nothing was opened.
    fn grpc_call(
        &self,
        plugin: &str,
        call: GrpcCall,
        replies: GrpcReplies,
    ) -> Result<Box<dyn GrpcStream>, CallError> {
        let _ = (plugin, call, replies);
        Err(CallError::Unavailable)
    }

    /// Answers `proxy_call_foreign_function`; none when there is no function of this name.
    fn foreign_function(
        &self,
        plugin: &str,
        name: &str,
        arguments: &[u8],
    ) -> Option<Result<Vec<u8>, ForeignError>> {
        let _ = (plugin, name, arguments);
        None
    }
}

/// Refuses everything: the host of plugins without network.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct NoHost;

/// An HTTP request a guest wants to be sent.
#[derive(Debug)]
#[non_exhaustive]
pub struct HttpCall {
    /// Name of the upstream, as the guest gave it.
    pub upstream: String,
    /// The request: method, path and authority are there, framing headers are not.
    pub request: Request<Bytes>,
    /// Trailers to be sent after the body.
    pub trailers: HeaderMap,
    /// Time until the whole response must be there. Range: 1 ms to 60 s.
    pub timeout: Duration,
}

/// A gRPC call a guest wants to be made.
#[derive(Debug)]
#[non_exhaustive]
pub struct GrpcCall {
    /// Name of the upstream, as the guest gave it.
    pub upstream: String,
    /// Full name of the service.
    pub service: String,
    /// Name of the method.
    pub method: String,
    /// Metadata to be sent with the request.
    pub metadata: HeaderMap,
    /// The one message of a unary call; none opens a stream.
    pub message: Option<Bytes>,
    /// Time until a unary call must be over; none for streams.
    pub timeout: Option<Duration>,
}

/// The sending half of a gRPC call.
pub trait GrpcStream: Send {
    /// Sends a message.
    fn send(&mut self, message: Bytes);
    /// Says that no message follows.
    fn close(&mut self);
}

/// Why a call-out was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The plugin may not call an upstream of this name, or there is none.
    #[error("unknown upstream")]
    UnknownUpstream,
    /// Call-outs are not available now.
    #[error("call-outs are not available")]
    Unavailable,
}

/// How a call-out ended without a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallFailure {
    /// The response did not come in time: the guest sees status 504.
    #[error("timed out")]
    Timeout,
    /// No connection could be made: the guest sees status 503.
    #[error("no connection")]
    Unreachable,
    /// The upstream has no endpoint that could be asked: the guest sees status 503.
    #[error("no endpoint")]
    NoEndpoint,
    /// The response broke off or was too large: the guest sees no headers at all.
    #[error("reset")]
    Reset,
}

/// Why a foreign function gave no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForeignError {
    /// The arguments are not what the function takes.
    #[error("bad argument")]
    BadArgument,
    /// The arguments are not in the form that the function reads: the guest sees a failure of serialization.
    #[error("unreadable argument")]
    Unreadable,
    /// The function did not succeed.
    #[error("internal failure")]
    Failed,
}

/// A complete response to a call-out.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpCallResponse {
    /// Status, headers and body.
    pub response: Response<Bytes>,
    /// Trailers, if any.
    pub trailers: HeaderMap,
}

/// Where the outcome of an HTTP call-out goes.
pub struct HttpReply {
    address: ReplyAddress,
    is_sent: bool,
}

/// Where what happens on a gRPC call goes. Dropping it closes the call with status 14 (unavailable), unless
/// it was closed.
///
/// A guest that leaves too much of it lying about loses the call: it is closed with status 8 (resource
/// exhausted).
pub struct GrpcReplies {
    address: ReplyAddress,
    is_closed: AtomicBool,
}

/// What can happen on a gRPC call.
#[derive(Debug)]
pub(crate) enum GrpcEvent {
    InitialMetadata(Option<StatusCode>, HeaderMap),
    Message(Bytes),
    TrailingMetadata(Option<StatusCode>, HeaderMap),
    Close { status: u32, message: String },
}

/// Which call of which instance.
pub(crate) struct ReplyAddress {
    pub(crate) slot: Weak<Slot>,
    pub(crate) generation: u64,
    pub(crate) id: u32,
    /// Free for another call when nothing more of this one can come.
    pub(crate) permit: CalloutPermit,
    pub(crate) runner: ReplyRunner,
}

/// Who runs the guest when there is something for it.
pub(crate) enum ReplyRunner {
    /// Whoever brings it.
    Bringer,
    /// The task of this stream, or else upkeep.
    Stream(Weak<Mutex<Exchange>>),
}

// === impl NoHost ===

impl Host for NoHost {}

// === impl HttpCall ===

impl HttpCall {
    pub(crate) fn new(
        upstream: String,
        request: Request<Bytes>,
        trailers: HeaderMap,
        timeout: Duration,
    ) -> Self {
        Self { upstream, request, trailers, timeout }
    }
}

// === impl HttpCallResponse ===

impl HttpCallResponse {
    /// A response and the trailers behind it.
    pub fn new(response: Response<Bytes>, trailers: HeaderMap) -> Self {
        Self { response, trailers }
    }

    /// Bytes it takes.
    pub(crate) fn weight(&self) -> usize {
        let headers = weight(self.response.headers()).saturating_add(weight(&self.trailers));
        self.response.body().len().saturating_add(headers)
    }
}

// === impl GrpcEvent ===

impl GrpcEvent {
    /// Bytes it takes.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::InitialMetadata(_, metadata) | Self::TrailingMetadata(_, metadata) => weight(metadata),
            Self::Message(message) => message.len(),
            Self::Close { message, .. } => message.len(),
        }
    }
}

/// Bytes of header names and values, and of the entries that keep them.
fn weight(headers: &HeaderMap) -> usize {
    const ENTRY: usize = 64;
    headers.iter().map(|(name, value)| ENTRY + name.as_str().len() + value.len()).sum()
}

// === impl HttpReply ===

impl HttpReply {
    pub(crate) fn new(address: ReplyAddress) -> Self {
        Self { address, is_sent: false }
    }

    /// Notes that so many bytes of the response have been read by now. False if all that the plugin's
    /// call-outs have read and are to send is more than 64 MiB then: this one is to end, by
    /// [`CallFailure::Reset`].
    pub fn holds(&self, bytes: usize) -> bool {
        self.address.permit.holds(bytes)
    }

    /// Hands the outcome to the guest. Runs it here when its instance is free, if its host
    /// [lets it](Host::may_run_guests).
    pub fn send(mut self, outcome: Result<HttpCallResponse, CallFailure>) {
        self.post(outcome);
    }

    fn post(&mut self, outcome: Result<HttpCallResponse, CallFailure>) {
        self.is_sent = true;
        let outcome = match outcome {
            Ok(response) if response.response.body().len() > MAX_RESPONSE_BODY => Err(CallFailure::Reset),
            outcome => outcome,
        };
        self.address.post(|id| Job::HttpReply { id, outcome: outcome.map(Box::new) });
    }
}

impl Drop for HttpReply {
    fn drop(&mut self) {
        if !self.is_sent {
            self.post(Err(CallFailure::Unreachable));
        }
    }
}

impl fmt::Debug for HttpReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpReply").field("id", &self.address.id).finish_non_exhaustive()
    }
}

// === impl GrpcReplies ===

impl GrpcReplies {
    pub(crate) fn new(address: ReplyAddress) -> Self {
        Self { address, is_closed: AtomicBool::new(false) }
    }

    /// Notes that so many bytes have been read of a message that is not yet complete. False if that is too
    /// much, as for
    /// [`HttpReply::holds`]: the call is to end.
    pub fn holds(&self, bytes: usize) -> bool {
        self.address.permit.holds(bytes)
    }

    /// The server's initial metadata, with the status of their response: the guest sees it as `:status`.
    pub fn initial_metadata(&self, status: Option<StatusCode>, metadata: HeaderMap) {
        self.post(GrpcEvent::InitialMetadata(status, metadata));
    }

    /// A message of the server. Unary calls end with it.
    pub fn message(&self, message: Bytes) {
        self.post(GrpcEvent::Message(message));
    }

    /// The server's trailing metadata; with a status where they are all that there is of a response.
    pub fn trailing_metadata(&self, status: Option<StatusCode>, metadata: HeaderMap) {
        self.post(GrpcEvent::TrailingMetadata(status, metadata));
    }

    /// The call is over, with this gRPC status.
    pub fn close(self, status: u32, message: impl Into<String>) {
        self.end(status, message.into());
    }

    fn post(&self, event: GrpcEvent) {
        let is_open = !self.is_closed.load(Ordering::Relaxed);
        if is_open && !self.address.post(|id| Job::Grpc { id, event: Box::new(event) }) {
            self.end(RESOURCE_EXHAUSTED, String::new());
        }
    }

    fn end(&self, status: u32, message: String) {
        if !self.is_closed.swap(true, Ordering::Relaxed) {
            self.address.post(|id| Job::Grpc { id, event: Box::new(GrpcEvent::Close { status, message }) });
        }
    }
}

impl Drop for GrpcReplies {
    fn drop(&mut self) {
        self.end(UNAVAILABLE, String::new());
    }
}

impl fmt::Debug for GrpcReplies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcReplies").field("id", &self.address.id).finish_non_exhaustive()
    }
}

// === impl ReplyAddress ===

impl ReplyAddress {
    /// False when the instance has no room for it.
    fn post(&self, job: impl FnOnce(u32) -> Job) -> bool {
        let Some(slot) = self.slot.upgrade() else { return true };
        let is_posted = slot.post(self.generation, job(self.id));
        match &self.runner {
            ReplyRunner::Bringer => slot.settle(),
            ReplyRunner::Stream(exchange) => {
                let exchange = exchange.upgrade();
                // Whoever has it now looks for what has come before it waits.
                if let Some(mut exchange) = exchange.as_ref().and_then(|exchange| exchange.try_lock()) {
                    exchange.wake();
                }
            }
        }
        is_posted
    }
}

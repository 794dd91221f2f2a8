//! Where the outcome of a call-out goes.

use std::fmt;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::lock::Mutex;
use http::{HeaderMap, StatusCode};

use super::{CallFailure, HttpCallResponse, weight};
use crate::callout_limits::CalloutPermit;
use crate::inbox::Job;
use crate::pool::Slot;
use crate::stream::Exchange;

/// Largest response body of a call-out that reaches a guest, in bytes.
const MAX_RESPONSE_BODY: usize = 4 << 20;

/// Statuses of gRPC that calls are closed with here.
const RESOURCE_EXHAUSTED: u32 = 8;
const UNAVAILABLE: u32 = 14;

/// Where the outcome of an HTTP call-out goes.
pub struct HttpReply {
    /// Gone once the outcome is there.
    to: Option<Recipient<dyn FnOnce(Outcome) + Send + Sync>>,
}

/// Who hears of a call-out.
enum Recipient<F: ?Sized> {
    Guest(ReplyAddress),
    Function(Box<F>),
}

type Outcome = Result<HttpCallResponse, CallFailure>;

/// Where what happens on a gRPC call goes. Dropping it closes the call with status 14 (unavailable), unless
/// it was closed.
///
/// A guest that leaves too much of it lying about loses the call: it is closed with status 8 (resource
/// exhausted).
pub struct GrpcReplies {
    to: Recipient<dyn Fn(GrpcEvent) + Send + Sync>,
    is_closed: AtomicBool,
}

/// What can happen on a gRPC call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GrpcEvent {
    /// See [`GrpcReplies::initial_metadata`].
    InitialMetadata(Option<StatusCode>, HeaderMap),
    /// See [`GrpcReplies::message`].
    Message(Bytes),
    /// See [`GrpcReplies::trailing_metadata`].
    TrailingMetadata(Option<StatusCode>, HeaderMap),
    /// See [`GrpcReplies::close`].
    Close {
        /// The gRPC status.
        status: u32,
        /// What it says besides.
        message: String,
    },
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

// === impl Recipient ===

impl<F: ?Sized> Recipient<F> {
    fn address(&self) -> Option<&ReplyAddress> {
        match self {
            Self::Guest(address) => Some(address),
            Self::Function(_) => None,
        }
    }

    /// Whether what has been read by now may be.
    fn holds(&self, bytes: usize) -> bool {
        self.address().is_none_or(|address| address.permit.holds(bytes))
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

// === impl HttpReply ===

impl HttpReply {
    /// One that hands the outcome to a function: to ask a [`Host`](super::Host) directly, as tests do.
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use nantian_wasm::host::{CallFailure, HttpReply};
    ///
    /// let (sender, outcome) = mpsc::channel();
    /// let reply = HttpReply::new(move |outcome| sender.send(outcome).unwrap());
    /// drop(reply);
    /// assert_eq!(outcome.recv().unwrap().unwrap_err(), CallFailure::Unreachable);
    /// ```
    pub fn new(function: impl FnOnce(Result<HttpCallResponse, CallFailure>) + Send + Sync + 'static) -> Self {
        Self { to: Some(Recipient::Function(Box::new(function))) }
    }

    pub(crate) fn to_guest(address: ReplyAddress) -> Self {
        Self { to: Some(Recipient::Guest(address)) }
    }

    /// Notes that so many bytes of the response have been read by now. False if all that the plugin's
    /// call-outs have read and are to send is more than 64 MiB then: this one is to end, by
    /// [`CallFailure::Reset`].
    pub fn holds(&self, bytes: usize) -> bool {
        self.to.as_ref().is_none_or(|to| to.holds(bytes))
    }

    /// Hands the outcome to the guest. Runs it here when its instance is free, if its host
    /// [lets it](super::Host::may_run_guests).
    pub fn send(mut self, outcome: Result<HttpCallResponse, CallFailure>) {
        self.post(outcome);
    }

    fn post(&mut self, outcome: Outcome) {
        let outcome = match outcome {
            Ok(response) if response.response.body().len() > MAX_RESPONSE_BODY => Err(CallFailure::Reset),
            outcome => outcome,
        };
        match self.to.take() {
            Some(Recipient::Guest(address)) => {
                address.post(|id| Job::HttpReply { id, outcome: outcome.map(Box::new) });
            }
            Some(Recipient::Function(function)) => function(outcome),
            None => {}
        }
    }
}

impl Drop for HttpReply {
    fn drop(&mut self) {
        self.post(Err(CallFailure::Unreachable));
    }
}

impl fmt::Debug for HttpReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.to.as_ref().and_then(Recipient::address).map(|address| address.id);
        f.debug_struct("HttpReply").field("id", &id).finish_non_exhaustive()
    }
}

// === impl GrpcReplies ===

impl GrpcReplies {
    /// Those of a call whose events are handed to a function: to ask a [`Host`](super::Host) directly, as
    /// tests do.
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use nantian_wasm::host::{GrpcEvent, GrpcReplies};
    ///
    /// let (sender, events) = mpsc::channel();
    /// let replies = GrpcReplies::new(move |event| sender.send(event).unwrap());
    /// replies.message("hello".into());
    /// drop(replies);
    /// let closed = GrpcEvent::Close { status: 14, message: String::new() };
    /// assert_eq!(events.iter().collect::<Vec<_>>(), [GrpcEvent::Message("hello".into()), closed]);
    /// ```
    pub fn new(function: impl Fn(GrpcEvent) + Send + Sync + 'static) -> Self {
        Self { to: Recipient::Function(Box::new(function)), is_closed: AtomicBool::new(false) }
    }

    pub(crate) fn to_guest(address: ReplyAddress) -> Self {
        Self { to: Recipient::Guest(address), is_closed: AtomicBool::new(false) }
    }

    /// Notes that so many bytes have been read of a message that is not yet complete. False if that is too
    /// much, as for
    /// [`HttpReply::holds`]: the call is to end.
    pub fn holds(&self, bytes: usize) -> bool {
        self.to.holds(bytes)
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
        if is_open && !self.deliver(event) {
            self.end(RESOURCE_EXHAUSTED, String::new());
        }
    }

    fn end(&self, status: u32, message: String) {
        if !self.is_closed.swap(true, Ordering::Relaxed) {
            self.deliver(GrpcEvent::Close { status, message });
        }
    }

    /// False when the guest's instance has no room for it.
    fn deliver(&self, event: GrpcEvent) -> bool {
        match &self.to {
            Recipient::Guest(address) => address.post(|id| Job::Grpc { id, event: Box::new(event) }),
            Recipient::Function(function) => {
                function(event);
                true
            }
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
        let id = self.to.address().map(|address| address.id);
        f.debug_struct("GrpcReplies").field("id", &id).finish_non_exhaustive()
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

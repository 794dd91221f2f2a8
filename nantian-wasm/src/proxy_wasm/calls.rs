//! Call-outs under way, and what arrived for the guest to look at.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::abi::MapKind;
use super::headers::Fields;
use super::joined::join;
use crate::host::{CallFailure, GrpcStream, HttpCallResponse, unless_it_panics};

/// What the ids of one kind of call have in common, and their distance: as in Envoy.
const HTTP_KIND: u32 = 0;
const GRPC_CALL_KIND: u32 = 1;
const GRPC_STREAM_KIND: u32 = 2;
const KINDS: u32 = 3;
const STEP: u32 = 4;

/// `BrokenConnection`: what `proxy_get_status` says of a call that was reset.
const BROKEN_CONNECTION: u32 = 11;

/// Call-outs of one instance that have not ended.
#[derive(Default)]
pub(crate) struct Calls {
    /// The context each HTTP call was made for.
    http: HashMap<u32, u32>,
    grpc: HashMap<u32, Grpc>,
    /// How many of each context: none has zero.
    of_context: HashMap<u32, usize>,
    last: [u32; 3],
}

struct Grpc {
    context: u32,
    stream: Option<Box<dyn GrpcStream>>,
}

/// Which kind of call an id stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallKind {
    Http,
    GrpcCall,
    GrpcStream,
}

/// What the running callback was called for.
#[derive(Default)]
pub(crate) struct Received {
    call: Option<Response>,
    initial: Option<Metadata>,
    trailing: Option<Metadata>,
    message: Bytes,
    /// What `proxy_get_status` answers.
    pub(crate) status: u32,
    pub(crate) status_message: String,
}

/// Metadata of a gRPC call, and the status of the response whose headers they are.
type Metadata = (Option<StatusCode>, HeaderMap);

struct Response {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    trailers: HeaderMap,
}

// === impl CallKind ===

impl CallKind {
    pub(crate) fn of(id: u32) -> Option<Self> {
        match id & KINDS {
            HTTP_KIND => Some(Self::Http),
            GRPC_CALL_KIND => Some(Self::GrpcCall),
            GRPC_STREAM_KIND => Some(Self::GrpcStream),
            _ => None,
        }
    }

    fn code(self) -> u32 {
        match self {
            Self::Http => HTTP_KIND,
            Self::GrpcCall => GRPC_CALL_KIND,
            Self::GrpcStream => GRPC_STREAM_KIND,
        }
    }
}

// === impl Calls ===

impl Calls {
    /// Calls that were made for a context and have not ended.
    pub(crate) fn count(&self, context: u32) -> usize {
        self.of_context.get(&context).copied().unwrap_or(0)
    }

    /// Whether none is under way.
    pub(crate) fn are_over(&self) -> bool {
        self.of_context.is_empty()
    }

    /// The id of the next call of a kind.
    pub(crate) fn next_id(&mut self, kind: CallKind) -> u32 {
        let code = kind.code();
        let Some(last) = usize::try_from(code).ok().and_then(|index| self.last.get_mut(index)) else {
            return code;
        };
        *last = last.wrapping_add(STEP);
        *last | code
    }

    pub(crate) fn insert_http(&mut self, id: u32, context: u32) {
        self.http.insert(id, context);
        *self.of_context.entry(context).or_default() += 1;
    }

    /// The context a call was made for, while it is under way.
    pub(crate) fn context_of(&self, id: u32) -> Option<u32> {
        self.http.get(&id).copied().or_else(|| self.grpc.get(&id).map(|call| call.context))
    }

    /// Ends an HTTP call; none when it had ended.
    pub(crate) fn remove_http(&mut self, id: u32) -> bool {
        let context = self.http.remove(&id);
        self.end(context)
    }

    pub(crate) fn insert_grpc(&mut self, id: u32, context: u32) {
        self.grpc.insert(id, Grpc { context, stream: None });
        *self.of_context.entry(context).or_default() += 1;
    }

    /// Keeps the sending half of a call, unless the call has ended already.
    pub(crate) fn open_grpc(&mut self, id: u32, stream: Box<dyn GrpcStream>) {
        match self.grpc.get_mut(&id) {
            Some(call) => call.stream = Some(stream),
            None => cancel(stream),
        }
    }

    pub(crate) fn has_grpc(&self, id: u32) -> bool {
        self.grpc.contains_key(&id)
    }

    pub(crate) fn grpc_stream(&mut self, id: u32) -> Option<&mut Box<dyn GrpcStream>> {
        self.grpc.get_mut(&id)?.stream.as_mut()
    }

    /// Ends a gRPC call, which cancels it if it was under way; false when it had ended.
    pub(crate) fn remove_grpc(&mut self, id: u32) -> bool {
        let context = self.grpc.remove(&id).map(|call| call.context);
        self.end(context)
    }

    /// Notes that a call of this context has ended; false when there was none.
    fn end(&mut self, context: Option<u32>) -> bool {
        let Some(context) = context else { return false };
        if let Entry::Occupied(mut count) = self.of_context.entry(context) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        true
    }
}

// === impl Grpc ===

impl Drop for Grpc {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            cancel(stream);
        }
    }
}

/// Drops the sending half of a call, which is the embedder's.
fn cancel(stream: Box<dyn GrpcStream>) {
    unless_it_panics(|| drop(stream));
}

// === impl Received ===

impl Received {
    /// The outcome of an HTTP call; what Envoy answers itself for calls that fail looks as it does there.
    pub(crate) fn of_call(outcome: Result<HttpCallResponse, CallFailure>) -> Self {
        let response = match outcome {
            Ok(HttpCallResponse { response, mut trailers }) => {
                let (mut parts, body) = response.into_parts();
                join(&mut parts.headers, MapKind::ResponseHeaders);
                join(&mut trailers, MapKind::ResponseTrailers);
                Response { status: parts.status, headers: parts.headers, body, trailers }
            }
            Err(CallFailure::Timeout) => {
                Response::local(StatusCode::GATEWAY_TIMEOUT, "upstream request timeout")
            }
            Err(CallFailure::Unreachable) => Response::local(
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream connect error or disconnect/reset before headers. \
                 reset reason: remote connection failure",
            ),
            Err(CallFailure::Disconnected) => Response::local(
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream connect error or disconnect/reset before headers. \
                 reset reason: connection termination",
            ),
            Err(CallFailure::NoEndpoint) => {
                Response::local(StatusCode::SERVICE_UNAVAILABLE, "no healthy upstream")
            }
            Err(CallFailure::Reset) => {
                return Self {
                    status: BROKEN_CONNECTION,
                    status_message: "reset".to_owned(),
                    ..Self::default()
                };
            }
        };
        Self { call: Some(response), ..Self::default() }
    }

    pub(crate) fn of_initial_metadata(status: Option<StatusCode>, mut metadata: HeaderMap) -> Self {
        join(&mut metadata, MapKind::ResponseHeaders);
        Self { initial: Some((status, metadata)), ..Self::default() }
    }

    pub(crate) fn of_trailing_metadata(status: Option<StatusCode>, mut metadata: HeaderMap) -> Self {
        let is_head = status.is_some();
        join(&mut metadata, if is_head { MapKind::ResponseHeaders } else { MapKind::ResponseTrailers });
        Self { trailing: Some((status, metadata)), ..Self::default() }
    }

    pub(crate) fn of_message(message: Bytes) -> Self {
        Self { message, ..Self::default() }
    }

    pub(crate) fn of_close(status: u32, message: String) -> Self {
        Self { status, status_message: message, ..Self::default() }
    }

    pub(crate) fn fields<'a>(&'a self, kind: MapKind) -> Option<Fields<'a>> {
        let call = self.call.as_ref();
        let metadata = |(status, metadata): &'a Metadata| match status {
            Some(status) => Fields::Response(status, metadata),
            None => Fields::Plain(metadata),
        };
        match kind {
            MapKind::CallHeaders => call.map(|call| Fields::Response(&call.status, &call.headers)),
            MapKind::CallTrailers => {
                call.map(|call| &call.trailers).filter(|trailers| !trailers.is_empty()).map(Fields::Plain)
            }
            MapKind::GrpcInitial => self.initial.as_ref().map(metadata),
            MapKind::GrpcTrailing => self.trailing.as_ref().map(metadata),
            _ => None,
        }
    }

    pub(crate) fn count(&self, kind: MapKind) -> u32 {
        let count = self.fields(kind).map_or(0, Fields::count);
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    pub(crate) fn call_body(&self) -> Option<&[u8]> {
        self.call.as_ref().map(|call| &*call.body)
    }

    pub(crate) fn message(&self) -> &[u8] {
        &self.message
    }
}

// === impl Response ===

impl Response {
    /// What stands in for a response that did not come.
    fn local(status: StatusCode, text: &'static str) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        Self { status, headers, body: Bytes::from_static(text.as_bytes()), trailers: HeaderMap::new() }
    }
}

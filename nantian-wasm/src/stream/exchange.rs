//! One HTTP exchange as its plugins see it.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Uri, Version, request, response};

use super::answer::LocalResponse;
use crate::error::{Cause, Phase};

/// What the embedder knows about a stream and its messages do not say.
///
/// The layer takes it from the request's extensions; absent, nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamInfo {
    /// The client's address: `source.address`, `source.port`.
    pub source: Option<SocketAddr>,
    /// The address the client connected to: `destination.address`, `destination.port`.
    pub destination: Option<SocketAddr>,
    /// Whether the client's connection is encrypted: `:scheme` where the request does not say.
    pub tls: bool,
    /// Name of the matched route: `xds.route_name`, `route_name`.
    pub route: Option<Arc<str>>,
    /// Name of the backend: `xds.cluster_name`, `cluster_name`.
    pub cluster: Option<Arc<str>>,
}

/// Both messages, what the guest did to them, and what it left behind.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    pub(crate) info: StreamInfo,
    pub(crate) started: SystemTime,
    pub(crate) request: RequestHead,
    pub(crate) request_trailers: Option<HeaderMap>,
    pub(crate) response: Option<ResponseHead>,
    pub(crate) response_trailers: Option<HeaderMap>,
    /// The part of a body that the running callback looks at.
    pub(crate) window: Option<Window>,
    /// The guest's own answer, if it gave one in the running callback.
    pub(crate) answer: Option<LocalResponse>,
    /// What ends the stream although the guest did not trap.
    pub(crate) fault: Option<Cause>,
    /// Properties that guests of this stream set, under their raw paths.
    pub(crate) properties: Vec<(Bytes, Bytes)>,
    /// Body bytes that have passed.
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) undo: Undo,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct RequestHead {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
}

#[derive(Debug, Clone)]
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

/// A body's bytes in the hands of a callback.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub(crate) direction: Direction,
    pub(crate) bytes: Content,
    pub(crate) end_of_stream: bool,
    /// Longest the guest may make it.
    pub(crate) limit: usize,
}

/// Bytes as they came, or as a guest's buffering has gathered them.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    Frame(Bytes),
    Gathered(BytesMut),
}

/// Which way bytes flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Request,
    Response,
}

/// The messages as they were before a callback of a plugin that fails open.
#[derive(Debug, Clone, Default)]
pub(crate) struct Undo {
    pub(crate) wanted: bool,
    saved: Option<Box<Saved>>,
}

#[derive(Debug, Clone)]
struct Saved {
    request: RequestHead,
    request_trailers: Option<HeaderMap>,
    response: Option<ResponseHead>,
    response_trailers: Option<HeaderMap>,
    window: Option<Window>,
}

// === impl Direction ===

impl Direction {
    pub(crate) fn body_phase(self) -> Phase {
        match self {
            Self::Request => Phase::RequestBody,
            Self::Response => Phase::ResponseBody,
        }
    }
}

// === impl Content ===

impl Content {
    /// With more bytes behind; gathering costs each byte one copy, not one for each frame that follows.
    pub(crate) fn followed_by(self, bytes: Bytes) -> Self {
        match self {
            held if bytes.is_empty() => held,
            Self::Frame(frame) if frame.is_empty() => Self::Frame(bytes),
            held => {
                let mut gathered = held.gathered();
                gathered.extend_from_slice(&bytes);
                Self::Gathered(gathered)
            }
        }
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        match self {
            Self::Frame(frame) => frame,
            Self::Gathered(gathered) => gathered.freeze(),
        }
    }

    fn gathered(self) -> BytesMut {
        match self {
            Self::Frame(frame) => BytesMut::from(frame),
            Self::Gathered(gathered) => gathered,
        }
    }
}

impl Default for Content {
    fn default() -> Self {
        Self::Frame(Bytes::new())
    }
}

impl Deref for Content {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Frame(frame) => frame,
            Self::Gathered(gathered) => gathered,
        }
    }
}

// === impl Exchange ===

impl Exchange {
    pub(crate) fn new(info: StreamInfo) -> Self {
        Self {
            info,
            started: SystemTime::now(),
            request: RequestHead::default(),
            request_trailers: None,
            response: None,
            response_trailers: None,
            window: None,
            answer: None,
            fault: None,
            properties: Vec::new(),
            request_bytes: 0,
            response_bytes: 0,
            undo: Undo::default(),
        }
    }

    /// Moves the parts of a request in, or back out again.
    pub(crate) fn swap_request(&mut self, parts: &mut request::Parts) {
        std::mem::swap(&mut self.request.method, &mut parts.method);
        std::mem::swap(&mut self.request.uri, &mut parts.uri);
        std::mem::swap(&mut self.request.headers, &mut parts.headers);
        self.request.version = parts.version;
    }

    /// Leaves a copy of a request for later callbacks to look at.
    pub(crate) fn keep_request(&mut self, parts: &request::Parts) {
        self.request = RequestHead {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            version: parts.version,
            headers: parts.headers.clone(),
        };
    }

    /// Moves the parts of a response in; [`return_response`](Self::return_response) moves them back.
    pub(crate) fn lend_response(&mut self, parts: &mut response::Parts) {
        self.response =
            Some(ResponseHead { status: parts.status, headers: std::mem::take(&mut parts.headers) });
    }

    /// Moves the parts of a response back, leaving a copy of the headers if later callbacks may look at them.
    pub(crate) fn return_response(&mut self, parts: &mut response::Parts, keep: bool) {
        let Some(response) = self.response.as_mut() else { return };
        parts.status = response.status;
        parts.headers = std::mem::take(&mut response.headers);
        if keep {
            response.headers = parts.headers.clone();
        }
    }

    /// Counts body bytes that reached the first plugin of their direction.
    pub(crate) fn count_bytes(&mut self, direction: Direction, bytes: usize) {
        let total = match direction {
            Direction::Request => &mut self.request_bytes,
            Direction::Response => &mut self.response_bytes,
        };
        *total = total.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    pub(crate) fn trailers_mut(&mut self, direction: Direction) -> &mut Option<HeaderMap> {
        match direction {
            Direction::Request => &mut self.request_trailers,
            Direction::Response => &mut self.response_trailers,
        }
    }

    /// Puts the messages by before the first change, for a plugin that fails open.
    pub(crate) fn before_change(&mut self) {
        if self.undo.wanted && self.undo.saved.is_none() {
            self.undo.saved = Some(Box::new(Saved {
                request: self.request.clone(),
                request_trailers: self.request_trailers.clone(),
                response: self.response.clone(),
                response_trailers: self.response_trailers.clone(),
                window: self.window.clone(),
            }));
        }
    }

    /// Takes back every change since [`before_change`](Self::before_change) first put the messages by.
    pub(crate) fn roll_back(&mut self) {
        if let Some(saved) = self.undo.saved.take() {
            self.request = saved.request;
            self.request_trailers = saved.request_trailers;
            self.response = saved.response;
            self.response_trailers = saved.response_trailers;
            self.window = saved.window;
        }
        self.answer = None;
        self.fault = None;
    }

    /// Ends the stream for a reason other than a trap; the first reason stays.
    pub(crate) fn fail(&mut self, cause: Cause) {
        self.fault.get_or_insert(cause);
    }

    /// Prepares for one callback: nothing that another one left behind counts.
    pub(crate) fn begin(&mut self, undo: bool) {
        self.undo = Undo { wanted: undo, saved: None };
        self.answer = None;
        self.fault = None;
    }
}

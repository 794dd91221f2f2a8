//! How a refused stream looks to the client.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Extensions, Response};

use crate::error::{Cause, Failure};

/// Turns a failure into a response.
///
/// Implemented by every `Fn(&Failure) -> Response<Bytes>` that threads can share.
pub trait Responder: Send + Sync {
    /// The response to send. What it says should not tell clients about the plugin.
    fn respond(&self, failure: &Failure) -> Response<Bytes>;
}

/// In the extensions of a response of the inner service: it is the embedder's own, or the answer of a plugin
/// of an inner layer, made as a whole.
///
/// Plugins see its length and its body in one part, and in `response.code_details` and `response.flags` why
/// it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalReply {
    /// `response.code_details`, in a word of Envoy's where it has one, such as `route_not_found`.
    pub details: Cow<'static, str>,
    /// `response.flags`, in the bits of Envoy's.
    pub flags: u32,
    /// The client has left: plugins are shown nothing of it.
    pub is_for_nobody: bool,
}

/// In the extensions of a response that stands in the place of another one, since a plugin has answered or
/// failed at that: the extensions of that one.
///
/// Layers further out find there what those further in have told them, such as that a limit has refused the
/// request. Of several that were replaced they are those of the first.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing else to say about it")]
pub struct ReplacedExtensions(pub Extensions);

/// Answers with [`Failure::status`] and what Envoy says: nothing, but of a body too large to be held, and of
/// a header or status that is no HTTP. Who finds no memory is told to come again in a second.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to say about it")]
pub struct DefaultResponder;

/// The embedder's responder, or the default one, which nobody has to count the users of.
#[derive(Clone, Default)]
pub(crate) struct SharedResponder(Option<Arc<dyn Responder>>);

// === impl LocalReply ===

impl LocalReply {
    /// One that somebody gets.
    #[must_use]
    pub const fn new(details: &'static str, flags: u32) -> Self {
        Self { details: Cow::Borrowed(details), flags, is_for_nobody: false }
    }

    /// One that nobody gets.
    #[must_use]
    pub const fn for_nobody(details: &'static str, flags: u32) -> Self {
        Self { details: Cow::Borrowed(details), flags, is_for_nobody: true }
    }

    /// A plugin's answer, with the details that it gave.
    pub(crate) fn of_plugin(details: String) -> Self {
        Self { details: Cow::Owned(details), flags: 0, is_for_nobody: false }
    }
}

// === impl DefaultResponder ===

impl Responder for DefaultResponder {
    fn respond(&self, failure: &Failure) -> Response<Bytes> {
        let text = text(failure);
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = failure.status();
        if !text.is_empty() {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        if failure.cause == Cause::NoMemory {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(1));
        }
        *response.body_mut() = Bytes::from(text);
        response
    }
}

fn text(failure: &Failure) -> String {
    let status = failure.status();
    match &failure.cause {
        Cause::BodyTooLarge { .. } => status.canonical_reason().unwrap_or_default().to_owned(),
        Cause::InvalidHeader { .. } if failure.phase.is_response() => String::new(),
        Cause::InvalidHeader { name }
            if HeaderName::from_bytes(name.trim_start_matches(':').as_bytes()).is_err() =>
        {
            format!("invalid header name: {name}")
        }
        Cause::InvalidHeader { name } => format!("invalid header value for: {name}"),
        Cause::InvalidStatus { value } if value.parse::<u64>().is_err() => {
            "missing required header: :status".to_owned()
        }
        _ => String::new(),
    }
}

impl<F> Responder for F
where
    F: Fn(&Failure) -> Response<Bytes> + Send + Sync,
{
    fn respond(&self, failure: &Failure) -> Response<Bytes> {
        self(failure)
    }
}

// === impl SharedResponder ===

impl SharedResponder {
    pub(crate) fn new(responder: impl Responder + 'static) -> Self {
        Self(Some(Arc::new(responder)))
    }

    pub(crate) fn get(&self) -> &dyn Responder {
        self.0.as_deref().unwrap_or(&DefaultResponder)
    }
}

impl fmt::Debug for SharedResponder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedResponder").finish_non_exhaustive()
    }
}

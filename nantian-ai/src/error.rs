//! Why a request got no answer of a model.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};

use crate::codec::{Invalid, fault};
use crate::dialect::{ClientDialect, Dialect, Operation};
use crate::ir::{Fault, FaultKind, Losses};
use crate::token::TokenError;
use crate::wire::json::Malformed;

/// Any error, as services hand it on.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// A request that a target could not serve. [`respond`](crate::respond) turns it into a response; there it
/// stays in the extensions as an `Arc<Error>`, for logs, metrics and failover.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The path is no operation of any dialect. Maps to 404.
    #[error("unknown path `{path}`")]
    UnknownPath {
        /// The path of the request.
        path: String,
    },
    /// The operation does not take the method. Maps to 405.
    #[error("method {method} is not allowed here, use {}", words(allowed))]
    MethodNotAllowed {
        /// The method of the request.
        method: Method,
        /// The methods the operation takes.
        allowed: &'static [Method],
    },
    /// The client offers to go on over a WebSocket, which nobody does here. Maps to 426, by which Codex knows
    /// to ask over HTTP at once.
    #[error("nothing is served here over a WebSocket, use {}", words(allowed))]
    NoWebSocket {
        /// The methods the operation takes.
        allowed: &'static [Method],
    },
    /// The client asks in its dialect for an operation that is not translated into the upstream's. Maps to
    /// 400.
    #[error("{operation} of the {client} dialect cannot be asked of a provider that speaks {upstream}")]
    UnsupportedPair {
        /// What the client asks for.
        operation: Operation,
        /// What the client speaks.
        client: ClientDialect,
        /// What the upstream speaks.
        upstream: Dialect,
    },
    /// A route has no model to ask. Maps to 500.
    #[error("this route has no model")]
    NoModel,
    /// The request says what the upstream's dialect cannot carry at all. Maps to 400.
    #[error(transparent)]
    Untranslatable(#[from] Invalid),
    /// The request says what the upstream's dialect has no words for, and nothing may be lost. Maps to 400.
    #[error("nothing may be lost, but the provider's dialect has no words for {losses}")]
    Lossy {
        /// The fields.
        losses: Losses,
    },
    /// The request body is compressed, and with neither gzip nor zstd. Maps to 415.
    #[error("content-encoding `{encoding}` is not supported, send gzip, zstd or the body as it is")]
    UnsupportedEncoding {
        /// The encoding of the request.
        encoding: String,
    },
    /// The query of the request cannot be part of a URL. Maps to 400.
    #[error("the request's query is malformed")]
    MalformedQuery,
    /// The request body is larger than the target reads, or than its [`BodyMemory`](crate::BodyMemory) ever
    /// has room for. Maps to 413.
    #[error("the request body is larger than {limit} bytes")]
    BodyTooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// All bodies that are read whole together take what they may, see [`BodyMemory`](crate::BodyMemory).
    /// Maps to 503.
    #[error("there is no memory for the body, too many others are being read")]
    TooManyBodies,
    /// The client's body ended in an error. Maps to 400.
    #[error("the request body could not be read")]
    BodyRead {
        /// What the body said.
        #[source]
        source: Arc<dyn StdError + Send + Sync>,
    },
    /// The request body is not a JSON object. Maps to 400.
    #[error("the request body is not a JSON object: {reason} at byte {offset}")]
    NotJson {
        /// Where it ceases to be one.
        offset: u64,
        /// What is wrong there.
        reason: &'static str,
    },
    /// The inner service failed: as a rule, no connection could be made. Maps to 502.
    #[error("provider of `{target}` cannot be reached")]
    Upstream {
        /// The target's name.
        target: String,
        /// What the inner service said.
        #[source]
        source: Arc<dyn StdError + Send + Sync>,
    },
    /// The target's credential could not be exchanged for a token. Maps to 502.
    #[error("provider of `{target}` was not asked, for the configured credential got no token")]
    Token {
        /// The target's name.
        target: String,
        /// Why not.
        #[source]
        source: TokenError,
    },
    /// The upstream refused the target's credential. The client's own is not to blame. Maps to 502.
    #[error("provider of `{target}` refused the configured credential")]
    UpstreamAuth {
        /// The target's name.
        target: String,
        /// What the upstream answered.
        status: StatusCode,
    },
    /// The provider refused, failed, or broke off. Maps to the status of the fault.
    #[error("{fault}")]
    Provider {
        /// The target's name.
        target: String,
        /// What the provider said.
        fault: Fault,
    },
    /// The process ends before the answer does, see [`Ending`]. Maps to 503.
    #[error("the answer broke off, for the proxy ends")]
    Ending,
    /// The upstream took too long. Maps to 504.
    #[error("provider of `{target}` sent no {awaited} within {after:?}")]
    Timeout {
        /// The target's name.
        target: String,
        /// What did not come.
        awaited: Awaited,
        /// The timeout.
        after: Duration,
    },
}

/// An inner service's error before anything reached the provider, such as a connection that could not be
/// made. In it, or with it among its sources, an error costs nobody a token; after any other one the provider
/// may have worked on the prompt.
///
/// No client says so by itself. Of hyper-util's it is known by `is_connect`:
///
/// ```
/// use nantian_ai::{BoxError, Unsent};
/// # struct Error;
/// # impl Error { fn is_connect(&self) -> bool { true } }
/// # impl From<Error> for BoxError { fn from(_: Error) -> Self { "refused".into() } }
///
/// fn tell_unsent(error: Error) -> BoxError {
///     if error.is_connect() { Unsent(error.into()).into() } else { error.into() }
/// }
/// # assert!(tell_unsent(Error).is::<Unsent>());
/// ```
#[derive(Debug, thiserror::Error)]
#[error("nothing was sent")]
#[expect(clippy::exhaustive_structs, reason = "it is one error")]
pub struct Unsent(#[source] pub BoxError);

/// An error of an inner service's body that is broken off because the process ends: the provider is not to
/// blame, and nobody else is asked.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the proxy ends")]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to say about it")]
pub struct Ending;

/// What a timeout waited for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Awaited {
    /// The first token of a stream.
    FirstToken,
    /// The next chunk of a stream.
    NextChunk,
    /// The whole of a buffered reply.
    Reply,
    /// The whole answer, in the time of the whole exchange: a [`Deadline`](crate::Deadline).
    Answer,
}

/// How an error reads in each dialect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) openai: &'static str,
    pub(crate) anthropic: &'static str,
}

// === impl Error ===

impl Error {
    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        self.label().status
    }

    /// A short name of the kind of error, for metrics and as OpenAI's `code`.
    pub fn code(&self) -> &'static str {
        self.label().code
    }

    /// Whether another target might serve the request.
    pub fn may_fail_over(&self) -> bool {
        match self {
            // No other one has any time left.
            Self::Timeout { awaited: Awaited::Answer, .. } => false,
            Self::Upstream { .. } | Self::UpstreamAuth { .. } | Self::Token { .. } | Self::Timeout { .. } => {
                true
            }
            Self::Provider { fault, .. } => fault.kind.is_of_the_provider(),
            // It may know the operation, or have words for what is asked.
            Self::UnsupportedPair { .. } | Self::Untranslatable(_) | Self::Lossy { .. } => true,
            _ => false,
        }
    }

    /// Whether the operator's credential is refused, or there is no credit behind it.
    pub(crate) fn is_of_credential(&self) -> bool {
        match self {
            Self::UpstreamAuth { .. } => true,
            Self::Provider { fault, .. } => fault::is_refused_credential(fault),
            _ => false,
        }
    }

    /// The answer of the target's provider broke off.
    pub(crate) fn truncated(target: &str) -> Self {
        Self::Provider { target: target.to_owned(), fault: Fault::truncated() }
    }

    /// The error as one of a provider, to end a stream with.
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::Provider { fault, .. } => fault.clone(),
            Self::Timeout { .. } => Fault::new(FaultKind::Timeout, self.to_string()),
            _ => Fault::new(FaultKind::Upstream, self.to_string()),
        }
    }

    pub(crate) fn label(&self) -> Label {
        const INVALID: &str = "invalid_request_error";
        let (status, code, openai, anthropic) = match self {
            Self::UnknownPath { .. } => (StatusCode::NOT_FOUND, "unknown_path", INVALID, "not_found_error"),
            Self::MethodNotAllowed { .. } => {
                (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", INVALID, INVALID)
            }
            Self::NoWebSocket { .. } => (StatusCode::UPGRADE_REQUIRED, "no_websocket", INVALID, INVALID),
            Self::UnsupportedPair { .. } => {
                (StatusCode::BAD_REQUEST, "unsupported_dialect", INVALID, INVALID)
            }
            Self::NoModel => (StatusCode::INTERNAL_SERVER_ERROR, "no_model", "server_error", "api_error"),
            Self::Untranslatable(_) => (StatusCode::BAD_REQUEST, "untranslatable", INVALID, INVALID),
            Self::Lossy { .. } => (StatusCode::BAD_REQUEST, "lossy", INVALID, INVALID),
            Self::Provider { fault, .. } => {
                let (openai, code) = fault::openai_names(fault);
                (fault.kind.status(), code, openai, fault::anthropic_name(fault.kind))
            }
            Self::UnsupportedEncoding { .. } => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", INVALID, INVALID)
            }
            Self::MalformedQuery => (StatusCode::BAD_REQUEST, "malformed_query", INVALID, INVALID),
            Self::BodyTooLarge { .. } => {
                (StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", INVALID, "request_too_large")
            }
            Self::TooManyBodies | Self::Ending => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "server_error", "api_error")
            }
            Self::BodyRead { .. } => (StatusCode::BAD_REQUEST, "incomplete_body", INVALID, INVALID),
            Self::NotJson { .. } => (StatusCode::BAD_REQUEST, "invalid_json", INVALID, INVALID),
            Self::Upstream { .. } => {
                (StatusCode::BAD_GATEWAY, "upstream_unreachable", "server_error", "api_error")
            }
            Self::UpstreamAuth { .. } | Self::Token { .. } => {
                (StatusCode::BAD_GATEWAY, "upstream_auth", "upstream_auth_error", "api_error")
            }
            Self::Timeout { .. } => (StatusCode::GATEWAY_TIMEOUT, "timeout", "timeout", "timeout_error"),
        };
        Label { status, code, openai, anthropic }
    }
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Self {
        Self::NotJson { offset: malformed.offset, reason: malformed.reason }
    }
}

fn words(methods: &[Method]) -> String {
    let names: Vec<_> = methods.iter().map(Method::as_str).collect();
    names.join(" or ")
}

// === impl Unsent ===

impl Unsent {
    /// Whether it is `error` or among its sources.
    pub(crate) fn is_in(error: &(dyn StdError + 'static)) -> bool {
        error.is::<Self>() || error.source().is_some_and(Self::is_in)
    }
}

// === impl Ending ===

impl Ending {
    /// Whether it is `error` or among its sources.
    pub(crate) fn is_in(error: &(dyn StdError + 'static)) -> bool {
        error.is::<Self>() || error.source().is_some_and(Self::is_in)
    }
}

// === impl Awaited ===

impl std::fmt::Display for Awaited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::FirstToken => "token",
            Self::NextChunk => "further chunk",
            Self::Reply => "complete reply",
            Self::Answer => "complete answer",
        })
    }
}

//! The callbacks of a plugin.

use std::fmt;

/// Where in a plugin's life something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Instantiation, `_initialize` or `_start`, creation of the root context, `proxy_on_vm_start`.
    Start,
    /// `proxy_on_configure`.
    Configure,
    /// `proxy_on_tick`.
    Tick,
    /// Creation of the stream context, `proxy_on_request_headers`.
    RequestHeaders,
    /// `proxy_on_request_body`.
    RequestBody,
    /// `proxy_on_request_trailers`.
    RequestTrailers,
    /// `proxy_on_response_headers`.
    ResponseHeaders,
    /// `proxy_on_response_body`.
    ResponseBody,
    /// `proxy_on_response_trailers`.
    ResponseTrailers,
    /// `proxy_on_log`, `proxy_on_done`, `proxy_on_delete`.
    End,
    /// `proxy_on_http_call_response` and the gRPC callbacks.
    CallResponse,
    /// `proxy_on_queue_ready`.
    QueueReady,
}

// === impl Phase ===

impl Phase {
    pub(crate) fn is_response(self) -> bool {
        matches!(self, Self::ResponseHeaders | Self::ResponseBody | Self::ResponseTrailers)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Configure => "configure",
            Self::Tick => "tick",
            Self::RequestHeaders => "request headers",
            Self::RequestBody => "request body",
            Self::RequestTrailers => "request trailers",
            Self::ResponseHeaders => "response headers",
            Self::ResponseBody => "response body",
            Self::ResponseTrailers => "response trailers",
            Self::End => "end of context",
            Self::CallResponse => "call response",
            Self::QueueReady => "queue ready",
        })
    }
}

//! Which callbacks and host functions of a module are there.

use std::collections::BTreeSet;

use crate::stream::Streaming;

/// Callbacks of a module that run; the others are skipped even when exported.
///
/// Log, done, delete and tick callbacks always run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hooks {
    /// Request headers, body and trailers. Default: true.
    pub on_request: bool,
    /// Response headers, body and trailers; of responses that are streaming by their content type the headers
    /// only. Default: true.
    ///
    /// Without [`on_stream_chunk`](Self::on_stream_chunk) these wait for no body: a guest that has a
    /// callback for bodies and holds them until one comes (`StopIteration`, where
    /// [that is what it means](crate::PluginConfig::allow_on_headers_stop_iteration)) holds them until its
    /// call-outs for the stream are over, and not at all if there are none. One that judges streams by
    /// anything else needs that hook, or holds them altogether (`StopAllIterationAndWatermark`).
    pub on_response: bool,
    /// Headers and body frames of streaming responses: by their content type (server-sent events, NDJSON,
    /// gRPC), or those without a content-length whose client accepts server-sent events. Default: true.
    pub on_stream_chunk: bool,
}

/// Host functions and callbacks by name, such as `proxy_http_call`, `fd_write` or `proxy_on_request_body`;
/// those of [`Abi::Pingora`](crate::Abi::Pingora) too.
///
/// A host function that is not in the list answers `InternalFailure`, one of WASI "not capable", one of the
/// module `pingora` nothing; a callback that is not in it is not called. Always there, as in Envoy, are start
/// functions, the allocator, `proc_exit` and what Emscripten leaves behind (`pthread_equal`,
/// `emscripten_notify_memory_growth`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capabilities(Option<BTreeSet<String>>);

// === impl Hooks ===

impl Hooks {
    /// Everything the module exports.
    pub const ALL: Self = Self { on_request: true, on_response: true, on_stream_chunk: true };
    /// Nothing: a start for switching single hooks on.
    pub const NONE: Self = Self { on_request: false, on_response: false, on_stream_chunk: false };

    /// Sets [`on_request`](Self::on_request).
    #[must_use]
    pub const fn with_on_request(mut self, run: bool) -> Self {
        self.on_request = run;
        self
    }

    /// Sets [`on_response`](Self::on_response).
    #[must_use]
    pub const fn with_on_response(mut self, run: bool) -> Self {
        self.on_response = run;
        self
    }

    /// Sets [`on_stream_chunk`](Self::on_stream_chunk).
    #[must_use]
    pub const fn with_on_stream_chunk(mut self, run: bool) -> Self {
        self.on_stream_chunk = run;
        self
    }

    /// Whether response headers reach the guest.
    pub(crate) fn wants_response_headers(self, streaming: Streaming) -> bool {
        self.on_response || (self.on_stream_chunk && streaming != Streaming::No)
    }

    /// Whether response body frames reach the guest.
    pub(crate) fn wants_response_body(self, streaming: Streaming) -> bool {
        match streaming {
            Streaming::No => self.on_response,
            Streaming::AskedFor => self.on_response || self.on_stream_chunk,
            Streaming::Declared => self.on_stream_chunk,
        }
    }
}

impl Default for Hooks {
    fn default() -> Self {
        Self::ALL
    }
}

// === impl Capabilities ===

impl Capabilities {
    /// These and no others.
    pub fn only(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(Some(names.into_iter().map(Into::into).collect()))
    }

    pub(crate) fn allow(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.contains(name))
    }
}

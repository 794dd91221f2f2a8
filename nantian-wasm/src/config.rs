//! What an embedder says about a plugin: plain data, nothing running.

use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;

use crate::error::PluginError;

/// One WebAssembly page.
const PAGE: usize = 64 * 1024;

/// A plugin: which name it runs under, what it is told, and what it may use.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PluginConfig {
    /// Name in logs, failures and the `plugin_name` property.
    ///
    /// Default: none, it is required. Source: `metadata.name` of the WasmPlugin.
    pub name: String,
    /// Selects one of several root contexts in the module (`plugin_root_id`).
    ///
    /// Default: empty, the module's only root context.
    pub root_id: String,
    /// Plugin configuration, handed to `proxy_on_configure` byte for byte.
    ///
    /// Default: empty. Source: `WasmPlugin.spec.config`.
    pub configuration: Bytes,
    /// Which callbacks run. Default: all. Source: `WasmPlugin.spec.hooks`.
    pub hooks: Hooks,
    /// Limits of every instance. Source: `WasmPlugin.spec.sandbox`.
    pub sandbox: Sandbox,
    /// What a stream does when the plugin fails it.
    ///
    /// Default: [`FailurePolicy::FailClosed`]. Source: `WasmPlugin.spec.failurePolicy`.
    pub failure_policy: FailurePolicy,
    /// Warm instances kept.
    ///
    /// Range: 1 and upwards; at least the number of threads that serve requests, so that none waits.
    /// Default: the parallelism of the machine.
    pub instances: Option<NonZeroUsize>,
}

/// Callbacks of a module that run; the others are skipped even when exported.
///
/// Log, done, delete and tick callbacks always run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hooks {
    /// Request headers, body and trailers. Default: true.
    pub on_request: bool,
    /// Response headers, body and trailers; of streaming responses the headers only. Default: true.
    pub on_response: bool,
    /// Headers and body frames of streaming responses (server-sent events, NDJSON, gRPC). Default: true.
    pub on_stream_chunk: bool,
}

/// What an instance may use.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sandbox {
    /// Linear memory of one instance.
    ///
    /// Unit: bytes. Range: 64 KiB..=4 GiB. Default: 64 MiB. Source: `sandbox.maxMemoryBytes`.
    pub max_memory: usize,
    /// Time one callback may take, counted in calls of [`Engine::tick`](crate::Engine::tick) and rounded up to 1 ms.
    ///
    /// Range: 1 ms..=60 s. Default: 100 ms. Source: `sandbox.maxExecutionTimeMs`.
    pub max_execution_time: Duration,
    /// Body bytes held back for one stream and direction while the guest asks to buffer.
    ///
    /// Unit: bytes. Range: 0..=1 GiB. Default: 1 MiB.
    pub max_buffered_body: usize,
    /// Outbound calls. Default: false; true is refused by [`Plugin::new`](crate::Plugin::new).
    pub allow_network: bool,
    /// Files. Default: false; true is refused by [`Plugin::new`](crate::Plugin::new).
    pub allow_file_system: bool,
}

/// What a stream does when its plugin traps, exceeds a limit or has no instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum FailurePolicy {
    /// The stream is refused through the responder.
    #[default]
    FailClosed,
    /// The stream goes on without the plugin; what the failed callback changed is undone.
    FailOpen,
}

// === impl PluginConfig ===

impl PluginConfig {
    /// A plugin with every default.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            root_id: String::new(),
            configuration: Bytes::new(),
            hooks: Hooks::ALL,
            sandbox: Sandbox::default(),
            failure_policy: FailurePolicy::default(),
            instances: None,
        }
    }
}

// === impl Hooks ===

impl Hooks {
    /// Everything the module exports.
    pub const ALL: Self = Self { on_request: true, on_response: true, on_stream_chunk: true };
    /// Nothing: a start for switching single hooks on.
    pub const NONE: Self = Self { on_request: false, on_response: false, on_stream_chunk: false };

    /// Whether response headers reach the guest.
    pub(crate) fn wants_response_headers(self, streaming: bool) -> bool {
        self.on_response || (self.on_stream_chunk && streaming)
    }

    /// Whether response body frames reach the guest.
    pub(crate) fn wants_response_body(self, streaming: bool) -> bool {
        if streaming { self.on_stream_chunk } else { self.on_response }
    }
}

impl Default for Hooks {
    fn default() -> Self {
        Self::ALL
    }
}

// === impl Sandbox ===

impl Sandbox {
    /// Refuses what cannot be enforced.
    pub(crate) fn validate(&self) -> Result<(), PluginError> {
        if self.allow_network {
            return Err(PluginError::Capability { field: "sandbox.allowNetwork" });
        }
        if self.allow_file_system {
            return Err(PluginError::Capability { field: "sandbox.allowFileSystem" });
        }
        if !(PAGE..=PAGE << 16).contains(&self.max_memory) {
            return Err(PluginError::OutOfRange {
                field: "sandbox.maxMemoryBytes",
                value: self.max_memory.to_string(),
                range: "65536..=4294967296",
            });
        }
        if !(Duration::from_millis(1)..=Duration::from_secs(60)).contains(&self.max_execution_time) {
            return Err(PluginError::OutOfRange {
                field: "sandbox.maxExecutionTimeMs",
                value: format!("{:?}", self.max_execution_time),
                range: "1ms..=60s",
            });
        }
        if self.max_buffered_body > 1 << 30 {
            return Err(PluginError::OutOfRange {
                field: "sandbox.maxBufferedBody",
                value: self.max_buffered_body.to_string(),
                range: "0..=1073741824",
            });
        }
        Ok(())
    }

    /// The time limit of one callback in engine ticks, rounded up.
    pub(crate) fn ticks(&self) -> u64 {
        u64::try_from(self.max_execution_time.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            max_memory: 64 << 20,
            max_execution_time: Duration::from_millis(100),
            max_buffered_body: 1 << 20,
            allow_network: false,
            allow_file_system: false,
        }
    }
}

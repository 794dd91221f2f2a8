//! What an embedder says about a plugin: plain data, nothing running.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;

use crate::error::PluginError;
use crate::stream::Streaming;

/// One WebAssembly page.
const PAGE: usize = 64 * 1024;

/// A plugin: which name it runs under, what it is told, and what it may use.
///
/// `Debug` shows how long both configurations are, and the names of environment variables: what they say may
/// be secret.
#[derive(Clone, PartialEq, Eq)]
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
    /// Name of the virtual machine (`plugin_vm_id`), under which the plugin's own queues can be resolved.
    ///
    /// Default: empty.
    pub vm_id: String,
    /// Configuration of the virtual machine, handed to `proxy_on_vm_start` byte for byte. Default: empty.
    pub vm_configuration: Bytes,
    /// Environment variables the guest sees. Default: none.
    pub environment: Vec<(String, String)>,
    /// Plugin configuration, handed to `proxy_on_configure` byte for byte.
    ///
    /// Default: empty. Source: `WasmPlugin.spec.config`.
    pub configuration: Bytes,
    /// Which callbacks run. Default: all. Source: `WasmPlugin.spec.hooks`.
    pub hooks: Hooks,
    /// Host functions and callbacks the guest has. Default: all.
    pub capabilities: Capabilities,
    /// How the bodies of event streams are cut for the guest. Default: as they come.
    pub stream_framing: StreamFraming,
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
    /// Response headers, body and trailers; of responses that are streaming by their content type the headers
    /// only. Default: true.
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

/// How the body of a server-sent event stream reaches the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StreamFraming {
    /// Frame by frame, as they arrive.
    #[default]
    Frames,
    /// Cut behind the blank line that ends an event: each callback sees whole events.
    Events,
}

/// What an instance may use.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sandbox {
    /// Linear memory of one instance.
    ///
    /// Unit: bytes. Range: 64 KiB..=4 GiB. Default: 64 MiB. Source: `sandbox.maxMemoryBytes`.
    pub max_memory: usize,
    /// Time one callback may run, counted in calls of [`Engine::tick`](crate::Engine::tick) and rounded up to
    /// 1 ms. While its guest waits for the next slice, no time passes. All callbacks of a stream together
    /// have ten times as much, which comes back in twenty times the time that it was spent in; replies to its
    /// call-outs are counted among them.
    ///
    /// Range: 1 ms..=60 s. Default: 100 ms. Source: `sandbox.maxExecutionTimeMs`.
    pub max_execution_time: Duration,
    /// Body bytes held back for one stream and direction while the guest asks to buffer. More of them end the
    /// stream under either failure policy: a request with 413. A guest may say that it holds less, not more.
    ///
    /// Unit: bytes. Range: 0..=1 GiB. Default: 1 MiB.
    pub max_buffered_body: usize,
    /// Time a guest may hold a message of a stream before it must continue it; a call-out made for the stream
    /// extends it to the call-out's own time limit, and a second more in which the guest hears that it was
    /// reached.
    ///
    /// Range: 1 ms..=10 min. Default: 15 s.
    pub max_pause: Duration,
    /// Call-outs through the [`Host`](crate::host::Host). Default: false; true is refused where there is no
    /// host.
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
    ///
    /// What the plugin refuses is refused all the same: an answer stands although its guest traps afterwards,
    /// one that is no response or comes too late ends the stream, and so do a body too large to be held and
    /// [more than a stream may cost](crate::Cause::StreamBudget). Clients could bring those about.
    FailOpen,
}

// === impl PluginConfig ===

impl PluginConfig {
    /// A plugin with every default.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            root_id: String::new(),
            vm_id: String::new(),
            vm_configuration: Bytes::new(),
            environment: Vec::new(),
            configuration: Bytes::new(),
            hooks: Hooks::ALL,
            capabilities: Capabilities::default(),
            stream_framing: StreamFraming::default(),
            sandbox: Sandbox::default(),
            failure_policy: FailurePolicy::default(),
            instances: None,
        }
    }
}

impl fmt::Debug for PluginConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variables: Vec<_> = self.environment.iter().map(|(name, _)| name).collect();
        f.debug_struct("PluginConfig")
            .field("name", &self.name)
            .field("root_id", &self.root_id)
            .field("vm_id", &self.vm_id)
            .field("vm_configuration_len", &self.vm_configuration.len())
            .field("environment", &variables)
            .field("configuration_len", &self.configuration.len())
            .field("hooks", &self.hooks)
            .field("capabilities", &self.capabilities)
            .field("stream_framing", &self.stream_framing)
            .field("sandbox", &self.sandbox)
            .field("failure_policy", &self.failure_policy)
            .field("instances", &self.instances)
            .finish()
    }
}

// === impl Hooks ===

impl Hooks {
    /// Everything the module exports.
    pub const ALL: Self = Self { on_request: true, on_response: true, on_stream_chunk: true };
    /// Nothing: a start for switching single hooks on.
    pub const NONE: Self = Self { on_request: false, on_response: false, on_stream_chunk: false };

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

// === impl Sandbox ===

impl Sandbox {
    /// Refuses what cannot be enforced.
    pub(crate) fn validate(&self, has_host: bool) -> Result<(), PluginError> {
        if self.allow_network && !has_host {
            return Err(PluginError::NoHost { field: "sandbox.allow_network" });
        }
        if self.allow_file_system {
            return Err(PluginError::Capability { field: "sandbox.allow_file_system" });
        }
        if !(PAGE..=PAGE << 16).contains(&self.max_memory) {
            return Err(PluginError::OutOfRange {
                field: "sandbox.max_memory",
                value: self.max_memory.to_string(),
                range: "64 KiB..=4 GiB",
            });
        }
        if !(Duration::from_millis(1)..=Duration::from_secs(60)).contains(&self.max_execution_time) {
            return Err(PluginError::OutOfRange {
                field: "sandbox.max_execution_time",
                value: format!("{:?}", self.max_execution_time),
                range: "1 ms..=60 s",
            });
        }
        if !(Duration::from_millis(1)..=Duration::from_secs(600)).contains(&self.max_pause) {
            return Err(PluginError::OutOfRange {
                field: "sandbox.max_pause",
                value: format!("{:?}", self.max_pause),
                range: "1 ms..=10 min",
            });
        }
        if self.max_buffered_body > 1 << 30 {
            return Err(PluginError::OutOfRange {
                field: "sandbox.max_buffered_body",
                value: self.max_buffered_body.to_string(),
                range: "0..=1 GiB",
            });
        }
        Ok(())
    }

    /// The time limit of one callback in engine ticks, rounded up.
    pub(crate) fn ticks(&self) -> u64 {
        ticks(self.max_execution_time)
    }

    /// The time a message may be held in engine ticks.
    pub(crate) fn pause_ticks(&self) -> u64 {
        ticks(self.max_pause)
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            max_memory: 64 << 20,
            max_execution_time: Duration::from_millis(100),
            max_buffered_body: 1 << 20,
            max_pause: Duration::from_secs(15),
            allow_network: false,
            allow_file_system: false,
        }
    }
}

/// Engine ticks of a duration, rounded up.
fn ticks(duration: Duration) -> u64 {
    let rest = u64::from(duration.subsec_micros().div_ceil(1000));
    duration.as_secs().saturating_mul(1000).saturating_add(rest)
}

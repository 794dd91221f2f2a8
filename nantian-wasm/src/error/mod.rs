//! Everything that can be refused or fail, as types a caller can act on.

mod phase;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

pub use self::phase::Phase;
use crate::module::Digest;

/// Any error that threads can pass on.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The WebAssembly engine cannot run on this machine.
#[derive(Debug, Clone, thiserror::Error)]
#[error("wasm engine unavailable: {reason}")]
#[non_exhaustive]
pub struct EngineError {
    /// What the engine said.
    pub reason: String,
}

/// The bytes are not a module that can be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// A count or size above the limit; nothing was compiled.
    #[error("{what} of the module: {found} exceeds the limit of {limit}")]
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// Its value.
        found: u64,
        /// The highest value accepted.
        limit: u64,
    },
    /// The bytes are not those that were asked for.
    #[error("sha256 is {actual}, expected {expected}")]
    Digest {
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of the bytes.
        actual: Digest,
    },
    /// The bytes are not WebAssembly.
    #[error("not a WebAssembly module: {reason}")]
    Malformed {
        /// What the parser said.
        reason: String,
    },
    /// The module speaks no plugin ABI known here.
    #[error(
        "no known plugin ABI: looked for an exported function proxy_abi_version_0_1_0, proxy_abi_version_0_2_0, \
         proxy_abi_version_0_2_1 or proxy_abi_version_0_2_100, and for imports from the module pingora, found {found}"
    )]
    UnknownAbi {
        /// What was there instead.
        found: String,
    },
    /// A required export is missing.
    #[error("export {name} is missing")]
    MissingExport {
        /// Its name.
        name: &'static str,
    },
    /// An export has another type than the ABI gives it.
    #[error("export {name} has type {found}, expected {expected}")]
    MistypedExport {
        /// Its name.
        name: String,
        /// The type of the ABI.
        expected: String,
        /// The type found.
        found: String,
    },
    /// The module imports what this host does not have.
    #[error("unknown imports: {}", names.join(", "))]
    UnknownImports {
        /// All of them, as `module.name`.
        names: Vec<String>,
    },
    /// An import is known under another type.
    #[error("import with a wrong type: {reason}")]
    MistypedImport {
        /// What the linker said.
        reason: String,
    },
    /// Validation or compilation refused the module.
    #[error("module does not compile: {reason}")]
    Uncompilable {
        /// What the compiler said.
        reason: String,
    },
}

/// The plugin cannot be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// A capability that this version does not have was asked for.
    #[error("{field} is set, and no plugin has files")]
    Capability {
        /// Field of the configuration.
        field: &'static str,
    },
    /// Call-outs were asked for where there is no [`Host`](crate::host::Host) to make them: see
    /// [`Plugin::with_host`](crate::Plugin::with_host).
    #[error("{field} is set, and there is no host to make calls: see `Plugin::with_host`")]
    NoHost {
        /// Field of the configuration.
        field: &'static str,
    },
    /// A limit outside its range.
    #[error("{field}: {value} is outside {range}")]
    OutOfRange {
        /// Field of the configuration.
        field: &'static str,
        /// The value given.
        value: String,
        /// The values accepted.
        range: &'static str,
    },
    /// The guest ended while it was being started.
    #[error("plugin ended in {phase}")]
    Start {
        /// Where.
        phase: Phase,
        /// Why.
        #[source]
        cause: Cause,
    },
    /// The guest ended itself without an error in `_start`: it is a program, and what is called later must be
    /// a library.
    #[error(
        "the module is a program that has run to its end in _start, not a library: build it as a reactor \
         (with Go and TinyGo, -buildmode=c-shared)"
    )]
    Program,
    /// The engine has no place for another instance. There is when a plugin is gone, with the last stream
    /// that it has seen.
    #[error("all {max_instances} places for instances of plugins are taken")]
    Full {
        /// [`EngineBuilder::max_instances`](crate::EngineBuilder::max_instances).
        max_instances: NonZeroU32,
    },
    /// There is not enough linear memory for an instance, or for what a guest wants as it starts. There
    /// may be when another instance is gone.
    #[error("too little is left of the {max_memory} bytes of memory for {of} together")]
    NoMemory {
        /// [`EngineBuilder::max_memory`](crate::EngineBuilder::max_memory), or
        /// [`max_memory_of_space`](crate::EngineBuilder::max_memory_of_space).
        max_memory: usize,
        /// Who have so much.
        of: MemoryOf,
    },
    /// The guest answered that it does not want this configuration.
    #[error("plugin refused its configuration in {phase}")]
    Rejected {
        /// The callback that answered false.
        phase: Phase,
    },
}

/// Plugins that have memory together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryOf {
    /// All plugins of the engine.
    Engine,
    /// Those of a [`SharedSpace`](crate::SharedSpace).
    Space,
}

/// A stream that its plugin failed. Becomes a response through a [`Responder`](crate::respond::Responder).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("plugin {plugin} failed in {phase}")]
#[non_exhaustive]
pub struct Failure {
    /// Name of the plugin.
    pub plugin: Arc<str>,
    /// The callback in which it failed.
    pub phase: Phase,
    /// Why.
    #[source]
    pub cause: Cause,
}

/// Why a plugin failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The guest trapped, or aborted by trapping.
    #[error("trap: {0}")]
    Trap(String),
    /// The callback used up its time.
    #[error("time limit of {limit:?} exceeded")]
    TimeLimit {
        /// The limit.
        limit: Duration,
    },
    /// The guest asked the host for more than a stream may cost.
    #[error("budget exceeded: {what}")]
    Budget {
        /// Which budget.
        what: &'static str,
    },
    /// The stream cost more than it may, which its client can have brought about: what a guest copies or asks
    /// about is often the client's. It ends under either failure policy, and its guest lives on.
    #[error("budget of the stream exceeded: {what}")]
    StreamBudget {
        /// Which budget.
        what: &'static str,
    },
    /// The guest ended itself.
    #[error("guest exited with code {code}")]
    Exit {
        /// Its exit code.
        code: u32,
    },
    /// The guest held a message of the stream and did not continue it in time.
    #[error("stream held for too long")]
    Paused,
    /// The guest made a header that must not reach the wire.
    #[error("invalid header {name:?}")]
    InvalidHeader {
        /// Its name, escaped and shortened.
        name: String,
    },
    /// The guest made a status that is no final HTTP status.
    #[error("invalid status {value:?}")]
    InvalidStatus {
        /// The value, escaped and shortened.
        value: String,
    },
    /// The guest answered by itself with what is no response.
    #[error("invalid local response: {reason}")]
    InvalidAnswer {
        /// What is wrong with it.
        reason: String,
    },
    /// The guest wants to hold back more body than allowed, or makes it longer than that.
    #[error("held body exceeds {limit} bytes")]
    BodyTooLarge {
        /// The limit.
        limit: usize,
    },
    /// There is no memory for what the guest wants to hold back, because of what is held for other streams:
    /// see [`EngineBuilder::body_memory`](crate::EngineBuilder::body_memory).
    #[error("there is no memory for the body, too many others are being held")]
    NoMemory,
    /// The message broke off while the guest held its headers: the sender's fault, not the guest's.
    #[error("message broke off while its headers were held")]
    BrokenOff,
    /// The guest closed the stream: it is to be reset. The body of the response that stands for it breaks off
    /// before its first byte, upon which hyper sends nothing of that response.
    #[error("stream closed by the plugin")]
    Closed,
    /// The guest answered by itself after response headers had left.
    #[error("local response after response headers")]
    LateAnswer,
    /// The instance of this stream ended while serving another one.
    #[error("instance lost")]
    InstanceLost,
    /// Every instance ended, and upkeep has not replaced one yet.
    #[error("no live instance")]
    NoInstance,
}

// === impl MemoryOf ===

impl fmt::Display for MemoryOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Engine => "all plugins",
            Self::Space => "the plugins of its space",
        })
    }
}

// === impl Failure ===

impl Failure {
    /// What a [`Responder`](crate::respond::Responder) is given: to ask one directly, as tests do.
    pub fn new(plugin: impl Into<Arc<str>>, phase: Phase, cause: Cause) -> Self {
        Self { plugin: plugin.into(), phase, cause }
    }

    /// The status a client should see: 413 for a request's body too large to hold and 500 for a response's,
    /// 502 for a response the plugin spoiled, 400 for a request that broke off and 502 for such a response,
    /// else 503.
    pub fn status(&self) -> StatusCode {
        match (&self.cause, self.phase) {
            (Cause::BodyTooLarge { .. }, Phase::RequestBody) => StatusCode::PAYLOAD_TOO_LARGE,
            (Cause::BodyTooLarge { .. }, Phase::ResponseBody) => StatusCode::INTERNAL_SERVER_ERROR,
            (Cause::InvalidStatus { .. } | Cause::InvalidAnswer { .. }, _) => StatusCode::BAD_GATEWAY,
            (Cause::InvalidHeader { .. } | Cause::BrokenOff, phase) if phase.is_response() => {
                StatusCode::BAD_GATEWAY
            }
            (Cause::BrokenOff, _) => StatusCode::BAD_REQUEST,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Why the response is what it is, in Envoy's words, unless something else says so.
    pub(crate) fn details(&self) -> Option<&'static str> {
        match self.cause {
            Cause::BodyTooLarge { .. } if self.phase.is_response() => Some("response_payload_too_large"),
            Cause::BodyTooLarge { .. } => Some("request_payload_too_large"),
            Cause::Closed | Cause::LateAnswer => None,
            _ => Some("wasm_fail_stream"),
        }
    }
}

// === impl Cause ===

impl Cause {
    /// Every [kind](Self::kind).
    pub(crate) const KINDS: [&'static str; 16] = [
        "trap",
        "time_limit",
        "budget",
        "stream_budget",
        "exit",
        "paused",
        "invalid_header",
        "invalid_status",
        "invalid_answer",
        "body_too_large",
        "no_memory",
        "broken_off",
        "closed",
        "late_answer",
        "instance_lost",
        "no_instance",
    ];

    /// One word for metrics, the same for all causes of a kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Trap(_) => "trap",
            Self::TimeLimit { .. } => "time_limit",
            Self::Budget { .. } => "budget",
            Self::StreamBudget { .. } => "stream_budget",
            Self::Exit { .. } => "exit",
            Self::Paused => "paused",
            Self::InvalidHeader { .. } => "invalid_header",
            Self::InvalidStatus { .. } => "invalid_status",
            Self::InvalidAnswer { .. } => "invalid_answer",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::NoMemory => "no_memory",
            Self::BrokenOff => "broken_off",
            Self::Closed => "closed",
            Self::LateAnswer => "late_answer",
            Self::InstanceLost => "instance_lost",
            Self::NoInstance => "no_instance",
        }
    }

    /// Whether the guest refused the stream, in however bad a way, or could not be shown or do all that it
    /// wanted to judge by: what a plugin that fails open must not let pass, since clients could make it so.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Closed
                | Self::LateAnswer
                | Self::InvalidAnswer { .. }
                | Self::BodyTooLarge { .. }
                | Self::NoMemory
                | Self::StreamBudget { .. }
        )
    }
}

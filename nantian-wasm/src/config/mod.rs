//! What an embedder says about a plugin: plain data, nothing running.

use std::fmt;
use std::num::NonZeroUsize;

use bytes::Bytes;

mod hooks;
mod sandbox;

pub use self::hooks::{Capabilities, Hooks};
pub use self::sandbox::Sandbox;
use crate::proxy_wasm::SharedSpace;

/// A plugin: which name it runs under, what it is told, and what it may use.
///
/// `Debug` shows how long both configurations are, and the names of environment variables: what they say may
/// be secret.
///
/// ```
/// use nantian_wasm::{FailurePolicy, Hooks, PluginConfig, Sandbox};
///
/// let config = PluginConfig::new("greeter")
///     .with_configuration(r#"{"greeting":"hello"}"#)
///     .with_hooks(Hooks::NONE.with_on_request(true))
///     .with_sandbox(Sandbox::default().with_max_memory(16 << 20))
///     .with_failure_policy(FailurePolicy::FailOpen);
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PluginConfig {
    /// Name in logs, failures and the `plugin_name` property.
    ///
    /// Default: none, it is required. Source: `metadata.name` of the WasmPlugin.
    pub name: String,
    /// Selects one of several root contexts in the module (`plugin_root_id`).
    ///
    /// Default: empty, the module's only root context. Source: `WasmPlugin.spec.pluginName`.
    pub root_id: String,
    /// Name of the virtual machine (`plugin_vm_id`): plugins of one name in a [`SharedSpace`] have the same
    /// shared data and queues, and those of other names find the queues by it.
    ///
    /// Default: empty, the plugin has its own. Source: `WasmPlugin.spec.vmConfig.vmId`.
    pub vm_id: String,
    /// Where the plugin finds what it shares with others.
    ///
    /// Default: that of the plugin whose place it takes, and none where it takes nobody's: it shares nothing.
    /// Source: the namespace of the WasmPlugin.
    pub shared_space: Option<SharedSpace>,
    /// Configuration of the virtual machine, handed to `proxy_on_vm_start` byte for byte.
    ///
    /// Default: empty.
    pub vm_configuration: Bytes,
    /// Environment variables the guest sees.
    ///
    /// Default: none. Source: `WasmPlugin.spec.vmConfig.env`.
    pub environment: Vec<(String, String)>,
    /// Plugin configuration, handed to `proxy_on_configure` byte for byte.
    ///
    /// Default: empty. Source: `WasmPlugin.spec.config`.
    pub configuration: Bytes,
    /// Which callbacks run.
    ///
    /// Default: [`Hooks::ALL`]. Source: `WasmPlugin.spec.hooks`.
    pub hooks: Hooks,
    /// Host functions and callbacks the guest has.
    ///
    /// Default: all. Source: `WasmPlugin.spec.sandbox.allowedCapabilities`.
    pub capabilities: Capabilities,
    /// How the bodies of event streams are cut for the guest.
    ///
    /// Default: [`StreamFraming::Frames`]. Source: `WasmPlugin.spec.streamFraming`.
    pub stream_framing: StreamFraming,
    /// Whether a guest of Proxy-Wasm 0.1.0 to 0.2.1 that holds headers is shown the body meanwhile: as
    /// `allow_on_headers_stop_iteration` of Envoy says.
    ///
    /// Default: false, it is shown nothing before it continues them. Guests of other ABIs say which they
    /// mean. Source: `WasmPlugin.spec.allowOnHeadersStopIteration`.
    pub allow_on_headers_stop_iteration: bool,
    /// Limits of every instance.
    ///
    /// Default: 64 MiB, 100 ms, no network. Source: `WasmPlugin.spec.sandbox`.
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
            shared_space: None,
            vm_configuration: Bytes::new(),
            environment: Vec::new(),
            configuration: Bytes::new(),
            hooks: Hooks::ALL,
            capabilities: Capabilities::default(),
            stream_framing: StreamFraming::default(),
            allow_on_headers_stop_iteration: false,
            sandbox: Sandbox::default(),
            failure_policy: FailurePolicy::default(),
            instances: None,
        }
    }

    /// Sets [`root_id`](Self::root_id).
    #[must_use]
    pub fn with_root_id(mut self, id: impl Into<String>) -> Self {
        self.root_id = id.into();
        self
    }

    /// Sets [`vm_id`](Self::vm_id).
    #[must_use]
    pub fn with_vm_id(mut self, id: impl Into<String>) -> Self {
        self.vm_id = id.into();
        self
    }

    /// Sets [`shared_space`](Self::shared_space).
    #[must_use]
    pub fn with_shared_space(mut self, space: SharedSpace) -> Self {
        self.shared_space = Some(space);
        self
    }

    /// Sets [`vm_configuration`](Self::vm_configuration).
    #[must_use]
    pub fn with_vm_configuration(mut self, configuration: impl Into<Bytes>) -> Self {
        self.vm_configuration = configuration.into();
        self
    }

    /// Sets [`environment`](Self::environment).
    #[must_use]
    pub fn with_environment(
        mut self,
        variables: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Self {
        self.environment = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        self
    }

    /// Sets [`configuration`](Self::configuration).
    #[must_use]
    pub fn with_configuration(mut self, configuration: impl Into<Bytes>) -> Self {
        self.configuration = configuration.into();
        self
    }

    /// Sets [`hooks`](Self::hooks).
    #[must_use]
    pub fn with_hooks(mut self, hooks: Hooks) -> Self {
        self.hooks = hooks;
        self
    }

    /// Sets [`capabilities`](Self::capabilities).
    #[must_use]
    pub fn with_capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// Sets [`stream_framing`](Self::stream_framing).
    #[must_use]
    pub fn with_stream_framing(mut self, framing: StreamFraming) -> Self {
        self.stream_framing = framing;
        self
    }

    /// Sets [`allow_on_headers_stop_iteration`](Self::allow_on_headers_stop_iteration).
    #[must_use]
    pub fn with_allow_on_headers_stop_iteration(mut self, allow: bool) -> Self {
        self.allow_on_headers_stop_iteration = allow;
        self
    }

    /// Sets [`sandbox`](Self::sandbox).
    #[must_use]
    pub fn with_sandbox(mut self, sandbox: Sandbox) -> Self {
        self.sandbox = sandbox;
        self
    }

    /// Sets [`failure_policy`](Self::failure_policy).
    #[must_use]
    pub fn with_failure_policy(mut self, policy: FailurePolicy) -> Self {
        self.failure_policy = policy;
        self
    }

    /// Sets [`instances`](Self::instances).
    #[must_use]
    pub fn with_instances(mut self, instances: NonZeroUsize) -> Self {
        self.instances = Some(instances);
        self
    }
}

impl fmt::Debug for PluginConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variables: Vec<_> = self.environment.iter().map(|(name, _)| name).collect();
        f.debug_struct("PluginConfig")
            .field("name", &self.name)
            .field("root_id", &self.root_id)
            .field("vm_id", &self.vm_id)
            .field("shared_space", &self.shared_space)
            .field("vm_configuration_len", &self.vm_configuration.len())
            .field("environment", &variables)
            .field("configuration_len", &self.configuration.len())
            .field("hooks", &self.hooks)
            .field("capabilities", &self.capabilities)
            .field("stream_framing", &self.stream_framing)
            .field("allow_on_headers_stop_iteration", &self.allow_on_headers_stop_iteration)
            .field("sandbox", &self.sandbox)
            .field("failure_policy", &self.failure_policy)
            .field("instances", &self.instances)
            .finish()
    }
}

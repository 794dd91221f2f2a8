//! WasmPlugin: a WebAssembly module on the traffic of what it is attached to.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ai_service::SecretKeyRef,
    schema::{Hint, Rule, enforcing, has, text},
    status::PolicyStatus,
    target_ref::{LIST_RULES, MAX_TARGETS, TargetRef},
};

/// Runs a WebAssembly module on the traffic of what it is attached to.
///
/// The module follows the Proxy-Wasm ABI. Without targets it runs only where an HTTPRoute names it in an
/// `ExtensionRef` filter.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.nantian.dev",
    version = "v1alpha1",
    kind = "WasmPlugin",
    plural = "wasmplugins",
    singular = "wasmplugin",
    shortname = "wasmp",
    category = "nantian",
    category = "gateway-api",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    attr = "non_exhaustive",
    doc = "Runs a WebAssembly module on the traffic of the Gateways, routes, Services or AIServices it names.",
    printcolumn = r#"{"name": "Target", "type": "string", "jsonPath": ".spec.targetRefs[*].name"}"#,
    printcolumn = r#"{"name": "URL", "type": "string", "jsonPath": ".spec.wasm.url", "priority": 1}"#,
    printcolumn = r#"{"name": "Hooks", "type": "string", "jsonPath": ".spec.hooks[*]", "priority": 1}"#,
    printcolumn = r#"{"name": "Failure policy", "type": "string", "jsonPath": ".spec.failurePolicy"}"#,
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.ancestors[*].conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name": "Programmed", "type": "string", "jsonPath": ".status.ancestors[*].conditions[?(@.type==\"Programmed\")].status"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct WasmPluginSpec {
    /// Where the module comes from: exactly one of url, configMap and inline.
    ///
    /// Source: `spec.wasm`.
    pub wasm: WasmSource,
    /// What the module runs on, in the namespace of the plugin. On a Gateway it also sees requests that no
    /// route is for.
    ///
    /// Range: up to 16 different targets. Default: only where an ExtensionRef filter names the plugin.
    /// Source: `spec.targetRefs`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_TARGETS),
        extend("x-kubernetes-list-type" = "atomic"),
        transform = enforcing(LIST_RULES)
    )]
    pub target_refs: Vec<TargetRef>,
    /// Which moments the module is called at. With onResponse and without onStreamChunk it is shown the
    /// headers of streamed responses (server-sent events, NDJSON, gRPC) but no body. Headers that it holds
    /// until the body comes (by allowOnHeadersStopIteration, or as modules made for Higress do) go on when
    /// its call-outs for the stream are over; others wait until it continues them.
    ///
    /// Default: all that the module exports. Source: `spec.hooks`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub hooks: Vec<Hook>,
    /// Configuration handed to the module byte for byte.
    ///
    /// Unit: text, often JSON. Range: up to 1 MiB. Default: none. Source: `spec.config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1_048_576))]
    pub config: Option<String>,
    /// The root context of the module that serves the plugin (`plugin_root_id`), where it has several.
    ///
    /// Range: up to 256 characters. Default: empty, the module's only root context. Source:
    /// `spec.pluginName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub plugin_name: Option<String>,
    /// The virtual machine that the module runs in.
    ///
    /// Default: an empty environment, nothing shared. Source: `spec.vmConfig`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm_config: Option<VmConfig>,
    /// How the bodies of server-sent event streams are cut for the module.
    ///
    /// Default: Frames. Source: `spec.streamFraming`.
    #[serde(default)]
    pub stream_framing: StreamFraming,
    /// Whether a module that holds headers is shown the body meanwhile, as PluginConfig of Envoy says it:
    /// what decides about requests by their bodies needs it, such as Coraza. Modules made for Higress say
    /// themselves which they mean.
    ///
    /// Default: false, it is shown nothing before it continues them. Source:
    /// `spec.allowOnHeadersStopIteration`.
    #[serde(default)]
    pub allow_on_headers_stop_iteration: bool,
    /// What the module may use.
    ///
    /// Default: 64 MiB, 100 ms, no network, no file system. Source: `spec.sandbox`.
    #[serde(default)]
    pub sandbox: Sandbox,
    /// What becomes of a request when the module traps, exceeds a limit, or is missing; what it refuses is
    /// refused, and so is a request for which it writes more headers or makes more call-outs than one may
    /// cost: clients can bring that about.
    ///
    /// Default: FailClosed. Source: `spec.failurePolicy`.
    #[serde(default)]
    pub failure_policy: FailurePolicy,
}

/// Where a module comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = enforcing(SOURCE_RULES))]
#[non_exhaustive]
pub struct WasmSource {
    /// Address of the module, of a tar archive that contains it, either of them also compressed by gzip, or
    /// of an OCI artefact that contains it. Its server needs a certificate of an authority that the gateway's
    /// machine trusts.
    ///
    /// Range: https, http or oci. Source: `spec.wasm.url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = URL))]
    pub url: Option<String>,
    /// A ConfigMap in the namespace of the plugin.
    ///
    /// Source: `spec.wasm.configMap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapSource>,
    /// The module itself.
    ///
    /// Unit: base64. Range: 1 byte to 50 MiB of base64. Source: `spec.wasm.inline`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 52_428_800), regex(pattern = BASE64))]
    pub inline: Option<String>,
    /// Digest of the module itself, without compression and archive, verified before it is compiled.
    ///
    /// Unit: 64 hexadecimal digits. Default: not verified. Source: `spec.wasm.sha256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = SHA256))]
    pub sha256: Option<String>,
    /// A Secret in the namespace of the plugin with the credentials of the registry, of type
    /// kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg.
    ///
    /// Range: with an oci URL only. Default: the registry is asked without credentials. Source:
    /// `spec.wasm.imagePullSecret`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub image_pull_secret: Option<String>,
}

/// An entry of a ConfigMap that holds a module.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ConfigMapSource {
    /// Name of the ConfigMap in the namespace of the plugin.
    ///
    /// Range: 1 to 253 characters. Source: `spec.wasm.configMap.name`.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Entry of the ConfigMap: under binaryData, or as base64 under data.
    ///
    /// Range: 1 to 253 characters. Default: plugin.wasm. Source: `spec.wasm.configMap.key`.
    #[serde(default = "plugin_wasm")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A moment at which a module is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
#[expect(clippy::exhaustive_enums, reason = "a new hook must not compile anywhere before it is called")]
pub enum Hook {
    /// Request headers, body and trailers.
    OnRequest,
    /// Response headers, body and trailers.
    OnResponse,
    /// Each chunk of a streamed response.
    OnStreamChunk,
}

/// The virtual machine that a module runs in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct VmConfig {
    /// Name of the virtual machine (`plugin_vm_id`), as in Envoy; a WasmPlugin of Istio has none. Plugins of
    /// one name in a namespace have the same shared data and queues, and those of other names find the queues
    /// by it.
    ///
    /// Range: up to 256 characters. Default: empty, the plugin has its own. Source: `spec.vmConfig.vmId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub vm_id: Option<String>,
    /// Configuration of the virtual machine, handed to the module as it starts (proxy_on_vm_start).
    ///
    /// Unit: text. Range: up to 1 MiB. Default: none. Source: `spec.vmConfig.configuration`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1_048_576))]
    pub configuration: Option<String>,
    /// Environment variables of the module. Names and values are 128 KiB long together at most, also where
    /// they come from Secrets.
    ///
    /// Range: up to 256. Default: none. Source: `spec.vmConfig.env`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub env: Vec<EnvVar>,
}

/// An environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = enforcing(VARIABLE_RULES))]
#[non_exhaustive]
pub struct EnvVar {
    /// Its name.
    ///
    /// Range: 1 to 256 characters without an equals sign. Source: `spec.vmConfig.env[].name`.
    #[schemars(length(min = 1, max = 256), regex(pattern = VARIABLE))]
    pub name: String,
    /// Its value.
    ///
    /// Range: up to 2048 characters. Default: empty. Source: `spec.vmConfig.env[].value`.
    #[serde(default)]
    #[schemars(length(max = 2048))]
    pub value: String,
    /// Where its value comes from, in the place of `value`.
    ///
    /// Default: none. Source: `spec.vmConfig.env[].valueFrom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvVarSource>,
}

/// Where the value of an environment variable comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct EnvVarSource {
    /// An entry of a Secret in the namespace of the plugin: text of up to 32 KiB. An edit of it starts the
    /// plugin again. Secrets of the types kubernetes.io/service-account-token and helm.sh/release.v1 are not
    /// seen.
    ///
    /// Source: `spec.vmConfig.env[].valueFrom.secretKeyRef`.
    pub secret_key_ref: SecretKeyRef,
}

/// How the body of a server-sent event stream reaches a module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[expect(clippy::exhaustive_enums, reason = "a new framing must not compile anywhere before it is served")]
pub enum StreamFraming {
    /// As it arrives.
    #[default]
    Frames,
    /// In whole events.
    Events,
}

/// What a module may use.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Sandbox {
    /// Linear memory of one instance.
    ///
    /// Unit: bytes. Range: 65536 (one page) to 4294967296. Default: 67108864 (64 MiB). Source:
    /// `spec.sandbox.maxMemoryBytes`.
    #[schemars(range(min = 65_536, max = 4_294_967_296_i64))]
    pub max_memory_bytes: u64,
    /// Time of one call into the module. An instance of it may start for as long, but for a second at least
    /// and ten at most.
    ///
    /// Unit: milliseconds. Range: 1 to 60000. Default: 100. Source: `spec.sandbox.maxExecutionTimeMs`.
    #[schemars(range(min = 1, max = 60_000))]
    pub max_execution_time_ms: u64,
    /// Time that the module may hold a message before it must continue it; a call-out for the message extends
    /// it to the call-out's own time limit and a second more, in which the module hears that it was reached.
    ///
    /// Unit: milliseconds. Range: 1 to 600000. Default: 15000. Source: `spec.sandbox.maxPauseMs`.
    #[schemars(range(min = 1, max = 600_000))]
    pub max_pause_ms: u64,
    /// Bytes of one body that the module may hold back; a longer request gets 413 under either failure
    /// policy. What a module made for Higress sets as set_decoder_buffer_limit and set_encoder_buffer_limit
    /// makes it less, never more. What a call-out sends may be twice as long, but no more than 63 MiB, and 1
    /// MiB in any case.
    ///
    /// Unit: bytes. Range: 0 to 1073741824. Default: 1048576 (1 MiB). Source:
    /// `spec.sandbox.maxBufferedBodyBytes`.
    #[schemars(range(max = 1_073_741_824))]
    pub max_buffered_body_bytes: u64,
    /// The functions that the module may call and the callbacks that it is called at, by the names of the ABI
    /// and of WASI, such as proxy_log or proxy_on_request_headers.
    ///
    /// Range: 1 to 256 names. Default: all. Source: `spec.sandbox.allowedCapabilities`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 256),
        inner(length(max = 256), regex(pattern = CAPABILITY)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub allowed_capabilities: Option<Vec<String>>,
    /// Whether the module may reach the network.
    ///
    /// Default: false. Source: `spec.sandbox.allowNetwork`.
    pub allow_network: bool,
    /// Whether the module may reach files: not served yet, a plugin with true is not accepted.
    ///
    /// Default: false. Source: `spec.sandbox.allowFileSystem`.
    pub allow_file_system: bool,
}

/// What becomes of a request when the module traps, exceeds a limit, or is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[expect(clippy::exhaustive_enums, reason = "a new policy must not compile anywhere before it is enforced")]
pub enum FailurePolicy {
    /// It is refused.
    #[default]
    FailClosed,
    /// It goes on without the module.
    FailOpen,
}

pub(crate) const SOURCE_RULES: &[Rule] = &[
    Rule {
        cel: "(has(self.url) ? 1 : 0) + (has(self.configMap) ? 1 : 0) + (has(self.inline) ? 1 : 0) == 1",
        message: "exactly one of url, configMap and inline must be set",
        field: None,
        holds: |wasm| ["url", "configMap", "inline"].iter().filter(|source| has(wasm, source)).count() == 1,
    },
    Rule {
        cel: "!has(self.imagePullSecret) || (has(self.url) && self.url.startsWith('oci://'))",
        message: "is only allowed with an oci URL",
        field: Some("imagePullSecret"),
        holds: |wasm| {
            !has(wasm, "imagePullSecret") || text(wasm, "url").is_some_and(|url| url.starts_with("oci://"))
        },
    },
];

pub(crate) const VARIABLE_RULES: &[Rule] = &[Rule {
    cel: "!has(self.valueFrom) || !has(self.value) || self.value == ''",
    message: "must not be set beside value",
    field: Some("valueFrom"),
    holds: |variable| !has(variable, "valueFrom") || text(variable, "value").is_none_or(str::is_empty),
}];

const URL: &str = r"^(https?|oci)://[^\s/?#@]+(/\S*)?$";
const BASE64: &str = r"^[A-Za-z0-9+/\s]+={0,2}\s*$";
const SHA256: &str = "^[0-9a-fA-F]{64}$";
const VARIABLE: &str = "^[^=]+$";
const CAPABILITY: &str = "^[a-z][a-z0-9_]*$";

pub(crate) const HINTS: &[Hint] = &[
    Hint { pattern: URL, meaning: "an https, http or oci URL without credentials" },
    Hint { pattern: BASE64, meaning: "base64" },
    Hint { pattern: SHA256, meaning: "a SHA-256 digest of 64 hexadecimal digits" },
    Hint { pattern: VARIABLE, meaning: "a name without an equals sign" },
    Hint { pattern: CAPABILITY, meaning: "a name of lower-case letters, digits and underscores" },
];

fn plugin_wasm() -> String {
    "plugin.wasm".to_owned()
}

// === impl Sandbox ===

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            max_memory_bytes: 64 * 1024 * 1024,
            max_execution_time_ms: 100,
            max_pause_ms: 15_000,
            max_buffered_body_bytes: 1024 * 1024,
            allowed_capabilities: None,
            allow_network: false,
            allow_file_system: false,
        }
    }
}

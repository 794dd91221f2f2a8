//! The four kinds, resolved and validated.

use std::{collections::BTreeSet, fmt, time::Duration};

use nantian_crd::{AuthType, FailurePolicy, Format, Hook, OnLimit, StreamFraming};
use serde::{Serialize, Serializer};
use zeroize::Zeroize as _;

use super::{BackendId, BackendTransport, ObjectName, Policies, shown};

/// Bytes that are never shown, and wiped from memory when they are dropped.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secret(pub Vec<u8>);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[redacted]")
    }
}

/// An AIService whose references resolve.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AiService {
    /// `spec.provider`.
    pub provider: String,
    /// `spec.format`; `None` follows the provider.
    pub format: Option<Format>,
    /// `spec.model`: what the upstream sees.
    pub model: String,
    /// `spec.endpoint`: the base URL; `None` follows the provider.
    pub endpoint: Option<String>,
    /// What is below HTTP, from its BackendTLSPolicy; without one it is what the scheme of the endpoint says,
    /// verified by the authorities of the operating system.
    #[serde(skip_serializing_if = "BackendTransport::is_plain")]
    pub transport: BackendTransport,
    /// `spec.region`: of AWS; `None` follows the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// `spec.apiVersion`: of Azure OpenAI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// The credential.
    pub auth: AiAuth,
    /// `spec.timeout`, 10 minutes where it is absent; `None` is no limit, `0s`.
    #[serde(serialize_with = "shown::limit")]
    pub timeout: Option<Duration>,
    /// `spec.retry`.
    pub retry: Retry,
    /// `spec.observability`: who is told of each call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub collectors: Vec<Collector>,
    /// TokenPolicies and WasmPlugins on the AIService.
    pub policies: Policies,
}

/// Somebody who is told of calls, by OTLP over HTTP.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Collector {
    /// What it is.
    pub kind: CollectorKind,
    /// Its base URL; traces go to `/v1/traces` below it.
    pub endpoint: String,
    /// The `service.name` of what it is told.
    pub service_name: String,
    /// What is blacked out in contents before they are told, as regular expressions; `None` tells no
    /// contents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redact: Option<Vec<String>>,
    /// The value of the `authorization` header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Secret>,
    /// How many of all traces it is told, from 0 to 1; `None` are all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_rate: Option<f64>,
    /// The environment that traces belong to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The release of the application that they are of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
}

/// What a collector is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CollectorKind {
    /// Any collector: traces and metrics.
    Otlp,
    /// Langfuse: traces, with its own attributes.
    Langfuse,
}

/// How the upstream is told who calls.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AiAuth {
    /// The scheme.
    #[serde(rename = "type", serialize_with = "shown::display")]
    pub kind: AuthType,
    /// The header, if the scheme's own is not meant.
    pub header: Option<String>,
    /// The credential itself; `None` for [`AuthType::None`], and where the gateway's own identity is meant.
    pub secret: Option<Secret>,
}

impl Default for AiAuth {
    fn default() -> Self {
        Self { kind: AuthType::None, header: None, secret: None }
    }
}

/// Further attempts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Retry {
    /// Extra attempts after the first.
    pub max_retries: u32,
    /// The wait between attempts.
    pub backoff: RetryBackoff,
}

/// The wait between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum RetryBackoff {
    /// Doubled each time, with full jitter.
    Exponential(#[serde(serialize_with = "shown::duration")] Duration),
    /// Grows by this much each time.
    Linear(#[serde(serialize_with = "shown::duration")] Duration),
    /// Always this long.
    Fixed(#[serde(serialize_with = "shown::duration")] Duration),
}

impl Default for RetryBackoff {
    fn default() -> Self {
        Self::Exponential(Duration::from_millis(500))
    }
}

/// A TokenPolicy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RateLimit {
    /// The object, for messages and metrics.
    pub object: ObjectName,
    /// `spec.tokensPerMinute`; `None` is unlimited, 0 denies all.
    pub tokens_per_minute: Option<u64>,
    /// `spec.tokensPerHour`.
    pub tokens_per_hour: Option<u64>,
    /// `spec.requestsPerMinute`.
    pub requests_per_minute: Option<u64>,
    /// `spec.scope`, in the grammar of the `nantian-ratelimit` crate; valid.
    pub scope: String,
    /// `spec.burst`, at least 1.
    pub burst: f64,
    /// `spec.cachedTokenWeight`, 0 to 1.
    pub cached_token_weight: f64,
    /// `spec.onLimit`.
    pub on_limit: OnLimit,
}

/// A WasmPlugin.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plugin {
    /// The object, for messages, metrics and the guest's `plugin_name`.
    pub object: ObjectName,
    /// Where the module comes from.
    pub source: PluginSource,
    /// What the registry of an OCI URL is told, as `user:password`: from `spec.wasm.imagePullSecret`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Secret>,
    /// `spec.wasm.sha256`, lower-case hexadecimal; verified before compilation.
    pub sha256: Option<String>,
    /// `spec.hooks`; empty means all that the module has.
    pub hooks: Vec<Hook>,
    /// `spec.config`, verbatim. Only its length is shown, for it may hold credentials.
    #[serde(serialize_with = "length_only")]
    pub config: String,
    /// `spec.pluginName`: the module's root context; empty for its only one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub root_id: String,
    /// `spec.vmConfig.vmId`: what plugins of one namespace share data and queues by; empty for one that does
    /// not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vm_id: String,
    /// `spec.vmConfig.configuration`, verbatim. Only its length is shown, as of `config`.
    #[serde(skip_serializing_if = "String::is_empty", serialize_with = "length_only")]
    pub vm_configuration: String,
    /// `spec.vmConfig.env`. The values may be credentials.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<(String, Secret)>,
    /// `spec.streamFraming`.
    #[serde(serialize_with = "framing")]
    pub stream_framing: StreamFraming,
    /// `spec.allowOnHeadersStopIteration`: the guest is shown bodies while it holds headers.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_on_headers_stop_iteration: bool,
    /// Limits and capabilities.
    pub sandbox: Sandbox,
    /// The Services that the guest may call; none without `allowNetwork`.
    pub upstreams: Vec<BackendId>,
    /// What else it may refer to, for who asks why a call is not made.
    #[serde(skip)]
    pub grants: CallGrants,
    /// Whether its object says which bytes run: by a digest, or by having them.
    #[serde(skip)]
    pub is_pinned: bool,
    /// What a failing plugin does to the request.
    pub failure_policy: FailurePolicy,
}

/// The Services that a guest may refer to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallGrants {
    /// Those that are there, whether or not they have a port that it can call.
    pub services: BTreeSet<ObjectName>,
    /// Those that ReferenceGrants name, be they there or not: namespace and name, which is absent for all.
    pub granted: BTreeSet<(String, Option<String>)>,
}

/// Where a module comes from.
#[derive(Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum PluginSource {
    /// The bytes, from `inline` or a ConfigMap.
    Bytes(#[serde(serialize_with = "length_only")] Vec<u8>),
    /// To be fetched. What follows `?` is not shown, for it may be a signature that opens the place to
    /// whoever has it.
    Url(#[serde(serialize_with = "public_only")] String),
    /// Not to be had, with the reason: the failure policy applies.
    Missing(String),
}

impl PluginSource {
    /// Where the module is to be fetched from, if it is.
    pub fn url(&self) -> Option<&str> {
        match self {
            Self::Url(url) => Some(url),
            Self::Bytes(_) | Self::Missing(_) => None,
        }
    }
}

impl fmt::Debug for PluginSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::Url(url) => write!(f, "Url({})", public(url)),
            Self::Missing(reason) => write!(f, "Missing({reason})"),
        }
    }
}

/// A URL without its query.
pub(crate) fn public(url: &str) -> &str {
    url.split_once('?').map_or(url, |(public, _)| public)
}

fn public_only<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(public(url))
}

fn length_only<S: Serializer>(bytes: &impl AsRef<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{} bytes", bytes.as_ref().len()))
}

fn framing<S: Serializer>(framing: &StreamFraming, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match framing {
        StreamFraming::Frames => "frames",
        StreamFraming::Events => "events",
    })
}

/// Limits and capabilities of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sandbox {
    /// Linear memory of one instance, in bytes.
    pub max_memory_bytes: u64,
    /// Time of one call into the guest.
    #[serde(serialize_with = "shown::duration")]
    pub max_execution_time: Duration,
    /// Time that a message may be held.
    #[serde(serialize_with = "shown::duration")]
    pub max_pause: Duration,
    /// Bytes of one body that may be held.
    pub max_buffered_body_bytes: u64,
    /// Host functions and callbacks by name; `None` is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_capabilities: Option<Vec<String>>,
    /// Whether the guest may call out.
    pub allow_network: bool,
    /// Whether the guest may see files.
    pub allow_file_system: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_in_the_url_of_a_module_is_shown_nowhere() {
        let source = PluginSource::Url("https://s3.test/plugin.wasm?X-Amz-Signature=5afe".to_owned());
        let shown = [format!("{source:?}"), serde_json::to_string(&source).unwrap()];
        for shown in shown {
            assert!(shown.contains("https://s3.test/plugin.wasm") && !shown.contains("5afe"), "{shown}");
        }
    }
}

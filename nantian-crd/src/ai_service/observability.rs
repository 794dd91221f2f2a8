//! Which collectors are told of the calls to an AIService.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::BASE_URL;
use crate::{
    schema::{Hint, Rule, enforcing, has},
    secret_text::SecretText,
};

/// Who is told how the calls to one AIService went: by OTLP over HTTP, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Observability {
    /// A Langfuse project. It is told for whom a call is (`user`, `safety_identifier` or
    /// `metadata.user_id`), whether contents are told or not.
    ///
    /// Default: none. Source: `spec.observability.langfuse`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub langfuse: Option<Langfuse>,
    /// An OpenTelemetry collector, told by OTLP over HTTP in the encoding of JSON. What takes protobuf or
    /// gRPC alone is reached through a Collector.
    ///
    /// Default: none. Source: `spec.observability.otel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otel: Option<Otel>,
    /// Whether what clients ask, the tools that they offer and what models answer is told, too. How they ask
    /// for it is told in any case: the temperature, stop sequences and the like.
    ///
    /// Default: false. Source: `spec.observability.captureContent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture_content: Option<bool>,
    /// Regular expressions of what is blacked out in contents before they are told; not in names of users
    /// and stop sequences.
    ///
    /// Range: up to 16, of 1 to 256 characters. Default: none. Source: `spec.observability.redact`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 256)))]
    pub redact: Option<Vec<String>>,
}

/// A Langfuse project.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = enforcing(RULES))]
#[non_exhaustive]
pub struct Langfuse {
    /// Base URL of the server.
    ///
    /// Range: http or https. Default: `LANGFUSE_BASE_URL` or `LANGFUSE_HOST` of the gateway's environment,
    /// else Langfuse Cloud. Source: `spec.observability.langfuse.host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = BASE_URL))]
    pub host: Option<String>,
    /// Public key of the project.
    ///
    /// Default: `LANGFUSE_PUBLIC_KEY` of the gateway's environment, where `host` is the environment's, too.
    /// Source: `spec.observability.langfuse.publicKey`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub public_key: Option<String>,
    /// Secret that holds the public key of the project; not together with publicKey.
    ///
    /// Source: `spec.observability.langfuse.publicKeyRef`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key_ref: Option<SecretKeyRef>,
    /// Secret key of the project in plain text; prefer secretKeyRef.
    ///
    /// Source: `spec.observability.langfuse.secretKey`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key: Option<SecretText>,
    /// Secret that holds the secret key of the project; not together with secretKey.
    ///
    /// Default: `LANGFUSE_SECRET_KEY` of the gateway's environment, where `host` is the environment's, too.
    /// Source: `spec.observability.langfuse.secretKeyRef`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
    /// How many of all traces are told. The lower half of a trace's id decides, as in most of OpenTelemetry's
    /// libraries: all of a trace is told, or nothing.
    ///
    /// Unit: share of all traces. Range: 0 to 1. Default: 1.
    /// Source: `spec.observability.langfuse.sampleRate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub sample_rate: Option<f64>,
    /// Environment that traces belong to.
    ///
    /// Range: 1 to 40 lower-case letters, digits, hyphens and underscores, not beginning with langfuse.
    /// Default: Langfuse's, which is default. Source: `spec.observability.langfuse.environment`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40), regex(pattern = ENVIRONMENT))]
    pub environment: Option<String>,
    /// Release of the application that traces are of.
    ///
    /// Range: 1 to 200 characters. Default: none. Source: `spec.observability.langfuse.release`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    pub release: Option<String>,
}

/// An entry of a Secret in the namespace of the object. Gateways do not see Secrets of the type
/// kubernetes.io/service-account-token or helm.sh/release.v1.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SecretKeyRef {
    /// Name of the Secret.
    ///
    /// Range: 1 to 253 characters. Source: `name` of `spec.observability.langfuse.publicKeyRef` and
    /// `secretKeyRef` of an AIService, and of `spec.vmConfig.env[].valueFrom.secretKeyRef` of a WasmPlugin.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Entry of the Secret.
    ///
    /// Range: 1 to 253 characters. Default: its only entry. Source: `key` of the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}

/// An OpenTelemetry collector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Otel {
    /// Address of the collector, with or without http or https; traces go to /v1/traces below it, metrics to
    /// /v1/metrics.
    ///
    /// Range: a URL or host:port, without credentials, query or fragment. Default: http://localhost:4318;
    /// without a scheme, http and port 4318. Source: `spec.observability.otel.endpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = COLLECTOR))]
    pub endpoint: Option<String>,
    /// The `service.name` that spans carry.
    ///
    /// Range: 1 to 253 characters. Default: nantian-gateway. Source: `spec.observability.otel.serviceName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_name: Option<String>,
}

pub(crate) const RULES: &[Rule] = &[
    Rule {
        cel: "!(has(self.publicKey) && has(self.publicKeyRef))",
        message: "is not allowed together with publicKey",
        field: Some("publicKeyRef"),
        holds: |langfuse| !(has(langfuse, "publicKey") && has(langfuse, "publicKeyRef")),
    },
    Rule {
        cel: "!(has(self.secretKey) && has(self.secretKeyRef))",
        message: "is not allowed together with secretKey",
        field: Some("secretKeyRef"),
        holds: |langfuse| !(has(langfuse, "secretKey") && has(langfuse, "secretKeyRef")),
    },
    Rule {
        cel: "!has(self.environment) || !self.environment.startsWith('langfuse')",
        message: "must not begin with langfuse",
        field: Some("environment"),
        holds: |langfuse| {
            let environment = langfuse.get("environment").and_then(Value::as_str);
            environment.is_none_or(|environment| !environment.starts_with("langfuse"))
        },
    },
];

const ENVIRONMENT: &str = "^[a-z0-9_-]+$";

const COLLECTOR: &str = r"^(https?://)?[^\s/?#@:]+(:[0-9]{1,5})?(/[^\s?#]*)?$";

pub(crate) const HINTS: &[Hint] = &[
    Hint { pattern: COLLECTOR, meaning: "a URL or host:port without credentials, query or fragment" },
    Hint { pattern: ENVIRONMENT, meaning: "lower-case letters, digits, hyphens and underscores" },
];

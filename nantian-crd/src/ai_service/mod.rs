//! AIService: one model at one provider, as a backend of routes.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    as_written::AsWritten,
    duration::Duration,
    schema::{Hint, Rule, enforcing, has, text},
    status::AiServiceStatus,
};

mod auth;
mod observability;
mod retry;

pub use self::{
    auth::{Auth, AuthType, InvalidAuthType},
    observability::{Langfuse, Observability, Otel, SecretKeyRef},
    retry::{Backoff, InvalidBackoff, Retry},
};
pub(crate) use self::{
    auth::{HINTS as AUTH_HINTS, RULES as AUTH_RULES},
    observability::{HINTS as OBSERVABILITY_HINTS, RULES as OBSERVABILITY_RULES},
    retry::HINTS as RETRY_HINTS,
};

/// One model at one provider, as a backend of routes.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.nantian.dev",
    version = "v1alpha1",
    kind = "AIService",
    root = "AiService",
    plural = "aiservices",
    singular = "aiservice",
    shortname = "aisvc",
    category = "nantian",
    category = "gateway-api",
    namespaced,
    status = "AiServiceStatus",
    derive = "PartialEq",
    attr = "non_exhaustive",
    doc = "One model at one LLM provider. An HTTPRoute names it as a backend. Of several in a rule each request goes to the one that its body names by its name or spec.model, if only one has that, else to one by weight, and on to the others where it fails; one of weight 0 is never asked.",
    printcolumn = r#"{"name": "Provider", "type": "string", "jsonPath": ".spec.provider"}"#,
    printcolumn = r#"{"name": "Model", "type": "string", "jsonPath": ".spec.model"}"#,
    printcolumn = r#"{"name": "Endpoint", "type": "string", "jsonPath": ".spec.endpoint", "priority": 1}"#,
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name": "Programmed", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Programmed\")].status"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = enforcing(RULES))]
#[non_exhaustive]
pub struct AiServiceSpec {
    /// Who serves the model. A known provider brings its own format and endpoint; any other name needs both.
    ///
    /// Known, in any case: anthropic, azure-openai (with its endpoint), bedrock (with its region), cerebras,
    /// deepseek, fireworks, gemini, groq, llamacpp, lmstudio, mistral, moonshot, nvidia, ollama, openai,
    /// openrouter, together, vllm, xai.
    ///
    /// Range: 1 to 63 characters. Source: `spec.provider`.
    #[schemars(length(min = 1, max = 63))]
    pub provider: String,
    /// The dialect the provider speaks.
    ///
    /// Default: by provider. Source: `spec.format`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// The model as the provider names it; the provider always sees this name.
    ///
    /// Range: 1 to 256 characters. Source: `spec.model`.
    #[schemars(length(min = 1, max = 256))]
    pub model: String,
    /// Base URL of the provider, with its path prefix. Its certificate is verified by the authorities of the
    /// operating system, unless a BackendTLSPolicy targets the AIService. At Vertex AI it ends in
    /// /publishers/google for gemini, and in /publishers/anthropic for anthropic.
    ///
    /// Range: http or https, without credentials, query or fragment. Default: by provider; azure-openai has
    /// none. Source: `spec.endpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = BASE_URL))]
    pub endpoint: Option<String>,
    /// Region of AWS that the model is asked in, and that requests are signed for.
    ///
    /// Range: lower-case letters, digits and dashes; only for Bedrock and with auth of type aws. Default: the
    /// one that the host of the endpoint names. Source: `spec.region`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = REGION))]
    pub region: Option<String>,
    /// Version of the API of Azure OpenAI. A dated one, such as 2024-10-21, asks a deployment that has the
    /// model's name.
    ///
    /// Range: letters, digits, dashes, dots and underscores; only for azure-openai. Default: the v1 API,
    /// which needs none. Source: `spec.apiVersion`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = API_VERSION))]
    pub api_version: Option<String>,
    /// How the gateway authenticates to the provider. The client's own credential is never forwarded.
    ///
    /// Default: no credential. Source: `spec.auth`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// Time for a whole buffered reply; for a stream, time to its first token and then between tokens. Only
    /// when it is over, another AIService of the rule is asked in the place of a provider that says nothing.
    ///
    /// Unit: GEP-2257 duration, 0s for no bound. Default: 10m. Source: `spec.timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<AsWritten<Duration>>,
    /// Further attempts after a failure, before the first byte reached the client.
    ///
    /// Default: none. Source: `spec.retry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Where traces of the calls go.
    ///
    /// Default: nowhere. Source: `spec.observability`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observability: Option<Box<Observability>>,
}

/// A dialect of LLM APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, description = "")]
#[expect(clippy::exhaustive_enums, reason = "a new dialect must not compile anywhere before it is spoken")]
pub enum Format {
    /// OpenAI's own.
    #[serde(rename = "openai")]
    OpenAi,
    /// OpenAI Responses, for all conversations. Without it, a provider that is known to have them gets those
    /// of its clients.
    #[serde(rename = "openai-responses")]
    OpenAiResponses,
    /// What most other providers have made of OpenAI's.
    #[serde(rename = "openai-compat")]
    OpenAiCompat,
    /// Anthropic Messages.
    #[serde(rename = "anthropic")]
    Anthropic,
    /// AWS Bedrock's Converse.
    #[serde(rename = "bedrock")]
    Bedrock,
    /// Google's generateContent.
    #[serde(rename = "gemini")]
    Gemini,
    /// Ollama's native API.
    #[serde(rename = "ollama")]
    Ollama,
}

/// The providers whose format and endpoint need not be given, in alphabetical order.
pub const KNOWN_PROVIDERS: &[&str] = &[
    "anthropic",
    "azure-openai",
    "bedrock",
    "cerebras",
    "deepseek",
    "fireworks",
    "gemini",
    "groq",
    "llamacpp",
    "lmstudio",
    "mistral",
    "moonshot",
    "nvidia",
    "ollama",
    "openai",
    "openrouter",
    "together",
    "vllm",
    "xai",
];

pub(crate) const RULES: &[Rule] = &[
    Rule {
        cel: "self.provider.lowerAscii() in ['anthropic', 'azure-openai', 'bedrock', 'cerebras', 'deepseek', 'fireworks', 'gemini', \
          'groq', 'llamacpp', 'lmstudio', 'mistral', 'moonshot', 'nvidia', 'ollama', 'openai', 'openrouter', 'together', 'vllm', 'xai'] || \
          (has(self.format) && has(self.endpoint))",
        message: "is not a known provider, so format and endpoint must be set; known: anthropic, azure-openai, bedrock, \
              cerebras, deepseek, fireworks, gemini, groq, llamacpp, lmstudio, mistral, moonshot, nvidia, ollama, openai, openrouter, \
              together, vllm, xai",
        field: Some("provider"),
        holds: |spec| {
            let known = |name: &str| KNOWN_PROVIDERS.iter().any(|known| known.eq_ignore_ascii_case(name));
            text(spec, "provider").is_none_or(known) || (has(spec, "format") && has(spec, "endpoint"))
        },
    },
    Rule {
        cel: "self.provider.lowerAscii() != 'azure-openai' || has(self.endpoint)",
        message: "is required for azure-openai",
        field: Some("endpoint"),
        holds: |spec| !is_provider(spec, "azure-openai") || has(spec, "endpoint"),
    },
    Rule {
        cel: "self.provider.lowerAscii() != 'bedrock' || has(self.region) || has(self.endpoint)",
        message: "is required for bedrock unless endpoint is set",
        field: Some("region"),
        holds: |spec| !is_provider(spec, "bedrock") || has(spec, "region") || has(spec, "endpoint"),
    },
    Rule {
        cel: "!has(self.apiVersion) || self.provider.lowerAscii() == 'azure-openai'",
        message: "is only for azure-openai",
        field: Some("apiVersion"),
        holds: |spec| !has(spec, "apiVersion") || is_provider(spec, "azure-openai"),
    },
];

fn is_provider(spec: &serde_json::Value, name: &str) -> bool {
    text(spec, "provider").is_some_and(|provider| provider.eq_ignore_ascii_case(name))
}

const REGION: &str = "^[a-z0-9-]+$";

const API_VERSION: &str = "^[A-Za-z0-9._-]+$";

const BASE_URL: &str = r"^https?://[^\s/?#@]+(/[^\s?#]*)?$";

pub(crate) const HINTS: &[Hint] = &[
    Hint { pattern: BASE_URL, meaning: "an http or https URL without credentials, query or fragment" },
    Hint { pattern: REGION, meaning: "lower-case letters, digits and dashes" },
    Hint { pattern: API_VERSION, meaning: "letters, digits, dashes, dots and underscores" },
];

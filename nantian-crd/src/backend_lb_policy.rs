//! BackendLBPolicy: how requests are spread over the endpoints of a Service.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    http_token,
    schema::{Rule, enforcing, has, text},
    session_persistence::SessionPersistence,
    status::PolicyStatus,
    target_ref::{MAX_TARGETS, ServiceRef},
};

/// Chooses how requests are spread over the endpoints of a Service.
///
/// A session wins over a hash, a hash over the strategy.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1alpha2",
    kind = "BackendLBPolicy",
    root = "BackendLbPolicy",
    plural = "backendlbpolicies",
    singular = "backendlbpolicy",
    shortname = "blbpolicy",
    category = "nantian",
    category = "gateway-api",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    attr = "non_exhaustive",
    doc = "Chooses how requests are spread over the endpoints of the Services it names.",
    printcolumn = r#"{"name": "Target", "type": "string", "jsonPath": ".spec.targetRefs[*].name"}"#,
    printcolumn = r#"{"name": "Type", "type": "string", "jsonPath": ".spec.loadBalancing.type"}"#,
    printcolumn = r#"{"name": "Hash key", "type": "string", "jsonPath": ".spec.loadBalancing.consistentHash.keyType", "priority": 1}"#,
    printcolumn = r#"{"name": "Session", "type": "string", "jsonPath": ".spec.sessionPersistence.type"}"#,
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.ancestors[*].conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = enforcing(RULES))]
#[non_exhaustive]
pub struct BackendLbPolicySpec {
    /// The Services the policy applies to, in its own namespace.
    ///
    /// Range: 1 to 16 different Services. Source: `spec.targetRefs`.
    #[schemars(
        length(min = 1, max = MAX_TARGETS),
        extend("x-kubernetes-list-type" = "map"),
        extend("x-kubernetes-list-map-keys" = ["group", "kind", "name"])
    )]
    pub target_refs: Vec<ServiceRef>,
    /// How an endpoint is chosen.
    ///
    /// Default: round robin. Source: `spec.loadBalancing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancing: Option<LoadBalancing>,
    /// How a client stays with its endpoint.
    ///
    /// Default: it does not. Source: `spec.sessionPersistence`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
    /// What an endpoint is spared.
    ///
    /// Default: no bound. Source: `spec.circuitBreaker`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = enforcing(BALANCING_RULES))]
#[non_exhaustive]
pub struct LoadBalancing {
    /// The strategy.
    ///
    /// Default: ConsistentHash if its block is present, else RoundRobin. Source: `spec.loadBalancing.type`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<LoadBalancingType>,
    /// What ConsistentHash hashes; required with it, refused without it.
    ///
    /// Source: `spec.loadBalancing.consistentHash`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistent_hash: Option<ConsistentHash>,
}

/// A strategy for choosing an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, description = "")]
#[expect(clippy::exhaustive_enums, reason = "a new strategy must not compile anywhere before it is enforced")]
pub enum LoadBalancingType {
    /// Each endpoint in turn.
    #[default]
    RoundRobin,
    /// The endpoint that the hash of a key falls on.
    ConsistentHash,
    /// The less loaded of two endpoints drawn at random.
    LeastRequest,
    /// Any endpoint.
    Random,
}

/// What ConsistentHash hashes. A request without the key falls back to least request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = enforcing(HASH_RULES))]
#[non_exhaustive]
pub struct ConsistentHash {
    /// Where the key is read from.
    ///
    /// Source: `spec.loadBalancing.consistentHash.keyType`.
    pub key_type: HashKeyType,
    /// The header that holds the key; required with keyType Header, refused without it.
    ///
    /// Range: an HTTP header name of up to 253 characters. Source:
    /// `spec.loadBalancing.consistentHash.headerName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = http_token::PATTERN))]
    pub header_name: Option<String>,
}

/// Where the key of a hash is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[expect(clippy::exhaustive_enums, reason = "a new key must not compile anywhere before it is enforced")]
pub enum HashKeyType {
    /// The address of the client.
    #[serde(rename = "SourceIP")]
    SourceIp,
    /// A request header.
    Header,
    /// The host the request is for.
    Hostname,
}

/// What an endpoint is spared.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct CircuitBreaker {
    /// Requests that one endpoint may have in flight.
    ///
    /// Unit: requests. Range: 1 to 2147483647. Source: `spec.circuitBreaker.maxInflightRequests`.
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub max_inflight_requests: u32,
}

pub(crate) const RULES: &[Rule] = &[Rule {
    cel: "has(self.loadBalancing) || has(self.sessionPersistence) || has(self.circuitBreaker)",
    message: "at least one of loadBalancing, sessionPersistence and circuitBreaker must be set",
    field: None,
    holds: |spec| {
        ["loadBalancing", "sessionPersistence", "circuitBreaker"].iter().any(|part| has(spec, part))
    },
}];

pub(crate) const BALANCING_RULES: &[Rule] = &[
    Rule {
        cel: "!has(self.type) || self.type != 'ConsistentHash' || has(self.consistentHash)",
        message: "is required for type ConsistentHash",
        field: Some("consistentHash"),
        holds: |balancing| {
            text(balancing, "type") != Some("ConsistentHash") || has(balancing, "consistentHash")
        },
    },
    Rule {
        cel: "!has(self.consistentHash) || !has(self.type) || self.type == 'ConsistentHash'",
        message: "is only allowed for type ConsistentHash",
        field: Some("consistentHash"),
        holds: |balancing| {
            !has(balancing, "consistentHash")
                || !matches!(text(balancing, "type"), Some("RoundRobin" | "LeastRequest" | "Random"))
        },
    },
];

pub(crate) const HASH_RULES: &[Rule] = &[
    Rule {
        cel: "self.keyType != 'Header' || has(self.headerName)",
        message: "is required for keyType Header",
        field: Some("headerName"),
        holds: |hash| text(hash, "keyType") != Some("Header") || has(hash, "headerName"),
    },
    Rule {
        cel: "!has(self.headerName) || self.keyType == 'Header'",
        message: "is only allowed for keyType Header",
        field: Some("headerName"),
        holds: |hash| {
            !has(hash, "headerName") || !matches!(text(hash, "keyType"), Some("SourceIP" | "Hostname"))
        },
    },
];

// === impl LoadBalancing ===

impl LoadBalancing {
    /// The strategy in force: the one named, else ConsistentHash if its block is present, else RoundRobin.
    pub fn effective_type(&self) -> LoadBalancingType {
        match (self.type_, &self.consistent_hash) {
            (Some(type_), _) => type_,
            (None, Some(_)) => LoadBalancingType::ConsistentHash,
            (None, None) => LoadBalancingType::RoundRobin,
        }
    }
}

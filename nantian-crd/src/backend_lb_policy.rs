//! BackendLBPolicy: how requests are spread over the endpoints of a Service.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    as_written::AsWritten,
    duration::Duration,
    http_token,
    schema::{Hint, Rule, child, enforcing, has, text},
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

/// How a client stays with its endpoint (session persistence of Gateway API, GEP-1619).
///
/// It has two shapes, which are not mixed: `sessionName` and `cookieConfig`, as in Gateway API 1.1 to 1.4, or
/// `cookie` and `header`, as it was redesigned later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = enforcing(SESSION_RULES))]
#[non_exhaustive]
pub struct SessionPersistence {
    /// Name of the cookie or of the header.
    ///
    /// Range: an HTTP token of up to 128 characters. Default: derived from the policy. Source:
    /// `spec.sessionPersistence.sessionName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = http_token::PATTERN))]
    pub session_name: Option<String>,
    /// Age at which a session ends, however busy it is.
    ///
    /// Unit: GEP-2257 duration. Default: never. Source: `spec.sessionPersistence.absoluteTimeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absolute_timeout: Option<AsWritten<Duration>>,
    /// Time without a request after which a session ends.
    ///
    /// Unit: GEP-2257 duration. Default: never. Source: `spec.sessionPersistence.idleTimeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<AsWritten<Duration>>,
    /// Whether a cookie or a header carries the session.
    ///
    /// Default: Cookie. Source: `spec.sessionPersistence.type`.
    #[serde(default, rename = "type")]
    pub type_: SessionPersistenceType,
    /// Only with type Cookie.
    ///
    /// Default: a session cookie. Source: `spec.sessionPersistence.cookieConfig`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie_config: Option<CookieConfig>,
    /// The cookie; only with type Cookie, and in place of sessionName and cookieConfig.
    ///
    /// Source: `spec.sessionPersistence.cookie`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<SessionCookie>,
    /// The header; only with type Header, and in place of sessionName.
    ///
    /// Source: `spec.sessionPersistence.header`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<SessionHeader>,
}

/// Whether a cookie or a header carries the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[expect(clippy::exhaustive_enums, reason = "a new carrier must not compile anywhere before it is enforced")]
pub enum SessionPersistenceType {
    /// A cookie that the gateway sets.
    #[default]
    Cookie,
    /// A response header that the client sends back.
    Header,
}

/// How the session cookie behaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct CookieConfig {
    /// Whether the cookie outlives the browser session; Permanent needs absoluteTimeout.
    ///
    /// Default: Session. Source: `spec.sessionPersistence.cookieConfig.lifetimeType`.
    #[serde(default)]
    pub lifetime_type: CookieLifetime,
}

/// The cookie that carries a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SessionCookie {
    /// Its name.
    ///
    /// Range: an HTTP token of up to 128 characters. Default: one for each rule. Source:
    /// `spec.sessionPersistence.cookie.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = http_token::PATTERN))]
    pub name: Option<String>,
    /// The path for which clients send it.
    ///
    /// Default: /. Source: `spec.sessionPersistence.cookie.path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = PATH))]
    pub path: Option<String>,
    /// Whether it outlives the browser session; Permanent needs absoluteTimeout.
    ///
    /// Default: Session. Source: `spec.sessionPersistence.cookie.lifetimeType`.
    #[serde(default)]
    pub lifetime_type: CookieLifetime,
}

/// The header that carries a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SessionHeader {
    /// Its name.
    ///
    /// Range: an HTTP token of up to 128 characters. Default: one for each rule. Source:
    /// `spec.sessionPersistence.header.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = http_token::PATTERN))]
    pub name: Option<String>,
}

/// A path that can stand in a cookie.
const PATH: &str = "^/[!-:<-~]*$";

pub(crate) const HINTS: &[Hint] =
    &[Hint { pattern: PATH, meaning: "an absolute path without blanks and semicolons" }];

/// Whether the session cookie outlives the browser session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[expect(clippy::exhaustive_enums, reason = "a new lifetime must not compile anywhere before it is enforced")]
pub enum CookieLifetime {
    /// It has no Max-Age.
    #[default]
    Session,
    /// It has a Max-Age of absoluteTimeout.
    Permanent,
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

pub(crate) const SESSION_RULES: &[Rule] = &[
    Rule {
        cel: "!has(self.cookieConfig) || !has(self.cookieConfig.lifetimeType) || \
              self.cookieConfig.lifetimeType != 'Permanent' || has(self.absoluteTimeout)",
        message: "is required for cookieConfig.lifetimeType Permanent",
        field: Some("absoluteTimeout"),
        holds: |session| {
            let lifetime = child(session, "cookieConfig").and_then(|cookie| text(cookie, "lifetimeType"));
            lifetime != Some("Permanent") || has(session, "absoluteTimeout")
        },
    },
    Rule {
        cel: "!has(self.cookieConfig) || !has(self.type) || self.type == 'Cookie'",
        message: "is only allowed for type Cookie",
        field: Some("cookieConfig"),
        holds: |session| !has(session, "cookieConfig") || text(session, "type") != Some("Header"),
    },
    Rule {
        cel: "!has(self.cookie) || !has(self.cookie.lifetimeType) || \
              self.cookie.lifetimeType != 'Permanent' || has(self.absoluteTimeout)",
        message: "is required for cookie.lifetimeType Permanent",
        field: Some("absoluteTimeout"),
        holds: |session| {
            let lifetime = child(session, "cookie").and_then(|cookie| text(cookie, "lifetimeType"));
            lifetime != Some("Permanent") || has(session, "absoluteTimeout")
        },
    },
    Rule {
        cel: "!has(self.cookie) || !has(self.type) || self.type == 'Cookie'",
        message: "is only allowed for type Cookie",
        field: Some("cookie"),
        holds: |session| !has(session, "cookie") || text(session, "type") != Some("Header"),
    },
    Rule {
        cel: "!has(self.header) || (has(self.type) && self.type == 'Header')",
        message: "is only allowed for type Header",
        field: Some("header"),
        holds: |session| {
            let type_ = child(session, "type");
            !has(session, "header") || !(type_.is_none() || text(session, "type") == Some("Cookie"))
        },
    },
    Rule {
        cel: "!has(self.cookie) || !(has(self.sessionName) || has(self.cookieConfig))",
        message: "is not allowed beside sessionName and cookieConfig",
        field: Some("cookie"),
        holds: |session| {
            !has(session, "cookie") || !(has(session, "sessionName") || has(session, "cookieConfig"))
        },
    },
    Rule {
        cel: "!has(self.header) || !has(self.sessionName)",
        message: "is not allowed beside sessionName",
        field: Some("header"),
        holds: |session| !has(session, "header") || !has(session, "sessionName"),
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

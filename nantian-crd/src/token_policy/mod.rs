//! TokenPolicy: limits on requests and LLM tokens.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    as_written::AsWritten,
    schema::{Rule, enforcing, has},
    status::PolicyStatus,
    target_ref::{LIST_RULES, MAX_TARGETS, TargetRef},
};

mod scope;

pub(crate) use self::scope::HINTS;
pub use self::scope::{InvalidScope, Scope, ScopePart};

/// Limits requests and LLM tokens on what it is attached to.
///
/// All limits of a policy are decided together: a request that one of them refuses costs nothing in the
/// others. An absent limit is unlimited, 0 denies everything.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.nantian.dev",
    version = "v1alpha1",
    kind = "TokenPolicy",
    plural = "tokenpolicies",
    singular = "tokenpolicy",
    shortname = "tokpol",
    category = "nantian",
    category = "gateway-api",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    attr = "non_exhaustive",
    doc = "Limits requests and LLM tokens on the Gateways, routes, Services or AIServices it names.",
    printcolumn = r#"{"name": "Target", "type": "string", "jsonPath": ".spec.targetRefs[*].name"}"#,
    printcolumn = r#"{"name": "Tokens/min", "type": "integer", "jsonPath": ".spec.tokensPerMinute"}"#,
    printcolumn = r#"{"name": "Tokens/h", "type": "integer", "jsonPath": ".spec.tokensPerHour"}"#,
    printcolumn = r#"{"name": "Requests/min", "type": "integer", "jsonPath": ".spec.requestsPerMinute"}"#,
    printcolumn = r#"{"name": "Scope", "type": "string", "jsonPath": ".spec.scope"}"#,
    printcolumn = r#"{"name": "On limit", "type": "string", "jsonPath": ".spec.onLimit", "priority": 1}"#,
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.ancestors[*].conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = enforcing(RULES))]
#[non_exhaustive]
pub struct TokenPolicySpec {
    /// What the limits apply to, in the namespace of the policy.
    ///
    /// Range: 1 to 16 different targets. Source: `spec.targetRefs`.
    #[schemars(
        length(min = 1, max = MAX_TARGETS),
        extend("x-kubernetes-list-type" = "atomic"),
        transform = enforcing(LIST_RULES)
    )]
    pub target_refs: Vec<TargetRef>,
    /// LLM tokens admitted per minute, prompt plus completion.
    ///
    /// Unit: tokens. Range: 0 to 60000000000, one per nanosecond; 0 denies everything. Default: unlimited.
    /// Source: `spec.tokensPerMinute`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 60_000_000_000_i64))]
    pub tokens_per_minute: Option<i64>,
    /// LLM tokens admitted per hour, prompt plus completion.
    ///
    /// Unit: tokens. Range: 0 to 3600000000000, one per nanosecond; 0 denies everything. Default: unlimited.
    /// Source: `spec.tokensPerHour`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3_600_000_000_000_i64))]
    pub tokens_per_hour: Option<i64>,
    /// Requests admitted per minute.
    ///
    /// Unit: requests. Range: 0 to 60000000000, one per nanosecond; 0 denies everything. Default: unlimited.
    /// Source: `spec.requestsPerMinute`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 60_000_000_000_i64))]
    pub requests_per_minute: Option<i64>,
    /// Who shares a limit: one or more of these words, joined with +. Each combination of what they name has
    /// a bucket of its own.
    ///
    /// route: the requests of one HTTPRoute or GRPCRoute, so that a policy on a Gateway limits each of its
    /// routes for itself. global: all that the policy is attached to. gateway: those that came through one
    /// Gateway. model: those for one model. apiKey: those with one credential, from Authorization, x-api-key,
    /// api-key, x-goog-api-key or the query's key; it is not verified here, and any invented key gets a
    /// bucket of its own, so authenticate in front, or limit by ip or global in another policy, too; tokens
    /// that are renewed (OAuth, JWT) get a new bucket each time: where clients have such, limit by a header
    /// that whoever verifies them sets. user: those of one user, as Basic credentials or the body name it,
    /// which is not verified either. ip: those of one address of a client, or one network of IPv6, of 64 bits
    /// unless the gateway has another --client-ipv6-prefix. header:NAME: those with one value of it.
    ///
    /// A gateway keeps 131072 callers of a policy apart at once; what comes beyond them shares a few buckets.
    /// CORS preflights that lack an apiKey, user or header:NAME of the scope, as those of browsers do, do not
    /// count; a policy by ip, on the Gateway for instance, bounds them, too.
    ///
    /// Default: route. Source: `spec.scope`.
    #[serde(default = "route")]
    pub scope: AsWritten<Scope>,
    /// How much of an idle window can be spent at once, as a multiple of the limit. The sustained rate stays
    /// the limit, but the first window after a pause may have up to 1 + burst times the limit, by default
    /// twice the limit: what can be spent at once, and what refills meanwhile.
    ///
    /// Unit: multiple of each limit. Range: 1 to 1000. Default: 1. Source: `spec.burst`.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub burst: f64,
    /// How much a token counts that the provider has read from its cache of prompts. Most providers do not
    /// count them against their own limits, and agents send a long prompt again with each turn.
    ///
    /// Unit: share of a token. Range: 0 to 1. Default: 1. Source: `spec.cachedTokenWeight`.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1))]
    pub cached_token_weight: f64,
    /// What becomes of a request over a limit.
    ///
    /// Default: reject. Source: `spec.onLimit`.
    #[serde(default)]
    pub on_limit: OnLimit,
}

/// What becomes of a request over a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
#[expect(clippy::exhaustive_enums, reason = "a new answer must not compile anywhere before it is enforced")]
pub enum OnLimit {
    /// It is answered 429.
    #[default]
    Reject,
    /// It waits in a bounded queue, then is answered 429.
    Queue,
    /// It is counted, and logged at debug level, never refused; clients are not told where the limits stand.
    Warn,
}

pub(crate) const RULES: &[Rule] = &[Rule {
    cel: "has(self.tokensPerMinute) || has(self.tokensPerHour) || has(self.requestsPerMinute)",
    message: "at least one of tokensPerMinute, tokensPerHour and requestsPerMinute must be set",
    field: None,
    holds: |spec| {
        ["tokensPerMinute", "tokensPerHour", "requestsPerMinute"].iter().any(|limit| has(spec, limit))
    },
}];

fn route() -> AsWritten<Scope> {
    Scope::default().into()
}

fn one() -> f64 {
    1.0
}

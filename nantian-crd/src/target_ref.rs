//! What policies attach to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::schema::{Hint, Rule, enforcing, has, items, text};

/// The API group of Gateway, ListenerSet, HTTPRoute and GRPCRoute.
pub const GATEWAY_API_GROUP: &str = "gateway.networking.k8s.io";
/// The API group of AIService, TokenPolicy and WasmPlugin.
pub const NANTIAN_GROUP: &str = "gateway.nantian.dev";

/// What a TokenPolicy or a WasmPlugin attaches to, in its own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = enforcing(REF_RULES))]
#[non_exhaustive]
pub struct TargetRef {
    /// API group of the target; empty for Service.
    ///
    /// Range: the group of `kind`. Source: `spec.targetRefs[].group`.
    #[schemars(length(max = 253), regex(pattern = GROUP))]
    pub group: String,
    /// Kind of the target.
    ///
    /// Source: `spec.targetRefs[].kind`.
    pub kind: TargetKind,
    /// Name of the target in the namespace of the policy.
    ///
    /// Range: 1 to 253 characters. Source: `spec.targetRefs[].name`.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// One listener of a Gateway or a ListenerSet, or one named rule of a route.
    ///
    /// Default: the whole target. Range: only with Gateway, ListenerSet, HTTPRoute and GRPCRoute. Source:
    /// `spec.targetRefs[].sectionName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_NAME))]
    pub section_name: Option<String>,
}

/// The kinds that a TokenPolicy or a WasmPlugin can attach to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a new target must not compile anywhere before it is attached to"
)]
pub enum TargetKind {
    /// All routes of a Gateway, or of one of its listeners.
    Gateway,
    /// All routes of a ListenerSet, or of one of its listeners.
    ListenerSet,
    /// An HTTPRoute, or one of its named rules.
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    /// A GRPCRoute, or one of its named rules.
    #[serde(rename = "GRPCRoute")]
    GrpcRoute,
    /// A Service, wherever a route sends to it.
    Service,
    /// An AIService, wherever a route sends to it.
    #[serde(rename = "AIService")]
    AiService,
}

/// The Service that a BackendLBPolicy attaches to, in its own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ServiceRef {
    /// API group of the target: the core group, which is empty.
    ///
    /// Source: `spec.targetRefs[].group`.
    #[schemars(extend("enum" = [""]))]
    pub group: String,
    /// Kind of the target: `Service`.
    ///
    /// Source: `spec.targetRefs[].kind`.
    #[schemars(extend("enum" = ["Service"]))]
    pub kind: String,
    /// Name of the Service in the namespace of the policy.
    ///
    /// Range: 1 to 253 characters. Source: `spec.targetRefs[].name`.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The same limit the Gateway API sets on its policies.
pub(crate) const MAX_TARGETS: u64 = 16;

pub(crate) const DNS_NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const GROUP: &str = r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

pub(crate) const HINTS: &[Hint] = &[
    Hint { pattern: DNS_NAME, meaning: "a DNS name of lower-case letters, digits, hyphens and dots" },
    Hint { pattern: GROUP, meaning: "an API group: empty, or a DNS name" },
];

/// Rules on one reference.
pub(crate) const REF_RULES: &[Rule] = &[
    Rule {
        cel: "self.kind in ['Gateway', 'ListenerSet', 'HTTPRoute', 'GRPCRoute'] ? self.group == 'gateway.networking.k8s.io' : \
              self.kind == 'Service' ? self.group == '' : \
              self.kind == 'AIService' ? self.group == 'gateway.nantian.dev' : true",
        message: "is not the group of the kind: gateway.networking.k8s.io for Gateway, ListenerSet, HTTPRoute and \
                  GRPCRoute, empty for Service, gateway.nantian.dev for AIService",
        field: Some("group"),
        holds: group_suits_kind,
    },
    Rule {
        cel: "!has(self.sectionName) || !(self.kind in ['Service', 'AIService'])",
        message: "names a listener or a route rule, which Service and AIService do not have",
        field: Some("sectionName"),
        holds: |target| {
            !has(target, "sectionName") || !matches!(text(target, "kind"), Some("Service" | "AIService"))
        },
    },
];

/// Rules on the list of references.
pub(crate) const LIST_RULES: &[Rule] = &[Rule {
    cel: "self.all(a, self.exists_one(b, a.group == b.group && a.kind == b.kind && a.name == b.name && \
          (has(a.sectionName) ? a.sectionName : '') == (has(b.sectionName) ? b.sectionName : '')))",
    message: "must name each target once",
    field: None,
    holds: |targets| {
        let identity = |target| ["group", "kind", "name", "sectionName"].map(|field| text(target, field));
        let targets: Vec<_> = items(targets).iter().map(identity).collect();
        targets.iter().enumerate().all(|(n, target)| !targets.iter().take(n).any(|earlier| earlier == target))
    },
}];

fn group_suits_kind(target: &Value) -> bool {
    let (Some(group), Some(kind)) = (text(target, "group"), text(target, "kind")) else {
        return true;
    };
    match kind {
        "Gateway" | "ListenerSet" | "HTTPRoute" | "GRPCRoute" => group == GATEWAY_API_GROUP,
        "Service" => group.is_empty(),
        "AIService" => group == NANTIAN_GROUP,
        _ => true,
    }
}

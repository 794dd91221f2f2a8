//! What a controller writes back: conditions, and the policy status of the Gateway API.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::target_ref::GATEWAY_API_GROUP;

mod merge;

pub use self::merge::merge;

/// Entries a policy status can hold; the Gateway API allows no more.
pub const MAX_ANCESTORS: usize = 16;

/// Status of TokenPolicy, WasmPlugin and BackendLBPolicy: one entry per ancestor and controller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::exhaustive_structs, reason = "controllers build it, and the Gateway API says what is in it")]
pub struct PolicyStatus {
    /// What the policy means for each Gateway it reaches; at most 16 entries.
    #[serde(default)]
    #[schemars(length(max = MAX_ANCESTORS), extend("x-kubernetes-list-type" = "atomic"))]
    pub ancestors: Vec<PolicyAncestorStatus>,
}

/// What one controller says about a policy under one ancestor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::exhaustive_structs, reason = "controllers build it, and the Gateway API says what is in it")]
pub struct PolicyAncestorStatus {
    /// The object the entry is about: a Gateway, or the target where no Gateway reaches it.
    pub ancestor_ref: ParentReference,
    /// The controller that wrote the entry.
    #[schemars(length(min = 1, max = 253))]
    pub controller_name: String,
    /// What the controller found.
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// Names an object that a policy has an effect on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::exhaustive_structs, reason = "controllers build it, and the Gateway API says what is in it")]
pub struct ParentReference {
    /// API group; the Gateway API when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub group: Option<String>,
    /// Kind; Gateway when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: Option<String>,
    /// Namespace; that of the policy when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// One listener or rule of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
    /// One port of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<i32>,
}

/// Status of an AIService.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct AiServiceStatus {
    /// What the controller found.
    #[serde(default)]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

// === impl ParentReference ===

impl fmt::Display for ParentReference {
    /// `Kind namespace/name`, then the section.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(kind) = &self.kind {
            write!(f, "{kind} ")?;
        }
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)?;
        match &self.section_name {
            Some(section) => write!(f, " section {section}"),
            None => Ok(()),
        }
    }
}

impl ParentReference {
    /// A Gateway.
    pub fn gateway(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            group: Some(GATEWAY_API_GROUP.to_owned()),
            kind: Some("Gateway".to_owned()),
            namespace: Some(namespace.into()),
            name: name.into(),
            ..Self::default()
        }
    }
}

/// The bounds that the API conventions set on a list of conditions.
fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 8,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "description": "One aspect of the state of the object.",
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "lastTransitionTime": {
                    "description": "When status last changed.",
                    "type": "string",
                    "format": "date-time",
                },
                "message": {
                    "description": "Explanation for a human.",
                    "type": "string",
                    "maxLength": merge::MAX_MESSAGE,
                },
                "observedGeneration": {
                    "description": "The metadata.generation that was looked at.",
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                },
                "reason": {
                    "description": "Explanation for a program, in CamelCase.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "status": {
                    "description": "Whether the aspect holds.",
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                },
                "type": {
                    "description": "The aspect, in CamelCase.",
                    "type": "string",
                    "maxLength": 316,
                    "pattern": CONDITION_TYPE,
                },
            },
        },
    })
}

const CONDITION_TYPE: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$";

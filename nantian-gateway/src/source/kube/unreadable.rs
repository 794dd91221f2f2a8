//! What is said of an object that cannot be read.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::ours::ours;
use crate::{
    ir::ObjectName,
    source::{
        kind::Kind,
        objects::{ObjectRef, Objects},
        versions::FORMER_SERVES,
    },
    translate::{
        conditions::{Condition, ConditionType, Conditions, Reason},
        status::{
            AncestorStatus, ObjectStatus, ParentReference, ParentStatus, PlainStatus, PolicyStatus,
            RouteStatus,
        },
    },
};

/// What of an object can be read in any case.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct PartialObject {
    generation: Option<i64>,
    /// `spec.parentRefs`, `spec.targetRefs` or `spec.parentRef`.
    references: Vec<ParentReference>,
    /// `spec.gatewayClassName` or `spec.controllerName`.
    class: Option<String>,
}

/// An object that cannot be read, and why.
#[derive(Debug, PartialEq)]
pub(super) struct Unreadable {
    pub(super) outline: PartialObject,
    pub(super) lines: Vec<String>,
}

// === impl PartialObject ===

impl PartialObject {
    /// That of an object as the API server has it.
    pub(super) fn of(object: &Map<String, Value>) -> Self {
        let at = |part: &str, field: &str| object.get(part).and_then(|part| part.get(field));
        let references = at("spec", "parentRefs").or_else(|| at("spec", "targetRefs"));
        let references = references.and_then(Value::as_array).into_iter().flatten();
        let references = references.chain(at("spec", "parentRef"));
        let text = |field: &str| at("spec", field).and_then(Value::as_str).map(str::to_owned);
        Self {
            generation: at("metadata", "generation").and_then(Value::as_i64),
            references: references
                .filter_map(|reference| ParentReference::deserialize(reference).ok())
                .collect(),
            class: text("gatewayClassName").or_else(|| text("controllerName")),
        }
    }
}

// === impl Unreadable ===

impl Unreadable {
    /// The status of the object, of which an older version may serve; `None` where it is not ours to speak
    /// about.
    pub(super) fn status(
        &self,
        object: &ObjectRef,
        objects: &Objects,
        is_served: bool,
    ) -> Option<ObjectStatus> {
        let PartialObject { generation, references, class } = &self.outline;
        let lines = self.lines.iter().map(String::as_str).chain(is_served.then_some(FORMER_SERVES));
        let message = lines.collect::<Vec<_>>().join("; ");
        let says = |reason| {
            let mut conditions = Conditions::new(*generation);
            conditions.set(Condition::fails(ConditionType::Accepted, reason, message.clone()));
            conditions
        };
        let gateways: Vec<&ObjectName> = ours(objects).into_iter().map(|(name, _)| name).collect();
        let is_ours = |reference: &&ParentReference| {
            let namespace = reference.namespace.as_deref().unwrap_or(&object.name.namespace);
            reference.kind.as_deref().is_none_or(|kind| kind == Kind::Gateway.info().name)
                && gateways.contains(&&ObjectName::new(namespace, reference.name.as_str()))
        };
        match object.kind {
            "GatewayClass" => {
                let is_ours = class.as_deref() == Some(objects.controller.as_str());
                is_ours.then(|| ObjectStatus::Plain(PlainStatus { conditions: says(Reason::Unsupported) }))
            }
            "Gateway" => {
                let class = ObjectName::new("", class.as_deref()?);
                let is_ours = objects.is_ours(objects.gateway_classes.get(&class)?);
                is_ours.then(|| ObjectStatus::Plain(PlainStatus { conditions: says(Reason::Invalid) }))
            }
            "ListenerSet" => {
                let is_ours = references.iter().any(|reference| is_ours(&reference));
                is_ours.then(|| ObjectStatus::Plain(PlainStatus { conditions: says(Reason::Invalid) }))
            }
            // For every ancestor, which are up to the routes that lead to its targets.
            "AIService" | "BackendTLSPolicy" => {
                Some(ObjectStatus::Plain(PlainStatus { conditions: says(Reason::Invalid) }))
            }
            "TokenPolicy" | "WasmPlugin" | "BackendLBPolicy" => {
                let ancestors = references.iter().map(|reference| AncestorStatus {
                    ancestor_ref: reference.clone(),
                    controller_name: objects.controller.clone(),
                    conditions: says(Reason::Invalid),
                });
                Some(ObjectStatus::Policy(PolicyStatus { ancestors: ancestors.collect() }))
            }
            kind if kind.ends_with("Route") => {
                let parents = references.iter().filter(is_ours).map(|reference| ParentStatus {
                    parent_ref: reference.clone(),
                    controller_name: objects.controller.clone(),
                    conditions: says(Reason::UnsupportedValue),
                });
                Some(ObjectStatus::Route(RouteStatus { parents: parents.collect() }))
            }
            _ => None,
        }
    }
}

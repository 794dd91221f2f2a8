//! A new status out of the present one and what is true now.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use nantian_crd::status::{MAX_ANCESTORS, merge};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    ir::ControllerName,
    source::ObjectRef,
    translate::{
        conditions::{self, ConditionStatus, ConditionType, Conditions, Reason},
        status::{
            AncestorStatus, GatewayStatus, ListenerSetStatus, ListenerStatus, ObjectStatus, ParentStatus,
        },
    },
};

/// What is to become of a status.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Merged {
    /// The new one; `None` where nothing has to be written.
    pub(super) status: Option<Value>,
    /// The ancestors that find no room in it, for others have filled it.
    pub(super) left_out: usize,
}

/// What a GatewayClass says of the gateway.
#[derive(Debug, Default)]
pub(super) struct ClassClaims<'a> {
    /// What is served.
    pub(super) features: &'a [&'static str],
    /// Whether the version of the Gateway API is known.
    pub(super) version: Option<&'a conditions::Condition>,
}

/// The status of `object`, whose present one is `present`.
///
/// What other controllers say stays. Where nothing is said any more of an object, what was said is taken
/// back; but not of those that have another controller then, who has the whole status. While `is_partial`, of
/// the entries that controllers share none is taken away: there may be more to say than is known.
pub(super) fn merged(
    object: &ObjectRef,
    present: &Value,
    now: &Timestamp,
    truth: Option<&ObjectStatus>,
    controller: &ControllerName,
    claims: &ClassClaims<'_>,
    is_partial: bool,
) -> Merged {
    let merging = Merging { now: *now, controller, is_partial };
    let status = match truth {
        Some(ObjectStatus::Plain(plain)) if object.kind == "GatewayClass" => {
            merging.class(present, &plain.conditions, claims)
        }
        Some(ObjectStatus::Plain(plain)) => merging.plain(present, &plain.conditions).into(),
        Some(ObjectStatus::Gateway(gateway)) => merging.gateway(present, gateway),
        Some(ObjectStatus::ListenerSet(set)) => {
            merging.declarer(present, &set.conditions, &set.listeners).into()
        }
        Some(ObjectStatus::Route(route)) => merging.route(present, &route.parents),
        Some(ObjectStatus::Policy(policy)) => return merging.policy(present, &policy.ancestors),
        None if object.kind.ends_with("Route") => merging.route(present, &[]),
        None if ["TokenPolicy", "WasmPlugin", "BackendLBPolicy", "BackendTLSPolicy"]
            .contains(&object.kind) =>
        {
            return merging.policy(present, &[]);
        }
        None if object.kind == "AIService" && !present["conditions"].is_null() => {
            merging.plain(present, &Conditions::default()).into()
        }
        None => return Merged::default(),
    };
    Merged { status: (status != *present).then_some(status), left_out: 0 }
}

/// What is said of a Gateway or a ListenerSet that was ours, once there is no `owner` who decides whose it
/// is.
pub(super) fn abandoned(object: &ObjectRef, owner: &ObjectRef, generation: Option<i64>) -> ObjectStatus {
    let mut conditions = Conditions::new(generation);
    for kind in [ConditionType::Accepted, ConditionType::Programmed] {
        let message = format!("{owner} does not exist");
        conditions.set(conditions::Condition::new(kind, ConditionStatus::Unknown, Reason::Pending, message));
    }
    match object.kind {
        "ListenerSet" => ObjectStatus::ListenerSet(ListenerSetStatus { conditions, listeners: Vec::new() }),
        _ => ObjectStatus::Gateway(GatewayStatus { conditions, ..GatewayStatus::default() }),
    }
}

struct Merging<'a> {
    now: Timestamp,
    controller: &'a ControllerName,
    is_partial: bool,
}

impl Merging<'_> {
    fn plain(&self, present: &Value, conditions: &Conditions) -> Map<String, Value> {
        let mut status = fields(present);
        status.insert("conditions".to_owned(), self.conditions(&present["conditions"], conditions));
        status
    }

    fn class(&self, present: &Value, conditions: &Conditions, claims: &ClassClaims<'_>) -> Value {
        let mut conditions = conditions.clone();
        claims.version.into_iter().for_each(|version| conditions.set(version.clone()));
        let mut status = self.plain(present, &conditions);
        let features = claims.features.iter().map(|name| json!({ "name": name })).collect();
        status.insert("supportedFeatures".to_owned(), features);
        Value::Object(status)
    }

    fn gateway(&self, present: &Value, gateway: &GatewayStatus) -> Value {
        let mut status = self.declarer(present, &gateway.conditions, &gateway.listeners);
        let addresses = gateway.addresses.iter().take(GatewayStatus::MAX_ADDRESSES);
        status.insert("addresses".to_owned(), addresses.map(json).collect());
        status.insert("attachedListenerSets".to_owned(), gateway.attached_listener_sets.into());
        Value::Object(status)
    }

    /// What a Gateway and a ListenerSet have in common.
    fn declarer(
        &self,
        present: &Value,
        conditions: &Conditions,
        listeners: &[ListenerStatus],
    ) -> Map<String, Value> {
        let mut status = self.plain(present, conditions);
        let listeners = listeners.iter().map(|listener| self.listener(&present["listeners"], listener));
        status.insert("listeners".to_owned(), listeners.collect());
        status
    }

    fn listener(&self, present: &Value, listener: &ListenerStatus) -> Value {
        let before = present.as_array().into_iter().flatten().find(|entry| entry["name"] == *listener.name);
        json!({
            "name": listener.name,
            "supportedKinds": json(&listener.supported_kinds),
            "attachedRoutes": listener.attached_routes,
            "conditions": self.conditions(&before.map_or(Value::Null, |entry| entry["conditions"].clone()), &listener.conditions),
        })
    }

    fn route(&self, present: &Value, parents: &[ParentStatus]) -> Value {
        let said = parents.iter().map(|parent| (json(&parent.parent_ref), &parent.conditions));
        let entries = self.entries(&present["parents"], "parentRef", said);
        with_entries(present, "parents", entries)
    }

    fn policy(&self, present: &Value, ancestors: &[AncestorStatus]) -> Merged {
        let said = ancestors.iter().map(|ancestor| (json(&ancestor.ancestor_ref), &ancestor.conditions));
        let mut entries = self.entries(&present["ancestors"], "ancestorRef", said);
        let left_out = entries.len().saturating_sub(MAX_ANCESTORS);
        entries.truncate(MAX_ANCESTORS);
        let status = with_entries(present, "ancestors", entries);
        Merged { status: (status != *present).then_some(status), left_out }
    }

    /// The entries of a list that controllers share, each about what its field `reference` names: those of
    /// others stay as they are, and ours where they are, so that no two controllers put them in order in
    /// turn; new ones come last.
    fn entries<'c>(
        &self,
        present: &Value,
        reference: &str,
        said: impl Iterator<Item = (Value, &'c Conditions)>,
    ) -> Vec<Value> {
        let entry = |of: &Value, before: &Value, conditions| {
            let conditions = self.conditions(before, conditions);
            json!({ (reference): of, "controllerName": self.controller, "conditions": conditions })
        };
        let mut said: Vec<_> = said.collect();
        let mut entries = Vec::new();
        for known in present.as_array().into_iter().flatten() {
            if known["controllerName"] != self.controller.as_str() {
                entries.push(known.clone());
            } else if let Some(at) = said.iter().position(|(of, _)| *of == known[reference]) {
                let (of, conditions) = said.remove(at);
                entries.push(entry(&of, &known["conditions"], conditions));
            } else if self.is_partial {
                entries.push(known.clone());
            }
        }
        entries.extend(said.iter().map(|(of, conditions)| entry(of, &Value::Null, conditions)));
        entries
    }

    /// Conditions of types that are none of ours stay; of ours go those that are not spoken of any more,
    /// except of the version, which another leader may have read.
    fn conditions(&self, present: &Value, truth: &Conditions) -> Value {
        let mut conditions: Vec<Condition> = serde_json::from_value(present.clone()).unwrap_or_default();
        conditions.retain(|condition| {
            let is_said = truth.iter().any(|said| said.kind.as_str() == condition.type_);
            is_said
                || !ConditionType::is_known(&condition.type_)
                || condition.type_ == ConditionType::SupportedVersion.as_str()
        });
        for condition in truth.iter() {
            merge(&mut conditions, self.condition(condition));
        }
        json(&conditions)
    }

    fn condition(&self, condition: &conditions::Condition) -> Condition {
        Condition {
            // The API server keeps whole seconds.
            last_transition_time: Time(Timestamp::from_second(self.now.as_second()).unwrap_or(self.now)),
            message: condition.message.clone(),
            observed_generation: condition.observed_generation,
            reason: condition.reason.as_str().to_owned(),
            status: condition.status.as_str().to_owned(),
            type_: condition.kind.as_str().to_owned(),
        }
    }
}

/// A status with these entries; where there are none and were none, it is as it was.
fn with_entries(present: &Value, list: &str, entries: Vec<Value>) -> Value {
    if entries.is_empty() && present[list].is_null() {
        return present.clone();
    }
    let mut status = fields(present);
    status.insert(list.to_owned(), entries.into());
    Value::Object(status)
}

fn fields(present: &Value) -> Map<String, Value> {
    present.as_object().cloned().unwrap_or_default()
}

/// Nothing of a status has a form that JSON has not.
fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

#[cfg(test)]
mod tests;

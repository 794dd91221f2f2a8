//! What the translator refuses, told apart by whose fault it is.

use std::collections::BTreeSet;

use super::objects::ObjectRef;
use crate::translate::{
    Translation,
    conditions::{Condition, ConditionStatus, ConditionType, Conditions, Reason},
    status::{ListenerStatus, ObjectStatus},
};

/// One reason for which an object, or a part of it, does not take effect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// The object.
    pub object: ObjectRef,
    /// The field; `spec` where no narrower one can be told.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
    /// The same for programs.
    pub code: Reason,
    /// Whose fault it is.
    pub cause: Cause,
}

/// Whose fault a [`Refusal`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Cause {
    /// The object's own: no other object could make it good.
    Spec,
    /// It does not go together with another object, or with another part of itself.
    Clash,
    /// Something that it refers to is not there.
    Absence,
}

/// Everything that is refused, by object.
pub fn refusals(translation: &Translation) -> Vec<Refusal> {
    let mut found = Found::default();
    for (object, status) in translation.statuses.iter() {
        status.conditions().for_each(|conditions| found.conditions(object, conditions));
        found.listeners(object, status.listeners());
    }
    found.refusals.into_iter().collect()
}

/// The condition that says what is wrong with an object by itself.
pub fn verdict(status: &ObjectStatus) -> Option<&Condition> {
    let mut conditions = status.conditions().flat_map(Conditions::iter);
    conditions.find(|condition| is_refusal(condition) && cause(condition) == Cause::Spec)
}

/// Refusals so far. An object says the same under each of its parents.
#[derive(Default)]
struct Found {
    refusals: BTreeSet<Refusal>,
}

// === impl Found ===

impl Found {
    fn conditions(&mut self, object: &ObjectRef, conditions: &Conditions) {
        for condition in conditions.iter().filter(|condition| is_refusal(condition)) {
            self.condition(object, condition, field(object, condition.reason), cause(condition));
        }
    }

    fn listeners(&mut self, object: &ObjectRef, listeners: &[ListenerStatus]) {
        for (index, listener) in listeners.iter().enumerate() {
            let path = format!("spec.listeners[{index}]");
            for condition in listener.conditions.iter().filter(|condition| is_refusal(condition)) {
                self.condition(object, condition, &path, Cause::Clash);
            }
        }
    }

    fn condition(&mut self, object: &ObjectRef, condition: &Condition, path: &str, cause: Cause) {
        let mut insert = |path: &str, reason: &str, cause| {
            let (object, code) = (object.clone(), condition.reason);
            self.refusals.insert(Refusal {
                object,
                path: path.to_owned(),
                reason: reason.to_owned(),
                code,
                cause,
            });
        };
        for detail in &condition.details {
            let cause = if detail.is_absence { Cause::Absence } else { cause };
            insert(detail.path.as_deref().unwrap_or(path), &detail.problem, cause);
        }
        if condition.details.is_empty() {
            insert(path, &condition.message, cause);
        }
    }
}

fn is_refusal(condition: &Condition) -> bool {
    match condition.kind {
        // What is wrong with the listeners is said by the listeners.
        ConditionType::Accepted if condition.reason == Reason::ListenersNotValid => false,
        ConditionType::Accepted | ConditionType::ResolvedRefs => condition.status == ConditionStatus::False,
        ConditionType::Conflicted => condition.status == ConditionStatus::True,
        _ => false,
    }
}

/// The field that a reason is about, where the condition names none.
fn field(object: &ObjectRef, reason: Reason) -> &'static str {
    match reason {
        Reason::Conflicted if object.kind.ends_with("Route") => "spec.hostnames",
        Reason::NoMatchingParent | Reason::NotAllowedByListeners => "spec.parentRefs",
        Reason::NoMatchingListenerHostname => "spec.hostnames",
        Reason::Conflicted | Reason::TargetNotFound => "spec.targetRefs",
        _ => "spec",
    }
}

fn cause(condition: &Condition) -> Cause {
    match condition.reason {
        Reason::Invalid
        | Reason::InvalidParameters
        | Reason::UnsupportedAddress
        | Reason::UnsupportedValue
        | Reason::IncompatibleFilters
        | Reason::Unsupported
            if condition.kind == ConditionType::Accepted =>
        {
            Cause::Spec
        }
        _ => Cause::Clash,
    }
}

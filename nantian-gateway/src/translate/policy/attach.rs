//! How policies get to their targets.

use std::collections::HashMap;

use serde::Serialize;

use super::{TargetKey, outcome::TargetOutcome, target::Target};
use crate::{
    ir::{ObjectName, PolicyId},
    source::ObjectRef,
    translate::{
        conditions::Reason,
        fault::{Fault, Faults},
    },
};

/// Who has which target, for the kinds of which one policy at most is in force on a target.
#[derive(Default)]
pub(super) struct Claims {
    holders: HashMap<TargetKey, ObjectName>,
}

// === impl Claims ===

impl Claims {
    /// Gives the policy `object` the targets that no earlier one has.
    pub(super) fn claim(&mut self, object: &ObjectRef, targets: Vec<Target>) -> Vec<TargetOutcome> {
        let claimed = targets.into_iter().map(|target| {
            let conflict = target.place.as_ref().ok().and_then(|place| {
                let holder = self.holders.entry(place.clone()).or_insert_with(|| object.name.clone());
                (*holder != object.name).then(|| {
                    let message =
                        format!("{} {holder} comes first and has {}", object.kind, target.reference);
                    Fault::new(Reason::Conflicted, message)
                })
            });
            target.outcome(conflict)
        });
        claimed.collect()
    }
}

/// The targets of a policy of a kind of which several may share a target.
pub(super) fn share(targets: Vec<Target>) -> Vec<TargetOutcome> {
    targets.into_iter().map(|target| target.outcome(None)).collect()
}

/// The targets of a policy that is in force nowhere: the fault of the policy itself is the one to report.
pub(super) fn refuse(targets: Vec<Target>, fault: &Fault) -> Vec<TargetOutcome> {
    targets.into_iter().map(|target| target.outcome(Some(fault.clone()))).collect()
}

/// The places where a policy is in force.
pub(super) fn won(outcomes: &[TargetOutcome]) -> impl Iterator<Item = &TargetKey> {
    outcomes.iter().filter(|outcome| outcome.fault.is_none()).filter_map(|outcome| outcome.place.as_ref())
}

/// The rules of the kind that an object breaks.
pub(super) fn validate<T: Serialize>(object: &T) -> Result<(), Fault> {
    let invalid = |message: String| Fault::new(Reason::Invalid, message);
    let value = serde_json::to_value(object).map_err(|error| invalid(error.to_string()))?;
    match nantian_crd::validate(&value) {
        Ok(_) => Ok(()),
        Err(broken) => {
            let mut faults = Faults::default();
            for mut rule in broken {
                let path = std::mem::take(&mut rule.path);
                faults.push(Fault::at(Reason::Invalid, path, rule));
            }
            faults.summary().map_or(Ok(()), Err)
        }
    }
}

/// The identity of a policy. A UID alone would not do: files that were copied share it.
pub(super) fn id(uid: Option<&String>, name: &ObjectName) -> PolicyId {
    PolicyId(match uid {
        Some(uid) => format!("{name}@{uid}"),
        None => name.to_string(),
    })
}

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
            let (place, mut fault) = split(target.place);
            if let Some(place) = &place {
                let holder = self.holders.entry(place.clone()).or_insert_with(|| object.name.clone());
                if *holder != object.name {
                    let message =
                        format!("{} {holder} comes first and has {}", object.kind, target.reference);
                    fault = Some(Fault::new(Reason::Conflicted, message));
                }
            }
            let place = place.or(target.service);
            TargetOutcome { reference: target.reference, place, fault, is_foreign: target.is_foreign }
        });
        claimed.collect()
    }
}

/// The targets of a policy of a kind of which several may share a target.
pub(super) fn share(targets: Vec<Target>) -> Vec<TargetOutcome> {
    let shared = targets.into_iter().map(|target| {
        let (place, fault) = split(target.place);
        TargetOutcome { reference: target.reference, place, fault, is_foreign: target.is_foreign }
    });
    shared.collect()
}

/// The targets of a policy that is in force nowhere: the fault of the policy itself is the one to report.
pub(super) fn refuse(targets: Vec<Target>, fault: &Fault) -> Vec<TargetOutcome> {
    let refused = targets.into_iter().map(|target| {
        let (place, _) = split(target.place);
        let (fault, is_foreign) = (Some(fault.clone()), target.is_foreign);
        TargetOutcome { reference: target.reference, place, fault, is_foreign }
    });
    refused.collect()
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

fn split(place: Result<TargetKey, Fault>) -> (Option<TargetKey>, Option<Fault>) {
    match place {
        Ok(place) => (Some(place), None),
        Err(fault) => (None, Some(fault)),
    }
}

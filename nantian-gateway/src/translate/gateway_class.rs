//! GatewayClass: which Gateways are ours.

use std::collections::HashMap;

use super::{
    cluster_state::{ClusterState, Report},
    conditions::{Condition, ConditionType, Conditions, Reason},
    fault::{Fault, Path},
    status::{ObjectStatus, PlainStatus},
};
use crate::source::ObjectRef;

/// The classes that are ours, by name, and what is wrong with each.
#[derive(Default)]
pub(super) struct Classes<'a>(HashMap<&'a str, Result<(), Fault>>);

impl Classes<'_> {
    /// The verdict on a class of ours; `None` if the class is not ours.
    pub(super) fn get(&self, name: &str) -> Option<&Result<(), Fault>> {
        self.0.get(name)
    }
}

/// Judges the classes whose controller is this gateway.
pub(super) fn translate<'a>(cluster: &ClusterState<'a>, report: &mut Report) -> Classes<'a> {
    let mut classes = Classes::default();
    for (name, class) in &cluster.objects.gateway_classes {
        if !cluster.objects.is_ours(class) {
            continue;
        }
        let verdict = match class.spec.parameters_ref {
            Some(_) => {
                let path = Path::SPEC.field("parametersRef");
                Err(Fault::at(Reason::InvalidParameters, path, "not supported"))
            }
            None => Ok(()),
        };
        let mut conditions = Conditions::new(class.metadata.generation);
        conditions.set(match &verdict {
            Ok(()) => Condition::holds(ConditionType::Accepted, Reason::Accepted, "served by this gateway"),
            Err(fault) => fault.condition(ConditionType::Accepted),
        });
        report.status(
            ObjectRef { kind: "GatewayClass", name: name.clone() },
            ObjectStatus::Plain(PlainStatus { conditions }),
        );
        classes.0.insert(&name.name, verdict);
    }
    classes
}

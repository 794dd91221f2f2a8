//! The status of a policy.

use std::collections::BTreeMap;

use nantian_crd::{FailurePolicy, status::MAX_ANCESTORS};

use super::{
    TargetKey,
    attached_gateways::{AttachedGateways, Concern},
};
use crate::{
    gates::Feature,
    ir::{ControllerName, ObjectName},
    source::ObjectRef,
    translate::{
        cluster_state::Report,
        conditions::{Condition, ConditionStatus, ConditionType, Conditions, Reason},
        fault::{Fault, Faults},
        grants::GroupKind,
        status::{AncestorStatus, ObjectStatus, ParentReference, PolicyStatus},
    },
};

/// What became of one policy.
pub(super) struct PolicyOutcome {
    pub(super) object: ObjectRef,
    /// The policy as an ancestor of itself, where it has no other.
    pub(super) own: ParentReference,
    pub(super) generation: Option<i64>,
    /// Why the policy is in force nowhere.
    pub(super) refused: Option<Fault>,
    /// What became of it on each of its targets.
    pub(super) outcomes: Vec<TargetOutcome>,
    pub(super) references: References,
    /// What is to be known of it where it is in force.
    pub(super) remark: Option<&'static str>,
}

/// What a policy refers to beside its targets.
pub(super) enum References {
    /// Nothing.
    None,
    /// A WasmPlugin: its module.
    Module(ModuleState),
    /// A BackendTLSPolicy: authorities, and what is wrong with some of them.
    Authorities(Faults),
}

/// What became of a policy on one target.
pub(super) struct TargetOutcome {
    pub(super) reference: ParentReference,
    /// The target, if it exists; the Service of a port that does not.
    pub(super) place: Option<TargetKey>,
    /// Why the policy is not in force there.
    pub(super) fault: Option<Fault>,
    /// Whether the target is another controller's.
    pub(super) is_foreign: bool,
}

/// What is known of a module before it is compiled.
pub(super) enum ModuleState {
    /// The bytes are there, or where to fetch them from.
    Present,
    /// What they should come from does not exist.
    Missing(Fault),
    /// They are not what they should be.
    Broken(Fault),
    /// The plugin is not accepted, so that its module was not looked for; requests fail, or pass it by.
    Unread(FailurePolicy),
}

/// What there is to say of a policy under one ancestor.
#[derive(Default)]
struct AncestorSummary {
    faults: Faults,
    in_force: Vec<String>,
    /// Targets that only get what the policy is not about.
    untouched: Vec<String>,
    unreached: Vec<String>,
}

// === impl PolicyOutcome ===

impl PolicyOutcome {
    /// What became of a policy that refers to nothing and of which there is nothing more to be known.
    pub(super) fn new(
        object: ObjectRef,
        kind: GroupKind<'_>,
        generation: Option<i64>,
        refused: Option<Fault>,
        outcomes: Vec<TargetOutcome>,
    ) -> Self {
        let own = kind.refer(&object.name.namespace, &object.name.name);
        Self { object, own, generation, refused, outcomes, references: References::None, remark: None }
    }

    /// Writes the status of the policy in the name of `controller`, with the Gateways that reach its targets
    /// as ancestors.
    pub(super) fn report(
        &self,
        attached_gateways: &AttachedGateways,
        controller: &ControllerName,
        report: &mut Report,
    ) {
        self.warn_of_targets_without_status(attached_gateways, report);
        let verdicts = self.verdicts(attached_gateways);
        let count = verdicts.len();
        if count > MAX_ANCESTORS {
            let message = format!("status: {count} ancestors, of which {MAX_ANCESTORS} are shown");
            report.warn(&self.object, message);
        }
        let ancestors = verdicts.into_iter().take(MAX_ANCESTORS).map(|(ancestor, verdicts)| AncestorStatus {
            ancestor_ref: ancestor,
            controller_name: controller.clone(),
            conditions: self.conditions(&verdicts),
        });
        let ancestors = ancestors.collect();
        report.status(self.object.clone(), ObjectStatus::Policy(PolicyStatus { ancestors }));
    }

    /// Warns of targets that do not exist where no ancestor has a status to tell it.
    fn warn_of_targets_without_status(&self, attached_gateways: &AttachedGateways, report: &mut Report) {
        if self.may_stand_alone() {
            return;
        }
        for (index, outcome) in self.outcomes.iter().enumerate() {
            let fault = outcome.fault.as_ref().filter(|fault| fault.reason == Reason::TargetNotFound);
            if let Some(fault) = fault
                && self.gateways(outcome, attached_gateways).is_empty()
            {
                report.warn(&self.object, format!("spec.targetRefs[{index}]: {}", fault.message()));
            }
        }
    }

    /// The Gateways to which a target belongs, each with whether what the policy is about reaches it.
    fn gateways<'s>(
        &self,
        outcome: &'s TargetOutcome,
        attached_gateways: &'s AttachedGateways,
    ) -> Vec<(&'s ObjectName, bool)> {
        let place = outcome.place.as_ref();
        place.map(|place| attached_gateways.gateways(place, self.concern())).unwrap_or_default()
    }

    fn verdicts(&self, attached_gateways: &AttachedGateways) -> BTreeMap<ParentReference, AncestorSummary> {
        let mut verdicts: BTreeMap<ParentReference, AncestorSummary> = BTreeMap::new();
        for outcome in &self.outcomes {
            let gateways = self.gateways(outcome, attached_gateways);
            let fallback = gateways.is_empty() && self.may_stand_alone() && !outcome.is_foreign;
            let fallback = fallback.then(|| (outcome.reference.clone(), false));
            let refer = |name: &ObjectName| GroupKind::GATEWAY.refer(&name.namespace, &name.name);
            let ancestors = gateways.iter().map(|(name, reached)| (refer(name), *reached));
            for (ancestor, reached) in ancestors.chain(fallback) {
                let verdicts = verdicts.entry(ancestor).or_default();
                match &outcome.fault {
                    Some(fault) => verdicts.faults.push(fault.clone()),
                    None if reached => verdicts.in_force.push(outcome.reference.to_string()),
                    None if self.concern() == Concern::Tls => {
                        verdicts.untouched.push(outcome.reference.to_string());
                    }
                    None => verdicts.unreached.push(outcome.reference.to_string()),
                }
            }
        }
        if matches!(self.references, References::Module(_)) {
            for name in attached_gateways.gateways_of_plugin(&self.object.name) {
                let ancestor = GroupKind::GATEWAY.refer(&name.namespace, &name.name);
                verdicts.entry(ancestor).or_default().in_force.push("filters that name it".to_owned());
            }
        }
        if verdicts.is_empty() && self.may_stand_alone() && !self.outcomes.iter().any(|it| it.is_foreign) {
            verdicts.insert(self.own.clone(), AncestorSummary::default());
        }
        verdicts
    }

    fn conditions(&self, verdicts: &AncestorSummary) -> Conditions {
        let mut conditions = Conditions::new(self.generation);
        let mut accepted = match &self.refused {
            Some(fault) => fault.condition(ConditionType::Accepted),
            None => verdicts.accepted(),
        };
        if let Some(remark) = self.remark.filter(|_| !verdicts.in_force.is_empty()) {
            accepted.message = format!("{}; {remark}", accepted.message);
        }
        conditions.set(accepted);
        match &self.references {
            References::None => {}
            References::Module(module) => {
                conditions.set(module.resolved());
                let accepted = conditions.holds(ConditionType::Accepted);
                conditions.set(module.programmed(accepted, !verdicts.in_force.is_empty()));
            }
            References::Authorities(faults) => conditions.set(faults.condition(
                ConditionType::ResolvedRefs,
                Reason::ResolvedRefs,
                "all references resolve",
            )),
        }
        conditions
    }

    /// What the policy is about.
    fn concern(&self) -> Concern {
        match &self.references {
            References::Authorities(_) => Concern::Tls,
            _ if self.object.kind == Feature::BackendLBPolicy.name() => Concern::Balancing,
            _ => Concern::Requests,
        }
    }

    /// Whether the policy has a status where no Gateway reaches it. One of a kind that others serve too is
    /// theirs as long as no Gateway of ours is concerned.
    fn may_stand_alone(&self) -> bool {
        !matches!(self.references, References::Authorities(_))
    }
}

// === impl AncestorSummary ===

impl AncestorSummary {
    fn accepted(&self) -> Condition {
        let in_force = || format!("in force on {}", self.in_force.join(", "));
        if let Some(fault) = self.faults.summary() {
            let mut condition = fault.condition(ConditionType::Accepted);
            if !self.in_force.is_empty() {
                condition.message = format!("{}; {}", condition.message, in_force());
            }
            return condition;
        }
        let (reason, message) = match (&*self.in_force, &*self.unreached) {
            ([], []) if !self.untouched.is_empty() => {
                let targets = self.untouched.join(", ");
                let message = format!("{targets} gets only datagrams and the TLS of clients, as they are");
                (Reason::Accepted, message)
            }
            ([], []) => {
                (Reason::Idle, "idle: it has no targets and no filter of a served route names it".to_owned())
            }
            ([], unreached) => (Reason::Accepted, format!("no request reaches {} yet", unreached.join(", "))),
            _ => (Reason::Accepted, in_force()),
        };
        Condition::holds(ConditionType::Accepted, reason, message)
    }
}

// === impl ModuleState ===

impl ModuleState {
    fn resolved(&self) -> Condition {
        match self {
            Self::Missing(fault) => fault.condition(ConditionType::ResolvedRefs),
            Self::Unread(_) => {
                let message = "the plugin is not accepted";
                Condition::new(
                    ConditionType::ResolvedRefs,
                    ConditionStatus::Unknown,
                    Reason::Invalid,
                    message,
                )
            }
            Self::Present | Self::Broken(_) => {
                Condition::holds(ConditionType::ResolvedRefs, Reason::ResolvedRefs, "all references resolve")
            }
        }
    }

    /// What is true until the module is compiled.
    fn programmed(&self, accepted: bool, in_force: bool) -> Condition {
        let fails = |reason, message: &str| Condition::fails(ConditionType::Programmed, reason, message);
        match self {
            Self::Missing(fault) | Self::Broken(fault) => fault.condition(ConditionType::Programmed),
            Self::Unread(FailurePolicy::FailClosed) => fails(
                Reason::Invalid,
                "the plugin is not accepted: its requests fail unless an earlier version serves",
            ),
            Self::Unread(FailurePolicy::FailOpen) => {
                let message = "the plugin is not accepted: its requests go on without it unless an earlier version serves";
                fails(Reason::Invalid, message)
            }
            _ if !accepted => fails(Reason::Invalid, "the plugin is not accepted"),
            _ if !in_force => fails(Reason::Idle, "no request reaches the plugin"),
            Self::Present => {
                Condition::holds(ConditionType::Programmed, Reason::Programmed, "the module is in force")
            }
        }
    }
}

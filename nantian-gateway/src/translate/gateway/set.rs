//! ListenerSets: listeners of a Gateway that others may add.

use std::collections::HashMap;

use gateway_api::experimental::{
    gateways::{Gateway, GatewayAllowedListenersNamespacesFrom as From, GatewayListeners},
    listenersets::ListenerSet,
};

use super::namespaces::{Expression, NamespaceFilter, requirements};
use crate::{
    ir::ObjectName,
    source::{ObjectRef, Objects},
    translate::{
        cluster_state::{ClusterState, Report, oldest_first},
        conditions::Reason,
        fault::{Fault, Path},
        grants::GroupKind,
    },
};

/// Every ListenerSet, its listeners written as those of a Gateway.
pub(in crate::translate) struct ListenerSets<'a> {
    /// Those of each Gateway, oldest first.
    by_gateway: HashMap<ObjectName, Vec<DeclaredSet<'a>>>,
}

/// A ListenerSet.
pub(super) struct DeclaredSet<'a> {
    pub(super) name: &'a ObjectName,
    pub(super) generation: Option<i64>,
    pub(super) listeners: Vec<GatewayListeners>,
}

/// What became of a ListenerSet; its listeners are among those of its Gateway.
pub(in crate::translate) struct SetState<'a> {
    pub(super) name: &'a ObjectName,
    pub(super) generation: Option<i64>,
    /// Why its Gateway does not take it.
    pub(in crate::translate) verdict: Result<(), Fault>,
}

// === impl ListenerSets ===

impl<'a> ListenerSets<'a> {
    pub(in crate::translate) fn read(cluster: &ClusterState<'a>, report: &mut Report) -> Self {
        let mut by_gateway: HashMap<_, Vec<_>> = HashMap::new();
        for (name, set) in oldest_first(&cluster.objects.listener_sets) {
            let object = ObjectRef { kind: GroupKind::LISTENER_SET.kind, name: name.clone() };
            match parent(name, set) {
                Some(gateway) => {
                    if !cluster.objects.gateways.contains_key(&gateway) {
                        report.warn(
                            &object,
                            format!("spec.parentRef: Gateway {gateway} does not exist, or is not valid"),
                        );
                    }
                    let written = DeclaredSet {
                        name,
                        generation: set.metadata.generation,
                        listeners: as_of_gateway(set).unwrap_or_else(|error| {
                            report.warn(&object, format!("spec.listeners: {error}"));
                            Vec::new()
                        }),
                    };
                    by_gateway.entry(gateway).or_default().push(written);
                }
                None => report.warn(&object, "spec.parentRef: only a Gateway is served as a parent"),
            }
        }
        Self { by_gateway }
    }

    pub(super) fn of(&self, gateway: &ObjectName) -> &[DeclaredSet<'a>] {
        self.by_gateway.get(gateway).map(Vec::as_slice).unwrap_or_default()
    }
}

/// The Gateway that a ListenerSet names.
pub(in crate::translate) fn parent(name: &ObjectName, set: &ListenerSet) -> Option<ObjectName> {
    let parent = &set.spec.parent_ref;
    let group = parent.group.as_deref().unwrap_or(GroupKind::GATEWAY.group);
    let kind = GroupKind::new(group, parent.kind.as_deref().unwrap_or(GroupKind::GATEWAY.kind));
    let namespace = parent.namespace.as_deref().unwrap_or(&name.namespace);
    (kind == GroupKind::GATEWAY).then(|| ObjectName::new(namespace, parent.name.as_str()))
}

/// The listeners that ListenerSets add to a Gateway which takes them.
#[cfg(feature = "kubernetes")]
pub(crate) fn added_listeners(
    objects: &Objects,
    name: &ObjectName,
    gateway: &Gateway,
) -> Vec<GatewayListeners> {
    let sets = objects.listener_sets.iter().filter(|(set, spec)| {
        parent(set, spec).as_ref() == Some(name) && admit(objects, (name, gateway), set).is_ok()
    });
    sets.filter_map(|(_, set)| as_of_gateway(set).ok()).flatten().collect()
}

/// The listeners of a set have the fields of those of a Gateway.
fn as_of_gateway(set: &ListenerSet) -> Result<Vec<GatewayListeners>, serde_json::Error> {
    serde_json::to_value(&set.spec.listeners).and_then(serde_json::from_value)
}

/// Whether `gateway` takes ListenerSets of a namespace; by default it takes none.
pub(super) fn admit(
    objects: &Objects,
    (name, gateway): (&ObjectName, &Gateway),
    set: &ObjectName,
) -> Result<(), Fault> {
    let refused =
        |message: String| Err(Fault::at(Reason::NotAllowed, Path::SPEC.field("parentRef"), message));
    let allowed = gateway.spec.allowed_listeners.as_ref();
    let namespaces = allowed.and_then(|allowed| allowed.namespaces.as_ref());
    let filter = match namespaces.and_then(|namespaces| namespaces.from.as_ref()) {
        Some(From::All) => NamespaceFilter::All,
        Some(From::Same) => NamespaceFilter::One(name.namespace.clone()),
        Some(From::Selector) => {
            let path = Path::SPEC.field("allowedListeners");
            let path = path.field("namespaces");
            let path = path.field("selector");
            let selector = namespaces.and_then(|namespaces| namespaces.selector.as_ref());
            let requirements = selector.map(|selector| {
                let expressions = selector.match_expressions.iter().flatten().map(|expression| Expression {
                    key: &expression.key,
                    operator: &expression.operator,
                    values: expression.values.as_deref().unwrap_or_default(),
                });
                requirements(selector.match_labels.as_ref(), expressions, &path)
            });
            match requirements {
                Some(Ok(requirements)) => NamespaceFilter::Labelled(requirements),
                Some(Err(fault)) => return refused(format!("Gateway {name}: {}", fault.message())),
                None => NamespaceFilter::None,
            }
        }
        Some(From::None) | None => NamespaceFilter::None,
    };
    if filter.admits(objects, &set.namespace) {
        return Ok(());
    }
    refused(format!("Gateway {name} takes no ListenerSets of namespace {}", set.namespace))
}

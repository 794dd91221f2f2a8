//! The Gateways that this installation serves.

use gateway_api::experimental::gateways::Gateway;

use crate::{ir::ObjectName, source::objects::Objects, translate::oldest_first};

/// The Gateways of ours, oldest first.
pub(crate) fn ours(objects: &Objects) -> Vec<(&ObjectName, &Gateway)> {
    let is_ours = |gateway: &Gateway| {
        let class = ObjectName::new("", gateway.spec.gateway_class_name.as_str());
        let class = objects.gateway_classes.get(&class);
        class.is_some_and(|class| objects.is_ours(class))
    };
    oldest_first(&objects.gateways).into_iter().filter(|(_, gateway)| is_ours(gateway)).collect()
}

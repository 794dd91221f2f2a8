//! The Gateways that have addresses, and those that somebody has to find one for.

use std::net::IpAddr;

use gateway_api::experimental::gateways::{Gateway, GatewayAddresses};

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

/// Whether a Gateway leaves its address to the gateway; whoever may be bound on any address is asking for
/// none.
pub(super) fn asks_for_none(gateway: &Gateway) -> bool {
    let leaves_it = |address: &GatewayAddresses| {
        let named = address.value.as_deref().filter(|value| !value.is_empty());
        named.is_none_or(|named| {
            named.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_unspecified())
        }) && address.r#type.as_deref().is_none_or(|kind| kind == "IPAddress")
    };
    let addresses = gateway.spec.addresses.as_deref().unwrap_or_default();
    addresses.is_empty() || addresses.iter().any(leaves_it)
}

/// The address that a Gateway asks for.
pub(crate) fn asked_address(gateway: &Gateway) -> Option<IpAddr> {
    let mut values = gateway.spec.addresses.iter().flatten().filter_map(|address| address.value.as_deref());
    let asked = values.find_map(|value| value.parse().ok()).filter(|_| !asks_for_none(gateway));
    asked.map(|address: IpAddr| address.to_canonical())
}

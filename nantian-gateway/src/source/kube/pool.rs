//! An address of its own for each Gateway.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

use gateway_api::experimental::gateways::{Gateway, GatewayAddresses};
use ipnet::IpNet;

use super::ours::ours;
use crate::{
    ir::ObjectName,
    source::{objects::Objects, placement::Placements},
    translate::asked_addresses,
};

/// Addresses of this machine, of which each Gateway that asks for none gets one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressPool {
    first: IpAddr,
    last: IpAddr,
}

/// Not a network and not a range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a network such as 10.0.0.0/28 nor a range such as 10.0.0.1-10.0.0.9")]
#[non_exhaustive]
pub struct InvalidPool(pub String);

impl AddressPool {
    /// `objects` with an address for each Gateway of ours that asks for none, kept in `assigned`.
    ///
    /// A Gateway keeps the address that `known` tells of its status, or else the one it was assigned before,
    /// also from one that names it; the older Gateway comes first. Where no address is left, or the one that
    /// is named is another's, the Gateway is placed nowhere.
    pub(super) fn assign(
        &self,
        objects: &Objects,
        known: impl Fn(&ObjectName) -> Option<IpAddr>,
        assigned: &mut BTreeMap<ObjectName, IpAddr>,
    ) -> Objects {
        let asks_for_any = |gateway| asked_addresses(gateway).is_ok_and(|asked| asked.is_empty());
        let (asking, naming): (Vec<_>, Vec<_>) =
            ours(objects).into_iter().partition(|(_, gateway)| asks_for_any(gateway));
        let mut taken: BTreeSet<IpAddr> = naming
            .iter()
            .flat_map(|(name, gateway)| asked_for(gateway).filter(|address| known(name) == Some(*address)))
            .collect();
        let before = std::mem::take(assigned);
        for (name, _) in &asking {
            let kept = known(name).or_else(|| before.get(*name).copied());
            if let Some(address) = kept.filter(|address| self.contains(*address) && !taken.contains(address))
            {
                taken.insert(address);
                assigned.insert((*name).clone(), address);
            }
        }
        let held: BTreeSet<_> = assigned.values().copied().collect();
        let (refused, usable): (Vec<_>, Vec<_>) =
            naming.iter().partition(|(_, gateway)| asked_for(gateway).any(|address| held.contains(&address)));
        taken.extend(usable.iter().flat_map(|(_, gateway)| asked_for(gateway)));
        let refused = refused.into_iter().map(|(name, _)| (*name).clone()).collect();
        let mut objects = objects.clone();
        let mut exhausted = BTreeSet::new();
        for (name, gateway) in asking {
            let address = assigned.get(name).copied().or_else(|| self.free(&taken));
            let Some(address) = address else {
                exhausted.insert(name.clone());
                continue;
            };
            taken.insert(address);
            assigned.insert(name.clone(), address);
            let mut gateway = gateway.clone();
            let (kind, value) = (Some("IPAddress".to_owned()), Some(address.to_string()));
            gateway.spec.addresses = Some(vec![GatewayAddresses { r#type: kind, value }]);
            objects.gateways.insert(name.clone(), Arc::new(gateway));
        }
        objects.placements = Placements::Assigned { exhausted, taken: refused };
        objects
    }

    fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && (self.first..=self.last).contains(&address)
    }

    /// The lowest address that is not taken.
    fn free(&self, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let mut address = self.first;
        while taken.contains(&address) {
            address = next(address)?;
        }
        self.contains(address).then_some(address)
    }
}

/// The addresses that a Gateway asks for itself, also beside others for which it is refused: until that edit
/// is taken back they are nobody else's.
fn asked_for(gateway: &Gateway) -> impl Iterator<Item = IpAddr> {
    let values = gateway.spec.addresses.iter().flatten().filter_map(|address| address.value.as_deref());
    values.filter_map(|value| value.parse().ok()).map(|address: IpAddr| address.to_canonical())
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => Some(Ipv4Addr::from_bits(address.to_bits().checked_add(1)?).into()),
        IpAddr::V6(address) => Some(Ipv6Addr::from_bits(address.to_bits().checked_add(1)?).into()),
    }
}

impl FromStr for AddressPool {
    type Err = InvalidPool;

    fn from_str(text: &str) -> Result<Self, InvalidPool> {
        let invalid = || InvalidPool(text.to_owned());
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => {
                (first.trim().parse().map_err(|_| invalid())?, last.trim().parse().map_err(|_| invalid())?)
            }
            None => {
                let net: IpNet = text.parse().map_err(|_| invalid())?;
                match net {
                    // The first and the last address of a larger network are those of the network itself.
                    IpNet::V4(net) if net.prefix_len() < 31 => {
                        let bound = |address: Ipv4Addr, by: i32| {
                            Ipv4Addr::from_bits(address.to_bits().wrapping_add_signed(by)).into()
                        };
                        (bound(net.network(), 1), bound(net.broadcast(), -1))
                    }
                    net => (net.network(), net.broadcast()),
                }
            }
        };
        let pool = Self { first, last };
        (pool.contains(first) && pool.contains(last)).then_some(pool).ok_or_else(invalid)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pool(text: &str) -> AddressPool {
        text.parse().unwrap()
    }

    #[test]
    fn a_pool_is_a_network_or_a_range() {
        let bounds = |text| (pool(text).first.to_string(), pool(text).last.to_string());
        assert_eq!(bounds("10.0.0.0/29"), ("10.0.0.1".to_owned(), "10.0.0.6".to_owned()));
        assert_eq!(bounds("10.0.0.4/32"), ("10.0.0.4".to_owned(), "10.0.0.4".to_owned()));
        assert_eq!(bounds("10.0.0.4-10.0.0.9"), ("10.0.0.4".to_owned(), "10.0.0.9".to_owned()));
        assert_eq!(bounds("fd00::/126"), ("fd00::".to_owned(), "fd00::3".to_owned()));
        for text in ["", "10.0.0.1", "10.0.0.9-10.0.0.1", "10.0.0.1-fd00::1", "10.0.0.0/33", "a-b"] {
            assert_eq!(text.parse::<AddressPool>(), Err(InvalidPool(text.to_owned())));
        }
    }

    fn objects(gateways: &[(&str, Option<&str>)]) -> Objects {
        let mut objects = Objects::default();
        let spec = json!({ "controllerName": objects.controller });
        let class = json!({ "metadata": { "name": "ours" }, "spec": spec });
        objects
            .gateway_classes
            .insert(ObjectName::new("", "ours"), Arc::new(serde_json::from_value(class).unwrap()));
        for (name, address) in gateways {
            let mut gateway = json!({
                "metadata": { "name": name, "namespace": "demo" },
                "spec": { "gatewayClassName": "ours", "listeners": [] },
            });
            if let Some(address) = address {
                gateway["spec"]["addresses"] = json!([{ "type": "IPAddress", "value": address }]);
            }
            let gateway = serde_json::from_value(gateway).unwrap();
            objects.gateways.insert(ObjectName::new("demo", *name), Arc::new(gateway));
        }
        objects
    }

    fn addresses(objects: &Objects) -> Vec<String> {
        let value = |gateway: &Gateway| gateway.spec.addresses.as_ref()?.first()?.value.clone();
        objects.gateways.values().map(|gateway| value(gateway).unwrap_or_default()).collect()
    }

    #[test]
    fn each_gateway_keeps_an_address_of_its_own() {
        let (pool, mut assigned) = (pool("10.0.0.1-10.0.0.3"), BTreeMap::new());
        let world = objects(&[("a", None), ("b", Some("10.0.0.1")), ("c", None)]);
        let first = pool.assign(&world, |_| None, &mut assigned);
        assert_eq!(addresses(&first), ["10.0.0.2", "10.0.0.1", "10.0.0.3"]);
        // `a` is gone, a younger one takes its place, and one is too many.
        let world = objects(&[("b", Some("10.0.0.1")), ("c", None), ("d", None), ("e", None)]);
        let second = pool.assign(&world, |_| None, &mut assigned);
        assert_eq!(addresses(&second), ["10.0.0.1", "10.0.0.3", "10.0.0.2", ""]);
        let exhausted = BTreeSet::from([ObjectName::new("demo", "e")]);
        assert_eq!(second.placements, Placements::Assigned { exhausted, taken: BTreeSet::new() });
    }

    #[test]
    fn an_address_is_not_taken_from_the_gateway_that_has_it() {
        let (pool, mut assigned) = (pool("10.0.0.1-10.0.0.3"), BTreeMap::new());
        pool.assign(&objects(&[("web", None)]), |_| None, &mut assigned);
        let world = objects(&[("a", Some("10.0.0.1")), ("b", Some("10.0.0.2")), ("web", None), ("x", None)]);
        let placed = |name: &ObjectName| (&*name.name == "b").then(|| "10.0.0.2".parse().unwrap());
        for known in [&|_: &ObjectName| None, &placed as &dyn Fn(&ObjectName) -> Option<IpAddr>] {
            let now = pool.assign(&world, known, &mut assigned);
            assert_eq!(addresses(&now), ["10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.3"]);
            let taken = BTreeSet::from([ObjectName::new("demo", "a")]);
            assert_eq!(now.placements, Placements::Assigned { exhausted: BTreeSet::new(), taken });
        }
    }

    #[test]
    fn who_may_be_bound_anywhere_is_given_an_address() {
        for any in ["0.0.0.0", "::", ""] {
            let mut world = objects(&[("a", Some("10.9.9.9"))]);
            let mut gateway = Gateway::clone(&world.gateways[&ObjectName::new("demo", "a")]);
            let other = GatewayAddresses { r#type: None, value: Some(any.to_owned()) };
            gateway.spec.addresses.as_mut().unwrap().push(other);
            world.gateways.insert(ObjectName::new("demo", "a"), Arc::new(gateway));
            let assigned = pool("10.0.0.1-10.0.0.3").assign(&world, |_| None, &mut BTreeMap::new());
            assert_eq!(addresses(&assigned), ["10.0.0.1"], "{any:?}");
        }
    }

    #[test]
    fn an_address_of_ipv4_is_the_same_in_the_spelling_of_ipv6() {
        let pool = pool("10.0.0.1-10.0.0.3");
        let world = objects(&[("a", None), ("b", Some("::ffff:10.0.0.1"))]);
        let assigned = pool.assign(&world, |_| None, &mut BTreeMap::new());
        assert_eq!(addresses(&assigned), ["10.0.0.2", "::ffff:10.0.0.1"], "who names it was there first");
        let mut held = BTreeMap::from([(ObjectName::new("demo", "a"), "10.0.0.1".parse().unwrap())]);
        let assigned = pool.assign(&world, |_| None, &mut held);
        let Placements::Assigned { taken, .. } = &assigned.placements else { panic!("{assigned:?}") };
        assert!(taken.contains(&ObjectName::new("demo", "b")));
        let world = objects(&[("a", Some("::ffff:0.0.0.0"))]);
        assert_eq!(addresses(&pool.assign(&world, |_| None, &mut BTreeMap::new())), ["10.0.0.1"]);
    }

    #[test]
    fn an_address_that_cannot_be_had_is_not_replaced_by_another_one() {
        let mut world = objects(&[("a", Some("example.com"))]);
        let mut gateway = Gateway::clone(&world.gateways[&ObjectName::new("demo", "a")]);
        gateway.spec.addresses.as_mut().unwrap()[0].r#type = Some("Hostname".to_owned());
        world.gateways.insert(ObjectName::new("demo", "a"), Arc::new(gateway));
        let assigned = pool("10.0.0.1-10.0.0.3").assign(&world, |_| None, &mut BTreeMap::new());
        assert_eq!(addresses(&assigned), ["example.com"]);
    }

    #[test]
    fn what_the_status_says_counts() {
        let (pool, mut assigned) = (pool("10.0.0.1-10.0.0.9"), BTreeMap::new());
        let world = objects(&[("a", None), ("b", None)]);
        let known = |name: &ObjectName| (&*name.name == "b").then(|| "10.0.0.1".parse().unwrap());
        assert_eq!(addresses(&pool.assign(&world, known, &mut assigned)), ["10.0.0.2", "10.0.0.1"]);
    }
}

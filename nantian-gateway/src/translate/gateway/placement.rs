//! Where a Gateway is bound and reached.

use crate::{
    ir::{ObjectName, Transport},
    source::{Placement, Placements, PublicAddress},
    translate::status::GatewayAddress,
};

/// What is known of where a Gateway is reached, beside its spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed<'a> {
    /// Its spec says it, or nobody has to know.
    AsAsked,
    /// On all interfaces, and nobody knows where that is.
    Unknown,
    /// Nowhere: no address was left for it.
    Exhausted,
    /// Through what stands in front of the process; nothing does yet where there is none.
    InFront(Option<&'a Placement>),
}

// === impl Placed ===

impl<'a> Placed<'a> {
    /// That of a Gateway which asks for no address.
    pub(super) fn find(placements: &'a Placements, gateway: &ObjectName) -> Self {
        match placements {
            Placements::Here => Self::AsAsked,
            Placements::Nowhere => Self::Unknown,
            Placements::Exhausted(gateways) if gateways.contains(gateway) => Self::Exhausted,
            Placements::Exhausted(_) => Self::Unknown,
            Placements::InFront(known) => Self::InFront(known.get(gateway)),
        }
    }

    /// Why the Gateway is reached nowhere as long as it has no address; `None` if it is.
    pub(super) fn unreached(self) -> Option<&'static str> {
        match self {
            Self::AsAsked => None,
            Self::Exhausted => Some("no address of the pool is free"),
            Self::Unknown | Self::InFront(_) => Some("no address is assigned to it yet"),
        }
    }

    /// Where clients find it, beside the addresses that it asks for.
    pub(super) fn addresses(self) -> impl Iterator<Item = GatewayAddress> + 'a {
        let placement = match self {
            Self::InFront(placement) => placement,
            Self::AsAsked | Self::Unknown | Self::Exhausted => None,
        };
        placement.into_iter().flat_map(|placement| &placement.addresses).map(|address| match address {
            PublicAddress::Ip(address) => GatewayAddress::from(*address),
            PublicAddress::Host(name) => GatewayAddress::host(name.clone()),
        })
    }
}

/// The port to bind for a listener's port; `None` as long as nobody has said which.
pub(super) fn bound_port(placed: Placed<'_>, transport: Transport, port: u16) -> Option<u16> {
    match placed {
        Placed::AsAsked | Placed::Unknown => Some(port),
        Placed::Exhausted => None,
        Placed::InFront(placement) => placement?.ports.get(&(transport, port)).copied(),
    }
}

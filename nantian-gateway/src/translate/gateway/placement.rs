//! Where a Gateway is bound and reached.

use std::net::IpAddr;

use crate::{
    ir::{ObjectName, Transport},
    source::{Placement, Placements, PublicAddress},
    translate::{conditions::Reason, status::GatewayAddress},
};

/// What is known of where a Gateway is reached, beside its spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed<'a> {
    /// Its spec says it, or nobody has to know.
    AsAsked,
    /// On all interfaces, and nobody knows where that is.
    Unknown,
    /// On all interfaces, and clients find it there.
    Known(&'a [PublicAddress]),
    /// Nowhere: no address was left for it.
    Exhausted,
    /// Nowhere: it names an address that another Gateway has.
    Taken,
    /// Through what stands in front of the process; nothing does yet where there is none.
    InFront {
        placement: Option<&'a Placement>,
        /// The address that it asks for.
        asked: Option<IpAddr>,
    },
}

// === impl Placed ===

impl<'a> Placed<'a> {
    /// That of a Gateway which asks for these addresses, or for any.
    pub(super) fn find(placements: &'a Placements, gateway: &ObjectName, asked: &[IpAddr]) -> Self {
        let asked = asked.first().copied();
        match placements {
            Placements::InFront(known) => Self::InFront { placement: known.get(gateway), asked },
            Placements::Assigned { taken, .. } if taken.contains(gateway) => Self::Taken,
            _ if asked.is_some() => Self::AsAsked,
            Placements::Here => Self::AsAsked,
            Placements::Nowhere => Self::Unknown,
            Placements::Known(addresses) => Self::Known(addresses),
            Placements::Assigned { exhausted, .. } if exhausted.contains(gateway) => Self::Exhausted,
            Placements::Assigned { .. } => Self::Unknown,
        }
    }

    /// Whether no socket is bound for it, whatever its listeners are.
    pub(super) fn is_nowhere(self) -> bool {
        matches!(self, Self::Exhausted | Self::Taken)
    }

    /// Why the Gateway is not reached where it should be; `None` if it is.
    pub(super) fn unreached(self) -> Option<(Reason, &'static str)> {
        match self {
            Self::AsAsked | Self::Known(_) => None,
            Self::Exhausted => Some((Reason::AddressNotAssigned, "no address of the pool is free")),
            Self::Taken => Some((Reason::AddressNotUsable, "another Gateway has this address")),
            Self::InFront { placement: Some(placement), asked } if !placement.addresses.is_empty() => {
                let has = |address| placement.addresses.contains(&PublicAddress::Ip(address));
                let message = "its Service has another address than the one that it asks for";
                asked.filter(|asked| !has(*asked)).map(|_| (Reason::AddressNotUsable, message))
            }
            Self::Unknown | Self::InFront { .. } => {
                Some((Reason::AddressNotAssigned, "no address is assigned to it yet"))
            }
        }
    }

    /// Where clients find it, beside the addresses that it asks for.
    pub(super) fn addresses(self) -> impl Iterator<Item = GatewayAddress> + 'a {
        let known = match self {
            Self::InFront { placement: Some(placement), .. } => &*placement.addresses,
            Self::Known(addresses) => addresses,
            _ => &[],
        };
        known.iter().map(|address| match address {
            PublicAddress::Ip(address) => GatewayAddress::from(*address),
            PublicAddress::Host(name) => GatewayAddress::host(name.clone()),
        })
    }
}

/// The port to bind for a listener's port; `None` as long as nobody has said which.
pub(super) fn bound_port(placed: Placed<'_>, transport: Transport, port: u16) -> Option<u16> {
    match placed {
        Placed::AsAsked | Placed::Known(_) | Placed::Unknown => Some(port),
        Placed::Exhausted | Placed::Taken => None,
        Placed::InFront { placement, .. } => placement?.ports.get(&(transport, port)).copied(),
    }
}

//! Where a Gateway is reached that does not say it itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::ir::{ObjectName, Transport};

/// Where the Gateways are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Placements {
    /// On all interfaces of this machine, under addresses that nobody has to be told: the world of files.
    #[default]
    Here,
    /// On all interfaces, under addresses that nobody knows.
    Nowhere,
    /// On addresses that are assigned, but for these Gateways, which are not served.
    Assigned {
        /// None was left for them.
        exhausted: BTreeSet<ObjectName>,
        /// They name one that another Gateway has.
        taken: BTreeSet<ObjectName>,
    },
    /// Through something in front of this process, whatever address they ask for; a Gateway without an entry
    /// waits for it.
    InFront(BTreeMap<ObjectName, Placement>),
}

/// What stands in front of the process for one Gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// The port that is bound for each port of a listener; one that has none yet is not served.
    pub ports: BTreeMap<(Transport, u16), u16>,
    /// Where clients find it.
    pub addresses: Vec<PublicAddress>,
}

/// An address that clients know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "Kubernetes knows no other")]
pub enum PublicAddress {
    /// A number.
    Ip(IpAddr),
    /// A name.
    Host(String),
}

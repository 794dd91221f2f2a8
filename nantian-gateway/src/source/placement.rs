//! Where a Gateway is reached that does not say it itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    str::FromStr,
};

use crate::{
    ir::{ObjectName, Transport},
    translate::hostname,
};

/// Where the Gateways are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Placements {
    /// On all interfaces of this machine, under addresses that nobody has to be told: the world of files.
    #[default]
    Here,
    /// On all interfaces, under addresses that nobody knows.
    Nowhere,
    /// On all interfaces, under these addresses.
    Known(Vec<PublicAddress>),
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

/// What clients find nothing by.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an address nor a host name")]
#[non_exhaustive]
pub struct InvalidPublicAddress(pub String);

impl FromStr for PublicAddress {
    type Err = InvalidPublicAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // An address that is misspelt is no name.
        let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse::<IpAddr>() {
            Ok(address) if !address.is_unspecified() => Ok(Self::Ip(address.to_canonical())),
            Err(_) if hostname::is_name(text) && !text.rsplit('.').next().is_some_and(is_number) => {
                Ok(Self::Host(text.to_ascii_lowercase()))
            }
            _ => Err(InvalidPublicAddress(text.to_owned())),
        }
    }
}

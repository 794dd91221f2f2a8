//! Where references may lead.
//!
//! Whoever may write an object chooses what the gateway connects to, and the gateway stands where others do
//! not: on its own machine, beside its admin server, and where the clouds show credentials. So an address is
//! judged in the moment it is dialled, whatever name it was found under.

use std::{io, net::IpAddr};

/// The text is no list of networks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{entry:?} is neither a network nor an address")]
pub(crate) struct InvalidNetwork {
    /// The entry.
    pub(crate) entry: String,
}

/// Whether those who write the objects trust one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tenancy {
    /// One operator writes them all, as files: a reference may lead wherever the gateway gets.
    Single,
    /// Teams write them that need not trust one another, as in a cluster: no reference may lead to what only
    /// the gateway reaches.
    Shared,
}

/// An address that no reference may lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{address} is not dialled: {reason}")]
pub struct Forbidden {
    address: IpAddr,
    reason: &'static str,
}

// === impl Tenancy ===

impl Tenancy {
    /// Whether an address may be dialled that a URL has, or that a name stands for.
    ///
    /// # Errors
    /// [`Forbidden`] says why not.
    pub fn judge(self, address: IpAddr) -> Result<(), Forbidden> {
        if self == Self::Shared && address.to_canonical().is_loopback() {
            return Err(Forbidden {
                address,
                reason: "no reference in a cluster leads to the gateway's own machine",
            });
        }
        self.judge_endpoint(address)
    }

    /// Whether an address may be dialled that an EndpointSlice has: the API server takes none of the machine
    /// itself there.
    ///
    /// # Errors
    /// [`Forbidden`] says why not.
    pub fn judge_endpoint(self, address: IpAddr) -> Result<(), Forbidden> {
        match never_asked(address) {
            Some(reason) if self == Self::Shared => Err(Forbidden { address, reason }),
            _ => Ok(()),
        }
    }
}

/// Why nobody but an operator may choose the address: it is link-local, which is where clouds keep
/// credentials, another place where they do, or no host at all.
pub(crate) fn never_asked(address: IpAddr) -> Option<&'static str> {
    let is_never_asked = match address.to_canonical() {
        IpAddr::V4(address) => {
            address.is_link_local()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_broadcast()
                // Alibaba, Oracle, Azure.
                || matches!(address.octets(), [100, 100, 100, 200] | [192, 0, 0, 192] | [168, 63, 129, 16])
        }
        IpAddr::V6(address) => {
            address.is_unicast_link_local()
                || address.is_unspecified()
                || address.is_multicast()
                || matches!(
                    address.segments(),
                    // AWS, with the agent of EKS Pod Identity; Google, Oracle, Scaleway, Akamai and
                    // Alibaba.
                    [0xfd00, 0xec2, ..]
                        | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]
                        | [0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe]
                        | [0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42]
                        | [0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1]
                        | [0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200]
                )
        }
    };
    is_never_asked.then_some("link-local, metadata and multicast addresses are never asked")
}

// === impl Forbidden ===

impl From<Forbidden> for io::Error {
    fn from(forbidden: Forbidden) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, forbidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: [&str; 15] = [
        "169.254.169.254",
        "169.254.170.23",
        "fe80::1",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "fd00:c1::a9fe:a9fe",
        "fd00:42::42",
        "fd00:a9fe:a9fe::1",
        "fd00:100::100:200",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "0.0.0.0",
        "::ffff:169.254.169.254",
    ];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn no_reference_in_a_cluster_leads_to_what_only_the_gateway_reaches() {
        for address in METADATA.into_iter().chain(["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "::"])
        {
            assert!(Tenancy::Shared.judge(ip(address)).is_err(), "{address}");
            assert!(Tenancy::Single.judge(ip(address)).is_ok(), "{address}");
        }
        for address in METADATA {
            assert!(Tenancy::Shared.judge_endpoint(ip(address)).is_err(), "{address}");
        }
    }

    #[test]
    fn the_networks_of_a_cluster_and_the_internet_are_dialled() {
        for address in
            ["10.0.0.7", "192.168.1.1", "172.16.0.1", "100.64.0.1", "fd12::1", "fd00:42::43", "93.184.216.34"]
        {
            assert_eq!(Tenancy::Shared.judge(ip(address)), Ok(()), "{address}");
        }
    }

    #[test]
    fn a_refusal_names_the_address_and_the_reason() {
        let error = io::Error::from(Tenancy::Shared.judge(ip("127.0.0.1")).unwrap_err());
        assert_eq!(
            error.to_string(),
            "127.0.0.1 is not dialled: no reference in a cluster leads to the gateway's own machine"
        );
    }
}

//! Which addresses modules may be fetched from.
//!
//! Whoever may write a WasmPlugin chooses what the gateway connects to. So the address is judged in the
//! moment it is dialled, whatever name it was found under and however many redirects led there: only the
//! internet, what the operator names and, where the operator writes the URLs, this machine when one says so.

use std::{net::IpAddr, str::FromStr};

use ipnet::IpNet;

use crate::tenancy::{InvalidNetwork, Tenancy, never_asked};

/// Networks inside of which modules may be fetched too, also over http.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SourceNetworks(Vec<IpNet>);

/// One step on the way to a module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hop<'a> {
    pub(super) host: &'a str,
    pub(super) is_encrypted: bool,
    /// The manifest itself names the host, rather than a redirect or a registry's answer.
    pub(super) is_first: bool,
}

// === impl SourceNetworks ===

impl SourceNetworks {
    /// Whether a module may be fetched from this address, or why not.
    pub(super) fn judge(&self, tenancy: Tenancy, hop: Hop<'_>, address: IpAddr) -> Result<(), &'static str> {
        let address = address.to_canonical();
        if let Some(reason) = never_asked(address) {
            return Err(reason);
        }
        if self.0.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        if address.is_loopback() {
            return match tenancy {
                Tenancy::Shared => {
                    Err("this machine is asked in a cluster only where --plugin-sources names it")
                }
                Tenancy::Single if hop.is_first && names_loopback(hop.host) => Ok(()),
                Tenancy::Single => Err(
                    "this machine is asked only where spec.wasm.url or --plugin-sources names it, not a redirect",
                ),
            };
        }
        if is_private(address) {
            return Err("private networks are asked only where --plugin-sources names them");
        }
        if hop.is_encrypted { Ok(()) } else { Err("only https is asked outside of this machine") }
    }
}

impl FromStr for SourceNetworks {
    type Err = InvalidNetwork;

    /// Networks and addresses, with commas between.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let network = |entry: &str| {
            let parsed = entry.parse().or_else(|_| entry.parse::<IpAddr>().map(IpNet::from));
            parsed.map_err(|_| InvalidNetwork { entry: entry.to_owned() })
        };
        entries.map(network).collect::<Result<_, _>>().map(Self)
    }
}

/// Whether a host is this machine by its name alone.
pub(super) fn names_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            address.is_private() || first == 0 || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(address) => address.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(networks: &str, host: &str, is_encrypted: bool, address: &str) -> bool {
        let hop = Hop { host, is_encrypted, is_first: true };
        let networks = networks.parse::<SourceNetworks>().unwrap();
        networks.judge(Tenancy::Single, hop, address.parse().unwrap()).is_ok()
    }

    #[test]
    fn the_internet_is_asked_over_tls_only() {
        assert!(judge("", "example.com", true, "93.184.216.34"));
        assert!(!judge("", "example.com", false, "93.184.216.34"));
    }

    #[test]
    fn this_machine_is_asked_where_the_url_names_it() {
        assert!(judge("", "localhost", false, "127.0.0.1"));
        assert!(judge("", "127.0.0.1", false, "127.0.0.1"));
        assert!(!judge("", "evil.example", true, "127.0.0.1"));
        let redirected = Hop { host: "127.0.0.1", is_encrypted: true, is_first: false };
        let of_nobody = SourceNetworks::default();
        let (named, address) = (Hop { is_first: true, ..redirected }, "127.0.0.1".parse().unwrap());
        assert!(of_nobody.judge(Tenancy::Single, redirected, address).is_err());
        assert!(of_nobody.judge(Tenancy::Single, named, address).is_ok());
        assert!(of_nobody.judge(Tenancy::Shared, named, address).is_err());
        let of_operator = "127.0.0.1".parse::<SourceNetworks>().unwrap();
        assert!(of_operator.judge(Tenancy::Shared, named, address).is_ok());
    }

    #[test]
    fn private_networks_are_asked_where_the_operator_names_them() {
        for address in ["10.0.0.7", "192.168.1.1", "172.16.0.1", "100.64.0.1", "fd12::1", "::ffff:10.0.0.7"] {
            assert!(!judge("", "registry.example", true, address), "{address}");
        }
        assert!(judge("10.0.0.0/8", "registry.example", false, "10.0.0.7"));
        assert!(judge("10.0.0.0/8, fd12::1", "registry.example", false, "fd12::1"));
        assert!("10.0.0.0/99".parse::<SourceNetworks>().is_err());
    }

    #[test]
    fn metadata_services_are_never_asked() {
        for address in [
            "169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "0.0.0.0",
            "::ffff:169.254.169.254",
        ] {
            assert!(!judge("0.0.0.0/0,::/0", "metadata.example", true, address), "{address}");
        }
    }
}

//! `--admin-addr`.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// Where the admin server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub(super) enum AdminAddr {
    /// Nowhere.
    None,
    /// There.
    At(SocketAddr),
}

/// The text is no such address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is neither `none` nor an IP address and a port, such as 127.0.0.1:19080")]
pub(super) struct InvalidAdminAddr;

impl FromStr for AdminAddr {
    type Err = InvalidAdminAddr;

    /// Around an IPv4 address there may be brackets, too: the address of a pod is of either family, and
    /// `[$(POD_IP)]:19080` is right for both.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" {
            return Ok(Self::None);
        }
        let bracketed = text.strip_prefix('[').and_then(|text| {
            let (address, port) = text.split_once("]:")?;
            Some(SocketAddr::new(IpAddr::V4(address.parse().ok()?), port.parse().ok()?))
        });
        bracketed.or_else(|| text.parse().ok()).map(Self::At).ok_or(InvalidAdminAddr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_may_be_in_brackets() {
        for (text, address) in [
            ("127.0.0.1:19080", "127.0.0.1:19080"),
            ("[10.0.0.1]:19080", "10.0.0.1:19080"),
            ("[fd00::1]:19080", "[fd00::1]:19080"),
            ("[::]:19080", "[::]:19080"),
        ] {
            assert_eq!(text.parse(), Ok(AdminAddr::At(address.parse().unwrap())), "{text}");
        }
        assert_eq!("none".parse(), Ok(AdminAddr::None));
        for wrong in ["fd00::1:19080", "[10.0.0.1]", "[10.0.0.1]19080", "10.0.0.1]:19080", "[]:1", "19080"] {
            assert!(wrong.parse::<AdminAddr>().is_err(), "{wrong}");
        }
    }
}

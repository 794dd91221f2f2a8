//! Where a request is sent.

use std::fmt;

use http::uri::Authority;

use super::UpstreamTls;
use crate::ir::{Address, Protocol};

/// An upstream address, and how it is spoken to.
///
/// Connections are pooled by this value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Destination {
    /// Where it listens.
    pub(crate) address: Address,
    /// What it speaks.
    pub(crate) protocol: Protocol,
    /// What is below that.
    pub(crate) security: Security,
}

/// How connections to a destination are opened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub(crate) enum Security {
    /// In clear text.
    Plain,
    /// Over TLS, with whom it says.
    Tls(UpstreamTls),
    /// Not at all: TLS is asked for, and nothing says how a certificate is verified. A state of the
    /// destination itself, so that nobody who has picked it can take it for one in clear text.
    Refused,
}

impl Destination {
    /// Where an HTTP URL leads; `None` without a host.
    pub(crate) fn of_url(authority: &Authority, tls: bool) -> Option<Self> {
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        if host.is_empty() {
            return None;
        }
        let address = Address::Dns(host.to_owned(), port);
        let security = if tls { Security::Tls(UpstreamTls::named(host)) } else { Security::Plain };
        Some(Self { address, protocol: Protocol::Http1, security })
    }

    /// The same over `tls`, unless nothing may be sent there.
    pub(crate) fn over(&mut self, tls: &UpstreamTls) {
        if self.security != Security::Refused {
            self.security = Security::Tls(tls.clone());
        }
    }
}

// === impl Security ===

impl Security {
    /// Who is expected, if it is TLS.
    pub(crate) fn tls(&self) -> Option<&UpstreamTls> {
        match self {
            Self::Tls(tls) => Some(tls),
            Self::Plain | Self::Refused => None,
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Ip(address) => write!(f, "{address}"),
            Address::Dns(address, port) if address.contains(':') => write!(f, "[{address}]:{port}"),
            Address::Dns(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

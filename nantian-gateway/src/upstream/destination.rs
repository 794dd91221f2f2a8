//! Where a request is sent.

use std::{fmt, net::SocketAddr};

use http::uri::Authority;

use super::UpstreamTls;
use crate::ir::{Address, Protocol};

/// An upstream address, how it is spoken to, and whose certificate is expected there.
///
/// Connections are pooled by this value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Where it listens.
    pub address: Address,
    /// What it speaks.
    pub protocol: Protocol,
    /// Whose certificate is expected there; `None` is clear text.
    pub tls: Option<UpstreamTls>,
}

impl Destination {
    /// Where an HTTP URL leads; `None` without a host.
    pub fn of_url(authority: &Authority, tls: bool) -> Option<Self> {
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        if host.is_empty() {
            return None;
        }
        let address = match host.parse() {
            Ok(address) => Address::Ip(SocketAddr::new(address, port)),
            Err(_) => Address::Dns(host.to_owned(), port),
        };
        Some(Self { address, protocol: Protocol::Http1, tls: tls.then(|| UpstreamTls::named(host)) })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Ip(address) => write!(f, "{address}"),
            Address::Dns(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

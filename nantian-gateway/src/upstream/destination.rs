//! Where a request is sent.

use std::{fmt, sync::Arc};

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
    /// The name that its certificate must cover; `None` is clear text.
    pub tls: Option<Arc<str>>,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Ip(address) => write!(f, "{address}"),
            Address::Dns(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

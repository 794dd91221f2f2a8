//! Where a request goes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// The address of a backend, which whoever sends the request tells; its clones are one.
///
/// A request that is sent again goes to another address: the last one counts.
#[derive(Debug, Clone, Default)]
pub struct UpstreamAddress(Arc<Mutex<Option<SocketAddr>>>);

// === impl UpstreamAddress ===

impl UpstreamAddress {
    /// The request goes there.
    pub fn set(&self, address: SocketAddr) {
        *lock(&self.0) = Some(address);
    }

    /// Where it goes, once that is known.
    pub fn get(&self) -> Option<SocketAddr> {
        *lock(&self.0)
    }
}

impl PartialEq for UpstreamAddress {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for UpstreamAddress {}

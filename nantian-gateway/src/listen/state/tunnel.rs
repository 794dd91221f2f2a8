//! Connections that have left HTTP.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// A connection that leaves HTTP counts as open while a clone of this lives.
#[derive(Debug, Clone)]
pub(crate) struct TunnelGuard(#[expect(dead_code, reason = "it is held for its drop")] Arc<Tunnel>);

#[derive(Debug)]
struct Tunnel(Arc<AtomicUsize>);

// === impl TunnelGuard ===

impl TunnelGuard {
    pub(in crate::listen) fn new(tunnels: &Arc<AtomicUsize>) -> Self {
        tunnels.fetch_add(1, Relaxed);
        Self(Arc::new(Tunnel(Arc::clone(tunnels))))
    }
}

// === impl Tunnel ===

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

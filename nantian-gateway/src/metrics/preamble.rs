//! What is counted of PROXY protocol headers.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use prometheus_client::encoding::DescriptorEncoder;

use super::{Metrics, family::counters};

/// Why a connection that should have a preamble has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PreambleFailure {
    /// The proxy has ended the connection.
    Closed,
    /// It took too long.
    Timeout,
    /// Something else comes first, it breaks the rules, or it is too long.
    Malformed,
}

/// The preambles that failed.
#[derive(Debug, Default)]
pub(super) struct PreambleMetrics {
    failures: [AtomicU64; PreambleFailure::ALL.len()],
}

// === impl PreambleFailure ===

impl PreambleFailure {
    /// All of them, in their order.
    const ALL: [Self; 3] = [Self::Closed, Self::Timeout, Self::Malformed];

    /// Its label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Malformed => "malformed",
        }
    }
}

// === impl Metrics ===

impl Metrics {
    /// Counts a preamble that failed.
    pub(crate) fn preamble_failed(&self, why: PreambleFailure) {
        if let Some(count) = self.preambles.failures.get(why as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn encode_preambles(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let failures = PreambleFailure::ALL.into_iter().zip(&self.preambles.failures);
        counters(
            encoder,
            "nantian_proxy_protocol_failures",
            "Connections from the networks of --proxy-protocol-from without a PROXY protocol header, by reason",
            failures.map(|(why, count)| ([("reason", why.as_str())], count.load(Relaxed))),
        )
    }
}

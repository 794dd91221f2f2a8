//! What is counted of PROXY protocol headers.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use prometheus_client::encoding::DescriptorEncoder;

use super::{
    Metrics,
    family::{counters, labels},
};

labels! {
    /// Why a connection that should have a preamble has none.
    pub(crate) enum PreambleFailure {
        /// The proxy has ended the connection.
        Closed = "closed",
        /// It took too long.
        Timeout = "timeout",
        /// Something else comes first, it breaks the rules, or it is too long.
        Malformed = "malformed",
    }
}

/// The preambles that failed.
#[derive(Debug, Default)]
pub(super) struct PreambleMetrics {
    failures: [AtomicU64; PreambleFailure::LABELS.len()],
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
        let failures = PreambleFailure::LABELS.into_iter().zip(&self.preambles.failures);
        counters(
            encoder,
            "nantian_proxy_protocol_failures",
            "Connections from the networks of --proxy-protocol-from without a PROXY protocol header, by reason",
            failures.map(|(why, count)| ([("reason", why)], count.load(Relaxed))),
        )
    }
}

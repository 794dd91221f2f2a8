//! What is counted of TLS with clients.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use prometheus_client::encoding::DescriptorEncoder;

use super::{
    Metrics,
    family::{counters, gauges, labels},
};
use crate::{ir::ObjectName, sync::lock};

labels! {
    /// Why a client and the gateway have not come to an understanding.
    pub(crate) enum HandshakeFailure {
        /// The client has ended the connection.
        Closed = "closed",
        /// The client took too long.
        Timeout = "timeout",
        /// What came is no TLS, or breaks its rules.
        Malformed = "malformed",
        /// No listener takes the name that the client asks for.
        UnknownName = "unknown_name",
        /// There is no version, cipher or protocol that both speak.
        Incompatible = "incompatible",
        /// The client has no certificate, and has to have one.
        NoClientCertificate = "no_client_certificate",
        /// Its certificate has expired.
        ExpiredClientCertificate = "expired_client_certificate",
        /// Its certificate is not one that the listener takes.
        InvalidClientCertificate = "invalid_client_certificate",
        /// The client has said that it will not go on, such as because of the certificate that it was
        /// presented.
        ClientAlert = "client_alert",
        /// None of the others.
        Other = "other",
    }
}

/// The handshakes that failed, and until when certificates hold.
#[derive(Debug, Default)]
pub(super) struct TlsMetrics {
    failures: [AtomicU64; HandshakeFailure::LABELS.len()],
    /// By Secret, in seconds since 1970.
    not_after: Mutex<BTreeMap<ObjectName, u64>>,
}

// === impl Metrics ===

impl Metrics {
    /// Counts a handshake that failed.
    pub(crate) fn handshake_failed(&self, why: HandshakeFailure) {
        if let Some(count) = self.tls.failures.get(why as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Tells of these certificates from now on: of each Secret the last second of the one that is served.
    pub(crate) fn set_certificates(&self, not_after: BTreeMap<ObjectName, u64>) {
        *lock(&self.tls.not_after) = not_after;
    }

    pub(super) fn encode_tls(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let failures = HandshakeFailure::LABELS.into_iter().zip(&self.tls.failures);
        counters(
            encoder,
            "nantian_tls_handshake_failures",
            "TLS handshakes with clients that failed, by reason",
            failures.map(|(why, count)| ([("reason", why)], count.load(Relaxed))),
        )?;
        let not_after = lock(&self.tls.not_after);
        gauges(
            encoder,
            "nantian_tls_certificate_not_after_timestamp_seconds",
            "When the certificate of a Secret that is served expires, in seconds since 1970",
            not_after.iter().map(|(secret, until)| ([("secret", secret.to_string())], *until)),
        )
    }
}

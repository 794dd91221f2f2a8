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
    family::{counters, gauges},
};
use crate::{ir::ObjectName, sync::lock};

/// Why a client and the gateway have not come to an understanding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandshakeFailure {
    /// The client has ended the connection.
    Closed,
    /// The client took too long.
    Timeout,
    /// What came is no TLS, or breaks its rules.
    Malformed,
    /// No listener takes the name that the client asks for.
    UnknownName,
    /// There is no version, cipher or protocol that both speak.
    Incompatible,
    /// The client has no certificate, and has to have one.
    NoClientCertificate,
    /// Its certificate has expired.
    ExpiredClientCertificate,
    /// Its certificate is not one that the listener takes.
    InvalidClientCertificate,
    /// The client has said that it will not go on, such as because of the certificate that it was presented.
    ClientAlert,
    /// None of the others.
    Other,
}

/// The handshakes that failed, and until when certificates hold.
#[derive(Debug, Default)]
pub(super) struct TlsMetrics {
    failures: [AtomicU64; HandshakeFailure::ALL.len()],
    /// By Secret, in seconds since 1970.
    not_after: Mutex<BTreeMap<ObjectName, u64>>,
}

// === impl HandshakeFailure ===

impl HandshakeFailure {
    /// All of them, in their order.
    const ALL: [Self; 10] = [
        Self::Closed,
        Self::Timeout,
        Self::Malformed,
        Self::UnknownName,
        Self::Incompatible,
        Self::NoClientCertificate,
        Self::ExpiredClientCertificate,
        Self::InvalidClientCertificate,
        Self::ClientAlert,
        Self::Other,
    ];

    /// Its label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Malformed => "malformed",
            Self::UnknownName => "unknown_name",
            Self::Incompatible => "incompatible",
            Self::NoClientCertificate => "no_client_certificate",
            Self::ExpiredClientCertificate => "expired_client_certificate",
            Self::InvalidClientCertificate => "invalid_client_certificate",
            Self::ClientAlert => "client_alert",
            Self::Other => "other",
        }
    }
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
        let failures = HandshakeFailure::ALL.into_iter().zip(&self.tls.failures);
        counters(
            encoder,
            "nantian_tls_handshake_failures",
            "TLS handshakes with clients that failed, by reason",
            failures.map(|(why, count)| ([("reason", why.as_str())], count.load(Relaxed))),
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

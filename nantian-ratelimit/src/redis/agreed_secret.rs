//! What all replicas of a server agree on.

use crate::key::SharedSecret;

/// The secret that replicas hash keys under.
pub(super) struct AgreedSecret {
    pub(super) secret: SharedSecret,
    pub(super) bytes: Vec<u8>,
}

// === impl AgreedSecret ===

impl AgreedSecret {
    /// A secret that nobody has agreed on yet.
    pub(super) fn proposed() -> Self {
        let bytes = SharedSecret::random_bytes();
        Self { secret: SharedSecret::from_array(bytes), bytes: bytes.to_vec() }
    }

    /// The secret that a server tells; `None` if it is none.
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        let secret = SharedSecret::from_array(bytes.as_slice().try_into().ok()?);
        Some(Self { secret, bytes })
    }
}

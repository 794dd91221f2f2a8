//! What all replicas of a server agree on.

use std::sync::Arc;

use redis::{RedisError, Value};
use tokio::time::Instant;

use super::ask::{bytes, unexpected_answer};
use super::store::StoreState;
use crate::key::SharedSecret;

/// The secret that replicas hash keys under.
pub(super) struct AgreedSecret {
    pub(super) secret: SharedSecret,
    pub(super) bytes: Vec<u8>,
    /// Whether the server has told it.
    pub(super) is_agreed: bool,
}

// === impl AgreedSecret ===

impl AgreedSecret {
    /// A secret that nobody has agreed on yet.
    pub(super) fn proposed() -> Self {
        let bytes = SharedSecret::random_bytes();
        Self { secret: SharedSecret::from_array(bytes), bytes: bytes.to_vec(), is_agreed: false }
    }

    /// The secret that a server tells; `None` if it is none.
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        let secret = SharedSecret::from_array(bytes.as_slice().try_into().ok()?);
        Some(Self { secret, bytes, is_agreed: true })
    }
}

// === impl StoreState ===

impl StoreState {
    /// Learns from the answer to a greeting what the replicas agree on, and how many there are.
    pub(super) fn learn(&self, greeted: Value) -> Result<(), RedisError> {
        let Value::Array(greeted) = greeted else { return Err(unexpected_answer()) };
        let [secret, replicas] = <[Value; 2]>::try_from(greeted).map_err(|_| unexpected_answer())?;
        let secret = bytes(Ok(secret))?;
        if let Value::Int(replicas) = replicas {
            self.count_replicas(Instant::now(), u32::try_from(replicas).unwrap_or(1).max(1));
        }
        let known = self.agreed.load();
        if !known.is_agreed || known.bytes != secret {
            let agreed = AgreedSecret::from_bytes(secret).ok_or_else(unexpected_answer)?;
            self.agreed.store(Arc::new(agreed));
        }
        Ok(())
    }
}

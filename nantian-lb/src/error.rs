//! Why a pick gives no endpoint.

use std::num::NonZeroU32;

/// Why a pick gives no endpoint. Maps to 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickError {
    /// The set is empty, or all of its weights are 0.
    #[error("no endpoint with a weight above 0")]
    NoEndpoints,
    /// Every endpoint that may be picked is at its limit of requests in flight.
    #[error("every endpoint is full, at {max} in flight")]
    Saturated {
        /// The limit, in requests per endpoint.
        max: NonZeroU32,
    },
}

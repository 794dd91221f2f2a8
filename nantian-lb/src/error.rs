//! Why a pick gives no endpoint.

use std::num::NonZeroU32;

/// Why a pick gives no endpoint. Maps to 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickError {
    /// No endpoint is ready and has a weight above 0.
    #[error("no endpoint is ready and has a weight above 0")]
    NoEndpoints,
    /// No endpoint is healthy, and [`panic_threshold_percent`](crate::BalanceConfig::panic_threshold_percent)
    /// is 0.
    #[error("no endpoint is healthy")]
    NoneHealthy,
    /// Every endpoint that may be picked is at its limit of requests in flight.
    #[error("every endpoint is full, at {max} in flight")]
    Saturated {
        /// The limit, in requests per endpoint.
        max: NonZeroU32,
    },
}

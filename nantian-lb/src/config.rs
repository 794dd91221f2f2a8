//! How a balancer chooses: plain data.

use std::num::NonZeroU32;

use crate::key::HashKey;

/// How requests are spread over the endpoints of one set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BalanceConfig {
    /// How an endpoint is chosen.
    ///
    /// Default: [`Strategy::RoundRobin`]. Source: `BackendLBPolicy.spec.loadBalancing.type`.
    pub strategy: Strategy,
    /// Requests that one endpoint may have in flight at once; a pick passes over an endpoint that has them.
    ///
    /// Unit: requests per endpoint. Range: 1..=u32::MAX. Default: unlimited.
    /// Source: `BackendLBPolicy.spec.circuitBreaker.maxInflightRequests`.
    pub max_inflight_requests: Option<NonZeroU32>,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Strategy {
    /// In turns, shared by all users of the balancer: of any N picks each of n equal endpoints gets N/n, give or take one.
    #[default]
    RoundRobin,
    /// Independently of everything but the weights.
    Random,
    /// The endpoint with fewer requests in flight, for its weight, of two that are drawn at random.
    LeastRequest,
    /// The endpoint that the key of the request is placed on; [`Strategy::LeastRequest`] for requests without the key.
    ConsistentHash(HashKey),
}

// === impl BalanceConfig ===

impl BalanceConfig {
    /// Chooses by `strategy`, without a limit of requests in flight.
    #[must_use]
    pub fn new(strategy: Strategy) -> Self {
        Self { strategy, max_inflight_requests: None }
    }

    /// Sets [`max_inflight_requests`](Self::max_inflight_requests).
    #[must_use]
    pub fn with_max_inflight_requests(mut self, max: NonZeroU32) -> Self {
        self.max_inflight_requests = Some(max);
        self
    }
}

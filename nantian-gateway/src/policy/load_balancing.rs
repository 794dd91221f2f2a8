//! BackendLBPolicy.

use std::{num::NonZeroU32, time::Duration};

use bytes::Bytes;
use http::{Response, StatusCode, request::Parts};
use nantian_lb::{
    BalanceConfig, BalanceLayer, Balancer, Blame, Endpoint, HashKey, PickError, Readiness, Strategy,
    health::{OutlierConfig, SlowStartConfig},
    session::Sessions,
};
use nantian_wasm::respond::LocalReply;

use crate::{
    ir,
    listen::client_address,
    respond,
    upstream::{Destination, Security, Unanswered},
};

/// The bit of `response.flags` that says so, as plugins know it from Envoy.
const NO_HEALTHY_UPSTREAM: u32 = 1 << 1;

/// How long an endpoint that was left out takes to get its whole share again.
const SLOW_START: Duration = Duration::from_secs(10);

/// Picks an endpoint for each request, and keeps sessions if there are any.
pub(crate) fn balance_layer(
    balancer: &Balancer<Destination>,
    sessions: Option<&Sessions>,
) -> BalanceLayer<Destination, impl Blame<Unanswered> + Clone + use<>> {
    let layer = BalanceLayer::new(balancer.clone())
        .client_ip(client_address)
        .blame(|unanswered: &Unanswered| unanswered.error.is_of_endpoint())
        .responder(no_endpoint);
    match sessions {
        Some(sessions) => layer.sessions(sessions.clone()),
        None => layer,
    }
}

/// The answer to a request that there is no endpoint for.
fn no_endpoint(error: &PickError, _: &Parts) -> Response<Bytes> {
    let text = match error {
        PickError::Saturated { .. } => "every endpoint is full",
        _ => "no endpoint is ready",
    };
    let mut response = respond::plain_because(StatusCode::SERVICE_UNAVAILABLE, text, &error.to_string());
    response.extensions_mut().insert(LocalReply::new("no_healthy_upstream", NO_HEALTHY_UPSTREAM));
    response
}

/// How a backend is balanced.
pub(crate) fn balance_config(balancing: &ir::LoadBalancing) -> BalanceConfig {
    let strategy = match &balancing.strategy {
        ir::Strategy::RoundRobin => Strategy::RoundRobin,
        ir::Strategy::Random => Strategy::Random,
        ir::Strategy::LeastRequest => Strategy::LeastRequest,
        ir::Strategy::ConsistentHash(hash) => Strategy::ConsistentHash(hash_key(&hash.key)),
    };
    // Not for an ordinary 500 nor for 429: one client would decide for all.
    let outlier = OutlierConfig::new().with_consecutive_errors(None).with_busy_max(Duration::ZERO);
    // A Service that grows has its new endpoints at once: requests are to be spread as they were before.
    let mut slow_start = SlowStartConfig::new(SLOW_START);
    slow_start.new_endpoints = false;
    let config = BalanceConfig::new(strategy).with_outlier(outlier).with_slow_start(slow_start);
    match balancing.max_inflight_requests.and_then(NonZeroU32::new) {
        Some(max) => config.with_max_inflight_requests(max),
        None => config,
    }
}

fn hash_key(key: &ir::HashKey) -> HashKey {
    match key {
        ir::HashKey::SourceIp => HashKey::SourceIp,
        ir::HashKey::Hostname => HashKey::Hostname,
        ir::HashKey::Header(name) => HashKey::Header(name.clone()),
    }
}

/// The endpoints of a backend as the balancer takes them.
pub(crate) fn endpoints(
    endpoints: &[ir::Endpoint],
    protocol: ir::Protocol,
    security: &Security,
) -> Vec<Endpoint<Destination>> {
    endpoints
        .iter()
        .map(|endpoint| {
            let security = security.clone();
            let destination = Destination { address: endpoint.address.clone(), protocol, security };
            let readiness = if endpoint.draining { Readiness::Draining } else { Readiness::Ready };
            Endpoint::new(endpoint.id.as_str(), destination)
                .with_readiness(readiness)
                .with_tier(endpoint.tier)
        })
        .collect()
}

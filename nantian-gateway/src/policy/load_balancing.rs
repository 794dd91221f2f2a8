//! BackendLBPolicy.

use std::num::NonZeroU32;

use http::HeaderName;
use nantian_lb::{BalanceConfig, Endpoint, HashKey, Strategy};

use crate::{ir, upstream::Destination};

/// How a backend is balanced.
pub fn balance_config(balancing: &ir::LoadBalancing) -> BalanceConfig {
    let strategy = match &balancing.strategy {
        ir::Strategy::RoundRobin => Strategy::RoundRobin,
        ir::Strategy::Random => Strategy::Random,
        ir::Strategy::LeastRequest => Strategy::LeastRequest,
        ir::Strategy::ConsistentHash(hash) => {
            hash_key(&hash.key).map_or(Strategy::LeastRequest, Strategy::ConsistentHash)
        }
    };
    let config = BalanceConfig::new(strategy);
    match balancing.max_inflight_requests.and_then(NonZeroU32::new) {
        Some(max) => config.with_max_inflight_requests(max),
        None => config,
    }
}

/// `None` for a header that HTTP does not know; a missing key falls back to least request all the same.
fn hash_key(key: &ir::HashKey) -> Option<HashKey> {
    match key {
        ir::HashKey::SourceIp => Some(HashKey::SourceIp),
        ir::HashKey::Hostname => Some(HashKey::Hostname),
        ir::HashKey::Header(name) => HeaderName::from_bytes(name.as_bytes()).ok().map(HashKey::Header),
    }
}

/// The endpoints of a backend as the balancer takes them.
pub fn endpoints(endpoints: &[ir::Endpoint], protocol: ir::Protocol) -> Vec<Endpoint<Destination>> {
    endpoints
        .iter()
        .map(|endpoint| {
            let destination = Destination { address: endpoint.address.clone(), protocol, tls: None };
            Endpoint::new(endpoint.id.as_str(), destination)
        })
        .collect()
}

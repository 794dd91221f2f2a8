//! The endpoints of backends, as Prometheus reads them.

use std::fmt;

use nantian_lb::{EndpointStatus, health::Health};
use prometheus_client::encoding::DescriptorEncoder;

use super::{
    Metrics,
    family::{counters, gauges},
};
use crate::{sync::lock, upstream::Destination};

/// An endpoint with the name of its backend.
type Endpoint = (String, EndpointStatus<Destination>);

impl Metrics {
    pub(super) fn encode_endpoints(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let balancers = lock(&self.balancers).clone();
        let endpoints = balancers.iter().flat_map(|(id, balancer)| {
            let name = id.to_string();
            balancer.status().into_iter().map(move |endpoint| (name.clone(), endpoint))
        });
        let endpoints: Vec<Endpoint> = endpoints.collect();
        gauges(
            encoder,
            "nantian_endpoint_requests_in_flight",
            "Requests that an endpoint is working on",
            samples(&endpoints, |endpoint| u64::try_from(endpoint.in_flight).unwrap_or(u64::MAX)),
        )?;
        gauges(
            encoder,
            "nantian_endpoint_healthy",
            "Whether nothing speaks against an endpoint, 1, or it is passed over because it failed, 0",
            samples(&endpoints, |endpoint| u64::from(endpoint.health == Health::Healthy)),
        )?;
        counters(
            encoder,
            "nantian_endpoint_ejections",
            "How often an endpoint was passed over for a while because it failed",
            samples(&endpoints, |endpoint| endpoint.ejections),
        )
    }
}

fn samples(
    endpoints: &[Endpoint],
    value: impl Fn(&EndpointStatus<Destination>) -> u64,
) -> impl Iterator<Item = ([(&'static str, &str); 2], u64)> {
    endpoints.iter().map(move |(backend, endpoint)| {
        ([("backend", backend.as_str()), ("endpoint", endpoint.id.as_str())], value(endpoint))
    })
}

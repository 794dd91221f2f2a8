//! The endpoints of backends, as Prometheus reads them.

use std::{fmt, sync::PoisonError};

use nantian_lb::{EndpointStatus, health::Health};
use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::Metrics;
use crate::upstream::Destination;

/// An endpoint with the name of its backend.
type Endpoint = (String, EndpointStatus<Destination>);

impl Metrics {
    pub(super) fn encode_endpoints(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let balancers = self.balancers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let endpoints = balancers.iter().flat_map(|(id, balancer)| {
            let name = id.to_string();
            balancer.status().into_iter().map(move |endpoint| (name.clone(), endpoint))
        });
        let endpoints: Vec<Endpoint> = endpoints.collect();
        gauge(
            encoder,
            "nantian_endpoint_requests_in_flight",
            "Requests that an endpoint is working on",
            &endpoints,
            |endpoint| u64::try_from(endpoint.in_flight).unwrap_or(u64::MAX),
        )?;
        gauge(
            encoder,
            "nantian_endpoint_healthy",
            "Whether nothing speaks against an endpoint, 1, or it is passed over because it failed, 0",
            &endpoints,
            |endpoint| u64::from(endpoint.health == Health::Healthy),
        )?;
        let mut ejections = encoder.encode_descriptor(
            "nantian_endpoint_ejections",
            "How often an endpoint was passed over for a while because it failed",
            None,
            MetricType::Counter,
        )?;
        for (backend, endpoint) in &endpoints {
            ejections
                .encode_family(&[("backend", backend.as_str()), ("endpoint", endpoint.id.as_str())])?
                .encode_counter::<NoLabelSet, _, u64>(&endpoint.ejections, None)?;
        }
        Ok(())
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    endpoints: &[Endpoint],
    value: impl Fn(&EndpointStatus<Destination>) -> u64,
) -> fmt::Result {
    let mut gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (backend, endpoint) in endpoints {
        gauge
            .encode_family(&[("backend", backend.as_str()), ("endpoint", endpoint.id.as_str())])?
            .encode_gauge(&value(endpoint))?;
    }
    Ok(())
}

//! A connection to an endpoint of a route.

use std::time::Duration;

use nantian_lb::{InFlight, Outcome, PickContext, PickError};

use super::{StreamBackend, StreamClient, StreamRoute};
use crate::{
    respond::ErrorChain,
    tenancy::Tenancy,
    upstream::{Io, UpstreamError, connect_stream},
};

/// How many other endpoints are tried.
const OTHERS: usize = 4;

/// A connection to an endpoint, which counts it until the guard is dropped.
#[derive(Debug)]
pub(super) struct OpenedConnection {
    pub(super) stream: Io,
    /// Where it leads.
    pub(super) endpoint: String,
    pub(super) in_flight: InFlight,
}

/// Why there is no connection to an endpoint.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The route, or its share that was drawn, has no backend.
    #[error("the route has no valid backend")]
    NoBackend,
    /// No endpoint takes connections.
    #[error(transparent)]
    Pick(#[from] PickError),
    /// Neither the first endpoint nor another one can be reached.
    #[error(transparent)]
    Connect(#[from] UpstreamError),
}

/// Opens a connection to an endpoint of the route, behind the TLS of its backend if that has any; an endpoint
/// that cannot be reached, within `limit`, makes way for another one.
///
/// # Errors
/// [`OpenError`]
///
/// # Cancellation
/// Dropping the future closes what was opened.
pub(super) async fn open(
    route: &StreamRoute,
    caller: &StreamClient<'_>,
    limit: Duration,
    tenancy: Tenancy,
) -> Result<OpenedConnection, OpenError> {
    let StreamBackend { balancer, security, .. } = route.choose().ok_or(OpenError::NoBackend)?;
    let mut tried = Vec::new();
    loop {
        let picked = balancer.pick(&PickContext::new().with_keys(caller).with_tried(&tried))?;
        let (endpoint, mut in_flight) = picked.into_parts();
        let is_new = !tried.contains(in_flight.endpoint());
        let destination = security.apply(endpoint);
        match connect_stream(&destination, limit, tenancy).await {
            Ok(stream) => {
                in_flight.record(Outcome::Success);
                return Ok(OpenedConnection { stream, endpoint: destination.to_string(), in_flight });
            }
            Err(error) if !error.is_worth_another() => return Err(error.into()),
            Err(error) => {
                if error.is_of_endpoint() {
                    in_flight.record(Outcome::Unreachable);
                }
                tried.push(in_flight.endpoint().clone());
                // One that was tried already is picked only where there is no other.
                if tried.len() > OTHERS || !is_new || balancer.status().len() <= tried.len() {
                    return Err(error.into());
                }
                tracing::debug!(error = %ErrorChain(&error), "another endpoint is tried");
            }
        }
    }
}

//! What can be seen of a balancer from outside.

use crate::endpoint::EndpointId;

/// An endpoint as it stands: for metrics and admin pages.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointStatus<T> {
    /// Stable identity.
    pub id: EndpointId,
    /// Where requests for it are sent.
    pub target: T,
    /// Share of the requests, relative to the other endpoints; 0 receives no new request.
    pub weight: u32,
    /// Requests that it is working on.
    pub in_flight: usize,
}

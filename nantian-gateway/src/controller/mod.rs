//! What the gateway writes in a cluster: status, events, and the Services in front of Gateways, by one leader
//! among all replicas; and by each of them the EndpointSlices behind those Services.
//!
//! The translator and the control say what is true of each object; here it is only brought into the objects.
//! What is served already does not wait for it: a new listener waits for its port of the Service, and a
//! Gateway for its address.

mod api_version;
mod events;
mod features;
mod gateway_services;
mod lease;
mod recorder;
mod status;
mod writer;

pub use self::features::supported;
pub(crate) use self::{
    gateway_services::{GatewayServiceConfig, GatewayServices, ServiceKind, TrafficPolicy},
    lease::Lease,
    writer::Writer,
};

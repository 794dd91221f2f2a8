//! What the gateway writes in a cluster, by one leader among all replicas: status, events, and the Services in front of
//! Gateways.
//!
//! The translator and the control say what is true of each object; here it is only brought into the objects. Nothing
//! that is served waits for it.

mod events;
mod features;
mod fronts;
mod lease;
mod status;
mod writer;

pub use self::{
    features::supported,
    fronts::{FrontConfig, Fronts, ServiceKind},
    lease::Lease,
    writer::Writer,
};

//! What the gateway tells the cluster: status, by one leader among all replicas, and events.
//!
//! The translator and the control say what is true of each object; here it is only brought into the objects. Nothing
//! that is served waits for it.

mod events;
mod features;
mod lease;
mod status;
mod writer;

pub use self::{lease::Lease, writer::Writer};

//! Connections and datagrams that are passed on as they are: an endpoint by the balancer, then bytes both ways.

mod buffers;
mod carry;
mod copy;
mod open;
mod route;
pub(crate) mod udp;

pub use self::udp::UdpConfig;
pub(crate) use self::{
    carry::{Carrier, Socket, reset},
    route::{Caller, StreamBackend, StreamRoute, StreamSecurity},
};

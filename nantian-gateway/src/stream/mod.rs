//! Connections and datagrams that are passed on as they are: an endpoint by the balancer, then bytes both
//! ways.

mod buffers;
mod copy;
mod open;
mod proxy;
mod route;
pub(crate) mod udp;

pub(crate) use self::udp::UdpConfig;
pub(crate) use self::{
    proxy::{Socket, StreamProxy, reset},
    route::{StreamBackend, StreamClient, StreamRoute, StreamSecurity},
};

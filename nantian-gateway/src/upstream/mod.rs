//! Upstream connections: opened, pooled and polled by the worker that uses them.
//!
//! [`Client`] is one worker's client. HTTP/1.1 connections have no task of their own: the request that
//! borrows a connection polls it, so an exchange costs no wake-up of another task. HTTP/2 connections are
//! shared by many requests and are driven by one task each.

mod body;
mod client;
mod connect;
mod connection_waker;
mod destination;
mod error;
mod failover;
mod http1;
mod http1_io;
mod http2;
mod pending_connection;
mod pool;
mod request_target;
mod resend;
mod sent_to;
mod service;
mod tls;
mod tunnel;
mod upload;
mod verifier;

pub(crate) use self::connect::{Io, connect_stream};
pub(crate) use self::{
    body::UpstreamBody,
    client::{Client, ClientConfig},
    destination::{Destination, Security},
    error::{Unanswered, UpstreamError},
    failover::FailoverLayer,
    sent_to::SentTo,
    service::Connect,
    tls::{
        ClientIdentity, Roots, UpstreamTls, client_config as tls_client_config,
        client_config_presenting as tls_client_config_presenting,
    },
    tunnel::{TunnelBytes, Upgrade, count_tunnel},
};

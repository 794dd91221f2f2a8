//! Downstream: sockets, TLS, HTTP/1.1 and HTTP/2, and what a request must pass before it is routed.

mod accept;
mod bind;
mod body;
mod clients;
mod clock;
mod connection;
mod connections;
mod forward;
mod handshake;
mod head_scanner;
mod hello;
mod hop_by_hop;
mod io;
mod normalize;
mod pace;
mod reply;
mod service;
mod shortage;
mod socket;
mod state;
mod stream;
mod tls;
mod unread;

pub use self::{
    accept::{Listeners, PortKey},
    bind::BindError,
    body::{BrokenBody, ClientBody, LateBody},
    connections::Connections,
    forward::{RequestInfo, TlsSession, TrustedProxies},
    state::{Timeouts, TunnelGuard},
    tls::{Inside, InvalidCertificate, TlsServer},
};
pub(crate) use self::{
    clock::TICK, forward::client_address, shortage::Shortages, socket::ClientSocket, tls::certified_key,
};

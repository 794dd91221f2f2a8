//! Downstream: sockets, TLS, HTTP/1.1 and HTTP/2, and what a request must pass before it is routed.

mod accept;
mod bind;
mod body;
mod certificate;
mod client_hello;
mod client_verifier;
mod connection;
mod connections;
mod forward;
mod frame_scanner;
mod handshake;
mod head_scanner;
mod header_order;
mod held_upload;
mod hop_by_hop;
mod http2_head;
mod io;
mod normalize;
mod preamble;
mod refusal;
mod reply;
mod response_head;
mod service;
mod shortage;
mod socket;
mod stall_timer;
mod state;
mod stream;
mod tick;
mod tls;
mod unread;
mod untaken;

pub(crate) use self::{
    accept::{Listeners, PortKey},
    bind::{BindError, Unbound, bind_alone},
    body::{BrokenBody, ClientBody, LateBody},
    connections::Connections,
    forward::{Networks, RequestInfo},
    header_order::Order,
    held_upload::HeldUpload,
    hop_by_hop::{Sender, clean_trailers, whole},
    state::{Timeouts, TunnelGuard},
    tls::{InvalidCertificate, TlsPayload, TlsServer},
    untaken::Untaken,
};
pub(crate) use self::{
    forward::{client_address, join_cookies},
    shortage::Shortages,
    socket::ClientSocket,
    tick::TICK,
    tls::certified_key,
};

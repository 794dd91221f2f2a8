//! Sockets that every worker has one of.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};
#[cfg(target_os = "linux")]
use socket2::{SockFilter, SockRef};
use tokio::net::TcpListener;

use crate::socket::keep_alive;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// A socket that cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("{address} cannot be bound")]
pub struct BindError {
    /// The address and port.
    pub address: SocketAddr,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Binds `address`, or all interfaces, with `SO_REUSEPORT`; must be called on the worker's runtime.
///
/// All interfaces means IPv4 and IPv6 on one socket where the system has IPv6, else IPv4 alone.
pub(super) fn bind(address: Option<IpAddr>, port: u16) -> Result<TcpListener, BindError> {
    match address {
        Some(address) => bind_to(SocketAddr::new(address, port)),
        None => {
            let all = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
            bind_to(all).or_else(|error| {
                if error.source.raw_os_error() == Some(EAFNOSUPPORT) {
                    bind_to(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
                } else {
                    Err(error)
                }
            })
        }
    }
}

/// Lets no further connection begin on a socket; those that have begun can be accepted.
///
/// What is new is not answered, so that its client asks again, after a second, and then meets another socket.
#[cfg(target_os = "linux")]
pub(super) fn refuse_newcomers(listener: &TcpListener) -> io::Result<()> {
    // The flags of the TCP header; dropped if SYN is among them, else passed.
    let program = [
        SockFilter::new(0x30, 0, 0, 13),
        SockFilter::new(0x45, 0, 1, 0x02),
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ];
    SockRef::from(listener).attach_filter(&program)
}

/// Where there is no filter, what is new is accepted until the socket closes.
#[cfg(not(target_os = "linux"))]
pub(super) fn refuse_newcomers(_: &TcpListener) -> io::Result<()> {
    Ok(())
}

/// "Address family not supported by protocol".
const EAFNOSUPPORT: i32 = 97;

fn bind_to(address: SocketAddr) -> Result<TcpListener, BindError> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        keep_alive(&socket)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|source| BindError { address, source })
}

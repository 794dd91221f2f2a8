//! Sockets that every worker has one of.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};
#[cfg(target_os = "linux")]
use socket2::{SockFilter, SockRef};
use tokio::net::{TcpListener, UdpSocket};

use crate::{
    respond::ErrorChain,
    socket::{keep_alive, limit_unsent},
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Bytes of datagrams that may wait to be received.
const DATAGRAMS: usize = 4 * 1024 * 1024;

/// A socket that cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("{address} cannot be bound")]
pub(crate) struct BindError {
    /// The address and port.
    pub(crate) address: SocketAddr,
    /// Why.
    #[source]
    pub(crate) source: io::Error,
}

/// Why a socket of a port is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unbound {
    message: String,
    lacks_address: bool,
}

// === impl Unbound ===

impl From<BindError> for Unbound {
    fn from(error: BindError) -> Self {
        let lacks_address = error.source.kind() == io::ErrorKind::AddrNotAvailable;
        Self { message: ErrorChain(&error).to_string(), lacks_address }
    }
}

impl fmt::Display for Unbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Unbound {
    /// Whether this machine has no such address: the port may be free elsewhere.
    pub(crate) fn lacks_address(&self) -> bool {
        self.lacks_address
    }
}

/// Binds `address`, or all interfaces, with `SO_REUSEPORT`; must be called on the worker's runtime.
///
/// All interfaces means IPv4 and IPv6 on one socket where the system has IPv6, else IPv4 alone.
pub(super) fn bind(address: Option<IpAddr>, port: u16) -> Result<TcpListener, BindError> {
    bind_by(listen, address, port)
}

/// Binds `address` for this process alone; all interfaces of IPv6 are those of IPv4, too, as for [`bind`].
pub(crate) fn bind_alone(address: SocketAddr) -> io::Result<TcpListener> {
    let alone = |address| listening(socket(address, Type::STREAM, Protocol::TCP)?, address);
    match alone(address) {
        Err(error) if error.raw_os_error() == Some(EAFNOSUPPORT) && address.ip() == Ipv6Addr::UNSPECIFIED => {
            alone(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        }
        bound => bound,
    }
}

/// The same for datagrams.
pub(super) fn bind_udp(address: Option<IpAddr>, port: u16) -> Result<UdpSocket, BindError> {
    bind_by(receive, address, port)
}

fn bind_by<S>(
    open: impl Fn(SocketAddr) -> io::Result<S>,
    address: Option<IpAddr>,
    port: u16,
) -> Result<S, BindError> {
    let bind_to = |address| {
        let address = SocketAddr::new(address, port);
        open(address).map_err(|source| BindError { address, source })
    };
    match address {
        Some(address) => bind_to(address),
        None => bind_to(Ipv6Addr::UNSPECIFIED.into()).or_else(|error| {
            if error.source.raw_os_error() == Some(EAFNOSUPPORT) {
                bind_to(Ipv4Addr::UNSPECIFIED.into())
            } else {
                Err(error)
            }
        }),
    }
}

/// Lets no further connection begin on a socket; those that have begun can be accepted.
///
/// What is new is not answered, so that its client asks again, after a second, and then meets another socket.
#[cfg(target_os = "linux")]
pub(super) fn refuse_new_connections(listener: &TcpListener) -> io::Result<()> {
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
pub(super) fn refuse_new_connections(_: &TcpListener) -> io::Result<()> {
    Ok(())
}

/// "Address family not supported by protocol".
const EAFNOSUPPORT: i32 = 97;

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    listening(shared(address, Type::STREAM, Protocol::TCP)?, address)
}

fn listening(socket: Socket, address: SocketAddr) -> io::Result<TcpListener> {
    keep_alive(&socket)?;
    limit_unsent(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn receive(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = shared(address, Type::DGRAM, Protocol::UDP)?;
    // As much as the system allows.
    socket.set_recv_buffer_size(DATAGRAMS)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// A socket that every worker can have one of.
fn shared(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = socket(address, kind, protocol)?;
    socket.set_reuse_port(true)?;
    Ok(socket)
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn all_interfaces_of_ipv6_are_those_of_ipv4_and_of_one_process() {
        let listener = bind_alone("[::]:0".parse().unwrap()).unwrap();
        let bound = listener.local_addr().unwrap();
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, bound.port())).is_ok());
        if bound.is_ipv6() {
            assert!(TcpStream::connect((Ipv6Addr::LOCALHOST, bound.port())).is_ok());
        }
        let error = bind_alone(bound).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}

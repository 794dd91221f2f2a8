//! The socket that clients send to.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use socket2::{SockAddr, SockRef};
#[cfg(target_os = "linux")]
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// A client of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Client {
    /// Its address.
    pub(super) address: SocketAddr,
    /// The address that it sends to, which answers have to come from; `None` where the socket has only one.
    pub(super) local: Option<IpAddr>,
}

/// The socket that clients send to.
#[derive(Debug)]
pub(super) struct DownstreamSocket {
    socket: UdpSocket,
    /// It takes what is sent to any address of the machine.
    is_open: bool,
}

// === impl DownstreamSocket ===

impl DownstreamSocket {
    /// `is_open`: the socket is bound on all interfaces.
    pub(super) fn new(socket: UdpSocket, is_open: bool) -> io::Result<Self> {
        // Elsewhere the system chooses the address that answers come from.
        let is_open = is_open && cfg!(target_os = "linux");
        #[cfg(target_os = "linux")]
        if is_open {
            local::ask_for(&socket)?;
        }
        Ok(Self { socket, is_open })
    }

    /// Waits for datagrams.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// A datagram, its length and whose it is.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Client)> {
        #[cfg(target_os = "linux")]
        if self.is_open {
            return self.socket.try_io(Interest::READABLE, || local::receive(&self.socket, buffer));
        }
        let (length, address) = self.socket.try_recv_from(buffer)?;
        Ok((length, Client { address, local: None }))
    }

    /// Sends a datagram to a client, without waiting for room.
    pub(super) fn send(&self, datagram: &[u8], to: &Client) -> io::Result<()> {
        match to.local {
            #[cfg(target_os = "linux")]
            Some(from) => local::send(&self.socket, datagram, to.address, from),
            _ => SockRef::from(&self.socket).send_to(datagram, &SockAddr::from(to.address)).map(drop),
        }
    }
}

/// The address that a datagram is sent to, of a socket on all interfaces: it comes beside the datagram
/// (ipv6(7), ip(7)).
#[cfg(target_os = "linux")]
mod local {
    use std::{
        io::{self, IoSlice, IoSliceMut},
        net::{IpAddr, SocketAddr},
        os::fd::AsRawFd,
    };

    use nix::{
        cmsg_space, libc,
        sys::socket::{
            ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
            sockopt,
        },
    };
    use tokio::net::UdpSocket;

    use super::Client;

    pub(super) fn ask_for(socket: &UdpSocket) -> io::Result<()> {
        if socket.local_addr()?.is_ipv6() {
            setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
        }
        Ok(())
    }

    pub(super) fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Client)> {
        let mut beside = cmsg_space!(libc::in6_pktinfo);
        let mut buffers = [IoSliceMut::new(buffer)];
        let received = recvmsg::<SockaddrStorage>(
            socket.as_raw_fd(),
            &mut buffers,
            Some(&mut beside),
            MsgFlags::empty(),
        )?;
        let address = received.address.as_ref().and_then(socket_address);
        let address = address.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        let local = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::from(info.ipi6_addr.s6_addr)),
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes()))
            }
            _ => None,
        });
        Ok((received.bytes, Client { address, local }))
    }

    pub(super) fn send(socket: &UdpSocket, datagram: &[u8], to: SocketAddr, from: IpAddr) -> io::Result<()> {
        let to = SockaddrStorage::from(to);
        let datagram = [IoSlice::new(datagram)];
        let send = |message| sendmsg(socket.as_raw_fd(), &datagram, &[message], MsgFlags::empty(), Some(&to));
        let sent = match from {
            IpAddr::V6(from) => send(ControlMessage::Ipv6PacketInfo(&libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: from.octets() },
                ipi6_ifindex: 0,
            })),
            IpAddr::V4(from) => send(ControlMessage::Ipv4PacketInfo(&libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            })),
        };
        sent.map(drop).map_err(io::Error::from)
    }

    fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
        let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())));
        v4.or_else(|| {
            let v6 = address.as_sockaddr_in6()?;
            Some(std::net::SocketAddrV6::new(v6.ip(), v6.port(), v6.flowinfo(), v6.scope_id()).into())
        })
    }
}

//! One client and its endpoint.

use std::{
    cell::{Cell, OnceCell, RefCell},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    sync::{Arc, Weak},
};

use nantian_lb::{Balancer, InFlight, Outcome};
use socket2::SockRef;
use tokio::{net::UdpSocket, sync::OwnedSemaphorePermit, time::Instant};

use super::{
    BATCH,
    downstream::{Client, DownstreamSocket},
};
use crate::{
    ir::Address,
    metrics::StreamShard,
    runtime::{lookup, note_read},
    stream::{StreamBackend, StreamRoute, buffers::Buffers},
    tenancy::Tenancy,
    upstream::Destination,
};

/// Datagrams that wait until the name of an endpoint is resolved; more are left out.
const WAITING: usize = 8;

/// One client and its endpoint, which counts it for as long as the session lives.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) route: Arc<StreamRoute>,
    balancer: Balancer<Destination>,
    registration: Weak<()>,
    pub(super) begun: Instant,
    pub(super) received: Cell<u64>,
    pub(super) sent: Cell<u64>,
    worker: usize,
    tenancy: Tenancy,
    destination: Destination,
    in_flight: RefCell<InFlight>,
    /// Connected to the endpoint; absent until its name is resolved.
    socket: OnceCell<UdpSocket>,
    waiting: RefCell<Vec<Box<[u8]>>>,
    last: Cell<Instant>,
    broken: RefCell<Option<io::Error>>,
    /// Among the sessions that all workers may have.
    _place: OwnedSemaphorePermit,
}

// === impl Session ===

impl Session {
    /// A session with the endpoint that was picked.
    ///
    /// # Errors
    /// When there is no socket to be had, or the endpoint is not to be dialled.
    pub(super) fn new(
        client: Client,
        route: Arc<StreamRoute>,
        backend: &StreamBackend,
        picked: (Destination, InFlight),
        worker: usize,
        place: OwnedSemaphorePermit,
        tenancy: Tenancy,
    ) -> io::Result<Self> {
        let (destination, in_flight) = picked;
        let socket = match &destination.address {
            Address::Ip(address) => {
                tenancy.judge_endpoint(address.ip())?;
                OnceCell::from(connect(*address)?)
            }
            Address::Dns(..) => OnceCell::new(),
        };
        let now = Instant::now();
        Ok(Self {
            client,
            route,
            balancer: backend.balancer.clone(),
            registration: backend.registration.clone(),
            begun: now,
            received: Cell::new(0),
            sent: Cell::new(0),
            worker,
            tenancy,
            destination,
            in_flight: RefCell::new(in_flight),
            socket,
            waiting: RefCell::default(),
            last: Cell::new(now),
            broken: RefCell::default(),
            _place: place,
        })
    }

    pub(super) fn shard(&self) -> Option<&StreamShard> {
        self.route.metrics.shard(self.worker)
    }

    /// Where its datagrams go.
    pub(super) fn destination(&self) -> &Destination {
        &self.destination
    }

    /// When anything was said last.
    pub(super) fn last(&self) -> Instant {
        self.last.get()
    }

    /// Why it cannot go on, if it cannot.
    pub(super) fn broken(&self) -> Option<String> {
        self.broken.borrow().as_ref().map(ToString::to_string)
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.borrow().is_some()
    }

    /// Whether its endpoint is still one of its backend, as far as anybody still looks.
    pub(super) fn has_endpoint(&self) -> bool {
        self.registration.strong_count() > 0 && self.balancer.has(self.in_flight.borrow().endpoint())
    }

    /// Sends a datagram of the client to the endpoint, without waiting for room.
    pub(super) fn send(&self, datagram: &[u8]) {
        self.last.set(Instant::now());
        let Some(socket) = self.socket.get() else {
            let mut waiting = self.waiting.borrow_mut();
            if waiting.len() < WAITING {
                waiting.push(datagram.into());
            } else {
                self.drop_one();
            }
            return;
        };
        match SockRef::from(socket).send(datagram) {
            Ok(_) => {
                let bytes = u64::try_from(datagram.len()).unwrap_or(u64::MAX);
                self.received.set(self.received.get().saturating_add(bytes));
                if let Some(shard) = self.shard() {
                    shard.received(bytes);
                }
            }
            Err(error) => {
                self.drop_one();
                self.fails(error);
            }
        }
    }

    /// Sends what the endpoint says to the client, for as long as the session lives.
    ///
    /// # Cancellation
    /// Dropping the future ends the session.
    pub(super) async fn answer(self: Rc<Self>, downstream: Rc<DownstreamSocket>, buffers: Buffers) {
        if let Err(error) = self.resolve().await {
            self.breaks(error);
        }
        let Some(socket) = self.socket.get() else { return };
        while !self.is_broken() {
            if let Err(error) = socket.readable().await {
                self.breaks(error);
            }
            let mut buffer = buffers.take();
            for _ in 0..BATCH {
                match socket.try_recv(&mut buffer) {
                    Ok(length) => self.answers(&downstream, buffer.get(..length).unwrap_or_default()),
                    Err(error) => {
                        self.fails(error);
                        break;
                    }
                }
            }
            buffers.give_back(buffer);
            // Others have their turn, however much this endpoint has to say.
            tokio::task::yield_now().await;
        }
    }

    fn answers(&self, downstream: &DownstreamSocket, datagram: &[u8]) {
        note_read();
        self.last.set(Instant::now());
        self.in_flight.borrow_mut().record(Outcome::Success);
        match downstream.send(datagram, &self.client) {
            Ok(()) => {
                let bytes = u64::try_from(datagram.len()).unwrap_or(u64::MAX);
                self.sent.set(self.sent.get().saturating_add(bytes));
                if let Some(shard) = self.shard() {
                    shard.sent(bytes);
                }
            }
            Err(error) => {
                self.drop_one();
                tracing::debug!(%error, client = %self.client.address, "an answer cannot be delivered");
            }
        }
    }

    async fn resolve(&self) -> io::Result<()> {
        let Address::Dns(name, port) = &self.destination.address else { return Ok(()) };
        let addresses = lookup(name, *port).await?;
        let address = *addresses.first().ok_or(io::ErrorKind::NotFound)?;
        self.tenancy.judge(address.ip())?;
        // Nobody else sets it.
        let _ = self.socket.set(connect(address)?);
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.iter().for_each(|datagram| self.send(datagram));
        Ok(())
    }

    /// Takes note of an error of the endpoint's socket.
    fn fails(&self, error: io::Error) {
        match error.kind() {
            io::ErrorKind::WouldBlock => {}
            // The endpoint's machine says that nobody listens: the next datagram looks for another endpoint.
            io::ErrorKind::ConnectionRefused | io::ErrorKind::HostUnreachable => self.breaks(error),
            _ => tracing::debug!(%error, endpoint = %self.destination, "a datagram cannot be passed on"),
        }
    }

    fn breaks(&self, error: io::Error) {
        self.in_flight.borrow_mut().record(Outcome::Unreachable);
        self.broken.replace(Some(error));
    }

    fn drop_one(&self) {
        if let Some(shard) = self.shard() {
            shard.dropped();
        }
    }
}

/// A socket that is connected to an endpoint.
fn connect(address: SocketAddr) -> io::Result<UdpSocket> {
    let own: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(own)?;
    socket.set_nonblocking(true)?;
    socket.connect(address)?;
    UdpSocket::from_std(socket)
}

//! The sockets of one worker.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, sleep, timeout_at},
};

use super::{
    BindError,
    bind::{bind, bind_udp, refuse_new_connections},
    connection,
};
use crate::{
    ir::{self, Transport},
    runtime::{Worker, spawn_local},
    snapshot::Snapshot,
    stream::udp,
};

/// How long a socket that closes waits for handshakes that have begun: longer than a round trip, shorter than
/// the second after which a client repeats its first packet.
const LAST_CALL: Duration = Duration::from_millis(300);

/// What a socket is known by: its address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PortKey {
    /// The address; `None` is all interfaces.
    pub(crate) address: Option<IpAddr>,
    /// The port.
    pub(crate) port: u16,
    /// What carries its bytes.
    pub(crate) transport: Transport,
}

impl From<&ir::Port> for PortKey {
    fn from(port: &ir::Port) -> Self {
        Self { address: port.address, port: port.port, transport: port.protocol.transport() }
    }
}

impl fmt::Display for PortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => SocketAddr::new(address, self.port).fmt(f)?,
            None => write!(f, "*:{}", self.port)?,
        }
        match self.transport {
            Transport::Tcp => Ok(()),
            Transport::Udp => f.write_str("/udp"),
        }
    }
}

/// The sockets that one worker accepts on.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    /// Dropping the sender ends the accept loop.
    open: BTreeMap<PortKey, watch::Sender<()>>,
}

impl Listeners {
    /// Opens the sockets that `snapshot` has and closes those that it has not; the others are not touched.
    ///
    /// Returns what could not be bound; it is tried again with the next snapshot.
    pub(crate) fn reconcile(
        &mut self,
        snapshot: &Snapshot,
        worker: &Rc<Worker>,
    ) -> Vec<(PortKey, BindError)> {
        self.open.retain(|key, _| snapshot.ports.contains_key(key));
        let mut failed = Vec::new();
        for key in snapshot.port_keys() {
            if self.open.contains_key(&key) {
                continue;
            }
            let (keep_open, closed) = watch::channel(());
            let worker = Rc::clone(worker);
            let bound = match key.transport {
                Transport::Tcp => bind(key.address, key.port)
                    .map(|listener| spawn_local(accept(listener, key, worker, closed))),
                Transport::Udp => bind_udp(key.address, key.port)
                    .map(|socket| spawn_local(udp::serve(socket, key, worker, closed))),
            };
            match bound {
                Ok(_) => drop(self.open.insert(key, keep_open)),
                Err(error) => failed.push((key, error)),
            }
        }
        failed
    }

    /// Closes every socket; open connections are not touched.
    pub(crate) fn close(&mut self) {
        self.open.clear();
    }
}

async fn accept(listener: TcpListener, key: PortKey, worker: Rc<Worker>, mut closed: watch::Receiver<()>) {
    loop {
        let accepted = tokio::select! {
            biased;
            _ = closed.changed() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                worker.shortages.socket(key);
                log_shortage(&worker, key);
                tokio::select! {
                    biased;
                    _ = closed.changed() => break,
                    place = Arc::clone(&worker.room).acquire_owned() => {
                        // The room is never closed.
                        let Ok(place) = place else { break };
                        start(stream, peer, key, &worker, place);
                    }
                }
            }
            // The client is gone already.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                worker.shortages.no_socket(&error, key);
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
    // The kernel resets who waits on a socket that closes, so those are served that are about to connect,
    // too.
    if let Err(error) = refuse_new_connections(&listener) {
        tracing::debug!(%error, port = %key, "the socket cannot be closed to newcomers alone");
    }
    let end = Instant::now() + LAST_CALL;
    while let Ok(Ok((stream, peer))) = timeout_at(end, listener.accept()).await {
        let Ok(place) = Arc::clone(&worker.room).try_acquire_owned() else { break };
        start(stream, peer, key, &worker, place);
    }
}

/// Logs that a connection has to wait for a place, or that none has to any more, if it is time to.
fn log_shortage(worker: &Worker, key: PortKey) {
    let shortage = &worker.shortages.connections;
    if worker.room.available_permits() > 0 {
        if shortage.end_at(Instant::now()) {
            tracing::info!(port = %key, "new connections need not wait any more");
        }
    } else if shortage.note_at(Instant::now()) {
        let limit = worker.config.max_connections;
        tracing::warn!(limit, port = %key, "new connections wait until another one ends");
    }
}

fn start(
    stream: TcpStream,
    peer: SocketAddr,
    key: PortKey,
    worker: &Rc<Worker>,
    place: OwnedSemaphorePermit,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %peer, "the connection is gone already");
        return;
    }
    let worker = Rc::clone(worker);
    spawn_local(connection::serve(stream, peer, key, worker, place));
}

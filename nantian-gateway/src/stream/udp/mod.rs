//! Datagrams: each client has a session, a socket of its own that is connected to one endpoint.

mod downstream;
mod session;
mod sessions;

use std::{io, rc::Rc, time::Duration};

use tokio::{
    net::UdpSocket,
    sync::watch,
    time::{Instant, interval, sleep_until},
};

use self::{downstream::DownstreamSocket, sessions::Sessions};
use crate::{
    listen::PortKey,
    runtime::{Worker, note_read},
};

/// Limits of sessions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UdpConfig {
    /// How long a session may be silent in both directions. Default: 60 s, as of Envoy.
    pub(crate) session_timeout: Duration,
    /// The sessions of all workers together, each of which has a socket. Default: 16384.
    pub(crate) max_sessions: usize,
}

/// Datagrams that are passed on before somebody else has a turn.
const BATCH: usize = 64;

/// Between two looks at the sessions.
const SWEEP: Duration = Duration::from_secs(1);

/// How long a socket that closes waits for answers that are on their way.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Passes on what comes in at `socket` until `closed` says so.
pub(crate) async fn serve(
    socket: UdpSocket,
    key: PortKey,
    worker: Rc<Worker>,
    mut closed: watch::Receiver<()>,
) {
    let downstream = match DownstreamSocket::new(socket, key.address.is_none()) {
        Ok(downstream) => Rc::new(downstream),
        Err(error) => {
            tracing::error!(%error, port = %key, "datagrams cannot be received");
            return;
        }
    };
    let mut sessions = Sessions::new(Rc::clone(&downstream), key, Rc::clone(&worker));
    let mut sweep = interval(SWEEP);
    loop {
        tokio::select! {
            biased;
            _ = closed.changed() => break,
            now = sweep.tick() => sessions.sweep(now),
            ready = downstream.readable() => receive(ready, &downstream, &mut sessions).await,
        }
    }
    let _held = worker.connections.hold();
    let end = Instant::now() + LAST_ANSWERS;
    sessions.close();
    while !sessions.is_empty() && Instant::now() < end {
        tokio::select! {
            biased;
            () = sleep_until(end) => break,
            ready = downstream.readable() => receive(ready, &downstream, &mut sessions).await,
        }
    }
    sessions.end();
}

/// Passes on what has come in.
async fn receive(ready: io::Result<()>, downstream: &DownstreamSocket, sessions: &mut Sessions) {
    let mut buffer = sessions.buffers().take();
    let mut received = ready.and_then(|()| downstream.receive(&mut buffer));
    let mut count = 0;
    while let Ok((length, client)) = received {
        note_read();
        sessions.pass_on(client, buffer.get(..length).unwrap_or_default());
        count += 1;
        if count == BATCH {
            break;
        }
        received = downstream.receive(&mut buffer);
    }
    sessions.buffers().give_back(buffer);
    match received {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
            // An answer that could not be delivered, as a rule; it says nothing of others.
            tracing::debug!(%error, "a datagram cannot be received");
            tokio::task::yield_now().await;
        }
        Ok(_) => tokio::task::yield_now().await,
        Err(_) => {}
    }
}

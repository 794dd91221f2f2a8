//! The sessions of one socket.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use nantian_lb::PickContext;
use tokio::{task::AbortHandle, time::Instant};

use super::{
    downstream::{Client, DownstreamSocket},
    session::Session,
};
use crate::{
    listen::PortKey,
    observe::StreamEntry,
    runtime::{Worker, spawn_local},
    snapshot::PortProtocol,
    stream::{StreamClient, StreamRoute, buffers::Buffers},
};

/// The sessions of one socket, by client.
pub(super) struct Sessions {
    downstream: Rc<DownstreamSocket>,
    key: PortKey,
    worker: Rc<Worker>,
    open: HashMap<Client, Open>,
    /// No new ones are begun.
    is_closed: bool,
}

/// A session, and the task of its answers.
struct Open {
    session: Rc<Session>,
    answers: AbortHandle,
}

// === impl Sessions ===

impl Sessions {
    pub(super) fn new(downstream: Rc<DownstreamSocket>, key: PortKey, worker: Rc<Worker>) -> Self {
        Self { downstream, key, worker, open: HashMap::new(), is_closed: false }
    }

    pub(super) fn buffers(&self) -> Buffers {
        self.worker.proxy().buffers().clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Begins no further session.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    /// Sends a datagram on in the session of its client, or a new one.
    pub(super) fn pass_on(&mut self, client: Client, datagram: &[u8]) {
        if let Some(open) = self.open.get(&client) {
            if !open.session.is_broken() {
                open.session.send(datagram);
            }
            if !open.session.is_broken() {
                return;
            }
            self.remove(&client);
        }
        if let Some(session) = self.begin(client) {
            session.send(datagram);
        }
    }

    /// Ends the sessions that were silent for too long, whose route is gone, or whose endpoint is.
    pub(super) fn sweep(&mut self, now: Instant) {
        let snapshot = self.worker.snapshot();
        let routes = snapshot.ports.get(&self.key).map(|port| port.streams.as_slice()).unwrap_or_default();
        let limit = self.worker.config.udp.session_timeout;
        let is_over = |session: &Session| {
            now.saturating_duration_since(session.last()) >= limit
                || session.is_broken()
                || !routes.contains(&session.route.id)
                || !session.has_endpoint()
        };
        let over: Vec<_> =
            self.open.iter().filter(|(_, open)| is_over(&open.session)).map(|(client, _)| *client).collect();
        over.iter().for_each(|client| self.remove(client));
    }

    /// Ends all sessions.
    pub(super) fn end(&mut self) {
        let clients: Vec<_> = self.open.keys().copied().collect();
        clients.iter().for_each(|client| self.remove(client));
    }

    /// A session of a client that has none.
    fn begin(&mut self, client: Client) -> Option<Rc<Session>> {
        if self.is_closed {
            return None;
        }
        let snapshot = self.worker.snapshot();
        let PortProtocol::Stream(Some(route)) = &snapshot.ports.get(&self.key)?.spoken else { return None };
        let session = self.open(client, Arc::clone(route));
        let shard = route.metrics.shard(self.worker.index());
        let Some(session) = session else {
            if let Some(shard) = shard {
                shard.dropped();
            }
            return None;
        };
        if let Some(shard) = shard {
            shard.begin();
        }
        let session = Rc::new(session);
        let answers = spawn_local(Rc::clone(&session).answer(Rc::clone(&self.downstream), self.buffers()));
        self.open.insert(client, Open { session: Rc::clone(&session), answers });
        Some(session)
    }

    fn open(&mut self, client: Client, route: Arc<StreamRoute>) -> Option<Session> {
        let Ok(place) = Arc::clone(&self.worker.udp_room).try_acquire_owned() else {
            if self.worker.shortages.sessions.note_at(Instant::now()) {
                let limit = self.worker.config.udp.max_sessions;
                tracing::warn!(limit, port = %self.key, "new clients are not heard until a session ends");
            }
            return None;
        };
        if self.worker.shortages.sessions.end_at(Instant::now()) {
            tracing::info!(port = %self.key, "new clients are heard again");
        }
        let backend = route.choose()?;
        let caller = StreamClient { address: client.address.ip(), server_name: None };
        let picked = backend.balancer.pick(&PickContext::new().with_keys(&caller)).ok()?.into_parts();
        let (index, tenancy) = (self.worker.index(), self.worker.config.client.tenancy);
        let session = Session::new(client, Arc::clone(&route), backend, picked, index, place, tenancy);
        let session = session.inspect_err(|error| self.worker.shortages.no_socket(error, self.key)).ok()?;
        self.worker.shortages.socket(self.key);
        Some(session)
    }

    /// Ends a session, counts and logs it.
    fn remove(&mut self, client: &Client) {
        let Some(Open { session, answers }) = self.open.remove(client) else { return };
        answers.abort();
        let error = session.broken();
        if let Some(shard) = session.shard() {
            shard.end(error.is_none());
        }
        let Some(log) = &self.worker.config.access_log else { return };
        log.write_stream(&StreamEntry {
            route: &session.route.name,
            protocol: session.route.id.kind.protocol(),
            client: client.address.ip().to_canonical(),
            host: "",
            endpoint: Some(session.destination().to_string()),
            received: session.received.get(),
            sent: session.sent.get(),
            took: session.last().saturating_duration_since(session.begun),
            error: error.as_deref(),
        });
    }
}

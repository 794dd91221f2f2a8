//! One connection of a client, from the choice of its endpoint to its last byte.

use std::{
    cell::{Cell, OnceCell},
    io,
    net::SocketAddr,
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::server::TlsStream;

use super::{
    StreamClient, StreamRoute,
    buffers::Buffers,
    copy::{self, Peer},
    open::{OpenError, OpenedConnection, open},
};
use crate::{
    listen::ClientSocket,
    metrics::StreamShard,
    observe::{AccessLog, StreamEntry},
    respond::ErrorChain,
    tenancy::Tenancy,
    upstream::ClientConfig,
};

/// What the connections of one worker share.
#[derive(Debug, Clone)]
pub(crate) struct StreamProxy {
    worker: usize,
    connect_timeout: Duration,
    tenancy: Tenancy,
    access_log: Option<AccessLog>,
    buffers: Buffers,
}

/// One connection on its way.
pub(crate) struct ProxiedStream<'a> {
    proxy: &'a StreamProxy,
    route: &'a StreamRoute,
    shard: Option<&'a StreamShard>,
    client: SocketAddr,
    server_name: Option<&'a str>,
    begun: Instant,
    /// Where it was passed on to.
    endpoint: OnceCell<String>,
    received: Cell<u64>,
    sent: Cell<u64>,
}

/// What went wrong with a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// It never had an endpoint.
    #[error(transparent)]
    Unopened(#[from] OpenError),
    /// One of its sides broke.
    #[error("the connection broke off")]
    Copy(#[source] io::Error),
}

/// A connection that has a socket below.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin {
    /// The socket.
    fn socket(&self) -> &TcpStream;
}

/// Lets the peer of a socket that is about to be closed know that its connection broke, as opposed to ended.
pub(crate) fn reset(socket: &TcpStream) {
    if let Err(error) = SockRef::from(socket).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "the connection is gone already");
    }
}

// === impl StreamProxy ===

impl StreamProxy {
    /// For the connections of `worker`; endpoints are reached as `config` wants it.
    pub(crate) fn new(worker: usize, config: &ClientConfig, access_log: Option<AccessLog>) -> Self {
        let ClientConfig { connect_timeout, tenancy, .. } = *config;
        Self { worker, connect_timeout, tenancy, access_log, buffers: Buffers::default() }
    }

    /// The buffers of the worker.
    pub(super) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// Counts a connection of `client` for the route, from now on.
    pub(crate) fn begin<'a>(
        &'a self,
        route: &'a StreamRoute,
        client: SocketAddr,
        server_name: Option<&'a str>,
    ) -> ProxiedStream<'a> {
        let shard = route.metrics.shard(self.worker);
        if let Some(shard) = shard {
            shard.begin();
        }
        ProxiedStream {
            proxy: self,
            route,
            shard,
            client,
            server_name,
            begun: Instant::now(),
            endpoint: OnceCell::new(),
            received: Cell::new(0),
            sent: Cell::new(0),
        }
    }
}

// === impl ProxiedStream ===

impl ProxiedStream<'_> {
    /// Passes `first`, which was read from the client, and then all bytes on to an endpoint and back, until
    /// both sides have ended; `heard` is told whenever one says something.
    ///
    /// # Errors
    /// [`StreamError`]; both connections are reset, so that neither side takes what it has for the whole.
    ///
    /// # Cancellation
    /// Dropping the future closes both connections.
    pub(crate) async fn carry(
        &self,
        mut client: impl Socket,
        first: &[u8],
        on_activity: impl Fn(),
    ) -> Result<(), StreamError> {
        let caller = StreamClient { address: self.client.ip(), server_name: self.server_name };
        let opened = open(self.route, &caller, self.proxy.connect_timeout, self.proxy.tenancy).await;
        let OpenedConnection { stream: mut backend, endpoint, in_flight } =
            opened.inspect_err(|_| reset(client.socket()))?;
        self.endpoint.get_or_init(|| endpoint);
        on_activity();
        self.moved(Peer::Client, first.len());
        let copied = async {
            backend.write_all(first).await?;
            copy::both(&mut client, &mut backend, &self.proxy.buffers, |from, bytes| {
                on_activity();
                self.moved(from, bytes);
            })
            .await
        };
        let copied = copied.await;
        if copied.is_err() {
            reset(client.socket());
            reset(backend.socket());
        }
        drop(in_flight);
        copied.map_err(StreamError::Copy)
    }

    fn moved(&self, from: Peer, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let total = match from {
            Peer::Client => &self.received,
            Peer::Backend => &self.sent,
        };
        total.set(total.get().saturating_add(bytes));
        let Some(shard) = self.shard else { return };
        match from {
            Peer::Client => shard.received(bytes),
            Peer::Backend => shard.sent(bytes),
        }
    }

    /// Counts and logs the end; `None` is a connection that was told to end.
    pub(crate) fn end(mut self, outcome: Option<Result<(), StreamError>>) {
        if let Some(shard) = self.shard {
            shard.end(self.endpoint.get().is_some());
        }
        let error = match outcome {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(ErrorChain(&error).to_string()),
            None => Some("it was idle for too long, or its route is gone".to_owned()),
        };
        if let Some(error) = &error {
            tracing::debug!(%error, client = %self.client, route = %self.route.name, "a connection ended");
        }
        let Some(log) = &self.proxy.access_log else { return };
        log.write_stream(&StreamEntry {
            route: &self.route.name,
            protocol: self.route.id.kind.protocol(),
            client: self.client.ip().to_canonical(),
            host: self.server_name.unwrap_or_default(),
            endpoint: self.endpoint.take(),
            received: self.received.get(),
            sent: self.sent.get(),
            took: self.begun.elapsed(),
            error: error.as_deref(),
        });
    }
}

// === impl Socket ===

impl Socket for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Socket for TlsStream<ClientSocket> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0.stream()
    }
}

impl<S: Socket> Socket for Box<S> {
    fn socket(&self) -> &TcpStream {
        (**self).socket()
    }
}

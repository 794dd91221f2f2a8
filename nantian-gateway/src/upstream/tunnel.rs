//! Upgraded connections: bytes in both directions until both sides have closed, or have nothing to say for
//! too long.

use std::{
    cell::Cell,
    future::{pending, poll_fn},
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Response, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use nantian_lb::UpgradeGuard;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional},
    sync::watch,
    time::{Instant, sleep_until},
};

use super::http1::Http1;
use crate::{listen::TunnelGuard, runtime::spawn_local};

/// The client's wish to leave HTTP, kept with the request while its hop-by-hop headers are gone.
#[derive(Debug, Clone)]
pub(crate) struct Upgrade {
    /// The protocols that the client offers.
    pub(crate) protocol: HeaderValue,
    /// The client's connection, once it has been told that the protocol changes.
    pub(crate) client: OnUpgrade,
    /// Counts the connection as open until the tunnel ends.
    pub(crate) guard: TunnelGuard,
}

/// What the balancer counts, held until the tunnel ends.
#[derive(Debug, Clone, Default)]
pub(super) struct Held(Arc<OnceLock<UpgradeGuard>>);

/// How many bytes the client was sent by the tunnel of a response.
#[derive(Debug, Clone)]
pub(crate) struct TunnelBytes {
    sent: Arc<AtomicU64>,
    /// Its sender is gone when the tunnel has ended.
    open: watch::Receiver<()>,
}

/// The client's side of a tunnel; every byte passes it.
struct ActivityIo<'t> {
    io: TokioIo<Upgraded>,
    last: &'t Cell<Instant>,
    sent: &'t AtomicU64,
}

// === impl Upgrade ===

impl Upgrade {
    /// Asks the backend for what the client asked for.
    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, self.protocol.clone());
    }
}

/// Lets the endpoint count as busy until the tunnel of `response` ends, if that opens one.
pub(crate) fn count_tunnel<B>(mut response: Response<B>) -> Response<B> {
    if let Some(Held(held)) = response.extensions_mut().remove()
        && let Some(guard) = response.extensions_mut().remove::<UpgradeGuard>()
    {
        // A tunnel has one endpoint.
        let _ = held.set(guard);
    }
    response
}

/// Starts the tunnel for a response with status 101; `held` is kept until it ends.
pub(super) fn start(
    mut connection: Box<Http1>,
    upstream: OnUpgrade,
    upgrade: Upgrade,
    held: Held,
    idle: Option<Duration>,
) -> TunnelBytes {
    let (open, is_open) = watch::channel(());
    let bytes = TunnelBytes { sent: Arc::default(), open: is_open };
    let sent = Arc::clone(&bytes.sent);
    spawn_local(async move {
        poll_fn(|cx| {
            connection.drive(cx);
            if connection.has_ended() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let Upgrade { client, guard, .. } = upgrade;
        let (client, upstream) = match (client.await, upstream.await) {
            (Ok(client), Ok(upstream)) => (client, upstream),
            (Err(error), _) | (_, Err(error)) => {
                tracing::debug!(%error, "an upgrade was not completed");
                return;
            }
        };
        let last = Cell::new(Instant::now());
        let mut client = ActivityIo { io: TokioIo::new(client), last: &last, sent: &sent };
        let mut upstream = TokioIo::new(upstream);
        tokio::select! {
            copied = copy_bidirectional(&mut client, &mut upstream) => {
                if let Err(error) = copied {
                    tracing::debug!(%error, "a tunnel broke");
                }
            }
            () = silence(&last, idle) => tracing::debug!("a tunnel was idle for too long"),
        }
        drop((guard, held, open));
    });
    bytes
}

/// Waits until nothing was heard for `limit`; for ever if there is none.
async fn silence(last: &Cell<Instant>, limit: Option<Duration>) {
    let Some(limit) = limit else { return pending().await };
    while last.get().elapsed() < limit {
        sleep_until(last.get() + limit).await;
    }
}

// === impl TunnelBytes ===

impl TunnelBytes {
    /// Waits until the tunnel has ended.
    pub(crate) async fn ended(&mut self) {
        while self.open.changed().await.is_ok() {}
    }

    /// So far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }
}

// === impl ActivityIo ===

impl ActivityIo<'_> {
    fn note_activity<R>(&self, polled: Poll<R>) -> Poll<R> {
        if polled.is_ready() {
            self.last.set(Instant::now());
        }
        polled
    }
}

impl AsyncRead for ActivityIo<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        self.note_activity(polled)
    }
}

impl AsyncWrite for ActivityIo<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = &polled {
            self.sent.fetch_add(*written as u64, Relaxed);
        }
        self.note_activity(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

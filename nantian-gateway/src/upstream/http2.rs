//! One HTTP/2 connection in clear text or behind TLS, shared by many requests.

use std::{cell::Cell, fmt, rc::Rc, time::Duration};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http2::{self, SendRequest},
    },
};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::connect::Io;
use crate::{
    body::Body,
    runtime::{LocalExecutor, spawn_local},
};

/// How often a backend is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Streams on one connection; what RFC 9113, section 6.5.2 recommends as the least that a peer allows.
const MAX_STREAMS: usize = 100;

/// A handle to the connection; its clones share it.
#[derive(Clone)]
pub(super) struct Http2 {
    sender: SendRequest<Body>,
    /// How many streams are open.
    streams: Rc<Cell<usize>>,
}

/// A stream counts as open while this lives.
pub(super) struct Stream(Rc<Cell<usize>>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Http2 {
    /// Wraps a fresh connection and starts the task that drives it.
    pub(super) async fn handshake(io: Io) -> hyper::Result<Self> {
        let (sender, driver) = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(io))
            .await?;
        spawn_local(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "an HTTP/2 connection to a backend ended");
            }
        });
        Ok(Self { sender, streams: Rc::default() })
    }

    /// Sends `request` and waits for the head of the response.
    ///
    /// # Errors
    /// The error carries the request if nothing of it was written.
    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<(Response<Incoming>, Stream), TrySendError<Request<Body>>> {
        self.streams.set(self.streams.get() + 1);
        let stream = Stream(Rc::clone(&self.streams));
        Ok((self.sender.try_send_request(request).await?, stream))
    }

    /// Whether both are handles to one connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.streams, &other.streams)
    }

    /// Whether it has room for another stream.
    pub(super) fn has_room(&self) -> bool {
        !self.is_closed() && self.streams.get() < MAX_STREAMS
    }

    /// Whether no stream is open.
    pub(super) fn is_idle(&self) -> bool {
        self.streams.get() == 0
    }

    /// Whether the connection takes no further request.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl fmt::Debug for Http2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2").finish_non_exhaustive()
    }
}

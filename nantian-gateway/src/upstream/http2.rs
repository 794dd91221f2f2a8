//! One HTTP/2 connection in clear text or behind TLS, shared by many requests.

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    rc::{Rc, Weak},
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http2::{self, Connection, SendRequest},
    },
};
use hyper_util::rt::TokioIo;

use super::connect::Io;
use crate::{
    body::Body,
    runtime::{LocalExecutor, spawn_local},
};

/// Streams on one connection, if the backend allows them; what RFC 9113, section 6.5.2 recommends as the least that a peer
/// allows.
const MAX_STREAMS: usize = 100;
/// What a backend may send of a response before the client takes it, in bytes.
const STREAM_WINDOW: u32 = 256 * 1024;
/// As much for all streams, so that clients who read slowly hold up nobody else's response.
const CONNECTION_WINDOW: u32 = 100 * STREAM_WINDOW;

type Driver = Connection<TokioIo<Io>, Body, LocalExecutor>;

/// A handle to the connection; its clones share it.
#[derive(Clone)]
pub(super) struct Http2 {
    sender: SendRequest<Body>,
    /// That of its task, which alone keeps it.
    driver: Weak<RefCell<Driver>>,
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
            // No PINGs: servers of gRPC end connections on which there are more than one in five minutes.
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(io))
            .await?;
        let driver = Rc::new(RefCell::new(driver));
        let http2 = Self { sender, driver: Rc::downgrade(&driver), streams: Rc::default() };
        spawn_local(async move {
            if let Err(error) = poll_fn(|cx| Pin::new(&mut *driver.borrow_mut()).poll(cx)).await {
                tracing::debug!(%error, "an HTTP/2 connection to a backend ended");
            }
        });
        Ok(http2)
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

    /// Whether it has room for another stream, here and at the backend: hyper would let a stream too many wait for the end
    /// of another one, and all further requests behind it.
    pub(super) fn has_room(&self) -> bool {
        let driver = self.driver.upgrade();
        let allowed =
            driver.as_ref().and_then(|driver| Some(driver.try_borrow().ok()?.current_max_send_streams()));
        let allowed = allowed.map_or(MAX_STREAMS, |allowed| allowed.min(MAX_STREAMS));
        !self.is_closed() && self.streams.get() < allowed
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

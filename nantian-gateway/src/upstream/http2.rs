//! One HTTP/2 connection in clear text or behind TLS, shared by many requests.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::{Rc, Weak},
    task::Waker,
    time::Duration,
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

use super::{
    Destination, UpstreamError, connect::Io, error::NOT_SPOKEN, pending_connection::PendingConnection,
};
use crate::{body::Body, runtime::spawn_local};

/// Streams on one connection, if the backend allows them; what RFC 9113, section 6.5.2 recommends as the
/// least that a peer allows.
pub(super) const MAX_STREAMS: usize = 100;
/// The streams that a backend allows before it has said how many: more than it can say.
const UNSAID: usize = usize::MAX - 1;
/// What a backend may send of a response before the client takes it, in bytes.
const STREAM_WINDOW: u32 = 128 * 1024;
/// More than for all streams, so that clients who read slowly hold up nobody else's response. Half of it is
/// also what h2 lets small frames that wait cost, 256 bytes less their length each, before it ends the
/// connection: a hundred streams of messages of 15 bytes whose clients do not read cost 100 MiB.
const CONNECTION_WINDOW: u32 = 256 * 1024 * 1024;
/// The bytes of a head, or of trailers, that a backend may send, as HTTP/2 counts them: about what hyper
/// takes over HTTP/1.1. Of larger trailers h2 would leave out the rest without a word.
const MAX_HEADER_LIST: u32 = 256 * 1024;
/// What is held of the request on each stream when the connection takes no more, in bytes.
const SEND_BUFFER: usize = 64 * 1024;
/// How many streams that clients have left are remembered, and for how long, so that what their backend still
/// had on its way is passed over (RFC 9113, section 5.1): of forgotten ones h2 takes each frame for a fault.
const LEFT_STREAMS: usize = 1000;
const LEFT_FOR: Duration = Duration::from_secs(10);

type Driver = Connection<TokioIo<Io>, Body, Tasks>;

/// hyper's executor for the tasks of one connection, of which one reads and another one, the [`Driver`], is
/// not told what was read: who has left his waker is woken when something may have been.
#[derive(Clone, Default)]
struct Tasks(Rc<Cell<Option<Waker>>>);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        let waiting = Rc::clone(&self.0);
        spawn_local(async move {
            let mut future = pin!(future);
            let polled = poll_fn(|cx| {
                let polled = future.as_mut().poll(cx);
                waiting.take().into_iter().for_each(Waker::wake);
                polled
            });
            polled.await;
        });
    }
}

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
    /// Wraps a fresh connection and starts the task that drives it. The opening lasts until the backend has
    /// said how many streams it allows, for which the first request does not wait.
    pub(super) async fn handshake(
        io: Io,
        destination: &Destination,
        opening: Rc<PendingConnection>,
    ) -> hyper::Result<Self> {
        let tasks = Tasks::default();
        let (sender, driver) = http2::Builder::new(tasks.clone())
            // No PINGs: servers of gRPC end connections on which there are more than one in five minutes.
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADER_LIST)
            .max_send_buf_size(SEND_BUFFER)
            .initial_max_send_streams(UNSAID)
            .max_concurrent_reset_streams(LEFT_STREAMS)
            .reset_stream_duration(LEFT_FOR)
            // Of faults that h2 counts as long as a connection lives and then ends it for, with everybody's
            // streams: clients who leave make them, not backends.
            .max_local_error_reset_streams(None)
            .handshake(TokioIo::new(io))
            .await?;
        let driver = Rc::new(RefCell::new(driver));
        let http2 = Self { sender, driver: Rc::downgrade(&driver), streams: Rc::default() };
        let (destination, mut opening) = (destination.to_string(), Some(opening));
        spawn_local(async move {
            let driven = poll_fn(|cx| {
                let mut driver = driver.borrow_mut();
                let polled = Pin::new(&mut *driver).poll(cx);
                opening = opening.take().filter(|_| driver.current_max_send_streams() == UNSAID);
                if opening.is_some() {
                    tasks.0.set(Some(cx.waker().clone()));
                }
                polled
            });
            let ended = driven.await;
            if let Err(error) = &ended {
                tracing::debug!(%error, "an HTTP/2 connection to a backend ended");
            }
            if let Some(opening) = opening {
                let source =
                    ended.map_or_else(|error| io::Error::new(NOT_SPOKEN, error), |()| NOT_SPOKEN.into());
                opening.fail(&UpstreamError::Connect { destination, source });
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

    /// Whether it has room for another stream, here and at the backend: hyper would let a stream too many
    /// wait for the end of another one, and all further requests behind it.
    pub(super) fn has_room(&self) -> bool {
        !self.is_closed() && self.streams.get() < self.allowed().unwrap_or(1)
    }

    /// The streams that it may have, once the backend has said how many.
    pub(super) fn allowed(&self) -> Option<usize> {
        let allowed = self.driver.upgrade()?.try_borrow().ok()?.current_max_send_streams();
        (allowed != UNSAID).then(|| allowed.min(MAX_STREAMS))
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

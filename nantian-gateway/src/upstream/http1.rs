//! One HTTP/1.1 connection, polled by the request that holds it.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Waker},
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{self, SendRequest},
    },
};
use hyper_util::rt::TokioIo;

use super::{Destination, connect::Io};
use crate::body::Body;

/// hyper's connection with upgrades, a type without a name.
type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>>>>;

/// A connection together with the handle that feeds it.
///
/// hyper splits a connection into a driver and a sender, so that a task of its own can run the driver.
/// Here the holder polls the driver itself, and the halves talk to each other without a waker: whenever one
/// of them has made progress, the other is polled in the same call.
pub(super) struct Http1 {
    sender: SendRequest<Body>,
    driver: Driver,
    pub(super) destination: Destination,
    /// The driver has ended and must not be polled again.
    ended: bool,
}

impl Http1 {
    /// Wraps a fresh connection to `destination`.
    pub(super) async fn handshake(io: Io, destination: Destination) -> hyper::Result<Self> {
        let (sender, driver) = http1::Builder::new().handshake(TokioIo::new(io)).await?;
        Ok(Self { sender, driver: Box::pin(driver.with_upgrades()), destination, ended: false })
    }

    /// Hands `request` to the connection, which writes it as soon as it is polled.
    pub(super) fn begin(
        &mut self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Body>>>> + use<> {
        self.sender.try_send_request(request)
    }

    /// Polls the connection until `response`, which [`begin`](Self::begin) gave, has its head.
    ///
    /// # Errors
    /// The error carries the request if nothing of it was written.
    ///
    /// # Cancellation
    /// Dropping the future leaves the connection in the middle of an exchange; it must be dropped too.
    pub(super) async fn head<F: Future>(&mut self, response: F) -> F::Output {
        let mut response = pin!(response);
        let head = poll_fn(|cx| {
            self.drive(cx);
            response.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        })
        .await;
        // The driver waits for somebody to ask for the body; whoever does will poll it, so nobody needs a wake-up.
        self.drive(&mut Context::from_waker(Waker::noop()));
        head
    }

    /// Lets the connection read and write what it can.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        // An error of the driver reaches the exchange through the sender or the body.
        if !self.ended && self.driver.as_mut().poll(cx).is_ready() {
            self.ended = true;
        }
    }

    /// Whether the connection can take a request now: it is open and the last exchange is over.
    pub(super) fn is_ready(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.ended && self.sender.is_ready()
    }

    /// Whether the driver has ended, because the connection did or because it was upgraded.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }
}

impl fmt::Debug for Http1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http1").field("ended", &self.ended).finish_non_exhaustive()
    }
}

//! One HTTP/1.1 connection, polled by the request that holds it.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
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

use super::connect::Io;
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
    /// The driver has ended and must not be polled again.
    ended: bool,
}

impl Http1 {
    /// Wraps a fresh connection.
    pub(super) async fn handshake(io: Io) -> hyper::Result<Self> {
        let (sender, driver) = http1::Builder::new().handshake(TokioIo::new(io)).await?;
        Ok(Self { sender, driver: Box::pin(driver.with_upgrades()), ended: false })
    }

    /// Sends `request` and waits for the head of the response.
    ///
    /// # Errors
    /// The error carries the request if nothing of it was written.
    ///
    /// # Cancellation
    /// Dropping the future leaves the connection in the middle of an exchange; it must be dropped too.
    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        let mut response = pin!(self.sender.try_send_request(request));
        let (driver, ended) = (&mut self.driver, &mut self.ended);
        poll_fn(|cx| {
            drive(driver, ended, cx);
            response.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        })
        .await
    }

    /// Lets the connection read and write what it can.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        drive(&mut self.driver, &mut self.ended, cx);
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

fn drive(driver: &mut Driver, ended: &mut bool, cx: &mut Context<'_>) {
    // An error of the driver reaches the exchange through the sender or the body.
    if !*ended && let Poll::Ready(_) = driver.as_mut().poll(cx) {
        *ended = true;
    }
}

impl fmt::Debug for Http1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http1").field("ended", &self.ended).finish_non_exhaustive()
    }
}

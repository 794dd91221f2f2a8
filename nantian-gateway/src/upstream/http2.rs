//! One HTTP/2 connection in clear text or behind TLS, shared by many requests.

use std::fmt;

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

/// A handle to the connection; its clones share it.
#[derive(Clone)]
pub(super) struct Http2 {
    sender: SendRequest<Body>,
}

impl Http2 {
    /// Wraps a fresh connection and starts the task that drives it.
    pub(super) async fn handshake(io: Io) -> hyper::Result<Self> {
        let (sender, driver) =
            http2::Builder::new(LocalExecutor).timer(TokioTimer::new()).handshake(TokioIo::new(io)).await?;
        spawn_local(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "an HTTP/2 connection to a backend ended");
            }
        });
        Ok(Self { sender })
    }

    /// Sends `request` and waits for the head of the response.
    ///
    /// # Errors
    /// The error carries the request if nothing of it was written.
    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        self.sender.try_send_request(request).await
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

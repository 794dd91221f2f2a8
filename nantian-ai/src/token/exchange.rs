//! One exchange of a credential for a token, made by the embedder's client.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{Request, Response};

use super::{Source, TokenError};
use crate::error::BoxError;

/// The HTTP client that exchanges are made with.
///
/// The library spawns nothing: the client takes an exchange to where it can be made beside the requests, most
/// often by spawning [`Exchange::through`] as a task. Closures that do so are clients.
pub trait TokenClient: Send + Sync {
    /// Begins an exchange, without waiting for it.
    ///
    /// It has to come to an end in a time that the client bounds. Dropping it is a failure.
    fn begin(&self, exchange: Exchange);
}

/// An exchange that is to be made.
///
/// # Cancellation
/// Dropping it tells all who wait for the token that there is none, as [`TokenError::Abandoned`].
pub struct Exchange {
    source: Arc<Source>,
    ended: bool,
}

// === impl Exchange ===

impl Exchange {
    pub(super) fn of(source: Arc<Source>) -> Self {
        Self { source, ended: false }
    }

    /// Makes the exchange. `send` gets a request with an absolute URL and gives the whole response, of which
    /// more than 64 KiB is no answer. The request holds secrets: it is not to be logged.
    ///
    /// A file that proves a workload's identity is read here, and an account's assertion signed, which takes
    /// about a millisecond.
    ///
    /// # Cancellation
    /// Dropping the future tells all who wait for the token that there is none.
    pub async fn through<F, R, E>(mut self, send: F)
    where
        F: FnOnce(Request<Bytes>) -> R,
        R: Future<Output = Result<Response<Bytes>, E>>,
        E: Into<BoxError>,
    {
        let identity = self.source.identity();
        let result = match identity.request_at(SystemTime::now()) {
            Ok(request) => match send(request).await {
                Ok(response) => identity.read_at(SystemTime::now(), &response),
                Err(error) => Err(TokenError::Unreachable { source: Arc::from(error.into()) }),
            },
            Err(error) => Err(error),
        };
        self.ended = true;
        self.source.settle_at(SystemTime::now(), result);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.ended {
            self.source.settle_at(SystemTime::now(), Err(TokenError::Abandoned));
        }
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("identity", self.source.identity()).finish_non_exhaustive()
    }
}

impl<F: Fn(Exchange) + Send + Sync> TokenClient for F {
    fn begin(&self, exchange: Exchange) {
        self(exchange);
    }
}

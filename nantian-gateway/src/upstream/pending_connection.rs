//! HTTP/2 connections that are being opened, and the requests that wait for them.

use tokio::sync::watch;

use super::UpstreamError;

/// A connection that is being opened. When this is dropped it can be shared, or there will be none.
pub(super) struct PendingConnection {
    failure: watch::Sender<Option<UpstreamError>>,
    /// The requests that may wait for it.
    places: usize,
}

/// The place of a request that waits for one.
#[derive(Debug)]
pub(super) struct ConnectionTicket(watch::Receiver<Option<UpstreamError>>);

// === impl PendingConnection ===

impl PendingConnection {
    /// A connection for one request, and as many more as there are `places`.
    pub(super) fn new(places: usize) -> Self {
        Self { failure: watch::Sender::new(None), places }
    }

    /// A place, unless all are taken.
    pub(super) fn ticket(&self) -> Option<ConnectionTicket> {
        (self.failure.receiver_count() < self.places).then(|| ConnectionTicket(self.failure.subscribe()))
    }

    /// Tells those who wait that there will be none, and why.
    pub(super) fn fail(&self, error: &UpstreamError) {
        self.failure.send_replace(Some(error.for_another()));
    }
}

// === impl ConnectionTicket ===

impl ConnectionTicket {
    /// Waits until it is known how many requests share the connection, or whoever opens it has given up.
    ///
    /// # Errors
    /// Why there is no connection, as whoever opened it was told.
    ///
    /// # Cancellation
    /// Dropping the future gives the place back.
    pub(super) async fn opened(mut self) -> Result<(), UpstreamError> {
        match self.0.wait_for(Option::is_some).await {
            Ok(failure) => failure.as_ref().map_or(Ok(()), |error| Err(error.for_another())),
            Err(_) => Ok(()),
        }
    }
}

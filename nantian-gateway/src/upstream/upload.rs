//! The body of a request on its way to the backend.

use std::{
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use http::{Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, sleep_until};

use super::{Destination, UpstreamBody, UpstreamError, client::Exchange, error::Unanswered};
use crate::{
    body::{Body, BoxError},
    ir::Protocol,
    sync::lock,
};

/// What hyper always takes of a body over HTTP/1.1, in bytes.
const TAKEN_AT_ONCE: u64 = 64 * 1024;

/// What went wrong with the body of a request over HTTP/2, if anything did: hyper only resets the stream.
///
/// It stays with the request, as one of its extensions.
#[derive(Debug, Clone, Default)]
pub(super) struct Failure(Arc<Mutex<Option<BoxError>>>);

/// Since when the backend takes nothing of a body, if it does not.
///
/// A client whose bytes nobody reads is not seen to leave either: its end is behind them.
#[derive(Debug, Clone)]
pub(super) struct Upload(Arc<Mutex<Option<Instant>>>);

/// Notes for an [`Upload`] when its body is asked for more, until that is dropped.
struct Watch(Upload);

// === impl Upload ===

impl Upload {
    /// Watches the body of `request`, unless it is too small to be waited for. There is a connection after
    /// `connecting` at the latest.
    pub(super) fn of(
        request: &mut Request<Body>,
        destination: &Destination,
        connecting: Duration,
    ) -> Option<Self> {
        let body = request.body();
        let is_small = destination.protocol == Protocol::Http1
            && body.size_hint().upper().is_some_and(|length| length <= TAKEN_AT_ONCE);
        if is_small || body.is_end_stream() {
            return None;
        }
        let upload = Self(Arc::new(Mutex::new(Some(Instant::now() + connecting))));
        let (body, watch) = (std::mem::take(request.body_mut()), Watch(upload.clone()));
        *request.body_mut() = body.inspect(move |polled, is_over| {
            let has_more = matches!(polled, Poll::Ready(Some(Ok(_)))) && !is_over;
            watch.note(has_more.then(Instant::now));
        });
        Some(upload)
    }

    /// What `exchange` gives, unless the backend takes nothing of the body for `limit`.
    ///
    /// # Cancellation
    /// Dropping it drops the exchange.
    pub(super) async fn taken(
        self,
        exchange: Exchange,
        destination: Destination,
        limit: Duration,
    ) -> Result<Response<UpstreamBody>, Unanswered> {
        tokio::select! {
            biased;
            answer = exchange => answer,
            () = self.stalled(limit) => {
                Err(UpstreamError::Stalled { destination: destination.to_string(), limit }.into())
            }
        }
    }

    async fn stalled(&self, limit: Duration) {
        loop {
            let (since, now) = (*lock(&self.0), Instant::now());
            let end = since.unwrap_or(now) + limit;
            if end <= now {
                return;
            }
            // It may begin to wait meanwhile, sooner than was thought.
            sleep_until(end.min(now + limit)).await;
        }
    }
}

// === impl Watch ===

impl Watch {
    fn note(&self, since: Option<Instant>) {
        *lock(&self.0.0) = since;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.note(None);
    }
}

// === impl Failure ===

impl Failure {
    /// Keeps what goes wrong with the body of `request`; there is nothing to keep if it has none.
    pub(super) fn of(request: &mut Request<Body>) -> Option<Self> {
        if request.body().is_end_stream() {
            return None;
        }
        if let Some(failure) = request.extensions().get::<Self>() {
            return Some(failure.clone());
        }
        let failure = Self::default();
        request.extensions_mut().insert(failure.clone());
        let (body, kept) = (std::mem::take(request.body_mut()), failure.clone());
        *request.body_mut() = Body::boxed(body.map_err(move |error| {
            kept.keep(error);
            "the body of the request broke off"
        }));
        Some(failure)
    }

    pub(super) fn take(&self) -> Option<BoxError> {
        lock(&self.0).take()
    }

    fn keep(&self, error: BoxError) {
        *lock(&self.0) = Some(error);
    }
}

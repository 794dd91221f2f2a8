//! Telling a request that was late from one that nobody wanted any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The time limit of one attempt, as a request extension.
///
/// A request whose future is dropped says nothing about the endpoint: the client may have left. A time limit
/// around [`Balance`](crate::Balance) puts this into the request and tells it when time is up, before it
/// drops the future; then the endpoint is one that did not answer. Clones are one.
///
/// Time limits that know nothing of it need none: see
/// [`BalanceLayer::blame_after`](crate::BalanceLayer::blame_after).
#[derive(Debug, Clone, Default)]
pub struct AttemptTimeout {
    is_expired: Arc<AtomicBool>,
}

// === impl AttemptTimeout ===

impl AttemptTimeout {
    /// One that has not expired.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The endpoint had its time and did not answer.
    ///
    /// Not to be told if the endpoint had nothing to answer yet, because the client was slow to send its
    /// body.
    pub fn expire(&self) {
        self.is_expired.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_expired(&self) -> bool {
        self.is_expired.load(Ordering::Relaxed)
    }
}

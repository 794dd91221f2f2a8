//! Telling a request that was late from one that nobody wanted any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The patience of whoever waits for a response, as a request extension.
///
/// A request whose future is dropped says nothing about the endpoint: the client may have left. A time limit around
/// [`Balance`](crate::Balance) puts this into the request and tells it when time is up, before it drops the future; then the
/// endpoint is one that did not answer. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Patience {
    is_over: Arc<AtomicBool>,
}

// === impl Patience ===

impl Patience {
    /// It lasts until it is told otherwise.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The endpoint had its time and did not answer.
    ///
    /// Not to be told if the endpoint had nothing to answer yet, because the client was slow to send its body.
    pub fn run_out(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

//! How long a client hears nothing.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::call::timeout::LazyTimer;

/// How long it may be: load balancers give up a connection without a byte, some of them after half a minute.
const LONGEST: Duration = Duration::from_secs(15);

/// Waits until a client has heard nothing for too long.
#[derive(Debug)]
pub(crate) struct Silence {
    since: Instant,
    timer: LazyTimer,
}

// === impl Silence ===

impl Silence {
    /// It begins now.
    pub(crate) fn new() -> Self {
        Self { since: Instant::now(), timer: LazyTimer::default() }
    }

    /// Notes that the client is told something.
    pub(crate) fn end(&mut self) {
        self.since = Instant::now();
    }

    /// Ready when it has been too long.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.poll_until(self.since + LONGEST, cx)
    }
}

//! How long a client hears nothing.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// How long it may be: load balancers give up a connection without a byte, some of them after half a minute.
const LONGEST: Duration = Duration::from_secs(15);

/// Waits until a client has heard nothing for too long. Its timer moves only when it fires.
#[derive(Debug)]
pub(crate) struct Silence {
    since: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

// === impl Silence ===

impl Silence {
    /// It begins now.
    pub(crate) fn new() -> Self {
        Self { since: Instant::now(), timer: None }
    }

    /// Notes that the client is told something.
    pub(crate) fn end(&mut self) {
        self.since = Instant::now();
    }

    /// Ready when it has been too long.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.since + LONGEST;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}

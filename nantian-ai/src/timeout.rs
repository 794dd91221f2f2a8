//! The timeouts of one attempt.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::Timeouts;
use crate::error::Awaited;

pin_project! {
    /// Waits for what comes too late. Its timer moves only when it fires or must fire earlier, not with
    /// every chunk.
    #[derive(Debug)]
    pub(crate) struct Watch {
        #[pin]
        timer: Option<Sleep>,
        timeouts: Timeouts,
        streaming: bool,
        started: Instant,
        heard: Instant,
    }
}

// === impl Watch ===

impl Watch {
    /// The watch of an attempt that starts now.
    pub(crate) fn new(timeouts: Timeouts, streaming: bool) -> Self {
        let started = Instant::now();
        Self { timer: None, timeouts, streaming, started, heard: started }
    }

    /// The watch of the body of the same attempt.
    pub(crate) fn of_body(&self) -> Self {
        Self {
            timer: None,
            timeouts: self.timeouts,
            streaming: self.streaming,
            started: self.started,
            heard: Instant::now(),
        }
    }

    /// Whether a stream is awaited: the reply's head knows better than the request.
    pub(crate) fn streaming(mut self, streaming: bool) -> Self {
        self.streaming = streaming;
        self
    }

    /// Notes that a chunk has come.
    pub(crate) fn heard(self: Pin<&mut Self>) {
        if self.streaming && self.timeouts.idle.is_some() {
            *self.project().heard = Instant::now();
        }
    }

    /// Ready when something has not come in time: what, and in what time.
    pub(crate) fn poll_late(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        has_token: bool,
    ) -> Poll<(Awaited, Duration)> {
        loop {
            let (awaited, since, timeout) = self.awaited(has_token);
            // A deadline beyond what an instant can hold never comes.
            let Some((timeout, deadline)) =
                timeout.and_then(|timeout| Some((timeout, since.checked_add(timeout)?)))
            else {
                return Poll::Pending;
            };
            let mut timer = self.as_mut().project().timer;
            if let Some(mut armed) = timer.as_mut().as_pin_mut() {
                if armed.deadline() > deadline {
                    armed.as_mut().reset(deadline);
                }
                ready!(armed.as_mut().poll(cx));
                if armed.deadline() >= deadline {
                    return Poll::Ready((awaited, timeout));
                }
            }
            timer.set(Some(sleep_until(deadline)));
        }
    }

    fn awaited(&self, has_token: bool) -> (Awaited, Instant, Option<Duration>) {
        match (self.streaming, has_token) {
            (false, _) => (Awaited::Reply, self.started, self.timeouts.total),
            (true, false) => (Awaited::FirstToken, self.started, self.timeouts.first_token),
            (true, true) => (Awaited::NextChunk, self.heard, self.timeouts.idle),
        }
    }
}

//! The timeouts of one attempt.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::call::deadline::Deadline;
use crate::error::Awaited;
use crate::target::config::Timeouts;

/// Waits for what comes too late.
#[derive(Debug)]
pub(crate) struct Watch {
    timer: LazyTimer,
    timeouts: Timeouts,
    /// The end of all attempts.
    deadline: Option<Deadline>,
    streaming: bool,
    started: Instant,
    heard: Instant,
}

/// Moves only when it fires or must fire earlier, not with every chunk. Made when there is something to wait
/// for; in a box, so that it goes on in the body of the reply.
#[derive(Debug, Default)]
pub(crate) struct LazyTimer(Option<Pin<Box<Sleep>>>);

// === impl Watch ===

impl Watch {
    /// The watch of an attempt that starts now.
    pub(crate) fn new(timeouts: Timeouts, deadline: Option<Deadline>, streaming: bool) -> Self {
        let started = Instant::now();
        Self { timer: LazyTimer::default(), timeouts, deadline, streaming, started, heard: started }
    }

    /// Whether a stream is awaited: the reply's head knows better than the request.
    pub(crate) fn expect_stream(&mut self, streaming: bool) {
        self.streaming = streaming;
    }

    /// Notes that a chunk has come.
    pub(crate) fn heard(&mut self) {
        if self.streaming && self.timeouts.idle.is_some() {
            self.heard = Instant::now();
        }
    }

    /// Whether there is more time than this for all that is left to do.
    pub(crate) fn leaves(&self, wait: Duration) -> bool {
        self.deadline.is_none_or(|deadline| deadline.leaves(wait))
    }

    /// What has not come in time, and in what time, if no attempt may go on. A body that always has more
    /// never waits.
    pub(crate) fn out_of_time(&self) -> Option<(Awaited, Duration)> {
        let passed = self.deadline.filter(|deadline| deadline.has_passed());
        passed.map(|deadline| (Awaited::Answer, deadline.limit()))
    }

    /// Ready when something has not come in time: what, and in what time.
    pub(crate) fn poll_late(&mut self, cx: &mut Context<'_>, has_token: bool) -> Poll<(Awaited, Duration)> {
        let whole = (Awaited::Reply, self.started, self.timeouts.attempt);
        // A deadline beyond what an instant can hold never comes.
        let of_attempt =
            [self.awaited(has_token), whole].into_iter().filter_map(|(awaited, since, timeout)| {
                let timeout = timeout?;
                Some((since.checked_add(timeout)?, awaited, timeout))
            });
        let of_all = self.deadline.and_then(|it| Some((it.at()?, Awaited::Answer, it.limit())));
        // Of two at once the one of all attempts says more.
        let first = of_all.into_iter().chain(of_attempt).min_by_key(|(deadline, ..)| *deadline);
        let Some((deadline, awaited, timeout)) = first else {
            return Poll::Pending;
        };
        self.timer.poll_until(deadline, cx).map(|()| (awaited, timeout))
    }

    fn awaited(&self, has_token: bool) -> (Awaited, Instant, Option<Duration>) {
        match (self.streaming, has_token) {
            (false, _) => (Awaited::Reply, self.started, self.timeouts.total),
            (true, false) => (Awaited::FirstToken, self.started, self.timeouts.first_token),
            (true, true) => (Awaited::NextChunk, self.heard, self.timeouts.idle),
        }
    }
}

// === impl LazyTimer ===

impl LazyTimer {
    /// Ready at the deadline, wherever that was before.
    pub(crate) fn poll_until(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}

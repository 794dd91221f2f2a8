//! How one call of a target went, as plain data: what traces and metrics are made of.

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::Content;
use crate::dialect::Dialect;
use crate::ir::Losses;

/// One call of a target, from the request to the end of its answer, further attempts included.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct CallReport {
    /// How often the target was asked, and what came of it; none where nobody counts, as around a service of
    /// one's own.
    pub attempts: Vec<AttemptReport>,
    /// Whether it would have been asked once more if the target's [`RetryBudget`](crate::retry::RetryBudget)
    /// had not been spent.
    pub over_budget: bool,
    /// The [`code`](crate::Error::code) of the error that the client got instead of an answer, or that broke
    /// it off.
    pub error: Option<&'static str>,
    /// From the start of the first attempt to the end of the answer.
    pub duration: Duration,
    /// From the start of the first attempt to the first token of a stream; `None` without one.
    pub first_token: Option<Duration>,
    /// The mean time between two events of a stream that say something; `None` with fewer than two.
    pub between_tokens: Option<Duration>,
    /// What the target was asked in.
    pub dialect: Option<Dialect>,
    /// Whether the answer was a stream.
    pub stream: bool,
    /// Whether a stream that is left now has cost more than can be counted by what has come of it: nothing
    /// was shown, or reasoning whose text its provider keeps back.
    pub unseen: bool,
    /// The id that the provider gave the answer.
    pub id: Option<String>,
    /// The model that the provider says has written it.
    pub model: Option<String>,
    /// Why it ended, in the provider's words; of several answers the first.
    pub finish_reason: Option<String>,
    /// What the other dialect had no words for, of the request and of the answer.
    pub dropped: Losses,
    /// What was asked and answered, if the observer [keeps](super::UsageObserver::keeps) it.
    pub content: Option<Content>,
}

/// One attempt of a call.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct AttemptReport {
    /// The status that the provider answered with; `None` if it did not.
    pub status: Option<StatusCode>,
    /// The [`code`](crate::Error::code) of the error that made an end of it, where that is not told by the
    /// status alone.
    pub error: Option<&'static str>,
    /// From its start to the head of the provider's answer, to the failure without one, or until nobody
    /// waited for it any more.
    pub duration: Duration,
}

/// The attempts of a call, as they are made.
#[derive(Debug, Default)]
pub(crate) struct AttemptLog {
    attempts: Vec<AttemptReport>,
    /// When the one began that is under way.
    begun: Option<Instant>,
}

// === impl AttemptLog ===

impl AttemptLog {
    /// Notes that an attempt begins.
    pub(crate) fn begin(&mut self) {
        self.attempts.push(AttemptReport::default());
        self.begun = Some(Instant::now());
    }

    /// Notes that it has been answered.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.note(|attempt| attempt.status = Some(status));
    }

    /// Notes that it has failed; if none is under way, that one could not begin.
    pub(crate) fn failed(&mut self, code: &'static str) {
        if self.begun.is_none() {
            self.begin();
        }
        self.note(|attempt| attempt.error = Some(code));
    }

    /// Notes that it is over, and another one is to be made.
    pub(crate) fn end(&mut self) {
        self.begun = None;
    }

    /// The attempts, the last of which came to the error of the call unless another one has been noted.
    pub(super) fn take(&mut self, error: Option<&'static str>) -> Vec<AttemptReport> {
        self.note(|attempt| attempt.error = attempt.error.or(error));
        std::mem::take(&mut self.attempts)
    }

    fn note(&mut self, told: impl FnOnce(&mut AttemptReport)) {
        let (Some(attempt), Some(begun)) = (self.attempts.last_mut(), self.begun) else { return };
        if attempt.status.is_none() && attempt.error.is_none() {
            attempt.duration = begun.elapsed();
        }
        told(attempt);
    }
}

//! How one call of a target went, as plain data: what traces and metrics are made of.

use std::time::Duration;

use super::Content;
use crate::ir::Losses;

/// One call of a target, from the request to the end of its answer, further attempts included.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct CallReport {
    /// How often the target was asked; 0 where nobody counts, as around a service of one's own.
    pub attempts: u32,
    /// Whether it would have been asked once more if the target's [`RetryBudget`](crate::retry::RetryBudget)
    /// had not been spent.
    pub over_budget: bool,
    /// The [`code`](crate::Error::code) of the error that the client got instead of an answer.
    pub error: Option<&'static str>,
    /// From the start of the first attempt to the end of the answer.
    pub duration: Duration,
    /// From the start of the first attempt to the first token of a stream; `None` without one.
    pub first_token: Option<Duration>,
    /// The mean time between two events of a stream that say something; `None` with fewer than two.
    pub between_tokens: Option<Duration>,
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

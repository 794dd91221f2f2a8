//! What is asked for a request.

use std::time::Duration;

use http::Extensions;

use crate::cost::Cost;
use crate::decide::BucketKey;
#[cfg(feature = "redis")]
use crate::redis::Unanswered;
use crate::wait_queue::{MaxWait, QueueKey};

/// What is asked for a request.
#[derive(Debug, Clone)]
pub(crate) struct DecisionRequest {
    pub(crate) key: BucketKey,
    pub(crate) cost: Cost,
    /// How much of the cost it is.
    pub(crate) part: Part,
    /// Bytes that the request holds while it waits.
    pub(crate) held: u64,
    /// How long it has waited before.
    pub(crate) waited: Duration,
    /// How long whoever asks waits for an answer.
    pub(crate) max_wait: Option<MaxWait>,
    /// Whether a server has left another decision about it unanswered.
    #[cfg(feature = "redis")]
    pub(crate) unanswered: Option<Unanswered>,
}

/// How much of the cost of a request is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// All, or what is left of it.
    Rest,
    /// What is known before its body is read; where it will use tokens, there must be some left.
    Opening { spends: bool },
}

// === impl DecisionRequest ===

impl DecisionRequest {
    /// For a request that has not waited, and holds nothing while it does.
    pub(crate) fn new(key: BucketKey, cost: Cost, part: Part, extensions: &mut Extensions) -> Self {
        #[cfg(feature = "redis")]
        let unanswered = matches!(key, BucketKey::Shared(_)).then(|| Unanswered::of(extensions));
        Self {
            key,
            cost,
            part,
            held: 0,
            waited: Duration::ZERO,
            max_wait: extensions.get().copied(),
            #[cfg(feature = "redis")]
            unanswered,
        }
    }

    /// How long it is worth waiting.
    pub(crate) fn time_left(&self) -> Duration {
        self.max_wait.map_or(Duration::MAX, |wait| wait.left())
    }

    /// Where it waits: those whose bodies are still to be read stand in nobody's way, nor do those who wait
    /// for tokens in that of others.
    pub(crate) fn queue_key(&self) -> QueueKey {
        let (is_opening, needs_tokens) = match self.part {
            Part::Rest => (false, self.cost.tokens > 0),
            Part::Opening { spends } => (true, spends),
        };
        QueueKey { key: self.key.key(), is_opening, needs_tokens }
    }
}

//! A token and its life.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::credential::Secret;
use crate::credential::stamp::Stamp;

/// The longest life that is believed: a token is asked for anew every day.
const LONGEST_LIFE: Duration = Duration::from_secs(86_400);

/// How long before its end a token is asked for anew, at most.
const AHEAD: Duration = Duration::from_secs(300);

/// How long before its end a token is not shown any more, at most: requests take time to arrive.
const MARGIN: Duration = Duration::from_secs(30);

/// What an endpoint has issued: the secret, in the form that the credential's scheme has it in, and its life.
#[derive(Clone, Debug)]
pub(super) struct Issued {
    pub(super) secret: Secret,
    pub(super) life: Duration,
}

/// A token that can be written into requests.
#[derive(Clone, Debug)]
pub(super) struct Token {
    stamp: Arc<Stamp>,
    due: SystemTime,
    until: SystemTime,
}

// === impl Token ===

impl Token {
    /// A token that was issued now.
    pub(super) fn issued_at(now: SystemTime, stamp: Stamp, life: Duration) -> Self {
        let life = life.min(LONGEST_LIFE);
        let end = now + life;
        Self { stamp: Arc::new(stamp), due: end - AHEAD.min(life / 5), until: end - MARGIN.min(life / 20) }
    }

    pub(super) fn stamp(&self) -> &Arc<Stamp> {
        &self.stamp
    }

    /// Whether it can be shown.
    pub(super) fn is_good_at(&self, now: SystemTime) -> bool {
        now < self.until
    }

    /// Whether it is time to ask for another one.
    pub(super) fn is_due_at(&self, now: SystemTime) -> bool {
        now >= self.due
    }
}

//! What can be wrong with a policy, and what a refused caller is told.

use std::sync::Arc;
use std::time::Duration;

use crate::cost::Cost;
use crate::levels::Levels;
use crate::limit::{Limit, LimitName};
use crate::policy::MAX_LIMITS;
use crate::scope::ScopePart;

/// A policy that cannot be enforced as written.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPolicy {
    /// There is nothing to enforce.
    #[error("a policy needs at least one limit")]
    NoLimit,
    /// More limits than one decision can hold.
    #[error("{0} limits, at most {MAX_LIMITS} are allowed")]
    TooManyLimits(usize),
    /// A name that headers cannot carry.
    #[error("limit name {0:?} is not 1 to {max} characters of A-Z a-z 0-9 . _ -", max = LimitName::MAX_LEN)]
    Name(String),
    /// The window is out of range.
    #[error("{limit}: window {window:?} is not within 1 s and 31 days")]
    Window {
        /// Whose window it is.
        limit: LimitName,
        /// The window given.
        window: Duration,
    },
    /// The amount is out of range.
    #[error("{limit}: {max} is more than one per nanosecond of the window")]
    Amount {
        /// Whose amount it is.
        limit: LimitName,
        /// The amount given.
        max: u64,
    },
    /// The burst is out of range or no number.
    #[error("{limit}: burst {burst} is not within 1 and 1000")]
    Burst {
        /// Whose burst it is.
        limit: LimitName,
        /// The burst given.
        burst: f64,
    },
    /// The weight of cached tokens is out of range or no number.
    #[error("weight {0} of cached tokens is not within 0 and 1")]
    CachedTokenWeight(f64),
    /// Two limits have one name, by which clients are to tell them apart.
    #[error("{0} is the name of two limits")]
    SameName(LimitName),
    /// Two limits count the same thing over the same window.
    #[error("{limit} has the unit and window of {twin}")]
    SameWindow {
        /// The later limit.
        limit: LimitName,
        /// The earlier limit.
        twin: LimitName,
    },
}

/// A scope that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidScope {
    /// A part is empty, as in `apiKey+` or in an empty scope.
    #[error("scope {0:?} has an empty part")]
    Empty(String),
    /// A part that is not in the grammar.
    #[error("scope part {0:?} is none of route, global, gateway, model, apiKey, user, ip, header:<name>")]
    Unknown(String),
    /// What follows `header:` is no header name.
    #[error("scope part {0:?} names no HTTP header")]
    Header(String),
}

/// The caller exhausted a limit. Maps to 429.
///
/// A denied request has cost nothing on any limit. It is in the extensions of the response, so that limiters
/// around take their charge back: who sends another response in its place hands it on.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{} exhausted, {}", self.limit().name(), Wait(self.retry_after))]
pub struct Denied {
    levels: Levels,
    limit: usize,
    retry_after: Option<Duration>,
}

/// The request lacks a part of the scope and is refused for it. Maps to 401 or 400.
///
/// See [`MissingKey::Reject`](crate::MissingKey::Reject). It is in the extensions of the response, so that
/// limiters around take their charge back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the request lacks what its rate limit counts by: {part}")]
#[non_exhaustive]
pub struct MissingPart {
    /// The part.
    pub part: ScopePart,
}

/// The store of the limits is away, and requests wait for it to come back. Maps to 503.
///
/// It is in the extensions of the response, so that limiters around take their charge back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the rate limits cannot be read at present")]
#[non_exhaustive]
pub struct Unavailable;

struct Wait(Option<Duration>);

// === impl Denied ===

impl Denied {
    pub(crate) fn new(levels: Levels, limit: usize, retry_after: Option<Duration>) -> Self {
        Self { levels, limit, retry_after }
    }

    /// The same denial of a request that takes `cost` in all: whoever came back for the part that was denied
    /// would be denied the rest.
    pub(crate) fn until_fits(self, cost: Cost) -> Self {
        match self.levels.shortage(cost) {
            Some((limit, Some(wait))) if self.retry_after.is_some_and(|told| told < wait) => {
                Self { limit, retry_after: Some(wait), ..self }
            }
            _ => self,
        }
    }

    /// The same denial with other levels of the same limits.
    pub(crate) fn with_levels(self, levels: Levels) -> Self {
        if Arc::ptr_eq(self.levels.ledger(), levels.ledger()) { Self { levels, ..self } } else { self }
    }

    /// The limit that keeps the caller out longest.
    pub fn limit(&self) -> &Limit {
        self.levels.limit(self.limit)
    }

    /// How long until the same request would pass if nobody else used the limits; `None` if it never will,
    /// because the limit is 0.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Where the limits of the policy stand.
    pub fn levels(&self) -> &Levels {
        &self.levels
    }
}

/// `wait` in milliseconds, rounded up: whoever waits that long has waited long enough.
pub(crate) fn whole_millis(wait: Duration) -> Duration {
    let millis = wait.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

impl std::fmt::Display for Wait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(wait) => write!(f, "retry after {:?}", whole_millis(wait)),
            None => f.write_str("it admits nothing"),
        }
    }
}

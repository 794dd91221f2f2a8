//! One limit: an amount of something in each window.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::cost::Cost;
use crate::error::InvalidPolicy;

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// Requests.
    Requests,
    /// LLM tokens, prompt plus completion.
    Tokens,
}

/// The name of a limit as clients see it in `RateLimit` headers and error bodies.
///
/// 1 to [`MAX_LEN`](Self::MAX_LEN) characters of `A-Z a-z 0-9 . _ -`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LimitName(Cow<'static, str>);

/// One amount per window, with its burst.
///
/// The bucket of a limit holds `max × burst` and refills at `max` per window, continuously. From a full
/// bucket the first window can therefore admit up to `(1 + burst) × max`; the long run admits `max`.
///
/// Inside a policy a limit is identified by its unit and window: an edit of the amount or the burst keeps
/// what callers have used, another window starts afresh.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    name: LimitName,
    unit: Unit,
    max: u64,
    /// The amount of the limit that this is one replica's share of; its own if it is none.
    whole: u64,
    window: Duration,
    burst: f64,
}

// === impl LimitName ===

impl LimitName {
    /// Longest name, in bytes: room for a namespace, the name of an object, and what it counts.
    pub const MAX_LEN: usize = 384;

    /// Checks `name`.
    ///
    /// # Errors
    ///
    /// [`InvalidPolicy::Name`] when it is empty, too long, or holds another character than
    /// `A-Z a-z 0-9 . _ -`.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Result<Self, InvalidPolicy> {
        let name = name.into();
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if name.is_empty() || name.len() > Self::MAX_LEN || !name.bytes().all(known) {
            return Err(InvalidPolicy::Name(name.into_owned()));
        }
        Ok(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LimitName {
    type Err = InvalidPolicy;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name.to_owned())
    }
}

impl AsRef<str> for LimitName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LimitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Limit ===

impl Limit {
    /// Shortest window.
    pub const MIN_WINDOW: Duration = Duration::from_secs(1);
    /// Longest window.
    pub const MAX_WINDOW: Duration = Duration::from_secs(31 * 24 * 60 * 60);
    /// Largest burst.
    pub const MAX_BURST: f64 = 1000.0;

    /// `max` of `unit` per `window`, burst 1.
    ///
    /// `max` is 0 (deny all) up to one per nanosecond of the window; `window` is 1 s to 31 days.
    pub fn new(name: LimitName, unit: Unit, max: u64, window: Duration) -> Self {
        Self { name, unit, max, whole: max, window, burst: 1.0 }
    }

    /// `max` requests per second, named `requests-per-second`.
    pub fn requests_per_second(max: u64) -> Self {
        Self::named("requests-per-second", Unit::Requests, max, 1)
    }

    /// `max` requests per minute, named `requests-per-minute`. Source: `TokenPolicy.spec.requestsPerMinute`.
    pub fn requests_per_minute(max: u64) -> Self {
        Self::named("requests-per-minute", Unit::Requests, max, 60)
    }

    /// `max` requests per hour, named `requests-per-hour`.
    pub fn requests_per_hour(max: u64) -> Self {
        Self::named("requests-per-hour", Unit::Requests, max, 3600)
    }

    /// `max` requests per day, named `requests-per-day`.
    pub fn requests_per_day(max: u64) -> Self {
        Self::named("requests-per-day", Unit::Requests, max, 24 * 3600)
    }

    /// `max` tokens per minute, named `tokens-per-minute`. Source: `TokenPolicy.spec.tokensPerMinute`.
    pub fn tokens_per_minute(max: u64) -> Self {
        Self::named("tokens-per-minute", Unit::Tokens, max, 60)
    }

    /// `max` tokens per hour, named `tokens-per-hour`. Source: `TokenPolicy.spec.tokensPerHour`.
    pub fn tokens_per_hour(max: u64) -> Self {
        Self::named("tokens-per-hour", Unit::Tokens, max, 3600)
    }

    /// `max` tokens per day, named `tokens-per-day`.
    pub fn tokens_per_day(max: u64) -> Self {
        Self::named("tokens-per-day", Unit::Tokens, max, 24 * 3600)
    }

    /// The same limit under another name.
    #[must_use]
    pub fn with_name(mut self, name: LimitName) -> Self {
        self.name = name;
        self
    }

    /// The same limit with a bucket of `burst` times the amount.
    ///
    /// Unit: multiples of the amount. Range: 1 to 1000. Default: 1. Source: `TokenPolicy.spec.burst`.
    #[must_use]
    pub fn with_burst(mut self, burst: f64) -> Self {
        self.burst = burst;
        self
    }

    /// The name that clients see.
    pub fn name(&self) -> &LimitName {
        &self.name
    }

    /// What it counts.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// The amount per window; 0 denies all.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The window.
    pub fn window(&self) -> Duration {
        self.window
    }

    /// The size of the bucket: `max × burst`, rounded down.
    pub fn capacity(&self) -> u64 {
        self.bucket_of(self.max)
    }

    /// What one of `replicas` has of it: at least 1, unless it denies all.
    #[cfg(feature = "redis")]
    pub(crate) fn share_among(&self, replicas: u32) -> Self {
        Self { max: self.max.div_ceil(u64::from(replicas.max(1))), ..self.clone() }
    }

    /// What is taken for `cost` before it is settled: the cost, or a whole bucket if it is larger. A share
    /// takes what the whole limit does, into debt if need be.
    pub(crate) fn reserved(&self, cost: Cost) -> u64 {
        cost.of(self.unit).min(self.bucket_of(self.whole).max(1))
    }

    /// What a share takes note of where the whole limit was charged `cost` by others: as much as it would owe
    /// if it were no share.
    #[cfg(feature = "redis")]
    pub(crate) fn noted(&self, cost: Cost) -> u64 {
        self.reserved(cost).min(self.most_noted())
    }

    /// Items up to which a share takes note of more: a bucket and a window of its own.
    #[cfg(feature = "redis")]
    pub(crate) fn most_noted(&self) -> u64 {
        self.most_of(self.max)
    }

    /// Items that can be in use at most: a bucket, and a window of debt. A share can owe what the whole limit
    /// can.
    pub(crate) fn most_in_use(&self) -> u64 {
        self.most_of(self.whole)
    }

    fn most_of(&self, max: u64) -> u64 {
        self.bucket_of(max).max(1).saturating_add(max.max(1))
    }

    fn bucket_of(&self, max: u64) -> u64 {
        if self.burst <= 1.0 {
            return max;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "within range: at most 1000 times 2^52, and float casts saturate"
        )]
        // The millionth undoes representation error: 1.15 × 100 is 114.999… in binary.
        let capacity = (self.burst * max as f64 + 1e-6) as u64;
        capacity
    }

    /// Whether both are the same limit, amounts aside.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        self.unit == other.unit && self.window == other.window
    }

    fn named(name: &'static str, unit: Unit, max: u64, seconds: u64) -> Self {
        Self::new(LimitName(Cow::Borrowed(name)), unit, max, Duration::from_secs(seconds))
    }

    pub(crate) fn check(&self) -> Result<(), InvalidPolicy> {
        let name = || self.name.clone();
        if !(Self::MIN_WINDOW..=Self::MAX_WINDOW).contains(&self.window) {
            return Err(InvalidPolicy::Window { limit: name(), window: self.window });
        }
        if u128::from(self.max) > self.window.as_nanos() {
            return Err(InvalidPolicy::Amount { limit: name(), max: self.max });
        }
        if !(1.0..=Self::MAX_BURST).contains(&self.burst) {
            return Err(InvalidPolicy::Burst { limit: name(), burst: self.burst });
        }
        Ok(())
    }
}

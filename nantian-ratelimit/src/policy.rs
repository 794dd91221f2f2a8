//! What a policy says: plain data, no state, no clock.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::error::InvalidPolicy;
use crate::scope::Scope;

/// Most limits that one policy can hold.
pub const MAX_LIMITS: usize = 7;

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
/// The bucket of a limit holds `max × burst` and refills at `max` per window, continuously. From a full bucket the
/// first window can therefore admit up to `(1 + burst) × max`; the long run admits `max`.
///
/// Inside a policy a limit is identified by its unit and window: an edit of the amount or the burst keeps what callers
/// have used, another window starts afresh.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    name: LimitName,
    unit: Unit,
    max: u64,
    window: Duration,
    burst: f64,
}

/// What happens to a request that a limit does not admit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnLimit {
    /// It is refused with 429. The default.
    #[default]
    Reject,
    /// It waits its turn, then passes, or is refused if that takes too long.
    Queue(Queue),
    /// It passes, costs nothing, and is counted: a rehearsal of `Reject`.
    Warn,
}

/// How requests wait for a limit: first come, first served, for each key, among those who need tokens and among those who need
/// none. What waits has cost nothing yet. One is refused at once if there is no place, or if its turn comes first but too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Queue {
    /// How long a request waits at most, if its [`MaxWait`](crate::MaxWait) is not shorter. Range: up to a day; more counts as a day.
    /// Default: 30 s.
    pub max_wait: Duration,
    /// How many wait for one key at most, in each of its lines: one is for requests that need tokens and one for those that do not, and
    /// two more for those whose bodies are still to be read ([`RateLimitLayer::begin`](crate::RateLimitLayer::begin)), which keep
    /// out nobody whose body is there. Range: from 1. Default: 100.
    pub max_waiting_for_key: usize,
    /// How many wait for all keys together at most. Default: 10 000.
    pub max_waiting: usize,
    /// How many bytes those that wait may hold together, as far as their [`HeldBytes`](crate::HeldBytes) say. Default: 64 MiB.
    pub max_held_bytes: u64,
}

/// What happens to a request that lacks a part of the scope, such as an API key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MissingKey {
    /// It shares a bucket with all that lack it. The default.
    #[default]
    Share,
    /// It passes uncounted.
    Skip,
    /// It is refused: with 401 if it is a credential that is missing, else with 400.
    Reject,
}

/// Limits that are decided together, for whom they count, and what follows when one is exhausted.
///
/// Values of this type are valid: see [`PolicyBuilder::build`].
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    limits: Vec<Limit>,
    scope: Scope,
    on_limit: OnLimit,
    missing_key: MissingKey,
    cached_token_weight: f64,
}

/// Collects the parts of a [`Policy`].
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct PolicyBuilder {
    limits: Vec<Limit>,
    scope: Scope,
    on_limit: OnLimit,
    missing_key: MissingKey,
    cached_token_weight: Option<f64>,
}

// === impl Queue ===

impl Default for Queue {
    fn default() -> Self {
        Self {
            max_wait: Duration::from_secs(30),
            max_waiting_for_key: 100,
            max_waiting: 10_000,
            max_held_bytes: 64 << 20,
        }
    }
}

impl Queue {
    /// Sets how long a request waits at most.
    #[must_use]
    pub fn with_max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// Sets how many wait at most for one key, and for all keys together.
    #[must_use]
    pub fn with_places(mut self, for_key: usize, together: usize) -> Self {
        self.max_waiting_for_key = for_key;
        self.max_waiting = together;
        self
    }

    /// Sets how many bytes those that wait may hold together.
    #[must_use]
    pub fn with_held_bytes(mut self, together: u64) -> Self {
        self.max_held_bytes = together;
        self
    }
}

// === impl LimitName ===

impl LimitName {
    /// Longest name, in bytes: room for a namespace, the name of an object, and what it counts.
    pub const MAX_LEN: usize = 384;

    /// Checks `name`.
    ///
    /// # Errors
    ///
    /// [`InvalidPolicy::Name`] when it is empty, too long, or holds another character than `A-Z a-z 0-9 . _ -`.
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
        Self { name, unit, max, window, burst: 1.0 }
    }

    /// `max` requests per minute, named `requests-per-minute`.
    pub fn requests_per_minute(max: u64) -> Self {
        Self::named("requests-per-minute", Unit::Requests, max, 60)
    }

    /// `max` tokens per minute, named `tokens-per-minute`.
    pub fn tokens_per_minute(max: u64) -> Self {
        Self::named("tokens-per-minute", Unit::Tokens, max, 60)
    }

    /// `max` tokens per hour, named `tokens-per-hour`.
    pub fn tokens_per_hour(max: u64) -> Self {
        Self::named("tokens-per-hour", Unit::Tokens, max, 3600)
    }

    /// The same limit under another name.
    #[must_use]
    pub fn with_name(mut self, name: LimitName) -> Self {
        self.name = name;
        self
    }

    /// The same limit with a bucket of `burst` times the amount.
    ///
    /// Unit: multiples of the amount. Range: 1 to 1000. Default: 1.
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
        if self.burst <= 1.0 {
            return self.max;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "within range: at most 1000 times 2^52, and float casts saturate"
        )]
        // The millionth undoes representation error: 1.15 × 100 is 114.999… in binary.
        let capacity = (self.burst * self.max as f64 + 1e-6) as u64;
        capacity
    }

    /// Whether both are the same limit, amounts aside.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        self.unit == other.unit && self.window == other.window
    }

    fn named(name: &'static str, unit: Unit, max: u64, seconds: u64) -> Self {
        Self::new(LimitName(Cow::Borrowed(name)), unit, max, Duration::from_secs(seconds))
    }

    fn check(&self) -> Result<(), InvalidPolicy> {
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

// === impl Policy ===

impl Policy {
    /// Starts a policy without limits, scope `route`, that rejects.
    pub fn builder() -> PolicyBuilder {
        PolicyBuilder::default()
    }

    /// The limits, in the order they were given.
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }

    /// For whom the limits count.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// What happens to a request that a limit does not admit.
    pub fn on_limit(&self) -> OnLimit {
        self.on_limit
    }

    /// The same policy with other amounts.
    #[cfg(feature = "redis")]
    pub(crate) fn map_amounts(&self, amount: impl Fn(u64) -> u64) -> Self {
        let mut policy = self.clone();
        policy.limits.iter_mut().for_each(|limit| limit.max = amount(limit.max));
        policy
    }

    /// What happens to a request that lacks a part of the scope.
    pub fn missing_key(&self) -> MissingKey {
        self.missing_key
    }

    /// Tokens that do not count, of so many that a provider has read from its cache.
    #[expect(clippy::cast_possible_truncation, reason = "a share of an integer, and float casts saturate")]
    pub fn discount(&self, cached: u64) -> u64 {
        (cached as f64 * (1.0 - self.cached_token_weight)) as u64
    }

    /// Whether some limit counts `unit`.
    pub fn counts(&self, unit: Unit) -> bool {
        self.limits.iter().any(|limit| limit.unit == unit)
    }
}

// === impl PolicyBuilder ===

impl PolicyBuilder {
    /// Adds a limit; all limits of a policy must admit a request.
    ///
    /// Range: 1 to 7 limits, no two with the same unit and window.
    pub fn limit(mut self, limit: Limit) -> Self {
        self.limits.push(limit);
        self
    }

    /// Sets for whom the limits count. Default: [`Scope::route`].
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Sets what happens to a request that a limit does not admit. Default: [`OnLimit::Reject`].
    pub fn on_limit(mut self, on_limit: OnLimit) -> Self {
        self.on_limit = on_limit;
        self
    }

    /// Sets what happens to a request that lacks a part of the scope. Default: [`MissingKey::Share`].
    pub fn missing_key(mut self, missing_key: MissingKey) -> Self {
        self.missing_key = missing_key;
        self
    }

    /// Sets how much a token counts that a provider has read from its cache of prompts.
    ///
    /// See [`Settlement::with_cached`](crate::Settlement::with_cached). Most providers do not count these tokens themselves.
    /// Unit: share of a token. Range: 0 to 1. Default: 1.
    pub fn cached_token_weight(mut self, weight: f64) -> Self {
        self.cached_token_weight = Some(weight);
        self
    }

    /// Checks the parts together.
    ///
    /// # Errors
    ///
    /// [`InvalidPolicy`] says which part is out of range.
    pub fn build(self) -> Result<Policy, InvalidPolicy> {
        if self.limits.is_empty() {
            return Err(InvalidPolicy::NoLimit);
        }
        if self.limits.len() > MAX_LIMITS {
            return Err(InvalidPolicy::TooManyLimits(self.limits.len()));
        }
        for (position, limit) in self.limits.iter().enumerate() {
            limit.check()?;
            let earlier = self.limits.iter().take(position);
            if let Some(twin) = earlier.into_iter().find(|other| other.is_same_as(limit)) {
                return Err(InvalidPolicy::SameWindow { limit: limit.name.clone(), twin: twin.name.clone() });
            }
        }
        let cached_token_weight = self.cached_token_weight.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&cached_token_weight) {
            return Err(InvalidPolicy::CachedTokenWeight(cached_token_weight));
        }
        let Self { limits, scope, on_limit, missing_key, .. } = self;
        Ok(Policy { limits, scope, on_limit, missing_key, cached_token_weight })
    }
}

//! What a policy says: plain data, no state, no clock.

use std::time::Duration;

use crate::error::InvalidPolicy;
use crate::limit::{Limit, Unit};
use crate::scope::Scope;

/// Most limits that one policy can hold.
pub const MAX_LIMITS: usize = 7;

/// What happens to a request that a limit does not admit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnLimit {
    /// It is refused with 429. The default.
    #[default]
    Reject,
    /// It waits its turn, then passes, or is refused if that takes too long.
    Queue(Queue),
    /// It passes, costs nothing, and is counted: a rehearsal of `Reject`. Clients, which pace themselves by
    /// what they are told, are not told where the limits stand.
    Warn,
}

/// How requests wait for a limit: first come, first served, for each key, among those who need tokens and
/// among those who need none. What waits has cost nothing yet. One is refused at once if there is no place,
/// or if its turn comes first but too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Queue {
    /// How long a request waits at most, if its [`MaxWait`](crate::MaxWait) is not shorter. Range: up to a
    /// day; more counts as a day. Default: 30 s.
    pub max_wait: Duration,
    /// How many wait for one key at most, in each of its lines: one is for requests that need tokens and one
    /// for those that do not, and two more for those whose bodies are still to be read
    /// ([`RateLimitLayer::begin`](crate::RateLimitLayer::begin)), which keep out nobody whose body is there.
    /// Range: from 1. Default: 100.
    pub max_waiting_for_key: usize,
    /// How many wait for all keys together at most. Default: 10 000.
    pub max_waiting: usize,
    /// How many bytes those that wait may hold together, as far as their [`HeldBytes`](crate::HeldBytes) say.
    /// Several that wait for one key may hold half of what those for others leave, unless the scope is
    /// `global`, which has no others. Default: 64 MiB.
    pub max_held_bytes: u64,
}

/// What happens to a request that lacks a part of the scope, such as an API key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MissingKey {
    /// It shares a bucket with all that lack it. The default.
    ///
    /// Route, gateway, user, model and address are the embedder's to tell
    /// ([`ScopeValues`](crate::ScopeValues)): where nobody does, all requests share one bucket.
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
    cached_token_weight: CachedTokenWeight,
}

/// What a token counts that a provider has read from its cache.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CachedTokenWeight(f64);

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

    /// The policy for one of `replicas`, each with its share of the limits.
    #[cfg(feature = "redis")]
    pub(crate) fn share_among(&self, replicas: u32) -> Self {
        let limits = self.limits.iter().map(|limit| limit.share_among(replicas)).collect();
        Self { limits, ..self.clone() }
    }

    /// What happens to a request that lacks a part of the scope.
    pub fn missing_key(&self) -> MissingKey {
        self.missing_key
    }

    /// Tokens that do not count, of so many that a provider has read from its cache.
    pub fn discount(&self, cached: u64) -> u64 {
        self.cached_token_weight.discount(cached)
    }

    pub(crate) fn cached_token_weight(&self) -> CachedTokenWeight {
        self.cached_token_weight
    }

    /// Whether some limit counts `unit`.
    pub fn counts(&self, unit: Unit) -> bool {
        self.limits.iter().any(|limit| limit.unit() == unit)
    }
}

// === impl CachedTokenWeight ===

impl CachedTokenWeight {
    /// Tokens that do not count, of so many that a provider has read from its cache.
    #[expect(clippy::cast_possible_truncation, reason = "a share of an integer, and float casts saturate")]
    pub(crate) fn discount(self, cached: u64) -> u64 {
        (cached as f64 * (1.0 - self.0)) as u64
    }
}

// === impl PolicyBuilder ===

impl PolicyBuilder {
    /// Adds a limit; all limits of a policy must admit a request.
    ///
    /// Range: 1 to 7 limits, no two with the same unit and window or the same name.
    pub fn limit(mut self, limit: Limit) -> Self {
        self.limits.push(limit);
        self
    }

    /// Sets for whom the limits count. Default: [`Scope::route`]. Source: `TokenPolicy.spec.scope`.
    ///
    /// Only `apiKey` and `header:<name>` are in the request itself. The other parts are the embedder's to
    /// tell ([`ScopeValues`](crate::ScopeValues), [`KeyExtractor`](crate::KeyExtractor),
    /// [`client_ip`](crate::RateLimitLayer::client_ip)): by `ip`, `user` or `model` that nobody tells, all
    /// callers share one bucket, unless [`missing_key`](Self::missing_key) says otherwise.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Sets what happens to a request that a limit does not admit. Default: [`OnLimit::Reject`]. Source:
    /// `TokenPolicy.spec.onLimit`.
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
    /// See [`Settlement::with_cached`](crate::Settlement::with_cached). Most providers do not count these
    /// tokens themselves. Unit: share of a token. Range: 0 to 1. Default: 1. Source:
    /// `TokenPolicy.spec.cachedTokenWeight`.
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
            let mut earlier = self.limits.iter().take(position);
            if let Some(twin) = earlier.clone().find(|other| other.is_same_as(limit)) {
                return Err(InvalidPolicy::SameWindow {
                    limit: limit.name().clone(),
                    twin: twin.name().clone(),
                });
            }
            if earlier.any(|other| other.name() == limit.name()) {
                return Err(InvalidPolicy::SameName(limit.name().clone()));
            }
        }
        let cached_token_weight = self.cached_token_weight.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&cached_token_weight) {
            return Err(InvalidPolicy::CachedTokenWeight(cached_token_weight));
        }
        let Self { limits, scope, on_limit, missing_key, .. } = self;
        let cached_token_weight = CachedTokenWeight(cached_token_weight);
        Ok(Policy { limits, scope, on_limit, missing_key, cached_token_weight })
    }
}

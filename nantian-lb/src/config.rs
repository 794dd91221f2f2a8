//! How a balancer chooses: plain data.

use std::mem::discriminant;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::health::{OutlierConfig, SlowStartConfig};
use crate::key::HashKey;

/// How requests are spread over the endpoints of one set.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BalanceConfig {
    /// How an endpoint is chosen.
    ///
    /// Default: [`Strategy::RoundRobin`]. Source: `BackendLBPolicy.spec.loadBalancing.type`.
    pub strategy: Strategy,
    /// Requests that one endpoint may have in flight at once; a pick passes over an endpoint that has them.
    ///
    /// Unit: requests per endpoint. Range: 1..=u32::MAX. Default: unlimited.
    /// Source: `BackendLBPolicy.spec.circuitBreaker.maxInflightRequests`.
    pub max_inflight_requests: Option<NonZeroU32>,
    /// The most that [`Strategy::ConsistentHash`] gives to one endpoint, in percent of its share of all
    /// requests in flight; what is more goes to another one ("consistent hashing with bounded loads").
    ///
    /// Unit: percent. Range: 100..=u32::MAX, less counts as 100; 125 is a good choice. Default: unbounded.
    pub max_load_percent: Option<NonZeroU32>,
    /// When an endpoint that fails is left out for a while.
    ///
    /// Default: never.
    pub outlier: Option<OutlierConfig>,
    /// How an endpoint that is new, or well again, is given its share.
    ///
    /// Default: at once.
    pub slow_start: Option<SlowStartConfig>,
    /// If a smaller part of the endpoints than this is healthy, their health is ignored: the few would not
    /// bear the load.
    ///
    /// Unit: percent of the endpoints that are ready. Range: 0..=100, 0 is never. Default: 50.
    pub panic_threshold_percent: u8,
    /// What becomes of requests when the nearest tier is not as healthy as it should be.
    ///
    /// Default: [`TierPreference::Spill`].
    pub tiers: TierPreference,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Strategy {
    /// In turns, shared by all users of the balancer: of any N picks each of n equal endpoints gets N/n, give
    /// or take one.
    #[default]
    RoundRobin,
    /// Independently of everything but the weights.
    Random,
    /// The endpoint with fewer requests in flight, for its weight, of two that are drawn at random; of all,
    /// if they are up to four.
    ///
    /// One request more or less is nothing beside an endpoint that takes more than twice as long as the other
    /// one, and more than 0.2 ms: an idle slow server would answer later than a busy fast one. One request in
    /// 64 is chosen by its load alone, so that who was slow can show that it is well. Requests are timed that
    /// tell something new: all of an endpoint that gets fewer than 250 a second, down to one in 128 of one
    /// that gets more.
    ///
    /// Failures that [`BalanceConfig::outlier`] counts say nothing about the time, so that who fails is met
    /// until it is left out; if it may not be left out, or is asked all the same, all others come before it
    /// until it answers, however busy they are. Any other failure counts as 5 s.
    LeastRequest,
    /// The endpoint that promises the shorter wait of two that are drawn at random: its usual response time,
    /// in which peaks and failures count at once and fade slowly, times its requests in flight.
    ///
    /// Of an endpoint that gets more than 250 requests a second fewer are timed, down to one in 8; of
    /// failures all count.
    PeakEwma {
        /// The time after which a peak counts a third (1/e).
        ///
        /// Range: 1 ms or more. Usual: 10 s.
        decay: Duration,
    },
    /// The endpoint that the key of the request is placed on; [`Strategy::LeastRequest`] for requests without
    /// the key.
    ConsistentHash(HashKey),
}

/// What becomes of requests when the endpoints of the nearest [tier](crate::Endpoint::tier) are not all
/// healthy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TierPreference {
    /// While 72 % of it are healthy it gets all, below that in proportion; the next tiers get the rest.
    #[default]
    Spill,
    /// It gets all while one of it is healthy.
    Strict,
}

// === impl BalanceConfig ===

impl BalanceConfig {
    /// Chooses by `strategy`, with everything else by default.
    #[must_use]
    pub fn new(strategy: Strategy) -> Self {
        Self {
            strategy,
            max_inflight_requests: None,
            max_load_percent: None,
            outlier: None,
            slow_start: None,
            panic_threshold_percent: 50,
            tiers: TierPreference::default(),
        }
    }

    /// Sets [`max_inflight_requests`](Self::max_inflight_requests).
    #[must_use]
    pub fn with_max_inflight_requests(mut self, max: NonZeroU32) -> Self {
        self.max_inflight_requests = Some(max);
        self
    }

    /// Sets [`max_load_percent`](Self::max_load_percent).
    #[must_use]
    pub fn with_max_load_percent(mut self, percent: NonZeroU32) -> Self {
        self.max_load_percent = Some(percent);
        self
    }

    /// Sets [`outlier`](Self::outlier).
    #[must_use]
    pub fn with_outlier(mut self, outlier: OutlierConfig) -> Self {
        self.outlier = Some(outlier);
        self
    }

    /// Sets [`slow_start`](Self::slow_start).
    #[must_use]
    pub fn with_slow_start(mut self, slow_start: SlowStartConfig) -> Self {
        self.slow_start = Some(slow_start);
        self
    }

    /// Sets [`panic_threshold_percent`](Self::panic_threshold_percent).
    #[must_use]
    pub fn with_panic_threshold_percent(mut self, percent: u8) -> Self {
        self.panic_threshold_percent = percent;
        self
    }

    /// Sets [`tiers`](Self::tiers).
    #[must_use]
    pub fn with_tiers(mut self, tiers: TierPreference) -> Self {
        self.tiers = tiers;
        self
    }

    /// The bound of loads, if it applies.
    pub(crate) fn load_bound(&self) -> Option<NonZeroU32> {
        self.max_load_percent.filter(|_| matches!(self.strategy, Strategy::ConsistentHash(_)))
    }

    /// Whether the response times of a few requests are of interest.
    pub(crate) fn samples_times(&self) -> bool {
        self.strategy == Strategy::LeastRequest
    }

    /// The decay of response times, if all failures are of interest for them.
    pub(crate) fn decay(&self) -> Option<Duration> {
        self.strategy.decay()
    }
}

impl Default for BalanceConfig {
    fn default() -> Self {
        Self::new(Strategy::default())
    }
}

// === impl Strategy ===

impl Strategy {
    /// [`Strategy::PeakEwma`] with the usual decay of 10 s.
    pub const PEAK_EWMA: Self = Self::PeakEwma { decay: Duration::from_secs(10) };

    /// Whether equal shares have the same tables by this as by the `other` strategy.
    pub(crate) fn has_tables_of(&self, other: &Self) -> bool {
        discriminant(self) == discriminant(other) && self.decay() == other.decay()
    }

    pub(crate) fn decay(&self) -> Option<Duration> {
        match self {
            Self::PeakEwma { decay } => Some((*decay).max(Duration::from_millis(1))),
            _ => None,
        }
    }
}

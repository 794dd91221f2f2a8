//! When an endpoint that fails is left out for a while.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::outcome::Outcome;

/// When an endpoint that fails is left out for a while ("passive health checks").
///
/// An endpoint whose time is over is tried with one request at a time; the first answer decides whether it is
/// back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutlierConfig {
    /// Failures of any kind in a row: 5xx, or no answer.
    ///
    /// Unit: requests. Default: 5; `None` does not count them.
    pub consecutive_errors: Option<NonZeroU32>,
    /// 502, 503, 504, `UNAVAILABLE` of gRPC or no answer in a row.
    ///
    /// Unit: requests. Default: 5; `None` does not count them.
    pub consecutive_gateway_errors: Option<NonZeroU32>,
    /// How long the first time lasts; the n-th in a row lasts n times as long, and up to a tenth more, lest
    /// all return at once.
    ///
    /// Default: 30 s.
    pub base_ejection: Duration,
    /// The longest time.
    ///
    /// Default: 300 s.
    pub max_ejection: Duration,
    /// The part of the endpoints that may be left out; one always may.
    ///
    /// Unit: percent of all endpoints, rounded down. Range: 0..=100. Default: 10.
    pub max_ejected_percent: u8,
    /// How long an endpoint is spared after 429 without `Retry-After`; 0 s never.
    ///
    /// Range: up to [`busy_max`](Self::busy_max). Default: 0 s.
    pub busy_default: Duration,
    /// How long an endpoint is spared at most after 429; 0 s never.
    ///
    /// Default: 300 s.
    pub busy_max: Duration,
}

// === impl OutlierConfig ===

impl OutlierConfig {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        let five = NonZeroU32::MIN.saturating_add(4);
        Self {
            consecutive_errors: Some(five),
            consecutive_gateway_errors: Some(five),
            base_ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            max_ejected_percent: 10,
            busy_default: Duration::ZERO,
            busy_max: Duration::from_secs(300),
        }
    }

    /// Sets [`consecutive_errors`](Self::consecutive_errors).
    #[must_use]
    pub fn with_consecutive_errors(mut self, errors: Option<NonZeroU32>) -> Self {
        self.consecutive_errors = errors;
        self
    }

    /// Sets [`consecutive_gateway_errors`](Self::consecutive_gateway_errors).
    #[must_use]
    pub fn with_consecutive_gateway_errors(mut self, errors: Option<NonZeroU32>) -> Self {
        self.consecutive_gateway_errors = errors;
        self
    }

    /// Sets [`max_ejected_percent`](Self::max_ejected_percent).
    #[must_use]
    pub fn with_max_ejected_percent(mut self, percent: u8) -> Self {
        self.max_ejected_percent = percent;
        self
    }

    /// Sets [`busy_max`](Self::busy_max).
    #[must_use]
    pub fn with_busy_max(mut self, spared: Duration) -> Self {
        self.busy_max = spared;
        self
    }

    /// Whether failures of this kind can lead to an ejection.
    pub(crate) fn judges(&self, failure: Outcome) -> bool {
        match failure {
            Outcome::Success | Outcome::Busy { .. } => false,
            Outcome::ServerError => self.consecutive_errors.is_some(),
            Outcome::GatewayError | Outcome::Unreachable => {
                self.consecutive_errors.or(self.consecutive_gateway_errors).is_some()
            }
        }
    }

    /// How many of `n` endpoints may be left out at once.
    pub(crate) fn max_ejected(&self, n: usize) -> usize {
        (n * usize::from(self.max_ejected_percent) / 100).max(1)
    }

    /// How long the `times`-th ejection in a row lasts; `jitter` is a number from 0 to 1.
    pub(crate) fn ejection(&self, times: u32, jitter: f64) -> Duration {
        let whole = self.base_ejection.saturating_mul(times).min(self.max_ejection);
        whole.saturating_add(whole.mul_f64(jitter.clamp(0.0, 1.0) / 10.0))
    }

    /// How long an endpoint is spared that said it is busy.
    pub(crate) fn spared(&self, retry_after: Option<Duration>) -> Duration {
        retry_after.unwrap_or(self.busy_default).min(self.busy_max)
    }
}

impl Default for OutlierConfig {
    fn default() -> Self {
        Self::new()
    }
}

//! How an endpoint that is new, or well again, is given its share.

use std::time::Duration;

/// How an endpoint that is new, or well again, is given its share: gradually, while its caches are cold.
///
/// It applies to all strategies but [`ConsistentHash`](crate::Strategy::ConsistentHash), whose placement it
/// would upset, and not to a set of which all endpoints are new.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlowStartConfig {
    /// How long it takes until the endpoint has its whole share.
    ///
    /// Default: none, it is what [`new`](Self::new) is given.
    pub window: Duration,
    /// The share at the beginning.
    ///
    /// Unit: percent of the weight. Range: 1..=100. Default: 10.
    pub min_weight_percent: u8,
    /// Whether new endpoints start slowly too, and not only those that were ejected or failed their checks.
    ///
    /// Default: true.
    pub new_endpoints: bool,
}

/// The window in so many steps, for the tables are built anew at each.
const STEPS: u32 = 20;

// === impl SlowStartConfig ===

impl SlowStartConfig {
    /// Takes `window` until the share is whole.
    #[must_use]
    pub fn new(window: Duration) -> Self {
        Self { window, min_weight_percent: 10, new_endpoints: true }
    }

    /// The share of its weight, in percent, that an endpoint has at this age; `None` is all of it, for good.
    pub(crate) fn percent(&self, age: Duration) -> Option<u32> {
        if age >= self.window {
            return None;
        }
        let grown = age.as_secs_f64() / self.window.as_secs_f64() * 100.0;
        let least = u32::from(self.min_weight_percent.clamp(1, 100));
        Some((0..=100).rev().find(|&percent| f64::from(percent) <= grown).unwrap_or(0).max(least))
    }

    /// How often the shares are looked at while some endpoint is starting.
    pub(crate) fn step(&self) -> Duration {
        (self.window / STEPS).max(Duration::from_millis(50))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_in_a_straight_line_from_its_least() {
        let config = SlowStartConfig::new(Duration::from_secs(100));
        for (age, expected) in [(0, 10), (5, 10), (10, 10), (11, 11), (50, 50), (99, 99)] {
            assert_eq!(config.percent(Duration::from_secs(age)), Some(expected), "{age}");
        }
        assert_eq!(config.percent(Duration::from_secs(100)), None);
        assert_eq!(SlowStartConfig::new(Duration::ZERO).percent(Duration::ZERO), None);
    }
}

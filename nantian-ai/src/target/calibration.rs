//! Estimates of input tokens that learn from what providers report.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A factor of one.
const ONE: u64 = 1 << 32;

/// How much a report of a long prompt counts against all before it: a sixteenth.
const WEIGHT: u64 = 16;

/// Prompts of so many tokens are long. Shorter ones count as much less as they are shorter: what one client
/// teaches about the prompts of all others costs it that many tokens.
const LONG: u64 = 8192;

/// Below this, what every request has besides its text says nothing about the text.
const SMALLEST: u64 = 16;

/// How much more, or less, than estimated one model's tokens can be.
const MOST: u64 = 4;

/// How far estimates are from what the provider of one model counts: tokenizers, languages and prompts
/// differ.
///
/// Each report of a long prompt moves the factor by a sixteenth of the way, so that a few dozen requests are
/// enough and one odd request changes little; one of a prompt that is short, by the estimate or by what is
/// reported, by as much less. It stays between a quarter and four.
///
/// ```
/// use nantian_ai::Calibration;
///
/// let calibration = Calibration::default();
/// assert_eq!(calibration.apply(10_000), 10_000);
/// for _ in 0..100 {
///     let estimate = calibration.apply(10_000);
///     calibration.learn(estimate, 15_000);
/// }
/// assert!((14_900..=15_100).contains(&calibration.apply(10_000)));
/// ```
#[derive(Debug)]
pub struct Calibration {
    factor: AtomicU64,
}

// === impl Calibration ===

impl Calibration {
    /// An estimate as this model's provider would count.
    pub fn apply(&self, estimate: u64) -> u64 {
        let scaled = u128::from(estimate) * u128::from(self.factor.load(Relaxed)) / u128::from(ONE);
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }

    /// Takes the provider's count of what has been [applied](Self::apply) as `estimate`.
    ///
    /// Racing reports may lose one another, which an average bears.
    pub fn learn(&self, estimate: u64, reported: u64) {
        if estimate < SMALLEST || reported == 0 {
            return;
        }
        let factor = self.factor.load(Relaxed);
        let seen = u128::from(factor) * u128::from(reported) / u128::from(estimate);
        let seen = u64::try_from(seen).unwrap_or(u64::MAX).clamp(ONE / MOST, ONE * MOST);
        let weight = estimate.min(reported).min(LONG);
        let next = (factor * (WEIGHT * LONG - weight) + seen * weight) / (WEIGHT * LONG);
        self.factor.store(next, Relaxed);
    }
}

impl Default for Calibration {
    /// Nothing is known.
    fn default() -> Self {
        Self { factor: AtomicU64::new(ONE) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_odd_report_changes_little() {
        let calibration = Calibration::default();
        calibration.learn(10_000, 1_000_000);
        assert_eq!(calibration.apply(1_000), 1_187);
    }

    #[test]
    fn what_costs_a_client_little_teaches_little_about_the_prompts_of_others() {
        for (estimate, reported) in [(16, 64), (16, 1_000_000), (100_000, 16)] {
            let calibration = Calibration::default();
            (0..20).for_each(|_| calibration.learn(estimate, reported));
            let learnt = calibration.apply(1_000);
            assert!((993..=1_007).contains(&learnt), "{learnt} by {estimate} of {reported}");
        }
    }

    #[test]
    fn small_requests_and_counts_of_nothing_teach_nothing() {
        let calibration = Calibration::default();
        calibration.learn(15, 60);
        calibration.learn(100, 0);
        assert_eq!(calibration.apply(1_000), 1_000);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn estimates_stay_within_a_quarter_and_four_times_whatever_is_reported(
            reports in vec((any::<u64>(), any::<u64>()), 0..50),
        ) {
            let calibration = Calibration::default();
            reports.into_iter().for_each(|(estimate, reported)| calibration.learn(estimate, reported));
            prop_assert!((250..=4_000).contains(&calibration.apply(1_000)));
        }

        #[test]
        fn a_constant_ratio_is_learnt(percent in 30_u64..390) {
            let calibration = Calibration::default();
            for _ in 0..400 {
                calibration.learn(calibration.apply(10_000), 100 * percent);
            }
            let learnt = calibration.apply(10_000);
            prop_assert!(learnt.abs_diff(100 * percent) <= percent, "{learnt} of {}", 100 * percent);
        }
    }
}

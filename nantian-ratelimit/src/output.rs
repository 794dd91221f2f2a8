//! How long answers are, before they are there.

use crate::sync::{AtomicU64, Ordering};

/// How many tokens the answers of one model have: an estimate of the 95th percentile, which learns from what they had.
///
/// To reserve all that a request allows itself starves a limit: clients ask for room for 32 000 tokens and use 1400. To
/// reserve what is typical of the model fills it, and what an answer has more is paid as debt.
///
/// ```
/// use nantian_ratelimit::OutputEstimate;
///
/// let outputs = OutputEstimate::default();
/// assert_eq!(outputs.expect(None), 1024);
/// assert_eq!(outputs.expect(Some(200)), 200);
/// for _ in 0..500 {
///     outputs.learn(300, None);
/// }
/// assert_eq!(outputs.expect(None), 300);
/// assert_eq!(outputs.expect(Some(32_000)), 4000);
/// ```
#[derive(Debug, Default)]
pub struct OutputEstimate(AtomicU64);

/// What is expected of a model of which nothing is known.
const UNKNOWN: u64 = 1024;

/// The share of what a request allows itself that is expected at least: one in so many. Short answers that were asked for to
/// lower the estimate hide no more than that.
const LEAST_SHARE: u64 = 8;

/// How much an answer below the estimate lowers it: one in so many.
const STEP: u64 = 256;

/// Steps up for an answer above it: of twenty answers nineteen are below the 95th percentile.
const STEPS_UP: u64 = 19;

// === impl OutputEstimate ===

impl OutputEstimate {
    /// Tokens to expect of an answer that may have `most`, or as many as it likes.
    pub fn expect(&self, most: Option<u64>) -> u64 {
        let learnt = match self.0.load(Ordering::Relaxed) {
            0 => UNKNOWN,
            learnt => learnt,
        };
        most.map_or(learnt, |most| learnt.max(most / LEAST_SHARE).min(most))
    }

    /// Takes note of an answer that had `output` tokens and might have had `most`.
    ///
    /// One that ended where it had to says only that it would have been as long, or longer. Racing reports may lose one
    /// another, which an estimate bears.
    pub fn learn(&self, output: u64, most: Option<u64>) {
        let estimate = self.0.load(Ordering::Relaxed);
        let is_cut = most.is_some_and(|most| output >= most);
        if output == 0 || (is_cut && output <= estimate.max(UNKNOWN)) {
            return;
        }
        let step = (estimate / STEP).max(1);
        let next = if estimate == 0 {
            output
        } else if output > estimate {
            estimate.saturating_add(step.saturating_mul(STEPS_UP))
        } else {
            estimate - (estimate - output).min(step)
        };
        self.0.store(next, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_settles_where_one_of_twenty_answers_is_longer() {
        let outputs = OutputEstimate::default();
        let mut seed = 7_u64;
        let (mut longer, mut counted) = (0, 0);
        for round in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let output = 1 + (seed >> 33) % 2000;
            if round > 2000 {
                counted += 1;
                longer += u64::from(output > outputs.expect(None));
            }
            outputs.learn(output, None);
        }
        let share = longer as f64 / f64::from(counted);
        assert!((0.03..0.08).contains(&share), "{share}");
    }

    #[test]
    fn answers_that_were_cut_off_do_not_lower_it() {
        let outputs = OutputEstimate::default();
        for _ in 0..1000 {
            outputs.learn(1, Some(1));
        }
        assert_eq!(outputs.expect(Some(4000)), 1024, "nothing was learnt of one that is not cut");
        for _ in 0..100 {
            outputs.learn(1400, None);
            outputs.learn(1, Some(1));
        }
        assert_eq!(outputs.expect(None), 1400);
        for _ in 0..100 {
            outputs.learn(8000, Some(8000));
        }
        assert!((8000..8700).contains(&outputs.expect(None)), "they raise it");
    }

    #[test]
    fn short_answers_hide_no_more_than_seven_eighths_of_what_is_allowed() {
        let outputs = OutputEstimate::default();
        for _ in 0..10_000 {
            outputs.learn(1, None);
        }
        assert_eq!(outputs.expect(Some(4000)), 500);
        assert_eq!(outputs.expect(None), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_stays_near_what_was_seen(
            answers in prop::collection::vec((1..=u64::MAX, any::<Option<u64>>()), 1..50),
        ) {
            let outputs = OutputEstimate::default();
            let (mut least, mut most) = (UNKNOWN, UNKNOWN);
            for (output, limit) in answers {
                outputs.learn(output, limit);
                (least, most) = (least.min(output), most.max(output));
                let expected = outputs.expect(None);
                let beyond = most.saturating_add(most / 13).saturating_add(STEPS_UP);
                prop_assert!((least..=beyond).contains(&expected));
                prop_assert!(outputs.expect(Some(7)) <= 7);
            }
        }
    }
}

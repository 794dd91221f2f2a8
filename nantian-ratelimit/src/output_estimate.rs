//! How long answers are, before they are there.

use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// How many tokens the answers of one model have: an estimate of the 95th percentile, which learns from what
/// they had.
///
/// To reserve all that a request allows itself starves a limit: clients ask for room for 32 000 tokens and
/// use 1400. To reserve what is typical of the model fills it, and what an answer has more is paid as debt.
///
/// As long as little is known, 1024 tokens are expected, or a quarter of the bucket if that is less, so that
/// small limits admit more than one request at a time. This fades: the answers that are there first are the
/// short ones, and there are as many of them as a bucket admits at once.
///
/// ```
/// use nantian_ratelimit::OutputEstimate;
///
/// let outputs = OutputEstimate::default();
/// assert_eq!(outputs.expect(None, 100_000), 1024);
/// assert_eq!(outputs.expect(None, 1000), 250);
/// assert_eq!(outputs.expect(Some(200), 100_000), 200);
/// for _ in 0..500 {
///     outputs.learn(300, None);
/// }
/// assert_eq!(outputs.expect(None, 100_000), 300);
/// assert_eq!(outputs.expect(Some(32_000), 100_000), 4000);
/// ```
#[derive(Debug, Default)]
pub struct OutputEstimate {
    /// What was learnt in the lower [`LEARNT_BITS`], above it how many answers that was learnt from.
    learnt: AtomicU64,
    /// The longest answer, which fades with every one that is shorter.
    longest: AtomicU64,
    hides: AtomicBool,
    /// An answer was longer than it might be.
    exceeds: AtomicBool,
}

const LEARNT_BITS: u32 = 48;
const MOST_LEARNT: u64 = (1 << LEARNT_BITS) - 1;
const MOST_ANSWERS: u64 = u64::MAX >> LEARNT_BITS;

/// What is expected of a model of which nothing is known.
const UNKNOWN: u64 = 1024;

/// The share of a bucket that is expected of an unknown model at most: one in so many.
const MOST_OF_BUCKET: u64 = 4;

/// After how many answers half of what was expected of an unknown model is left, at least and at most.
const HALVES: (u64, u64) = (16, 4096);

/// The same, for each so many tokens in the bucket: about twice as many as such requests fit into it.
const BUCKET_OF_ONE: u64 = UNKNOWN / 2;

/// Of so many answers the longest is about the 95th percentile.
const FIRST: u64 = 20;

/// The share of what a request allows itself that is expected at least: one in so many. Short answers that
/// were asked for to lower the estimate hide no more than that. One that names no limit allows itself the
/// longest answer there was, and what is expected of an unknown model at least, but no more than the whole
/// bucket.
const LEAST_SHARE: u64 = 8;

/// How much longer than it may be an answer is that counts in its own way what it may have: one in so many,
/// and as many tokens.
const SLACK: u64 = 16;

/// How much of the longest answer an answer that is shorter makes forget: one in so many.
const FADING: u64 = 4096;

/// How much an answer below the estimate lowers it: one in so many, fewer as long as little is known, so that
/// one long answer among the first is soon forgotten. With larger steps the estimate sways, and what minutes
/// use with it.
const STEPS: (u64, u64) = (128, 1024);

/// Steps up for an answer above it: of twenty answers nineteen are below the 95th percentile.
const STEPS_UP: u64 = 19;

// === impl OutputEstimate ===

impl OutputEstimate {
    /// Tokens to expect of an answer that may have `most`, or as many as it likes, where the smallest limit
    /// of tokens has a bucket of so many. Of a model that has given a longer answer than it might `most` is
    /// not believed.
    pub fn expect(&self, most: Option<u64>, bucket: u64) -> u64 {
        let (learnt, answers) = self.load();
        let expected = learnt.max(of_unknown(answers, bucket));
        let longest = || self.longest.load(Ordering::Relaxed).max(UNKNOWN).min(bucket);
        match most {
            // Nothing is generated.
            Some(0) => 0,
            Some(most) if self.exceeds.load(Ordering::Relaxed) => {
                expected.max(longest().max(most) / LEAST_SHARE)
            }
            Some(most) => expected.max(most / LEAST_SHARE).min(most),
            None => expected.max(longest() / LEAST_SHARE),
        }
    }

    /// Takes note of an answer that had `output` tokens and might have had `most`.
    ///
    /// One that ended where it had to says only that it would have been as long, or longer. One that went on
    /// says that whoever serves the model does not obey all limits that are read here, or obeys another one.
    /// Racing reports may lose one another, which an estimate bears.
    pub fn learn(&self, output: u64, most: Option<u64>) {
        let (learnt, answers) = self.load();
        let exceeds = most.is_some_and(|most| output - output / SLACK > most.saturating_add(SLACK));
        if exceeds {
            self.exceeds.store(true, Ordering::Relaxed);
        }
        let is_cut = most.is_some_and(|most| output >= most) && !exceeds;
        if output == 0 || (is_cut && output <= learnt.max(UNKNOWN)) {
            return;
        }
        let longest = self.longest.load(Ordering::Relaxed);
        self.longest.store(output.max(longest - longest / FADING), Ordering::Relaxed);
        let step = (learnt / answers.clamp(STEPS.0, STEPS.1)).max(1);
        let next = if answers < FIRST {
            learnt.max(output)
        } else if output > learnt {
            learnt.saturating_add(step.saturating_mul(STEPS_UP))
        } else {
            learnt - (learnt - output).min(step)
        };
        let answers = (answers + 1).min(MOST_ANSWERS);
        self.learnt.store(answers << LEARNT_BITS | next.min(MOST_LEARNT), Ordering::Relaxed);
    }

    /// Takes note of an answer with tokens that its reader is not shown, as those of reasoning.
    pub fn learn_hidden(&self) {
        if !self.hides() {
            self.hides.store(true, Ordering::Relaxed);
        }
    }

    /// Whether answers are known to have tokens that their readers are not shown: what was seen of one that
    /// was broken off says little of what it has used.
    pub fn hides(&self) -> bool {
        self.hides.load(Ordering::Relaxed)
    }

    /// What was learnt, and from how many answers.
    fn load(&self) -> (u64, u64) {
        let packed = self.learnt.load(Ordering::Relaxed);
        (packed & MOST_LEARNT, packed >> LEARNT_BITS)
    }
}

/// What is expected of an unknown model, as far as that has not faded.
fn of_unknown(answers: u64, bucket: u64) -> u64 {
    let unknown = UNKNOWN.min(bucket / MOST_OF_BUCKET).max(1);
    let half = (bucket / BUCKET_OF_ONE).clamp(HALVES.0, HALVES.1);
    let halved = unknown.checked_shr(u32::try_from(answers / half).unwrap_or(u32::MAX)).unwrap_or(0);
    halved - halved * (answers % half) / (2 * half)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUCKET: u64 = 20_000;

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
                longer += u64::from(output > outputs.expect(None, BUCKET));
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
        assert_eq!(outputs.expect(Some(4000), BUCKET), 1024, "nothing was learnt of one that is not cut");
        for _ in 0..100 {
            outputs.learn(1400, None);
            outputs.learn(1, Some(1));
        }
        assert_eq!(outputs.expect(None, BUCKET), 1400);
        for _ in 0..200 {
            outputs.learn(8000, Some(8000));
        }
        assert!((8000..8200).contains(&outputs.expect(None, BUCKET)), "they raise it");
    }

    #[test]
    fn a_long_answer_among_the_first_is_soon_forgotten() {
        let outputs = OutputEstimate::default();
        outputs.learn(30_000, None);
        for _ in 0..1000 {
            outputs.learn(500, None);
        }
        assert!(outputs.expect(None, 100_000) < 4000);
    }

    #[test]
    fn what_is_expected_of_an_unknown_model_fades_and_leaves_room_in_small_buckets() {
        assert_eq!(of_unknown(0, 1_000_000), 1024);
        assert_eq!(of_unknown(0, 400), 100);
        assert_eq!((of_unknown(8, 400), of_unknown(16, 400), of_unknown(160, 400)), (75, 50, 0));
        assert_eq!(of_unknown(0, 0), 1);
        let fading: Vec<u64> = (0..5000).map(|answers| of_unknown(answers, 50_000)).collect();
        assert!(fading.is_sorted_by(|earlier, later| earlier >= later));
        assert_eq!(of_unknown(MOST_ANSWERS, u64::MAX), 0);
        let outputs = OutputEstimate::default();
        outputs.learn(9, None);
        assert!(outputs.expect(None, 100_000) > 1000, "one short answer says little");
    }

    #[test]
    fn short_answers_hide_no_more_than_seven_eighths_of_what_is_allowed() {
        let outputs = OutputEstimate::default();
        for _ in 0..10_000 {
            outputs.learn(1, None);
        }
        assert_eq!(outputs.expect(Some(4000), BUCKET), 500);
        assert_eq!(outputs.expect(Some(1), BUCKET), 1);
        assert_eq!(outputs.expect(None, BUCKET), 128, "as if 1024 were allowed");
        assert_eq!(outputs.expect(None, 400), 50, "a small bucket has room for eight");
        outputs.learn(8000, None);
        assert!((1000..1100).contains(&outputs.expect(None, BUCKET)), "as if that were allowed again");
        for _ in 0..2000 {
            outputs.learn(1, None);
        }
        assert!((600..1000).contains(&outputs.expect(None, BUCKET)), "short answers take long to hide it");
    }

    #[test]
    fn limits_that_were_not_obeyed_are_not_believed_again() {
        let outputs = OutputEstimate::default();
        for _ in 0..1000 {
            outputs.learn(300, None);
            outputs.learn(11, Some(10));
            outputs.learn(1050, Some(1000));
        }
        assert_eq!(outputs.expect(Some(1), BUCKET), 1, "some count the end of an answer, too");
        outputs.learn(4000, Some(1));
        let expected = outputs.expect(None, BUCKET);
        assert!(expected >= 300);
        assert_eq!(outputs.expect(Some(1), BUCKET), expected);
        assert_eq!(outputs.expect(Some(16_000), BUCKET), 2000);
        assert_eq!(outputs.expect(Some(0), BUCKET), 0, "a vector");
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
                let output = output.min(MOST_LEARNT);
                outputs.learn(output, limit);
                (least, most) = (least.min(output), most.max(output));
                let expected = outputs.expect(None, BUCKET);
                let beyond = most.saturating_add(most / 6).saturating_add(STEPS_UP);
                prop_assert!((least..=beyond).contains(&expected));
                let is_believed = !outputs.exceeds.load(Ordering::Relaxed);
                let limit = if is_believed { 7 } else { beyond };
                prop_assert!(outputs.expect(Some(7), BUCKET) <= limit);
            }
        }
    }
}

//! The less loaded of two.

use std::sync::Arc;

use super::alias_table::AliasTable;
use super::{Load, index};
use crate::hash::remix;

/// How often a second draw that hit the first one's index is repeated before the next index is taken.
const REDRAWS: u32 = 3;
/// Up to so many indices are all looked at: two of three or four are too often a bad choice, and cost as
/// much.
const FEW: usize = 4;
/// Who takes so many times as long as another one is slow beside it.
const SLOW: f32 = 2.0;
/// Shorter times, in microseconds, are those of the machine rather than of an endpoint.
const NOISE: f32 = 100.0;

/// Chooses the less loaded of two distinct indices that are drawn at random ("power of two choices"), or of
/// all if they are few.
///
/// With weights, each is drawn in proportion to its weight and its load is divided by it. The first drawn is
/// taken unless the other one, with the request, has no more than the first one without it: so an idle set is
/// used in proportion to the weights, and an idle index of a small weight is not always the least loaded.
/// Beside a slow index the other one may have one request more, and comes first if it is idle: loads alone
/// would send a request to an idle server that takes longer than a busy one.
#[derive(Debug, Clone)]
pub(crate) enum LeastRequest {
    /// Equal weights: any two of n.
    Even(usize),
    /// Unequal weights.
    Weighted { alias_table: AliasTable, weights: Arc<[u32]> },
}

// === impl LeastRequest ===

impl LeastRequest {
    pub(crate) fn new(weights: &[u32]) -> Self {
        match AliasTable::new(weights) {
            AliasTable::Even(n) => Self::Even(n),
            alias_table @ AliasTable::Weighted(_) => Self::Weighted { alias_table, weights: weights.into() },
        }
    }

    /// Chooses by the requests in flight, and by response times where those hardly differ.
    #[inline]
    pub(crate) fn choose(&self, random: u64, load: impl Fn(usize) -> Load) -> usize {
        let n = self.len();
        if (3..=FEW).contains(&n) {
            return self.least_of_all(random, n, load);
        }
        let (first, second) = self.pair(random);
        if self.is_less(second, first, load(second), load(first)) { second } else { first }
    }

    #[inline(never)]
    fn least_of_all(&self, random: u64, n: usize, load: impl Fn(usize) -> Load) -> usize {
        let (first, second) = self.pair(random);
        let others = (first + 1..n).chain(0..first).filter(|&other| other != second);
        let least = [second].into_iter().chain(others).fold((first, load(first)), |least, other| {
            let others = load(other);
            if self.is_less(other, least.0, others, least.1) { (other, others) } else { least }
        });
        least.0
    }

    /// Whether the load at `this` place is less than that at the `other` one, each for its weight.
    #[inline]
    fn is_less(&self, this: usize, other: usize, mine: Load, others: Load) -> bool {
        match self {
            Self::Even(_) => mine.is_less_than(others),
            Self::Weighted { .. } => mine.is_less_by_weight(others, self.weight(this), self.weight(other)),
        }
    }

    /// Chooses by the wait that each promises, which is divided by the weight; of equals the first drawn. At
    /// a lighter one that was drawn first, and is not slow, the request weighs no more than at the other one:
    /// else it would have nothing of an idle set.
    #[inline]
    pub(crate) fn choose_by_wait(&self, random: u64, load: impl Fn(usize) -> Load) -> usize {
        let (first, second) = self.pair(random);
        let (weight, other_weight) = (self.weight(first), self.weight(second));
        let (stay, go) = (load(first), load(second));
        let one = if stay.is_slow_beside(go) { other_weight } else { weight.min(other_weight) };
        if go.wait(weight, weight) < stay.wait(other_weight, one) { second } else { first }
    }

    #[inline]
    fn pair(&self, random: u64) -> (usize, usize) {
        match self {
            Self::Even(n) => distinct_pair(random, *n),
            Self::Weighted { alias_table, weights } => weighted_pair(random, alias_table, weights.len()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Even(n) => *n,
            Self::Weighted { weights, .. } => weights.len(),
        }
    }

    fn weight(&self, index: usize) -> u32 {
        match self {
            Self::Even(_) => 1,
            Self::Weighted { weights, .. } => weights.get(index).copied().unwrap_or(1),
        }
    }
}

// === impl Load ===

impl Load {
    #[inline]
    fn is_less_than(self, other: Self) -> bool {
        let (mine, others) = (self.in_flight, other.in_flight);
        // Hardly anybody is slow, and nobody who is as fast as this.
        if self.latency.max(other.latency) <= SLOW * NOISE {
            return mine < others;
        }
        if self.is_hopeless() != other.is_hopeless() {
            return other.is_hopeless();
        }
        if mine.abs_diff(others) > 1 {
            return mine < others;
        }
        // Equal, or one more or less: for that, who is slow comes last.
        match (self.is_slow_beside(other), other.is_slow_beside(self)) {
            (false, false) => mine < others,
            (_, is_less) => is_less,
        }
    }

    /// Whether it is less than the other one, each for its weight; by equal weights as without any.
    fn is_less_by_weight(self, other: Self, weight: u32, other_weight: u32) -> bool {
        if self.is_hopeless() != other.is_hopeless() {
            return other.is_hopeless();
        }
        // With the request here, and without it there; who is slow counts one more. Beside who is slow it is
        // without the request, as an idle one comes first whatever its weight.
        let (more, others_more) =
            if other.is_slow_beside(self) { (0, 1) } else { (1 + u64::from(self.is_slow_beside(other)), 0) };
        let scaled =
            |load: usize, more, weight| (load as u64).saturating_add(more).saturating_mul(u64::from(weight));
        scaled(self.in_flight, more, other_weight) <= scaled(other.in_flight, others_more, weight)
    }

    /// Whether no answer can be expected, however few requests wait for one.
    fn is_hopeless(self) -> bool {
        self.latency == f32::INFINITY
    }

    fn is_slow_beside(self, other: Self) -> bool {
        other.latency > 0.0 && self.latency > SLOW * other.latency.max(NOISE)
    }

    /// How long a request may have to wait, if each in flight counts `each` and the request itself `one`.
    /// Precise enough: what matters are multiples.
    fn wait(self, each: u32, one: u32) -> f32 {
        self.latency * (self.in_flight as f32 * each as f32 + one as f32)
    }
}

/// Two distinct indices below `n`, every ordered pair as likely as any other; the same index twice if there
/// is but one.
fn distinct_pair(random: u64, n: usize) -> (usize, usize) {
    let n = n as u64;
    let first = ((random >> 32) * n) >> 32;
    let second = ((random & 0xffff_ffff) * n.saturating_sub(1)) >> 32;
    let second = if second >= first && n > 1 { second + 1 } else { second };
    (index(first), index(second))
}

fn weighted_pair(random: u64, alias_table: &AliasTable, n: usize) -> (usize, usize) {
    let first = alias_table.draw(random);
    let mut random = random;
    for _ in 0..=REDRAWS {
        random = remix(random);
        let second = alias_table.draw(random);
        if second != first {
            return (first, second);
        }
    }
    let next = first + 1;
    (first, if next < n { next } else { 0 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Loads, and times of which nothing is known.
    fn frozen(in_flight: impl Fn(usize) -> usize) -> impl Fn(usize) -> Load {
        move |at| Load { in_flight: in_flight(at), latency: 0.0 }
    }

    /// A load and a time for each index.
    fn timed(loads: &[(usize, f32)]) -> impl Fn(usize) -> Load {
        move |at| Load { in_flight: loads[at].0, latency: loads[at].1 }
    }

    fn picks(least: &LeastRequest, n: usize, rounds: u32, load: impl Fn(usize) -> Load) -> Vec<u32> {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut picks = vec![0; n];
        for _ in 0..rounds {
            picks[least.choose(rng.u64(..), &load)] += 1;
        }
        picks
    }

    #[test]
    fn the_least_loaded_of_a_few_is_always_chosen() {
        for n in 2..=FEW {
            let picks = picks(&LeastRequest::new(&vec![1; n]), n, 1000, frozen(|index| index));
            assert_eq!(picks[0], 1000, "{picks:?}");
        }
    }

    #[test]
    fn beside_a_slow_one_the_other_may_have_one_request_more() {
        let least = LeastRequest::new(&[1, 1]);
        let share_of_slow = |loads: [(usize, f32); 2]| picks(&least, 2, 1000, timed(&loads))[1];
        for (fast, slow, expected) in [(0, 0, 0), (1, 0, 0), (2, 0, 1000), (5, 4, 0), (6, 4, 1000), (4, 5, 0)]
        {
            assert_eq!(share_of_slow([(fast, 1000.0), (slow, 2100.0)]), expected, "{fast} and {slow}");
        }
        assert!(
            (400..600).contains(&share_of_slow([(3, 1000.0), (3, 1900.0)])),
            "twice as long is not slow yet"
        );
        assert!((400..600).contains(&share_of_slow([(3, 0.0), (3, 1900.0)])), "nothing is known of one");
        assert!((400..600).contains(&share_of_slow([(3, 20.0), (3, 190.0)])), "both answer at once");
    }

    #[test]
    fn who_is_not_expected_to_answer_comes_last_however_few_requests_wait_for_it() {
        for weights in [[1, 1], [1, 3]] {
            let least = LeastRequest::new(&weights);
            let share_of_dead = |loads: [(usize, f32); 2]| picks(&least, 2, 1000, timed(&loads))[1];
            for (well, latency) in [(0, 1000.0), (1, 50.0), (50, 1000.0), (50, 0.0)] {
                assert_eq!(
                    share_of_dead([(well, latency), (0, f32::INFINITY)]),
                    0,
                    "{well} and none, {weights:?}"
                );
            }
            let both = [(50, f32::INFINITY), (0, f32::INFINITY)];
            assert_eq!(share_of_dead(both), 1000, "nobody is better");
        }
    }

    #[test]
    fn slow_or_not_the_load_is_divided_by_the_weight() {
        let least = LeastRequest::new(&[1, 3]);
        let share_of_slow = |loads: [(usize, f32); 2]| picks(&least, 2, 1000, timed(&loads))[1];
        for (fast, slow, expected) in [(2, 2, 1000), (1, 1, 1000), (1, 2, 0), (0, 1, 0), (0, 0, 0)] {
            assert_eq!(share_of_slow([(fast, 1000.0), (slow, 5000.0)]), expected, "{fast} and {slow}");
        }
    }

    #[test]
    fn equal_weights_are_as_good_as_none() {
        let load = |in_flight, latency| Load { in_flight, latency };
        for (mine, others) in (0..6).flat_map(|mine| (0..6).map(move |others| (mine, others))) {
            for (my_time, other_time) in [(0.0, 0.0), (1000.0, 5000.0), (5000.0, 1000.0)] {
                let (this, other) = (load(mine, my_time), load(others, other_time));
                let is_less = this.is_less_than(other);
                assert_eq!(this.is_less_by_weight(other, 7, 7), is_less, "{this:?} {other:?}");
            }
        }
    }

    proptest! {
        /// P6: never the same endpoint twice.
        #[test]
        fn the_two_choices_are_distinct(random: u64, n in 2usize..2000, heavy in 2u32..) {
            let (first, second) = distinct_pair(random, n);
            prop_assert!(first < n && second < n && first != second);
            let mut weights = vec![1; n];
            weights[0] = heavy;
            let (first, second) = weighted_pair(random, &AliasTable::new(&weights), n);
            prop_assert!(first < n && second < n && first != second);
        }
    }

    #[test]
    fn one_endpoint_is_always_chosen() {
        assert_eq!(picks(&LeastRequest::new(&[3]), 1, 100, frozen(|_| 9)), [100]);
    }

    /// P6: with frozen loads the k-th best of n gets 2(n-k)/(n(n-1)) of the picks, and the worst none.
    #[test]
    fn frozen_loads_are_picked_by_rank_and_the_most_loaded_never() {
        const N: usize = 6;
        const ROUNDS: u32 = 300_000;
        let picks = picks(&LeastRequest::new(&[1; N]), N, ROUNDS, frozen(|index| index));
        for (rank, &count) in picks.iter().enumerate() {
            let share = 2.0 * (N - 1 - rank) as f64 / (N * (N - 1)) as f64;
            let expected = share * f64::from(ROUNDS);
            let sigma = (expected * (1.0 - share)).sqrt();
            assert!((f64::from(count) - expected).abs() <= 4.9 * sigma, "{picks:?}");
        }
        assert_eq!(picks[N - 1], 0);
    }

    /// P6: the gap between the most loaded and the mean is at most ln ln n / ln 2 + 4, however many requests
    /// are held.
    #[test]
    fn held_requests_stay_balanced_within_the_bound_of_two_choices() {
        for n in [2, 10, 100] {
            let least = LeastRequest::new(&vec![1; n]);
            let mut rng = fastrand::Rng::with_seed(3);
            let mut loads = vec![0usize; n];
            for _ in 0..n * 200 {
                let choice = least.choose(rng.u64(..), frozen(|index| loads[index]));
                loads[choice] += 1;
            }
            let gap = *loads.iter().max().unwrap() as f64 - 200.0;
            let bound = (n as f64).ln().ln().max(0.0) / std::f64::consts::LN_2 + 4.0;
            assert!(gap <= bound, "n {n}: {gap} above {bound}");
        }
    }

    #[test]
    fn by_waits_idle_endpoints_are_used_in_proportion_to_their_weights_and_none_has_more() {
        let least = LeastRequest::new(&[6, 3, 1]);
        let picks = |loads: [(usize, f32); 3]| {
            let mut rng = fastrand::Rng::with_seed(7);
            let mut picks = [0u32; 3];
            for _ in 0..100_000 {
                picks[least.choose_by_wait(rng.u64(..), timed(&loads))] += 1;
            }
            picks
        };
        for (count, expected) in picks([(0, 1000.0); 3]).into_iter().zip([60_000, 30_000, 10_000]) {
            assert!(count.abs_diff(expected) < 900, "{count} of {expected}");
        }
        assert_eq!(picks([(6, 1000.0), (3, 1000.0), (2, 1000.0)])[2], 0, "it has one too many");
        assert_eq!(picks([(0, 1000.0), (0, 1000.0), (0, 2000.0)])[2], 0, "it takes longer");
        assert_eq!(picks([(6, 1000.0), (3, 1000.0), (0, 5000.0)])[2], 0, "it is slow, though idle");
    }

    #[test]
    fn idle_endpoints_are_used_in_proportion_to_their_weights() {
        let picks = picks(&LeastRequest::new(&[6, 3, 1]), 3, 100_000, frozen(|_| 0));
        for (count, expected) in picks.into_iter().zip([60_000, 30_000, 10_000]) {
            assert!(count.abs_diff(expected) < 900, "{count} of {expected}");
        }
    }

    #[test]
    fn held_requests_settle_in_proportion_to_the_weights() {
        let weights = [8, 4, 1, 1, 1, 1];
        let least = LeastRequest::new(&weights);
        let mut rng = fastrand::Rng::with_seed(5);
        let mut loads = [0usize; 6];
        for _ in 0..16_000 {
            let choice = least.choose(rng.u64(..), frozen(|index| loads[index]));
            loads[choice] += 1;
        }
        for (load, weight) in loads.into_iter().zip(weights) {
            assert!(load.abs_diff(weight as usize * 1000) < 150, "{loads:?}");
        }
    }
}

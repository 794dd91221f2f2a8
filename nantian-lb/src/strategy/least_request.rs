//! The less loaded of two.

use super::index;
use super::lottery::Lottery;
use crate::hash::remix;

/// How often a second draw that hit the first one's index is repeated before the next index is taken.
const REDRAWS: u32 = 3;

/// Chooses the less loaded of two distinct indices that are drawn at random ("power of two choices").
///
/// With weights, each is drawn in proportion to its weight and its load is divided by it. Of equal loads the first drawn is
/// taken, so that an idle set is used in proportion to the weights.
#[derive(Debug)]
pub(crate) enum LeastRequest {
    /// Equal weights: any two of n.
    Even(usize),
    /// Unequal weights.
    Weighted { lottery: Lottery, weights: Box<[u32]> },
}

// === impl LeastRequest ===

impl LeastRequest {
    pub(crate) fn new(weights: &[u32]) -> Self {
        match Lottery::new(weights) {
            Lottery::Even(n) => Self::Even(n),
            lottery @ Lottery::Weighted(_) => Self::Weighted { lottery, weights: weights.into() },
        }
    }

    pub(crate) fn choose(&self, random: u64, load: impl Fn(usize) -> usize) -> usize {
        let (first, second) = self.pair(random);
        let is_less = match self {
            Self::Even(_) => load(second) < load(first),
            Self::Weighted { .. } => {
                let scaled = |index, other| load(index) as u128 * u128::from(self.weight(other));
                scaled(second, first) < scaled(first, second)
            }
        };
        if is_less { second } else { first }
    }

    /// Chooses by any cost, which is divided by the weight; of equal costs the first drawn.
    pub(crate) fn choose_by_cost(&self, random: u64, cost: impl Fn(usize) -> f32) -> usize {
        let (first, second) = self.pair(random);
        let scaled = |index, other| cost(index) * self.weight(other) as f32;
        if scaled(second, first) < scaled(first, second) { second } else { first }
    }

    fn pair(&self, random: u64) -> (usize, usize) {
        match self {
            Self::Even(n) => distinct_pair(random, *n),
            Self::Weighted { lottery, weights } => weighted_pair(random, lottery, weights.len()),
        }
    }

    fn weight(&self, index: usize) -> u32 {
        match self {
            Self::Even(_) => 1,
            Self::Weighted { weights, .. } => weights.get(index).copied().unwrap_or(1),
        }
    }
}

/// Two distinct indices below `n`, every ordered pair as likely as any other; the same index twice if there is but one.
fn distinct_pair(random: u64, n: usize) -> (usize, usize) {
    let n = n as u64;
    let first = ((random >> 32) * n) >> 32;
    let second = ((random & 0xffff_ffff) * n.saturating_sub(1)) >> 32;
    let second = if second >= first && n > 1 { second + 1 } else { second };
    (index(first), index(second))
}

fn weighted_pair(random: u64, lottery: &Lottery, n: usize) -> (usize, usize) {
    let first = lottery.draw(random);
    let mut random = random;
    for _ in 0..=REDRAWS {
        random = remix(random);
        let second = lottery.draw(random);
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

    fn picks(least: &LeastRequest, n: usize, rounds: u32, load: impl Fn(usize) -> usize) -> Vec<u32> {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut picks = vec![0; n];
        for _ in 0..rounds {
            picks[least.choose(rng.u64(..), &load)] += 1;
        }
        picks
    }

    proptest! {
        #[test]
        fn the_two_choices_are_distinct(random: u64, n in 2usize..2000, heavy in 2u32..) {
            let (first, second) = distinct_pair(random, n);
            prop_assert!(first < n && second < n && first != second);
            let mut weights = vec![1; n];
            weights[0] = heavy;
            let (first, second) = weighted_pair(random, &Lottery::new(&weights), n);
            prop_assert!(first < n && second < n && first != second);
        }
    }

    #[test]
    fn one_endpoint_is_always_chosen() {
        assert_eq!(picks(&LeastRequest::new(&[3]), 1, 100, |_| 9), [100]);
    }

    #[test]
    fn frozen_loads_are_picked_by_rank_and_the_most_loaded_never() {
        const N: usize = 6;
        const ROUNDS: u32 = 300_000;
        let picks = picks(&LeastRequest::new(&[1; N]), N, ROUNDS, |index| index);
        for (rank, &count) in picks.iter().enumerate() {
            let share = 2.0 * (N - 1 - rank) as f64 / (N * (N - 1)) as f64;
            let expected = share * f64::from(ROUNDS);
            let sigma = (expected * (1.0 - share)).sqrt();
            assert!((f64::from(count) - expected).abs() <= 4.9 * sigma, "{picks:?}");
        }
        assert_eq!(picks[N - 1], 0);
    }

    #[test]
    fn held_requests_stay_balanced_within_the_bound_of_two_choices() {
        for n in [2, 10, 100] {
            let least = LeastRequest::new(&vec![1; n]);
            let mut rng = fastrand::Rng::with_seed(3);
            let mut loads = vec![0usize; n];
            for _ in 0..n * 200 {
                let choice = least.choose(rng.u64(..), |index| loads[index]);
                loads[choice] += 1;
            }
            let gap = *loads.iter().max().unwrap() as f64 - 200.0;
            let bound = (n as f64).ln().ln().max(0.0) / std::f64::consts::LN_2 + 4.0;
            assert!(gap <= bound, "n {n}: {gap} above {bound}");
        }
    }

    #[test]
    fn idle_endpoints_are_used_in_proportion_to_their_weights() {
        let picks = picks(&LeastRequest::new(&[6, 3, 1]), 3, 100_000, |_| 0);
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
            let choice = least.choose(rng.u64(..), |index| loads[index]);
            loads[choice] += 1;
        }
        for (load, weight) in loads.into_iter().zip(weights) {
            assert!(load.abs_diff(weight as usize * 1000) < 150, "{loads:?}");
        }
    }
}

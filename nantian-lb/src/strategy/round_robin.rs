//! Turns by ticket: the place of a pick in the round depends on its number alone, so that picks share nothing but a counter.

use super::{are_equal, gcd64, index, reduced};

/// The longest round that is written out.
const MAX_SEQUENCE: u64 = 4096;
/// The most work, in steps, that writing out a round may take.
const MAX_STEPS: u64 = 1 << 20;
/// 2^32 divided by the golden ratio.
const GOLDEN: u64 = 2_654_435_769;

/// Gives each index its turns: any number of rounds gives each exactly its share.
#[derive(Debug)]
pub(crate) enum RoundRobin {
    /// Equal weights: one turn a round.
    Even(u64),
    /// Small weights: a round written out, with the turns of each index spread smoothly over it.
    Sequence(Box<[u32]>),
    /// Large weights.
    Stride(Stride),
}

/// A round too long to write out.
///
/// The indices are laid on a circle, each as long as its weight. The ticket walks it in steps of about the golden section, which
/// spreads any run of tickets evenly; as the step shares no factor with the length, a round visits every point once.
#[derive(Debug)]
pub(crate) struct Stride {
    /// Where each index ends on the circle, in ascending order.
    ends: Box<[u32]>,
    length: u64,
    step: u64,
}

// === impl RoundRobin ===

impl RoundRobin {
    pub(crate) fn new(weights: &[u32]) -> Self {
        if are_equal(weights) {
            return Self::Even(weights.len() as u64);
        }
        let (weights, sum) = reduced(weights);
        if sum <= MAX_SEQUENCE && sum * weights.len() as u64 <= MAX_STEPS {
            Self::Sequence(smooth_sequence(&weights, sum))
        } else {
            Self::Stride(Stride::new(&weights, sum))
        }
    }

    /// The index whose turn it is at this ticket.
    pub(crate) fn at(&self, ticket: u64) -> usize {
        match self {
            Self::Even(n) => index(ticket.checked_rem(*n).unwrap_or(0)),
            Self::Sequence(sequence) => {
                let place = ticket.checked_rem(sequence.len() as u64).unwrap_or(0);
                sequence.get(index(place)).map_or(0, |&turn| index(u64::from(turn)))
            }
            Self::Stride(stride) => stride.at(ticket),
        }
    }
}

/// One round of smooth weighted round robin: at each turn every index gains its weight, and the richest pays for the turn.
fn smooth_sequence(weights: &[u32], sum: u64) -> Box<[u32]> {
    let mut credits = vec![0i64; weights.len()];
    (0..sum)
        .map(|_| {
            let mut turn = 0;
            let mut most = i64::MIN;
            for ((at, credit), &weight) in (0..).zip(&mut credits).zip(weights) {
                *credit += i64::from(weight);
                if *credit > most {
                    (turn, most) = (at, *credit);
                }
            }
            if let Some(credit) = credits.get_mut(index(u64::from(turn))) {
                *credit = credit.saturating_sub_unsigned(sum);
            }
            turn
        })
        .collect()
}

// === impl Stride ===

impl Stride {
    fn new(weights: &[u32], sum: u64) -> Self {
        // The circle must be shorter than 2^32; beyond, weights lose their lowest bits.
        let excess = (u64::BITS - sum.leading_zeros()).saturating_sub(31);
        let mut length = 0u32;
        let ends = weights
            .iter()
            .map(|weight| {
                length = length.saturating_add((weight >> excess).max(1));
                length
            })
            .collect();
        let length = u64::from(length);
        Self { ends, length, step: coprime_step(length) }
    }

    fn at(&self, ticket: u64) -> usize {
        let point = ticket % self.length * self.step % self.length;
        self.ends.partition_point(|&end| u64::from(end) <= point)
    }
}

/// The step nearest to the golden section of `length` that shares no factor with it.
fn coprime_step(length: u64) -> u64 {
    let golden = (length * GOLDEN) >> 32;
    (0..golden)
        .flat_map(|distance| [golden - distance, golden + distance])
        .find(|&step| gcd64(length, step) == 1)
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turns(weights: &[u32], tickets: impl Iterator<Item = u64>) -> Vec<u64> {
        let round = RoundRobin::new(weights);
        let mut turns = vec![0; weights.len()];
        for ticket in tickets {
            turns[round.at(ticket)] += 1;
        }
        turns
    }

    #[test]
    fn small_weights_are_interleaved_smoothly() {
        let round = RoundRobin::new(&[5, 1, 1]);
        let names: String = (0..7).map(|ticket| ['a', 'b', 'c'][round.at(ticket)]).collect();
        assert_eq!(names, "aabacaa");
    }

    #[test]
    fn equal_weights_take_turns_however_large() {
        let round = RoundRobin::new(&[u32::MAX; 3]);
        let order: Vec<_> = (0..6).map(|ticket| round.at(ticket)).collect();
        assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_long_round_gives_each_exactly_its_weight() {
        let weights = [10_007, 1, 500, 29_000];
        assert!(matches!(RoundRobin::new(&weights), RoundRobin::Stride(_)));
        let expected: Vec<_> = weights.iter().copied().map(u64::from).collect();
        assert_eq!(turns(&weights, 77..77 + expected.iter().sum::<u64>()), expected);
    }

    #[test]
    fn the_largest_weights_share_without_overflow() {
        let weights = [u32::MAX, u32::MAX - 1, 1, u32::MAX / 2];
        let turns = turns(&weights, 0..10_000);
        for (turns, expected) in turns.into_iter().zip([4000u64, 4000, 0, 2000]) {
            assert!(turns.abs_diff(expected) <= 10, "{turns} of {expected}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_round_gives_each_its_weight(weights in prop::collection::vec(1u32..40, 1..20), start in 0u64..1_000_000) {
            let (reduced, sum) = reduced(&weights);
            let expected: Vec<_> = reduced.into_iter().map(u64::from).collect();
            prop_assert_eq!(turns(&weights, start..start + sum), expected);
        }

        #[test]
        fn no_one_waits_for_two_of_its_periods(weights in prop::collection::vec(1u32..40, 2..20)) {
            let round = RoundRobin::new(&weights);
            let (reduced, sum) = reduced(&weights);
            for (at, weight) in reduced.into_iter().enumerate() {
                let mine: Vec<_> = (0..2 * sum).filter(|&ticket| round.at(ticket) == at).collect();
                let gap = mine.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
                prop_assert!(gap * u64::from(weight) <= 2 * sum, "gap {gap} at weight {weight} of {sum}");
            }
        }

        #[test]
        fn any_run_of_a_long_round_is_close_to_the_shares(
            weights in prop::collection::vec(1u32..1_000_000, 2..50),
            start: u32,
            run in 1u64..2000,
        ) {
            let sum: u64 = weights.iter().copied().map(u64::from).sum();
            let start = u64::from(start);
            for (turns, weight) in turns(&weights, start..start + run).into_iter().zip(weights) {
                let expected = run * u64::from(weight) / sum;
                prop_assert!(turns.abs_diff(expected) <= 8, "{turns} of {expected}");
            }
        }
    }
}

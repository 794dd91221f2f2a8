//! Turns by ticket: the place of a pick in the round depends on its number alone, so that picks share nothing
//! but a counter.

use std::sync::Arc;

use super::even_round::even_round;
use super::{are_equal, index, reduced};

/// Arcs of the circle for each index in the mean.
const ARCS_OF_EACH: usize = 4;
/// The longest round that is written out.
const MAX_SEQUENCE: u64 = 4096;
/// The points of the circle that stands for a longer round.
const CIRCLE: u64 = 1 << 32;
/// The circle divided by the golden ratio: odd, so that it shares no factor with the circle.
const GOLDEN: u64 = 2_654_435_769;

/// Gives each index its turns: any number of rounds gives each exactly its share. Clones share the tables.
#[derive(Debug, Clone)]
pub(crate) enum RoundRobin {
    /// Equal weights: one turn a round.
    Even(u64),
    /// Small weights: a round written out, with the turns of each index spread smoothly over it.
    Sequence(Arc<[u32]>),
    /// Large weights.
    Stride(Stride),
}

/// A round too long to write out.
///
/// The indices lie on a circle of 2^32 points, each as long as its share. The ticket walks the circle in
/// steps of its golden section, which spreads any run of tickets evenly (the three-distance theorem) and
/// visits every point once in 2^32 tickets.
#[derive(Debug, Clone)]
pub(crate) struct Stride {
    /// Where each index ends on the circle, in ascending order; the last one ends where the circle does.
    ends: Arc<[u64]>,
    /// For each of 2^k equal arcs the first index that reaches into it.
    guide: Arc<[u32]>,
    /// 32 - k: the points of an arc, as a power of two.
    arc: u32,
}

// === impl RoundRobin ===

impl RoundRobin {
    pub(crate) fn new(weights: &[u32]) -> Self {
        if are_equal(weights) {
            return Self::Even(weights.len() as u64);
        }
        let (weights, sum) = reduced(weights);
        if sum <= MAX_SEQUENCE {
            Self::Sequence(even_round(&weights, sum).into())
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

// === impl Stride ===

impl Stride {
    fn new(weights: &[u32], sum: u64) -> Self {
        let mut before = 0u128;
        let ends: Arc<[_]> = weights
            .iter()
            .map(|&weight| {
                before += u128::from(weight);
                u64::try_from((before << 32) / u128::from(sum)).unwrap_or(CIRCLE)
            })
            .collect();
        let arcs = (weights.len() * ARCS_OF_EACH).next_power_of_two() as u64;
        let first_in = |arc| ends.partition_point(|&end| end <= arc * (CIRCLE / arcs));
        let guide = (0..arcs).map(|arc| u32::try_from(first_in(arc)).unwrap_or(u32::MAX)).collect();
        Self { guide, arc: 32 - arcs.ilog2(), ends }
    }

    fn at(&self, ticket: u64) -> usize {
        let point = ticket.wrapping_mul(GOLDEN) % CIRCLE;
        let first = self.guide.get(index(point >> self.arc)).map_or(0, |&first| index(u64::from(first)));
        let is_before = |at: usize| self.ends.get(at).is_some_and(|&end| end <= point);
        // Hardly ever more than one index ends in an arc, so this is an addition and no branch to guess.
        let mut at = first + usize::from(is_before(first));
        while is_before(at) {
            at += 1;
        }
        at
    }
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
    fn equal_weights_take_turns_however_large() {
        let round = RoundRobin::new(&[u32::MAX; 3]);
        let order: Vec<_> = (0..6).map(|ticket| round.at(ticket)).collect();
        assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    }

    /// P1, for long rounds: over its generation of 2^32 tickets, which visits every point once, each has its
    /// share exactly.
    #[test]
    fn on_the_circle_each_has_its_share_to_a_point() {
        let weights = [10_007, 1, 500, 29_000];
        let sum = weights.iter().copied().map(u64::from).sum();
        let stride = Stride::new(&weights, sum);
        let starts = [0].into_iter().chain(stride.ends.iter().copied());
        for ((start, end), weight) in starts.zip(&*stride.ends).zip(weights) {
            assert!((end - start).abs_diff(u64::from(weight) * CIRCLE / sum) <= 1);
        }
        assert_eq!(stride.ends.last(), Some(&CIRCLE));
        assert_eq!(GOLDEN % 2, 1, "a step without a common factor visits every point");
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

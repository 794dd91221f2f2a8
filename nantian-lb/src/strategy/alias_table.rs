//! Weighted random draws in constant time.

use std::sync::Arc;

use super::{are_equal, index, scale};

/// Draws an index with probability in proportion to its weight, by Walker's alias method.
///
/// Clones share the table.
#[derive(Debug, Clone)]
pub(crate) enum AliasTable {
    /// Equal weights: any of n.
    Even(usize),
    /// One slot a weight.
    Weighted(Arc<[AliasSlot]>),
}

/// One of n equal parts of the probability: the index of its own place up to the threshold, another index
/// beyond.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AliasSlot {
    /// Share of the part, in 1/2^32.
    threshold: u64,
    other: u32,
}

const WHOLE: u64 = 1 << 32;

// === impl AliasTable ===

impl AliasTable {
    pub(crate) fn new(weights: &[u32]) -> Self {
        if are_equal(weights) { Self::Even(weights.len()) } else { Self::Weighted(slots(weights)) }
    }

    pub(crate) fn draw(&self, random: u64) -> usize {
        match self {
            Self::Even(n) => scale(random, *n),
            Self::Weighted(slots) => {
                let own = scale(random, slots.len());
                match slots.get(own) {
                    Some(slot) if random % WHOLE >= slot.threshold => index(u64::from(slot.other)),
                    _ => own,
                }
            }
        }
    }
}

/// Pairs each weight below the mean with one above it, which fills up the part (Vose's construction, in
/// integers).
fn slots(weights: &[u32]) -> Arc<[AliasSlot]> {
    let n = weights.len() as u128;
    let mean = weights.iter().copied().map(u128::from).sum::<u128>();
    let mut slots = vec![AliasSlot { threshold: WHOLE, other: 0 }; weights.len()];
    // Weights are scaled by n so that their mean is their sum, exactly.
    let (mut small, mut large): (Vec<_>, Vec<_>) = (0u32..)
        .zip(weights.iter().map(|&weight| u128::from(weight) * n))
        .partition(|&(_, weight)| weight < mean);
    while let Some((low, need)) = small.pop() {
        let Some((high, wealth)) = large.pop() else {
            break;
        };
        if let Some(slot) = slots.get_mut(index(u64::from(low))) {
            let threshold = need * u128::from(WHOLE) / mean;
            *slot = AliasSlot { threshold: u64::try_from(threshold).unwrap_or(WHOLE), other: high };
        }
        let rest = wealth - (mean - need);
        if rest < mean {
            small.push((high, rest));
        } else {
            large.push((high, rest));
        }
    }
    slots.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The exact probability of each index, in 1/(n * 2^32).
    fn odds(weights: &[u32]) -> Vec<u64> {
        let mut odds = vec![0; weights.len()];
        for (own, slot) in slots(weights).iter().enumerate() {
            odds[own] += slot.threshold;
            odds[slot.other as usize] += WHOLE - slot.threshold;
        }
        odds
    }

    proptest! {
        #[test]
        fn every_weight_has_its_share_of_the_odds(weights in prop::collection::vec(1u32.., 1..40)) {
            let sum: u128 = weights.iter().copied().map(u128::from).sum();
            let n = weights.len() as u128;
            for (odds, &weight) in odds(&weights).into_iter().zip(&weights) {
                let exact = u128::from(weight) * n * u128::from(WHOLE) / sum;
                prop_assert!(u128::from(odds).abs_diff(exact) <= n, "{odds} of {exact}");
            }
        }
    }

    #[test]
    fn equal_weights_are_drawn_evenly() {
        let alias_table = AliasTable::new(&[7; 5]);
        let mut drawn = [0u32; 5];
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..100_000 {
            drawn[alias_table.draw(rng.u64(..))] += 1;
        }
        assert!(drawn.iter().all(|count| count.abs_diff(20_000) < 620), "{drawn:?}");
    }
}

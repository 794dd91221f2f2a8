//! Consistent hashing by Maglev tables (Eisenbud et al., NSDI 2016), with weights.

use std::cmp::Reverse;

use super::index;
use crate::hash::Place;

/// Slots of the usual table, a prime: an even share to within 1 % for up to 655 endpoints.
const SLOTS: u32 = 65_537;
/// Slots of the table for very many endpoints, a prime.
const MANY_SLOTS: u32 = 655_373;
/// From how many endpoints on the large table is used: ten slots each is the least that spreads them.
const MANY: usize = 6_554;

/// Maps a hash to an index so that a change of the set moves few hashes that it need not move.
#[derive(Debug)]
pub(crate) enum Maglev {
    /// The usual table: 128 KiB.
    Usual(Box<[u16]>),
    /// The table for very many endpoints.
    Large(Box<[u32]>),
}

/// An endpoint that is filling its slots.
struct Filler {
    /// Its place in the set.
    owner: u32,
    /// The slot that it wants next.
    wanted: u32,
    skip: u32,
    /// How many slots it is to have.
    quota: u32,
    /// Its share beyond the quota, in slots divided by the sum of all weights, and a number to decide between equals.
    remainder: (u64, u64),
}

/// The slots that nobody owns yet, a bit each: small enough to stay in the nearest cache, where the filling spends its time.
struct FreeSlots {
    words: Vec<u64>,
}

// === impl Maglev ===

impl Maglev {
    /// Builds the table. The order of the shares decides the numbering of the owners and nothing else.
    pub(crate) fn new(shares: &[(&str, u32)]) -> Self {
        if shares.len() < MANY {
            let owners = fill(shares, SLOTS).into_iter();
            Self::Usual(owners.map(|owner| u16::try_from(owner).unwrap_or(0)).collect())
        } else {
            Self::Large(fill(shares, MANY_SLOTS).into())
        }
    }

    /// The owner of a hash.
    pub(crate) fn at(&self, hash: u64) -> usize {
        match self {
            Self::Usual(owners) => {
                let slot = index(hash % u64::from(SLOTS));
                owners.get(slot).map_or(0, |&owner| usize::from(owner))
            }
            Self::Large(owners) => {
                let slot = index(hash % u64::from(MANY_SLOTS));
                owners.get(slot).map_or(0, |&owner| index(u64::from(owner)))
            }
        }
    }
}

// === impl Filler ===

impl Filler {
    fn new((owner, (id, weight)): (u32, &(&str, u32)), sum: u64, slots: u32) -> Self {
        let place = Place::of(id);
        let share = u128::from(*weight) * u128::from(slots);
        let sum = u128::from(sum);
        Self {
            owner,
            wanted: below(place.offset, slots),
            skip: below(place.skip, slots - 1) + 1,
            quota: u32::try_from(share / sum).unwrap_or(slots).max(1),
            remainder: (u64::try_from(share % sum).unwrap_or(0), place.rank),
        }
    }

    /// The rounds of `rounds` in which it takes a slot: `quota` of them, evenly spaced from the first on.
    fn turns(&self, rounds: u32) -> impl Iterator<Item = u32> {
        let (step, rest) = (rounds / self.quota, rounds % self.quota);
        let (quota, mut round, mut fraction) = (self.quota, 0, 0);
        (0..quota).map(move |_| {
            let turn = round;
            round += step;
            fraction += rest;
            if fraction >= quota {
                fraction -= quota;
                round += 1;
            }
            turn
        })
    }

    /// Takes the slot that it likes best of those that are free.
    fn take_slot(&mut self, free: &mut FreeSlots, slots: u32) -> usize {
        loop {
            let wanted = index(u64::from(self.wanted));
            self.wanted += self.skip;
            if self.wanted >= slots {
                self.wanted -= slots;
            }
            if free.take(wanted) {
                return wanted;
            }
        }
    }
}

// === impl FreeSlots ===

impl FreeSlots {
    fn new(slots: usize) -> Self {
        Self { words: vec![u64::MAX; slots.div_ceil(64)] }
    }

    /// Whether the slot was free until now.
    fn take(&mut self, slot: usize) -> bool {
        let bit = 1 << (slot % 64);
        match self.words.get_mut(slot / 64) {
            Some(word) if *word & bit != 0 => {
                *word ^= bit;
                true
            }
            _ => false,
        }
    }
}

/// Lets the endpoints take slots in turns, each by its own order of preference, until each has its quota.
///
/// The work is in proportion to the table and the endpoints, whatever the weights.
fn fill(shares: &[(&str, u32)], slots: u32) -> Vec<u32> {
    let mut fillers = fillers(shares, slots);
    let mut owners = vec![0; index(u64::from(slots))];
    let mut free = FreeSlots::new(owners.len());
    for position in turns(&fillers) {
        let Some(filler) = fillers.get_mut(index(u64::from(position))) else { continue };
        if let Some(owner) = owners.get_mut(filler.take_slot(&mut free, slots)) {
            *owner = filler.owner;
        }
    }
    owners
}

/// Whose turn it is, slot after slot: round by round, of which there are as many as the largest quota, and within a round
/// in the order of the fillers.
fn turns(fillers: &[Filler]) -> Vec<u32> {
    let rounds = fillers.iter().map(|filler| filler.quota).max().unwrap_or(0);
    // A counting sort: where the turns of each round begin, then each turn in its place.
    let mut next = vec![0_u32; index(u64::from(rounds)) + 1];
    for round in fillers.iter().flat_map(|filler| filler.turns(rounds)) {
        if let Some(count) = next.get_mut(index(u64::from(round)) + 1) {
            *count += 1;
        }
    }
    let mut before = 0;
    for begin in &mut next {
        before += *begin;
        *begin = before;
    }
    let mut turns = vec![0; index(u64::from(before))];
    for (position, filler) in (0..).zip(fillers) {
        for round in filler.turns(rounds) {
            let Some(begin) = next.get_mut(index(u64::from(round))) else { continue };
            if let Some(turn) = turns.get_mut(index(u64::from(*begin))) {
                *turn = position;
            }
            *begin += 1;
        }
    }
    turns
}

/// The endpoints with their quotas, which add up to `slots`, in an order that does not depend on that of the shares.
fn fillers(shares: &[(&str, u32)], slots: u32) -> Vec<Filler> {
    let sum = shares.iter().map(|&(_, weight)| u64::from(weight)).sum();
    let mut fillers: Vec<_> = (0..).zip(shares).map(|share| Filler::new(share, sum, slots)).collect();
    fillers.sort_unstable_by_key(|filler| Reverse(filler.remainder));
    fillers.truncate(index(u64::from(slots)));

    let given: u32 = fillers.iter().map(|filler| filler.quota).sum();
    for filler in fillers.iter_mut().take(index(u64::from(slots.saturating_sub(given)))) {
        filler.quota += 1;
    }
    take_back(&mut fillers, given.saturating_sub(slots));
    fillers
}

/// Takes `excess` slots back, evenly from all that have more than one: for those whose share is less than the one slot that
/// they have.
fn take_back(fillers: &mut [Filler], mut excess: u32) {
    while excess > 0 {
        let donors = fillers.iter().filter(|filler| filler.quota > 1).count();
        let Ok(donors) = u32::try_from(donors) else { return };
        // After a round less than half is left, or less than half of the donors: there are few rounds.
        let Some(each) = excess.checked_div(donors).map(|each| each.max(1)) else { return };
        for filler in fillers.iter_mut().filter(|filler| filler.quota > 1) {
            let taken = each.min(filler.quota - 1).min(excess);
            filler.quota -= taken;
            excess -= taken;
        }
    }
}

/// Maps a hash to a number below `n`.
fn below(hash: u64, n: u32) -> u32 {
    u32::try_from(hash % u64::from(n)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pods(weights: impl IntoIterator<Item = u32>) -> Vec<(String, u32)> {
        let name = |(at, weight): (usize, u32)| (format!("shop/pod-{at}"), weight);
        weights.into_iter().enumerate().map(name).collect()
    }

    /// The owner of each slot by name.
    fn owners(pods: &[(String, u32)], slots: u32) -> Vec<&str> {
        let shares: Vec<_> = pods.iter().map(|(id, weight)| (id.as_str(), *weight)).collect();
        let owners = fill(&shares, slots).into_iter();
        owners.map(|owner| shares[owner as usize].0).collect()
    }

    /// The number of slots of each, in the order of the pods.
    fn quotas(pods: &[(String, u32)], slots: u32) -> Vec<u64> {
        let owners = owners(pods, slots);
        let count = |id: &str| owners.iter().filter(|&&owner| owner == id).count() as u64;
        pods.iter().map(|(id, _)| count(id)).collect()
    }

    /// The share, in 1/10 000, of slots that changed hands though neither owner came or went.
    fn needlessly_moved(before: &[(String, u32)], after: &[(String, u32)]) -> usize {
        let has = |pods: &[(String, u32)], owner: &str| pods.iter().any(|(id, _)| id == owner);
        let (old, new) = (owners(before, SLOTS), owners(after, SLOTS));
        let moved =
            old.iter().zip(&new).filter(|(old, new)| old != new && has(after, old) && has(before, new));
        moved.count() * 10_000 / SLOTS as usize
    }

    /// P3, of its first part.
    #[test]
    fn equal_endpoints_have_equal_shares_give_or_take_a_slot() {
        for n in [1, 2, 3, 10, 100, 655] {
            let quotas = quotas(&pods(vec![1; n]), SLOTS);
            let (least, most) = (quotas.iter().min().unwrap(), quotas.iter().max().unwrap());
            assert!(most - least <= 1, "n {n}: {least} to {most}");
        }
    }

    /// P3: of 10 000 keys at most 200 move between endpoints that stay; a new one has its share but for 200 at once.
    #[test]
    fn a_change_of_the_set_moves_hardly_a_key_that_it_need_not_move() {
        for n in [2, 10, 100, 655] {
            let many = pods(vec![1; n]);
            for gone in [0, n / 2, n - 1] {
                let mut fewer = many.clone();
                fewer.remove(gone);
                for (before, after) in [(&many, &fewer), (&fewer, &many)] {
                    let moved = needlessly_moved(before, after);
                    assert!(moved <= 200, "n {n}, {gone} gone: {moved} in 10 000");
                }
                let taken = quotas(&many, SLOTS)[gone] * 10_000 / u64::from(SLOTS);
                assert!(taken + 200 >= 10_000 / n as u64, "n {n}: {taken} in 10 000 move to the new one");
            }
        }
    }

    #[test]
    fn a_change_of_weight_moves_little_beyond_the_difference() {
        let before = pods([10, 10, 10, 10]);
        let after = pods([10, 10, 10, 5]);
        // 1/28 of all keys leave the endpoint for each of the others.
        let (old, new) = (owners(&before, SLOTS), owners(&after, SLOTS));
        let moved = old.iter().zip(&new).filter(|(old, new)| old != new).count();
        assert!(moved * 100 / SLOTS as usize <= 13, "{moved} of {SLOTS}");
    }

    #[test]
    fn the_least_endpoint_keeps_a_slot() {
        let mut weights = vec![1; 500];
        weights.extend([1_000_000, 999_999]);
        let quotas = quotas(&pods(weights), SLOTS);
        assert!(quotas[..500].iter().all(|&quota| quota == 1));
        assert_eq!(quotas.iter().sum::<u64>(), u64::from(SLOTS));
        assert!(quotas[500].abs_diff(quotas[501]) <= 1);
    }

    #[test]
    fn one_very_heavy_endpoint_costs_no_more_turns_than_equal_ones() {
        let mut weights = vec![1; 5_000];
        weights[17] = u32::MAX;
        let heavy = pods(weights);
        let shares: Vec<_> = heavy.iter().map(|(id, weight)| (id.as_str(), *weight)).collect();
        assert_eq!(turns(&fillers(&shares, SLOTS)).len(), SLOTS as usize);
        let quotas = quotas(&heavy, SLOTS);
        assert_eq!(quotas[17], u64::from(SLOTS) - 4_999);
        assert!(quotas.iter().all(|&quota| quota >= 1));
    }

    #[test]
    fn very_many_light_endpoints_beside_heavy_ones_are_filled_at_once() {
        let mut weights = vec![1; 200_000];
        weights.extend([u32::MAX, u32::MAX / 2, 7]);
        let pods = pods(weights);
        let shares: Vec<_> = pods.iter().map(|(id, weight)| (id.as_str(), *weight)).collect();
        assert_eq!(turns(&fillers(&shares, MANY_SLOTS)).len(), MANY_SLOTS as usize);
    }

    #[test]
    fn more_endpoints_than_slots_fill_the_table() {
        let quotas = quotas(&pods(vec![1; 120]), 101);
        assert_eq!(quotas.iter().filter(|&&quota| quota == 1).count(), 101);
    }

    #[test]
    fn very_many_endpoints_share_the_large_table() {
        let pods = pods(vec![1; MANY]);
        let shares: Vec<_> = pods.iter().map(|(id, weight)| (id.as_str(), *weight)).collect();
        let table = Maglev::new(&shares);
        assert!(matches!(&table, Maglev::Large(owners) if owners.len() == MANY_SLOTS as usize));
        assert!(table.at(u64::MAX) < MANY);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        /// P3: to within a slot while there are 100 slots for each endpoint.
        #[test]
        fn weighted_shares_are_exact_to_a_slot(weights in prop::collection::vec(1u32..1000, 1..60)) {
            let pods = pods(weights.clone());
            let sum: u64 = weights.iter().copied().map(u64::from).sum();
            for (quota, weight) in quotas(&pods, SLOTS).into_iter().zip(weights) {
                let exact = u64::from(weight) * u64::from(SLOTS) / sum;
                prop_assert!((exact..=exact + 1).contains(&quota), "{quota} for {exact}");
            }
        }

        #[test]
        fn turns_come_as_if_each_collected_its_quota_every_round_and_paid_the_largest_for_a_slot(
            quotas in prop::collection::vec(1u32..500, 1..40),
        ) {
            let filler = |&quota| Filler { quota, ..Filler::new((0, &("", 1)), 1, SLOTS) };
            let fillers: Vec<_> = quotas.iter().map(filler).collect();
            let price = *quotas.iter().max().unwrap();
            let mut credits = vec![price - 1; quotas.len()];
            let mut expected = Vec::new();
            for _ in 0..price {
                for (position, (credit, quota)) in (0..).zip(credits.iter_mut().zip(&quotas)) {
                    *credit += quota;
                    if *credit >= price {
                        *credit -= price;
                        expected.push(position);
                    }
                }
            }
            prop_assert_eq!(turns(&fillers), expected);
        }

        /// P3.
        #[test]
        fn the_order_of_the_endpoints_is_irrelevant(
            weights in prop::collection::vec(1u32..10, 1..40),
            seed: u64,
        ) {
            let pods = pods(weights);
            let mut shuffled = pods.clone();
            fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
            prop_assert!(owners(&pods, SLOTS) == owners(&shuffled, SLOTS));
        }
    }
}

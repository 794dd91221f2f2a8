//! Consistent hashing by Maglev tables (Eisenbud et al., NSDI 2016), with weights.

use std::cmp::Reverse;
use std::sync::Arc;

use super::index;
use crate::hash::Permutation;

/// Slots of the usual table, a prime: an even share to within 1 % for up to 655 endpoints.
const SLOTS: u32 = 65_537;
/// Slots of the table for very many endpoints, a prime.
const MANY_SLOTS: u32 = 655_373;
/// From how many endpoints on the large table is used: ten slots each is the least that spreads them.
const MANY: usize = 6_554;

/// Maps a hash to an index so that a change of the set moves few hashes that it need not move.
///
/// Clones share the table.
#[derive(Debug, Clone)]
pub(crate) enum Maglev {
    /// The usual table: 128 KiB.
    Usual(Arc<[u16]>),
    /// The table for very many endpoints.
    Large(Arc<[u32]>),
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
    /// Its share beyond the quota, in slots divided by the sum of all weights, and a number to decide between
    /// equals.
    remainder: (u64, u64),
}

/// The slots that nobody owns yet: a bit each, small enough to stay in the nearest cache, and a list of the
/// last few.
struct FreeSlots {
    words: Vec<u64>,
    left: usize,
    /// So many are few: to go through them is quicker than to look for one of them.
    few: usize,
    last: Vec<u32>,
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
        let place = Permutation::of(id);
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
    fn turns(&self, rounds: u32) -> impl Iterator<Item = u32> + use<> {
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
        if !free.last.is_empty() {
            let inverse = inverse(self.skip, slots);
            let steps_to = |slot| product(slot + slots - self.wanted, inverse, slots);
            self.wanted = free.take_last(steps_to);
        }
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
    fn new(slots: u32) -> Self {
        let left = index(u64::from(slots));
        let words = vec![u64::MAX; left.div_ceil(64)];
        Self { words, left, few: index(u64::from(slots.isqrt() / 2)), last: Vec::new() }
    }

    /// Whether the slot was free until now.
    fn take(&mut self, slot: usize) -> bool {
        let bit = 1 << (slot % 64);
        match self.words.get_mut(slot / 64) {
            Some(word) if *word & bit != 0 => {
                *word ^= bit;
                self.left -= 1;
                if self.left == self.few {
                    self.list_the_last();
                }
                true
            }
            _ => false,
        }
    }

    #[cold]
    fn list_the_last(&mut self) {
        let free = (0..).zip(&self.words).flat_map(|(at, word)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at * 64 + bit)
        });
        self.last = free.take(self.left).collect();
    }

    /// Strikes the slot with the fewest steps off the list.
    fn take_last(&mut self, steps_to: impl Fn(u32) -> u32) -> u32 {
        let steps = self.last.iter().map(|&slot| steps_to(slot)).enumerate();
        let nearest = steps.min_by_key(|&(_, steps)| steps).map_or(0, |(at, _)| at);
        self.last.swap_remove(nearest)
    }
}

/// What gives 1 if it is multiplied by a number below the prime `modulus` (Fermat's little theorem).
fn inverse(number: u32, modulus: u32) -> u32 {
    let (mut inverse, mut square, mut exponent) = (1, number, modulus - 2);
    while exponent > 0 {
        if exponent % 2 == 1 {
            inverse = product(inverse, square, modulus);
        }
        square = product(square, square, modulus);
        exponent /= 2;
    }
    inverse
}

fn product(a: u32, b: u32, modulus: u32) -> u32 {
    below(u64::from(a) * u64::from(b), modulus)
}

/// Lets the endpoints take slots in turns, each by its own order of preference, until each has its quota.
///
/// The work is in proportion to the table and the endpoints, whatever the weights.
fn fill(shares: &[(&str, u32)], slots: u32) -> Vec<u32> {
    let mut fillers = fillers(shares, slots);
    let mut owners = vec![0; index(u64::from(slots))];
    let mut free = FreeSlots::new(slots);
    let mut take = |filler: &mut Filler| {
        if let Some(owner) = owners.get_mut(filler.take_slot(&mut free, slots)) {
            *owner = filler.owner;
        }
    };
    let rounds = rounds(&fillers);
    if u64::from(rounds) * fillers.len() as u64 <= 2 * u64::from(slots) {
        // Nearly everybody has a turn in every round.
        let mut turns: Vec<_> = fillers.iter().map(|filler| filler.turns(rounds).peekable()).collect();
        for round in 0..rounds {
            for (filler, turns) in fillers.iter_mut().zip(&mut turns) {
                if turns.next_if_eq(&round).is_some() {
                    take(filler);
                }
            }
        }
    } else {
        for position in turns(&fillers, rounds) {
            if let Some(filler) = fillers.get_mut(index(u64::from(position))) {
                take(filler);
            }
        }
    }
    owners
}

/// As many rounds as the largest quota.
fn rounds(fillers: &[Filler]) -> u32 {
    fillers.iter().map(|filler| filler.quota).max().unwrap_or(0)
}

/// Whose turn it is, slot after slot: round by round, and within a round in the order of the fillers.
fn turns(fillers: &[Filler], rounds: u32) -> Vec<u32> {
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

/// The endpoints with their quotas, which add up to `slots`, in an order that does not depend on that of the
/// shares.
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

/// Takes `excess` slots back, evenly from all that have more than one: for those whose share is less than the
/// one slot that they have.
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
mod tests;

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
    /// Collects `quota` a round; a slot costs the largest quota.
    credit: u32,
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
            credit: 0,
        }
    }

    /// Takes the slot that it likes best of those that are free.
    fn take_slot(&mut self, owners: &mut [Option<u32>], slots: u32) {
        loop {
            let wanted = index(u64::from(self.wanted));
            self.wanted = (self.wanted + self.skip) % slots;
            if let Some(slot @ None) = owners.get_mut(wanted) {
                *slot = Some(self.owner);
                return;
            }
        }
    }
}

/// Lets the endpoints take slots in turns, each by its own order of preference, until each has its quota.
fn fill(shares: &[(&str, u32)], slots: u32) -> Vec<u32> {
    let mut fillers = fillers(shares, slots);
    let price = fillers.iter().map(|filler| filler.quota).max().unwrap_or(0);
    for filler in &mut fillers {
        filler.credit = price.saturating_sub(1);
    }
    let mut owners = vec![None; index(u64::from(slots))];
    for _ in 0..price {
        for filler in &mut fillers {
            filler.credit += filler.quota;
            if filler.credit >= price {
                filler.credit -= price;
                filler.take_slot(&mut owners, slots);
            }
        }
    }
    owners.into_iter().map(Option::unwrap_or_default).collect()
}

/// The endpoints with their quotas, which add up to `slots`, in an order that does not depend on that of the shares.
fn fillers(shares: &[(&str, u32)], slots: u32) -> Vec<Filler> {
    let sum = shares.iter().map(|&(_, weight)| u64::from(weight)).sum();
    let mut fillers: Vec<_> = (0..).zip(shares).map(|share| Filler::new(share, sum, slots)).collect();
    fillers.sort_unstable_by_key(|filler| Reverse(filler.remainder));
    fillers.truncate(index(u64::from(slots)));

    let mut given: u32 = fillers.iter().map(|filler| filler.quota).sum();
    for filler in fillers.iter_mut().take(index(u64::from(slots.saturating_sub(given)))) {
        filler.quota += 1;
        given += 1;
    }
    // Those whose share is less than the one slot that they have take it from the others.
    while given > slots {
        for filler in fillers.iter_mut().filter(|filler| filler.quota > 1) {
            if given > slots {
                filler.quota -= 1;
                given -= 1;
            }
        }
    }
    fillers
}

/// Maps a hash to a number below `n`.
fn below(hash: u64, n: u32) -> u32 {
    u32::try_from(hash % u64::from(n)).unwrap_or(0)
}

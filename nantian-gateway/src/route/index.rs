//! Many small tables by text in one flat table.

use std::{hash::BuildHasher, num::NonZeroU32};

use foldhash::fast::RandomState;

/// One of the tables in an [`Index`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct TableId(pub(super) u32);

/// Values by table and text, made once and then only read.
///
/// A search that finds something touches two cache lines, that of the slot and that of the text, and waits
/// only for the first: a value of up to 16 bytes lies in its slot. One that finds nothing touches the first
/// alone.
#[derive(Debug)]
pub(super) struct Index<V> {
    /// A power of two, at most half of them taken: every search ends at a free one.
    slots: Box<[Option<Slot<V>>]>,
    text: Box<str>,
    hasher: RandomState,
}

/// Half a cache line, so that none lies in two.
#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
struct Slot<V> {
    /// Not zero, so that a free slot takes no more room than a taken one.
    hash: NonZeroU32,
    space: TableId,
    start: u32,
    length: u32,
    value: V,
}

impl<V> Default for Index<V> {
    fn default() -> Self {
        Self { slots: Box::default(), text: Box::default(), hasher: RandomState::default() }
    }
}

impl<V: Copy> Index<V> {
    /// Makes the table; no text may come twice in one space.
    pub(super) fn new<'t>(entries: impl ExactSizeIterator<Item = (TableId, &'t str, V)>) -> Self {
        if entries.len() == 0 {
            return Self::default();
        }
        let mut slots = vec![None; (entries.len() * 2).next_power_of_two()];
        let mut text = String::new();
        let hasher = RandomState::default();
        for (space, key, value) in entries {
            let hash = hash(&hasher, space, key);
            let (start, length) = (narrow(text.len()), narrow(key.len()));
            text.push_str(key);
            let free = probes(hash, slots.len()).find(|at| slots.get(*at).is_some_and(Option::is_none));
            if let Some(slot) = free.and_then(|at| slots.get_mut(at)) {
                *slot = Some(Slot { hash, space, start, length, value });
            }
        }
        Self { slots: slots.into(), text: text.into(), hasher }
    }

    /// The value of `key` in `space`.
    pub(super) fn get(&self, space: TableId, key: &str) -> Option<&V> {
        let hash = hash(&self.hasher, space, key);
        for at in probes(hash, self.slots.len()) {
            let slot = self.slots.get(at)?.as_ref()?;
            if slot.hash == hash && slot.space == space && self.text_of(slot) == Some(key) {
                return Some(&slot.value);
            }
        }
        None
    }

    fn text_of(&self, slot: &Slot<V>) -> Option<&str> {
        let start = slot.start as usize;
        self.text.get(start..start + slot.length as usize)
    }
}

fn hash(hasher: &RandomState, space: TableId, key: &str) -> NonZeroU32 {
    let hash = hasher.hash_one((space, key));
    #[expect(clippy::cast_possible_truncation, reason = "both halves are in it")]
    let folded = (hash >> 32) as u32 ^ hash as u32;
    NonZeroU32::new(folded).unwrap_or(NonZeroU32::MIN)
}

/// The slots in which a hash may be, the likeliest first.
fn probes(hash: NonZeroU32, slots: usize) -> impl Iterator<Item = usize> {
    let mask = slots.wrapping_sub(1);
    (0..slots).map(move |step| (hash.get() as usize).wrapping_add(step) & mask)
}

/// A place in a table; memory ends before `u32` does.
pub(super) fn narrow(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_half_a_cache_line() {
        assert_eq!(size_of::<Option<Slot<[u32; 4]>>>(), 32);
    }

    #[test]
    fn texts_of_different_tables_are_apart() {
        let keys: Vec<String> = (0..1000).map(|number| format!("key-{number}")).collect();
        let all = || (0..3).flat_map(|space| keys.iter().map(move |key| (TableId(space), key.as_str())));
        let entries: Vec<_> =
            (0_usize..).zip(all()).map(|(value, (space, key))| (space, key, value)).collect();
        let index = Index::new(entries.into_iter());
        for (value, (space, key)) in (0..).zip(all()) {
            assert_eq!(index.get(space, key), Some(&value));
        }
        assert_eq!(index.get(TableId(3), "key-1"), None);
        assert_eq!(index.get(TableId(0), "key-1000"), None);
        assert_eq!(Index::<u32>::default().get(TableId(0), ""), None);
    }
}

//! Linear memory of all instances of an engine together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::MemoryOf;
use crate::sync::take;

/// Largest memory, in bytes, of an instance that finds room in the last quarter: a few guests that grow to
/// their limits do not keep all others from starting.
const SMALL: usize = 16 << 20;

/// How much linear memory there is, and how much of it is taken.
#[derive(Debug)]
pub(crate) struct LinearMemory {
    limit: usize,
    /// What the plugins of a [`SharedSpace`](crate::SharedSpace) have of it.
    limit_of_space: usize,
    taken: AtomicUsize,
}

/// What one instance has of it, until this is dropped.
#[derive(Debug)]
pub(crate) struct MemoryShare {
    memory: Arc<LinearMemory>,
    /// What all of its space have.
    of_space: Arc<AtomicUsize>,
    held: usize,
}

/// Which limit leaves no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shortage {
    /// In bytes.
    pub(crate) limit: usize,
    /// Who have so many together.
    pub(crate) of: MemoryOf,
}

// === impl LinearMemory ===

impl LinearMemory {
    /// So many bytes, and so many of them for one space.
    pub(crate) fn new(limit: usize, limit_of_space: usize) -> Arc<Self> {
        Arc::new(Self { limit, limit_of_space, taken: AtomicUsize::new(0) })
    }

    /// A share of nothing yet, for an instance in the space that has taken so much.
    pub(crate) fn begin(self: &Arc<Self>, of_space: &Arc<AtomicUsize>) -> MemoryShare {
        MemoryShare { memory: Arc::clone(self), of_space: Arc::clone(of_space), held: 0 }
    }

    /// Whether spaces have a part of it.
    pub(crate) fn is_divided(&self) -> bool {
        self.limit_of_space < self.limit
    }

    /// Whether a plugin, in the space that has taken so much, may have an instance of so many bytes beside
    /// another one like it: a third of what the space has is left, and room for one more like it.
    pub(crate) fn has_room_beside(&self, of_space: &AtomicUsize, bytes: usize) -> bool {
        let (own, most) = self.shared(of_space, bytes);
        let taken = self.taken.load(Ordering::Relaxed);
        own.saturating_add(bytes) <= most - most / 3
            && taken.saturating_add(bytes).saturating_add(bytes) <= self.most(bytes)
    }

    /// Whether the space that has taken so much has no room for another instance of so many bytes.
    pub(crate) fn is_crowded(&self, of_space: &AtomicUsize, bytes: usize) -> bool {
        let (own, most) = self.shared(of_space, bytes);
        own.saturating_add(bytes) > most
    }

    /// What is taken of the memory that plugins of this space share, and how much that is: all of it, unless
    /// spaces have a part.
    fn shared(&self, of_space: &AtomicUsize, bytes: usize) -> (usize, usize) {
        if self.is_divided() {
            (of_space.load(Ordering::Relaxed), self.limit_of_space)
        } else {
            (self.taken.load(Ordering::Relaxed), self.most(bytes))
        }
    }

    /// How much all may have together for one of them to have so many bytes.
    fn most(&self, bytes: usize) -> usize {
        if bytes > SMALL { self.limit - self.limit / 4 } else { self.limit }
    }
}

// === impl MemoryShare ===

impl MemoryShare {
    /// Lets a memory grow, if there is room.
    pub(crate) fn grow(&mut self, current: usize, desired: usize) -> Result<(), Shortage> {
        // The system may have refused what there was room for the last time.
        self.shrink(current);
        let LinearMemory { limit, limit_of_space, taken } = &*self.memory;
        let (more, most) = (desired.saturating_sub(self.held), self.memory.most(desired));
        if !take(&self.of_space, more, *limit_of_space) {
            return Err(Shortage { limit: *limit_of_space, of: MemoryOf::Space });
        }
        if !take(taken, more, most) {
            self.of_space.fetch_sub(more, Ordering::Relaxed);
            return Err(Shortage { limit: *limit, of: MemoryOf::Engine });
        }
        self.held = desired;
        Ok(())
    }

    fn shrink(&mut self, bytes: usize) {
        let less = self.held.saturating_sub(bytes);
        self.memory.taken.fetch_sub(less, Ordering::Relaxed);
        self.of_space.fetch_sub(less, Ordering::Relaxed);
        self.held -= less;
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A share of an instance in a space of its own.
    fn begin(memory: &Arc<LinearMemory>) -> MemoryShare {
        memory.begin(&Arc::default())
    }

    #[test]
    fn memory_is_free_again_when_its_share_is_dropped_or_it_has_not_grown_after_all() {
        let memory = LinearMemory::new(100, 100);
        let (mut one, mut other) = (begin(&memory), begin(&memory));
        assert!(one.grow(0, 60).is_ok() && other.grow(0, 41).is_err() && other.grow(0, 40).is_ok());
        assert!(one.grow(60, 61).is_err(), "there is no more");
        drop(other);
        assert!(one.grow(60, 100).is_ok() && one.grow(60, 61).is_ok());
        assert_eq!(memory.taken.load(Ordering::Relaxed), 61);
        drop(one);
        assert_eq!(memory.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn last_quarter_is_for_small_instances() {
        let memory = LinearMemory::new(SMALL * 4, SMALL * 4);
        let mut large = begin(&memory);
        assert!(large.grow(0, SMALL * 3).is_ok() && large.grow(SMALL * 3, SMALL * 3 + 1).is_err());
        let (mut small, mut another) = (begin(&memory), begin(&memory));
        assert!(small.grow(0, SMALL + 1).is_err() && small.grow(0, SMALL).is_ok());
        assert!(another.grow(0, 1).is_err());
    }

    #[test]
    fn one_more_of_a_plugin_leaves_a_third_of_its_space_and_room_for_one_like_it() {
        let (memory, space) = (LinearMemory::new(90, 60), Arc::new(AtomicUsize::new(0)));
        let (mut one, mut other) = (memory.begin(&space), begin(&memory));
        assert!(one.grow(0, 30).is_ok());
        assert!(memory.has_room_beside(&space, 10) && !memory.has_room_beside(&space, 11));
        assert!(!memory.is_crowded(&space, 30) && memory.is_crowded(&space, 31));
        assert!(other.grow(0, 44).is_ok());
        assert!(memory.has_room_beside(&space, 8) && !memory.has_room_beside(&space, 9));
    }

    #[test]
    fn plugins_share_all_memory_where_spaces_have_no_part() {
        let (memory, space) = (LinearMemory::new(90, usize::MAX), AtomicUsize::new(0));
        let mut other = begin(&memory);
        assert!(other.grow(0, 40).is_ok());
        assert!(memory.has_room_beside(&space, 20) && !memory.has_room_beside(&space, 21));
        assert!(!memory.is_crowded(&space, 50) && memory.is_crowded(&space, 51));
    }

    #[test]
    fn space_has_no_more_than_its_part_and_what_it_does_not_get_is_not_counted() {
        let (memory, space) = (LinearMemory::new(100, 60), Arc::new(AtomicUsize::new(0)));
        let (mut one, mut two, mut other) = (memory.begin(&space), memory.begin(&space), begin(&memory));
        assert!(one.grow(0, 50).is_ok());
        assert_eq!(two.grow(0, 11), Err(Shortage { limit: 60, of: MemoryOf::Space }));
        assert!(other.grow(0, 45).is_ok());
        assert_eq!(two.grow(0, 6), Err(Shortage { limit: 100, of: MemoryOf::Engine }));
        assert_eq!(space.load(Ordering::Relaxed), 50);
        drop((one, other));
        assert!(two.grow(0, 60).is_ok());
        drop(two);
        assert_eq!((space.load(Ordering::Relaxed), memory.taken.load(Ordering::Relaxed)), (0, 0));
    }
}

//! Linear memory of all instances of an engine together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::sync::take;

/// Largest memory, in bytes, of an instance that finds room in the last quarter: a few guests that grow to
/// their limits do not keep all others from starting.
const SMALL: usize = 16 << 20;

/// How much linear memory there is, and how much of it is taken.
#[derive(Debug)]
pub(crate) struct LinearMemory {
    limit: usize,
    taken: AtomicUsize,
}

/// What one instance has of it, until this is dropped.
#[derive(Debug)]
pub(crate) struct MemoryShare {
    memory: Arc<LinearMemory>,
    held: usize,
}

// === impl LinearMemory ===

impl LinearMemory {
    /// So many bytes.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, taken: AtomicUsize::new(0) })
    }

    /// A share of nothing yet.
    pub(crate) fn begin(self: &Arc<Self>) -> MemoryShare {
        MemoryShare { memory: Arc::clone(self), held: 0 }
    }
}

// === impl MemoryShare ===

impl MemoryShare {
    /// Bytes that all instances have together.
    pub(crate) fn limit(&self) -> usize {
        self.memory.limit
    }

    /// Lets a memory grow; false if there is no room.
    pub(crate) fn grow(&mut self, current: usize, desired: usize) -> bool {
        // The system may have refused what there was room for the last time.
        self.shrink(current);
        let LinearMemory { limit, taken } = &*self.memory;
        let most = if desired > SMALL { limit - limit / 4 } else { *limit };
        let is_granted = take(taken, desired.saturating_sub(self.held), most);
        if is_granted {
            self.held = desired;
        }
        is_granted
    }

    fn shrink(&mut self, bytes: usize) {
        self.memory.taken.fetch_sub(self.held.saturating_sub(bytes), Ordering::Relaxed);
        self.held = self.held.min(bytes);
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

    #[test]
    fn memory_is_free_again_when_its_share_is_dropped_or_it_has_not_grown_after_all() {
        let memory = LinearMemory::new(100);
        let (mut one, mut other) = (memory.begin(), memory.begin());
        assert!(one.grow(0, 60) && !other.grow(0, 41) && other.grow(0, 40));
        assert!(!one.grow(60, 61), "there is no more");
        drop(other);
        assert!(one.grow(60, 100) && one.grow(60, 61));
        assert_eq!(memory.taken.load(Ordering::Relaxed), 61);
        drop(one);
        assert_eq!(memory.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn last_quarter_is_for_small_instances() {
        let memory = LinearMemory::new(SMALL * 4);
        let mut large = memory.begin();
        assert!(large.grow(0, SMALL * 3) && !large.grow(SMALL * 3, SMALL * 3 + 1));
        let (mut small, mut another) = (memory.begin(), memory.begin());
        assert!(!small.grow(0, SMALL + 1) && small.grow(0, SMALL));
        assert!(!another.grow(0, 1));
    }
}

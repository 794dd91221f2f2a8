//! The memory of bodies that are kept while they are sent.

use std::cell::Cell;

/// What the requests of one worker may keep together, in bytes: each keeps up to a mebibyte for as long as
/// its client takes, and clients may open thousands of them.
const LIMIT: usize = 16 << 20;

/// What those of all workers may keep, as long as that is a mebibyte for each.
const LIMIT_OF_ALL: usize = 128 << 20;
const LEAST: usize = 1 << 20;

thread_local! {
    /// What those of this thread keep, which is that of one worker.
    static KEPT: Cell<usize> = const { Cell::new(0) };
    /// The most that they may keep.
    static MOST: Cell<usize> = const { Cell::new(LIMIT) };
}

/// This thread is that of one of so many workers.
pub(crate) fn share_among(workers: usize) {
    MOST.set((LIMIT_OF_ALL / workers.max(1)).clamp(LEAST, LIMIT));
}

/// The bytes that one body keeps, among those of all; they are given back when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct KeptBytes(usize);

impl KeptBytes {
    /// Keeps `bytes` from now on, or none if that were too many for all together. Returns whether there is
    /// room for them.
    #[must_use]
    pub(crate) fn set(&mut self, bytes: usize) -> bool {
        let others = KEPT.get().saturating_sub(self.0);
        let has_room = others.saturating_add(bytes) <= MOST.get();
        self.0 = if has_room { bytes } else { 0 };
        KEPT.set(others + self.0);
        has_room
    }
}

impl Drop for KeptBytes {
    fn drop(&mut self) {
        let _ = self.set(0);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// All that there is, but for `left`.
    pub(crate) fn all_but(left: usize) -> KeptBytes {
        let mut kept = KeptBytes::default();
        assert!(kept.set(LIMIT - left));
        kept
    }

    #[test]
    fn what_is_given_back_is_there_for_others() {
        let (mut one, mut two) = (all_but(10), KeptBytes::default());
        assert!(two.set(10) && !two.set(11), "who finds no room keeps nothing");
        assert!(one.set(LIMIT));
        assert!(!two.set(1));
        drop(one);
        assert!(two.set(LIMIT));
    }

    #[test]
    fn many_workers_keep_little_each() {
        for (workers, most) in [(1, LIMIT), (8, LIMIT), (64, 2 << 20), (512, 1 << 20)] {
            share_among(workers);
            let mut kept = KeptBytes::default();
            assert!(kept.set(most) && !kept.set(most + 1), "{workers} workers");
        }
    }
}

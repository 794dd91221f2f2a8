//! What one worker, or one thread, keeps for its picks.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::set::Set;
use crate::sync::{AtomicU64, Ordering};

/// A set that is replaced from time to time, and numbered so that one load tells whether it was.
pub(crate) struct VersionedSet<T> {
    set: ArcSwap<Set<T>>,
    version: AtomicU64,
}

/// The set that was seen last, and random numbers.
pub(crate) struct ThreadCache<T> {
    set: Arc<Set<T>>,
    version: u64,
    rng: Rng,
}

/// Random numbers, each drawn ahead: a pick waits for the memory that it chooses by, and not for the
/// generator besides.
#[derive(Debug, Clone)]
pub(crate) struct Rng {
    generator: fastrand::Rng,
    next: u64,
}

// === impl VersionedSet ===

impl<T> VersionedSet<T> {
    pub(crate) fn new(set: Set<T>) -> Self {
        Self { set: ArcSwap::from_pointee(set), version: AtomicU64::new(0) }
    }

    /// The present set.
    pub(crate) fn load(&self) -> Arc<Set<T>> {
        self.set.load_full()
    }

    /// Replaces it. Under the lock of updates.
    pub(crate) fn store(&self, set: Set<T>) {
        self.set.store(Arc::new(set));
        self.version.fetch_add(1, Ordering::Release);
    }
}

// === impl ThreadCache ===

impl<T> ThreadCache<T> {
    pub(crate) fn new(set: &VersionedSet<T>) -> Self {
        let version = set.version.load(Ordering::Acquire);
        Self { set: set.load(), version, rng: Rng::new() }
    }

    /// The present set, and the random numbers.
    #[inline]
    pub(crate) fn current(&mut self, set: &VersionedSet<T>) -> (&Set<T>, &mut Rng) {
        let version = set.version.load(Ordering::Acquire);
        if version != self.version {
            self.renew(set, version);
        }
        (&self.set, &mut self.rng)
    }

    #[cold]
    fn renew(&mut self, set: &VersionedSet<T>, version: u64) {
        // It may be a later one already: then it is taken once more at the next pick.
        self.set = set.load();
        self.version = version;
    }
}

impl<T> Clone for ThreadCache<T> {
    fn clone(&self) -> Self {
        Self { set: Arc::clone(&self.set), version: self.version, rng: Rng::new() }
    }
}

impl<T> fmt::Debug for ThreadCache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadCache").field("version", &self.version).finish_non_exhaustive()
    }
}

// === impl Rng ===

impl Rng {
    /// Seeded by the generator of the thread.
    fn new() -> Self {
        let mut generator = fastrand::Rng::new();
        Self { next: generator.u64(..), generator }
    }

    #[inline]
    pub(crate) fn next_u64(&mut self) -> u64 {
        std::mem::replace(&mut self.next, self.generator.u64(..))
    }
}

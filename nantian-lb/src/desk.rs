//! What one worker, or one thread, has at hand for its picks.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::set::Set;
use crate::sync::{AtomicU64, Ordering};

/// A set that is replaced from time to time, and numbered so that one look tells whether it was.
pub(crate) struct Published<T> {
    set: ArcSwap<Set<T>>,
    edition: AtomicU64,
}

/// The set that was seen last, and dice.
pub(crate) struct Desk<T> {
    set: Arc<Set<T>>,
    edition: u64,
    dice: Dice,
}

/// Random numbers, each drawn ahead: a pick waits for the memory that it chooses by, and not for the generator besides.
#[derive(Debug, Clone)]
pub(crate) struct Dice {
    generator: fastrand::Rng,
    next: u64,
}

// === impl Published ===

impl<T> Published<T> {
    pub(crate) fn new(set: Set<T>) -> Self {
        Self { set: ArcSwap::from_pointee(set), edition: AtomicU64::new(0) }
    }

    /// The present set.
    pub(crate) fn load(&self) -> Arc<Set<T>> {
        self.set.load_full()
    }

    /// Replaces it. Under the lock of updates.
    pub(crate) fn store(&self, set: Set<T>) {
        self.set.store(Arc::new(set));
        self.edition.fetch_add(1, Ordering::Release);
    }
}

// === impl Desk ===

impl<T> Desk<T> {
    pub(crate) fn new(published: &Published<T>) -> Self {
        let edition = published.edition.load(Ordering::Acquire);
        Self { set: published.load(), edition, dice: Dice::new() }
    }

    /// The present set, and the dice.
    #[inline]
    pub(crate) fn lay(&mut self, published: &Published<T>) -> (&Set<T>, &mut Dice) {
        let edition = published.edition.load(Ordering::Acquire);
        if edition != self.edition {
            self.renew(published, edition);
        }
        (&self.set, &mut self.dice)
    }

    #[cold]
    fn renew(&mut self, published: &Published<T>, edition: u64) {
        // It may be a later one already: then it is taken once more at the next look.
        self.set = published.load();
        self.edition = edition;
    }
}

impl<T> Clone for Desk<T> {
    fn clone(&self) -> Self {
        Self { set: Arc::clone(&self.set), edition: self.edition, dice: Dice::new() }
    }
}

impl<T> fmt::Debug for Desk<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("edition", &self.edition).finish_non_exhaustive()
    }
}

// === impl Dice ===

impl Dice {
    /// Seeded by the generator of the thread.
    fn new() -> Self {
        let mut generator = fastrand::Rng::new();
        Self { next: generator.u64(..), generator }
    }

    #[inline]
    pub(crate) fn roll(&mut self) -> u64 {
        std::mem::replace(&mut self.next, self.generator.u64(..))
    }
}

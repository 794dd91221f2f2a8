//! What a key has: a tag and its cells.

use super::LINE;
use crate::key::Key;
use crate::sync::{AtomicU64, Ordering};

/// The value of a cell that belongs to nobody.
pub(crate) const SEALED: u64 = u64::MAX;

/// A tag and its cells, one after the other.
#[derive(Clone, Copy)]
pub(crate) struct Slot<'t>(pub(super) &'t [AtomicU64]);

// === impl Slot ===

impl<'t> Slot<'t> {
    /// The cells; those past the number of limits are unused.
    #[inline]
    pub(crate) fn cells(&self) -> &'t [AtomicU64] {
        self.0.get(1..).unwrap_or_default()
    }

    /// Whose slot it is.
    #[inline]
    pub(crate) fn tag(&self) -> u64 {
        self.0.first().map_or(Key::EMPTY, |tag| tag.load(Ordering::Acquire))
    }

    /// Whether the slot is that of `tag`. True after a cell was read unsealed: the cell was that of `tag`.
    #[inline]
    pub(crate) fn belongs_to(&self, tag: u64) -> bool {
        self.tag() == tag
    }

    /// Takes a cell away whatever it holds.
    pub(crate) fn take(cell: &AtomicU64) -> u64 {
        cell.swap(SEALED, Ordering::AcqRel)
    }

    /// Writes the cells of a sealed slot for the owner `tag`.
    pub(crate) fn install(&self, tag: u64, cells: &[u64]) {
        self.give_to(tag);
        self.unseal(cells);
    }

    /// Takes the first `cells` cells away from the slot's key if all of them are spent.
    pub(super) fn seal(&self, cells: usize, spent: impl Fn(usize, u64) -> bool) -> bool {
        let mut sealed = [SEALED; LINE];
        let used = self.cells().iter().zip(sealed.iter_mut()).take(cells);
        for (position, (cell, kept)) in used.enumerate() {
            let value = cell.load(Ordering::Acquire);
            let seal = || cell.compare_exchange(value, SEALED, Ordering::AcqRel, Ordering::Relaxed);
            if !spent(position, value) || seal().is_err() {
                self.unseal(sealed.get(..position).unwrap_or_default());
                return false;
            }
            *kept = value;
        }
        true
    }

    fn unseal(&self, values: &[u64]) {
        for (cell, value) in self.cells().iter().zip(values) {
            cell.store(*value, Ordering::Release);
        }
    }

    /// Leaves a sealed slot to nobody.
    pub(super) fn abandon(&self) {
        self.give_to(Key::EMPTY);
    }

    fn give_to(&self, tag: u64) {
        if let Some(word) = self.0.first() {
            word.store(tag, Ordering::Release);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.belongs_to(Key::EMPTY)
    }
}

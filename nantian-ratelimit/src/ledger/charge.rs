//! Charging the cells of a slot: one step for each limit, all of them or none.
//!
//! A slot may change hands, and its key move with all its cells, between two steps. A cell that was charged
//! before has then taken the charge along, and it is given back where the key is now.

use crate::clock::Timestamp;
use crate::cost::Cost;
use crate::key::Key;
use crate::limit_column::{Correction, LimitColumn, Uncharged};
use crate::policy::MAX_LIMITS;
use crate::sync::Ordering;
use crate::table::{SEALED, Slot};

use super::{Ledger, Tats};

/// What became of a charge.
pub(super) enum Charge {
    /// All limits were charged.
    Done,
    /// Nothing was charged: some limit has no room.
    Full,
    /// The slot is not the key's, or changes hands: nothing is charged once what went astray is given back.
    Lost(MovedCharges),
}

/// The limits whose charges moved away with the key: a bit for each.
#[derive(Clone, Copy, Default)]
pub(super) struct MovedCharges(u8);

// === impl Ledger ===

impl Ledger {
    /// Charges the cells of a slot.
    #[expect(
        clippy::inline_always,
        reason = "all it costs is what the compiler knows of the columns where it is called"
    )]
    #[inline(always)]
    pub(super) fn charge(
        &self,
        columns: &[LimitColumn],
        slot: Slot<'_>,
        tag: u64,
        now: Timestamp,
        cost: Cost,
        tats: &mut Tats,
    ) -> Charge {
        // Not in `tats` until the end, so that they can stay in registers.
        let (mut before, mut after) = ([0; MAX_LIMITS], [0; MAX_LIMITS]);
        let mut fits = true;
        let cells = columns.iter().zip(slot.cells());
        for ((column, cell), (tat, after)) in cells.zip(before.iter_mut().zip(&mut after)) {
            *tat = cell.load(Ordering::Acquire);
            if *tat == SEALED {
                return Charge::Lost(MovedCharges::default());
            }
            match column.charged(*tat, now, cost) {
                Some(charged) => *after = charged,
                None => fits = false,
            }
        }
        if !slot.belongs_to(tag) {
            return Charge::Lost(MovedCharges::default());
        }
        if !fits {
            tats.iter_mut().zip(before).take(columns.len()).for_each(|(tat, before)| *tat = before);
            return Charge::Full;
        }
        let cells = columns.iter().zip(slot.cells());
        for (position, ((column, cell), (tat, after))) in cells.zip(before.iter().zip(&mut after)).enumerate()
        {
            if tat == after {
                continue;
            }
            let step = cell.compare_exchange(*tat, *after, Ordering::AcqRel, Ordering::Acquire);
            if let Err(current) = step {
                match column.charge(slot, tag, (cell, current), now, cost) {
                    Ok(charged) => *after = charged,
                    Err(uncharged) => return self.take_back(slot, tag, (position, uncharged), cost, tats),
                }
            }
        }
        tats.iter_mut().zip(after).take(columns.len()).for_each(|(tat, after)| *tat = after);
        if has_charged(slot, tag) { Charge::Done } else { Charge::Lost(MovedCharges::default()) }
    }

    /// Ends a charge that another request overtook in the column at `position`.
    #[cold]
    fn take_back(
        &self,
        slot: Slot<'_>,
        tag: u64,
        (position, uncharged): (usize, Uncharged),
        cost: Cost,
        tats: &mut Tats,
    ) -> Charge {
        let moved = self.roll_back(slot, tag, position, cost);
        match (uncharged, self.read(slot, tag)) {
            (Uncharged::Full(full), Some(read)) if moved.is_none() => {
                *tats = read;
                tats.iter_mut().skip(position).take(1).for_each(|tat| *tat = full);
                Charge::Full
            }
            _ => Charge::Lost(moved),
        }
    }

    /// Takes the charges of the first `count` columns back, and tells which of them are not there any more.
    fn roll_back(&self, slot: Slot<'_>, tag: u64, count: usize, cost: Cost) -> MovedCharges {
        let mut moved = MovedCharges::default();
        for (position, (column, cell)) in self.columns.iter().zip(slot.cells()).take(count).enumerate() {
            if !column.roll_back(slot, tag, cell, cost) {
                moved.0 |= 1 << position;
            }
        }
        moved
    }

    /// Gives back what moved away with the key.
    #[inline]
    pub(super) fn give_back(&self, now: Timestamp, key: Key, moved: MovedCharges, cost: Cost) {
        if !moved.is_none() {
            self.follow(now, key, moved, cost);
        }
    }

    #[cold]
    fn follow(&self, now: Timestamp, key: Key, MovedCharges(moved): MovedCharges, cost: Cost) {
        let columns = self.columns.iter().enumerate();
        for (_, column) in columns.filter(|(position, _)| moved & 1 << position != 0) {
            let refund = Correction::Refund(column.reserved(cost));
            self.correct_lastingly(now, key, column, refund);
        }
    }
}

/// Whether it was `tag` that the steps on a slot charged, which was its own before them.
#[inline]
pub(super) fn has_charged(slot: Slot<'_>, tag: u64) -> bool {
    let owner = slot.tag();
    // Nobody's: the key was moved when the table grew, and its charge with it. Another's: if its cells have
    // the same values since, the new owner was charged, on the safe side.
    owner == tag || owner == Key::EMPTY
}

// === impl MovedCharges ===

impl MovedCharges {
    fn is_none(self) -> bool {
        self.0 == 0
    }
}

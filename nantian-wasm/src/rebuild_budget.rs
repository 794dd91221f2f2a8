//! How fast the instances of a plugin are replaced.

use std::sync::atomic::{AtomicU64, Ordering};

/// Milliseconds that earn one replacement of an instance.
const REBUILD_EVERY: u64 = 50;
/// Replacements that may be made at once after a quiet time.
const REBUILD_BURST: u64 = 20;
/// How many times as long as a replacement took upkeep leaves the plugin's other instances dead, once the
/// burst is used up.
const REBUILD_REST: u64 = 4;

/// How fast dead instances are replaced, so that a guest that always traps does not cost its building each
/// time.
///
/// The time, in engine ticks, at which the budget is full again. One word: a step is one exchange.
#[derive(Debug, Default)]
pub(crate) struct RebuildBudget(AtomicU64);

// === impl RebuildBudget ===

impl RebuildBudget {
    /// Whether another instance may be started now.
    pub(crate) fn spend_at(&self, now: u64) -> bool {
        let spent = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let full_at = full_at.max(now).saturating_add(REBUILD_EVERY);
            (full_at <= now.saturating_add(REBUILD_EVERY * REBUILD_BURST)).then_some(full_at)
        });
        spent.is_ok()
    }

    /// Charges for the time a replacement took, so that a guest that is slow to start leaves upkeep to the
    /// others.
    pub(crate) fn charge(&self, took: u64) {
        self.0.fetch_add(took.saturating_mul(REBUILD_REST), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacements_are_bounded_in_number_and_rate() {
        let budget = RebuildBudget::default();
        assert_eq!((0..100).filter(|_| budget.spend_at(7)).count(), 20);
        assert_eq!((0..1_000).filter(|tick| budget.spend_at(7 + tick)).count(), 19);
    }

    #[test]
    fn a_guest_that_is_slow_to_start_takes_a_fifth_of_the_time_of_upkeep() {
        let budget = RebuildBudget::default();
        let (mut now, mut building) = (0, 0);
        while now < 100_000 {
            if budget.spend_at(now) {
                budget.charge(1_000);
                now += 1_000;
                building += 1_000;
            }
            now += 10;
        }
        assert!((15_000..=25_000).contains(&building), "{building} of 100 000 ms");
    }
}

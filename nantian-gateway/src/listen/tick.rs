//! The clock of a worker, and waits that it measures.

use std::time::Duration;

/// The resolution of the clock.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// The tick in which a wait began, if something is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait(pub(super) u32);

impl Wait {
    /// Nothing is waited for. The clock would take 13 years to come here.
    pub(super) const NONE: Self = Self(u32::MAX);

    /// This wait, or one that begins now.
    pub(super) fn or_from(self, now: u32) -> Self {
        if self == Self::NONE { Self(now) } else { self }
    }

    /// How many ticks it takes so far.
    pub(super) fn ticks(self, now: u32) -> u32 {
        if self == Self::NONE { 0 } else { now.saturating_sub(self.0) }
    }

    /// Whether it takes longer than `limit`.
    pub(super) fn is_over(self, now: u32, limit: Duration) -> bool {
        self != Self::NONE && TICK * self.ticks(now) > limit
    }
}

impl Default for Wait {
    fn default() -> Self {
        Self::NONE
    }
}

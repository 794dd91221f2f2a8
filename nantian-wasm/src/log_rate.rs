//! How much may be logged of a plugin in a time, whatever its streams do.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that a plugin may log in one engine tick: 1 MiB in a second.
const BYTES_PER_TICK: u64 = 1_049;

/// Bytes that it may log at once after a quiet time.
const BURST: u64 = 1 << 20;

/// What a logger writes around a line: an empty one is not for nothing.
const AROUND: u64 = 64;

/// Engine ticks from one line about a plugin to the next of its kind.
const MINUTE: u64 = 60_000;

/// The rate at which the lines of a plugin's guests are written; those beyond are dropped.
///
/// The time at which the budget is full again, counted in bytes. One word: a step is one exchange.
#[derive(Debug, Default)]
pub(crate) struct LogRate(AtomicU64);

/// Lines of one kind about a plugin, which clients may bring about thousands of times a second: the first one
/// is written at once, and then one a minute.
#[derive(Debug, Default)]
pub(crate) struct OnceAMinute {
    /// When the next one may be written.
    next: AtomicU64,
    /// How many have come since the last one.
    untold: AtomicU64,
}

// === impl LogRate ===

impl LogRate {
    /// Whether a line may be written at this engine tick.
    pub(crate) fn admits_at(&self, now: u64, line: &[u8]) -> bool {
        let now = now.saturating_mul(BYTES_PER_TICK);
        let cost = u64::try_from(line.len()).unwrap_or(u64::MAX).saturating_add(AROUND);
        let spent = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let full_at = full_at.max(now).saturating_add(cost);
            (full_at <= now.saturating_add(BURST)).then_some(full_at)
        });
        spent.is_ok()
    }
}

// === impl OnceAMinute ===

impl OnceAMinute {
    /// Whether a line is to be written at this engine tick; for how many it stands.
    pub(crate) fn note_at(&self, now: u64) -> Option<u64> {
        self.untold.fetch_add(1, Ordering::Relaxed);
        let is_due = |next| (next <= now).then_some(now.saturating_add(MINUTE));
        self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_due).ok()?;
        Some(self.untold.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_logs_a_mebibyte_at_once_and_then_as_much_in_a_second() {
        let rate = LogRate::default();
        let line = [b'x'; 1_024 - 64];
        let admitted = |now| (0..10_000).filter(|_| rate.admits_at(now, &line)).count();
        assert_eq!(admitted(7), 1_024);
        assert_eq!(admitted(7), 0);
        assert_eq!(admitted(1_007), 1_024);
        assert_eq!(admitted(1_507), 512);
    }

    #[test]
    fn an_empty_line_is_not_for_nothing() {
        let rate = LogRate::default();
        assert_eq!((0..100_000).filter(|_| rate.admits_at(0, b"")).count(), 16_384);
    }

    #[test]
    fn a_line_a_minute_stands_for_those_that_came_since_the_last_one() {
        let lines = OnceAMinute::default();
        let written: Vec<_> = (0..150_000).step_by(50).filter_map(|now| lines.note_at(now)).collect();
        assert_eq!(written, [1, 1_200, 1_200]);
    }
}

//! How much a plugin may log in a time, whatever its streams may.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that a plugin may log in one engine tick: 1 MiB in a second.
const BYTES_PER_TICK: u64 = 1_049;

/// Bytes that it may log at once after a quiet time.
const BURST: u64 = 1 << 20;

/// What a logger writes around a line: an empty one is not for nothing.
const AROUND: u64 = 64;

/// The rate at which the lines of a plugin's guests are written; those beyond are dropped.
///
/// The time at which the budget is full again, counted in bytes. One word: a step is one exchange.
#[derive(Debug, Default)]
pub(crate) struct LogRate(AtomicU64);

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
}

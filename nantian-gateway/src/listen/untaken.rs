//! How long clients may leave their responses, by how many do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use super::tick::Wait;

/// The bytes of which is counted how many are held.
const UNIT: u64 = 16 * 1024;

/// What a response that its client does not take holds at most, in units: what its backend may have sent,
/// what is on hand of it, and what the client's connection has taken of that.
pub(super) const MOST_HELD: u32 = 16;

/// It counts when its client has taken nothing for so long: who goes on reading is soon served.
const COUNTED: Duration = Duration::from_secs(1);

/// In how many ticks the time of clients falls from the stall timeout to nothing, at the fastest: where it is
/// a pause of the network that has all wait at once, it may last for 6 seconds.
const FALL: u32 = 60;

/// What every client has to take the next bytes, however many do not.
pub(super) const LEAST: Duration = Duration::from_secs(2);

/// The responses of all workers that their clients do not take; its clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Untaken {
    count: Arc<AtomicU32>,
    most: u32,
}

// === impl Untaken ===

impl Untaken {
    /// They are to hold no more than `bytes` together.
    pub(crate) fn within(bytes: u64) -> Self {
        let most = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX);
        Self { count: Arc::default(), most: most.max(2) }
    }

    /// Whether a response counts whose client takes nothing `since` then.
    pub(super) fn counts(since: Wait, now: u32) -> bool {
        since.is_over(now, COUNTED)
    }

    /// Of a worker they hold `count` units, and held `before` when this was told last.
    pub(super) fn tell(&self, before: u32, count: u32) {
        self.count.fetch_add(count.wrapping_sub(before), Relaxed);
    }

    /// How long a client may take nothing in this tick, where it was `before` in the last one.
    pub(super) fn next_patience(&self, before: Duration, stall: Duration) -> Duration {
        self.patience(stall).max(before.min(stall).saturating_sub(stall / FALL))
    }

    /// What it comes to in the end, where it is `stall` as a rule: from half of what they may hold on the
    /// less the more they are, so that those end first that have waited for longest.
    fn patience(&self, stall: Duration) -> Duration {
        let half = self.most / 2;
        let left = self.most.saturating_sub(self.count.load(Relaxed)).min(half);
        (stall.saturating_mul(left) / half).max(LEAST).min(stall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_have_less_time_the_more_of_them_take_nothing() {
        let stall = Duration::from_secs(60);
        let untaken = Untaken::within(100 * UNIT);
        let workers = [untaken.clone(), untaken];
        let mut before = [0; 2];
        for (counts, seconds) in
            [([0, 0], 60), ([25, 25], 60), ([25, 50], 30), ([90, 0], 12), ([500, 90], 2), ([10, 0], 60)]
        {
            for ((worker, before), count) in workers.iter().zip(&mut before).zip(counts) {
                worker.tell(std::mem::replace(before, count), count);
            }
            for worker in &workers {
                assert_eq!(worker.patience(stall), Duration::from_secs(seconds), "{counts:?}");
            }
        }
        assert_eq!(Untaken::within(0).patience(stall), stall);
    }

    #[test]
    fn a_short_stall_timeout_is_made_no_longer() {
        let (untaken, stall) = (Untaken::within(0), Duration::from_secs(1));
        untaken.tell(0, 1000);
        assert_eq!(untaken.patience(stall), stall);
    }
}

//! When to try again what has failed.

use std::{future::pending, time::Duration};

use tokio::time::{Instant, sleep_until};

/// The first wait.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);

/// When to try again what has failed: soon at first, then ever more seldom.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    next: Option<(Instant, Duration)>,
}

impl Backoff {
    /// Something has failed for the first time, or nothing has.
    pub(super) fn reset(&mut self, has_failed: bool) {
        self.next = has_failed.then(|| (Instant::now() + FIRST, FIRST));
    }

    /// The same has failed once more.
    pub(super) fn failed_again(&mut self) {
        let wait = self.next.map_or(FIRST, |(_, wait)| (wait * 2).min(LONGEST));
        self.next = Some((Instant::now() + wait, wait));
    }

    /// Waits until it is time; for ever if nothing has failed.
    pub(super) async fn due(&self) {
        match self.next {
            Some((at, _)) => sleep_until(at).await,
            None => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_grow_up_to_a_limit() {
        let mut backoff = Backoff::default();
        assert!(backoff.due().now_or_never().is_none());
        backoff.reset(true);
        let mut waits = Vec::new();
        for _ in 0..7 {
            let begun = Instant::now();
            backoff.due().await;
            waits.push(begun.elapsed().as_secs());
            backoff.failed_again();
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        backoff.reset(false);
        assert!(backoff.due().now_or_never().is_none());
    }
}

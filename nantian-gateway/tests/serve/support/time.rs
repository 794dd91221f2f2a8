//! Waiting for what must come.

use std::{
    future::Future,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};

/// Longer than anything takes that is not broken.
const SOON: Duration = Duration::from_secs(60);
/// Between two looks at a condition that tells nobody when it changes.
const GLANCE: Duration = Duration::from_millis(5);

/// What `future` gives, which must come soon.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    timeout(SOON, future).await.expect("it comes soon")
}

/// Waits until `holds`, which must be soon.
pub(crate) async fn eventually(what: &str, holds: impl AsyncFnMut() -> bool) {
    eventually_within(SOON, what, holds).await;
}

/// Waits until `holds`, for something that takes its time by itself.
pub(crate) async fn eventually_within(limit: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < limit, "never: {what}");
        sleep(GLANCE).await;
    }
}

/// What a writer has written when it could write no more for half a second.
pub(crate) async fn when_stuck(written: &AtomicUsize) -> usize {
    eventually("something is written", async || written.load(Relaxed) > 0).await;
    loop {
        let before = written.load(Relaxed);
        let moved = eventually("more is written", async || written.load(Relaxed) > before);
        if timeout(Duration::from_millis(500), moved).await.is_err() {
            return before;
        }
    }
}

/// Waits until so much time has passed, where it is time itself that changes something.
pub(crate) async fn after(time: Duration) {
    sleep(time).await;
}

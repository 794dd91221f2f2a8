//! Waiting for what must come.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};

/// Longer than anything takes that is not broken.
const SOON: Duration = Duration::from_secs(10);
/// Between two looks at a condition that tells nobody when it changes.
const GLANCE: Duration = Duration::from_millis(5);

/// What `future` gives, which must come soon.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    timeout(SOON, future).await.expect("it comes soon")
}

/// Waits until `holds`, which must be soon.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < SOON, "never: {what}");
        sleep(GLANCE).await;
    }
}

//! Says when the store of the limits comes and goes.

use std::time::Duration;

use nantian_ratelimit::redis::RedisStore;
use tokio::time::{MissedTickBehavior, interval};

/// How often the store is looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// Logs each change of a store's reachability, for ever.
pub async fn store(store: RedisStore) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is now: a server that is there needs a moment.
    ticks.tick().await;
    let mut known = None;
    loop {
        ticks.tick().await;
        let status = store.status();
        if known.replace(status.is_reachable) == Some(status.is_reachable) {
            continue;
        }
        if status.is_reachable {
            tracing::info!(store = %store.url(), replicas = status.replicas, "limits are shared");
        } else {
            tracing::warn!(store = %store.url(), "the store of the limits does not answer: going on with this replica's share");
        }
    }
}

//! Says when the store of the limits comes and goes.

use std::{sync::Arc, time::Duration};

use nantian_ratelimit::redis::RedisStore;
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval},
};

/// How often the store is looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// Logs each change of a store's reachability, and why it is away, for ever; `changed` is told when it comes or goes.
pub async fn store(store: RedisStore, changed: Arc<Notify>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is now: a server that is there needs a moment.
    ticks.tick().await;
    let mut known = None;
    loop {
        ticks.tick().await;
        let status = store.status();
        let state = (status.is_reachable, status.fault.filter(|_| !status.is_reachable));
        let before = known.replace(state);
        if before.is_none_or(|(was_reachable, _)| was_reachable != status.is_reachable) {
            changed.notify_one();
        }
        match state {
            _ if before == Some(state) => {}
            (true, _) => {
                tracing::info!(store = %store.url(), replicas = status.replicas, "limits are shared");
            }
            (false, fault) => {
                let reason = fault.map(tracing::field::display);
                let text = "the store of the limits does not answer: going on with this replica's share";
                match before {
                    Some((false, _)) => {
                        tracing::debug!(store = %store.url(), reason, "the store is still away")
                    }
                    _ => tracing::warn!(store = %store.url(), reason, "{text}"),
                }
            }
        }
    }
}

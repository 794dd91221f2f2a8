//! Says when the store of the limits comes and goes.

use std::{sync::Arc, time::Duration};

use nantian_ratelimit::redis::RedisStore;
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval},
};

/// How often the store is looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// What is to be known of limits while their store is away.
const AWAY: &str = "the store of the limits does not answer: each gateway goes on with its share of them";
/// The same, before the store has told how many gateways there are.
const NOT_MET: &str = "the store of the limits has not answered since this gateway started: it goes on with the whole \
     limits, as if it were alone, unless --ratelimit-replicas says how many gateways share them";

/// What is to be known of the limits in `store` at present.
pub fn store_remark(store: &RedisStore) -> Option<&'static str> {
    let status = store.status();
    let remark = if status.replicas.is_some() { AWAY } else { NOT_MET };
    (!status.is_reachable).then_some(remark)
}

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
                let text = if status.replicas.is_some() { AWAY } else { NOT_MET };
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

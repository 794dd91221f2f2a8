//! Says when the store of the limits comes and goes.

use std::{sync::Arc, time::Duration};

use nantian_ratelimit::redis::{OnOutage, RedisStore, StoreFault, StoreStatus};
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval},
};

/// How often the store is looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// What is to be known of limits while their store is away.
const AWAY: &str = "the store of the limits does not answer: each gateway goes on with its share of them";
/// The same of a cluster of which some nodes answer.
const PARTLY_AWAY: &str = "a part of the store of the limits does not answer: for the keys there, each gateway goes on with its share of \
     them";
/// The same where all requests pass meanwhile.
const OPEN: &str = "the store of the limits does not answer: requests pass uncounted";
const PARTLY_OPEN: &str =
    "a part of the store of the limits does not answer: requests of the keys there pass uncounted";
/// The same where none does.
const CLOSED: &str = "the store of the limits does not answer: requests are refused";
const PARTLY_CLOSED: &str =
    "a part of the store of the limits does not answer: requests of the keys there are refused";
/// The same, before the store has told how many gateways there are.
const NOT_MET: &str = "the store of the limits has not answered since this gateway started: it goes on with the whole \
     limits, as if it were alone, unless --ratelimit-replicas says how many gateways share them";

/// What is to be known of limits whose store answers and may forget them.
const FORGETS: &str = "the store of the limits makes room for new keys by forgetting others, and the limits that they are of: its \
     maxmemory-policy should be noeviction";

/// What is to be known of limits without a store, where there may be several gateways.
const UNSHARED: &str = "each replica counts for itself: --ratelimit-store shares limits";

/// What is to be known at present of the limits in `store`, or of each process where there is none.
pub(crate) fn limits_remark(store: Option<&RedisStore>, is_replicated: bool) -> Option<&'static str> {
    match store {
        Some(store) => remark(&store.status()),
        None => is_replicated.then_some(UNSHARED),
    }
}

fn remark(status: &StoreStatus) -> Option<&'static str> {
    if status.is_reachable {
        return status.may_evict.then_some(FORGETS);
    }
    let is_part = status.away.len() < status.nodes;
    Some(match (status.on_outage, status.replicas, is_part) {
        (OnOutage::Open, _, false) => OPEN,
        (OnOutage::Open, _, true) => PARTLY_OPEN,
        (OnOutage::Closed, _, false) => CLOSED,
        (OnOutage::Closed, _, true) => PARTLY_CLOSED,
        (_, None, _) => NOT_MET,
        (_, Some(_), false) => AWAY,
        (_, Some(_), true) => PARTLY_AWAY,
    })
}

/// Whether a store is away until somebody mends something.
fn lasts(fault: Option<StoreFault>) -> bool {
    use StoreFault::{Credentials, Database, Scripts, Tls, Unreadable};
    matches!(fault, Some(Credentials | Unreadable | Tls | Scripts | Database))
}

/// What has been warned of since a store was reachable.
#[derive(Debug, Default)]
struct Outage {
    /// How many of its nodes are away; nothing while it is reachable.
    lost: Option<usize>,
    /// Why it is away until somebody mends something.
    lasting: Option<StoreFault>,
}

impl Outage {
    /// Notes how a store is. Returns whether that is worth a line: that it is reachable, with which all that
    /// was warned of is over, or another warning.
    fn note(&mut self, is_reachable: bool, lost: usize, fault: Option<StoreFault>) -> bool {
        if is_reachable {
            *self = Self::default();
            return true;
        }
        self.worsens(lost, fault)
    }

    /// Whether that many nodes being away, the last one for this reason, is worth another warning. A reason
    /// that passes is none, and the one that lasts is the same after it.
    fn worsens(&mut self, lost: usize, fault: Option<StoreFault>) -> bool {
        let is_more = self.lost.replace(lost).is_none_or(|before| lost > before);
        let is_other = lasts(fault) && fault != self.lasting;
        if is_other {
            self.lasting = fault;
        }
        is_more || is_other
    }
}

/// Logs each change of a store's reachability, and why it is away, for ever; `changed` is told when another
/// remark is due.
pub(crate) async fn store(store: RedisStore, changed: Arc<Notify>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is now: a server that is there needs a moment.
    ticks.tick().await;
    let (mut known, mut outage) = (None, Outage::default());
    loop {
        ticks.tick().await;
        let status = store.status();
        let remark = remark(&status);
        let fault = status.fault.filter(|_| !status.is_reachable);
        let lost = status.away.len();
        let state = (status.is_reachable, remark, fault, status.away);
        if known.as_ref() == Some(&state) {
            continue;
        }
        let away = (status.nodes > 1 && !status.is_reachable).then(|| state.3.join(", "));
        let before = known.replace(state);
        if before.as_ref().is_none_or(|(_, before, ..)| *before != remark) {
            changed.notify_one();
        }
        let is_news = outage.note(status.is_reachable, lost, fault);
        if status.is_reachable {
            tracing::info!(store = %store.url(), replicas = status.replicas, "limits are shared");
        }
        let reason = fault.map(tracing::field::display);
        match remark {
            Some(remark) if is_news => tracing::warn!(store = %store.url(), reason, away, "{remark}"),
            Some(_) => tracing::debug!(store = %store.url(), reason, away, "the store is still away"),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_lasts_is_warned_of_once_while_others_pass() {
        use StoreFault::{Credentials, Timeout, Tls};
        let mut outage = Outage::default();
        let mut warned = |lost, fault| outage.note(false, lost, Some(fault));
        assert!(warned(1, Timeout));
        assert!(!warned(1, StoreFault::Connect), "it is away all the same");
        assert_eq!([Tls, Timeout, Tls, Timeout].map(|fault| warned(1, fault)), [true, false, false, false]);
        assert!(warned(1, Credentials));
        assert!(!warned(1, Credentials));
        assert_eq!([2, 2, 1].map(|lost| warned(lost, Timeout)), [true, false, false]);
    }

    #[test]
    fn an_outage_is_warned_of_again_once_the_store_was_back() {
        let mut outage = Outage::default();
        for _ in 0..2 {
            assert!(outage.note(false, 2, Some(StoreFault::Credentials)));
            assert!(!outage.note(false, 1, Some(StoreFault::Credentials)), "it is away all the same");
            assert!(outage.note(true, 0, None));
        }
    }
}

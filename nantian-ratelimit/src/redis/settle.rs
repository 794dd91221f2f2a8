//! What was charged on a server, and what it is told when the real usage is known.

use std::fmt;
use std::mem;
use std::sync::Arc;

use super::items::Items;
use super::node::DriverTask;
use super::policy_group::PolicyGroup;
use super::script::Order;
use super::shared::SharedLimiter;
use super::shared_key::SharedKey;
use super::store::StoreState;
use crate::clock::Timestamp;
use crate::cost::Cost;
use crate::levels::Levels;
use crate::limit::{Limit, Unit};
use crate::reservation::{CachedSettlement, Reservation, Settled, Settlement};

/// An admitted request's charge on a server, to be settled once with the real usage.
///
/// Dropping it leaves the charge as it is.
#[derive(Debug)]
pub struct SharedReservation(Box<RemoteCharge>);

#[derive(Debug)]
struct RemoteCharge {
    limiter: SharedLimiter,
    key: SharedKey,
    cost: Cost,
    levels: Levels,
    charged: Charged,
}

/// Who was charged.
#[derive(Debug)]
pub(super) enum Charged {
    /// The server; this process only took note, if it had room.
    Remotely(Option<Reservation>),
    /// This process alone.
    Locally(Reservation),
    /// Nobody, for a request that takes nothing.
    Nothing(Option<Reservation>),
}

/// A correction on its way to the server.
///
/// Dropped before it is done, what the server is owed is reported later; what it owes refills by itself.
pub(super) struct Correction {
    group: Arc<PolicyGroup>,
    key: SharedKey,
    /// What each limit is to take more, or less.
    items: Items,
}

// === impl SharedReservation ===

impl SharedReservation {
    pub(super) fn new(
        limiter: &SharedLimiter,
        key: SharedKey,
        cost: Cost,
        levels: Levels,
        charged: Charged,
    ) -> Self {
        Self(Box::new(RemoteCharge { limiter: limiter.clone(), key, cost, levels, charged }))
    }

    /// The cost that was estimated.
    pub fn cost(&self) -> Cost {
        self.0.cost
    }

    /// Where the limits stood after the charge.
    pub fn levels(&self) -> &Levels {
        &self.0.levels
    }

    /// Whether the levels are more than what this process alone knows of those that all have.
    pub(crate) fn knows_levels(&self) -> bool {
        !matches!(self.0.charged, Charged::Nothing(_))
    }

    /// Settles the tokens: see [`Reservation::settle`]. What the cap on debt forgives is the server's to
    /// know.
    pub fn settle(self, settlement: impl Into<CachedSettlement>) -> Settled {
        let weight = self.0.limiter.policy().cached_token_weight();
        self.settle_once(settlement.into().under(weight))
    }

    /// Takes the whole charge back, requests too: for a request that another limiter denied.
    pub fn cancel(self) {
        self.cancel_once();
    }

    /// [`SharedReservation::settle`] for whoever sees to it that the reservation is not settled again.
    pub(crate) fn settle_once(&self, settlement: Settlement) -> Settled {
        let now = self.0.limiter.group().now();
        match &self.0.charged {
            Charged::Locally(local) => {
                let settle = || local.settle_once_at(now, settlement);
                let settled = self.make_up(local, of_tokens(settlement), settle);
                // It may have taken longer than what was charged at first takes to refill.
                self.0.limiter.group().remember_unreported(now, &self.0.key);
                settlement.teach(self.0.limiter.whole().typical());
                if settled.used < settled.reserved {
                    self.notify();
                }
                settled
            }
            Charged::Remotely(local) | Charged::Nothing(local) => {
                if let Some(local) = local {
                    self.note(now, local, of_tokens(settlement));
                }
                let mut settled = Settled { reserved: 0, used: 0, forgiven: 0 };
                let used = of_tokens(settlement);
                self.correct(|limit, reserved| {
                    let used = used(limit, reserved);
                    if limit.unit() == Unit::Tokens {
                        settled.reserved = reserved.max(settled.reserved);
                        settled.used = used.max(settled.used);
                    }
                    used
                });
                settlement.teach(self.0.limiter.whole().typical());
                settled
            }
        }
    }

    /// [`SharedReservation::cancel`] for whoever sees to it that the reservation is not settled again.
    pub(crate) fn cancel_once(&self) {
        let now = self.0.limiter.group().now();
        match &self.0.charged {
            Charged::Locally(local) => {
                self.make_up(local, |_, _| 0, || local.cancel_once_at(now));
                self.notify();
            }
            Charged::Remotely(local) | Charged::Nothing(local) => {
                if let Some(local) = local {
                    self.note(now, local, |_, _| 0);
                }
                self.correct(|_, _| 0);
            }
        }
    }

    /// Makes up for the difference between what each limit was charged and what `used` says, given that
    /// charge.
    fn correct(&self, used: impl FnMut(&Limit, u64) -> u64) {
        self.hand_over(self.items(&self.0.levels, Limit::reserved, used));
    }

    /// The same where this process was charged, as `settle` does: of what the server was told meanwhile it
    /// gives back what has to be, which is nothing of a charge that was not to the key's own bucket.
    fn make_up<T>(
        &self,
        local: &Reservation,
        used: impl Fn(&Limit, u64) -> u64,
        settle: impl FnOnce() -> T,
    ) -> T {
        let least = |reserved| if local.is_overflow() { reserved } else { 0 };
        let used = |limit: &Limit, reserved| used(limit, reserved).max(least(reserved));
        let items = self.items(local.levels(), Limit::reserved, used);
        let (settled, told) = self.0.limiter.group().take_back(&self.0.key, &items, settle);
        self.hand_over(told);
        settled
    }

    /// Takes note of what the server will be told of a charge of which this process took note, too.
    fn note(&self, now: Timestamp, local: &Reservation, used: impl FnMut(&Limit, u64) -> u64) {
        let items = self.items(local.levels(), Limit::noted, used);
        self.0.limiter.group().note_correction(now, &self.0.key, &items);
    }

    /// What `used` says beyond what the limits of `levels` were `charged`.
    fn items(
        &self,
        levels: &Levels,
        charged: impl Fn(&Limit, Cost) -> u64,
        mut used: impl FnMut(&Limit, u64) -> u64,
    ) -> Items {
        Items::new(levels.iter().map(|level| {
            let charged = charged(level.limit, self.0.cost);
            (level.limit, difference(used(level.limit, charged), charged))
        }))
    }

    fn hand_over(&self, items: Items) {
        if items.is_empty() {
            return;
        }
        let RemoteCharge { limiter, key, .. } = &*self.0;
        Correction::new(Arc::clone(limiter.group()), key.clone(), items).hand_over();
    }

    /// Whoever waits may find room now.
    fn notify(&self) {
        self.0.limiter.whole().queues().notify(self.0.key.own());
    }
}

// === impl Correction ===

impl Correction {
    pub(super) fn new(group: Arc<PolicyGroup>, key: SharedKey, items: Items) -> Self {
        Self { group, key, items }
    }

    /// Leaves it to a driver; what that does not take is reported later.
    pub(super) fn hand_over(self) {
        let (group, key) = (Arc::clone(&self.group), self.key.clone());
        let _ = group.store.0.hand_over(&key, DriverTask::Correct(self));
    }

    /// Whether the levels are on this server.
    pub(super) fn is_known_by(&self, store: &StoreState) -> bool {
        self.key.is_known_by(store)
    }

    /// The name of the levels on the server.
    pub(super) fn name(&self) -> String {
        self.key.name()
    }

    /// What the server is told, in the terms of the newest policy: it forgets limits that it is not asked
    /// about.
    pub(super) fn order(&self) -> Order {
        let (current, now) = (self.group.current(), self.group.now());
        let cost = Cost { requests: 0, tokens: 0 };
        Order::new(current.limits(), cost, current.age(now), |limit| self.items.of(limit))
    }

    /// The server has carried it out: whoever waits may find room now.
    pub(super) fn done(mut self) {
        let items = mem::take(&mut self.items);
        if items.give_back() {
            let current = self.group.current();
            current.give_back(self.key.remote(), &items);
            current.whole.queues().notify(self.key.own());
        }
    }
}

impl Drop for Correction {
    fn drop(&mut self) {
        if !self.items.is_empty() {
            self.group.add_unreported(&self.key, &self.items);
        }
    }
}

impl fmt::Debug for Correction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Correction").field("items", &self.items).finish_non_exhaustive()
    }
}

/// What a settlement leaves of a charge.
fn of_tokens(settlement: Settlement) -> impl Fn(&Limit, u64) -> u64 {
    move |limit, reserved| if limit.unit() == Unit::Tokens { settlement.used(reserved) } else { reserved }
}

/// What is to be taken more, or given back.
pub(super) fn difference(used: u64, reserved: u64) -> i64 {
    if used >= reserved {
        i64::try_from(used - reserved).unwrap_or(i64::MAX)
    } else {
        -i64::try_from(reserved - used).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::redis::RedisStore;
    use crate::redis::denials::Denial;

    #[tokio::test]
    async fn what_is_given_back_ends_a_denial_only_where_it_was_lacking() {
        let (store, _driver) = RedisStore::builder("redis://127.0.0.1:1/0".parse().unwrap()).build();
        let (requests, tokens) = (Limit::requests_per_minute(3), Limit::tokens_per_minute(100));
        let policy = Policy::builder().limit(requests.clone()).limit(tokens.clone()).build().unwrap();
        let limiter = store.limiter("quota", policy);
        let key = limiter.key(b"alice");
        let (current, at) = (limiter.group().current(), limiter.group().now());
        let until = at.saturating_add(std::time::Duration::from_secs(60));
        let is_denied_after = |cost: Cost, used: [f64; 2], limit: &Limit| {
            current.denials.insert(key.remote(), Denial { cost, at, until, used: used.to_vec() });
            let items = Items::new([(limit, -1)].into_iter());
            Correction::new(Arc::clone(limiter.group()), key.clone(), items).done();
            current.denials.last(key.remote(), at).is_some()
        };
        let of_tokens = Cost { requests: 0, tokens: 1 };
        for used in [[1.0, 100.0], [3.0, 100.0]] {
            assert!(is_denied_after(of_tokens, used, &requests), "tokens are lacking still: {used:?}");
            assert!(!is_denied_after(of_tokens, used, &tokens));
        }
        assert!(!is_denied_after(Cost::REQUEST, [3.0, 50.0], &requests));
        assert!(is_denied_after(Cost::REQUEST, [3.0, 50.0], &tokens));
        assert!(!is_denied_after(Cost::REQUEST, [3.0, 100.0], &tokens), "nobody knows that none are left");
        assert!(!is_denied_after(Cost::tokens(50), [3.0, 80.0], &requests));
    }
}

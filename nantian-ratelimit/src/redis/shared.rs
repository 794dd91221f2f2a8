//! A policy whose levels are on a server.

use std::fmt;
use std::sync::Arc;

use http::request::Parts;

use super::denials::Denial;
use super::pending_decision::PendingDecision;
use super::policy_group::PolicyGroup;
use super::script::{self, Answer, Order};
use super::settle::{Charged, SharedReservation};
use super::shared_key::SharedKey;
use super::store::RedisStore;
use super::unanswered::Unanswered;
use crate::clock::Timestamp;
use crate::cost::Cost;
use crate::error::{Denied, MissingPart, Unavailable};
use crate::key::{Key, KeyHasher};
use crate::key_extractor::KeyExtractor;
use crate::limit::Limit;
use crate::limiter::Limiter;
use crate::policy::Policy;

/// Decides all limits of a policy at once, with the levels that all replicas have in common.
///
/// Clones share everything. [`SharedLimiter::successor`] gives a limiter with other amounts over the same
/// levels. Whichever limiter of such a group is asked, the amounts of the newest policy hold; scope and
/// reaction are those of its own policy.
#[derive(Clone)]
pub struct SharedLimiter(Arc<Shared>);

/// Who decides while the server does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnOutage {
    /// This process, by its share of the limits. The default.
    #[default]
    Local,
    /// Nobody: every request passes, uncounted.
    Open,
    /// Nobody: every request is refused, with 503.
    Closed,
}

/// What was decided.
#[derive(Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// The cost was charged.
    Admitted(SharedReservation),
    /// Nothing was charged, because a limit lacks room.
    Denied(Denied),
    /// The server is away and the requests pass: [`OnOutage::Open`].
    Unchecked,
    /// The server is away and the requests do not: [`OnOutage::Closed`].
    Unavailable(Unavailable),
}

struct Shared {
    /// The policy of this limiter; its buckets stay empty.
    whole: Limiter,
    group: Arc<PolicyGroup>,
}

// === impl SharedLimiter ===

impl SharedLimiter {
    pub(super) fn new(store: RedisStore, id: &str, policy: Policy) -> Self {
        let group = Arc::new(PolicyGroup::new(store, id, policy));
        Self(Arc::new(Shared { whole: group.current().whole.clone(), group }))
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        self.0.whole.policy()
    }

    /// The connection.
    pub fn store(&self) -> &RedisStore {
        &self.0.group.store
    }

    /// Puts `policy` in force for all clones, and gives a limiter with its scope and reaction: see
    /// [`Limiter::successor`].
    pub fn successor(&self, policy: Policy) -> Self {
        let group = Arc::clone(&self.0.group);
        Self(Arc::new(Shared { whole: group.change(policy), group }))
    }

    /// Lets all requests pass that wait in this process, or would: see [`Limiter::lift`].
    pub fn lift(&self) {
        self.0.whole.lift();
    }

    /// What four of five recent requests used at most, in tokens; 0 as long as nothing was settled.
    pub fn typical_tokens(&self) -> u64 {
        self.0.whole.typical_tokens()
    }

    /// Keys whose buckets are not all full as far as this process knows. Takes time in proportion to the
    /// table.
    pub fn live_keys(&self) -> usize {
        self.0.group.current().local.live_keys()
    }

    /// Decisions so far about keys of which this process cannot keep apart what it knows: see
    /// [`Limiter::overflows`].
    pub fn overflows(&self) -> u64 {
        self.0.group.current().local.overflows()
    }

    /// The key of a single value, to be made for each request: see [`SharedKey`].
    pub fn key(&self, value: &[u8]) -> SharedKey {
        self.key_with(|hasher| hasher.value(Some(value)))
    }

    /// The key of a request: see [`Limiter::key_of`].
    ///
    /// # Errors
    ///
    /// [`MissingPart`] if it lacks a part and is refused then.
    pub fn key_of(
        &self,
        keys: &(impl KeyExtractor + ?Sized),
        request: &Parts,
    ) -> Result<Option<SharedKey>, MissingPart> {
        let policy = self.policy();
        let is_counted = policy.counts_request(keys, request)?;
        Ok(is_counted.then(|| self.key_with(|hasher| policy.write_key(keys, request, hasher))))
    }

    /// The key of what `write` adds, which must be the same each time.
    pub fn key_with(&self, write: impl Fn(&mut KeyHasher)) -> SharedKey {
        let mut own = self.0.whole.hasher();
        write(&mut own);
        let agreed = self.store().0.agreed.load_full();
        let mut remote = agreed.secret.hasher();
        remote.value(Some(self.0.group.id.as_bytes()));
        write(&mut remote);
        SharedKey::new(own.finish(), remote.finish_for_server(), agreed)
    }

    /// Charges `cost` to every limit of the policy, or to none.
    ///
    /// # Cancellation
    ///
    /// Dropping it costs nothing: the [`RedisDriver`](super::RedisDriver) waits for the server's answer and
    /// gives back what it charged. Only if the connection breaks before that answer, or the driver is gone or
    /// has thousands of tasks, the charge stays and refills with time.
    pub async fn admit(&self, key: SharedKey, cost: Cost) -> Verdict {
        self.admit_of(key, cost, None).await
    }

    /// [`SharedLimiter::admit`] of one of several decisions about a request: none asks after one that the
    /// server has left `unanswered`.
    pub(crate) async fn admit_of(
        &self,
        key: SharedKey,
        cost: Cost,
        unanswered: Option<&Unanswered>,
    ) -> Verdict {
        let group = &self.0.group;
        let (current, now) = (group.current(), group.now());
        let denies_all = |limit: &Limit| limit.max() == 0 && cost.of(limit.unit()) > 0;
        if current.limits().any(denies_all)
            && let Err(denied) = current.whole.admit_at(now, key.own(), cost)
        {
            return Verdict::Denied(denied);
        }
        let is_known_away = unanswered.is_some_and(Unanswered::is_set);
        let Some(route) = group.store.0.route(&key).filter(|_| !is_known_away) else {
            group.store.0.count_unasked();
            return self.decide_alone(now, &key, cost);
        };
        if let Some(denial) = current.denials.find(key.remote(), cost, now) {
            group.store.0.count_remembered();
            return Verdict::Denied(current.denied(now, &denial, cost));
        }
        // What is sent in vain may arrive all the same: not while answers fail to come.
        let is_clean = route.node.breaker.is_clean();
        let report = if is_clean { group.report(now, &key) } else { None };
        let unreported = |limit: &Limit| report.as_ref().map_or(0, |report| report.items().of(limit));
        let order = Order::new(current.limits(), cost, current.age(now), unreported);
        let Ok(Answer { fits, used }) = PendingDecision::new(self, route, &key, cost, order, report).await
        else {
            if let Some(unanswered) = unanswered {
                unanswered.set();
            }
            return self.decide_alone(group.now(), &key, cost);
        };
        if fits {
            let local = group.note(&current, now, key.own(), cost);
            let levels = current.whole.levels_of(now, &used);
            Verdict::Admitted(SharedReservation::new(self, key, cost, levels, Charged::Remotely(local)))
        } else {
            let (_, until) = script::worst(current.limits(), &used, cost, now);
            let denial = Denial { cost, at: now, until, used };
            let denied = current.denied(now, &denial, cost);
            current.denials.insert(key.remote(), denial);
            Verdict::Denied(denied)
        }
    }

    /// The reservation of a request that takes nothing of any limit: nobody is asked. What it turns out to
    /// have used is settled as that of others is.
    pub(crate) fn reserve_nothing(&self, key: SharedKey, cost: Cost) -> SharedReservation {
        let group = &self.0.group;
        let (current, now) = (group.current(), group.now());
        let known: Vec<f64> =
            current.local.levels_at(now, key.own()).used().map(|(_, used)| used as f64).collect();
        let levels = current.whole.levels_of(now, &known);
        let charged = Charged::Nothing(group.note(&current, now, key.own(), cost));
        SharedReservation::new(self, key, cost, levels, charged)
    }

    /// Decides without the server.
    fn decide_alone(&self, now: Timestamp, key: &SharedKey, cost: Cost) -> Verdict {
        let group = &self.0.group;
        match group.store.0.on_outage {
            OnOutage::Open => return Verdict::Unchecked,
            OnOutage::Closed => return Verdict::Unavailable(Unavailable),
            OnOutage::Local => {}
        }
        match group.current().charge_alone(now, key.own(), cost) {
            Ok(local) => {
                group.remember_unreported(now, key);
                let levels = local.levels().clone();
                let charged = Charged::Locally(local);
                Verdict::Admitted(SharedReservation::new(self, key.clone(), cost, levels, charged))
            }
            Err(denied) => Verdict::Denied(denied),
        }
    }

    /// What the server has denied to `key` lately, if it still holds.
    pub(crate) fn known_denial(&self, key: &SharedKey, cost: Cost) -> Option<Denied> {
        let (current, now) = (self.0.group.current(), self.0.group.now());
        let denial = current.denials.find(key.remote(), cost, now)?;
        Some(current.denied(now, &denial, cost))
    }

    /// That `cost` does not fit either, by the levels at which the server has denied something to `key`
    /// lately.
    pub(crate) fn known_shortage(&self, key: &SharedKey, cost: Cost) -> Option<Denied> {
        let (current, now) = (self.0.group.current(), self.0.group.now());
        let denial = current.denials.last(key.remote(), now)?;
        let levels = current.whole.levels_of(denial.at, &denial.used);
        match levels.shortage(cost)? {
            (column, None) => Some(Denied::new(levels, column, None)),
            (_, Some(wait)) => {
                (denial.at.saturating_add(wait) > now).then(|| current.denied(now, &denial, cost))
            }
        }
    }

    /// The policy as it is, and where requests wait for it.
    pub(crate) fn whole(&self) -> &Limiter {
        &self.0.whole
    }

    /// The denial of who comes too late in its queue, as far as this process knows the levels.
    pub(crate) fn denial(&self, key: Key, cost: Cost) -> Denied {
        self.0.group.current().denial(key, cost)
    }

    pub(super) fn group(&self) -> &Arc<PolicyGroup> {
        &self.0.group
    }
}

impl fmt::Debug for SharedLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (policy, store) = (self.policy(), self.store());
        f.debug_struct("SharedLimiter").field("policy", policy).field("store", store).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What the server is told after an outage of so many seconds with a request each second, by a limit of
    /// sixty a minute of which so many were in use at its beginning.
    fn told(used: u64, seconds: u64) -> i64 {
        let (store, _driver) = RedisStore::builder("redis://127.0.0.1:1/0".parse().unwrap()).build();
        let limit = Limit::requests_per_minute(60);
        let limiter = store.limiter("quota", Policy::builder().limit(limit.clone()).build().unwrap());
        let (key, group) = (limiter.key(b"alice"), limiter.group());
        let begun = group.now();
        let at = |seconds| begun.saturating_add(Duration::from_secs(seconds));
        (0..used).for_each(|_| drop(group.note(&group.current(), begun, key.own(), Cost::REQUEST)));
        for second in 1..=seconds {
            let verdict = limiter.decide_alone(at(second), &key, Cost::REQUEST);
            assert!(matches!(verdict, Verdict::Admitted(_)), "{second}: {verdict:?}");
        }
        let undelivered = group.report(at(seconds), &key).unwrap();
        let told = undelivered.items().of(&limit);
        drop(undelivered);
        let report = group.report(at(seconds), &key).unwrap();
        assert_eq!(report.items().of(&limit), told, "it was not told before");
        report.delivered();
        assert!(group.report(at(seconds), &key).is_none(), "it is told once");
        told
    }

    #[tokio::test]
    async fn the_server_is_told_what_was_used_beyond_what_has_refilled_there() {
        assert_eq!(told(60, 60), 60, "of what it knew nothing is left, and the bucket is empty");
        assert_eq!(told(60, 20), 20, "forty of what it knew are left");
        assert_eq!(told(30, 60), 30, "half of the bucket was free all the time");
        assert_eq!(told(60, 600), 60, "it is a bucket at most");
        assert_eq!(told(0, 3600), 1, "a key that goes on at its rate owes nothing but its last request");
    }

    /// What so many replicas admit in a minute by a limit of sixty a minute, each asked fifteen times a
    /// second, while the server answers for three seconds of twelve.
    fn admitted_through_outages(replicas: u32) -> usize {
        let limit = Limit::requests_per_minute(60);
        let policy = Policy::builder().limit(limit.clone()).build().unwrap();
        let limiters: Vec<SharedLimiter> = (0..replicas)
            .map(|_| {
                let builder = RedisStore::builder("redis://127.0.0.1:1/0".parse().unwrap());
                builder.replicas(replicas).build().0.limiter("quota", policy.clone())
            })
            .collect();
        let begun = limiters[0].group().now();
        let (mut level, mut admitted) = (0.0_f64, 0);
        for tick in 0..900 {
            let now = begun.saturating_add(Duration::from_secs(tick) / 15);
            level = (level - 1.0 / 15.0).max(0.0);
            for limiter in &limiters {
                let (key, group) = (limiter.key(b"alice"), limiter.group());
                if tick % 180 >= 45 {
                    let verdict = limiter.decide_alone(now, &key, Cost::REQUEST);
                    admitted += usize::from(matches!(verdict, Verdict::Admitted(_)));
                    continue;
                }
                if let Some(report) = group.report(now, &key) {
                    level = (level + report.items().of(&limit) as f64).min(120.0);
                    report.delivered();
                }
                if level <= 59.0 {
                    level += 1.0;
                    admitted += 1;
                    group.note(&group.current(), now, key.own(), Cost::REQUEST);
                }
            }
        }
        admitted
    }

    #[tokio::test]
    async fn calls_larger_than_a_share_pass_between_small_ones_and_no_faster_than_it_refills() {
        let builder = RedisStore::builder("redis://127.0.0.1:1/0".parse().unwrap()).replicas(4);
        let policy = Policy::builder().limit(Limit::tokens_per_hour(100_000)).build().unwrap();
        let limiter = builder.build().0.limiter("quota", policy);
        let (key, begun) = (limiter.key(b"alice"), limiter.group().now());
        let mut passed = [0, 0];
        for minute in 0..24 * 60 {
            let now = begun.saturating_add(Duration::from_secs(minute * 60));
            for (passed, tokens) in passed.iter_mut().zip([60_000, 100]) {
                let verdict = limiter.decide_alone(now, &key, Cost::tokens(tokens));
                *passed += if matches!(verdict, Verdict::Admitted(_)) { tokens } else { 0 };
            }
        }
        assert!(passed[0] >= 8 * 60_000, "{passed:?}");
        let most = 24 * 25_000 + 25_000 + 60_000;
        assert!(passed[0] + passed[1] <= most, "the share of a day, its bucket and one call: {passed:?}");
    }

    #[tokio::test]
    async fn a_server_that_comes_and_goes_lets_no_more_pass_than_one_that_stays() {
        for replicas in 1..4 {
            let admitted = admitted_through_outages(replicas);
            // Rounded up, each has a part of an item more.
            let most = 120 + replicas as usize;
            assert!((115..=most).contains(&admitted), "{admitted} by {replicas}");
        }
    }
}

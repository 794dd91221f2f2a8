//! A policy whose levels are on a server.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::denials::{Denial, Denials};
use super::script::{self, Answer, Order};
use super::settle::{Charged, SharedReservation};
use super::store::{Link, RedisStore};
use crate::clock::Timestamp;
use crate::cost::Cost;
use crate::error::Denied;
use crate::key::{Key, KeyHasher};
use crate::levels::Levels;
use crate::limiter::Limiter;
use crate::policy::{Limit, MAX_LIMITS, Policy};

/// Decides all limits of a policy at once, with the levels that all replicas have in common.
///
/// Clones share everything. [`SharedLimiter::with_policy`] gives a limiter with other amounts over the same levels.
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

/// Whose levels a request uses: one digest for this process, another that all replicas have in common.
#[derive(Clone)]
pub struct SharedKey {
    pub(super) own: Key,
    /// The name of the levels on the server, and the connection under whose secret it was made.
    remote: Option<(Arc<Link>, Key)>,
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
    Unavailable,
}

pub(super) struct Shared {
    pub(super) store: RedisStore,
    id: Box<str>,
    /// The policy as it is, for its arithmetic; its buckets stay empty.
    pub(super) whole: Limiter,
    share: ArcSwap<Share>,
    /// The policy of the newest limiter over these levels.
    latest: Arc<ArcSwap<Policy>>,
    denials: Denials,
    /// When all use that was not reported will have refilled.
    unreported_until: AtomicU64,
    /// Held while unreported use is taken, or the share is made anew.
    change: Mutex<()>,
}

/// This process's share of the limits.
pub(super) struct Share {
    replicas: u32,
    /// What this process decides alone; it sees the server's decisions too.
    pub(super) local: Limiter,
    /// What was used while the server was away.
    pub(super) unreported: Limiter,
}

// === impl SharedLimiter ===

impl SharedLimiter {
    pub(super) fn new(store: RedisStore, id: &str, policy: Policy) -> Self {
        let replicas = store.0.replicas();
        let of_one = share_of(&policy, replicas);
        let (local, unreported) = (Limiter::new(of_one.clone()), Limiter::new(of_one));
        Self(Arc::new(Shared {
            store,
            id: id.into(),
            latest: Arc::new(ArcSwap::from_pointee(policy.clone())),
            whole: Limiter::new(policy),
            share: ArcSwap::from_pointee(Share { replicas, local, unreported }),
            denials: Denials::default(),
            unreported_until: AtomicU64::new(0),
            change: Mutex::new(()),
        }))
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        self.0.whole.policy()
    }

    /// The connection.
    pub fn store(&self) -> &RedisStore {
        &self.0.store
    }

    /// A limiter for `policy` over the same levels: see [`Limiter::with_policy`].
    pub fn with_policy(&self, policy: Policy) -> Self {
        let (shared, now) = (&self.0, self.0.whole.now());
        let share = shared.share();
        let of_one = share_of(&policy, share.replicas);
        shared.latest.store(Arc::new(policy.clone()));
        let next = Share {
            replicas: share.replicas,
            local: share.local.with_policy_at(now, of_one.clone()),
            unreported: share.unreported.with_policy_at(now, of_one),
        };
        Self(Arc::new(Shared {
            store: shared.store.clone(),
            id: shared.id.clone(),
            whole: shared.whole.with_policy_at(now, policy),
            share: ArcSwap::from_pointee(next),
            latest: Arc::clone(&shared.latest),
            denials: Denials::default(),
            unreported_until: AtomicU64::new(shared.unreported_until.load(Ordering::Relaxed)),
            change: Mutex::new(()),
        }))
    }

    /// What four of five recent requests used at most, in tokens; 0 as long as nothing was settled.
    pub fn typical_tokens(&self) -> u64 {
        self.0.whole.typical_tokens()
    }

    /// Keys whose buckets are not all full as far as this process knows. Takes time in proportion to the table.
    pub fn live_keys(&self) -> usize {
        self.0.share().local.live_keys_at(self.0.whole.now())
    }

    /// The key of a single value.
    pub fn key(&self, value: &[u8]) -> SharedKey {
        self.key_of(|hasher| hasher.value(Some(value)))
    }

    /// The key of what `write` adds, which must be the same each time.
    pub fn key_of(&self, write: impl Fn(&mut KeyHasher)) -> SharedKey {
        let digest = |mut hasher: KeyHasher| {
            write(&mut hasher);
            hasher.finish()
        };
        let remote = self.0.store.0.link().map(|link| {
            let mut hasher = link.secret.hasher();
            hasher.value(Some(self.0.id.as_bytes()));
            let key = digest(hasher);
            (link, key)
        });
        SharedKey { own: digest(self.0.whole.hasher()), remote }
    }

    /// Charges `cost` to every limit of the policy, or to none.
    ///
    /// # Cancellation
    ///
    /// Dropping it leaves open whether the server charges; what it charged refills with time.
    pub async fn admit(&self, key: SharedKey, cost: Cost) -> Verdict {
        let (shared, now) = (&self.0, self.0.whole.now());
        let denies_all = |limit: &Limit| limit.max() == 0 && cost.of(limit.unit()) > 0;
        if shared.limits().any(denies_all)
            && let Err(denied) = shared.whole.admit_at(now, key.own, cost)
        {
            return Verdict::Denied(denied);
        }
        let Some((link, remote)) = key.remote.clone() else {
            shared.store.0.count_unasked();
            return self.decide_alone(now, &key, cost);
        };
        if let Some(denial) = shared.denials.find(remote, cost, now) {
            shared.store.0.count_remembered();
            return Verdict::Denied(shared.denied(now, denial));
        }
        let unreported = shared.take_unreported(now, key.own);
        let of = |limit: &Limit| unreported.as_ref().map_or(0, |unreported| unreported.of(shared, limit));
        let order = Order::new(shared.limits(), cost, of);
        match shared.store.0.ask(&link, &name(remote), &order, shared.limits().count()).await {
            Ok(Answer { fits: true, used }) => {
                let local =
                    shared.share().local.admit_at(now, key.own, cost).ok().map(|local| local.reserve());
                let levels = shared.levels(now, &used);
                Verdict::Admitted(SharedReservation::new(self, key, cost, levels, Charged::Remotely(local)))
            }
            Ok(Answer { fits: false, used }) => {
                let (column, until) = script::worst(shared.limits(), &used, cost, now);
                let denial = Denial { cost, at: now, until, column, used };
                shared.denials.insert(remote, denial.clone());
                Verdict::Denied(shared.denied(now, denial))
            }
            Err(_) => {
                if let Some(unreported) = unreported {
                    shared.put_back(now, key.own, &unreported);
                }
                self.decide_alone(shared.whole.now(), &key, cost)
            }
        }
    }

    /// Decides without the server.
    fn decide_alone(&self, now: Timestamp, key: &SharedKey, cost: Cost) -> Verdict {
        let shared = &self.0;
        match shared.store.0.on_outage {
            OnOutage::Open => return Verdict::Unchecked,
            OnOutage::Closed => return Verdict::Unavailable,
            OnOutage::Local => {}
        }
        let share = shared.share();
        match share.local.admit_at(now, key.own, cost) {
            Ok(local) => {
                let local = local.reserve();
                let unreported = share.unreported.admit_at(now, key.own, cost);
                let unreported = unreported.ok().map(|unreported| unreported.reserve());
                shared.remember_unreported(now);
                let levels = local.levels().clone();
                let charged = Charged::Locally { local, unreported };
                Verdict::Admitted(SharedReservation::new(self, key.clone(), cost, levels, charged))
            }
            Err(denied) => Verdict::Denied(denied),
        }
    }

    /// The policy as it is, and where requests wait for it.
    pub(crate) fn whole(&self) -> &Limiter {
        &self.0.whole
    }

    /// What this process knows of the levels.
    pub(crate) fn local(&self) -> Limiter {
        self.0.share().local.clone()
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }
}

impl fmt::Debug for SharedLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (policy, store) = (self.policy(), &self.0.store);
        f.debug_struct("SharedLimiter").field("policy", policy).field("store", store).finish_non_exhaustive()
    }
}

// === impl SharedKey ===

impl SharedKey {
    /// The digest for this process.
    pub(crate) fn own(&self) -> Key {
        self.own
    }

    /// The name of the levels on the server; `None` if it was away when the key was made.
    pub(super) fn remote(&self) -> Option<Key> {
        self.remote.as_ref().map(|(_, key)| *key)
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedKey").field(&self.own).finish()
    }
}

/// The name of a key's levels on the server, whole within its hash tag.
pub(super) fn name(key: Key) -> String {
    format!("nrl:{{{:016x}{:016x}}}", key.shard, key.tag)
}

// === impl Shared ===

impl Shared {
    pub(super) fn limits(&self) -> impl Iterator<Item = &Limit> {
        self.whole.policy().limits().iter()
    }

    /// The policy of the newest limiter over these levels: the server forgets limits that it is not asked about.
    pub(super) fn latest(&self) -> Arc<Policy> {
        self.latest.load_full()
    }

    /// This process's share, by the present number of replicas.
    pub(super) fn share(&self) -> Arc<Share> {
        let share = self.share.load_full();
        let replicas = self.store.0.replicas();
        if share.replicas == replicas {
            return share;
        }
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let share = self.share.load_full();
        if share.replicas == replicas {
            return share;
        }
        let (now, of_one) = (self.whole.now(), share_of(self.whole.policy(), replicas));
        let next = Arc::new(Share {
            replicas,
            local: share.local.with_policy_at(now, of_one.clone()),
            unreported: share.unreported.with_policy_at(now, of_one),
        });
        self.share.store(Arc::clone(&next));
        next
    }

    /// Use that the server must be told of, from now on.
    pub(super) fn remember_unreported(&self, now: Timestamp) {
        let longest = self.limits().map(|limit| {
            // A bucket, rounded up, and its debt.
            let windows = u32::try_from(limit.capacity() / limit.max().max(1)).unwrap_or(u32::MAX);
            limit.window().saturating_mul(windows.saturating_add(2))
        });
        let until = now.saturating_add(longest.max().unwrap_or_default());
        self.unreported_until.fetch_max(until.as_nanos(), Ordering::Relaxed);
    }

    /// Takes the use of `key` that the server was not told of.
    fn take_unreported(&self, now: Timestamp, key: Key) -> Option<Used> {
        // What is sent in vain may arrive all the same: not while answers fail to come.
        if self.unreported_until.load(Ordering::Relaxed) <= now.as_nanos() || !self.store.0.breaker.is_clean()
        {
            return None;
        }
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let unreported = &self.share.load().unreported;
        let used = Used(unreported.used_at(now, key));
        if used.0.iter().all(|items| *items == 0) {
            return None;
        }
        unreported.correct_at(now, key, |limit| -used.of(self, limit));
        Some(used)
    }

    /// Owes `used` again.
    fn put_back(&self, now: Timestamp, key: Key, used: &Used) {
        self.share().unreported.correct_at(now, key, |limit| used.of(self, limit));
        self.remember_unreported(now);
    }

    /// The levels as the server tells them.
    fn levels(&self, now: Timestamp, used: &[f64]) -> Levels {
        self.whole.levels_of(now, used)
    }

    fn denied(&self, now: Timestamp, denial: Denial) -> Denied {
        let levels = self.levels(now, &denial.used);
        Denied::new(levels, denial.column, Some(denial.until.since(now)))
    }

    pub(super) fn forget_denial(&self, key: Key) {
        self.denials.remove(key);
    }
}

/// Items in use, by position in the policy.
struct Used([u64; MAX_LIMITS]);

impl Used {
    fn of(&self, shared: &Shared, limit: &Limit) -> i64 {
        let position = shared.limits().position(|other| other.is_same_as(limit));
        let items = position.and_then(|position| self.0.get(position)).copied().unwrap_or(0);
        i64::try_from(items).unwrap_or(i64::MAX)
    }
}

/// The policy for one of `replicas`: each limit divided, at least 1, unless it denies all.
fn share_of(policy: &Policy, replicas: u32) -> Policy {
    policy.map_amounts(|max| if max == 0 { 0 } else { max.div_ceil(u64::from(replicas.max(1))) })
}

//! The levels of every policy, in this process or in a store that several share.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use nantian_ratelimit::{
    Limiter, Policy, RateLimitLayer,
    redis::{RedisStore, SharedLimiter},
};

use super::lengths::Lengths;
use crate::{
    ir::{ObjectName, PolicyId},
    metrics::{Keys, LimitMetrics, Metrics},
};

/// The limiter of a TokenPolicy, and what it counts.
#[derive(Debug, Clone)]
pub(crate) struct PolicyLimiter {
    levels: Levels,
    /// How long prompts to its Services and their answers were.
    lengths: Arc<Lengths>,
    metrics: Arc<LimitMetrics>,
    object: Arc<str>,
    ipv6_prefix: u8,
}

#[derive(Debug, Clone)]
enum Levels {
    /// Of this process.
    Process(Limiter),
    /// Of all that share the store.
    Shared(SharedLimiter),
}

/// The levels of every policy, which outlive its edits.
#[derive(Debug)]
pub(crate) struct Limiters {
    store: Option<RedisStore>,
    /// The bits of an IPv6 address by which clients are told apart.
    ipv6_prefix: u8,
    metrics: Arc<Metrics>,
    by_policy: BTreeMap<PolicyId, PolicyLimiter>,
    /// Those that nothing refers to, at which nobody waits.
    lifted: BTreeSet<PolicyId>,
}

impl Limiters {
    /// No levels yet; they will be in `store`, or in this process if there is none. So many bits of an IPv6
    /// address are a client.
    pub(crate) fn new(store: Option<RedisStore>, ipv6_prefix: u8, metrics: Arc<Metrics>) -> Self {
        Self { store, ipv6_prefix, metrics, by_policy: BTreeMap::new(), lifted: BTreeSet::new() }
    }

    /// Where the levels are, if not in this process.
    pub(crate) fn store(&self) -> Option<&RedisStore> {
        self.store.as_ref()
    }

    /// The limiter of a policy: a new amount keeps what was used.
    pub(crate) fn get(&mut self, id: &PolicyId, object: &ObjectName, policy: Policy) -> PolicyLimiter {
        let is_lifted = self.lifted.remove(id);
        let levels = match (self.by_policy.get(id), &self.store) {
            (Some(limiter), _) if *limiter.policy() == policy && !is_lifted => return limiter.clone(),
            (Some(limiter), _) => limiter.levels.successor(policy),
            (None, Some(store)) => Levels::Shared(store.limiter(&id.0, policy)),
            (None, None) => Levels::Process(Limiter::new(policy)),
        };
        let lengths = self.by_policy.get(id).map(PolicyLimiter::lengths).unwrap_or_default();
        let name = object.to_string();
        let metrics = self.metrics.limits(&name);
        let counted = levels.clone();
        metrics.count_keys(move || counted.keys());
        let ipv6_prefix = self.ipv6_prefix;
        let limiter = PolicyLimiter { levels, lengths, metrics, object: name.into(), ipv6_prefix };
        let limits = limiter.policy().limits();
        limiter.metrics.set_amounts(limits.iter().map(|limit| (limit.name().as_str(), limit.max())));
        self.by_policy.insert(id.clone(), limiter.clone());
        limiter
    }

    /// The limiter that a policy had before, if it had one.
    pub(crate) fn last(&self, id: &PolicyId) -> Option<PolicyLimiter> {
        self.by_policy.get(id).cloned()
    }

    /// Forgets the policies that do not exist any more. Who waits for one that is not in use passes.
    pub(crate) fn retain(
        &mut self,
        exists: impl Fn(&PolicyId) -> bool,
        is_in_use: impl Fn(&PolicyId) -> bool,
    ) {
        for (id, limiter) in self.by_policy.iter().filter(|(id, _)| !is_in_use(id)) {
            limiter.levels.lift();
            self.lifted.insert(id.clone());
        }
        self.by_policy.retain(|id, _| exists(id));
        self.lifted.retain(exists);
        self.metrics.retain_limits(|name| self.by_policy.values().any(|limiter| &*limiter.object == name));
    }
}

impl PolicyLimiter {
    /// The policy.
    pub(crate) fn policy(&self) -> &Policy {
        match &self.levels {
            Levels::Process(limiter) => limiter.policy(),
            Levels::Shared(limiter) => limiter.policy(),
        }
    }

    pub(super) fn layer(self) -> RateLimitLayer {
        let layer = match self.levels {
            Levels::Process(limiter) => RateLimitLayer::new(limiter),
            Levels::Shared(limiter) => RateLimitLayer::shared(limiter),
        };
        // Observers of usage settle.
        layer.usage_meter(())
    }

    pub(super) fn ipv6_prefix(&self) -> u8 {
        self.ipv6_prefix
    }

    pub(super) fn lengths(&self) -> Arc<Lengths> {
        Arc::clone(&self.lengths)
    }

    pub(super) fn metrics(&self) -> Arc<LimitMetrics> {
        Arc::clone(&self.metrics)
    }

    /// The name of the object, `namespace/name`.
    pub(super) fn object(&self) -> Arc<str> {
        Arc::clone(&self.object)
    }
}

impl Levels {
    fn successor(&self, policy: Policy) -> Self {
        match self {
            Self::Process(limiter) => Self::Process(limiter.successor(policy)),
            Self::Shared(limiter) => Self::Shared(limiter.successor(policy)),
        }
    }

    /// Lets those pass who wait.
    fn lift(&self) {
        match self {
            Self::Process(limiter) => limiter.lift(),
            Self::Shared(limiter) => limiter.lift(),
        }
    }

    fn keys(&self) -> Keys {
        match self {
            Self::Process(limiter) => Keys { live: limiter.live_keys(), overflows: limiter.overflows() },
            Self::Shared(limiter) => Keys { live: limiter.live_keys(), overflows: limiter.overflows() },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, time::Duration};

    use http::Request;
    use nantian_ratelimit::{Cost, Limit, OnLimit, Queue};
    use tokio::time::timeout;

    use super::*;

    #[test]
    fn a_new_amount_keeps_what_was_used() {
        let policy = |max| Policy::builder().limit(Limit::requests_per_minute(max)).build().unwrap();
        let (id, object) = (PolicyId("uid".to_owned()), ObjectName::new("demo", "quota"));
        let mut limiters = Limiters::new(None, 64, Arc::new(Metrics::new(1)));
        let mut with = |max| match limiters.get(&id, &object, policy(max)).levels {
            Levels::Process(limiter) => limiter,
            Levels::Shared(_) => panic!("there is no store"),
        };
        let limiter = with(2);
        let key = limiter.key(b"route");
        assert!(limiter.admit(key, Cost::REQUEST).is_ok());
        assert!(limiter.admit(key, Cost::REQUEST).is_ok());
        assert!(limiter.admit(key, Cost::REQUEST).is_err());
        let edited = with(3);
        assert!(edited.admit(key, Cost::REQUEST).is_ok());
        assert!(edited.admit(key, Cost::REQUEST).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_policy_that_is_gone_passes() {
        let policy = Policy::builder().limit(Limit::requests_per_hour(1));
        let policy = policy.on_limit(OnLimit::Queue(Queue::default().with_max_wait(Duration::MAX)));
        let (id, object) = (PolicyId("uid".to_owned()), ObjectName::new("demo", "quota"));
        let mut limiters = Limiters::new(None, 64, Arc::new(Metrics::new(1)));
        let layer = limiters.get(&id, &object, policy.build().unwrap()).layer();
        let ask = async || layer.begin(&mut Request::new(()).into_parts().0).await.is_ok();
        assert!(ask().await);
        let mut waiting = pin!(ask());
        assert!(timeout(Duration::from_secs(1), waiting.as_mut()).await.is_err(), "for an hour");
        limiters.retain(|known| *known == id, |_| true);
        assert!(timeout(Duration::from_secs(1), waiting.as_mut()).await.is_err());
        limiters.retain(|_| false, |_| false);
        assert_eq!(timeout(Duration::from_secs(1), waiting).await, Ok(true));
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_when_a_policy_is_in_use_again_waits_for_what_was_used_before() {
        let policy = Policy::builder().limit(Limit::requests_per_minute(1));
        let policy = policy.on_limit(OnLimit::Queue(Queue::default().with_max_wait(Duration::MAX)));
        let policy = policy.build().unwrap();
        let (id, object) = (PolicyId("uid".to_owned()), ObjectName::new("demo", "quota"));
        let mut limiters = Limiters::new(None, 64, Arc::new(Metrics::new(1)));
        let ask = async |layer: &RateLimitLayer| {
            timeout(Duration::from_secs(1), layer.begin(&mut Request::new(()).into_parts().0)).await.is_ok()
        };
        let layer = limiters.get(&id, &object, policy.clone()).layer();
        assert!(ask(&layer).await);
        assert!(!ask(&layer).await);
        limiters.retain(|_| true, |_| false);
        assert!(ask(&layer).await, "of what is still on its way there nobody waits");
        limiters.retain(|_| true, |_| true);
        assert!(!ask(&limiters.get(&id, &object, policy).layer()).await);
    }
}

//! An immutable set of endpoints with the tables to choose from it.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::balancer::Picked;
use crate::clock::Timestamp;
use crate::cluster::Cluster;
use crate::config::{BalanceConfig, Strategy};
use crate::context::PickContext;
use crate::endpoint::Readiness;
use crate::error::PickError;
use crate::hash::{KeyHash, remix};
use crate::health::select::Eligibility;
use crate::in_flight::{EndpointHandle, InFlight, Interest};
use crate::key::HashKey;
use crate::members::{Member, MemberRef, Members};
use crate::plan::{Choice, Plan};
use crate::strategy::scale;
use crate::thread_cache::Rng;

/// An immutable set of endpoints with the tables to choose from it.
pub(crate) struct Set<T> {
    /// What nearly all picks go by: the only choice, if whatever it gives may be taken as it is.
    free: Option<Choice>,
    pub(crate) members: Arc<Members<T>>,
    interest: Interest,
    /// Whether response times matter.
    times: bool,
    /// What places are hashed by.
    key: Option<HashKey>,
    config: Arc<BalanceConfig>,
    plan: Plan,
}

/// How a pick came about, as far as sessions are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// By the strategy.
    Chosen,
    /// It is the endpoint of the session.
    Session,
    /// The endpoint of the session is there and well, and has no place at the moment.
    Detour,
}

/// How often a choice that cannot be taken is made anew before all endpoints are gone through.
const REDRAWS: u32 = 4;

// === impl Set ===

impl<T> Set<T> {
    /// The set of these members; tables of `old` that would come out the same are taken over. Under the lock
    /// of updates.
    pub(crate) fn new(
        config: Arc<BalanceConfig>,
        members: Arc<Members<T>>,
        now: Timestamp,
        old: Option<&Self>,
    ) -> Self {
        let old = old.map(|old| (&old.plan, &*old.config));
        let plan = members.plan(&config, now, old);
        let is_bounded = config.max_inflight_requests.is_some() || config.load_bound().is_some();
        let free = match &*plan.tiers {
            [only] if plan.is_free && !is_bounded => Some(only.choice.clone()),
            _ => None,
        };
        let times = config.decay().is_some() || config.samples_times();
        let key = match &config.strategy {
            Strategy::ConsistentHash(key) => Some(key.clone()),
            _ => None,
        };
        Self { free, members, interest: Interest::of(&config), times, key, config, plan }
    }

    pub(crate) fn config(&self) -> &Arc<BalanceConfig> {
        &self.config
    }

    /// When the state of health that it is made for is out of date.
    pub(crate) fn next(&self) -> Timestamp {
        self.plan.next
    }

    #[inline]
    fn key(&self, context: &PickContext<'_>) -> Option<KeyHash> {
        self.key.as_ref()?.hash(context.keys?)
    }
}

impl<T: Clone> Set<T> {
    #[inline]
    pub(crate) fn pick(
        &self,
        context: &PickContext<'_>,
        rng: &mut Rng,
        cursor: &AtomicU64,
        cluster: &Cluster,
    ) -> Result<Picked<T>, PickError> {
        if let Some(choice) = self.free.as_ref().filter(|_| context.is_plain()) {
            let key = self.key(context);
            let random = if choice.is_by_chance(key) { context.random(rng) } else { 0 };
            let chosen = self.choose(choice, random, key, cursor, cluster);
            if let Some((target, in_flight)) = chosen.and_then(|(_, member)| self.enter(member, random)) {
                return Ok(Picked { target, in_flight, reason: Reason::Chosen });
            }
        }
        self.pick_slow_path(context, context.random(rng), cursor, cluster)
    }

    /// A pick of a session, of a request that was tried before, or from a set of which not all can be taken.
    #[inline(never)]
    fn pick_slow_path(
        &self,
        context: &PickContext<'_>,
        random: u64,
        cursor: &AtomicU64,
        cluster: &Cluster,
    ) -> Result<Picked<T>, PickError> {
        let reason = match self.resume(context, random) {
            Ok(found) => return Ok(found),
            Err(reason) => reason,
        };
        let key = self.key(context);
        let spread = key.map_or(random, |key| key.0);
        if let Some((target, in_flight)) = self.try_nearer(context, spread, cluster) {
            return Ok(Picked { target, in_flight, reason });
        }
        // The tier is drawn by other bits than the endpoint in it.
        let tier = if self.plan.tiers.len() > 1 { remix(!spread) } else { 0 };
        let choice = &self.plan.tier(tier).ok_or_else(|| self.refusal())?.choice;
        let found = if self.is_free(context) {
            let chosen = self.choose(choice, random, key, cursor, cluster);
            chosen.and_then(|(_, member)| self.enter(member, random))
        } else {
            self.search(choice, context, random, key, cursor, cluster)
        };
        let (target, in_flight) = found.ok_or_else(|| self.refusal())?;
        Ok(Picked { target, in_flight, reason })
    }

    /// One whose tier would get nothing else: nobody would find out that it is well, or all requests would at
    /// once.
    fn try_nearer(&self, context: &PickContext<'_>, seed: u64, cluster: &Cluster) -> Option<(T, InFlight)> {
        let is_wanted = |member: &MemberRef| {
            self.plan.uses.get(member.at()) == Some(&Eligibility::OneAtATime)
                && !context.tried.contains(member.handle.id())
        };
        let mut nearer = self.plan.tiers.iter().filter(|tier| tier.is_tried_first);
        nearer.find_map(|tier| self.scan(&tier.choice, seed, cluster, None, is_wanted))
    }

    /// Whether every choice may be taken as it is.
    fn is_free(&self, context: &PickContext<'_>) -> bool {
        self.plan.is_free
            && self.config.max_inflight_requests.is_none()
            && self.config.load_bound().is_none()
            && context.tried.is_empty()
    }

    /// The endpoint of the session that the request belongs to, if it is there, well, and has a place.
    fn resume(&self, context: &PickContext<'_>, random: u64) -> Result<Picked<T>, Reason> {
        let at = context.session.and_then(|session| self.members.find(session.endpoint));
        let Some((at, member)) = at.and_then(|at| Some((at, self.members.get(at)?))) else {
            return Err(Reason::Chosen);
        };
        let health = member.handle.health();
        let is_lost = match member.readiness {
            Readiness::NotReady => true,
            Readiness::Ready if member.weight > 0 => match self.plan.uses.get(at) {
                Some(Eligibility::Free) => false,
                // It wants to be spared, and nothing else.
                _ if health.is_well() => return Err(Reason::Detour),
                _ => true,
            },
            // The plan says nothing of those that get no new requests, and keep their sessions.
            _ => health.is_ejected(),
        };
        if is_lost || context.tried.contains(member.handle.id()) {
            return Err(Reason::Chosen);
        }
        let entered = self.enter_below(&member.handle, self.interest(&member.handle, random));
        match entered.map(|in_flight| (member.target.clone(), in_flight)) {
            Some((target, in_flight)) => Ok(Picked { target, in_flight, reason: Reason::Session }),
            None => Err(Reason::Detour),
        }
    }

    #[inline]
    fn choose<'c>(
        &self,
        choice: &'c Choice,
        random: u64,
        key: Option<KeyHash>,
        cursor: &AtomicU64,
        cluster: &Cluster,
    ) -> Option<(usize, &'c MemberRef)> {
        let place = choice.place(random, key, cursor, cluster);
        Some((place, choice.member(place)?))
    }

    /// Chooses until a choice can be taken; then takes the first that can, from a place that differs from
    /// pick to pick, or from key to key, so that no single neighbour inherits the load. Endpoints that were
    /// tried before come last.
    #[cold]
    fn search(
        &self,
        choice: &Choice,
        context: &PickContext<'_>,
        random: u64,
        key: Option<KeyHash>,
        cursor: &AtomicU64,
        cluster: &Cluster,
    ) -> Option<(T, InFlight)> {
        let is_tried = |member: &MemberRef| context.tried.contains(member.handle.id());
        let bound = self.config.load_bound();
        let (mut random, mut key) = (random, key);
        for _ in 0..REDRAWS {
            let (place, member) = self.choose(choice, random, key, cursor, cluster)?;
            if !is_tried(member)
                && let Some(found) = self.admit(choice, place, random, cluster, bound)
            {
                return Some(found);
            }
            random = remix(random);
            key = key.map(|KeyHash(key)| KeyHash(remix(key)));
        }
        let seed = key.map_or(random, |key| key.0);
        let pass = |bound| {
            let others = self.plan.tiers.iter().map(|tier| &tier.choice);
            let others = others.filter(|other| !std::ptr::eq(*other, choice));
            let mut choices = [choice].into_iter().chain(others);
            choices.find_map(|choice| self.scan(choice, seed, cluster, bound, |member| !is_tried(member)))
        };
        // The bound steers and never refuses.
        pass(bound).or_else(|| bound.and_then(|_| pass(None))).or_else(|| {
            self.scan(choice, seed, cluster, None, |member| context.may_return && is_tried(member))
        })
    }

    fn scan(
        &self,
        choice: &Choice,
        seed: u64,
        cluster: &Cluster,
        bound: Option<NonZeroU32>,
        is_wanted: impl Fn(&MemberRef) -> bool,
    ) -> Option<(T, InFlight)> {
        let n = choice.len();
        let first = scale(remix(seed), n);
        let mut places = (first..n).chain(0..first);
        places.find_map(|place| {
            if is_wanted(choice.member(place)?) {
                self.admit(choice, place, seed, cluster, bound)
            } else {
                None
            }
        })
    }

    /// Enters the endpoint at this place, if it may have one more request; `bound` is that of its load, in
    /// percent.
    fn admit(
        &self,
        choice: &Choice,
        place: usize,
        random: u64,
        cluster: &Cluster,
        bound: Option<NonZeroU32>,
    ) -> Option<(T, InFlight)> {
        let member = choice.member(place)?;
        let is_probe = match self.plan.uses.get(member.at())? {
            Eligibility::Free => false,
            Eligibility::OneAtATime => true,
            Eligibility::Not => return None,
        };
        if let Some(percent) = bound
            && member.handle.in_flight() >= fair_load(choice, place, cluster.counted(), percent)
        {
            return None;
        }
        let interest = self.interest(&member.handle, random);
        let enter = |interest| self.enter_below(&member.handle, interest);
        let in_flight = if is_probe { member.handle.probe(interest, enter) } else { enter(interest) }?;
        Some((self.members.get(member.at())?.target.clone(), in_flight))
    }

    #[inline]
    fn enter(&self, member: &MemberRef, random: u64) -> Option<(T, InFlight)> {
        let target = self.members.get(member.at())?.target.clone();
        Some((target, member.handle.enter(self.interest(&member.handle, random))))
    }

    fn enter_below(&self, handle: &EndpointHandle, interest: Interest) -> Option<InFlight> {
        match self.config.max_inflight_requests {
            None => Some(handle.enter(interest)),
            Some(max) => handle.try_enter(max, interest),
        }
    }

    /// What is of interest about a request there.
    #[inline]
    fn interest(&self, handle: &EndpointHandle, random: u64) -> Interest {
        let is_timed = self.times && handle.latency().is_wanted(random);
        self.interest.timed(is_timed)
    }

    #[cold]
    fn refusal(&self) -> PickError {
        let is_open = |member: &Member<T>| member.weight > 0 && member.readiness != Readiness::NotReady;
        if !self.members.all().iter().any(is_open) {
            return PickError::NoEndpoints;
        }
        let may_be_picked = |used: &Eligibility| *used != Eligibility::Not;
        match self.config.max_inflight_requests {
            Some(max) if self.plan.uses.iter().any(may_be_picked) => PickError::Saturated { max },
            _ => PickError::NoneHealthy,
        }
    }
}

/// The most requests that the endpoint at this place may have, of `counted` and one more: its share times the
/// factor, rounded up.
fn fair_load(choice: &Choice, place: usize, counted: usize, percent: NonZeroU32) -> usize {
    let share = (counted as u128 + 1) * u128::from(choice.weight(place)) * u128::from(percent.get().max(100));
    usize::try_from(share.div_ceil(u128::from(choice.weight_sum.max(1)) * 100)).unwrap_or(usize::MAX)
}

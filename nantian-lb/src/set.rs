//! An immutable set of endpoints with the tables to choose from it.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::{BalanceConfig, Strategy};
use crate::context::PickContext;
use crate::endpoint::Readiness;
use crate::error::PickError;
use crate::group::Group;
use crate::hash::{KeyHash, remix};
use crate::health::select::Use;
use crate::in_flight::{InFlight, Watch};
use crate::members::{Member, Members};
use crate::plan::{Choice, Plan};
use crate::strategy::{Loads, scale};

/// An immutable set of endpoints with the tables to choose from it.
pub(crate) struct Set<T> {
    config: Arc<BalanceConfig>,
    watch: Watch,
    /// Some requests are timed.
    samples: bool,
    /// All are.
    decay: Option<Duration>,
    pub(crate) members: Arc<Members<T>>,
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

/// What a pick gives.
pub(crate) struct Found<T> {
    pub(crate) target: T,
    pub(crate) in_flight: InFlight,
    pub(crate) reason: Reason,
}

/// One request in so many is timed where response times matter little.
const TIMED: u64 = 16;
/// One in so many, timed too, is chosen as if no times were known: who was slow once could never show that it is well.
const BLIND: u64 = 64;

/// How often a choice that cannot be taken is made anew before all endpoints are gone through.
const REDRAWS: u32 = 4;

/// The loads of the members that a choice is about.
struct LoadsOf<'a, T> {
    members: &'a Members<T>,
    choice: &'a Choice,
    times: Times,
}

/// Which response times a choice is to know.
#[derive(Clone, Copy)]
enum Times {
    None,
    /// Those of samples.
    Sampled,
    /// Those that have faded until now.
    Faded {
        now: Timestamp,
        decay: Duration,
    },
}

// === impl Set ===

impl<T> Set<T> {
    /// The set of these members; tables of `old` that would come out the same are taken over. Under the lock of updates.
    pub(crate) fn new(
        config: Arc<BalanceConfig>,
        members: Arc<Members<T>>,
        now: Timestamp,
        old: Option<&Self>,
    ) -> Self {
        let old = old.map(|old| (&old.plan, &*old.config));
        let plan = members.plan(&config, now, old);
        let (watch, samples, decay) = (Watch::of(&config), config.samples_times(), config.decay());
        Self { config, watch, samples, decay, members, plan }
    }

    pub(crate) fn config(&self) -> &Arc<BalanceConfig> {
        &self.config
    }

    /// When the state of health that it is made for is out of date.
    pub(crate) fn next(&self) -> Timestamp {
        self.plan.next
    }

    fn key(&self, context: &PickContext<'_>) -> Option<KeyHash> {
        match &self.config.strategy {
            Strategy::ConsistentHash(key) => key.hash(context.keys?),
            _ => None,
        }
    }
}

impl<T: Clone> Set<T> {
    pub(crate) fn pick(
        &self,
        context: &PickContext<'_>,
        cursor: &AtomicU64,
        group: &Group,
    ) -> Result<Found<T>, PickError> {
        // Where the time is of interest for every pick it is asked for once.
        let timed;
        let context = if self.decay.is_some() {
            timed = PickContext { now: Some(group.clock.now()), ..*context };
            &timed
        } else {
            context
        };
        let reason = match self.resume(context) {
            Ok(found) => return Ok(found),
            Err(reason) => reason,
        };
        let key = self.key(context);
        let spread = key.map_or(context.random, |key| key.0);
        // The tier is drawn by other bits than the endpoint in it.
        let tier = if self.plan.tiers.len() > 1 { remix(!spread) } else { 0 };
        let choice = &self.plan.tier(tier).ok_or_else(|| self.refusal())?.choice;
        let found = if self.is_free(context) {
            let member = self.choose(choice, context.random, key, cursor, context.now);
            member.map(|(_, member)| self.enter(member, context))
        } else {
            self.search(choice, context, key, cursor, group)
        };
        let (target, in_flight) = found.ok_or_else(|| self.refusal())?;
        Ok(Found { target, in_flight, reason })
    }

    /// Whether every choice may be taken as it is.
    fn is_free(&self, context: &PickContext<'_>) -> bool {
        self.plan.is_free
            && self.config.max_inflight_requests.is_none()
            && self.config.load_bound().is_none()
            && context.tried.is_empty()
    }

    /// The endpoint of the session that the request belongs to, if it is there, well, and has a place.
    fn resume(&self, context: &PickContext<'_>) -> Result<Found<T>, Reason> {
        let at = context.session.and_then(|session| self.members.find(session.endpoint));
        let Some((at, member)) = at.and_then(|at| Some((at, self.members.get(at)?))) else {
            return Err(Reason::Chosen);
        };
        let is_lost = match member.readiness {
            Readiness::NotReady => true,
            Readiness::Ready if member.weight > 0 => self.plan.uses.get(at) != Some(&Use::Free),
            // The plan says nothing of those that get no new requests, and keep their sessions.
            _ => member.seat.standing().is_ejected(),
        };
        if is_lost || context.tried.contains(member.seat.id()) {
            return Err(Reason::Chosen);
        }
        match self.try_enter(member, self.config.max_inflight_requests, context) {
            Some((target, in_flight)) => Ok(Found { target, in_flight, reason: Reason::Session }),
            None => Err(Reason::Detour),
        }
    }

    fn choose<'s>(
        &'s self,
        choice: &Choice,
        random: u64,
        key: Option<KeyHash>,
        cursor: &AtomicU64,
        now: Option<Timestamp>,
    ) -> Option<(usize, &'s Member<T>)> {
        let times = match self.decay.zip(now) {
            Some((decay, now)) => Times::Faded { now, decay },
            // By bits that choices hardly depend on.
            None if self.samples && !random.is_multiple_of(BLIND) => Times::Sampled,
            None => Times::None,
        };
        let loads = LoadsOf { members: &self.members, choice, times };
        let place = choice.chooser().choose(random, key, cursor, &loads);
        Some((place, self.members.get(choice.member(place)?)?))
    }

    /// Chooses until a choice can be taken; then takes the first that can, from a place that differs from pick to pick, or
    /// from key to key, so that no single neighbour inherits the load. Endpoints that were tried before come last.
    #[cold]
    fn search(
        &self,
        choice: &Choice,
        context: &PickContext<'_>,
        key: Option<KeyHash>,
        cursor: &AtomicU64,
        group: &Group,
    ) -> Option<(T, InFlight)> {
        let is_tried = |member: &Member<T>| context.tried.contains(member.seat.id());
        let (mut random, mut key) = (context.random, key);
        for _ in 0..REDRAWS {
            let (place, member) = self.choose(choice, random, key, cursor, context.now)?;
            if !is_tried(member)
                && let Some(found) = self.admit(choice, place, context, group)
            {
                return Some(found);
            }
            random = remix(random);
            key = key.map(|KeyHash(key)| KeyHash(remix(key)));
        }
        let seed = key.map_or(random, |key| key.0);
        self.scan(choice, seed, context, group, |member| !is_tried(member)).or_else(|| {
            let others = self.plan.tiers.iter().map(|tier| &*tier.choice);
            let mut others = others.filter(|other| !std::ptr::eq(*other, choice));
            others
                .find_map(|other| self.scan(other, seed, context, group, |member| !is_tried(member)))
                .or_else(|| {
                    self.scan(choice, seed, context, group, |member| context.may_return && is_tried(member))
                })
        })
    }

    fn scan(
        &self,
        choice: &Choice,
        seed: u64,
        context: &PickContext<'_>,
        group: &Group,
        is_wanted: impl Fn(&Member<T>) -> bool,
    ) -> Option<(T, InFlight)> {
        let n = choice.members.len();
        let first = scale(remix(seed), n);
        let mut places = (first..n).chain(0..first);
        places.find_map(|place| {
            let member = self.members.get(choice.member(place)?)?;
            if is_wanted(member) { self.admit(choice, place, context, group) } else { None }
        })
    }

    /// Enters the member at this place, if it may have one more request.
    fn admit(
        &self,
        choice: &Choice,
        place: usize,
        context: &PickContext<'_>,
        group: &Group,
    ) -> Option<(T, InFlight)> {
        let at = choice.member(place)?;
        let member = self.members.get(at)?;
        let max = match self.plan.uses.get(at)? {
            Use::Free => self.config.max_inflight_requests,
            Use::OneAtATime => Some(NonZeroU32::MIN),
            Use::Not => return None,
        };
        if let Some(percent) = self.config.load_bound()
            && member.seat.in_flight() >= fair_load(choice, place, group.counted(), percent)
        {
            return None;
        }
        self.try_enter(member, max, context)
    }

    fn try_enter(
        &self,
        member: &Member<T>,
        max: Option<NonZeroU32>,
        context: &PickContext<'_>,
    ) -> Option<(T, InFlight)> {
        match max {
            None => Some(self.enter(member, context)),
            Some(max) => Some((
                member.target.clone(),
                member.seat.try_enter(max, self.watch(member, context), context.now)?,
            )),
        }
    }

    fn enter(&self, member: &Member<T>, context: &PickContext<'_>) -> (T, InFlight) {
        (member.target.clone(), member.seat.enter(self.watch(member, context), context.now))
    }

    /// What is of interest about a request there.
    fn watch(&self, member: &Member<T>, context: &PickContext<'_>) -> Watch {
        let is_timed = self.samples
            && (context.random.is_multiple_of(TIMED) || member.seat.standing().latency.latest() == 0.0);
        Watch { time: self.watch.time || is_timed, ..self.watch }
    }

    #[cold]
    fn refusal(&self) -> PickError {
        let is_open = |member: &Member<T>| member.weight > 0 && member.readiness != Readiness::NotReady;
        if !self.members.all().iter().any(is_open) {
            return PickError::NoEndpoints;
        }
        match self.config.max_inflight_requests {
            Some(max) if !self.plan.tiers.is_empty() => PickError::Saturated { max },
            _ => PickError::NoneHealthy,
        }
    }
}

/// The most requests that the endpoint at this place may have, of `counted` and one more: its share times the factor, rounded up.
fn fair_load(choice: &Choice, place: usize, counted: usize, percent: NonZeroU32) -> usize {
    let share = (counted as u128 + 1) * u128::from(choice.weight(place)) * u128::from(percent.get().max(100));
    usize::try_from(share.div_ceil(u128::from(choice.weight_sum.max(1)) * 100)).unwrap_or(usize::MAX)
}

// === impl LoadsOf ===

impl<T> LoadsOf<'_, T> {
    fn member(&self, place: usize) -> Option<&Member<T>> {
        self.members.get(self.choice.member(place)?)
    }
}

impl<T> Loads for LoadsOf<'_, T> {
    fn in_flight(&self, place: usize) -> usize {
        self.member(place).map_or(usize::MAX, |member| member.seat.in_flight())
    }

    fn latency(&self, place: usize) -> f32 {
        let latency = |member: &Member<T>| {
            let latency = &member.seat.standing().latency;
            match self.times {
                Times::None => 0.0,
                Times::Sampled => latency.latest(),
                Times::Faded { now, decay } => latency.at(now, decay),
            }
        };
        self.member(place).map_or(f32::INFINITY, latency)
    }
}

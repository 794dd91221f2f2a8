//! An immutable set of endpoints with the tables to choose from it.

use std::mem::discriminant;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::config::{BalanceConfig, Strategy};
use crate::context::PickContext;
use crate::endpoint::{Endpoint, EndpointId};
use crate::error::PickError;
use crate::hash::{KeyHash, remix};
use crate::in_flight::{InFlight, Seat};
use crate::observe::EndpointStatus;
use crate::strategy::{Chooser, scale};

/// An immutable set of endpoints with the tables to choose from it.
pub(crate) struct Set<T> {
    config: BalanceConfig,
    members: Members<T>,
    /// Depends on the ids and weights of the eligible members and on nothing else.
    chooser: Arc<Chooser>,
}

/// The endpoints in the order of their ids, so that no choice depends on the order of the input.
struct Members<T> {
    /// Those that can be picked.
    eligible: Box<[Member<T>]>,
    /// Those of weight 0.
    idle: Box<[Member<T>]>,
}

struct Member<T> {
    seat: Arc<Seat>,
    target: T,
    weight: u32,
}

// === impl Set ===

impl<T> Set<T> {
    /// A set without a past.
    pub(crate) fn new(endpoints: impl IntoIterator<Item = Endpoint<T>>, config: &BalanceConfig) -> Self {
        let members = Members::new(endpoints, |_| None);
        Self { chooser: Arc::new(members.chooser(&config.strategy)), config: config.clone(), members }
    }

    /// The set that replaces this one. Endpoints keep their seats; `returning` gives that of an endpoint not listed here.
    pub(crate) fn succeed(
        &self,
        endpoints: impl IntoIterator<Item = Endpoint<T>>,
        config: &BalanceConfig,
        returning: impl Fn(&EndpointId) -> Option<Arc<Seat>>,
    ) -> Self {
        let members = Members::new(endpoints, |id| {
            let seat = self.members.seat(id).cloned();
            seat.or_else(|| returning(id))
        });
        let is_same_choice = discriminant(&config.strategy) == discriminant(&self.config.strategy)
            && members.shares().eq(self.members.shares());
        Self {
            chooser: if is_same_choice {
                Arc::clone(&self.chooser)
            } else {
                Arc::new(members.chooser(&config.strategy))
            },
            config: config.clone(),
            members,
        }
    }

    pub(crate) fn config(&self) -> &BalanceConfig {
        &self.config
    }

    pub(crate) fn seats(&self) -> impl Iterator<Item = &Arc<Seat>> {
        self.members.all().map(|member| &member.seat)
    }

    pub(crate) fn seat(&self, id: &EndpointId) -> Option<&Arc<Seat>> {
        self.members.seat(id)
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
    ) -> Result<(T, InFlight), PickError> {
        let eligible = &self.members.eligible;
        if eligible.is_empty() {
            return Err(PickError::NoEndpoints);
        }
        let key = self.key(context);
        let load = |index| eligible.get(index).map_or(usize::MAX, Member::load);
        let first = self.chooser.choose(context.random, key, cursor, load);
        let first = eligible.get(first).ok_or(PickError::NoEndpoints)?;
        match self.config.max_inflight_requests {
            None => Ok(first.enter()),
            Some(max) => match first.try_enter(max) {
                Some(picked) => Ok(picked),
                None => self.spill(key.map_or(context.random, |key| key.0), max),
            },
        }
    }

    pub(crate) fn status(&self) -> Vec<EndpointStatus<T>> {
        let status = |member: &Member<T>| EndpointStatus {
            id: member.seat.id().clone(),
            target: member.target.clone(),
            weight: member.weight,
            in_flight: member.load(),
        };
        self.members.all().map(status).collect()
    }

    /// Picks in place of an endpoint that is full: the first that is not, from a place that differs from pick to pick, or from
    /// key to key, so that no single neighbour inherits the load.
    #[cold]
    fn spill(&self, seed: u64, max: NonZeroU32) -> Result<(T, InFlight), PickError> {
        let eligible = &self.members.eligible;
        let (before, after) = eligible.split_at(scale(remix(seed), eligible.len()));
        after
            .iter()
            .chain(before)
            .find_map(|member| member.try_enter(max))
            .ok_or(PickError::Saturated { max })
    }
}

// === impl Members ===

impl<T> Members<T> {
    /// Sorts the endpoints out; of equal ids the first counts. `known` gives the seat of an endpoint that has one.
    fn new(
        endpoints: impl IntoIterator<Item = Endpoint<T>>,
        known: impl Fn(&EndpointId) -> Option<Arc<Seat>>,
    ) -> Self {
        let mut endpoints: Vec<_> = endpoints.into_iter().collect();
        endpoints.sort_by(|a, b| a.id.cmp(&b.id));
        endpoints.dedup_by(|later, first| later.id == first.id);
        let (eligible, idle): (Vec<_>, Vec<_>) = endpoints
            .into_iter()
            .map(|Endpoint { id, target, weight }| Member {
                seat: known(&id).unwrap_or_else(|| Arc::new(Seat::new(id))),
                target,
                weight,
            })
            .partition(|member| member.weight > 0);
        Self { eligible: eligible.into(), idle: idle.into() }
    }

    fn all(&self) -> impl Iterator<Item = &Member<T>> {
        self.eligible.iter().chain(&self.idle)
    }

    fn seat(&self, id: &EndpointId) -> Option<&Arc<Seat>> {
        [&self.eligible, &self.idle].into_iter().find_map(|part| {
            let at = part.binary_search_by(|member| member.seat.id().cmp(id));
            Some(&part.get(at.ok()?)?.seat)
        })
    }

    /// What a choice depends on.
    fn shares(&self) -> impl Iterator<Item = (&str, u32)> {
        self.eligible.iter().map(|member| (member.seat.id().as_str(), member.weight))
    }

    fn chooser(&self, strategy: &Strategy) -> Chooser {
        Chooser::new(strategy, &self.shares().collect::<Vec<_>>())
    }
}

// === impl Member ===

impl<T> Member<T> {
    fn load(&self) -> usize {
        self.seat.in_flight()
    }
}

impl<T: Clone> Member<T> {
    fn enter(&self) -> (T, InFlight) {
        (self.target.clone(), self.seat.enter())
    }

    fn try_enter(&self, max: NonZeroU32) -> Option<(T, InFlight)> {
        let in_flight = self.seat.try_enter(max)?;
        Some((self.target.clone(), in_flight))
    }
}

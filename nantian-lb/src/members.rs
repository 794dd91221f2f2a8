//! The endpoints of a set.

use std::collections::HashSet;

use crate::clock::Timestamp;
use crate::config::BalanceConfig;
use crate::endpoint::{Endpoint, EndpointId, Readiness};
use crate::hash::EndpointHash;
use crate::health::Health;
use crate::health::select::{Candidate, select};
use crate::health::state::Evaluation;
use crate::in_flight::EndpointHandle;
use crate::plan::{Plan, Planned};

/// The endpoints in the order of their ids, so that no choice depends on the order of the input.
pub(crate) struct Members<T> {
    all: Box<[Member<T>]>,
    /// The numbers of the members in the order of their hashes, for sessions.
    by_hash: Box<[(EndpointHash, u32)]>,
}

pub(crate) struct Member<T> {
    pub(crate) handle: EndpointHandle,
    pub(crate) target: T,
    pub(crate) weight: u32,
    pub(crate) readiness: Readiness,
    pub(crate) tier: u8,
}

/// A member, as far as choices are concerned.
#[derive(Debug, Clone)]
pub(crate) struct MemberRef {
    pub(crate) handle: EndpointHandle,
    /// Its number among all.
    at: u32,
}

// === impl Members ===

impl<T> Members<T> {
    /// Takes the endpoints in; of equal ids the first counts. `handle` gives the handle of an id.
    pub(crate) fn new(
        endpoints: impl IntoIterator<Item = Endpoint<T>>,
        handle: impl Fn(EndpointId) -> EndpointHandle,
    ) -> Self {
        let mut endpoints: Vec<_> = endpoints.into_iter().collect();
        endpoints.sort_by(|a, b| a.id.cmp(&b.id));
        endpoints.dedup_by(|later, first| later.id == first.id);
        let all: Box<[_]> = endpoints
            .into_iter()
            .map(|Endpoint { id, target, weight, readiness, tier }| Member {
                handle: handle(id),
                target,
                weight,
                readiness,
                tier,
            })
            .collect();
        let mut by_hash: Box<[_]> = (0..).zip(&all).map(|(at, member)| (member.handle.hash(), at)).collect();
        by_hash.sort_unstable();
        Self { all, by_hash }
    }

    pub(crate) fn all(&self) -> &[Member<T>] {
        &self.all
    }

    pub(crate) fn get(&self, at: usize) -> Option<&Member<T>> {
        self.all.get(at)
    }

    pub(crate) fn handle(&self, id: &EndpointId) -> Option<&EndpointHandle> {
        let at = self.all.binary_search_by(|member| member.handle.id().cmp(id));
        Some(&self.all.get(at.ok()?)?.handle)
    }

    /// The number of the endpoint with this hash.
    pub(crate) fn find(&self, hash: EndpointHash) -> Option<usize> {
        let at = self.by_hash.binary_search_by_key(&hash, |&(hash, _)| hash).ok()?;
        self.by_hash.get(at).map(|&(_, at)| at as usize)
    }

    /// Gives endpoints without a response time that of the middle one of the others, lest they be flooded or
    /// starved.
    pub(crate) fn introduce_newcomers(&self, now: Timestamp) {
        let latency = |member: &Member<T>| member.handle.health().latency.average();
        let mut known: Vec<_> = self.all.iter().filter_map(latency).collect();
        known.sort_unstable();
        let Some(middle) = known.get(known.len() / 2) else { return };
        for member in self.all.iter().filter(|member| latency(member).is_none()) {
            member.handle.health().latency.begin_with(now, middle.as_secs_f32() * 1e6);
        }
    }

    /// Draws the conclusions from what was noted about the endpoints, and plans by them. Under the lock of
    /// updates.
    pub(crate) fn plan(
        &self,
        config: &BalanceConfig,
        now: Timestamp,
        old: Option<(&Plan, &BalanceConfig)>,
    ) -> Plan {
        let health_states = || self.all.iter().map(|member| member.handle.health());
        let most = config.outlier.as_ref().map_or(0, |outlier| outlier.max_ejected(self.all.len()));
        let ejected = health_states().filter(|health| health.is_ejected()).count();
        let ejections_left = most.saturating_sub(ejected);
        let mut evaluation = Evaluation {
            now,
            outlier: config.outlier.as_ref(),
            ejections_left,
            spares: config.samples_times(),
        };
        health_states().for_each(|health| health.evaluate(&mut evaluation));
        self.release_untried(config, now);

        let mut next = Timestamp::NEVER;
        let planned: Vec<_> = self
            .all
            .iter()
            .map(|member| {
                let snapshot = member.handle.health().snapshot(now, config.slow_start.as_ref());
                next = next.min(snapshot.next);
                Planned {
                    handle: &member.handle,
                    candidate: member.candidate(snapshot.health),
                    percent: snapshot.percent,
                }
            })
            .collect();
        Plan::new(&planned, config, next, old)
    }

    /// Ends the probation of endpoints that get no request, such as far ones while the near ones are well:
    /// nobody would find out how they are, and they would use up the ejections of the others.
    fn release_untried(&self, config: &BalanceConfig, now: Timestamp) {
        let health = |member: &Member<T>| member.handle.health().snapshot(now, None).health;
        if !self.all.iter().any(|member| health(member) == Health::Probation) {
            return;
        }
        let candidates: Vec<_> = self.all.iter().map(|member| member.candidate(health(member))).collect();
        let (_, tiers) = select(&candidates, config.tiers, config.panic_threshold_percent);
        let used = tiers.iter().filter(|tier| tier.percent > 0 || tier.is_tried_first);
        let tried: HashSet<_> = used.flat_map(|tier| &tier.members).copied().collect();
        for (_, member) in self.all.iter().enumerate().filter(|(at, _)| !tried.contains(at)) {
            member.handle.health().end_probation(now);
        }
    }
}

// === impl Member ===

impl<T> Member<T> {
    fn candidate(&self, health: Health) -> Candidate {
        Candidate { weight: self.weight, tier: self.tier, readiness: self.readiness, health }
    }
}

// === impl MemberRef ===

impl MemberRef {
    pub(crate) fn new(handle: EndpointHandle, at: usize) -> Self {
        Self { handle, at: u32::try_from(at).unwrap_or(u32::MAX) }
    }

    #[inline]
    pub(crate) fn at(&self) -> usize {
        self.at as usize
    }
}

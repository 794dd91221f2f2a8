//! The tables to choose by, for one state of the endpoints' health.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::clock::Timestamp;
use crate::cluster::Cluster;
use crate::config::{BalanceConfig, Strategy};
use crate::hash::KeyHash;
use crate::health::select::{Candidate, Eligibility, select};
use crate::in_flight::EndpointHandle;
use crate::members::MemberRef;
use crate::strategy::{Chooser, scale};

/// The tables to choose by, for one state of the endpoints' health.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The nearest first; only those that get requests.
    pub(crate) tiers: Box<[Tier]>,
    /// What is to be made of each member.
    pub(crate) uses: Box<[Eligibility]>,
    /// Every choice may be taken as it is.
    pub(crate) is_free: bool,
    /// When the state is out of date.
    pub(crate) next: Timestamp,
}

/// One tier of endpoints.
#[derive(Debug)]
pub(crate) struct Tier {
    /// The end of its part of the requests, in percent, after those of the tiers before.
    end: u32,
    /// Who is on probation in it is tried before the tier is drawn.
    pub(crate) is_tried_first: bool,
    pub(crate) choice: Choice,
}

/// Endpoints of one tier with the table to choose from them. Clones share both.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    chooser: Chooser,
    members: Arc<[MemberRef]>,
    /// Their weights, and what makes their placement: equal shares need no new table.
    shares: Arc<[(Arc<str>, u32)]>,
    pub(crate) weight_sum: u64,
}

/// One endpoint, as far as the plan depends on it.
pub(crate) struct Planned<'a> {
    pub(crate) handle: &'a EndpointHandle,
    pub(crate) candidate: Candidate,
    /// The share of its weight that it has, in percent.
    pub(crate) percent: u32,
}

/// Weights are multiplied by this while some endpoint has but a percentage of its own.
const WHOLE: u64 = 100;

// === impl Plan ===

impl Plan {
    /// Plans for these endpoints. Tables of `old` that would come out the same are taken over.
    pub(crate) fn new(
        endpoints: &[Planned<'_>],
        config: &BalanceConfig,
        next: Timestamp,
        old: Option<(&Self, &BalanceConfig)>,
    ) -> Self {
        let candidates: Vec<_> = endpoints.iter().map(|endpoint| endpoint.candidate).collect();
        let (uses, shares) = select(&candidates, config.tiers, config.panic_threshold_percent);
        let hashes = matches!(config.strategy, Strategy::ConsistentHash(_));
        let old = old.filter(|(_, old)| old.strategy.has_tables_of(&config.strategy));
        let mut end = 0;
        let mut tiers = Vec::new();
        for share in shares {
            end += share.percent;
            // A placement stays as it is whatever becomes of single endpoints; other tables leave out who is
            // left out.
            let is_used = |at: &usize| hashes || uses.get(*at) != Some(&Eligibility::Not);
            let members: Vec<usize> = share.members.into_iter().filter(is_used).collect();
            if members.is_empty() {
                continue;
            }
            let choice = Choice::new(endpoints, &members, config, old.map(|(old, _)| old));
            tiers.push(Tier { end, is_tried_first: share.is_tried_first, choice });
        }
        let is_free = tiers.iter().all(|tier| {
            let mut uses = tier.choice.members.iter().map(|member| uses.get(member.at()));
            uses.all(|used| used == Some(&Eligibility::Free))
        });
        Self { tiers: tiers.into(), uses: uses.into(), is_free, next }
    }

    /// The tier for a random number, or for a key, which is always given the same tier in the same state.
    pub(crate) fn tier(&self, random: u64) -> Option<&Tier> {
        match &*self.tiers {
            [] => None,
            [only] => Some(only),
            [.., last] => {
                let percent = scale(random, 100);
                Some(self.tiers.iter().find(|tier| percent < tier.end as usize).unwrap_or(last))
            }
        }
    }
}

// === impl Choice ===

impl Choice {
    fn new(endpoints: &[Planned<'_>], members: &[usize], config: &BalanceConfig, old: Option<&Plan>) -> Self {
        let shares = shares(endpoints, members, matches!(config.strategy, Strategy::ConsistentHash(_)));
        let members =
            members.iter().filter_map(|&at| Some(MemberRef::new(endpoints.get(at)?.handle.clone(), at)));
        let members: Arc<[_]> = members.collect();
        let same = old.and_then(|old| {
            old.tiers.iter().map(|tier| &tier.choice).find(|choice| *choice.shares == *shares)
        });
        let chooser = match same {
            Some(same) => same.chooser.clone(),
            None => Chooser::new(&config.strategy, &shares),
        };
        let weight_sum = shares.iter().map(|&(_, weight)| u64::from(weight)).sum();
        Self { chooser, members, shares: shares.into(), weight_sum }
    }

    /// Whether the place depends on a random number.
    #[inline]
    pub(crate) fn is_by_chance(&self, key: Option<KeyHash>) -> bool {
        self.chooser.is_by_chance(key)
    }

    /// The place of the endpoint of choice.
    #[inline]
    pub(crate) fn place(
        &self,
        random: u64,
        key: Option<KeyHash>,
        cursor: &AtomicU64,
        cluster: &Cluster,
    ) -> usize {
        self.chooser.choose(random, key, cursor, &self.members, cluster)
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn member(&self, place: usize) -> Option<&MemberRef> {
        self.members.get(place)
    }

    /// The weight of the endpoint at this place.
    pub(crate) fn weight(&self, place: usize) -> u32 {
        self.shares.get(place).map_or(1, |&(_, weight)| weight)
    }
}

/// The ids and weights of the members, those that start slowly with their part of it.
fn shares(endpoints: &[Planned<'_>], members: &[usize], hashes: bool) -> Vec<(Arc<str>, u32)> {
    let members: Vec<_> = members.iter().filter_map(|&at| endpoints.get(at)).collect();
    let starts = |endpoint: &&Planned<'_>| endpoint.percent < 100;
    if hashes || !members.iter().any(starts) {
        return members
            .iter()
            .map(|endpoint| (Arc::clone(endpoint.handle.id().text()), endpoint.candidate.weight))
            .collect();
    }
    let parts: Vec<_> = members
        .iter()
        .map(|endpoint| u64::from(endpoint.candidate.weight) * u64::from(endpoint.percent))
        .collect();
    // Back into 32 bits, if they do not fit.
    let most = parts.iter().max().copied().unwrap_or(0);
    let divisor = (most / u64::from(u32::MAX) + 1).min(WHOLE);
    let part = |part: u64| u32::try_from(part / divisor).unwrap_or(u32::MAX).max(1);
    members
        .iter()
        .zip(parts)
        .map(|(endpoint, weight)| (Arc::clone(endpoint.handle.id().text()), part(weight)))
        .collect()
}

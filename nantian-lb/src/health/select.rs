//! Who may be picked: a pure function of what is known about all endpoints.

use std::collections::BTreeMap;

use super::Health;
use crate::config::TierPreference;
use crate::endpoint::Readiness;

/// What is known about one endpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) weight: u32,
    pub(crate) tier: u8,
    pub(crate) readiness: Readiness,
    pub(crate) health: Health,
}

/// What is to be made of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eligibility {
    /// It may be picked.
    Free,
    /// It may have one request in flight.
    OneAtATime,
    /// It is left out.
    Not,
}

/// One tier.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TierShare {
    /// Its part of the requests, in percent; the parts of all tiers make 100.
    pub(crate) percent: u32,
    /// It has no part while nobody in it is healthy, and comes before those that have: who is on probation
    /// there is tried.
    pub(crate) is_tried_first: bool,
    /// The candidates in it by their number, healthy or not.
    pub(crate) members: Vec<usize>,
}

/// Envoy's factor: a tier keeps all requests while 1/1.4, 72 %, of it are healthy.
const OVERPROVISIONING_PERCENT: usize = 140;

/// Tells what is to be made of each endpoint, and which part of the requests each tier gets.
pub(crate) fn select(
    candidates: &[Candidate],
    preference: TierPreference,
    panic_threshold_percent: u8,
) -> (Vec<Eligibility>, Vec<TierShare>) {
    let is_open = |readiness| {
        move |&(_, candidate): &(usize, &Candidate)| candidate.weight > 0 && candidate.readiness == readiness
    };
    let has_ready = candidates.iter().enumerate().any(|candidate| is_open(Readiness::Ready)(&candidate));
    // What is about to end is the last resort.
    let wanted = if has_ready { Readiness::Ready } else { Readiness::Draining };
    let mut tiers = BTreeMap::<u8, Tier>::new();
    for (at, candidate) in candidates.iter().enumerate().filter(is_open(wanted)) {
        let tier = tiers.entry(candidate.tier).or_default();
        tier.members.push(at);
        tier.healthy += usize::from(candidate.health == Health::Healthy);
        tier.has_probation |= candidate.health == Health::Probation;
    }
    let mut tiers: Vec<_> = tiers.into_values().collect();
    share_out(&mut tiers, preference, usize::from(panic_threshold_percent));
    for nearer in tiers.iter_mut().take_while(|tier| tier.percent == 0) {
        nearer.is_tried_first = nearer.has_probation;
    }

    let mut uses = vec![Eligibility::Not; candidates.len()];
    for tier in &tiers {
        for &at in &tier.members {
            let health = candidates.get(at).map(|candidate| candidate.health);
            if let Some(slot) = uses.get_mut(at) {
                *slot = match health {
                    Some(Health::Healthy) => Eligibility::Free,
                    Some(Health::Probation) if tier.is_tried_first => Eligibility::OneAtATime,
                    _ if tier.panics => Eligibility::Free,
                    Some(Health::Probation) => Eligibility::OneAtATime,
                    _ => Eligibility::Not,
                };
            }
        }
    }
    let share =
        |Tier { percent, is_tried_first, members, .. }| TierShare { percent, is_tried_first, members };
    (uses, tiers.into_iter().map(share).collect())
}

#[derive(Default)]
struct Tier {
    members: Vec<usize>,
    healthy: usize,
    has_probation: bool,
    percent: u32,
    panics: bool,
    is_tried_first: bool,
}

impl Tier {
    /// How much of all requests it can take, in percent.
    fn availability(&self) -> usize {
        (self.healthy * OVERPROVISIONING_PERCENT).checked_div(self.members.len()).unwrap_or(0).min(100)
    }
}

fn share_out(tiers: &mut [Tier], preference: TierPreference, panic_threshold: usize) {
    let total: usize = tiers.iter().map(Tier::availability).sum();
    // While the tiers together can take all, the few healthy ones of one tier are not overrun: the others get
    // the rest.
    if total < 100 || tiers.len() == 1 {
        for tier in &mut *tiers {
            tier.panics = tier.healthy * 100 < tier.members.len() * panic_threshold;
        }
    }
    match preference {
        TierPreference::Strict => {
            let first = tiers.iter().position(|tier| tier.healthy > 0).unwrap_or(0);
            if let Some(tier) = tiers.get_mut(first) {
                tier.percent = 100;
            }
        }
        TierPreference::Spill if total == 0 => {
            // Nobody is healthy: in proportion to the numbers.
            let all: usize = tiers.iter().map(|tier| tier.members.len()).sum();
            spread(tiers, |tier| tier.members.len(), all, all);
        }
        TierPreference::Spill => spread(tiers, Tier::availability, total, 100),
    }
}

/// Shares 100 percent out: to each tier its size, the first ones first. Sizes that sum up to less than 100,
/// or count something else, are scaled to it.
fn spread(tiers: &mut [Tier], size: impl Fn(&Tier) -> usize, total: usize, whole: usize) {
    let whole = total.min(whole).max(1);
    let mut left = 100;
    for tier in &mut *tiers {
        let part = ((size(tier) * 100 + whole / 2) / whole).min(left);
        left -= part;
        tier.percent = u32::try_from(part).unwrap_or(100);
    }
    // What rounding left over goes to the last that has anything.
    if let Some(last) = tiers.iter_mut().rfind(|tier| tier.percent > 0) {
        last.percent += u32::try_from(left).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(tiers: &[(usize, usize)]) -> Vec<Candidate> {
        let endpoint = |tier, health| Candidate { weight: 1, tier, readiness: Readiness::Ready, health };
        (0..)
            .zip(tiers)
            .flat_map(|(tier, &(healthy, all))| {
                (0..all).map(move |at| {
                    endpoint(tier, if at < healthy { Health::Healthy } else { Health::Ejected })
                })
            })
            .collect()
    }

    /// The percent of each tier, and how many of it may be picked.
    fn shares(tiers: &[(usize, usize)], preference: TierPreference) -> Vec<(u32, usize)> {
        let (uses, shares) = select(&candidates(tiers), preference, 50);
        let free =
            |share: &TierShare| share.members.iter().filter(|&&at| uses[at] == Eligibility::Free).count();
        shares.iter().map(|share| (share.percent, free(share))).collect()
    }

    /// P8.
    #[test]
    fn tiers_spill_and_panic_as_envoy_documents_it() {
        for (healthy, expected) in [
            ([72, 100], [(100, 72), (0, 100)]),
            ([71, 100], [(99, 71), (1, 100)]),
            ([50, 100], [(70, 50), (30, 100)]),
            ([25, 100], [(35, 25), (65, 100)]),
            ([25, 25], [(50, 100), (50, 100)]),
            ([5, 65], [(7, 100), (93, 65)]),
            ([0, 0], [(50, 100), (50, 100)]),
        ] {
            let tiers = healthy.map(|healthy| (healthy, 100));
            assert_eq!(shares(&tiers, TierPreference::Spill), expected, "{healthy:?}");
        }
    }

    /// P8, for one tier of few endpoints.
    #[test]
    fn a_single_tier_panics_below_the_threshold_however_small_it_is() {
        for (healthy, all, free) in [
            (0, 1, 1),
            (1, 1, 1),
            (0, 2, 2),
            (1, 2, 1),
            (1, 3, 3),
            (2, 3, 2),
            (49, 100, 100),
            (50, 100, 50),
            (72, 100, 72),
        ] {
            assert_eq!(shares(&[(healthy, all)], TierPreference::Spill), [(100, free)], "{healthy} of {all}");
        }
    }

    /// P13.
    #[test]
    fn a_strict_tier_keeps_all_while_one_of_it_is_healthy() {
        assert_eq!(shares(&[(1, 10), (10, 10)], TierPreference::Strict), [(100, 1), (0, 10)]);
        assert_eq!(shares(&[(0, 10), (10, 10)], TierPreference::Strict), [(0, 0), (100, 10)]);
    }

    #[test]
    fn what_drains_is_the_last_resort_and_what_is_not_ready_none() {
        let mut some = candidates(&[(3, 3)]);
        some[0].readiness = Readiness::Draining;
        some[1].readiness = Readiness::NotReady;
        let uses = |some: &[Candidate]| select(some, TierPreference::Spill, 50).0;
        assert_eq!(uses(&some), [Eligibility::Not, Eligibility::Not, Eligibility::Free]);
        some[2].weight = 0;
        assert_eq!(uses(&some), [Eligibility::Free, Eligibility::Not, Eligibility::Not]);
        some[0].readiness = Readiness::NotReady;
        assert_eq!(uses(&some), [Eligibility::Not; 3]);
    }

    #[test]
    fn an_endpoint_in_probation_is_tried_with_one_request() {
        let mut some = candidates(&[(3, 4)]);
        some[3].health = Health::Probation;
        assert_eq!(select(&some, TierPreference::Spill, 50).0[3], Eligibility::OneAtATime);
    }
}

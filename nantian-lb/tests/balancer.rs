//! What a balancer promises over its life: fair picks, exact counts, and updates that forget nothing.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use nantian_lb::{BalanceConfig, Balancer, Endpoint, HashKey, PickContext, PickError, Picked, Strategy};
use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as _;

const ALL: [Strategy; 4] = [
    Strategy::RoundRobin,
    Strategy::Random,
    Strategy::LeastRequest,
    Strategy::ConsistentHash(HashKey::SourceIp),
];

fn endpoints(weights: &[(&'static str, u32)]) -> Vec<Endpoint<&'static str>> {
    let endpoint = |&(id, weight)| Endpoint::new(id, id).with_weight(weight);
    weights.iter().map(endpoint).collect()
}

fn limited(strategy: Strategy, max: u32) -> BalanceConfig {
    BalanceConfig::new(strategy).with_max_inflight_requests(NonZeroU32::new(max).unwrap())
}

fn pick(balancer: &Balancer<&'static str>) -> Picked<&'static str> {
    balancer.pick(&PickContext::new()).unwrap()
}

/// The numbers of picks of each target, each request ended before the next.
fn tally(balancer: &Balancer<&'static str>, picks: usize) -> BTreeMap<&'static str, usize> {
    let mut tally = BTreeMap::new();
    for _ in 0..picks {
        *tally.entry(*pick(balancer).target()).or_default() += 1;
    }
    tally
}

fn in_flight<T: Clone + Send + Sync>(balancer: &Balancer<T>) -> BTreeMap<String, usize> {
    let status = balancer.status().into_iter();
    status.map(|status| (status.id.to_string(), status.in_flight)).collect()
}

fn total(balancer: &Balancer<&'static str>) -> usize {
    in_flight(balancer).values().sum()
}

/// P1.
#[test]
fn turns_are_even_to_one_whatever_the_number_of_picks() {
    let balancer = Balancer::new(endpoints(&[("a", 1), ("b", 1), ("c", 1)]), &BalanceConfig::default());
    for picks in [3, 7, 100] {
        let tally = tally(&balancer, picks);
        let (least, most) = (tally.values().min().unwrap(), tally.values().max().unwrap());
        assert!(most - least <= 1, "{tally:?}");
    }
}

#[test]
fn balancers_that_start_together_do_not_all_begin_at_one_endpoint() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|id| (id, 1));
    for strategy in ALL {
        let config = BalanceConfig::new(strategy.clone());
        let firsts = (0..64).map(|_| *pick(&Balancer::new(endpoints(&names), &config)).target());
        let firsts: BTreeSet<_> = firsts.collect();
        assert!(firsts.len() > 3, "{strategy:?}: {firsts:?}");
    }
}

#[test]
fn two_balancers_used_alternately_do_not_share_their_turns() {
    let new = || Balancer::new(endpoints(&[("a", 1), ("b", 1)]), &BalanceConfig::default());
    let (one, other) = (new(), new());
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.push(*pick(&one).target());
        drop(pick(&other));
    }
    assert_ne!(seen[0], seen[1]);
}

#[test]
fn every_strategy_follows_the_weights() {
    let weights = endpoints(&[("a", 6), ("b", 3), ("c", 1), ("d", 0)]);
    for strategy in &ALL[..3] {
        let balancer = Balancer::new(weights.clone(), &BalanceConfig::new(strategy.clone()));
        let tally = tally(&balancer, 20_000);
        assert_eq!(tally.get("d"), None);
        for (target, expected) in [("a", 12_000), ("b", 6000), ("c", 2000usize)] {
            assert!(tally[target].abs_diff(expected) < 400, "{strategy:?}: {tally:?}");
        }
    }
}

#[test]
fn an_empty_set_answers_at_once() {
    for strategy in ALL {
        let balancer = Balancer::<&str>::new([], &BalanceConfig::new(strategy.clone()));
        let refusal = balancer.pick(&PickContext::new()).unwrap_err();
        assert_eq!(refusal, PickError::NoEndpoints);
        balancer.update(endpoints(&[("a", 0)]), &BalanceConfig::new(strategy));
        assert_eq!(balancer.pick(&PickContext::new()).unwrap_err(), PickError::NoEndpoints);
    }
}

#[test]
fn it_has_the_endpoints_of_its_last_update_in_use_or_not() {
    let balancer = Balancer::new(endpoints(&[("a", 1), ("b", 1)]), &BalanceConfig::default());
    let has = || ["a", "b", "c"].map(|id| balancer.has(&id.into()));
    assert_eq!(has(), [true, true, false]);
    let _held = [pick(&balancer), pick(&balancer)];
    balancer.update(endpoints(&[("b", 0), ("c", 1)]), &BalanceConfig::default());
    assert_eq!(has(), [false, true, true], "requests in flight make it no member");
}

#[test]
fn a_full_endpoint_is_passed_over_until_a_request_ends() {
    for strategy in ALL {
        let balancer = Balancer::new(endpoints(&[("a", 1), ("b", 9)]), &limited(strategy, 2));
        let mut held: Vec<_> = (0..4).map(|_| pick(&balancer)).collect();
        assert_eq!(in_flight(&balancer).into_values().collect::<Vec<_>>(), [2, 2]);

        let refusal = balancer.pick(&PickContext::new()).unwrap_err();
        assert_eq!(refusal.to_string(), "every endpoint is full, at 2 in flight");

        let freed = *held.remove(0).target();
        assert_eq!(*pick(&balancer).target(), freed);
    }
}

#[test]
fn the_load_of_a_full_endpoint_falls_on_no_single_neighbour() {
    let names = ["a", "b", "c", "d", "e"].map(|id| (id, 1));
    let balancer = Balancer::new(endpoints(&names), &limited(Strategy::RoundRobin, 1000));
    let mut held: Vec<_> = (0..5000).map(|_| pick(&balancer)).collect();
    held.retain(|picked| *picked.target() == "a");
    let tally = tally(&balancer, 4000);
    assert_eq!(tally.get("a"), None);
    for (target, count) in &tally {
        // Each has its own turns, 800, and a part of the 800 turns of the full one, of which its neighbour
        // has twice the usual.
        assert!((900..1250).contains(count), "{target}: {tally:?}");
    }
}

#[test]
fn the_set_can_change_in_every_way_without_losing_count() {
    let balancer = Balancer::new(endpoints(&[("a", 1), ("b", 1)]), &BalanceConfig::default());
    let (first, second) = (pick(&balancer), pick(&balancer));
    let config = BalanceConfig::new(Strategy::LeastRequest);
    balancer.update(endpoints(&[("c", 1), ("b", 0), ("a", 7)]), &config);
    let expected = [("a", 1), ("b", 1), ("c", 0)];
    assert_eq!(in_flight(&balancer), expected.map(|(id, n)| (id.to_string(), n)).into());
    assert_eq!(balancer.config(), config);
    drop((first, second));
    assert_eq!(total(&balancer), 0);
}

#[test]
fn an_endpoint_keeps_its_count_when_its_target_changes() {
    let config = BalanceConfig::default();
    let balancer = Balancer::new([Endpoint::new("a", "10.0.0.1")], &config);
    let held = pick(&balancer);
    balancer.update([Endpoint::new("a", "10.0.0.2")], &config);
    assert_eq!((*held.target(), *pick(&balancer).target()), ("10.0.0.1", "10.0.0.2"));
    assert_eq!(total(&balancer), 1);
}

#[test]
fn an_endpoint_that_returns_finds_its_requests_in_flight() {
    let config = BalanceConfig::default();
    let balancer = Balancer::new(endpoints(&[("a", 1)]), &config);
    let mut picker = balancer.picker();
    let held = picker.pick(&PickContext::new()).unwrap();
    balancer.update(endpoints(&[("b", 1)]), &config);
    balancer.update(endpoints(&[("c", 1)]), &config);
    balancer.update(endpoints(&[("a", 1)]), &config);
    assert_eq!(total(&balancer), 1);
    drop(held);
    assert_eq!(total(&balancer), 0);
}

#[test]
fn of_endpoints_with_one_id_the_first_counts() {
    let twins = [Endpoint::new("a", "first"), Endpoint::new("a", "second")];
    let balancer = Balancer::new(twins, &BalanceConfig::default());
    assert_eq!(tally(&balancer, 10), [("first", 10)].into());
}

#[test]
fn turns_go_on_over_an_update() {
    let config = BalanceConfig::default();
    let balancer = Balancer::new(endpoints(&[("a", 1), ("b", 1), ("c", 1)]), &config);
    let mut tally = BTreeMap::<_, usize>::new();
    for _ in 0..300 {
        balancer.update(endpoints(&[("c", 1), ("a", 1), ("b", 1)]), &config);
        *tally.entry(*pick(&balancer).target()).or_default() += 1;
    }
    assert_eq!(tally, [("a", 100), ("b", 100), ("c", 100)].into());
}

#[test]
fn a_picker_takes_turns_with_all_others_and_sees_updates_at_once() {
    let config = BalanceConfig::default();
    let balancer = Balancer::new(endpoints(&[("a", 1), ("b", 1)]), &config);
    let (mut one, mut other) = (balancer.picker(), balancer.picker());
    let context = PickContext::new();
    let pair = (one.pick(&context).unwrap(), other.pick(&context).unwrap());
    assert_ne!(pair.0.target(), pair.1.target());
    balancer.update(endpoints(&[("c", 1)]), &config);
    assert_eq!(*one.pick(&context).unwrap().target(), "c");
}

#[test]
fn the_same_random_number_gives_the_same_pick() {
    let many: Vec<_> = (0..50).map(|at| Endpoint::new(format!("pod-{at}"), at).with_weight(at + 1)).collect();
    for strategy in [Strategy::Random, Strategy::LeastRequest] {
        let balancer = Balancer::new(many.clone(), &BalanceConfig::new(strategy));
        for seed in 0..100 {
            let context = PickContext::seeded(seed);
            let targets = [(); 2].map(|()| *balancer.pick(&context).unwrap().target());
            assert_eq!(targets[0], targets[1]);
        }
    }
}

#[test]
fn the_limit_is_never_exceeded_and_no_guard_is_lost_under_contention() {
    const MAX: u32 = 3;
    let config = limited(Strategy::LeastRequest, MAX);
    let balancer = Balancer::new(endpoints(&[("a", 1), ("b", 2)]), &config);
    let at_work = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let served = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5000 {
                    let Ok(picked) = balancer.pick(&PickContext::new()) else {
                        continue;
                    };
                    let counter = &at_work[usize::from(*picked.target() == "b")];
                    assert!(counter.fetch_add(1, Ordering::SeqCst) < MAX as usize);
                    thread::yield_now();
                    counter.fetch_sub(1, Ordering::SeqCst);
                    served.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(total(&balancer), 0);
    assert!(served.into_inner() > 5000);
}

#[test]
fn a_storm_of_updates_neither_fails_a_pick_nor_loses_count() {
    let config = BalanceConfig::new(Strategy::LeastRequest);
    let balancer = Balancer::new(endpoints(&[("a", 1), ("b", 1)]), &config);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut picker = balancer.picker();
                while !is_over.load(Ordering::Relaxed) {
                    let picked = (pick(&balancer), picker.pick(&PickContext::new()).unwrap());
                    assert!(["a", "b", "c"].contains(picked.0.target()));
                }
            });
        }
        let sets = [[("a", 1), ("b", 2)], [("b", 1), ("c", 0)], [("c", 1), ("a", 5)]];
        for at in 0..3000 {
            balancer.update(endpoints(&sets[at % 3]), &config);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    balancer.update(endpoints(&[("a", 1), ("b", 1), ("c", 1)]), &config);
    assert_eq!(total(&balancer), 0);
}

/// A step in the life of a balancer.
#[derive(Debug, Clone)]
enum Step {
    Pick(u64),
    Finish(prop::sample::Index),
    Update(Vec<(u8, u32)>, usize, Option<u32>),
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    let set = prop::collection::vec((0u8..6, 0u32..4), 0..6);
    prop_oneof![
        6 => any::<u64>().prop_map(Step::Pick),
        3 => any::<prop::sample::Index>().prop_map(Step::Finish),
        1 => (set, 0usize..4, prop::option::of(1u32..4)).prop_map(|(set, at, max)| Step::Update(set, at, max)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn counts_and_refusals_are_those_of_a_naive_model(steps in prop::collection::vec(step(), 1..120)) {
        let balancer = Balancer::<u8>::new([], &BalanceConfig::default());
        let (mut set, mut limit) = (HashMap::<u8, u32>::new(), usize::MAX);
        let mut held: Vec<Picked<u8>> = Vec::new();
        for step in steps {
            let count = |id: u8| held.iter().filter(|picked| *picked.target() == id).count();
            match step {
                Step::Update(endpoints, strategy, max) => {
                    let mut config = BalanceConfig::new(ALL[strategy].clone());
                    config.max_inflight_requests = max.and_then(NonZeroU32::new);
                    limit = max.map_or(usize::MAX, |max| max as usize);
                    set = endpoints.iter().rev().copied().collect();
                    let endpoint = |&(id, weight): &(u8, u32)| Endpoint::new(id.to_string(), id).with_weight(weight);
                    balancer.update(endpoints.iter().map(endpoint), &config);
                }
                Step::Finish(at) if !held.is_empty() => drop(held.swap_remove(at.index(held.len()))),
                Step::Finish(_) => {}
                Step::Pick(random) => {
                    let mut open = set.iter().filter(|&(_, &weight)| weight > 0).peekable();
                    let is_empty = open.peek().is_none();
                    let open: Vec<_> = open.map(|(&id, _)| id).filter(|&id| count(id) < limit).collect();
                    match balancer.pick(&PickContext::seeded(random)) {
                        Ok(picked) => {
                            prop_assert!(open.contains(picked.target()));
                            held.push(picked);
                        }
                        Err(PickError::NoEndpoints) => prop_assert!(is_empty),
                        Err(_) => prop_assert!(!is_empty && open.is_empty()),
                    }
                }
            }
            let count = |id: u8| held.iter().filter(|picked| *picked.target() == id).count();
            let model: BTreeMap<_, _> = set.keys().map(|&id| (id.to_string(), count(id))).collect();
            prop_assert_eq!(in_flight(&balancer), model);
        }
    }
}

/// A target that, while it is cloned, asks the balancer that it is in.
struct Curious {
    balancer: Arc<OnceLock<Balancer<Self>>>,
    asks: bool,
}

impl Clone for Curious {
    fn clone(&self) -> Self {
        if let Some(balancer) = self.balancer.get().filter(|_| self.asks) {
            // The next turn is that of the other one.
            drop(balancer.pick(&PickContext::new()).unwrap());
        }
        Self { balancer: Arc::clone(&self.balancer), asks: self.asks }
    }
}

#[test]
fn a_pick_inside_of_a_pick_is_a_pick() {
    let balancer = Arc::<OnceLock<_>>::default();
    let curious = |asks| Curious { balancer: Arc::clone(&balancer), asks };
    let endpoints = [Endpoint::new("a", curious(true)), Endpoint::new("b", curious(false))];
    let all = balancer.get_or_init(|| Balancer::new(endpoints, &BalanceConfig::new(Strategy::RoundRobin)));
    for _ in 0..10 {
        drop(all.pick(&PickContext::new()).unwrap());
    }
    assert_eq!(in_flight(all).values().sum::<usize>(), 0);
}

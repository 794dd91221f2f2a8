//! What a balancer makes of endpoints that fail, are slow, start, drain, or are far away.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use nantian_lb::health::{Health, OutlierConfig, SlowStartConfig};
use nantian_lb::{
    BalanceConfig, Balancer, Endpoint, EndpointId, HashKey, ManualClock, Outcome, PickContext, PickError,
    Readiness, Strategy, TierPreference,
};

const ALL: [Strategy; 5] = [
    Strategy::RoundRobin,
    Strategy::Random,
    Strategy::LeastRequest,
    Strategy::PEAK_EWMA,
    Strategy::ConsistentHash(HashKey::Header(HeaderName::from_static("x-user"))),
];

struct World {
    clock: ManualClock,
    balancer: Balancer<usize>,
}

impl World {
    fn new(n: usize, config: &BalanceConfig) -> Self {
        let clock = ManualClock::new();
        // Not at its origin, as no clock is for long.
        clock.advance(Duration::from_secs(1000));
        let balancer = Balancer::with_clock(endpoints(n), config, Arc::new(clock.clone()));
        Self { clock, balancer }
    }

    /// One request for a user of its own, and what becomes of it.
    fn ask(&self, at: usize, outcome: impl Fn(usize) -> Outcome) -> usize {
        let request = http::Request::builder().header("x-user", at).body(()).unwrap();
        let (target, mut in_flight) =
            self.balancer.pick(&PickContext::new().with_keys(&request)).unwrap().into_parts();
        in_flight.record(outcome(target));
        target
    }

    fn tally(&self, requests: usize, outcome: impl Fn(usize) -> Outcome) -> Vec<usize> {
        let mut tally = vec![0; self.balancer.status().len()];
        for at in 0..requests {
            *tally.get_mut(self.ask(at, &outcome)).unwrap() += 1;
        }
        tally
    }

    fn health(&self, at: usize) -> Health {
        self.balancer.status().get(at).unwrap().health
    }

    fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

fn endpoints(n: usize) -> Vec<Endpoint<usize>> {
    (0..n).map(|at| Endpoint::new(format!("pod-{at:03}"), at)).collect()
}

fn watched(strategy: Strategy) -> BalanceConfig {
    BalanceConfig::new(strategy).with_outlier(OutlierConfig::new())
}

fn failing(bad: impl Fn(usize) -> bool) -> impl Fn(usize) -> Outcome {
    move |at| if bad(at) { Outcome::GatewayError } else { Outcome::Success }
}

#[test]
fn an_endpoint_that_fails_five_times_in_a_row_is_passed_over_by_every_strategy() {
    // By its response times a failing endpoint is passed over long before.
    for strategy in ALL.into_iter().filter(|strategy| *strategy != Strategy::PEAK_EWMA) {
        let world = World::new(4, &watched(strategy.clone()));
        let tally = world.tally(2000, failing(|at| at == 2));
        let asked_for_long = tally[2];
        assert!((5..200).contains(&asked_for_long), "{strategy:?}: {tally:?}");
        assert_eq!(world.health(2), Health::Ejected);
        assert_eq!(world.tally(1000, failing(|_| false))[2], 0, "{strategy:?}");
    }
}

#[test]
fn the_turns_of_those_that_are_left_are_even() {
    let world = World::new(4, &watched(Strategy::RoundRobin));
    world.tally(100, failing(|at| at == 2));
    assert_eq!(world.tally(300, failing(|_| false)), [100, 100, 0, 100]);
}

#[test]
fn a_success_between_failures_keeps_an_endpoint() {
    let world = World::new(2, &watched(Strategy::RoundRobin));
    for _ in 0..10 {
        world.tally(8, failing(|at| at == 0));
        world.tally(2, failing(|_| false));
    }
    assert_eq!(world.health(0), Health::Healthy);
}

#[test]
fn an_answer_with_an_ordinary_500_counts_among_errors_and_429_does_not() {
    let config = watched(Strategy::RoundRobin);
    let world = World::new(2, &config);
    world.tally(40, |at| if at == 0 { Outcome::Busy { retry_after: None } } else { Outcome::Success });
    assert_eq!(world.health(0), Health::Healthy);
    world.tally(40, |at| if at == 0 { Outcome::ServerError } else { Outcome::Success });
    assert_eq!(world.health(0), Health::Ejected);

    let outlier = OutlierConfig::new().with_consecutive_errors(None);
    let world = World::new(2, &config.with_outlier(outlier));
    world.tally(40, |at| if at == 0 { Outcome::ServerError } else { Outcome::Success });
    assert_eq!(world.health(0), Health::Healthy);
}

#[test]
fn an_endpoint_that_is_busy_is_spared_for_as_long_as_it_says() {
    let world = World::new(3, &watched(Strategy::RoundRobin));
    let busy = Outcome::Busy { retry_after: Some(Duration::from_secs(7)) };
    world.tally(3, |at| if at == 1 { busy } else { Outcome::Success });
    assert_eq!(world.health(1), Health::Spared);
    assert_eq!(world.tally(100, failing(|_| false))[1], 0);
    world.advance(7);
    assert_eq!(world.tally(90, failing(|_| false))[1], 30);
}

/// P10.
#[test]
fn no_more_are_ejected_than_may_be_and_one_always() {
    for (n, percent, most) in
        [(1, 10, 1), (2, 10, 1), (3, 50, 1), (10, 10, 1), (20, 10, 2), (20, 55, 11), (10, 0, 1)]
    {
        let outlier = OutlierConfig::new().with_max_ejected_percent(percent);
        let config = BalanceConfig::default().with_outlier(outlier).with_panic_threshold_percent(0);
        let world = World::new(n, &config);
        let mut failed = 0;
        for at in 0..n * 40 {
            let request = http::Request::builder().header("x-user", at).body(()).unwrap();
            let Ok(picked) = world.balancer.pick(&PickContext::new().with_keys(&request)) else { continue };
            picked.into_parts().1.record(Outcome::Unreachable);
            failed += 1;
        }
        assert!(failed >= 5 * most);
        let status = world.balancer.status();
        let ejected = status.iter().filter(|status| status.health == Health::Ejected).count();
        assert_eq!(ejected, most, "{n} endpoints, {percent} %");
    }
}

#[test]
fn when_all_fail_all_are_tried_or_none_as_the_threshold_says() {
    let config = watched(Strategy::RoundRobin);
    let world = World::new(1, &config);
    world.tally(20, failing(|_| true));
    assert_eq!(world.health(0), Health::Ejected);
    assert_eq!(world.ask(0, failing(|_| true)), 0, "it is all there is");

    let world = World::new(1, &config.with_panic_threshold_percent(0));
    for _ in 0..5 {
        world.ask(0, failing(|_| true));
    }
    assert_eq!(world.balancer.pick(&PickContext::new()).unwrap_err(), PickError::NoneHealthy);
}

#[test]
fn after_its_time_one_request_decides_whether_an_endpoint_is_back() {
    let world = World::new(4, &watched(Strategy::RoundRobin));
    world.tally(100, failing(|at| at == 2));
    world.advance(29);
    assert_eq!(world.health(2), Health::Ejected);
    world.advance(5);
    assert_eq!(world.health(2), Health::Probation);
    // While the one request is on its way nobody else is sent there.
    let held: Vec<_> = (0..40).map(|_| world.balancer.pick(&PickContext::new()).unwrap()).collect();
    let mut probes = held.into_iter().filter(|picked| *picked.target() == 2);
    let (probe, none) = (probes.next().unwrap(), probes.next());
    assert!(none.is_none());
    probe.into_parts().1.record(Outcome::Unreachable);
    assert_eq!(world.health(2), Health::Ejected, "and longer than the first time");
    world.advance(35);
    assert_eq!(world.health(2), Health::Ejected);
    world.advance(35);
    world.tally(8, failing(|_| false));
    assert_eq!(world.health(2), Health::Healthy);
    assert_eq!(world.balancer.status()[2].ejections, 2);
    assert_eq!(world.tally(400, failing(|_| false)), [100; 4]);
}

/// P9, for an endpoint that returns.
#[test]
fn an_endpoint_that_is_back_is_given_its_share_in_a_straight_line() {
    let window = Duration::from_secs(100);
    let world = World::new(4, &watched(Strategy::RoundRobin).with_slow_start(SlowStartConfig::new(window)));
    assert_eq!(world.tally(400, failing(|_| false)), [100; 4], "a set that is new as a whole starts at once");
    world.tally(100, failing(|at| at == 2));
    world.advance(40);
    world.tally(20, failing(|_| false));
    assert_eq!(world.health(2), Health::Healthy);
    for percent in [10u64, 25, 50, 75, 90] {
        let age = if percent == 10 { 5 } else { percent };
        let passed = world.balancer.now().as_nanos() / 1_000_000_000 - 1040;
        world.advance(age - passed);
        let tally = world.tally(10_000, failing(|_| false));
        let share = tally[2] as f64 / tally[0] as f64 * 100.0;
        assert!((share - percent as f64).abs() <= 2.0, "{share} % after {age} s");
    }
    world.advance(20);
    assert_eq!(world.tally(400, failing(|_| false)), [100; 4]);
}

#[test]
fn a_new_endpoint_starts_slowly_if_it_is_wanted() {
    for also in [true, false] {
        let start = SlowStartConfig::new(Duration::from_secs(100)).with_new_endpoints(also);
        let config = BalanceConfig::default().with_slow_start(start);
        let world = World::new(3, &config);
        world.balancer.update(endpoints(4), &config);
        let tally = world.tally(4000, failing(|_| false));
        let expected = if also { 100..150 } else { 1000..1001 };
        assert!(expected.contains(&tally[3]), "{tally:?}");
    }
}

#[test]
fn what_fails_its_checks_is_passed_over_until_it_passes() {
    for strategy in ALL {
        let world = World::new(3, &BalanceConfig::new(strategy));
        let id = EndpointId::from("pod-001");
        world.balancer.set_check(&id, false);
        assert_eq!(world.health(1), Health::Failing);
        assert_eq!(world.tally(300, failing(|_| false))[1], 0);
        world.balancer.update(endpoints(3), &world.balancer.config());
        assert_eq!(world.tally(300, failing(|_| false))[1], 0, "an update changes nothing about it");
        world.balancer.set_check(&id, true);
        assert!(world.tally(300, failing(|_| false))[1] > 50);
    }
}

/// P4, exactly: Maglev moves a few keys when the set changes (see P3), none when an endpoint is ejected or full.
#[test]
fn users_of_healthy_endpoints_stay_where_they_are_when_another_one_is_ejected() {
    let world = World::new(5, &watched(ALL[4].clone()));
    let place = |user| world.ask(user, failing(|_| false));
    let before: Vec<_> = (0..500).map(place).collect();
    for user in 0..500 {
        world.ask(user, failing(|at| at == 3));
    }
    assert_eq!(world.health(3), Health::Ejected);
    let mut heirs = BTreeMap::<_, usize>::new();
    for (user, before) in before.into_iter().enumerate() {
        let after = place(user);
        if before == 3 {
            assert_eq!(place(user), after, "those that move stay together with their data");
            *heirs.entry(after).or_default() += 1;
        } else {
            assert_eq!(after, before);
        }
    }
    assert_eq!(heirs.len(), 4, "no single neighbour inherits: {heirs:?}");
}

#[test]
fn what_drains_gets_no_new_request_unless_nothing_else_is_left() {
    for strategy in ALL {
        let config = BalanceConfig::new(strategy);
        let world = World::new(2, &config);
        let draining = |readiness| {
            let mut endpoints = endpoints(2);
            endpoints[0].readiness = Readiness::Draining;
            endpoints[1].readiness = readiness;
            endpoints
        };
        world.balancer.update(draining(Readiness::Ready), &config);
        assert_eq!(world.tally(50, failing(|_| false)), [0, 50]);
        world.balancer.update(draining(Readiness::NotReady), &config);
        assert_eq!(world.tally(50, failing(|_| false)), [50, 0]);
    }
}

/// P13.
#[test]
fn the_nearest_tier_has_all_while_it_can_and_then_shares() {
    for (preference, one_of_four) in [(TierPreference::Strict, 0), (TierPreference::Spill, 650)] {
        let config = watched(Strategy::RoundRobin)
            .with_tiers(preference)
            .with_outlier(OutlierConfig::new().with_max_ejected_percent(100));
        let world = World::new(8, &config);
        let tiers = |n: usize| {
            endpoints(8).into_iter().map(move |one| {
                let tier = u8::from(one.target >= n);
                one.with_tier(tier)
            })
        };
        world.balancer.update(tiers(4), &config);
        let far = |tally: Vec<usize>| tally[4..].iter().sum::<usize>();
        assert_eq!(far(world.tally(1000, failing(|_| false))), 0);
        // 1 of 4 is left: 25 % * 1.4 = 35 % can stay.
        world.tally(100, failing(|at| at < 3));
        let left = far(world.tally(1000, failing(|_| false)));
        assert!(left.abs_diff(one_of_four) <= 60, "{preference:?}: {left}");
        world.tally(600, failing(|at| at < 4));
        assert_eq!(far(world.tally(1000, failing(|at| at < 4))), 1000, "{preference:?}");
    }
}

#[test]
fn an_attempt_passes_over_those_that_were_tried_unless_there_is_no_other() {
    for strategy in ALL {
        let world = World::new(3, &BalanceConfig::new(strategy));
        let request = http::Request::builder().header("x-user", "u").body(()).unwrap();
        for _ in 0..100 {
            let mut tried = Vec::new();
            for _ in 0..3 {
                let context = PickContext::new().with_keys(&request).with_tried(&tried);
                let id = world.balancer.pick(&context).unwrap().id().clone();
                assert!(!tried.contains(&id), "{tried:?}");
                tried.push(id);
            }
            let context = PickContext::new().with_tried(&tried);
            assert!(world.balancer.pick(&context).is_ok());
        }
    }
}

/// P5.
#[test]
fn no_endpoint_has_more_than_its_fair_share_times_the_factor() {
    let weights = [1u32, 2, 3, 4];
    for percent in [100u32, 125, 200] {
        let config =
            BalanceConfig::new(ALL[4].clone()).with_max_load_percent(NonZeroU32::new(percent).unwrap());
        let world = World::new(4, &config);
        let weighted = endpoints(4).into_iter().zip(weights).map(|(one, weight)| one.with_weight(weight));
        world.balancer.update(weighted, &config);
        let mut rng = fastrand::Rng::with_seed(9);
        let mut held = Vec::new();
        for step in 0..20_000 {
            if step % 3 == 2 || held.len() > 500 {
                drop(held.swap_remove(rng.usize(..held.len())));
                continue;
            }
            // Few users, so that their places would be crowded.
            let request = http::Request::builder().header("x-user", rng.u16(..3)).body(()).unwrap();
            let before = held.len();
            held.push(world.balancer.pick(&PickContext::seeded(rng.u64(..)).with_keys(&request)).unwrap());
            let target = *held.last().unwrap().target();
            let load = world.balancer.status()[target].in_flight;
            let share = (before + 1) * weights[target] as usize * percent as usize;
            let bound = share.div_ceil(10 * 100);
            assert!(load <= bound, "{load} above {bound} at {percent} %");
        }
    }
}

#[test]
fn the_slower_endpoint_gets_less_by_its_response_times() {
    let world = World::new(2, &BalanceConfig::new(Strategy::PEAK_EWMA));
    let mut tally = [0; 2];
    for _ in 0..2000 {
        let (target, mut in_flight) = world.balancer.pick(&PickContext::new()).unwrap().into_parts();
        world.clock.advance(Duration::from_millis(if target == 0 { 10 } else { 50 }));
        in_flight.record(Outcome::Success);
        tally[target] += 1;
    }
    assert!(tally[1] < 200, "{tally:?}");
    assert!(tally[1] > 1, "it is tried again when its times are old: {tally:?}");
    let status = world.balancer.status();
    assert!(status[0].latency.unwrap() < Duration::from_millis(12));
}

#[test]
fn who_fails_fast_is_not_fast() {
    let world = World::new(2, &BalanceConfig::new(Strategy::PEAK_EWMA));
    let mut tally = [0; 2];
    for _ in 0..1000 {
        let (target, mut in_flight) = world.balancer.pick(&PickContext::new()).unwrap().into_parts();
        world.clock.advance(Duration::from_millis(if target == 0 { 20 } else { 1 }));
        in_flight.record(if target == 0 { Outcome::Success } else { Outcome::Unreachable });
        tally[target] += 1;
    }
    assert!(tally[1] < 20, "{tally:?}");
}

#[test]
fn a_new_endpoint_is_neither_flooded_nor_starved_by_response_times() {
    let config = BalanceConfig::new(Strategy::PEAK_EWMA);
    let world = World::new(3, &config);
    let run = |requests| {
        let mut tally = vec![0; 4];
        for _ in 0..requests {
            let (target, mut in_flight) = world.balancer.pick(&PickContext::new()).unwrap().into_parts();
            world.clock.advance(Duration::from_millis(10));
            in_flight.record(Outcome::Success);
            tally[target] += 1;
        }
        tally
    };
    run(300);
    world.balancer.update(endpoints(4), &config);
    let tally = run(400);
    assert!((50..200).contains(&tally[3]), "{tally:?}");
}

/// Requests one after the other, each answered after 10 ms, or failed at once by those that are `dead`.
fn run_with_dead(world: &World, rng: &mut fastrand::Rng, requests: usize, dead: &[usize]) -> Vec<usize> {
    let mut tally = vec![0; world.balancer.status().len()];
    for _ in 0..requests {
        let picked = world.balancer.pick(&PickContext::seeded(rng.u64(..))).unwrap();
        let (target, mut in_flight) = picked.into_parts();
        *tally.get_mut(target).unwrap() += 1;
        if dead.contains(&target) {
            in_flight.record(Outcome::Unreachable);
        } else {
            world.clock.advance(Duration::from_millis(10));
            in_flight.record(Outcome::Success);
        }
    }
    tally
}

#[test]
fn a_dead_endpoint_is_met_by_least_request_until_five_failures_in_a_row_eject_it() {
    for n in [2, 3, 4, 8] {
        let (world, mut rng) = (World::new(n, &watched(Strategy::LeastRequest)), fastrand::Rng::with_seed(1));
        run_with_dead(&world, &mut rng, 100, &[]);
        let failed = run_with_dead(&world, &mut rng, 20 * n, &[0])[0];
        assert_eq!((failed, world.health(0)), (5, Health::Ejected), "of {n}");
    }
}

#[test]
fn who_fails_and_may_not_be_ejected_is_spared_by_least_request_until_it_answers() {
    let (world, mut rng) = (World::new(4, &watched(Strategy::LeastRequest)), fastrand::Rng::with_seed(2));
    let none_is_back = |world: &World| (0..2).all(|at| world.health(at) != Health::Probation);
    run_with_dead(&world, &mut rng, 100, &[]);
    let tally = run_with_dead(&world, &mut rng, 1000, &[0, 1]);
    assert!(none_is_back(&world));
    assert!(tally[0] + tally[1] <= 10 + 1000 / 32, "five of each, and a few that look for it: {tally:?}");

    let spared = usize::from(world.health(0) == Health::Ejected);
    assert_eq!(world.health(spared), Health::Healthy);
    run_with_dead(&world, &mut rng, 500, &[1 - spared]);
    let tally = run_with_dead(&world, &mut rng, 300, &[1 - spared]);
    assert!((60..140).contains(&tally[spared]), "a third: {tally:?}");
}

#[test]
fn a_failure_is_a_peak_though_few_requests_are_timed() {
    let world = World::new(1, &BalanceConfig::new(Strategy::PEAK_EWMA));
    let ask = |random, outcome| {
        let (_, mut in_flight) = world.balancer.pick(&PickContext::seeded(random)).unwrap().into_parts();
        in_flight.record(outcome);
    };
    (0..100).for_each(|random| ask(random, Outcome::Success));
    ask(1, Outcome::Unreachable);
    assert!(world.balancer.status()[0].latency >= Some(Duration::from_millis(4900)));
}

#[test]
fn a_dead_endpoint_is_no_black_hole_while_the_set_panics() {
    let outlier = OutlierConfig::new().with_max_ejected_percent(100);
    let config = BalanceConfig::new(Strategy::LeastRequest).with_outlier(outlier);
    let (world, mut rng) = (World::new(3, &config), fastrand::Rng::with_seed(3));
    run_with_dead(&world, &mut rng, 100, &[]);
    let mut picks = (0..100).map(|_| world.balancer.pick(&PickContext::seeded(rng.u64(..))).unwrap());
    let _held = picks.find(|picked| *picked.target() == 2).unwrap();
    run_with_dead(&world, &mut rng, 40, &[0, 1]);
    assert_eq!([0, 1].map(|at| world.health(at)), [Health::Ejected; 2]);
    let tally = run_with_dead(&world, &mut rng, 640, &[0, 1]);
    assert!(tally[0] + tally[1] <= 640 / 16, "a few that look for them: {tally:?}");
}

#[test]
fn after_a_panic_an_endpoint_that_answers_again_is_back_after_its_time() {
    let outlier = OutlierConfig::new().with_max_ejected_percent(100);
    let config = BalanceConfig::new(Strategy::LeastRequest).with_outlier(outlier);
    let (world, mut rng) = (World::new(2, &config), fastrand::Rng::with_seed(4));
    run_with_dead(&world, &mut rng, 100, &[]);
    run_with_dead(&world, &mut rng, 100, &[0, 1]);
    assert_eq!([0, 1].map(|at| world.health(at)), [Health::Ejected; 2]);
    world.advance(3600);
    run_with_dead(&world, &mut rng, 20, &[]);
    assert_eq!([0, 1].map(|at| world.health(at)), [Health::Healthy; 2]);
}

#[test]
fn a_bound_that_comes_later_than_the_load_refuses_nothing() {
    let config = BalanceConfig::new(ALL[4].clone());
    let world = World::new(1, &config);
    let pick = || {
        let request = http::Request::builder().header("x-user", "one").body(()).unwrap();
        world.balancer.pick(&PickContext::new().with_keys(&request))
    };
    let _held = [(); 4].map(|()| pick().unwrap());
    world.balancer.update(endpoints(1), &config.with_max_load_percent(NonZeroU32::new(125).unwrap()));
    assert!(pick().is_ok());
}

#[test]
fn a_changed_decay_counts_from_then_on() {
    let decaying = |decay| BalanceConfig::new(Strategy::PeakEwma { decay });
    let world = World::new(2, &decaying(Duration::from_secs(3600)));
    let run = |requests| {
        let mut rng = fastrand::Rng::with_seed(5);
        let mut tally = [0; 2];
        for _ in 0..requests {
            let picked = world.balancer.pick(&PickContext::seeded(rng.u64(..))).unwrap();
            let (target, mut in_flight) = picked.into_parts();
            world.clock.advance(Duration::from_millis(if target == 0 { 10 } else { 50 }));
            in_flight.record(Outcome::Success);
            tally[target] += 1;
        }
        tally
    };
    assert!(run(300)[1] <= 2, "the slower one is avoided");
    world.balancer.update(endpoints(2), &decaying(Duration::from_millis(20)));
    assert!(run(300)[1] > 20, "its peak is soon forgotten");
}

#[test]
fn who_could_not_be_expected_to_answer_is_not_the_fastest_by_another_strategy() {
    let (world, mut rng) = (World::new(4, &watched(Strategy::LeastRequest)), fastrand::Rng::with_seed(2));
    run_with_dead(&world, &mut rng, 100, &[]);
    run_with_dead(&world, &mut rng, 100, &[0, 1]);
    let spared = usize::from(world.health(0) == Health::Ejected);
    world.balancer.update(endpoints(4), &watched(Strategy::PEAK_EWMA));
    assert!(world.balancer.status()[spared].latency >= Some(Duration::from_millis(9)));
}

//! Endpoints that are dead, and met all the same.

use std::time::Duration;

use nantian_lb::health::{Health, OutlierConfig};
use nantian_lb::{BalanceConfig, Outcome, PickContext, Strategy};

use crate::{World, endpoints, watched};

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
fn who_could_not_be_expected_to_answer_is_not_the_fastest_by_another_strategy() {
    let (world, mut rng) = (World::new(4, &watched(Strategy::LeastRequest)), fastrand::Rng::with_seed(2));
    run_with_dead(&world, &mut rng, 100, &[]);
    run_with_dead(&world, &mut rng, 100, &[0, 1]);
    let spared = usize::from(world.health(0) == Health::Ejected);
    world.balancer.update(endpoints(4), &watched(Strategy::PEAK_EWMA));
    assert!(world.balancer.status()[spared].latency >= Some(Duration::from_millis(9)));
}

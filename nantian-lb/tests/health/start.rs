//! Endpoints that are new, or well again.

use std::time::Duration;

use nantian_lb::health::{Health, SlowStartConfig};
use nantian_lb::{BalanceConfig, Outcome, PickContext, Strategy};

use crate::{World, endpoints, failing, watched};

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

/// P9, by loads: an idle endpoint beside a busy one.
#[test]
fn a_new_endpoint_that_is_idle_beside_a_busy_one_has_its_share_and_no_more() {
    for strategy in [Strategy::LeastRequest, Strategy::PEAK_EWMA] {
        let config = BalanceConfig::new(strategy.clone())
            .with_slow_start(SlowStartConfig::new(Duration::from_secs(100)));
        let world = World::new(1, &config);
        let ask = || {
            let (target, mut in_flight) = world.balancer.pick(&PickContext::new()).unwrap().into_parts();
            world.clock.advance(Duration::from_millis(1));
            in_flight.record(Outcome::Success);
            target
        };
        ask();
        let _held = world.balancer.pick(&PickContext::new()).unwrap();
        world.balancer.update(endpoints(2), &config);
        let of_newcomer = || (0..1000).filter(|_| ask() == 1).count();
        let share = of_newcomer();
        assert!((50..=150).contains(&share), "{strategy:?}: 10 of 110 are 9.1 %, and not {share} of 1000");
        world.advance(100);
        assert!(of_newcomer() > 900, "{strategy:?}: it is the less loaded one, and has started");
    }
}

#[test]
fn a_new_endpoint_starts_slowly_if_it_is_wanted() {
    for also in [true, false] {
        let mut start = SlowStartConfig::new(Duration::from_secs(100));
        start.new_endpoints = also;
        let config = BalanceConfig::default().with_slow_start(start);
        let world = World::new(3, &config);
        world.balancer.update(endpoints(4), &config);
        let tally = world.tally(4000, failing(|_| false));
        let expected = if also { 100..150 } else { 1000..1001 };
        assert!(expected.contains(&tally[3]), "{tally:?}");
    }
}

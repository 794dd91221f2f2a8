//! What is made of response times.

use std::time::Duration;

use nantian_lb::{BalanceConfig, Outcome, PickContext, Strategy};

use crate::{World, endpoints};

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
fn times_are_right_however_far_the_clock_is() {
    let world = World::new(1, &BalanceConfig::new(Strategy::PEAK_EWMA));
    world.clock.advance(Duration::from_nanos(u64::MAX) - Duration::from_secs(5000));
    let (_, mut in_flight) = world.balancer.pick(&PickContext::new()).unwrap().into_parts();
    world.clock.advance(Duration::from_millis(40));
    in_flight.record(Outcome::Success);
    let latency = world.balancer.status()[0].latency.unwrap();
    assert!(latency.abs_diff(Duration::from_millis(40)) < Duration::from_millis(1), "{latency:?}");
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

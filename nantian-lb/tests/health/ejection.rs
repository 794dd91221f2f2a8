//! Endpoints that fail are left out for a while, and no more of them than may be.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use nantian_lb::health::{Health, OutlierConfig, Verdict};
use nantian_lb::{BalanceConfig, EndpointId, Outcome, PickContext, PickError, Strategy};

use crate::{ALL, World, endpoints, failing, watched};

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
fn where_nobody_is_healthy_nobody_is_said_to_be_full() {
    for strategy in ALL {
        let config = BalanceConfig::new(strategy.clone())
            .with_max_inflight_requests(NonZeroU32::MIN)
            .with_panic_threshold_percent(0);
        let world = World::new(2, &config);
        let request = http::Request::builder().header("x-user", "u").body(()).unwrap();
        let refusal = || world.balancer.pick(&PickContext::new().with_keys(&request)).unwrap_err();
        for id in ["pod-000", "pod-001"] {
            world.balancer.set_check(&EndpointId::from(id), Verdict::Fails);
        }
        assert_eq!(refusal(), PickError::NoneHealthy, "{strategy:?}");
        world.balancer.set_check(&EndpointId::from("pod-000"), Verdict::Passes);
        let _held = world.balancer.pick(&PickContext::new()).unwrap();
        assert_eq!(refusal(), PickError::Saturated { max: NonZeroU32::MIN }, "{strategy:?}");
    }
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

#[test]
fn requests_from_before_its_ejection_do_not_keep_an_endpoint_out() {
    let world = World::new(4, &watched(Strategy::RoundRobin));
    let long: Vec<_> =
        (0..8).map(|_| world.balancer.pick(&PickContext::new()).unwrap().into_parts().1).collect();
    let mut long: Vec<_> = long.into_iter().filter(|guard| guard.endpoint().as_str() == "pod-002").collect();
    long.iter_mut().for_each(|guard| guard.record(Outcome::Success));
    world.tally(100, failing(|at| at == 2));
    assert_eq!((world.health(2), long.len()), (Health::Ejected, 2));
    world.advance(34);
    assert_eq!(world.health(2), Health::Probation);
    let held: Vec<_> = (0..40).map(|_| world.balancer.pick(&PickContext::new()).unwrap()).collect();
    let mut probes = held.into_iter().filter(|picked| *picked.target() == 2);
    let (probe, none) = (probes.next().unwrap(), probes.next());
    assert!(none.is_none());
    drop(probe);
    world.tally(8, failing(|_| false));
    assert_eq!(world.health(2), Health::Healthy, "a probe that was given up makes way for another one");
}

#[test]
fn what_began_before_its_ejection_does_not_judge_an_endpoint_in_probation() {
    for outcome in [Outcome::Success, Outcome::Unreachable, Outcome::Busy { retry_after: None }] {
        let world = World::new(4, &watched(Strategy::RoundRobin));
        let guards = (0..32).map(|_| world.balancer.pick(&PickContext::new()).unwrap().into_parts().1);
        let mut old: Vec<_> = guards.filter(|guard| guard.endpoint().as_str() == "pod-002").collect();
        world.tally(100, failing(|at| at == 2));
        assert_eq!((world.health(2), old.len()), (Health::Ejected, 8));
        world.advance(34);
        assert_eq!(world.health(2), Health::Probation);
        old.iter_mut().take(2).for_each(|guard| guard.record(outcome));
        assert_eq!(world.health(2), Health::Probation, "{outcome:?}");
        world.tally(8, failing(|_| false));
        assert_eq!(world.health(2), Health::Healthy);
        old.iter_mut().for_each(|guard| guard.record(outcome));
        assert_eq!(world.health(2), Health::Healthy, "{outcome:?}");
        assert_eq!(world.balancer.status()[2].ejections, 1);
    }
}

#[test]
fn a_probe_that_goes_on_after_its_probation_makes_no_way_for_another_one_in_the_next() {
    let world = World::new(4, &watched(Strategy::RoundRobin));
    let eject = || {
        world.tally(100, failing(|at| at == 2));
        assert_eq!(world.health(2), Health::Ejected);
    };
    let probes = || {
        let guards: Vec<_> =
            (0..40).map(|_| world.balancer.pick(&PickContext::new()).unwrap().into_parts().1).collect();
        guards.into_iter().filter(|guard| guard.endpoint().as_str() == "pod-002").collect::<Vec<_>>()
    };
    eject();
    world.advance(34);
    let mut long = probes();
    assert_eq!(long.len(), 1);
    long[0].record(Outcome::Success);
    assert_eq!(world.health(2), Health::Healthy);
    eject();
    world.advance(70);
    let next = probes();
    assert_eq!((world.health(2), next.len()), (Health::Probation, 1));
    drop(long);
    assert_eq!(probes().len(), 0, "the one of now is still on its way");
    drop(next);
    assert_eq!(probes().len(), 1);
}

#[test]
fn a_request_that_is_sent_to_all_there_is_ends_its_probation() {
    let world = World::new(1, &watched(Strategy::RoundRobin));
    world.tally(20, failing(|_| true));
    world.advance(34);
    assert_eq!(world.health(0), Health::Probation);
    assert_eq!(world.ask(0, failing(|_| false)), 0);
    assert_eq!(world.health(0), Health::Healthy);
}

#[test]
fn what_fails_its_checks_is_passed_over_until_it_passes() {
    for strategy in ALL {
        let world = World::new(3, &BalanceConfig::new(strategy));
        let id = EndpointId::from("pod-001");
        world.balancer.set_check(&id, Verdict::Fails);
        assert_eq!(world.health(1), Health::Failing);
        assert_eq!(world.tally(300, failing(|_| false))[1], 0);
        world.balancer.update(endpoints(3), &world.balancer.config());
        assert_eq!(world.tally(300, failing(|_| false))[1], 0, "an update changes nothing about it");
        world.balancer.set_check(&id, Verdict::Passes);
        assert!(world.tally(300, failing(|_| false))[1] > 50);
    }
}

/// P4, exactly: Maglev moves a few keys when the set changes (see P3), none when an endpoint is ejected or
/// full.
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

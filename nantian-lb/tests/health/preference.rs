//! Endpoints that drain, are far away, or have more than their share.

use std::num::NonZeroU32;

use nantian_lb::health::{Health, OutlierConfig, Verdict};
use nantian_lb::{BalanceConfig, EndpointId, PickContext, Readiness, Strategy, TierPreference};

use crate::{ALL, World, endpoints, failing, watched};

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

/// Six endpoints, of which a far one, the fifth, was ejected while the three near ones were away, and has
/// served its time.
fn back_from_far() -> World {
    let config = watched(Strategy::RoundRobin);
    let world = World::new(6, &config);
    let near = |readiness| {
        endpoints(6).into_iter().map(move |mut one| {
            let is_near = one.target < 3;
            if is_near {
                one.readiness = readiness;
            }
            one.with_tier(u8::from(!is_near))
        })
    };
    world.balancer.update(near(Readiness::NotReady), &config);
    world.tally(60, failing(|at| at == 4));
    assert_eq!(world.health(4), Health::Ejected);
    world.balancer.update(near(Readiness::Ready), &config);
    world.advance(40);
    world
}

#[test]
fn who_gets_no_request_after_its_ejection_does_not_use_up_those_of_others() {
    let world = back_from_far();
    world.tally(60, failing(|at| at == 0));
    assert_eq!((world.health(4), world.health(0)), (Health::Healthy, Health::Ejected));
}

#[test]
fn who_gets_no_request_after_its_ejection_is_not_well_while_its_checks_fail() {
    let world = back_from_far();
    let id = EndpointId::from("pod-004");
    world.balancer.set_check(&id, Verdict::Fails);
    assert_eq!(world.health(4), Health::Failing);
    world.balancer.set_check(&id, Verdict::Passes);
    assert_eq!(world.health(4), Health::Healthy);
}

#[test]
fn the_only_near_one_is_tried_with_one_request_before_it_gets_all() {
    for strategy in ALL {
        for preference in [TierPreference::Spill, TierPreference::Strict] {
            // The others alone can take all, or panic.
            for bad in [1, 3] {
                let outlier = OutlierConfig::new().with_max_ejected_percent(100);
                let config = watched(strategy.clone()).with_tiers(preference).with_outlier(outlier);
                let world = World::new(4, &config);
                let zones = endpoints(4).into_iter().map(|one| {
                    let tier = u8::from(one.target > 0);
                    one.with_tier(tier)
                });
                world.balancer.update(zones, &config);
                world.tally(100, failing(|at| at < bad));
                assert_eq!(world.health(0), Health::Ejected);
                world.advance(40);
                assert_eq!(
                    world.tally(100, failing(|at| at < bad))[0],
                    1,
                    "{strategy:?} {preference:?} {bad}"
                );
                world.advance(200);
                assert_eq!(world.tally(100, failing(|_| false))[0], 100, "{strategy:?} {preference:?} {bad}");
            }
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

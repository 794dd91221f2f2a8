//! Decisions of the core.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::FakeRelativeClock;
use governor::{Quota, RateLimiter};
use nantian_ratelimit::{
    Cost, InvalidPolicy, Limit, LimitName, Limiter, Policy,
    clock::{Clock, ManualClock, Timestamp},
};
use proptest::prelude::*;

/// A clock whose recent time is the origin for ever.
#[derive(Debug)]
struct SlowTick(ManualClock);

impl Clock for SlowTick {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn recent(&self) -> Option<Timestamp> {
        Some(Timestamp::ORIGIN)
    }
}

pub(crate) fn policy(limits: impl IntoIterator<Item = Limit>) -> Policy {
    limits.into_iter().fold(Policy::builder(), |policy, limit| policy.limit(limit)).build().unwrap()
}

pub(crate) fn limiter(limits: impl IntoIterator<Item = Limit>) -> Limiter {
    Limiter::builder(policy(limits)).clock(ManualClock::new()).build()
}

pub(crate) fn seconds(seconds: u64) -> Timestamp {
    Timestamp::ORIGIN.saturating_add(Duration::from_secs(seconds))
}

#[test]
fn a_burst_is_admitted_exactly() {
    let limiter = limiter([Limit::requests_per_minute(60).with_burst(1.5)]);
    let key = limiter.key(b"k");
    let admitted = (0..1000).filter(|_| limiter.admit(key, Cost::REQUEST).is_ok());
    assert_eq!(admitted.count(), 90);
}

#[test]
fn a_look_ahead_takes_nothing_from_others() {
    let limiter = limiter([Limit::requests_per_minute(60)]);
    limiter.levels_at(seconds(3600), limiter.key(b"a"));
    let key = limiter.key(b"b");
    let admitted = (0..100).filter(|_| limiter.admit_at(seconds(0), key, Cost::REQUEST).is_ok());
    assert_eq!(admitted.count(), 60);
}

#[test]
fn who_fits_now_is_admitted_though_the_recent_time_is_old() {
    let clock = ManualClock::new();
    let policy = Policy::builder().limit(Limit::requests_per_minute(1)).build().unwrap();
    let limiter = Limiter::builder(policy).clock(SlowTick(clock.clone())).build();
    let key = limiter.key(b"k");
    limiter.admit(key, Cost::REQUEST).unwrap();
    clock.advance(Duration::from_secs(59));
    let denied = limiter.admit(key, Cost::REQUEST).unwrap_err();
    assert_eq!(denied.retry_after(), Some(Duration::from_secs(1)));
    clock.advance(Duration::from_secs(1));
    limiter.admit(key, Cost::REQUEST).unwrap();
}

#[test]
fn a_burst_that_binary_cannot_represent_is_not_rounded_down() {
    let limit = Limit::requests_per_minute(100).with_burst(1.15);
    assert_eq!(limit.capacity(), 115);
}

#[test]
fn keys_do_not_share_a_bucket() {
    let limiter = limiter([Limit::requests_per_minute(1)]);
    for name in 0..1000u32 {
        let key = limiter.key(&name.to_be_bytes());
        assert!(limiter.admit(key, Cost::REQUEST).is_ok());
        assert!(limiter.admit(key, Cost::REQUEST).is_err());
    }
    assert_eq!(limiter.live_keys_at(Timestamp::ORIGIN), 1000);
}

#[test]
fn a_denied_request_costs_nothing_on_any_limit() {
    let limits =
        [Limit::requests_per_minute(100), Limit::tokens_per_minute(1000), Limit::tokens_per_hour(2000)];
    let limiter = limiter(limits);
    let key = limiter.key(b"k");
    limiter.admit(key, Cost::tokens(900)).unwrap();
    let before = format!("{:?}", limiter.levels(key));
    let denied = limiter.admit(key, Cost::tokens(101)).unwrap_err();
    assert_eq!(denied.limit().name().as_str(), "tokens-per-minute");
    assert_eq!(format!("{:?}", limiter.levels(key)), before);
    assert_eq!(format!("{:?}", denied.levels()), before);
    limiter.admit(key, Cost::tokens(100)).unwrap();
}

#[test]
fn the_limit_with_the_longest_wait_is_reported() {
    let limits = [Limit::tokens_per_minute(100), Limit::tokens_per_hour(100)];
    let limiter = limiter(limits);
    let key = limiter.key(b"k");
    limiter.admit(key, Cost::tokens(100)).unwrap();
    let denied = limiter.admit(key, Cost::tokens(10)).unwrap_err();
    assert_eq!(denied.limit().name().as_str(), "tokens-per-hour");
    assert_eq!(denied.retry_after(), Some(Duration::from_secs(360)));
    assert_eq!(denied.to_string(), "tokens-per-hour exhausted, retry after 360s");
}

#[test]
fn a_retry_passes_at_the_time_told() {
    let limiter = limiter([Limit::requests_per_minute(7), Limit::tokens_per_hour(999)]);
    let key = limiter.key(b"k");
    while limiter.admit(key, Cost::tokens(90)).is_ok() {}
    let denied = limiter.admit(key, Cost::tokens(90)).unwrap_err();
    let wait = denied.retry_after().unwrap();
    let (just_before, then) = (wait - Duration::from_nanos(1), wait);
    let at = |wait| Timestamp::ORIGIN.saturating_add(wait);
    assert!(limiter.admit_at(at(just_before), key, Cost::tokens(90)).is_err());
    assert!(limiter.admit_at(at(then), key, Cost::tokens(90)).is_ok());
}

#[test]
fn a_limit_of_zero_denies_all_and_tells_no_time() {
    let limiter = limiter([Limit::requests_per_minute(0), Limit::tokens_per_minute(5)]);
    let key = limiter.key(b"k");
    let denied = limiter.admit(key, Cost::REQUEST).unwrap_err();
    assert_eq!(denied.retry_after(), None);
    assert_eq!(denied.to_string(), "requests-per-minute exhausted, it admits nothing");
    assert_eq!(denied.levels().iter().next().unwrap().remaining, 0);
    assert_eq!(limiter.live_keys_at(Timestamp::ORIGIN), 0);
}

#[test]
fn a_cost_of_zero_is_not_checked() {
    let limiter = limiter([Limit::requests_per_minute(5), Limit::tokens_per_minute(1)]);
    let key = limiter.key(b"k");
    limiter.admit(key, Cost::tokens(1)).unwrap();
    assert!(limiter.admit(key, Cost::REQUEST).is_ok());
    assert!(limiter.admit(key, Cost::tokens(1)).is_err());
}

#[test]
fn a_cost_above_the_bucket_passes_when_the_bucket_is_full() {
    let limiter = limiter([Limit::tokens_per_minute(60)]);
    let key = limiter.key(b"k");
    assert!(limiter.admit_at(seconds(0), key, Cost::tokens(1)).is_ok());
    let denied = limiter.admit_at(seconds(0), key, Cost::tokens(10_000));
    assert_eq!(denied.unwrap_err().retry_after(), Some(Duration::from_secs(1)));
    assert!(limiter.admit_at(seconds(1), key, Cost::tokens(10_000)).is_ok());
    assert!(limiter.admit_at(seconds(1), key, Cost::tokens(1)).is_err());
}

#[test]
fn a_clock_that_steps_back_admits_no_more() {
    let limiter = limiter([Limit::requests_per_minute(60)]);
    let key = limiter.key(b"k");
    let mut admitted = 0;
    for time in [100, 0, 100, 50, 99, 100, 0] {
        while limiter.admit_at(seconds(time), key, Cost::REQUEST).is_ok() {
            admitted += 1;
        }
    }
    assert_eq!(admitted, 60);
}

#[test]
fn a_clock_that_steps_back_gives_no_second_bucket_to_a_key_that_was_forgotten() {
    let policy = |requests| Policy::builder().limit(Limit::requests_per_minute(requests)).build().unwrap();
    for is_edited in [false, true] {
        let limiter = Limiter::builder(policy(60)).max_keys(1).clock(ManualClock::new()).build();
        let admitted = |name, time| {
            let admits = || limiter.admit_at(seconds(time), limiter.key(name), Cost::REQUEST).is_ok();
            (0..100).filter(|_| admits()).count()
        };
        assert_eq!((admitted(b"k", 0), admitted(b"takes its slot", 60)), (60, 60));
        if is_edited {
            limiter.successor_at(seconds(0), policy(59)).successor_at(seconds(0), policy(60));
        }
        let more = admitted(b"k", 0) + admitted(b"k", 60);
        assert_eq!(more, 60, "as many as at the furthest reading");
    }
}

#[test]
fn a_limiter_survives_the_end_of_time() {
    let limiter = limiter([Limit::requests_per_minute(7), Limit::tokens_per_minute(7)]);
    let key = limiter.key(b"k");
    for time in [0, 1 << 40, u64::MAX, 3, u64::MAX] {
        let now = Timestamp::from_nanos(time);
        if let Ok(admitted) = limiter.admit_at(now, key, Cost::tokens(u64::MAX)) {
            admitted.reserve().cancel_at(now);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn verdicts_are_those_of_governor(
        per_minute in prop_oneof![Just(1u32), Just(7), Just(60), Just(77), Just(5000), Just(99_991), 1..1_000_000u32],
        burst in prop_oneof![Just(1.0), 1.0..5.0f64],
        steps in prop::collection::vec((0..64u64, 0..1000u64, 1..64u64), 1..200),
    ) {
        let limit = Limit::tokens_per_minute(per_minute.into()).with_burst(burst);
        let capacity = NonZeroU32::new(limit.capacity().try_into().unwrap()).unwrap();
        let quota = Quota::per_minute(NonZeroU32::new(per_minute).unwrap()).allow_burst(capacity);
        let clock = FakeRelativeClock::default();
        let governor = RateLimiter::direct_with_clock(quota, clock.clone());
        let limiter = limiter([limit]);
        let key = limiter.key(b"k");
        let (mut now, mut taken) = (0, 0);
        // In parts of the minute and of the bucket, so that both verdicts occur whatever the amount.
        for (pause, jitter, share) in steps {
            let pause = 60_000_000_000 / 512 * pause + jitter;
            now += pause;
            clock.advance(Duration::from_nanos(pause));
            let cost = u32::try_from(u64::from(capacity.get()) * share / 128).unwrap().max(1);
            let theirs = governor.check_n(NonZeroU32::new(cost).unwrap()).unwrap().is_ok();
            match limiter.admit_at(Timestamp::from_nanos(now), key, Cost::tokens(cost.into())) {
                Ok(_) => prop_assert!(theirs),
                Err(denied) if theirs => {
                    // It cuts an item's share of the minute to a nanosecond.
                    prop_assert!(60_000_000_000 % u64::from(per_minute) != 0);
                    let early = denied.retry_after().unwrap();
                    prop_assert!(early <= Duration::from_nanos(taken + u64::from(cost)), "{early:?}");
                    break;
                }
                Err(_) => {}
            }
            taken += u64::from(cost);
        }
    }
}

#[test]
fn the_name_of_a_limit_is_checked_where_it_is_read() {
    let name: LimitName = "demo.quota_1".parse().unwrap();
    assert_eq!((name.as_ref(), name.to_string().as_str()), ("demo.quota_1", "demo.quota_1"));
    for wrong in ["", "a b", "ü", &"a".repeat(LimitName::MAX_LEN + 1)] {
        assert_eq!(wrong.parse::<LimitName>(), Err(InvalidPolicy::Name(wrong.to_owned())));
    }
}

#[test]
fn clients_tell_the_limits_of_a_policy_by_their_names() {
    let limits = [Limit::requests_per_minute(1), Limit::tokens_per_hour(1)];
    let named = limits.map(|limit| limit.with_name("quota".parse().unwrap()));
    let policy = named.into_iter().fold(Policy::builder(), |policy, limit| policy.limit(limit));
    let refused = policy.build().map_err(|error| error.to_string());
    assert_eq!(refused, Err("quota is the name of two limits".to_owned()));
}

//! A change of policy keeps what callers have used.

use std::time::Duration;

use nantian_ratelimit::{Cost, Key, Limit, Limiter, Settlement};

use crate::admit::{limiter, policy, seconds};

fn remaining(limiter: &Limiter, key: Key) -> Vec<u64> {
    let levels = limiter.levels(key);
    levels.iter().map(|level| level.remaining).collect()
}

#[test]
fn a_new_amount_keeps_the_tokens_used() {
    let limiter = limiter([Limit::tokens_per_minute(1000)]);
    let key = limiter.key(b"k");
    drop(limiter.admit(key, Cost::tokens(300)));
    let raised = limiter.successor(policy([Limit::tokens_per_minute(5000)]));
    assert_eq!(remaining(&raised, key), [4700]);
    let lowered = raised.successor(policy([Limit::tokens_per_minute(400)]));
    assert_eq!(remaining(&lowered, key), [100]);
}

#[test]
fn a_new_amount_keeps_debt() {
    let limiter = limiter([Limit::tokens_per_minute(600)]);
    let key = limiter.key(b"k");
    let reservation = limiter.admit(key, Cost::tokens(600)).unwrap().reserve();
    reservation.settle(Settlement::Used(800));
    let raised = limiter.successor(policy([Limit::tokens_per_minute(6000)]));
    assert_eq!(remaining(&raised, key), [5200]);
    let lowered = raised.successor(policy([Limit::tokens_per_minute(600)]));
    let denied = lowered.admit(key, Cost::tokens(1)).unwrap_err();
    assert_eq!(denied.retry_after(), Some(Duration::from_millis(20_100)));
}

#[test]
fn a_limit_below_what_was_used_keeps_the_caller_out_for_two_windows_at_most() {
    let limiter = limiter([Limit::tokens_per_minute(100_000)]);
    let key = limiter.key(b"k");
    drop(limiter.admit(key, Cost::tokens(100_000)));
    let lowered = limiter.successor(policy([Limit::tokens_per_minute(60)]));
    let denied = lowered.admit(key, Cost::tokens(1)).unwrap_err();
    assert_eq!(denied.retry_after(), Some(Duration::from_secs(61)));
}

#[test]
fn closing_a_limit_for_a_while_keeps_what_was_used() {
    for (max, used) in [(10, 2), (10, 5), (1000, 900)] {
        let limit = |max| policy([Limit::tokens_per_hour(max)]);
        let limiter = Limiter::new(limit(max));
        let key = limiter.key(b"k");
        drop(limiter.admit(key, Cost::tokens(used)));
        let closed = limiter.successor(limit(0));
        assert_eq!(remaining(&closed, key), [0]);
        assert!(closed.admit(key, Cost::tokens(1)).is_err());
        let reopened = closed.successor(limit(max));
        assert_eq!(remaining(&reopened, key), [max - used]);
    }
}

#[test]
fn a_closed_limit_keeps_all_that_was_used_and_what_was_on_its_way() {
    for limit in [Limit::tokens_per_hour, Limit::tokens_per_day] {
        let limiter = limiter([limit(100_000_000)]);
        let key = limiter.key(b"k");
        let reservation = limiter.admit(key, Cost::tokens(90_000_000)).unwrap().reserve();
        let closed = limiter.successor(policy([limit(0)]));
        reservation.settle(Settlement::Used(95_000_000));
        let renamed = limit(0).with_name("other".parse().unwrap());
        let reopened = closed.successor(policy([renamed])).successor(policy([limit(100_000_000)]));
        assert_eq!(remaining(&reopened, key), [5_000_000]);
    }
}

#[test]
fn a_limit_that_is_there_again_gives_nothing_back_that_it_has_not_taken() {
    let both = [Limit::tokens_per_minute(1000), Limit::requests_per_minute(10)];
    let first = limiter(both.clone());
    let key = first.key(b"k");
    let early = first.admit(key, Cost::tokens(500)).unwrap().reserve();
    let removed = first.successor(policy([Limit::requests_per_minute(20)]));
    let again = removed.successor(policy(both));
    drop(again.admit(key, Cost::tokens(600)));
    early.settle(Settlement::NotServed);
    assert_eq!(remaining(&again, key), [400, 8]);
    let late = again.admit(key, Cost::tokens(100)).unwrap().reserve();
    late.settle(Settlement::NotServed);
    assert_eq!(remaining(&again, key), [400, 7]);
}

#[test]
fn limits_come_and_go_without_touching_the_others() {
    let limiter = limiter([Limit::requests_per_minute(10)]);
    let key = limiter.key(b"k");
    drop(limiter.admit(key, Cost::tokens(70)));
    let more = [Limit::tokens_per_minute(100), Limit::requests_per_minute(10), Limit::tokens_per_hour(100)];
    let more = limiter.successor(policy(more));
    assert_eq!(remaining(&more, key), [100, 9, 100]);
    drop(more.admit(key, Cost::tokens(30)));
    let fewer = more.successor(policy([Limit::tokens_per_hour(100), Limit::requests_per_minute(10)]));
    assert_eq!(remaining(&fewer, key), [70, 8]);
}

#[test]
fn another_window_starts_afresh() {
    let limiter = limiter([Limit::tokens_per_minute(100)]);
    let key = limiter.key(b"k");
    drop(limiter.admit(key, Cost::tokens(70)));
    let hourly = limiter.successor(policy([Limit::tokens_per_hour(100)]));
    assert_eq!(remaining(&hourly, key), [100]);
}

#[test]
fn every_key_keeps_its_level() {
    let limiter = limiter([Limit::requests_per_minute(100)]);
    let keys: Vec<Key> = (0..5000u32).map(|name| limiter.key(&name.to_be_bytes())).collect();
    let used = |index: usize| 1 + index as u64 % 50;
    for (index, key) in keys.iter().enumerate() {
        drop(limiter.admit(*key, Cost::new(used(index), 0)));
    }
    let changed = policy([Limit::tokens_per_minute(1), Limit::requests_per_minute(200)]);
    let changed = limiter.successor(changed);
    for (index, key) in keys.iter().enumerate() {
        assert_eq!(remaining(&changed, *key), [1, 200 - used(index)]);
    }
}

#[test]
fn the_newest_amounts_hold_for_limiters_that_were_there_before() {
    let old = limiter([Limit::requests_per_minute(100)]);
    let key = old.key(b"k");
    drop(old.admit(key, Cost::new(50, 0)));
    let new = old.successor(policy([Limit::requests_per_minute(51)]));
    assert!(old.admit(key, Cost::REQUEST).is_ok());
    assert!(old.admit(key, Cost::REQUEST).is_err());
    assert!(new.admit(key, Cost::REQUEST).is_err());
    assert_eq!(remaining(&old, key), [0]);
}

#[test]
fn a_reservation_is_settled_at_the_newest_amounts() {
    let limiter = limiter([Limit::tokens_per_minute(1000)]);
    let key = limiter.key(b"k");
    let reservation = limiter.admit(key, Cost::tokens(500)).unwrap().reserve();
    let changed = policy([Limit::tokens_per_hour(7), Limit::tokens_per_minute(2000)]);
    let changed = limiter.successor(changed);
    reservation.settle(Settlement::Used(200));
    assert_eq!(remaining(&changed, key), [7, 1800]);
}

#[test]
fn the_same_policy_again_changes_nothing() {
    let limiter = limiter([Limit::tokens_per_minute(1000)]);
    let key = limiter.key(b"k");
    drop(limiter.admit_at(seconds(1), key, Cost::tokens(500)));
    let before = format!("{:?}", limiter.levels_at(seconds(2), key));
    let same = limiter.successor(limiter.policy().clone());
    assert_eq!(format!("{:?}", same.levels_at(seconds(2), key)), before);
}

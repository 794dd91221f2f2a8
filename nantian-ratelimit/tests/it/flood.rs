//! Memory is bounded, and no flood of keys changes the level of a key in use.

use nantian_ratelimit::{Cost, Key, Limit, Limiter, Settlement, clock::ManualClock};

use crate::admit::{policy, seconds};

const MAX_KEYS: usize = 2000;

fn limiter(limits: &[Limit]) -> Limiter {
    Limiter::builder(policy(limits.iter().cloned())).max_keys(MAX_KEYS).clock(ManualClock::new()).build()
}

fn key(limiter: &Limiter, name: usize) -> Key {
    limiter.key(&name.to_be_bytes())
}

fn all_limits() -> [Limit; 3] {
    [Limit::requests_per_minute(100), Limit::tokens_per_minute(1000), Limit::tokens_per_hour(10_000)]
}

#[test]
fn a_flood_of_ten_times_the_keys_never_changes_what_a_live_key_has_left() {
    let limiter = limiter(&all_limits());
    let victims: Vec<Key> = (0..500).map(|name| key(&limiter, name)).collect();
    for victim in &victims {
        drop(limiter.admit_at(seconds(0), *victim, Cost::tokens(400)));
    }
    let levels = || victims.iter().map(|key| format!("{:?}", limiter.levels_at(seconds(0), *key)));
    let before: Vec<String> = levels().collect();
    for name in 0..10 * MAX_KEYS {
        drop(limiter.admit_at(seconds(0), key(&limiter, 1_000_000 + name), Cost::tokens(1)));
    }
    assert!(levels().eq(before));
}

#[test]
fn an_edit_in_a_flood_takes_no_live_key_its_bucket() {
    let [requests, per_minute, per_hour] = all_limits();
    let more = Limit::requests_per_minute(101);
    for (before, after) in [
        (
            vec![requests.clone(), per_minute.clone(), per_hour.clone()],
            vec![per_hour, per_minute, more.clone()],
        ),
        (vec![requests.clone()], vec![Limit::tokens_per_minute(5), more.clone()]),
        (vec![requests, Limit::tokens_per_minute(5)], vec![more]),
    ] {
        let limiter = limiter(&before);
        let victims: Vec<Key> = (0..500).map(|name| key(&limiter, name)).collect();
        for (used, victim) in victims.iter().enumerate() {
            drop(limiter.admit_at(seconds(0), *victim, Cost::new(1 + used as u64 % 99, 0)));
        }
        for name in 0..10 * MAX_KEYS {
            drop(limiter.admit_at(seconds(0), key(&limiter, 1_000_000 + name), Cost::REQUEST));
        }
        let live = limiter.live_keys_at(seconds(0));
        let edited = limiter.successor_at(seconds(0), policy(after));
        let left = |key| {
            let levels = edited.levels_at(seconds(0), key);
            let mut requests =
                levels.iter().filter(|level| level.limit.name().as_ref() == "requests-per-minute");
            requests.next().unwrap().remaining
        };
        for (used, victim) in victims.iter().enumerate() {
            assert_eq!(left(*victim), 101 - (1 + used as u64 % 99), "victim {used}");
        }
        assert_eq!(edited.live_keys_at(seconds(0)), live, "all have a bucket each as before");
    }
}

#[test]
fn keys_are_bounded_whatever_arrives() {
    let limiter = limiter(&all_limits());
    for name in 0..20 * MAX_KEYS {
        drop(limiter.admit_at(seconds(0), key(&limiter, name), Cost::REQUEST));
    }
    let live = limiter.live_keys_at(seconds(0));
    assert!((MAX_KEYS..3 * MAX_KEYS).contains(&live), "{live} live keys");
}

#[test]
fn as_many_keys_as_promised_have_a_bucket_each() {
    for limits in [&all_limits()[..1], &all_limits()[..]] {
        let limiter = limiter(limits);
        for name in 0..MAX_KEYS {
            drop(limiter.admit_at(seconds(0), key(&limiter, name), Cost::tokens(1)));
        }
        let shared = MAX_KEYS - limiter.live_keys_at(seconds(0));
        assert!(shared <= MAX_KEYS / 100, "{shared} of {MAX_KEYS} keys share");
    }
}

#[test]
fn keys_beyond_the_bound_share_a_few_buckets() {
    let limiter = limiter(&[Limit::requests_per_minute(1)]);
    let admitted = |from: usize, count: usize| {
        let names = from..from + count;
        names.filter(|name| limiter.admit_at(seconds(0), key(&limiter, *name), Cost::REQUEST).is_ok()).count()
    };
    admitted(0, 10);
    assert_eq!(limiter.overflows(), 0);
    let first = admitted(0, 10 * MAX_KEYS);
    assert!(first < 3 * MAX_KEYS, "{first} admitted");
    let before = limiter.overflows();
    assert!(admitted(10 * MAX_KEYS, 10 * MAX_KEYS) < 64);
    assert_eq!(limiter.overflows() - before, 10 * MAX_KEYS as u64, "and it is told");
}

#[test]
fn what_a_shared_bucket_was_charged_refills_and_is_not_given_back() {
    let limits = [Limit::tokens_per_minute(100)];
    let limiter = Limiter::builder(policy(limits)).max_keys(1).clock(ManualClock::new()).build();
    let admit = |name, at| limiter.admit_at(seconds(at), key(&limiter, name), Cost::tokens(100)).ok();
    let first = (0..).find(|name| {
        let admitted = admit(*name, 0).unwrap();
        let is_shared = limiter.overflows() > 0;
        if is_shared {
            admitted.reserve().cancel_at(seconds(0));
        }
        is_shared
    });
    let other = first.unwrap() + 1;
    assert!(admit(other, 0).is_none() && limiter.overflows() == 2, "another that shares it");
    assert!(admit(other, 60).is_some());
}

#[test]
fn what_a_shared_bucket_was_charged_is_not_given_back_to_the_bucket_that_a_key_has_later() {
    let limits = [Limit::tokens_per_minute(100)];
    let limiter = Limiter::builder(policy(limits)).max_keys(1).clock(ManualClock::new()).build();
    let admit = |name, at| limiter.admit_at(seconds(at), key(&limiter, name), Cost::tokens(100)).ok();
    let first = (0..).find_map(|name| {
        let admitted = admit(name, 0).unwrap();
        (limiter.overflows() > 0).then(|| (name, admitted.reserve()))
    });
    let (name, first) = first.unwrap();
    assert!(admit(name, 60).is_some() && limiter.overflows() == 1, "it has a bucket of its own");
    first.settle_at(seconds(60), Settlement::NotServed);
    assert!(admit(name, 60).is_none());
}

#[test]
fn spent_keys_make_room() {
    let limiter = limiter(&all_limits());
    for round in 0..20 {
        for name in 0..MAX_KEYS / 2 {
            let key = key(&limiter, round * MAX_KEYS + name);
            let admitted = limiter.admit_at(seconds(60 * round as u64), key, Cost::tokens(1)).unwrap();
            assert_eq!(admitted.levels().iter().next().unwrap().remaining, 99);
        }
    }
}

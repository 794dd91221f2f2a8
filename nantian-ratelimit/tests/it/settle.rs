//! Settlement of what was reserved.

use std::time::Duration;

use nantian_ratelimit::{Cost, Key, Limit, Limiter, Policy, Settlement, clock::ManualClock};

use crate::admit::{limiter, seconds};

fn remaining(limiter: &Limiter, key: Key) -> u64 {
    let levels = limiter.levels(key);
    levels.tightest().unwrap().remaining
}

#[test]
fn unused_tokens_come_back() {
    let limiter = limiter([Limit::tokens_per_minute(1000)]);
    let key = limiter.key(b"k");
    let reservation = limiter.admit(key, Cost::tokens(800)).unwrap().reserve();
    assert_eq!(remaining(&limiter, key), 200);
    let settled = reservation.settle(Settlement::Used(300));
    assert_eq!((settled.reserved, settled.used, settled.forgiven), (800, 300, 0));
    assert_eq!(remaining(&limiter, key), 700);
}

#[test]
fn tokens_from_a_cache_count_by_their_weight() {
    let policy = Policy::builder().limit(Limit::tokens_per_minute(1000)).cached_token_weight(0.25);
    let limiter = Limiter::new(policy.build().unwrap());
    let key = limiter.key(b"k");
    for (settlement, used) in [
        (Settlement::Used(500).with_cached(400), 200),
        (Settlement::AtLeast(500).with_cached(400), 300),
        (Settlement::Used(500).into(), 500),
    ] {
        let reservation = limiter.admit(key, Cost::tokens(300)).unwrap().reserve();
        assert_eq!(reservation.settle(settlement).used, used);
    }
}

#[test]
fn use_beyond_the_bucket_is_debt_that_keeps_the_caller_out() {
    let limiter = limiter([Limit::tokens_per_minute(600)]);
    let key = limiter.key(b"k");
    let reservation = limiter.admit(key, Cost::tokens(500)).unwrap().reserve();
    reservation.settle(Settlement::Used(900));
    assert_eq!(remaining(&limiter, key), 0);
    let denied = limiter.admit(key, Cost::tokens(1)).unwrap_err();
    assert_eq!(denied.retry_after(), Some(Duration::from_millis(30_100)));
}

#[test]
fn debt_beyond_a_window_is_forgiven() {
    let limiter = limiter([Limit::tokens_per_minute(600)]);
    let key = limiter.key(b"k");
    let reservation = limiter.admit(key, Cost::tokens(600)).unwrap().reserve();
    let settled = reservation.settle(Settlement::Used(1_000_000));
    assert_eq!(settled.forgiven, 1_000_000 - 1200);
    let denied = limiter.admit(key, Cost::tokens(600)).unwrap_err();
    assert_eq!(denied.retry_after(), Some(Duration::from_secs(120)));
}

#[test]
fn an_oversized_request_pays_for_its_real_use() {
    let limiter = limiter([Limit::tokens_per_minute(100)]);
    let key = limiter.key(b"k");
    let reservation = limiter.admit(key, Cost::tokens(10_000)).unwrap().reserve();
    reservation.settle(Settlement::Used(40));
    assert_eq!(remaining(&limiter, key), 60);
}

#[test]
fn an_aborted_stream_gets_nothing_back_but_pays_for_more() {
    let limiter = limiter([Limit::tokens_per_minute(1000)]);
    let key = limiter.key(b"k");
    for (seen, left) in [(100, 600), (700, 0)] {
        let reservation = limiter.admit(key, Cost::tokens(400)).unwrap().reserve();
        reservation.settle(Settlement::AtLeast(seen));
        assert_eq!(remaining(&limiter, key), left);
    }
}

#[test]
fn an_aborted_stream_owes_nothing_that_was_merely_estimated() {
    let limiter = limiter([Limit::tokens_per_minute(100), Limit::tokens_per_hour(10_000)]);
    let key = limiter.key(b"k");
    let reservation = limiter.admit(key, Cost::tokens(5000)).unwrap().reserve();
    let settled = reservation.settle(Settlement::AtLeast(40));
    assert_eq!((settled.reserved, settled.used, settled.forgiven), (5000, 5000, 0));
    let levels = limiter.levels(key);
    let left: Vec<u64> = levels.iter().map(|level| level.remaining).collect();
    assert_eq!(left, [0, 5000]);
    let refilled = limiter.now().saturating_add(Duration::from_millis(600));
    assert!(
        limiter.admit_at(refilled, key, Cost::tokens(1)).is_ok(),
        "the minute's bucket is empty, not in debt"
    );
}

#[test]
fn an_oversized_reservation_counts_as_what_it_took() {
    for (settlement, used) in [(Settlement::AsReserved, 100), (Settlement::AtLeast(130), 130)] {
        let limiter = limiter([Limit::tokens_per_minute(100)]);
        let key = limiter.key(b"k");
        let reservation = limiter.admit(key, Cost::tokens(10_000)).unwrap().reserve();
        assert_eq!(reservation.settle(settlement).used, used);
    }
}

#[test]
fn a_request_that_was_not_served_gets_its_tokens_back_but_not_its_turn() {
    let limiter = limiter([Limit::requests_per_minute(10), Limit::tokens_per_minute(100)]);
    let key = limiter.key(b"k");
    let reservation = limiter.admit(key, Cost::tokens(70)).unwrap().reserve();
    reservation.settle(Settlement::NotServed);
    let levels = limiter.levels(key);
    let left: Vec<u64> = levels.iter().map(|level| level.remaining).collect();
    assert_eq!(left, [9, 100]);
}

#[test]
fn a_cancelled_request_leaves_no_trace() {
    let limiter = limiter([Limit::requests_per_minute(10), Limit::tokens_per_minute(100)]);
    let key = limiter.key(b"k");
    limiter.admit(key, Cost::tokens(70)).unwrap().reserve().cancel();
    assert_eq!(limiter.live_keys(), 0);
}

#[test]
fn a_dropped_reservation_counts_as_used() {
    let limiter = limiter([Limit::tokens_per_minute(100)]);
    let key = limiter.key(b"k");
    drop(limiter.admit(key, Cost::tokens(70)).unwrap().reserve());
    assert_eq!(remaining(&limiter, key), 30);
}

#[test]
fn a_late_refund_is_no_credit() {
    let limiter = limiter([Limit::tokens_per_minute(100)]);
    let key = limiter.key(b"k");
    let reservation = limiter.admit_at(seconds(0), key, Cost::tokens(100)).unwrap().reserve();
    reservation.settle_at(seconds(50), Settlement::Used(0));
    let levels = limiter.levels_at(seconds(50), key);
    assert_eq!(levels.tightest().unwrap().remaining, 100);
}

#[test]
fn debt_is_charged_to_a_key_that_was_forgotten_meanwhile() {
    let policy = Policy::builder().limit(Limit::tokens_per_minute(100)).build().unwrap();
    let limiter = Limiter::builder(policy).max_keys(50).clock(ManualClock::new()).build();
    let key = limiter.key(b"k");
    let reservation = limiter.admit_at(seconds(0), key, Cost::tokens(1)).unwrap().reserve();
    for other in 0..1000u32 {
        let others = limiter.key(&other.to_be_bytes());
        drop(limiter.admit_at(seconds(60 * u64::from(other)), others, Cost::tokens(100)));
    }
    let now = seconds(60 * 1000);
    reservation.settle_at(now, Settlement::Used(151));
    let denied = limiter.admit_at(now, key, Cost::tokens(1)).unwrap_err();
    assert_eq!(denied.retry_after(), Some(Duration::from_millis(30_600)));
}

#[test]
fn settling_after_the_limiter_is_gone_does_nothing() {
    let limiter = limiter([Limit::tokens_per_minute(100)]);
    let key = limiter.key(b"k");
    let reservation = limiter.admit_at(seconds(0), key, Cost::tokens(1)).unwrap().reserve();
    drop(limiter);
    reservation.settle_at(seconds(0), Settlement::Used(50));
}

#[test]
fn what_is_typical_follows_what_is_used() {
    let limiter = limiter([Limit::tokens_per_minute(60_000_000)]);
    let key = limiter.key(b"k");
    for round in 0..2000u64 {
        let used = 1000 + (round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 1000;
        let reservation = limiter.admit(key, Cost::tokens(1)).unwrap().reserve();
        reservation.settle(Settlement::Used(used));
    }
    let typical = limiter.typical_tokens();
    assert!((1600..2000).contains(&typical), "{typical} is no 80th percentile of 1000..2000");
}

#[test]
fn what_used_nothing_does_not_lower_what_is_typical() {
    let limiter = limiter([Limit::tokens_per_minute(60_000_000)]);
    let key = limiter.key(b"k");
    for used in [1000].into_iter().chain([0; 100]) {
        let reservation = limiter.admit(key, Cost::tokens(1)).unwrap().reserve();
        reservation.settle(Settlement::Used(used));
    }
    assert_eq!(limiter.typical_tokens(), 1000);
}

#[test]
fn a_reservation_is_settled_by_the_clock_of_its_limiter() {
    let clock = ManualClock::new();
    let policy = Policy::builder().limit(Limit::tokens_per_minute(60)).build().unwrap();
    let limiter = Limiter::builder(policy).clock(clock.clone()).build();
    let key = limiter.key(b"k");
    let reserve = || limiter.admit(key, Cost::tokens(10)).unwrap().reserve();
    let (settled, cancelled) = (reserve(), reserve());
    clock.advance(Duration::from_secs(10));
    assert_eq!(remaining(&limiter, key), 50);
    settled.settle(Settlement::Used(40));
    assert_eq!(remaining(&limiter, key), 20);
    cancelled.cancel();
    assert_eq!((remaining(&limiter, key), limiter.live_keys()), (30, 1));
    clock.advance(Duration::from_secs(30));
    assert_eq!(limiter.live_keys(), 0);
}

#[test]
fn a_reservation_may_outlive_its_limiter() {
    let limiter = limiter([Limit::tokens_per_minute(60)]);
    let reserve = || limiter.admit(limiter.key(b"k"), Cost::tokens(10)).unwrap().reserve();
    let (settled, cancelled) = (reserve(), reserve());
    drop(limiter);
    let settled = settled.settle(Settlement::Used(40));
    assert_eq!((settled.reserved, settled.used), (10, 40));
    cancelled.cancel();
}

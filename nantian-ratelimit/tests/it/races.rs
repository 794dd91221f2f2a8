//! Many threads on the same keys.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use nantian_ratelimit::{
    Cost, Limit, Limiter, Policy, Settlement,
    clock::{ManualClock, Timestamp},
};

use crate::admit::limiter;

const THREADS: u64 = 8;

fn admitted(limiter: &Limiter, attempts: u64, time: impl Fn(u64) -> Timestamp + Sync) -> u64 {
    let admitted = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let key = limiter.key(b"k");
                for attempt in 0..attempts {
                    let granted = limiter.admit_at(time(attempt), key, Cost::tokens(3)).is_ok();
                    admitted.fetch_add(u64::from(granted), Ordering::Relaxed);
                }
            });
        }
    });
    admitted.into_inner()
}

#[test]
fn threads_together_admit_the_bucket_exactly() {
    let limits = [
        Limit::requests_per_minute(20_000),
        Limit::tokens_per_minute(45_000),
        Limit::tokens_per_hour(60_000),
    ];
    let limiter = limiter(limits);
    assert_eq!(admitted(&limiter, 20_000, |_| Timestamp::ORIGIN), 15_000);
    let levels = limiter.levels_at(Timestamp::ORIGIN, limiter.key(b"k"));
    let left: Vec<u64> = levels.iter().map(|level| level.remaining).collect();
    assert_eq!(left, [5000, 0, 15_000]);
}

#[test]
#[ignore = "takes a minute in a release build"]
fn a_hundred_million_decisions_admit_the_bucket_exactly() {
    let limits = [Limit::requests_per_minute(90_000_000), Limit::tokens_per_minute(240_000_000)];
    let limiter = limiter(limits);
    assert_eq!(admitted(&limiter, 100_000_000 / THREADS, |_| Timestamp::ORIGIN), 80_000_000);
}

#[test]
fn each_of_many_keys_pays_once_while_the_table_grows() {
    const EACH: u64 = 5;
    let policy = Policy::builder().limit(Limit::requests_per_minute(EACH)).build().unwrap();
    let limiter = Limiter::builder(policy).max_keys(20_000).clock(ManualClock::new()).build();
    let keys: Vec<_> = (0..10_000u64).map(|name| limiter.key(&name.to_be_bytes())).collect();
    let admitted: Vec<_> = keys.iter().map(|_| AtomicU64::new(0)).collect();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for (key, admitted) in keys.iter().zip(&admitted) {
                    let granted = limiter.admit_at(Timestamp::ORIGIN, *key, Cost::REQUEST).is_ok();
                    admitted.fetch_add(u64::from(granted), Ordering::Relaxed);
                }
            });
        }
    });
    for (key, admitted) in keys.iter().zip(admitted) {
        let remaining = limiter.levels_at(Timestamp::ORIGIN, *key).tightest().unwrap().remaining;
        assert_eq!(admitted.into_inner() + remaining, EACH);
    }
}

#[test]
fn threads_together_admit_no_more_than_bucket_and_refill() {
    let limiter = limiter([Limit::tokens_per_minute(60_000)]);
    let step = 10_000_000;
    let admitted = admitted(&limiter, 5000, |attempt| Timestamp::from_nanos(attempt * step));
    // Ten tokens refill in a step.
    assert!(admitted * 3 <= 60_000 + 5000 * 10, "{admitted} admitted");
}

/// Buckets that refill in a nanosecond-scale window of the test's own time are given up and taken over all
/// the time; no key may get two. That none is charged for another's requests is seen in `flood.rs`.
#[test]
fn keys_that_compete_for_few_slots_stay_within_their_limits() {
    let policy = Policy::builder().limit(Limit::requests_per_minute(60)).build().unwrap();
    let limiter = Limiter::builder(policy).max_keys(8).clock(ManualClock::new()).build();
    let rounds = 20_000u64;
    let tick = 10_000_000;
    let time = AtomicU64::new(0);
    let admitted: Vec<AtomicU64> = (0..32).map(|_| AtomicU64::new(0)).collect();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (limiter, time, admitted) = (&limiter, &time, &admitted);
            scope.spawn(move || {
                for round in 0..rounds {
                    let now = Timestamp::from_nanos(time.fetch_add(tick, Ordering::Relaxed));
                    let name = (round * 7 + thread) % admitted.len() as u64;
                    let key = limiter.key(&name.to_be_bytes());
                    let granted = limiter.admit_at(now, key, Cost::REQUEST).is_ok();
                    let name = usize::try_from(name).unwrap();
                    admitted[name].fetch_add(u64::from(granted), Ordering::Relaxed);
                }
            });
        }
    });
    let elapsed = THREADS * rounds * tick / 1_000_000_000;
    for admitted in admitted {
        let admitted = admitted.into_inner();
        assert!(admitted <= 60 + elapsed, "{admitted} admitted in {elapsed} s");
    }
}

#[test]
fn a_thousand_reloads_under_load_admit_no_more_than_none() {
    let limits = |extra: bool| {
        let policy = Policy::builder().limit(Limit::requests_per_minute(30_000));
        let policy = if extra { policy.limit(Limit::tokens_per_hour(3_600_000_000)) } else { policy };
        policy.build().unwrap()
    };
    let limiter = Limiter::builder(limits(false)).clock(ManualClock::new()).build();
    let done = AtomicBool::new(false);
    let total = thread::scope(|scope| {
        let reloading = scope.spawn(|| {
            let (mut current, mut reloads) = (limiter.clone(), 0);
            while reloads < 1000 || !done.load(Ordering::Acquire) {
                current = current.successor(limits(reloads % 2 == 0));
                reloads += 1;
            }
        });
        let total = admitted(&limiter, 50_000, |_| Timestamp::ORIGIN);
        done.store(true, Ordering::Release);
        reloading.join().unwrap();
        total
    });
    assert!(total <= 30_000, "{total} admitted");
    assert!(total >= 29_000, "only {total} admitted: charges were lost in the hand-over");
}

#[test]
fn racing_settlements_leave_the_level_that_they_add_up_to() {
    let limiter = limiter([Limit::tokens_per_minute(60_000_000)]);
    let per_thread = 5000;
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let key = limiter.key(b"k");
                for round in 0..per_thread {
                    let reservation = limiter.admit(key, Cost::tokens(100)).unwrap().reserve();
                    reservation.settle(Settlement::Used(round % 200));
                }
            });
        }
    });
    let used: u64 = (0..per_thread).map(|round| round % 200).sum();
    let levels = limiter.levels(limiter.key(b"k"));
    assert_eq!(levels.tightest().unwrap().remaining, 60_000_000 - THREADS * used);
}

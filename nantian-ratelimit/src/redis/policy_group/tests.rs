use std::pin::pin;
use std::task::{Context, Wake};

use super::*;
use crate::policy::Queue;
use crate::redis::settle::Charged;
use crate::redis::{RedisStore, SharedLimiter, SharedReservation, Verdict};
use crate::wait_queue::QueueKey;
use crate::{Cost, Settlement};

#[tokio::test]
async fn what_ends_long_after_it_was_charged_in_an_outage_is_learned_and_reported() {
    let (store, _driver) = RedisStore::builder("redis://127.0.0.1:1/0".parse().unwrap()).build();
    let limit = Limit::tokens_per_minute(1000);
    let limiter = store.limiter("quota", Policy::builder().limit(limit.clone()).build().unwrap());
    let key = limiter.key(b"alice");
    let Verdict::Admitted(reservation) = limiter.admit(key.clone(), Cost::tokens(100)).await else {
        panic!("this process decides alone")
    };
    // The charge itself has refilled meanwhile.
    limiter.group().unreported_until.store(0, Ordering::Relaxed);
    reservation.settle(Settlement::Used(1500));
    assert_eq!(limiter.typical_tokens(), 1500);
    let group = limiter.group();
    assert!(group.unreported_until.load(Ordering::Relaxed) > group.now().as_nanos());
    assert_eq!(group.current().untold(group.now(), key.own()).of(&limit), 1500);
}

#[tokio::test]
async fn a_share_can_owe_what_the_whole_limit_can() {
    let builder = RedisStore::builder("redis://127.0.0.1:1/0".parse().unwrap());
    let (store, _driver) = builder.replicas(4).build();
    let limit = Limit::tokens_per_hour(100);
    let limiter = store.limiter("quota", Policy::builder().limit(limit.clone()).build().unwrap());
    let (key, group) = (limiter.key(b"alice"), limiter.group());
    let untold = || group.current().untold(group.now(), key.own()).of(&limit);
    let Verdict::Admitted(reservation) = limiter.admit(key.clone(), Cost::tokens(60)).await else {
        panic!("this process decides alone")
    };
    assert_eq!(untold(), 60);
    let settled = reservation.settle(Settlement::Used(1000));
    assert_eq!(untold(), 200, "a bucket and a window of the whole limit");
    assert_eq!((settled.reserved, settled.used), (60, 1000));
}

/// A share of 1000 tokens a day, one of ten, and what of it is in use for a key.
fn share_of_a_tenth() -> (SharedLimiter, SharedKey, impl Fn() -> u64) {
    let builder = RedisStore::builder("redis://127.0.0.1:1/0".parse().unwrap());
    let policy = Policy::builder().limit(Limit::tokens_per_day(10_000)).build().unwrap();
    let limiter = builder.replicas(10).build().0.limiter("quota", policy);
    let key = limiter.key(b"alice");
    let (group, own) = (Arc::clone(limiter.group()), key.own());
    let used =
        move || group.current().local.levels_at(group.now(), own).used().map(|(_, used)| used).sum::<u64>();
    (limiter, key, used)
}

/// What the server has admitted.
fn admitted_by_the_server(limiter: &SharedLimiter, key: &SharedKey, cost: Cost) -> SharedReservation {
    let (current, now) = (limiter.group().current(), limiter.group().now());
    let noted = current.note(now, key.own(), cost);
    assert!(noted.is_some());
    let levels = current.whole.levels_of(now, &[cost.of(Unit::Tokens) as f64]);
    SharedReservation::new(limiter, key.clone(), cost, levels, Charged::Remotely(noted))
}

#[tokio::test]
async fn what_the_server_let_pass_of_a_full_bucket_keeps_nobody_out_for_longer_than_a_window() {
    let (limiter, key, used) = share_of_a_tenth();
    admitted_by_the_server(&limiter, &key, Cost::tokens(900)).settle(Settlement::Used(9000));
    assert_eq!(used(), 2000, "a bucket and a window of the share");
    let Verdict::Denied(denied) = limiter.admit(key, Cost::tokens(1)).await else { panic!("it owes") };
    let days = denied.retry_after().unwrap().as_secs_f64() / 86_400.0;
    assert!((1.0..1.01).contains(&days), "{days}");
}

#[tokio::test]
async fn of_what_the_server_let_pass_no_more_is_given_back_than_was_noted() {
    let (limiter, key, used) = share_of_a_tenth();
    drop(limiter.admit(key.clone(), Cost::tokens(100)).await);
    admitted_by_the_server(&limiter, &key, Cost::tokens(9000)).settle(Settlement::Used(50));
    assert_eq!(used(), 150);
    admitted_by_the_server(&limiter, &key, Cost::tokens(9000)).cancel();
    assert_eq!(used(), 150);
    let (group, limit) = (limiter.group(), Limit::tokens_per_day(10_000));
    assert_eq!(group.current().untold(group.now(), key.own()).of(&limit), 100, "it is to be told as before");
}

#[tokio::test]
async fn what_a_share_takes_note_of_the_server_is_not_told_however_large_its_bucket_is() {
    let builder = RedisStore::builder("redis://127.0.0.1:1/0".parse().unwrap());
    let limit = Limit::tokens_per_day(100).with_burst(10.0);
    let policy = Policy::builder().limit(limit).build().unwrap();
    let limiter = builder.replicas(2).build().0.limiter("quota", policy);
    let key = limiter.key(b"alice");
    for tokens in [200, 1000] {
        drop(admitted_by_the_server(&limiter, &key, Cost::tokens(tokens)));
    }
    let group = limiter.group();
    assert!(group.current().untold(group.now(), key.own()).is_empty());
}

/// A reservation of 500 tokens, of 1000 a day, for a key that finds no bucket of its own.
async fn crowded_out() -> (SharedLimiter, SharedKey, SharedReservation) {
    let (store, _driver) = RedisStore::builder("redis://127.0.0.1:1/0".parse().unwrap()).build();
    let policy = Policy::builder().limit(Limit::tokens_per_day(1000)).build().unwrap();
    let limiter = store.limiter("quota", policy.clone());
    let current = limiter.group().current();
    limiter.group().current.store(Arc::new(Current {
        replicas: 1,
        whole: current.whole.clone(),
        local: Limiter::builder(policy).max_keys(1).build(),
        told: current.told.clone(),
        since: current.since,
        denials: Arc::default(),
    }));
    for name in 0..=u8::MAX {
        let key = limiter.key(&[name]);
        let Verdict::Admitted(reservation) = limiter.admit(key.clone(), Cost::tokens(500)).await else {
            panic!("{name} finds a full bucket")
        };
        if limiter.overflows() > 0 {
            return (limiter, key, reservation);
        }
    }
    panic!("there is room for all")
}

#[tokio::test]
async fn what_a_bucket_that_many_share_was_charged_is_neither_told_nor_given_back_later() {
    let (limiter, key, reservation) = crowded_out().await;
    let (group, limit) = (limiter.group(), Limit::tokens_per_day(1000));
    let (current, now) = (group.current(), group.now());
    // The buckets of the others are full again by then.
    let later = now.saturating_add(Duration::from_secs(2 * 24 * 3600));
    assert!(current.note(now, key.own(), Cost::tokens(500)).is_none());
    assert!(current.note(later, key.own(), Cost::tokens(1000)).is_some(), "it has a bucket of its own");
    let known_and_untold =
        || [current.known(later, key.own()), current.untold(later, key.own())].map(|items| items.of(&limit));
    assert_eq!(known_and_untold(), [1000, 0]);
    reservation.cancel();
    assert_eq!(known_and_untold(), [1000, 0]);
}

#[tokio::test]
async fn what_a_share_owes_is_told_for_as_long_as_it_takes_to_refill_there() {
    let (store, _driver) = RedisStore::builder("redis://127.0.0.1:1/0".parse().unwrap()).build();
    store.0.replicas.store(4, Ordering::Relaxed);
    let limit = Limit::tokens_per_minute(10_000);
    let limiter = store.limiter("quota", Policy::builder().limit(limit.clone()).build().unwrap());
    let (key, group) = (limiter.key(b"alice"), limiter.group());
    let told_after = |seconds| {
        let report = group.report(group.now().saturating_add(Duration::from_secs(seconds)), &key);
        report.map_or(0, |report| report.items().of(&limit))
    };
    let Verdict::Admitted(reservation) = limiter.admit(key.clone(), Cost::tokens(1000)).await else {
        panic!("this process decides alone")
    };
    reservation.settle(Settlement::Used(20_000));
    let told = told_after(210);
    assert!((11_000..=11_250).contains(&told), "a share of 2500 a minute has refilled: {told}");
    // Twice as many replicas, and it takes twice as long.
    store.0.replicas.store(8, Ordering::Relaxed);
    assert_eq!(group.current().replicas, 8);
    let told = told_after(900);
    assert!((1..=1250).contains(&told), "a share of 1250 a minute has refilled: {told}");
    let until = group.unreported_until.load(Ordering::Relaxed);
    for replicas in [4, 8, 4, 8] {
        store.0.replicas.store(replicas, Ordering::Relaxed);
        assert_eq!(group.current().replicas, replicas);
    }
    assert!(
        group.unreported_until.load(Ordering::Relaxed) <= until,
        "replicas that come and go prolong nothing"
    );
}

#[tokio::test]
async fn a_report_that_is_not_delivered_is_unreported_again() {
    let (store, _driver) = RedisStore::builder("redis://127.0.0.1:1/0".parse().unwrap()).build();
    let limit = Limit::tokens_per_hour(10);
    let limiter = store.limiter("quota", Policy::builder().limit(limit.clone()).build().unwrap());
    let (key, group) = (limiter.key(b"alice"), limiter.group());
    drop(limiter.admit(key.clone(), Cost::tokens(10)).await);
    assert_eq!(store.0.unreported.drain().count(), 1);
    let report = group.report(group.now(), &key).expect("the server knows nothing of it");
    assert_eq!(store.0.unreported.drain().count(), 0);
    drop(report);
    // While the server is away it is not told, and remembered all the same.
    store.0.report();
    assert_eq!(store.0.unreported.drain().count(), 1);
    assert_eq!(group.current().untold(group.now(), key.own()).of(&limit), 10);
}

#[tokio::test]
async fn nobody_waits_for_whoever_counts_the_levels_anew_for_more_replicas() {
    let (store, _driver) = RedisStore::builder("redis://127.0.0.1:1/0".parse().unwrap()).build();
    let policy = Policy::builder().limit(Limit::tokens_per_minute(100)).build().unwrap();
    let limiter = store.limiter("quota", policy);
    let (key, group) = (limiter.key(b"alice"), limiter.group());
    let Verdict::Admitted(reservation) = limiter.admit(key.clone(), Cost::tokens(50)).await else {
        panic!("this process decides alone")
    };
    store.0.replicas.store(2, Ordering::Relaxed);
    let change = group.change.lock().unwrap();
    assert_eq!(group.current().replicas, 1);
    reservation.settle(Settlement::Used(20));
    let report = group.report(group.now(), &key);
    assert_eq!(report.map(|report| report.items().is_empty()), Some(false), "nor does a settlement");
    drop(change);
    assert_eq!(group.current().replicas, 2);
}

#[tokio::test]
async fn what_was_used_before_others_were_known_is_reported_whole() {
    let (store, _driver) = RedisStore::builder("redis://127.0.0.1:1/0".parse().unwrap()).build();
    let limit = Limit::requests_per_hour(100);
    let policy = |max| Policy::builder().limit(Limit::requests_per_hour(max)).build().unwrap();
    let limiter = store.limiter("quota", policy(100));
    let (key, group) = (limiter.key(b"alice"), limiter.group());
    for _ in 0..90 {
        assert!(matches!(limiter.admit(key.clone(), Cost::REQUEST).await, Verdict::Admitted(_)));
    }
    store.0.replicas.store(10, Ordering::Relaxed);
    assert_eq!(group.current().replicas, 10);
    let report = || group.report(group.now(), &key);
    let told = |report: &Report| report.items().of(&limit);
    assert_eq!(report().as_ref().map(told), Some(90), "not only what this process may owe");
    let undelivered = report().unwrap();
    assert_eq!(told(&undelivered), 90, "it was not told before");
    assert!(report().is_none(), "it is told once");
    drop(undelivered);
    limiter.successor(policy(80));
    assert_eq!(report().as_ref().map(told), Some(90), "ten shares may owe that");
    limiter.successor(policy(10));
    let less = report().unwrap();
    assert_eq!(told(&less), 20, "a bucket and a window of all shares");
    less.delivered();
    assert!(report().is_none());
}

#[test]
fn what_was_used_before_an_edit_is_let_off_anew_once_all_have_heard_of_it() {
    const DAY: u64 = 24 * 3600;
    let (store, _driver) = RedisStore::builder("redis://127.0.0.1:1/0".parse().unwrap()).build();
    let ages = |limit: Limit, seconds: [u64; 5]| {
        let limiter = store.limiter("quota", Policy::builder().limit(limit).build().unwrap());
        let current = limiter.group().current();
        let since = |seconds| current.since.saturating_add(Duration::from_secs(seconds));
        seconds.map(|seconds| current.age(since(seconds)).as_secs())
    };
    let seconds = [0, 59, 60, 62, 60 + 3 * DAY];
    assert_eq!(ages(Limit::tokens_per_day(100), seconds), [0, 59, 0, 2, 0]);
    assert_eq!(ages(Limit::requests_per_second(10), seconds), [0, 2, 0, 2, 0], "rounds of three seconds");
}

/// Notes the amount of the limit that was current when it was woken.
struct Waiter(Arc<PolicyGroup>, Mutex<Vec<u64>>);

impl Wake for Waiter {
    fn wake(self: Arc<Self>) {
        let amounts = self.0.current().limits().map(Limit::max).collect::<Vec<_>>();
        self.1.lock().unwrap().extend(amounts);
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_woken_once_a_new_policy_is_there() {
    let (store, _driver) = RedisStore::builder("redis://127.0.0.1:1/0".parse().unwrap()).build();
    let policy = |max| Policy::builder().limit(Limit::requests_per_minute(max)).build().unwrap();
    let limiter = store.limiter("quota", policy(2));
    let (key, whole) = (limiter.key(b"alice").own(), limiter.whole().clone());
    let queue_key = QueueKey { key, is_opening: false, needs_tokens: false };
    let place = whole.queues().join(queue_key, 1, 0, &Queue::default(), false).unwrap();
    let denies = || std::future::ready(Err::<(), _>(whole.denial(key, Cost::REQUEST)));
    let mut waiting = pin!(place.wait(Duration::from_secs(60), Duration::from_secs(60), denies));
    let waiter = Arc::new(Waiter(Arc::clone(limiter.group()), Mutex::default()));
    let waker = Arc::clone(&waiter).into();
    assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    limiter.successor(policy(6000));
    assert_eq!(*waiter.1.lock().unwrap(), [6000]);
}

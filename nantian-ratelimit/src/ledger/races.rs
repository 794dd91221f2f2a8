//! Every interleaving of a few threads, explored by loom.
//!
//! `cargo rustc -p nantian-ratelimit --lib --profile test -- --cfg loom`, then run what it built.

use std::sync::Arc;

use loom::model::Builder;
use loom::thread;

use crate::clock::{ManualClock, Timestamp};
use crate::cost::Cost;
use crate::key::{Key, Secret};
use crate::limit::Limit;
use crate::limit_column::Correction;
use crate::limiter::Limiter;
use crate::policy::{MAX_LIMITS, Policy};

use super::{Ledger, Verdict};

fn explore(scenario: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    // A search for a slot reads many of them.
    builder.max_branches = 100_000;
    builder.check(scenario);
}

fn ledger(limits: &[Limit]) -> Arc<Ledger> {
    Arc::new(Ledger::new(limits, 1, std::sync::Weak::new()))
}

fn key(name: u8) -> Key {
    let mut hasher = Secret::new(1 << 63).hasher();
    hasher.value(Some(&[name]));
    hasher.finish()
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(seconds * 1_000_000_000)
}

fn verdict(ledger: &Ledger, now: Timestamp, key: Key, cost: Cost) -> Verdict {
    ledger.admit(now, key, cost, &mut [0; MAX_LIMITS])
}

fn admits(ledger: &Ledger, now: Timestamp, key: Key, cost: Cost) -> bool {
    matches!(verdict(ledger, now, key, cost), Verdict::Admitted { .. })
}

fn left(ledger: &Ledger, now: Timestamp, key: Key) -> Vec<u64> {
    let tats = ledger.peek(now, key).unwrap();
    ledger.columns().iter().zip(tats).map(|(column, tat)| column.remaining(tat, now)).collect()
}

#[test]
fn the_last_room_of_several_limits_is_given_once() {
    explore(|| {
        let ledger = ledger(&[Limit::requests_per_minute(3), Limit::tokens_per_minute(5)]);
        assert!(admits(&ledger, at(0), key(1), Cost::tokens(1)));
        let other = Arc::clone(&ledger);
        let racing = thread::spawn(move || admits(&other, at(0), key(1), Cost::tokens(3)));
        let first = admits(&ledger, at(0), key(1), Cost::tokens(2));
        let second = racing.join().unwrap();
        assert!(!(first && second));
        let tokens = if first { 2 } else { 0 } + if second { 3 } else { 0 };
        let requests = u64::from(first) + u64::from(second);
        assert_eq!(left(&ledger, at(0), key(1)), [2 - requests, 4 - tokens]);
    });
}

#[test]
fn a_new_key_gets_one_bucket() {
    explore(|| {
        let ledger = ledger(&[Limit::requests_per_minute(1)]);
        let other = Arc::clone(&ledger);
        let racing = thread::spawn(move || admits(&other, at(0), key(1), Cost::REQUEST));
        let first = admits(&ledger, at(0), key(1), Cost::REQUEST);
        assert!(first ^ racing.join().unwrap());
    });
}

/// A ledger whose four slots have keys, of which only that of `key(0)` is spent, at 61 s.
fn crowded(limit: Limit) -> Arc<Ledger> {
    let ledger = ledger(&[limit]);
    assert!(admits(&ledger, at(0), key(0), Cost::REQUEST));
    for name in 1..4 {
        assert!(admits(&ledger, at(20), key(name), Cost { requests: 2, tokens: 0 }));
    }
    ledger
}

#[test]
fn a_slot_that_changes_hands_takes_no_charge_with_it() {
    explore(|| {
        let ledger = crowded(Limit::requests_per_minute(2));
        let other = Arc::clone(&ledger);
        let racing = thread::spawn(move || admits(&other, at(61), key(8), Cost::REQUEST));
        assert!(admits(&ledger, at(61), key(0), Cost::REQUEST));
        assert!(racing.join().unwrap());
        for name in [0, 8] {
            // The loser of the slot is in the shared bucket, which was full.
            let more = (0..3).filter(|_| admits(&ledger, at(61), key(name), Cost::REQUEST)).count();
            assert_eq!(more, 1);
        }
    });
}

/// A full segment of one bucket grows into one of 17, while a key in it is charged.
fn grow_while_charging(limits: &'static [fn(u64) -> Limit]) {
    const SLOTS: u8 = 4;
    let mut builder = Builder::new();
    builder.max_branches = 100_000;
    builder.preemption_bound = Some(2);
    builder.check(move || {
        let limits: Vec<Limit> = limits.iter().map(|limit| limit(3)).collect();
        let keys = usize::from(SLOTS) * 12;
        let ledger = Arc::new(Ledger::new(&limits, keys, std::sync::Weak::new()));
        let cost = Cost::tokens(1);
        for name in 0..SLOTS {
            assert!(admits(&ledger, at(0), key(name), cost));
        }
        let other = Arc::clone(&ledger);
        let racing = thread::spawn(move || admits(&other, at(0), key(SLOTS), cost));
        assert!(admits(&ledger, at(0), key(0), cost));
        assert!(racing.join().unwrap());
        assert!(left(&ledger, at(0), key(0)).iter().all(|left| *left == 1));
        assert!(left(&ledger, at(0), key(SLOTS)).iter().all(|left| *left == 2));
    });
}

#[test]
fn a_key_that_moves_when_the_table_grows_pays_once() {
    grow_while_charging(&[Limit::requests_per_minute]);
}

#[test]
fn a_key_that_moves_when_half_of_it_is_charged_pays_once() {
    grow_while_charging(&[Limit::requests_per_minute, Limit::tokens_per_minute]);
}

#[test]
fn a_key_that_is_handed_over_when_half_of_it_is_charged_pays_once() {
    explore(|| {
        let policy = |amount| {
            let limits = [Limit::requests_per_minute(amount), Limit::tokens_per_minute(amount)];
            limits.into_iter().fold(Policy::builder(), |policy, limit| policy.limit(limit)).build().unwrap()
        };
        let limiter = Limiter::builder(policy(3)).max_keys(1).clock(ManualClock::new()).build();
        let key = limiter.key(b"alice");
        let pays = |limiter: &Limiter| assert!(limiter.admit_at(at(0), key, Cost::tokens(1)).is_ok());
        pays(&limiter);
        let other = limiter.clone();
        let racing = thread::spawn(move || other.successor_at(at(0), policy(4)));
        pays(&limiter);
        let changed = racing.join().unwrap();
        assert!(changed.levels_at(at(0), key).iter().all(|level| level.remaining == 2));
    });
}

#[test]
fn a_refund_never_reaches_the_next_owner_of_a_slot() {
    explore(|| {
        let ledger = crowded(Limit::requests_per_minute(2));
        let other = Arc::clone(&ledger);
        let racing = thread::spawn(move || {
            other.correct_lastingly(at(61), key(0), &other.columns()[0], Correction::Refund(1))
        });
        assert!(admits(&ledger, at(61), key(8), Cost { requests: 2, tokens: 0 }));
        racing.join().unwrap();
        assert!(!admits(&ledger, at(61), key(8), Cost::REQUEST));
    });
}

#[test]
fn a_hand_over_admits_nothing_twice() {
    explore(|| {
        let old = ledger(&[Limit::requests_per_minute(2)]);
        assert!(admits(&old, at(0), key(1), Cost::REQUEST));
        let limits = [Limit::tokens_per_hour(9), Limit::requests_per_minute(2)];
        let new = Arc::new(Ledger::succeeding(&old, &limits, 1, at(0)));
        let taking = Arc::clone(&new);
        let racing = thread::spawn(move || taking.take_over(at(0)));
        let mut admitted = 0;
        for _ in 0..2 {
            let verdict = verdict(&old, at(0), key(1), Cost::REQUEST);
            let verdict = match verdict {
                Verdict::Retired => self::verdict(&new, at(0), key(1), Cost::REQUEST),
                decided => decided,
            };
            admitted += u32::from(matches!(verdict, Verdict::Admitted { .. }));
        }
        racing.join().unwrap();
        assert!(admitted <= 1);
        assert!(!admits(&new, at(0), key(1), Cost::REQUEST) || admitted == 0);
    });
}

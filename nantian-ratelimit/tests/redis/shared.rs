//! What several processes decide together.

use std::cell::Cell;
use std::time::Duration;

use nantian_ratelimit::clock::Timestamp;
use nantian_ratelimit::redis::{Flushed, OnOutage, SharedLimiter};
use nantian_ratelimit::{Cost, Limit, LimitName, Limiter, Settlement, Unit};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::time::{Instant, sleep, timeout};

use crate::server::{Server, admit, admitted, policy, reaches, remaining};

#[tokio::test]
async fn two_processes_admit_together_what_one_would() {
    let server = Server::start().await;
    let (one, two) = (server.replica().await, server.replica().await);
    let limiters =
        [&one, &two].map(|replica| replica.store.limiter("quota", policy([Limit::requests_per_day(100)])));
    let mut passed = 0;
    for _ in 0..75 {
        for limiter in &limiters {
            passed += admitted(limiter, "alice", 1).await;
        }
    }
    assert_eq!(passed, 100);
    assert_eq!(admitted(&limiters[0], "bob", 1).await, 1, "bob has his own");
    let other = one.store.limiter("another quota", policy([Limit::requests_per_day(100)]));
    assert_eq!(admitted(&other, "alice", 1).await, 1, "another policy has its own");
}

#[tokio::test]
async fn requests_at_once_from_two_processes_are_admitted_exactly() {
    let server = Server::start().await;
    let (one, two) = (server.replica().await, server.replica().await);
    let tasks: Vec<_> = (0..40)
        .map(|task| {
            let replica = if task % 2 == 0 { &one } else { &two };
            let limiter = replica.store.limiter("quota", policy([Limit::requests_per_day(500)]));
            tokio::spawn(async move { admitted(&limiter, "alice", 25).await })
        })
        .collect();
    let mut passed = 0;
    for task in tasks {
        passed += task.await.unwrap();
    }
    assert_eq!(passed, 500);
}

#[tokio::test]
async fn a_denied_request_costs_nothing_on_any_limit() {
    let server = Server::start().await;
    let replica = server.replica().await;
    let limiter =
        replica.store.limiter("quota", policy([Limit::requests_per_day(10), Limit::tokens_per_day(1000)]));
    let first = admit(&limiter, "alice", Cost::tokens(900)).await.unwrap();
    let remaining: Vec<_> = first.levels().iter().map(|level| level.remaining).collect();
    assert_eq!(remaining, [9, 100]);
    let denied = admit(&limiter, "alice", Cost::tokens(200)).await.unwrap_err();
    assert_eq!(denied.limit().name().as_str(), "tokens-per-day");
    let remaining: Vec<_> = denied.levels().iter().map(|level| level.remaining).collect();
    assert_eq!(remaining, [9, 100]);
    let wait = denied.retry_after().unwrap().as_secs_f64();
    assert!((8630.0..=8640.0).contains(&wait), "100 of 1000 tokens take a tenth of a day: {wait}");
    assert!(admit(&limiter, "alice", Cost::tokens(100)).await.is_ok());
}

#[tokio::test]
async fn a_request_above_the_bucket_asks_for_a_full_one() {
    let server = Server::start().await;
    let replica = server.replica().await;
    let limiter = replica.store.limiter("quota", policy([Limit::tokens_per_day(100)]));
    assert!(admit(&limiter, "alice", Cost::tokens(5000)).await.is_ok());
    assert!(admit(&limiter, "alice", Cost::tokens(1)).await.is_err());
}

#[tokio::test]
async fn what_denies_all_asks_nobody() {
    let server = Server::start().await;
    let replica = server.replica().await;
    let limiter = replica.store.limiter("quota", policy([Limit::requests_per_day(0)]));
    let denied = admit(&limiter, "alice", Cost::REQUEST).await.unwrap_err();
    assert_eq!(denied.retry_after(), None);
    assert_eq!(replica.store.status().answers, 0);
}

#[tokio::test]
async fn settlements_are_seen_by_every_process() {
    let server = Server::start().await;
    let (one, two) = (server.replica().await, server.replica().await);
    let limit = || policy([Limit::tokens_per_day(1000)]);
    let (first, second) = (one.store.limiter("quota", limit()), two.store.limiter("quota", limit()));
    let settled = async |reserved, settlement| {
        let reservation = admit(&first, "alice", Cost::tokens(reserved)).await.unwrap();
        reservation.settle(settlement)
    };
    assert_eq!(settled(500, Settlement::Used(100)).await.used, 100);
    reaches(&second, "alice", &[900]).await;
    settled(100, Settlement::NotServed).await;
    reaches(&second, "alice", &[900]).await;
    settled(100, Settlement::AtLeast(50)).await;
    reaches(&second, "alice", &[800]).await;
    settled(700, Settlement::Used(900)).await;
    reaches(&second, "alice", &[0]).await;
    let denied = admit(&second, "alice", Cost::tokens(1)).await.unwrap_err();
    let wait = denied.retry_after().unwrap().as_secs();
    assert!((8700..=8730).contains(&wait), "100 of debt and one more: {wait}");
    assert_eq!(first.typical_tokens(), 124, "it has learned");
}

#[tokio::test]
async fn a_cancelled_request_leaves_no_trace() {
    let server = Server::start().await;
    let replica = server.replica().await;
    let limiter =
        replica.store.limiter("quota", policy([Limit::requests_per_day(2), Limit::tokens_per_day(10)]));
    for _ in 0..20 {
        let reservation = admit(&limiter, "alice", Cost::tokens(10)).await.unwrap();
        reservation.cancel();
        reaches(&limiter, "alice", &[2, 10]).await;
    }
}

#[tokio::test]
async fn what_was_settled_is_on_the_server_when_a_process_ends() {
    let mut server = Server::start().await;
    let (one, two) = (server.replica().await, server.replica().await);
    let limiters =
        [&one, &two].map(|replica| replica.store.limiter("quota", policy([Limit::tokens_per_day(10_000)])));
    let mut reservations = Vec::new();
    for _ in 0..600 {
        reservations.push(admit(&limiters[0], "alice", Cost::new(0, 10)).await.unwrap());
    }
    for reservation in reservations {
        reservation.settle(Settlement::Used(2));
    }
    assert_eq!(one.store.flush().await, Flushed::Told);
    drop(one);
    assert_eq!(remaining(&limiters[1], "alice").await, [10_000 - 1200]);

    server.kill();
    two.is_reachable(false).await;
    admit(&limiters[1], "alice", Cost::new(0, 10)).await.unwrap();
    assert_eq!(two.store.flush().await, Flushed::Pending, "nobody takes it");
    server.restart().await;
    two.is_reachable(true).await;
    assert_eq!(two.store.flush().await, Flushed::Told);
}

/// Asks and gives up after `pause`, while the server has not answered.
async fn give_up(server: &Server, limiter: &SharedLimiter, cost: Cost, pause: Duration) {
    server.freeze();
    let asking = timeout(pause, limiter.admit(limiter.key(b"alice"), cost));
    assert!(asking.await.is_err(), "it is not answered");
    server.thaw();
}

#[tokio::test]
async fn a_request_that_is_given_up_in_mid_decision_costs_nothing() {
    let server = Server::start().await;
    let replica = server.replica().await;
    let limiter =
        replica.store.limiter("quota", policy([Limit::requests_per_day(10), Limit::tokens_per_day(1000)]));
    for pause in [0, 10, 0, 10].map(Duration::from_millis) {
        give_up(&server, &limiter, Cost::tokens(100), pause).await;
        reaches(&limiter, "alice", &[10, 1000]).await;
    }
    assert_eq!(replica.store.status().failures, 0);
    assert_eq!(admitted(&limiter, "alice", 10).await, 10);
    give_up(&server, &limiter, Cost::tokens(100), Duration::from_millis(10)).await;
    // What comes after it is told in order.
    admit(&limiter, "bob", Cost::tokens(100)).await.unwrap().cancel();
    reaches(&limiter, "bob", &[10, 1000]).await;
    assert_eq!(remaining(&limiter, "alice").await, [0, 1000], "what was denied gives nothing back");
}

#[tokio::test]
async fn a_new_amount_keeps_what_was_used_and_limits_come_and_go() {
    let server = Server::start().await;
    let (one, two) = (server.replica().await, server.replica().await);
    let first = one.store.limiter("quota", policy([Limit::requests_per_day(10)]));
    assert_eq!(admitted(&first, "alice", 4).await, 4);
    let more = first.successor(policy([Limit::tokens_per_day(1000), Limit::requests_per_day(6)]));
    let seen = admit(&more, "alice", Cost::tokens(100)).await.unwrap();
    let remaining: Vec<_> = seen.levels().iter().map(|level| level.remaining).collect();
    assert_eq!(remaining, [900, 1]);
    // A reservation from before the edit is settled without harm to the limit that is new.
    let newest = first.successor(policy([Limit::requests_per_day(7), Limit::tokens_per_day(1000)]));
    admit(&newest, "alice", Cost::REQUEST).await.unwrap().settle(Settlement::Used(50));
    let limiter = two.store.limiter("quota", policy([Limit::tokens_per_day(1000)]));
    reaches(&limiter, "alice", &[850]).await;
    admit(&limiter, "alice", Cost::tokens(50)).await.unwrap();
    reaches(&limiter, "alice", &[800]).await;
}

#[tokio::test]
async fn a_limit_below_what_was_used_keeps_the_caller_out_for_two_windows_at_most() {
    const DAY: u64 = 24 * 3600;
    let server = Server::start().await;
    let replica = server.replica().await;
    let limiter = replica.store.limiter("quota", policy([Limit::tokens_per_day(1000)]));
    admit(&limiter, "alice", Cost::tokens(800)).await.unwrap();
    let lowered = limiter.successor(policy([Limit::tokens_per_day(24)]));
    let denied = admit(&lowered, "alice", Cost::tokens(1)).await.unwrap_err();
    let wait = denied.retry_after().unwrap().as_secs();
    assert!((DAY..=DAY + DAY / 24).contains(&wait), "{wait}");
    let raised = lowered.successor(policy([Limit::tokens_per_day(1000)]));
    reaches(&raised, "alice", &[1000 - 48]).await;
    let closed = raised.successor(policy([Limit::tokens_per_day(0)]));
    assert!(admit(&closed, "alice", Cost::tokens(1)).await.is_err());
    admit(&closed, "alice", Cost::tokens(0)).await.unwrap();
    let reopened = closed.successor(policy([Limit::tokens_per_day(1000)]));
    reaches(&reopened, "alice", &[1000 - 48]).await;
}

#[tokio::test]
async fn replicas_that_disagree_on_an_amount_let_a_caller_off_once_each() {
    const DAY: u64 = 24 * 3600;
    let server = Server::start().await;
    let (one, two, three) = (server.replica().await, server.replica().await, server.replica().await);
    let limits = |max| policy([Limit::requests_per_day(100), Limit::tokens_per_day(max)]);
    let [first, second, late] =
        [&one, &two, &three].map(|replica| replica.store.limiter("quota", limits(1000)));
    admit(&late, "alice", Cost::new(0, 900)).await.unwrap();
    for old in [first, second] {
        // The server counts milliseconds, of which what follows must be another one each time.
        sleep(Duration::from_millis(5)).await;
        let lowered = old.successor(limits(10));
        // Who is asked for less than was denied before asks the server each time.
        let denied = async |tokens| admit(&lowered, "alice", Cost::new(0, tokens)).await.unwrap_err();
        denied(9).await;
        sleep(Duration::from_millis(5)).await;
        reaches(&late, "alice", &[100, 980]).await;
        admit(&late, "alice", Cost::new(0, 980)).await.unwrap();
        for tokens in [8, 7, 6] {
            denied(tokens).await;
            reaches(&late, "alice", &[100, 0]).await;
        }
        // What costs nothing of a limit writes its level, and lets nobody off either.
        admit(&lowered, "alice", Cost::REQUEST).await.unwrap().cancel();
        reaches(&late, "alice", &[100, 0]).await;
        denied(5).await;
        reaches(&late, "alice", &[100, 0]).await;
    }

    let lowered = late.successor(limits(10));
    let wait = admit(&lowered, "alice", Cost::new(0, 1)).await.unwrap_err().retry_after().unwrap().as_secs();
    assert!((DAY..=DAY + DAY / 10).contains(&wait), "a bucket and a window: {wait}");
}

#[tokio::test]
async fn a_process_that_begins_with_a_lower_amount_lets_a_caller_off() {
    const DAY: u64 = 24 * 3600;
    let server = Server::start().await;
    let (one, two) = (server.replica().await, server.replica().await);
    let old = one.store.limiter("quota", policy([Limit::requests_per_day(100), Limit::tokens_per_day(1000)]));
    admit(&old, "alice", Cost::new(0, 900)).await.unwrap();
    let new = two.store.limiter("quota", policy([Limit::requests_per_day(100), Limit::tokens_per_day(10)]));
    // One who takes nothing of the limit is the first.
    admit(&new, "alice", Cost::REQUEST).await.unwrap();
    let wait = admit(&new, "alice", Cost::new(0, 1)).await.unwrap_err().retry_after().unwrap().as_secs();
    assert!((DAY..=DAY + DAY / 10).contains(&wait), "a bucket and a window: {wait}");
}

#[tokio::test]
async fn a_large_limit_that_is_closed_keeps_what_was_used() {
    let server = Server::start().await;
    let replica = server.replica().await;
    let per_month = |max| {
        let name = LimitName::new("tokens-per-month").unwrap();
        policy([Limit::new(name, Unit::Tokens, max, Limit::MAX_WINDOW)])
    };
    let limiter = replica.store.limiter("quota", per_month(30_000_000));
    admit(&limiter, "alice", Cost::tokens(20_000_000)).await.unwrap();
    // Refilling one item a window it would take longer than the server counts.
    let closed = limiter.successor(per_month(0));
    admit(&closed, "alice", Cost::tokens(0)).await.unwrap();
    assert_eq!(replica.store.status().failures, 0);
    let reopened = closed.successor(per_month(30_000_000));
    let left = remaining(&reopened, "alice").await[0];
    assert!((10_000_000..10_010_000).contains(&left), "{left}");
}

#[tokio::test]
async fn levels_whose_end_was_taken_away_are_kept_and_end_again() {
    let server = Server::start().await;
    let replica = server.replica().await;
    let limiter = replica.store.limiter("quota", policy([Limit::requests_per_day(2)]));
    assert_eq!(admitted(&limiter, "alice", 2).await, 2);
    let (key, _) = kept_longest(&server).await;
    assert_eq!(server.ask(&format!("PERSIST {key}")).await, ":1\r\n");
    assert_eq!(admitted(&limiter, "alice", 1).await, 0);
    let left = server.ask(&format!("PTTL {key}")).await;
    let left: i64 = left.trim_start_matches(':').trim_end().parse().unwrap();
    assert!((86_400_000..=172_801_000).contains(&left), "it refills from now on: {left}");
}

#[tokio::test]
async fn whoever_is_denied_gets_something_back_from_the_moment_on_at_which_a_clock_was_set_back() {
    const WINDOW: Duration = Duration::from_secs(1);
    let server = Server::start().await;
    let replica = server.replica().await;
    let limit = Limit::new(LimitName::new("short").unwrap(), Unit::Requests, 1, WINDOW);
    let limiter = replica.store.limiter("quota", policy([limit]));
    assert_eq!(admitted(&limiter, "alice", 1).await, 1);
    let keys = server.ask("KEYS nrl3:*").await;
    let key = keys.lines().find(|line| line.starts_with("nrl3:{")).unwrap();
    // As if the server's clock had been a day ahead: the key ends by it.
    assert_eq!(server.ask(&format!("PEXPIRE {key} 86401000")).await, ":1\r\n");
    let begun = Instant::now();
    while admitted(&limiter, "alice", 1).await == 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "nothing comes back");
        sleep(WINDOW / 20).await;
    }
}

#[tokio::test]
async fn a_limit_refills_on_the_server_at_its_rate() {
    let server = Server::start().await;
    let replica = server.replica().await;
    let limiter = replica.store.limiter("quota", policy([Limit::tokens_per_minute(60_000)]));
    admit(&limiter, "alice", Cost::tokens(60_000)).await.unwrap();
    let look = async || {
        let begun = Instant::now();
        let left = remaining(&limiter, "alice").await[0];
        (begun, left, Instant::now())
    };
    let first = look().await;
    sleep(Duration::from_millis(500)).await;
    let second = look().await;
    let refilled = (second.1 - first.1) as f64;
    // A thousand a second: at least in the time between the two answers, at most in that of both.
    let (least, most) = (second.0 - first.2, second.2 - first.0);
    let expected = least.as_secs_f64() * 1000.0 - 1.0..=most.as_secs_f64() * 1000.0 + 1.0;
    assert!(expected.contains(&refilled), "{refilled} instead of {expected:?}");
}

#[tokio::test]
async fn whoever_waits_as_long_as_the_server_says_passes() {
    let server = Server::start().await;
    let replica = server.replica().await;
    let limiter = replica.store.limiter("quota", policy([Limit::requests_per_minute(420)]));
    admit(&limiter, "alice", Cost::new(420, 0)).await.unwrap();
    let mut waited = 0;
    while waited < 3 {
        if let Err(denied) = admit(&limiter, "alice", Cost::REQUEST).await {
            sleep(denied.retry_after().unwrap()).await;
            admit(&limiter, "alice", Cost::REQUEST).await.unwrap();
            waited += 1;
        }
    }
}

#[tokio::test]
async fn the_amounts_of_the_newest_policy_hold_whichever_limiter_is_asked() {
    let server = Server::start().await;
    let replica = server.replica().await;
    let old =
        replica.store.limiter("quota", policy([Limit::requests_per_day(2), Limit::tokens_per_day(1000)]));
    let before = admit(&old, "alice", Cost::tokens(100)).await.unwrap();
    let new = old.successor(policy([Limit::tokens_per_day(2000), Limit::requests_per_day(5)]));
    let seen = admit(&old, "alice", Cost::tokens(100)).await.unwrap();
    let remaining: Vec<_> = seen.levels().iter().map(|level| level.remaining).collect();
    assert_eq!(remaining, [1800, 3], "the old limiter asks in the terms of the new policy");
    before.settle(Settlement::Used(300));
    reaches(&new, "alice", &[1600, 3]).await;
    assert_eq!(admitted(&old, "alice", 10).await, 3);
}

/// The levels of whom the server keeps longest, and how long, in milliseconds: those on which a replica tries
/// whether the server decides are kept for a second.
async fn kept_longest(server: &Server) -> (String, u64) {
    let mut longest = None;
    for key in server.ask("KEYS nrl3:*").await.lines().filter(|line| line.starts_with("nrl3:{")) {
        let answer = server.ask(&format!("PTTL {key}")).await;
        // One that has ended meanwhile has less than nothing left.
        let left = answer.trim_start_matches(':').trim_end().parse().unwrap_or(0);
        longest = longest.max(Some((left, key.to_owned())));
    }
    let (left, key) = longest.unwrap();
    (key, left)
}

#[tokio::test]
async fn keys_are_told_by_digest_and_end_by_themselves() {
    let server = Server::start().await;
    let replica = server.replica().await;
    let limiter = replica.store.limiter("quota", policy([Limit::requests_per_day(24)]));
    admit(&limiter, "sk-secret", Cost::REQUEST).await.unwrap();
    let keys = server.ask("KEYS *").await;
    assert!(!keys.contains("sk-secret"));
    let (key, left) = kept_longest(&server).await;
    assert_eq!(key.len(), "nrl3:{}".len() + 32, "whole within its hash tag");
    assert!((3_600_000..=7_201_000).contains(&left), "one of 24 is back after an hour: {left}");
}

#[tokio::test]
async fn how_long_a_key_is_kept_is_asked_only_where_there_is_one() {
    let server = Server::start().await;
    let replica = server.replica().await;
    let limiter = replica.store.limiter("quota", policy([Limit::requests_per_day(10)]));
    let before = server.calls("pttl").await;
    for caller in 0..100 {
        admit(&limiter, &format!("caller {caller}"), Cost::REQUEST).await.unwrap();
    }
    let asked = server.calls("pttl").await - before;
    assert!(asked < 50, "but by greetings: {asked} for a hundred new keys");
}

#[tokio::test]
async fn a_key_is_kept_as_long_as_something_is_used() {
    let server = Server::start().await;
    let replica = server.replica().await;
    let limiter = replica.store.limiter("quota", policy([Limit::requests_per_day(40)]));
    let refill = 24 * 3_600_000 / 40;
    let mut lives = Vec::new();
    for used in 1..=40u64 {
        admit(&limiter, "alice", Cost::REQUEST).await.unwrap();
        let (_, left) = kept_longest(&server).await;
        // The test itself takes some of the time.
        let expected = used * refill - 120_000..=used * refill * 2 + 1000;
        assert!(expected.contains(&left), "{used} used, kept for {left} ms");
        lives.push(left);
    }
    let renewals = lives.windows(2).filter(|pair| pair[1] > pair[0]).count();
    assert!(renewals < 10, "most decisions leave the end as it is: {renewals}");
}

#[tokio::test]
async fn levels_in_the_packing_of_another_release_are_left_alone() {
    let server = Server::start().await;
    let replica = server.replica().await;
    let limiter = replica.store.limiter("quota", policy([Limit::requests_per_day(10)]));
    assert_eq!(admitted(&limiter, "alice", 4).await, 4);
    let keys = server.ask("KEYS nrl3:*").await;
    let key = keys.lines().find(|line| line.starts_with("nrl3:{")).unwrap().to_owned();
    let older = key.replacen("nrl3:", "nrl:", 1);
    server.ask(&format!("SET {older} twenty-bytes-of-old-s")).await;
    assert_eq!(admitted(&limiter, "alice", 10).await, 6);
    assert!(server.ask(&format!("GET {older}")).await.contains("twenty-bytes-of-old-s"));
}

#[tokio::test]
async fn a_server_that_forgets_scripts_is_told_them_again() {
    let server = Server::start().await;
    let replica = server.replica().await;
    let limiter =
        replica.store.limiter("quota", policy([Limit::requests_per_day(10), Limit::tokens_per_day(1000)]));
    assert_eq!(admitted(&limiter, "alice", 2).await, 2);
    server.ask("SCRIPT FLUSH").await;
    assert_eq!(admitted(&limiter, "alice", 20).await, 8);
    server.ask("SCRIPT FLUSH").await;
    let bob = admit(&limiter, "bob", Cost::tokens(100)).await.unwrap();
    server.ask("SCRIPT FLUSH").await;
    bob.settle(Settlement::Used(10));
    reaches(&limiter, "bob", &[9, 990]).await;
    assert_eq!(replica.store.status().failures, 0);
}

#[tokio::test]
async fn a_flood_on_a_denied_key_does_not_reach_the_server() {
    let server = Server::start().await;
    let replica = server.replica().await;
    let limiter = replica.store.limiter("quota", policy([Limit::requests_per_day(1)]));
    assert_eq!(admitted(&limiter, "alice", 2).await, 1);
    let before = server.calls("evalsha").await;
    assert_eq!(admitted(&limiter, "alice", 1000).await, 0);
    let after = server.calls("evalsha").await;
    assert!(after - before <= 5, "{} calls for a thousand requests", after - before);
    assert!(replica.store.status().remembered >= 995);
}

#[tokio::test]
async fn what_costs_more_than_was_denied_is_told_its_own_wait() {
    let server = Server::start().await;
    let replica = server.replica().await;
    let limiter = replica.store.limiter("quota", policy([Limit::tokens_per_day(1000)]));
    admit(&limiter, "alice", Cost::tokens(900)).await.unwrap();
    let wait = async |tokens| {
        let denied = admit(&limiter, "alice", Cost::tokens(tokens)).await.unwrap_err();
        denied.retry_after().unwrap().as_secs()
    };
    assert!((8630..=8640).contains(&wait(200).await), "a tenth of a day");
    let long = wait(1000).await;
    assert!((77_750..=77_760).contains(&long), "nine tenths, though it is known that 200 do not fit: {long}");
    assert_eq!(replica.store.status().remembered, 1);
}

#[tokio::test]
async fn processes_count_one_another() {
    let server = Server::start().await;
    // One that is gone since before the clock was set back.
    assert_eq!(server.ask("ZADD nrl:{store}:replicas 99999999999 gone").await, ":1\r\n");
    let one = server.replica().await;
    one.knows(1).await;
    let two = server.replica().await;
    two.knows(2).await;
    one.knows(2).await;
    assert_eq!(server.replica_that(OnOutage::Local, Some(7)).await.store.status().replicas, Some(7));
}

/// When the server has decided is not known, but between which moments: so one limiter of this process is
/// charged before it and one after it.
#[tokio::test]
async fn several_limits_refill_on_the_server_as_in_one_process() {
    // The server counts milliseconds.
    const ROUNDING: Duration = Duration::from_millis(5);
    let limit = |name: &'static str, max, seconds| {
        Limit::new(LimitName::new(name).unwrap(), Unit::Tokens, max, Duration::from_secs(seconds))
    };
    let limits = policy([limit("fast", 1000, 1), limit("slow", 1010, 2)]);
    let server = Server::start().await;
    let replica = server.replica().await;
    let limiter = replica.store.limiter("quota", limits.clone());
    let (least, most) = (Limiter::new(limits.clone()), Limiter::new(limits));
    let begun = Instant::now();
    let now = || Duration::from_secs(60) + begun.elapsed();
    let at = |time| Timestamp::ORIGIN.saturating_add(time);
    let mut slack = Duration::ZERO;
    for step in 0..100u64 {
        sleep(Duration::from_millis(step * 5 % 13)).await;
        // One key is soon used up, the other has its bucket full now and then.
        let name = if step % 3 == 0 { "bob" } else { "alice" };
        let tokens = if step == 1 { 1000 } else { 1 + step * 7 % 31 };
        let charge = |model: &Limiter, time| {
            let nothing = model.admit_at(at(time), model.key(name.as_bytes()), Cost::new(0, 0)).unwrap();
            nothing.reserve().settle_at(at(time), Settlement::Used(tokens));
        };
        let left = |model: &Limiter, time| -> Vec<u64> {
            let levels = model.levels_at(at(time), model.key(name.as_bytes()));
            levels.iter().map(|level| level.remaining).collect()
        };
        let has_room = |model: &Limiter, time| left(model, time).iter().all(|left| *left >= tokens);

        let (remembered, before) = (replica.store.status().remembered, now());
        let found = admit(&limiter, name, Cost::tokens(tokens)).await;
        let after = now();
        let is_remembered = replica.store.status().remembered > remembered;
        slack = slack.max(after - before + ROUNDING);
        let (early, late) = (before - slack, after + slack);
        let seen: Vec<u64> = match &found {
            Ok(reservation) => {
                assert!(has_room(&least, late), "step {step}: {reservation:?}");
                charge(&least, before - ROUNDING);
                charge(&most, after + ROUNDING);
                reservation.levels().iter().map(|level| level.remaining).collect()
            }
            Err(denied) => {
                let wait = denied.retry_after().unwrap();
                assert!(!has_room(&most, early + wait), "step {step}: {denied:?} would fit before");
                // What is known of a denial knows nothing of what smaller requests have taken since.
                if is_remembered {
                    continue;
                }
                assert!(has_room(&least, late + wait), "step {step}: {denied:?} does not fit then");
                denied.levels().iter().map(|level| level.remaining).collect()
            }
        };
        for ((seen, fewest), greatest) in seen.iter().zip(left(&most, early)).zip(left(&least, late)) {
            assert!((fewest..=greatest).contains(seen), "step {step}: {seen} not {fewest} to {greatest}");
        }
    }
    assert_eq!(replica.store.status().failures, 0);
}

/// What happens to one key.
#[derive(Debug, Clone)]
enum Step {
    Admit { tokens: u64, settlement: Option<Settlement> },
    Cancel { tokens: u64 },
    Edit { max: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let settlement = prop_oneof![
        Just(None),
        (0..300u64).prop_map(|used| Some(Settlement::Used(used))),
        (0..300u64).prop_map(|used| Some(Settlement::AtLeast(used))),
        Just(Some(Settlement::NotServed)),
    ];
    prop_oneof![
        4 => (0..150u64, settlement).prop_map(|(tokens, settlement)| Step::Admit { tokens, settlement }),
        1 => (0..150u64).prop_map(|tokens| Step::Cancel { tokens }),
        1 => prop::sample::select(vec![25, 400, 800]).prop_map(|max| Step::Edit { max }),
    ]
}

/// The server decides every history as a limiter of one process does.
#[test]
fn every_history_is_decided_as_in_one_process() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (server, replica) = runtime.block_on(async {
        let server = Server::start().await;
        let replica = server.replica().await;
        (server, replica)
    });
    let case = Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: 60, ..Config::default() });
    let steps = prop::collection::vec(step(), 1..25);
    let limits = |max| policy([Limit::requests_per_day(12), Limit::tokens_per_day(max).with_burst(2.0)]);
    let result = runner.run(&steps, |steps| {
        case.set(case.get() + 1);
        let mut model = Limiter::new(limits(400));
        let mut limiter = replica.store.limiter(&format!("case {}", case.get()), limits(400));
        runtime.block_on(async {
            let key = model.key(b"alice");
            for step in steps {
                let (tokens, settlement, cancel) = match step {
                    Step::Admit { tokens, settlement } => (tokens, settlement, false),
                    Step::Cancel { tokens } => (tokens, None, true),
                    Step::Edit { max } => {
                        (model, limiter) = (model.successor(limits(max)), limiter.successor(limits(max)));
                        // What is denied shows that more is not owed than can be.
                        (1, Some(Settlement::NotServed), false)
                    }
                };
                let expected = model.admit(key, Cost::tokens(tokens)).map(|admitted| admitted.reserve());
                let found = admit(&limiter, "alice", Cost::tokens(tokens)).await;
                prop_assert_eq!(found.is_ok(), expected.is_ok());
                if let (Ok(found), Ok(expected)) = (found, expected) {
                    if cancel {
                        found.cancel();
                        expected.cancel();
                    } else if let Some(settlement) = settlement {
                        found.settle(settlement);
                        expected.settle(settlement);
                    }
                }
                let left = |levels: &nantian_ratelimit::Levels| -> Vec<u64> {
                    levels.iter().map(|level| level.remaining).collect()
                };
                let expected = left(&model.levels(key));
                reaches(&limiter, "alice", &expected).await;
            }
            Ok(())
        })
    });
    drop(replica);
    drop(server);
    result.unwrap();
}

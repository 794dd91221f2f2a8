//! Bytes that a key in use takes, by a counting allocator, which would disturb the other figures.

use std::alloc::System;
use std::process::ExitCode;

use cap::Cap;
use crates_bench::{Table, exit};
use governor::clock::FakeRelativeClock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use nantian_ratelimit::{Cost, Limit, Limiter, Policy, clock::Timestamp};

#[global_allocator]
static BYTES: Cap<System> = Cap::new(System, usize::MAX);

const KEYS: u64 = 1_000_000;

fn main() -> ExitCode {
    let mut table = Table::from_args();
    let one = [Limit::requests_per_minute(60)];
    let three =
        [Limit::requests_per_minute(60), Limit::tokens_per_minute(1000), Limit::tokens_per_hour(10_000)];
    table.bytes("1 limit, any key", ours(&one), Some(24.0));
    table.bytes("3 limits, any key", ours(&three), Some(48.0));
    table.bytes("governor, u64 key, 1 limit", governor(|key| key), None);
    table.bytes("governor, 25-byte String key, 1 limit", governor(|key| format!("sk-proj-{key:017x}")), None);
    exit(&table)
}

#[expect(clippy::expect_used, reason = "a bench may fail")]
fn ours(limits: &[Limit]) -> f64 {
    let policy = limits.iter().cloned().fold(Policy::builder(), |policy, limit| policy.limit(limit));
    let policy = policy.build().expect("a valid policy");
    per_key(|| {
        let limiter = Limiter::builder(policy).max_keys(KEYS as usize).build();
        for key in 0..KEYS {
            let key = limiter.key(&key.to_be_bytes());
            assert!(limiter.admit_at(Timestamp::ORIGIN, key, Cost::tokens(1)).is_ok());
        }
        let live = limiter.live_keys_at(Timestamp::ORIGIN) as u64;
        assert!(live * 1000 >= KEYS * 999, "{live} keys have a bucket of their own");
        limiter
    })
}

fn governor<K: std::hash::Hash + Eq + Clone>(key: impl Fn(u64) -> K) -> f64 {
    per_key(|| {
        let quota = Quota::per_minute(std::num::NonZeroU32::MIN.saturating_add(59));
        let (keys, clock) = (DashMapStateStore::<K>::default(), FakeRelativeClock::default());
        let governor = RateLimiter::<K, _, _, NoOpMiddleware<Nanos>>::new(quota, keys, clock);
        (0..KEYS).for_each(|at| assert!(governor.check_key(&key(at)).is_ok()));
        governor
    })
}

/// What stays allocated after `build`, for each key.
fn per_key<T>(build: impl FnOnce() -> T) -> f64 {
    let before = BYTES.allocated();
    let built = build();
    let bytes = BYTES.allocated() - before;
    drop(built);
    bytes as f64 / KEYS as f64
}

//! What a million keys in use take: `max alloc` of the table below is bytes of a million keys.
//!
//! `cargo bench -p nantian-ratelimit --bench memory`. The promise is 24 bytes a key for one limit, 48 for up
//! to three.

use divan::{AllocProfiler, Bencher};
use nantian_ratelimit::{Cost, Limit, Limiter, Policy, clock::Timestamp};

const KEYS: u32 = 1_000_000;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

#[divan::bench(args = [1, 2, 3], sample_count = 1, sample_size = 1)]
fn a_million_keys_of_so_many_limits(bencher: Bencher<'_, '_>, limits: usize) {
    bencher.bench(|| fill(limits));
}

#[expect(clippy::expect_used, reason = "a bench may fail")]
fn fill(limits: usize) -> Limiter {
    let all =
        [Limit::requests_per_minute(60), Limit::tokens_per_minute(1000), Limit::tokens_per_hour(10_000)];
    let policy = all.into_iter().take(limits).fold(Policy::builder(), |policy, limit| policy.limit(limit));
    let limiter = Limiter::builder(policy.build().expect("a valid policy")).max_keys(KEYS as usize).build();
    for key in 0..KEYS {
        let key = limiter.key(&key.to_be_bytes());
        assert!(limiter.admit_at(Timestamp::ORIGIN, key, Cost::tokens(1)).is_ok());
    }
    let shared = KEYS as usize - limiter.live_keys_at(Timestamp::ORIGIN);
    assert!(shared <= KEYS as usize / 1000, "{shared} keys found no slot of their own");
    limiter
}

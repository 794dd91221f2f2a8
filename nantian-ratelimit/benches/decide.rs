//! Decisions against governor's keyed limiter, in one run: `cargo bench -p nantian-ratelimit`.
//!
//! Time is told to both, so that the decision is measured and not the clock; `clocked` reads the monotonic
//! clock for each. Ours include the digest of the key. `hot` asks for one key, `spread` for a million, each
//! far from the last.

use std::cell::RefCell;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use governor::clock::{Clock, FakeRelativeClock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use nantian_ratelimit::{Cost, Limit, Limiter, Policy, clock::Timestamp};

const KEYS: u32 = 1_000_000;
const BATCH: u32 = 10_000;
const PER_MINUTE: NonZeroU32 = NonZeroU32::MIN.saturating_add(599_999_999);

type Governor<K, C> = RateLimiter<K, DashMapStateStore<K>, C, NoOpMiddleware<<C as Clock>::Instant>>;

thread_local! {
    /// Where a name is written, so that neither side allocates.
    static NAME: RefCell<String> = const { RefCell::new(String::new()) };
}

fn main() {
    divan::main();
}

#[divan::bench(threads = [1, 2])]
fn hot_ours(bencher: Bencher<'_, '_>) {
    let limiter = limiter(one_limit());
    run(bencher, |_| admit(&limiter, 0));
}

#[divan::bench(threads = [1, 2])]
fn hot_governor(bencher: Bencher<'_, '_>) {
    let governor = governor(FakeRelativeClock::default());
    run(bencher, |_| governor.check_key(black_box(&0)).is_ok());
}

#[divan::bench(threads = [1, 2])]
fn spread_ours(bencher: Bencher<'_, '_>) {
    let limiter = limiter(one_limit());
    fill(|key| admit(&limiter, key));
    run(bencher, |key| admit(&limiter, key));
}

#[divan::bench(threads = [1, 2])]
fn spread_governor(bencher: Bencher<'_, '_>) {
    let governor = governor(FakeRelativeClock::default());
    fill(|key| governor.check_key(&key).is_ok());
    run(bencher, |key| governor.check_key(black_box(&key)).is_ok());
}

#[divan::bench]
fn spread_names_ours(bencher: Bencher<'_, '_>) {
    let limiter = limiter(one_limit());
    let admit = |name: &String| {
        limiter.admit_at(Timestamp::ORIGIN, limiter.key(name.as_bytes()), Cost::REQUEST).is_ok()
    };
    fill(|key| NAME.with_borrow_mut(|name| named(key, name, admit)));
    run(bencher, |key| NAME.with_borrow_mut(|name| named(key, name, admit)));
}

#[divan::bench]
fn spread_names_governor(bencher: Bencher<'_, '_>) {
    let governor = governor::<String, _>(FakeRelativeClock::default());
    let check = |name: &String| governor.check_key(name).is_ok();
    fill(|key| NAME.with_borrow_mut(|name| named(key, name, check)));
    run(bencher, |key| NAME.with_borrow_mut(|name| named(key, name, check)));
}

#[divan::bench]
fn three_limits_hot_ours(bencher: Bencher<'_, '_>) {
    let limiter = limiter(three_limits());
    run(bencher, |_| admit(&limiter, 0));
}

#[divan::bench]
fn three_limits_hot_governor(bencher: Bencher<'_, '_>) {
    let governors = [(); 3].map(|()| governor(FakeRelativeClock::default()));
    run(bencher, |_| governors.iter().all(|governor| governor.check_key(black_box(&0)).is_ok()));
}

#[divan::bench]
fn three_limits_spread_ours(bencher: Bencher<'_, '_>) {
    let limiter = limiter(three_limits());
    fill(|key| admit(&limiter, key));
    run(bencher, |key| admit(&limiter, key));
}

#[divan::bench]
fn three_limits_spread_governor(bencher: Bencher<'_, '_>) {
    let governors = [(); 3].map(|()| governor(FakeRelativeClock::default()));
    let check = |key: u32| governors.iter().all(|governor| governor.check_key(black_box(&key)).is_ok());
    fill(check);
    run(bencher, check);
}

#[divan::bench]
fn clocked_hot_ours(bencher: Bencher<'_, '_>) {
    let limiter = limiter(one_limit());
    run(bencher, |_| limiter.admit(limiter.key(&black_box(0u32).to_be_bytes()), Cost::REQUEST).is_ok());
}

#[divan::bench]
fn clocked_hot_governor(bencher: Bencher<'_, '_>) {
    let governor = governor(MonotonicClock);
    run(bencher, |_| governor.check_key(black_box(&0)).is_ok());
}

/// A denied caller that keeps trying.
#[divan::bench(threads = [1, 2])]
fn denied_ours(bencher: Bencher<'_, '_>) {
    let limiter = limiter([Limit::requests_per_minute(1)]);
    run(bencher, |_| admit(&limiter, 0));
}

fn one_limit() -> [Limit; 1] {
    [Limit::requests_per_minute(PER_MINUTE.get().into())]
}

fn three_limits() -> [Limit; 3] {
    [
        Limit::requests_per_minute(PER_MINUTE.get().into()),
        Limit::tokens_per_minute(60_000_000_000),
        Limit::tokens_per_hour(3_600_000_000_000),
    ]
}

#[expect(clippy::expect_used, reason = "a bench may fail")]
fn limiter(limits: impl IntoIterator<Item = Limit>) -> Limiter {
    let policy = limits.into_iter().fold(Policy::builder(), |policy, limit| policy.limit(limit));
    Limiter::builder(policy.build().expect("a valid policy")).max_keys(KEYS as usize).build()
}

fn admit(limiter: &Limiter, key: u32) -> bool {
    let key = limiter.key(&black_box(key).to_be_bytes());
    limiter.admit_at(Timestamp::ORIGIN, key, Cost::tokens(1)).is_ok()
}

fn governor<K: Hash + Eq + Clone, C: Clock>(clock: C) -> Governor<K, C> {
    let quota = Quota::per_minute(PER_MINUTE);
    RateLimiter::new(quota, DashMapStateStore::default(), clock)
}

fn fill(decide: impl FnMut(u32) -> bool) {
    assert!((0..KEYS).all(decide), "every key is admitted once");
}

/// Measures batches of decisions. Each key is made from the outcome before, which a processor foresees, and
/// each batch walks through the keys from another start.
fn run(bencher: Bencher<'_, '_>, decide: impl Fn(u32) -> bool + Sync) {
    let starts = AtomicU64::new(1);
    bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| starts.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed))
        .bench_refs(|walk| {
            for _ in 0..BATCH {
                *walk = walk.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let key = u32::try_from((*walk >> 33) % u64::from(KEYS)).unwrap_or(0);
                *walk += u64::from(black_box(decide(key)));
            }
        });
}

/// Calls `decide` with the 25 bytes of a key's name, which costs no memory access.
fn named<T>(key: u32, name: &mut String, decide: impl FnOnce(&String) -> T) -> T {
    name.clear();
    name.push_str("sk-proj-");
    let mut rest = u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for _ in 0..17 {
        name.push(char::from(b'a' + (rest & 15) as u8));
        rest = rest.rotate_right(4);
    }
    decide(name)
}

//! nantian-ratelimit beside governor's keyed limiter, limitador and tower's rate limit.
//!
//! Against governor time is told to both, so that the decision is measured and not the clock. limitador and
//! tower read a clock, and so do we beside them. Ours always include the digest of the key. Each number is
//! made from the outcome before, which a processor foresees: decisions overlap as far as it can look ahead.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Future, ready};
use std::hash::Hash;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crates_bench::{Table, Work, alone, exit, two_threads};
use governor::clock::FakeRelativeClock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use limitador::limit::{Expression, Namespace};
use nantian_ratelimit::{Cost, Limit, Limiter, Policy, clock::Timestamp};
use tower::Service;
use tower::limit::RateLimit;
use tower::limit::rate::Rate;

const KEYS: u64 = 1_000_000;
const PER_MINUTE: NonZeroU32 = NonZeroU32::MAX;

type Governor<K> = RateLimiter<K, DashMapStateStore<K>, FakeRelativeClock, NoOpMiddleware<Nanos>>;

fn main() -> ExitCode {
    let mut table = Table::from_args();
    against_governor(&mut table);
    three_limits_against_governor(&mut table);
    against_limitador(&mut table);
    against_tower(&mut table);
    exit(&table)
}

fn against_governor(table: &mut Table) {
    table.ratio("1 limit, 1 M keys (u64) / governor", Some(0.5), || {
        let (ours, peer) = (filled(one_limit()), governed(|key| key));
        (walk(move |key| admit(&ours, key)), walk(move |key| peer.check_key(&key).is_ok()))
    });
    table.ratio("1 limit, 1 M keys (25-byte String) / governor", Some(0.3), || {
        let (ours, peer) = (filled_by_name(), governed(name));
        let ours = walk_names(move |name| {
            ours.admit_at(Timestamp::ORIGIN, ours.key(name.as_bytes()), Cost::REQUEST).is_ok()
        });
        (ours, walk_names(move |name| peer.check_key(name).is_ok()))
    });
    table.ratio("1 limit, hot key / governor", None, || {
        let (ours, peer) = (limiter(one_limit()), governor());
        (hot(move |key| admit(&ours, key)), hot(move |key| peer.check_key(&key).is_ok()))
    });
    table.ratio("1 limit, 1 M keys, two threads / governor", Some(1.0 / 3.0), || {
        let (ours, peer) = (filled(one_limit()), governed(|key| key));
        (
            two_threads(move |thread| {
                let (ours, mut keys) = (ours.clone(), Keys::anywhere(thread));
                move || keys.step(|key| admit(&ours, key))
            }),
            two_threads(move |thread| {
                let (peer, mut keys) = (peer, Keys::anywhere(thread));
                move || keys.step(|key| peer.check_key(&key).is_ok())
            }),
        )
    });
    table.ratio("1 limit, hot key, two threads / governor", None, || {
        let (ours, peer): (_, &Governor<u64>) = (limiter(one_limit()), leak(governor()));
        (
            two_threads(move |_| {
                let ours = ours.clone();
                move || assert!(admit(&ours, black_box(0)))
            }),
            two_threads(move |_| move || assert!(peer.check_key(&black_box(0)).is_ok())),
        )
    });
}

fn three_limits_against_governor(table: &mut Table) {
    table.ratio("3 limits, 1 M keys / 3 governor calls", Some(0.5), || {
        let ours = filled(three_limits());
        let peers = [(); 3].map(|()| governed(|key| key));
        let peers = move |key| peers.iter().all(|peer| peer.check_key(&key).is_ok());
        (walk(move |key| admit(&ours, key)), walk(peers))
    });
    table.ratio("3 limits, hot key / 3 governor calls", Some(0.5), || {
        let ours = limiter(three_limits());
        let peers: [Governor<u64>; 3] = [(); 3].map(|()| governor());
        let peers = move |key| peers.iter().all(|peer| peer.check_key(&key).is_ok());
        (hot(move |key| admit(&ours, key)), hot(peers))
    });
}

fn against_limitador(table: &mut Table) {
    table.ratio("1 limit, hot key, clock read / limitador", Some(0.02), || {
        let (ours, peer, name) = (limiter(one_limit()), limitador(), name(0));
        (hot(move |key| admit_now(&ours, key)), hot(move |_| peer(&name)))
    });
    table.ratio("1 limit, 1 M keys, clock read / limitador", Some(0.02), || {
        let (ours, peer) = (filled(one_limit()), limitador());
        (0..KEYS).for_each(|key| assert!(peer(&name(key))));
        (walk(move |key| admit_now(&ours, key)), walk_names(peer))
    });
}

/// tower's limit knows no keys, cannot be shared, and makes requests wait; it is here because people reach
/// for it.
fn against_tower(table: &mut Table) {
    table.ratio("1 limit, clock read / tower RateLimit (keyless, unshared)", None, || {
        let ours = limiter(one_limit());
        let runtime = leak(tokio::runtime::Builder::new_current_thread().enable_time().build());
        let _context = runtime.as_ref().map(tokio::runtime::Runtime::enter);
        let rate = Rate::new(u64::MAX, Duration::from_secs(60));
        let mut service = RateLimit::new(tower::service_fn(|key: u64| ready(Ok::<_, Infallible>(key))), rate);
        let peer = hot(move |key| {
            let mut cx = Context::from_waker(Waker::noop());
            service.poll_ready(&mut cx).is_ready()
                && matches!(pin!(service.call(key)).poll(&mut cx), Poll::Ready(Ok(_)))
        });
        (hot(move |key| admit_now(&ours, key)), peer)
    });
}

// === ours ===

fn one_limit() -> Vec<Limit> {
    vec![Limit::requests_per_minute(PER_MINUTE.get().into())]
}

fn three_limits() -> Vec<Limit> {
    vec![
        Limit::requests_per_minute(PER_MINUTE.get().into()),
        Limit::tokens_per_minute(60_000_000_000),
        Limit::tokens_per_hour(3_600_000_000_000),
    ]
}

#[expect(clippy::expect_used, reason = "a bench may fail")]
fn limiter(limits: Vec<Limit>) -> Limiter {
    let policy = limits.into_iter().fold(Policy::builder(), |policy, limit| policy.limit(limit));
    Limiter::builder(policy.build().expect("a valid policy")).max_keys(KEYS as usize).build()
}

fn filled(limits: Vec<Limit>) -> Limiter {
    let limiter = limiter(limits);
    (0..KEYS).for_each(|key| assert!(admit(&limiter, key)));
    limiter
}

fn filled_by_name() -> Limiter {
    let limiter = limiter(one_limit());
    for key in 0..KEYS {
        let key = limiter.key(name(key).as_bytes());
        assert!(limiter.admit_at(Timestamp::ORIGIN, key, Cost::REQUEST).is_ok());
    }
    limiter
}

fn admit(limiter: &Limiter, key: u64) -> bool {
    let key = limiter.key(&key.to_be_bytes());
    limiter.admit_at(Timestamp::ORIGIN, key, Cost::tokens(1)).is_ok()
}

fn admit_now(limiter: &Limiter, key: u64) -> bool {
    limiter.admit(limiter.key(&key.to_be_bytes()), Cost::tokens(1)).is_ok()
}

// === peers ===

fn governor<K: Hash + Eq + Clone>() -> Governor<K> {
    RateLimiter::new(
        Quota::per_minute(PER_MINUTE),
        DashMapStateStore::default(),
        FakeRelativeClock::default(),
    )
}

fn governed<K: Hash + Eq + Clone + Send + Sync + 'static>(key: impl Fn(u64) -> K) -> &'static Governor<K> {
    let governor = governor();
    (0..KEYS).for_each(|at| assert!(governor.check_key(&key(at)).is_ok()));
    leak(governor)
}

/// Decides about a name. What limitador reads of a request is part of the decision, for each has its own.
fn limitador() -> impl Fn(&String) -> bool {
    let namespace = Namespace::from("bench");
    let limiter = limitador::RateLimiter::new(2 * KEYS);
    limiter.add_limit(limitador::limit::Limit::new("bench", u64::MAX / 2, 60, [], Expression::parse("user")));
    move |name| {
        let context = HashMap::from([("user".to_owned(), name.clone())]).into();
        let checked = limiter.check_rate_limited_and_update(&namespace, &context, 1);
        checked.is_ok_and(|checked| !checked.limited)
    }
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

// === keys ===

/// A walk through the keys in which each is far from the last.
struct Keys(u64);

impl Keys {
    fn new(start: u64) -> Self {
        Self(start.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1)
    }

    /// A walk that begins elsewhere each time: short ones from the same key would meet few of them.
    fn anywhere(thread: usize) -> Self {
        static WALKS: AtomicU64 = AtomicU64::new(1);
        Self::new(WALKS.fetch_add(2, Ordering::Relaxed) + thread as u64)
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 32) * KEYS) >> 32
    }

    fn step(&mut self, decide: impl FnOnce(u64) -> bool) {
        let key = self.draw();
        // The next key is made from this decision.
        self.0 += u64::from(black_box(decide(black_box(key))));
    }
}

fn walk<'a>(mut decide: impl FnMut(u64) -> bool + 'a) -> Work<'a> {
    let mut keys = Keys::new(0);
    alone(move || keys.step(&mut decide))
}

fn hot<'a>(mut decide: impl FnMut(u64) -> bool + 'a) -> Work<'a> {
    let mut key = 0;
    alone(move || key = u64::from(!decide(black_box(key))))
}

/// Names are written some ahead of their decision, as a request's header is: a name read while it is still on
/// its way to the cache would measure that way.
fn walk_names<'a>(mut decide: impl FnMut(&String) -> bool + 'a) -> Work<'a> {
    const AHEAD: usize = 64;
    let (mut keys, mut names) = (Keys::new(0), [(); AHEAD].map(|()| name(0)));
    let mut at = AHEAD;
    alone(move || {
        if at == AHEAD {
            names.iter_mut().for_each(|name| rename(name, keys.draw()));
            at = 0;
        }
        assert!(black_box(decide(black_box(&names[at]))));
        at += 1;
    })
}

/// The 25 bytes of a key's name.
fn name(key: u64) -> String {
    let mut text = "sk-proj-aaaaaaaaaaaaaaaaa".to_owned();
    rename(&mut text, key);
    text
}

/// Makes it the name of `key`, without a memory access beyond it.
fn rename(text: &mut String, key: u64) {
    let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = std::mem::take(text).into_bytes();
    if let Some(letters) = bytes.get_mut(8..24) {
        letters[..8].copy_from_slice(&letters_of(mixed as u32));
        letters[8..].copy_from_slice(&letters_of((mixed >> 32) as u32));
    }
    *text = String::from_utf8(bytes).unwrap_or_default();
}

/// A letter for each four bits.
fn letters_of(bits: u32) -> [u8; 8] {
    let x = u64::from(bits);
    let x = (x | x << 16) & 0x0000_ffff_0000_ffff;
    let x = (x | x << 8) & 0x00ff_00ff_00ff_00ff;
    let x = (x | x << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    (x + 0x6161_6161_6161_6161).to_le_bytes()
}

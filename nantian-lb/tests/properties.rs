//! Properties that hold for any balancer, with numbers that a false alarm would miss by one in a million.
//!
//! P1 to P13 are numbered as they were set; those that concern one table or one rule stand beside it: P1
//! (long rounds), P2 (waits) in `strategy/`, P3 (tables) in `strategy/maglev/` and `placement.rs`, P6 in
//! `strategy/least_request.rs`, P8 in `health/select.rs`, and P4, P5, P9, P10 and P13 in `health/`. P11, of
//! sessions, goes on in `sessions.rs`.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::any::Any;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::SystemTime;

use futures_util::FutureExt;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use nantian_lb::session::{SessionConfig, SessionKeys, SessionName, Sessions};
use nantian_lb::{
    BalanceConfig, BalanceLayer, Balancer, Endpoint, PickContext, Readiness, Routed, Strategy,
    TierPreference, UpgradeGuard, clock::ManualClock,
};
use tower::{Layer, Service, service_fn};

/// How many standard deviations are exceeded once in a million times, on both sides together.
const SIGMAS: f64 = 4.9;

fn endpoints(weights: &[u32]) -> Vec<Endpoint<usize>> {
    let endpoint =
        |(at, &weight): (usize, &u32)| Endpoint::new(format!("pod-{at:04}"), at).with_weight(weight);
    weights.iter().enumerate().map(endpoint).collect()
}

/// In which no request takes any time.
fn balancer(strategy: Strategy, weights: &[u32]) -> Balancer<usize> {
    Balancer::with_clock(endpoints(weights), &BalanceConfig::new(strategy), ManualClock::new())
}

/// The picks of each endpoint, each request ended before the next.
fn tally(balancer: &Balancer<usize>, n: usize, picks: u32) -> Vec<u32> {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut tally = vec![0; n];
    let mut picker = balancer.picker();
    for _ in 0..picks {
        let target = *picker.pick(&PickContext::seeded(rng.u64(..))).unwrap().target();
        *tally.get_mut(target).unwrap() += 1;
    }
    tally
}

fn in_flight<T: Clone + Send + Sync>(balancer: &Balancer<T>) -> usize {
    balancer.status().iter().map(|status| status.in_flight).sum()
}

/// What chi square with so many degrees of freedom exceeds once in a million times (Wilson and Hilferty).
fn chi_square_limit(freedom: f64) -> f64 {
    let spread = 2.0 / (9.0 * freedom);
    freedom * (1.0 - spread + 4.753 * spread.sqrt()).powi(3)
}

#[test]
fn p1_a_million_picks_are_uniform_and_turns_differ_by_one() {
    const PICKS: u32 = 1_000_000;
    for n in [2, 10, 97] {
        let expected = f64::from(PICKS) / n as f64;
        let random = tally(&balancer(Strategy::Random, &vec![1; n]), n, PICKS);
        let chi_square: f64 =
            random.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
        let limit = chi_square_limit(n as f64 - 1.0);
        assert!(chi_square <= limit, "n {n}: {chi_square} above {limit}");

        let turns = tally(&balancer(Strategy::RoundRobin, &vec![1; n]), n, PICKS);
        assert!(turns.iter().max().unwrap() - turns.iter().min().unwrap() <= 1, "n {n}");
    }
}

#[test]
fn p2_weights_are_kept_to_within_chance_and_turns_exactly() {
    const PICKS: u32 = 300_000;
    for weights in [vec![5, 1, 1], vec![70, 30], vec![6, 3, 1, 10, 4], (1..=40).collect()] {
        let sum: u32 = weights.iter().sum();
        for strategy in [Strategy::Random, Strategy::LeastRequest, Strategy::RoundRobin] {
            let tally = tally(&balancer(strategy.clone(), &weights), weights.len(), PICKS);
            for (count, &weight) in tally.into_iter().zip(&weights) {
                let share = f64::from(weight) / f64::from(sum);
                let expected = share * f64::from(PICKS);
                let bound = match strategy {
                    // Whole rounds, and a part of one.
                    Strategy::RoundRobin => f64::from(weight),
                    _ => SIGMAS * (expected * (1.0 - share)).sqrt(),
                };
                let off = (f64::from(count) - expected).abs();
                assert!(off <= bound, "{strategy:?} {weights:?}: {off} above {bound}");
            }
        }
    }
}

/// How a request ends.
const ENDS: [&str; 6] = ["success", "error", "drop", "broken-off", "panic", "upgrade"];

#[tokio::test]
async fn p7_counts_are_exact_after_any_mix_of_ends_and_changes() {
    let config = BalanceConfig::new(Strategy::LeastRequest);
    let all = endpoints(&[1; 6]);
    let balancer = Balancer::new(all.clone(), &config);
    let upstream = service_fn(async |routed: Routed<usize, Request<&'static str>>| {
        let mut response = Response::new("body".to_owned());
        match *routed.request.body() {
            "error" => return Err("broken"),
            "drop" => std::future::pending().await,
            "panic" => panic!("an upstream panics"),
            "upgrade" => *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS,
            _ => {}
        }
        Ok(response)
    });
    let mut client = BalanceLayer::new(balancer.clone()).layer(upstream);
    let mut rng = fastrand::Rng::with_seed(7);
    let mut open: Vec<Box<dyn Any>> = Vec::new();
    std::panic::set_hook(Box::new(|_| {}));
    for _ in 0..1000 {
        for _ in 0..rng.usize(1..4) {
            let end = *rng.choice(ENDS.iter()).unwrap();
            let response = AssertUnwindSafe(client.call(Request::new(end))).catch_unwind().now_or_never();
            let Some(Ok(Ok(mut response))) = response else { continue };
            if response.status() == StatusCode::SERVICE_UNAVAILABLE {
                continue;
            }
            match end {
                "upgrade" => open.push(Box::new(response.extensions_mut().remove::<UpgradeGuard>().unwrap())),
                "broken-off" => open.push(Box::new(response)),
                _ => drop(response.into_body().collect().await.unwrap()),
            }
        }
        while open.len() > 20 {
            drop(open.swap_remove(rng.usize(..open.len())));
        }
        assert!(in_flight(&balancer) <= open.len(), "those that left are not shown, no other is lost");
        let some = all.iter().filter(|_| rng.bool()).cloned().collect::<Vec<_>>();
        balancer.update(some, &config);
    }
    let _ = std::panic::take_hook();
    balancer.update(all, &config);
    assert_eq!(in_flight(&balancer), open.len());
    drop(open);
    assert_eq!(in_flight(&balancer), 0);
}

fn sessions(key: u8) -> Sessions {
    let keys = SessionKeys::new([[key; 32]]).unwrap();
    Sessions::new(SessionConfig::cookie(SessionName::new("stay").unwrap()), "shop/1", &keys).unwrap()
}

/// A client's first request and those that follow with the cookie that it was given.
#[test]
fn p11_first_requests_follow_the_weights_and_fifty_more_the_first() {
    const CLIENTS: u32 = 2000;
    let balancer = balancer(Strategy::Random, &[70, 30]);
    let (sessions, now) = (sessions(1), SystemTime::now());
    let mut firsts = [0; 2];
    fastrand::seed(11);
    for client in 0..CLIENTS {
        let first = balancer.pick(&PickContext::new()).unwrap();
        firsts[*first.target()] += 1;
        let mut headers = HeaderMap::new();
        sessions.write(&mut headers, now, None, first.in_flight());
        let cookie = headers[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
        let headers = HeaderMap::from_iter([(COOKIE, cookie.parse().unwrap())]);
        for _ in 0..if client % 20 == 0 { 50 } else { 1 } {
            let session = sessions.find(&headers, now).unwrap();
            let next = balancer.pick(&PickContext::new().with_session(&session)).unwrap();
            assert_eq!(next.target(), first.target());
        }
    }
    let sigma = (f64::from(CLIENTS) * 0.7 * 0.3).sqrt();
    assert!((f64::from(firsts[0]) - 1400.0).abs() <= SIGMAS * sigma, "{firsts:?}");
}

#[tokio::test]
async fn p11_whatever_is_altered_in_a_token_the_request_is_answered_and_given_a_new_one() {
    let balancer = balancer(Strategy::RoundRobin, &[1; 3]);
    let upstream = service_fn(async |_: Routed<usize, Request<String>>| {
        Ok::<_, Infallible>(Response::new(String::new()))
    });
    let mut client = BalanceLayer::new(balancer).sessions(sessions(1)).layer(upstream);
    let first = client.call(Request::new(String::new())).await.unwrap();
    let cookie = first.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
    let mut ask = async |cookie: &[u8]| {
        let Ok(cookie) = http::HeaderValue::from_bytes(cookie) else { return None };
        let mut request = Request::new(String::new());
        request.headers_mut().insert(COOKIE, cookie);
        let response = client.call(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        Some(response.headers().contains_key(SET_COOKIE))
    };
    assert_eq!(ask(cookie.as_bytes()).await, Some(false));
    for at in "stay=".len()..cookie.len() {
        for bit in 0..8 {
            let mut altered = cookie.clone().into_bytes();
            altered[at] ^= 1 << bit;
            assert_ne!(ask(&altered).await, Some(false), "byte {at}, bit {bit}");
        }
        assert_eq!(ask(&cookie.as_bytes()[..at]).await, Some(true));
    }
}

#[test]
fn p12_no_pick_is_of_a_set_older_than_the_last_and_turns_stay_even_in_a_storm_of_updates() {
    const UPDATES: u64 = 3000;
    let config = BalanceConfig::default();
    // Who is picked, and of which set.
    let set = |number: u64| (0..4u64).map(move |at| Endpoint::new(format!("pod-{at}"), (at, number)));
    let balancer = Balancer::new(set(0), &config);
    let (newest, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let tallies: Vec<BTreeMap<u64, u64>> = thread::scope(|scope| {
        let pickers = [(); 8].map(|()| {
            scope.spawn(|| {
                let (mut tally, mut picker) = (BTreeMap::new(), balancer.picker());
                while !is_over.load(Ordering::Relaxed) {
                    for shared in [true, false] {
                        let least = newest.load(Ordering::Acquire);
                        let context = PickContext::new();
                        let picked = if shared { balancer.pick(&context) } else { picker.pick(&context) };
                        let (at, number) = *picked.unwrap().target();
                        assert!(number >= least, "of set {number} when {least} was there");
                        *tally.entry(at).or_default() += 1;
                    }
                    // On few cores the updates wait for their turn else.
                    thread::yield_now();
                }
                tally
            })
        });
        for number in 1..=UPDATES {
            balancer.update(set(number), &config);
            newest.store(number, Ordering::Release);
            thread::yield_now();
        }
        is_over.store(true, Ordering::Relaxed);
        pickers.into_iter().map(|picker| picker.join().unwrap()).collect()
    });
    let total = |at| tallies.iter().filter_map(|tally| tally.get(&at)).sum::<u64>();
    let totals = [0, 1, 2, 3].map(total);
    assert!(totals.iter().max().unwrap() - totals.iter().min().unwrap() <= 2, "{totals:?}");
    assert_eq!(in_flight(&balancer), 0);
}

#[test]
fn p13_the_zone_is_left_in_one_pick_when_its_last_endpoint_goes_and_not_before() {
    let config = BalanceConfig::default().with_tiers(TierPreference::Strict);
    let zones = |ready: usize| {
        endpoints(&[1; 6]).into_iter().map(move |one| {
            let (at, tier) = (one.target, u8::from(one.target >= 3));
            let readiness = if tier == 1 || at < ready { Readiness::Ready } else { Readiness::NotReady };
            one.with_tier(tier).with_readiness(readiness)
        })
    };
    let balancer = Balancer::new(zones(3), &config);
    let is_near = || *balancer.pick(&PickContext::new()).unwrap().target() < 3;
    for ready in [3, 2, 1] {
        balancer.update(zones(ready), &config);
        assert!((0..100).all(|_| is_near()), "{ready} are ready");
    }
    balancer.update(zones(0), &config);
    assert!(!is_near());
    balancer.update(zones(1), &config);
    assert!(is_near());
}

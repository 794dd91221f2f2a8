//! Requests that wait for a limit.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use nantian_ratelimit::{
    Cost, EstimatedTokens, HeldBytes, Limit, Limiter, OnLimit, Policy, Queue, RateLimit, RateLimitLayer,
    Reservation, ReservationHandle, ScopePart, ScopeValues, Settlement,
    clock::{Clock, Timestamp},
};
use tokio::time::{Instant, advance, sleep, timeout};
use tower::util::BoxCloneService;
use tower::{Layer, ServiceExt, service_fn};

/// The clock of the runtime, which stands still until everybody waits.
#[derive(Debug)]
pub(crate) struct Paused(pub(crate) Instant);

impl Clock for Paused {
    fn now(&self) -> Timestamp {
        Timestamp::ORIGIN.saturating_add(self.0.elapsed())
    }
}

type Inner = BoxCloneService<Request<()>, Response<String>, Infallible>;

fn limiter(limit: Limit, queue: Queue) -> Limiter {
    let policy =
        Policy::builder().limit(limit).on_limit(OnLimit::Queue(queue)).scope("header:x".parse().unwrap());
    Limiter::builder(policy.build().unwrap()).clock(Paused(Instant::now())).build()
}

fn service(limiter: &Limiter) -> RateLimit<Inner> {
    let inner = service_fn(async |request: Request<()>| {
        if let Some(reservation) = request.extensions().get::<ReservationHandle>()
            && let Some(tokens) = request.extensions().get::<u64>()
        {
            reservation.settle(Settlement::Used(*tokens));
        }
        Ok(Response::new(String::new()))
    });
    RateLimitLayer::new(limiter.clone()).layer(BoxCloneService::new(inner))
}

fn of(key: &str) -> Request<()> {
    Request::builder().header("x", key).body(()).unwrap()
}

fn ask(service: &RateLimit<Inner>, request: Request<()>) -> impl Future<Output = StatusCode> + Send + use<> {
    let answer = service.clone().oneshot(request);
    async move { answer.await.unwrap().status() }
}

fn left(limiter: &Limiter, key: &str) -> u64 {
    let mut hasher = limiter.hasher();
    hasher.part(&ScopePart::Header("x".parse().unwrap()), Some(key.as_bytes()));
    limiter.levels(hasher.finish()).tightest().unwrap().remaining
}

#[tokio::test(start_paused = true)]
async fn requests_over_the_limit_wait_and_pass_in_the_order_they_came() {
    let limiter = limiter(Limit::requests_per_minute(60), Queue::default());
    let service = service(&limiter);
    let begun = Instant::now();
    for _ in 0..60 {
        assert_eq!(ask(&service, of("a")).await, 200);
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let order = Arc::new(Mutex::new(Vec::new()));
    let waiting: Vec<_> = (0..20)
        .map(|number| {
            let (service, order) = (service.clone(), Arc::clone(&order));
            tokio::spawn(async move {
                sleep(Duration::from_millis(number)).await;
                assert_eq!(ask(&service, of("a")).await, 200);
                order.lock().unwrap().push(number);
            })
        })
        .collect();
    for task in waiting {
        task.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
    let took = begun.elapsed();
    assert!((Duration::from_secs(20)..Duration::from_millis(20_100)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_later_does_not_overtake() {
    let limiter = limiter(Limit::requests_per_minute(60), Queue::default());
    let service = service(&limiter);
    for _ in 0..60 {
        ask(&service, of("a")).await;
    }
    let mut first = pin!(ask(&service, of("a")));
    let mut second = pin!(ask(&service, of("a")));
    let mut context = Context::from_waker(Waker::noop());
    assert!(first.as_mut().poll(&mut context).is_pending());
    advance(Duration::from_millis(1500)).await;
    assert!(second.as_mut().poll(&mut context).is_pending(), "there is room, but not for the second");
    assert_eq!(left(&limiter, "a"), 1);
    assert!(first.as_mut().poll(&mut context).is_ready());
    assert!(second.as_mut().poll(&mut context).is_pending());
}

#[tokio::test(start_paused = true)]
async fn whoever_cannot_have_a_turn_in_time_is_refused_at_once_and_told_when_it_would_be() {
    let limiter = limiter(Limit::requests_per_minute(60), Queue::default());
    let service = service(&limiter);
    for _ in 0..60 {
        assert_eq!(ask(&service, of("a")).await, 200);
    }
    let mut context = Context::from_waker(Waker::noop());
    let mut waiting = Vec::new();
    // Of the next item some part may be there, so that one more may hope.
    for _ in 0..31 {
        let mut asking = Box::pin(ask(&service, of("a")));
        assert!(asking.as_mut().poll(&mut context).is_pending());
        waiting.push(asking);
    }
    for _ in 0..70 {
        let mut refused = pin!(service.clone().oneshot(of("a")));
        let Poll::Ready(refused) = refused.as_mut().poll(&mut context) else { panic!("it waits in vain") };
        let refused = refused.unwrap();
        assert_eq!(
            (refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()),
            (429, "31")
        );
    }
    for asking in waiting.drain(..30) {
        assert_eq!(asking.await, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_in_line_waits_for_a_slow_limit_too() {
    let limiter = limiter(Limit::requests_per_minute(1), Queue::default());
    let service = service(&limiter);
    assert_eq!(ask(&service, of("a")).await, 200);
    advance(Duration::from_secs(55)).await;
    assert_eq!(ask(&service, of("a")).await, 200, "in five seconds there is room");
}

#[tokio::test(start_paused = true)]
async fn what_no_limit_counts_waits_behind_nobody() {
    let limiter = limiter(Limit::tokens_per_minute(60), Queue::default().with_places(1, 1));
    let service = service(&limiter);
    let asking = |tokens: u64| {
        let mut request = of("a");
        request.extensions_mut().insert(EstimatedTokens(tokens));
        request
    };
    assert_eq!(ask(&service, asking(60)).await, 200);
    let mut chat = pin!(ask(&service, asking(20)));
    assert!(chat.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let begun = Instant::now();
    for _ in 0..200 {
        assert_eq!(ask(&service, asking(0)).await, 200, "a page waits for no tokens");
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(ask(&service, asking(1)).await, 429, "the queue is full");
    assert_eq!(chat.await, 200);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_cannot_end_in_time_is_refused_at_once() {
    let queue = Queue::default().with_max_wait(Duration::from_secs(5));
    let limiter = limiter(Limit::tokens_per_minute(60), queue);
    let service = service(&limiter);
    let begun = Instant::now();
    let asking = |tokens: u64| {
        let mut request = of("a");
        request.extensions_mut().insert(EstimatedTokens(tokens));
        request
    };
    assert_eq!(ask(&service, asking(60)).await, 200);
    let response = service.clone().oneshot(asking(10)).await.unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "10");
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(ask(&service, asking(5)).await, 200);
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn any_longest_wait_can_be_asked_for() {
    let limiter = limiter(Limit::requests_per_minute(60), Queue::default().with_max_wait(Duration::MAX));
    let service = service(&limiter);
    for _ in 0..61 {
        assert_eq!(ask(&service, of("a")).await, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_does_not_come_in_time_ends_in_a_refusal() {
    let queue = Queue::default().with_max_wait(Duration::from_millis(2500));
    let limiter = limiter(Limit::requests_per_minute(60), queue);
    let service = service(&limiter);
    for _ in 0..60 {
        ask(&service, of("a")).await;
    }
    let answers: Vec<_> = (0..4).map(|_| tokio::spawn(ask(&service, of("a")))).collect();
    let mut statuses = Vec::new();
    for answer in answers {
        statuses.push(answer.await.unwrap().as_u16());
    }
    assert_eq!(statuses, [200, 200, 429, 429]);
}

#[tokio::test(start_paused = true)]
async fn lines_are_bounded_for_each_key_and_together() {
    let limiter = limiter(Limit::requests_per_minute(60), Queue::default().with_places(2, 3));
    let service = service(&limiter);
    for key in ["a", "b", "c"] {
        for _ in 0..60 {
            ask(&service, of(key)).await;
        }
    }
    let mut context = Context::from_waker(Waker::noop());
    let mut waiting = Vec::new();
    for (key, is_refused) in [("a", false), ("a", false), ("a", true), ("b", false), ("b", true), ("c", true)]
    {
        let mut answer = Box::pin(service.clone().oneshot(of(key)));
        match answer.as_mut().poll(&mut context) {
            Poll::Ready(response) => {
                let response = response.unwrap();
                assert!(is_refused && response.status() == 429, "{key}");
                assert_eq!(response.headers()["retry-after"], "1");
            }
            Poll::Pending => assert!(!is_refused, "{key}"),
        }
        waiting.push(answer);
    }
    drop(waiting);
    let answer = timeout(Duration::from_millis(1100), ask(&service, of("c"))).await;
    assert_eq!(answer.unwrap(), 200, "who leaves makes room");
}

#[tokio::test(start_paused = true)]
async fn what_those_that_wait_hold_is_bounded() {
    let limiter = limiter(Limit::requests_per_minute(60), Queue::default().with_held_bytes(100));
    let service = service(&limiter);
    for key in ["a", "b", "c", "d"] {
        for _ in 0..60 {
            ask(&service, of(key)).await;
        }
    }
    let holding = |key: &str, bytes: u64| {
        let mut request = of(key);
        request.extensions_mut().insert(HeldBytes(bytes));
        request
    };
    let mut context = Context::from_waker(Waker::noop());
    let mut waiting = Vec::new();
    for (key, bytes, waits) in [
        ("a", 101, false),
        ("a", 30, true),
        ("a", 21, false),
        ("a", 20, true),
        // What others leave is never taken by one of them.
        ("a", 1, false),
        ("b", 51, false),
        ("b", 26, true),
        ("b", 1, false),
        ("c", 24, true),
        ("d", 1, false),
        ("a", 0, true),
    ] {
        let mut answer = Box::pin(ask(&service, holding(key, bytes)));
        match answer.as_mut().poll(&mut context) {
            Poll::Ready(status) => assert!(!waits && status == 429, "{key} {bytes}"),
            Poll::Pending => assert!(waits, "{key} {bytes}"),
        }
        waiting.push(answer);
    }
    drop(waiting);
    assert_eq!(ask(&service, holding("a", 100)).await, 200, "who leaves makes room");
}

#[tokio::test(start_paused = true)]
async fn no_route_takes_all_the_room_of_those_that_wait_for_a_policy_of_several() {
    let queue = Queue::default().with_held_bytes(100);
    let policy = Policy::builder().limit(Limit::requests_per_minute(60)).on_limit(OnLimit::Queue(queue));
    let limiter = Limiter::builder(policy.build().unwrap()).clock(Paused(Instant::now())).build();
    let routes = ["a", "b"].map(|route| {
        let keys = ScopeValues::new().with_route(route);
        RateLimitLayer::new(limiter.clone()).key_extractor(keys).layer(service(&limiter).into_inner())
    });
    for route in &routes {
        for _ in 0..60 {
            ask(route, of("")).await;
        }
    }
    let mut context = Context::from_waker(Waker::noop());
    let mut waiting = Vec::new();
    for (route, waits) in [(0, true), (0, false), (1, true)] {
        let mut request = of("");
        request.extensions_mut().insert(HeldBytes(50));
        let mut answer = Box::pin(ask(&routes[route], request));
        assert_eq!(answer.as_mut().poll(&mut context).is_pending(), waits, "route {route}");
        waiting.push(answer);
    }
}

/// Dropped at every await there is. Loom cannot do this: places wait on tokio's `Notify` and timers, which
/// under `cfg(loom)` run only in tokio's own tests. The state of the queues is behind one mutex, so what
/// threads can interleave are whole steps of it.
#[tokio::test(start_paused = true)]
async fn leaving_the_line_at_any_point_costs_nothing_and_lets_the_next_one_in() {
    for polls in 0..6 {
        let limiter = limiter(Limit::requests_per_minute(60), Queue::default());
        let service = service(&limiter);
        for _ in 0..60 {
            ask(&service, of("a")).await;
        }
        let mut leaving: Vec<_> = (0..3).map(|_| Box::pin(service.clone().oneshot(of("a")))).collect();
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..polls {
            for waiting in &mut leaving {
                assert!(waiting.as_mut().poll(&mut context).is_pending());
            }
            advance(Duration::from_millis(150)).await;
        }
        let next = tokio::spawn(ask(&service, of("a")));
        tokio::task::yield_now().await;
        drop(leaving);
        let begun = Instant::now();
        assert_eq!(next.await.unwrap(), 200);
        let waited = begun.elapsed() + Duration::from_millis(150) * polls;
        assert!(waited <= Duration::from_millis(1010), "{waited:?} after {polls} polls");
        assert_eq!(left(&limiter, "a"), 0);
        sleep(Duration::from_secs(60)).await;
        assert_eq!(left(&limiter, "a"), 60);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refund_ends_the_wait_early() {
    let limiter = limiter(Limit::tokens_per_minute(60), Queue::default());
    let reservation = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&reservation);
    let service = RateLimitLayer::new(limiter.clone()).layer(service_fn(move |request: Request<()>| {
        let handle = request.extensions().get::<ReservationHandle>().cloned();
        kept.lock().unwrap().get_or_insert(handle.unwrap());
        std::future::ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("not read"))))
    }));
    let asking = |tokens: u64| {
        let mut request = of("a");
        request.extensions_mut().insert(EstimatedTokens(tokens));
        request
    };
    let _served = service.clone().oneshot(asking(60)).await.unwrap();
    let begun = Instant::now();
    let waiting = tokio::spawn(service.clone().oneshot(asking(20)));
    sleep(Duration::from_secs(1)).await;
    reservation.lock().unwrap().take().unwrap().settle(Settlement::Used(1));
    assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
}

/// A proxy of callbacks and a layer may ask the same limiter.
#[tokio::test(start_paused = true)]
async fn what_is_given_back_by_hand_ends_the_wait_early() {
    let settle = |reservation: Reservation| {
        reservation.settle(Settlement::Used(1));
    };
    for give_back in [settle, Reservation::cancel] {
        let limiter = limiter(Limit::tokens_per_minute(60), Queue::default());
        let mut hasher = limiter.hasher();
        hasher.part(&ScopePart::Header("x".parse().unwrap()), Some(b"a"));
        let reservation = limiter.admit(hasher.finish(), Cost::tokens(60)).unwrap().reserve();
        let mut request = of("a");
        request.extensions_mut().insert(EstimatedTokens(20));
        let begun = Instant::now();
        let waiting = tokio::spawn(ask(&service(&limiter), request));
        sleep(Duration::from_secs(1)).await;
        give_back(reservation);
        assert_eq!(waiting.await.unwrap(), 200);
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_admits_no_more_than_bucket_and_refill() {
    let limiter = limiter(Limit::requests_per_minute(60), Queue::default().with_places(1000, 1000));
    let service = service(&limiter);
    let passed = Arc::new(Mutex::new(Vec::new()));
    let begun = Instant::now();
    let tasks: Vec<_> = (0..50u64)
        .map(|client| {
            let (service, passed) = (service.clone(), Arc::clone(&passed));
            tokio::spawn(async move {
                for turn in 0..20u64 {
                    let patience = Duration::from_millis(100 + (client * 37 + turn * 91) % 900);
                    // Many leave before it is their turn.
                    if let Ok(status) = timeout(patience * 20, ask(&service, of("a"))).await
                        && status == 200
                    {
                        passed.lock().unwrap().push(begun.elapsed());
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let passed = passed.lock().unwrap();
    for (position, first) in passed.iter().enumerate() {
        let within =
            passed.iter().skip(position).take_while(|time| **time - *first <= Duration::from_secs(60));
        assert!(within.count() <= 60 + 60 + 1);
    }
    let elapsed = begun.elapsed().as_secs();
    assert!(passed.len() as u64 >= 60 + elapsed - 25, "{} in {elapsed} s: nothing is lost", passed.len());
}

#[tokio::test(start_paused = true)]
async fn a_higher_limit_lets_those_who_wait_pass_at_once() {
    let queue = Queue::default().with_max_wait(Duration::from_secs(120));
    let before = limiter(Limit::requests_per_minute(2), queue);
    let service = service(&before);
    for _ in 0..2 {
        assert_eq!(ask(&service, of("a")).await, 200);
    }
    let begun = Instant::now();
    let waiting: Vec<_> = (0..3).map(|_| tokio::spawn(ask(&service, of("a")))).collect();
    sleep(Duration::from_secs(1)).await;
    let policy = Policy::builder().limit(Limit::requests_per_minute(6000)).scope("header:x".parse().unwrap());
    before.successor(policy.build().unwrap());
    for task in waiting {
        assert_eq!(task.await.unwrap(), 200);
    }
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_policy_that_is_gone_passes_at_once_and_nobody_waits_after() {
    let queue = Queue::default().with_max_wait(Duration::from_secs(120));
    let limiter = limiter(Limit::requests_per_minute(1), queue);
    let service = service(&limiter);
    for key in ["a", "b"] {
        assert_eq!(ask(&service, of(key)).await, 200);
    }
    let begun = Instant::now();
    let waiting: Vec<_> =
        ["a", "a", "a", "b", "b"].map(|key| tokio::spawn(ask(&service, of(key)))).into_iter().collect();
    sleep(Duration::from_secs(1)).await;
    limiter.lift();
    for task in waiting {
        assert_eq!(task.await.unwrap(), 200);
    }
    assert_eq!(ask(&service, of("a")).await, 200, "it began before, and asks now");
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_after_its_policy_was_gone_waits_again_and_finds_what_was_used() {
    let queue = Queue::default().with_max_wait(Duration::from_secs(120));
    let limiter = limiter(Limit::requests_per_minute(1), queue);
    assert_eq!(ask(&service(&limiter), of("a")).await, 200);
    limiter.lift();
    let service = service(&limiter.successor(limiter.policy().clone()));
    let begun = Instant::now();
    assert_eq!(ask(&service, of("a")).await, 200);
    assert_eq!(begun.elapsed(), Duration::from_secs(60));
}

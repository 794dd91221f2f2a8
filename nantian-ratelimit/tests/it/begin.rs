//! Requests that are decided on before their bodies are read.

use std::convert::Infallible;
use std::slice;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use nantian_ratelimit::{
    EstimatedTokens, Limit, Limiter, OnLimit, Policy, Queue, RateLimitLayer, ReservationHandle, Settlement,
    clock::ManualClock,
};
use tokio::task::yield_now;
use tokio::time::{Instant, advance, timeout};
use tower::{Layer, ServiceExt, service_fn};

use crate::admit::limiter;
use crate::layer::{Log, echo};
use crate::queue::Paused;

/// What is left of each limit.
fn left(limiter: &Limiter) -> Vec<u64> {
    let mut hasher = limiter.hasher();
    hasher.part(&nantian_ratelimit::ScopePart::Route, None);
    let levels = limiter.levels(hasher.finish());
    levels.iter().map(|level| level.remaining).collect()
}

/// A journey through `layers`, the outermost first, which are asked before and after the body is read: it
/// turns out to use so many tokens.
async fn journey(layers: &[RateLimitLayer], tokens: u64) -> Response<()> {
    let (mut parts, ()) = Request::new(()).into_parts();
    for layer in layers {
        if let Err(response) = layer.begin(&mut parts).await {
            return response.map(drop);
        }
    }
    yield_now().await;
    parts.extensions.insert(EstimatedTokens(tokens));
    let request = Request::from_parts(parts, ());
    match layers {
        [one] => one.layer(service_fn(echo)).oneshot(request).await.unwrap().map(drop),
        [outer, inner] => {
            outer.layer(inner.layer(service_fn(echo))).oneshot(request).await.unwrap().map(drop)
        }
        _ => panic!("one or two"),
    }
}

fn per_minute(requests: u64, tokens: u64) -> Limiter {
    limiter([Limit::requests_per_minute(requests), Limit::tokens_per_minute(tokens)])
}

#[tokio::test]
async fn a_request_is_taken_before_its_body_and_its_tokens_after() {
    let limiter = per_minute(10, 100);
    let log = Log::default();
    let layer = RateLimitLayer::new(limiter.clone()).observer(log.clone());
    let (mut parts, ()) = Request::new(()).into_parts();
    layer.begin(&mut parts).await.unwrap();
    assert_eq!((left(&limiter), log.entries().len()), (vec![9, 100], 0));
    parts.extensions.insert(EstimatedTokens(40));
    let service = layer.layer(service_fn(async |request: Request<()>| {
        request.extensions().get::<ReservationHandle>().unwrap().settle(Settlement::Used(30));
        Ok::<_, Infallible>(Response::new(String::new()))
    }));
    let response = service.oneshot(Request::from_parts(parts, ())).await.unwrap();
    assert_eq!(left(&limiter), [9, 70]);
    assert_eq!(log.entries(), ["admitted", "settled 30 of 40"], "one decision, one settlement");
    assert_eq!(response.headers()["x-ratelimit-remaining-requests"], "9");
    assert_eq!(response.headers()["x-ratelimit-remaining-tokens"], "60", "told before it was settled");
}

#[tokio::test]
async fn whoever_is_over_a_limit_of_requests_is_refused_before_the_body_is_read() {
    let limiter = per_minute(2, 1000);
    let layer = RateLimitLayer::new(limiter.clone());
    let mut reading = Vec::new();
    for _ in 0..2 {
        let (mut parts, ()) = Request::new(()).into_parts();
        layer.begin(&mut parts).await.unwrap();
        reading.push(parts);
    }
    let (mut parts, ()) = Request::new(()).into_parts();
    let refused = layer.begin(&mut parts).await.unwrap_err();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "though none of the others was read");
    assert_eq!(refused.headers()["retry-after"], "30");
    assert_eq!(left(&limiter), [0, 1000]);
}

#[tokio::test]
async fn whoever_has_used_up_its_tokens_is_refused_before_the_body_is_read() {
    let limiter = per_minute(10, 100);
    let layer = RateLimitLayer::new(limiter.clone());
    assert_eq!(journey(slice::from_ref(&layer), 100).await.status(), 200);
    let (mut parts, ()) = Request::new(()).into_parts();
    assert_eq!(layer.begin(&mut parts).await.unwrap_err().status(), 429);
    assert_eq!(left(&limiter), [9, 0]);
    let unread = layer.cost_estimator(|_: &_, _| nantian_ratelimit::Cost::REQUEST);
    let (mut parts, ()) = Request::new(()).into_parts();
    assert!(unread.begin(&mut parts).await.is_ok(), "what uses no tokens needs none");
}

#[tokio::test]
async fn whoever_comes_back_when_it_was_told_before_its_body_was_read_passes() {
    let clock = ManualClock::new();
    let policy = Policy::builder().limit(Limit::tokens_per_minute(600)).build().unwrap();
    let layer = RateLimitLayer::new(Limiter::builder(policy).clock(clock.clone()).build());
    assert_eq!(journey(slice::from_ref(&layer), 600).await.status(), 200);
    let begin = async |bytes: &str| {
        let (mut parts, ()) =
            Request::builder().header("content-length", bytes).body(()).unwrap().into_parts();
        layer.begin(&mut parts).await
    };
    assert_eq!(begin("400").await.unwrap_err().headers()["retry-after"], "10", "it is of about 100 tokens");
    assert_eq!(begin("400000").await.unwrap_err().headers()["retry-after"], "60", "a bucket at most");
    clock.advance(Duration::from_secs(10));
    assert!(begin("400").await.is_ok());
    assert_eq!(journey(slice::from_ref(&layer), 100).await.status(), 200);
}

#[tokio::test]
async fn whoever_is_told_to_come_back_waits_for_no_more_than_what_most_requests_used() {
    let clock = ManualClock::new();
    let policy = Policy::builder().limit(Limit::tokens_per_minute(600)).build().unwrap();
    let limiter = Limiter::builder(policy).clock(clock.clone()).build();
    let layer = RateLimitLayer::new(limiter.clone());
    let used = |tokens| {
        let mut hasher = limiter.hasher();
        hasher.part(&nantian_ratelimit::ScopePart::Route, None);
        let admitted = limiter.admit(hasher.finish(), nantian_ratelimit::Cost::tokens(tokens));
        admitted.unwrap().reserve().settle(Settlement::Used(tokens));
    };
    (0..6).for_each(|_| used(100));
    assert_eq!((limiter.typical_tokens(), left(&limiter)), (100, vec![0]));
    let begin = async |bytes: &str| {
        let (mut parts, ()) =
            Request::builder().header("content-length", bytes).body(()).unwrap().into_parts();
        layer.begin(&mut parts).await
    };
    // Long as it is, most of it may be a picture.
    assert_eq!(begin("400000").await.unwrap_err().headers()["retry-after"], "10");
    clock.advance(Duration::from_secs(10));
    assert!(begin("400000").await.is_ok());
}

#[tokio::test]
async fn a_limit_of_no_tokens_needs_no_body_to_deny() {
    let layer = RateLimitLayer::new(per_minute(10, 0));
    let (mut parts, ()) = Request::new(()).into_parts();
    let refused = layer.begin(&mut parts).await.unwrap_err();
    assert!(!refused.headers().contains_key("retry-after"));
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_comes_to_allow_no_tokens_denies_at_once_and_for_ever() {
    let policy = |tokens| {
        let builder = Policy::builder().limit(Limit::tokens_per_minute(tokens));
        builder.on_limit(OnLimit::Queue(Queue::default())).build().unwrap()
    };
    let limiter = Limiter::builder(policy(1000)).clock(Paused(Instant::now())).build();
    let before = RateLimitLayer::new(limiter.clone());
    assert_eq!(journey(slice::from_ref(&before), 500).await.status(), 200);
    let after = RateLimitLayer::new(limiter.successor(policy(0)));
    for layer in [before, after] {
        let (mut parts, ()) = Request::new(()).into_parts();
        let refused = timeout(Duration::ZERO, layer.begin(&mut parts)).await.expect("it does not wait");
        let refused = refused.unwrap_err();
        assert_eq!(refused.status(), 429);
        assert!(!refused.headers().contains_key("retry-after"));
    }
}

#[tokio::test]
async fn what_is_denied_in_either_step_costs_nothing_anywhere() {
    let (outer, inner) = (per_minute(10, 1000), per_minute(10, 100));
    let layers = [&outer, &inner].map(|limiter| RateLimitLayer::new(limiter.clone()));
    assert_eq!(journey(&layers, 60).await.status(), 200);
    let refused = journey(&layers, 60).await;
    assert_eq!(refused.status(), 429, "by the tokens of the inner limiter");
    assert_eq!(refused.headers()["x-ratelimit-remaining-requests"], "9", "this one costs nothing");
    assert_eq!((left(&outer), left(&inner)), (vec![9, 940], vec![9, 40]));

    let (outer, inner) = (per_minute(10, 100), per_minute(1, 1000));
    let layers = [&outer, &inner].map(|limiter| RateLimitLayer::new(limiter.clone()));
    assert_eq!(journey(&layers, 60).await.status(), 200);
    assert_eq!(journey(&layers, 10).await.status(), 429, "by the requests of the inner limiter");
    assert_eq!((left(&outer), left(&inner)), (vec![9, 40], vec![0, 940]));

    let (outer, inner) = (per_minute(10, 100), per_minute(10, 1000));
    let layers = [&outer, &inner].map(|limiter| RateLimitLayer::new(limiter.clone()));
    assert_eq!(journey(&layers, 60).await.status(), 200);
    assert_eq!(journey(&layers, 60).await.status(), 429, "by the tokens of the outer limiter");
    assert_eq!((left(&outer), left(&inner)), (vec![9, 40], vec![9, 940]));
}

#[tokio::test]
async fn what_was_expected_to_use_no_tokens_settles_all_limits_around_all_the_same() {
    let (outer, inner) = (per_minute(10, 1000), per_minute(10, 100));
    let inner_layer = RateLimitLayer::new(inner.clone());
    let service = RateLimitLayer::new(outer.clone()).layer(inner_layer.layer(service_fn(
        async |request: Request<()>| {
            request.extensions().get::<ReservationHandle>().unwrap().settle(Settlement::Used(30));
            Ok::<_, Infallible>(Response::new(String::new()))
        },
    )));
    let (mut parts, ()) = Request::new(()).into_parts();
    inner_layer.begin(&mut parts).await.unwrap();
    parts.extensions.insert(EstimatedTokens(0));
    service.oneshot(Request::from_parts(parts, ())).await.unwrap();
    assert_eq!((left(&outer), left(&inner)), (vec![9, 970], vec![9, 70]));
}

#[tokio::test]
async fn a_policy_that_warns_is_left_to_the_service() {
    let policy = Policy::builder().limit(Limit::requests_per_minute(1)).on_limit(OnLimit::Warn);
    let limiter = Limiter::new(policy.build().unwrap());
    let log = Log::default();
    let layer = RateLimitLayer::new(limiter.clone()).observer(log.clone());
    for _ in 0..2 {
        assert_eq!(journey(slice::from_ref(&layer), 1).await.status(), 200);
    }
    assert_eq!(log.entries(), ["admitted", "warned by requests-per-minute"]);
}

#[tokio::test(start_paused = true)]
async fn those_that_wait_for_requests_hold_no_body_and_stand_in_nobodys_way() {
    let queue = Queue::default().with_max_wait(Duration::from_secs(3));
    let policy = Policy::builder()
        .limit(Limit::requests_per_minute(60))
        .limit(Limit::tokens_per_minute(60))
        .on_limit(OnLimit::Queue(queue));
    let limiter = Limiter::builder(policy.build().unwrap()).clock(Paused(Instant::now())).build();
    let layer = RateLimitLayer::new(limiter.clone());
    let mut begun: Vec<_> = (0..60).map(|_| Request::new(()).into_parts().0).collect();
    for parts in &mut begun {
        layer.begin(parts).await.unwrap();
    }
    let mut late = Request::new(()).into_parts().0;
    let mut waiting = Box::pin(layer.begin(&mut late));
    let mut context = Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    let mut begun = begun.pop().unwrap();
    begun.extensions.insert(EstimatedTokens(60));
    let request = Request::from_parts(begun, ());
    let now = layer.layer(service_fn(echo)).oneshot(request);
    let response = timeout(Duration::ZERO, now).await.expect("its turn is over").unwrap();
    assert_eq!(response.status(), 200);
    advance(Duration::from_millis(1010)).await;
    assert!(matches!(waiting.as_mut().poll(&mut context), Poll::Ready(Ok(()))));
    drop(waiting);

    late.extensions.insert(EstimatedTokens(4));
    let started = Instant::now();
    let response = layer.layer(service_fn(echo)).oneshot(Request::from_parts(late, ())).await.unwrap();
    assert_eq!(response.status(), 429, "four tokens take three seconds more, and one second is over");
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_was_waited_before_the_body_was_read_counts_though_nothing_was_taken() {
    let queue = Queue::default().with_max_wait(Duration::from_millis(2900));
    let policy = Policy::builder()
        .limit(Limit::requests_per_minute(60))
        .limit(Limit::tokens_per_minute(60))
        .on_limit(OnLimit::Queue(queue));
    let limiter = Limiter::builder(policy.build().unwrap()).clock(Paused(Instant::now())).build();
    let layer = RateLimitLayer::new(limiter.clone());
    for number in 0..60 {
        assert_eq!(journey(slice::from_ref(&layer), if number < 59 { 0 } else { 60 }).await.status(), 200);
    }
    let mut late = Request::new(()).into_parts().0;
    let mut waiting = Box::pin(layer.begin(&mut late));
    let mut context = Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    advance(Duration::from_millis(500)).await;
    // Its policy is gone for a moment.
    limiter.lift();
    assert!(matches!(waiting.as_mut().poll(&mut context), Poll::Ready(Ok(()))));
    drop(waiting);
    limiter.successor(limiter.policy().clone());

    late.extensions.insert(EstimatedTokens(3));
    let started = Instant::now();
    let response = layer.layer(service_fn(echo)).oneshot(Request::from_parts(late, ())).await.unwrap();
    assert_eq!(response.status(), 429, "three tokens take two seconds and a half more, half of one is over");
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn those_whose_bodies_are_still_to_be_read_have_places_of_their_own() {
    let policy = Policy::builder()
        .limit(Limit::requests_per_minute(3))
        .limit(Limit::tokens_per_minute(60))
        .on_limit(OnLimit::Queue(Queue::default().with_places(1, 10)));
    let limiter = Limiter::builder(policy.build().unwrap()).clock(Paused(Instant::now())).build();
    let layer = RateLimitLayer::new(limiter.clone());
    let mut read: Vec<_> = (0..3).map(|_| Request::new(()).into_parts().0).collect();
    for parts in &mut read {
        layer.begin(parts).await.unwrap();
    }
    let mut context = Context::from_waker(Waker::noop());
    let mut late: Vec<_> = (0..2).map(|_| Request::new(()).into_parts().0).collect();
    let mut opening: Vec<_> = late.iter_mut().map(|parts| Box::pin(layer.begin(parts))).collect();
    let is_waiting = opening.iter_mut().map(|begin| begin.as_mut().poll(&mut context).is_pending());
    assert_eq!(is_waiting.collect::<Vec<_>>(), [true, false]);
    let mut rest: Vec<_> = [60, 10, 10]
        .into_iter()
        .zip(read)
        .map(|(tokens, mut parts)| {
            parts.extensions.insert(EstimatedTokens(tokens));
            Box::pin(layer.layer(service_fn(echo)).oneshot(Request::from_parts(parts, ())))
        })
        .collect();
    let is_waiting = rest.iter_mut().map(|answer| answer.as_mut().poll(&mut context).is_pending());
    assert_eq!(is_waiting.collect::<Vec<_>>(), [false, true, false]);
}

/// The whole way of a request, given up after any number of polls. Whoever leaves a queue has cost nothing,
/// whoever was taken has made a request; tokens are charged with the decision on them.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_at_any_point_costs_what_was_decided_and_leaks_nothing() {
    let mut outcomes = Vec::new();
    for polls in 0..12 {
        let queue = Queue::default().with_places(1, 1);
        let policy = Policy::builder()
            .limit(Limit::requests_per_minute(60))
            .limit(Limit::tokens_per_minute(600))
            .on_limit(OnLimit::Queue(queue));
        let limiter = Limiter::builder(policy.build().unwrap()).clock(Paused(Instant::now())).build();
        let layer = RateLimitLayer::new(limiter.clone());
        let layers = [layer.clone()];
        for number in 0..60 {
            assert_eq!(journey(&layers, if number < 59 { 1 } else { 541 }).await.status(), 200);
        }
        assert_eq!(left(&limiter), [0, 0]);
        let mut leaving = Box::pin(journey(&layers, 20));
        let mut context = Context::from_waker(Waker::noop());
        let mut is_over = false;
        for _ in 0..polls {
            is_over = leaving.as_mut().poll(&mut context).is_ready();
            if is_over {
                break;
            }
            advance(Duration::from_millis(500)).await;
        }
        drop(leaving);
        // There is one place, and it is free again.
        let begun = Instant::now();
        assert_eq!(journey(&layers, 1).await.status(), 200, "after {polls} polls");
        assert!(begun.elapsed() <= Duration::from_millis(2010), "{:?} after {polls} polls", begun.elapsed());
        advance(Duration::from_secs(60)).await;
        assert_eq!(left(&limiter), [60, 600], "after {polls} polls");
        outcomes.push(is_over);
    }
    assert_eq!(
        outcomes.iter().filter(|over| !**over).count(),
        5,
        "{outcomes:?}: every await was one to leave at"
    );
}

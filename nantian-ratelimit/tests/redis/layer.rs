//! The Layer with shared limits.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use nantian_ratelimit::redis::{OnOutage, Verdict};
use nantian_ratelimit::{
    Cost, EstimatedTokens, Limit, Limiter, OnLimit, Policy, Queue, RateLimitLayer, ReservationHandle,
    ScopePart, ScopeValues, Settlement,
};
use tokio::time::{Instant, timeout};
use tower::{Layer, ServiceExt, service_fn};

use crate::server::{Server, eventually, policy};

/// In the extensions of a request: the tokens that it uses.
#[derive(Clone)]
struct Used(u64);

#[tokio::test]
async fn whoever_waits_is_woken_by_what_another_gives_back() {
    let server = Server::start().await;
    let (one, two) = (server.replica().await, server.replica().await);
    // Half of the bucket refills in half a day; the queue waits for a whole one.
    let queue = Queue::default().with_max_wait(Duration::from_secs(24 * 3600));
    let builder = Policy::builder().limit(Limit::tokens_per_day(100)).on_limit(OnLimit::Queue(queue));
    let policy = builder.build().unwrap();
    let limiters = [&one, &two].map(|replica| replica.store.limiter("quota", policy.clone()));
    for other in &limiters {
        let service = RateLimitLayer::shared(limiters[0].clone()).layer(service_fn(|request: Request<()>| {
            request.extensions().get::<ReservationHandle>().unwrap().settle(Settlement::Used(0));
            std::future::ready(Ok::<_, Infallible>(Response::new(String::new())))
        }));
        let key = other.key_of(&ScopeValues::new(), &Request::new(()).into_parts().0).unwrap().unwrap();
        let verdict = other.admit(key, Cost::new(0, 100)).await;
        let Verdict::Admitted(reservation) = verdict else { panic!("{verdict:?}") };
        let request = Request::builder().extension(EstimatedTokens(50)).body(()).unwrap();
        let before = one.store.status().answers;
        let waiting = tokio::spawn(service.oneshot(request));
        // It is refused at first: while it waits, nobody else is asked for.
        eventually(|| one.store.status().answers > before).await;
        assert!(!waiting.is_finished());
        reservation.settle(Settlement::Used(0));
        let response = timeout(Duration::from_secs(10), waiting).await.expect("it is woken");
        assert_eq!(response.unwrap().unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn services_of_two_processes_share_a_limit() {
    let server = Server::start().await;
    let (one, two) = (server.replica().await, server.replica().await);
    let calls = Arc::new(AtomicUsize::new(0));
    let service = |store: &nantian_ratelimit::redis::RedisStore| {
        let calls = Arc::clone(&calls);
        let limiter = store.limiter("quota", policy([Limit::tokens_per_day(10), Limit::requests_per_day(3)]));
        RateLimitLayer::shared(limiter).layer(service_fn(move |_: Request<()>| {
            calls.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Ok::<_, Infallible>(Response::new(String::new())))
        }))
    };
    let services = [service(&one.store), service(&two.store)];
    let mut statuses = Vec::new();
    for turn in 0..6 {
        let response = services[turn % 2].clone().oneshot(Request::new(())).await.unwrap();
        statuses.push(response.status().as_u16());
        assert_eq!(response.headers()["x-ratelimit-limit-requests"], "3");
        assert_eq!(response.headers().contains_key("retry-after"), response.status() == 429);
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429, 429]);
    assert_eq!(calls.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn what_a_shared_limit_denies_costs_nothing_around_it() {
    let server = Server::start().await;
    let replica = server.replica().await;
    let outer = Limiter::new(policy([Limit::requests_per_day(100)]));
    let inner = replica.store.limiter("quota", policy([Limit::requests_per_day(1)]));
    let service = RateLimitLayer::new(outer.clone()).layer(RateLimitLayer::shared(inner).layer(service_fn(
        |_: Request<()>| std::future::ready(Ok::<_, Infallible>(Response::new(String::new()))),
    )));
    for status in [200, 429, 429, 429] {
        assert_eq!(service.clone().oneshot(Request::new(())).await.unwrap().status(), status);
    }
    let mut hasher = outer.hasher();
    hasher.part(&ScopePart::Route, None);
    let key = hasher.finish();
    eventually(|| outer.levels(key).tightest().unwrap().remaining == 99).await;
}

#[tokio::test]
async fn a_closed_outage_is_told_as_such() {
    let mut server = Server::start().await;
    let replica = server.replica_that(OnOutage::Closed, None).await;
    let limiter = replica.store.limiter("quota", policy([Limit::requests_per_minute(1)]));
    let service = RateLimitLayer::shared(limiter).layer(service_fn(|_: Request<()>| {
        std::future::ready(Ok::<_, Infallible>(Response::new(String::new())))
    }));
    server.kill();
    replica.is_reachable(false).await;
    let response = service.oneshot(Request::new(())).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
}

#[tokio::test]
async fn what_no_limit_counts_asks_no_server_and_passes_while_there_is_none() {
    let mut server = Server::start().await;
    let replica = server.replica_that(OnOutage::Closed, None).await;
    let limiter = replica.store.limiter("quota", policy([Limit::tokens_per_day(100)]));
    let layer = RateLimitLayer::shared(limiter.clone()).cost_estimator(|_: &_, _| Cost::REQUEST);
    let service = layer.layer(service_fn(|request: Request<()>| {
        if let Some(Used(tokens)) = request.extensions().get() {
            let reservation = request.extensions().get::<ReservationHandle>().unwrap();
            reservation.settle(Settlement::Used(*tokens));
        }
        let response = Response::builder().header("x-ratelimit-remaining-tokens", "7").body(String::new());
        std::future::ready(Ok::<_, Infallible>(response.unwrap()))
    }));
    let (parts, ()) = Request::new(()).into_parts();
    let key = limiter.key_of(&ScopeValues::new(), &parts).unwrap().unwrap();
    let left = async || match limiter.admit(key.clone(), Cost::new(0, 0)).await {
        Verdict::Admitted(seen) => seen.levels().tightest().unwrap().remaining,
        verdict => panic!("{verdict:?}"),
    };
    let response = service.clone().oneshot(Request::new(())).await.unwrap();
    assert_eq!((response.status(), replica.store.status().answers), (StatusCode::OK, 0));
    assert!(response.headers().is_empty(), "nobody was asked where the limits stand: {response:?}");
    assert_eq!(left().await, 100);
    // What nobody had expected to use tokens may do so all the same.
    let request = Request::builder().extension(Used(30)).body(()).unwrap();
    service.clone().oneshot(request).await.unwrap();
    let begun = Instant::now();
    while left().await != 70 {
        assert!(begun.elapsed() < Duration::from_secs(10), "the server is not told");
    }
    server.kill();
    replica.is_reachable(false).await;
    let response = service.oneshot(Request::new(())).await.unwrap();
    assert_eq!((response.status(), replica.store.status().unasked), (StatusCode::OK, 0));
}

#[tokio::test]
async fn a_body_is_read_only_for_whoever_has_requests_and_tokens_left() {
    let server = Server::start().await;
    let replica = server.replica().await;
    let limits = [Limit::requests_per_day(3), Limit::tokens_per_day(100)];
    let layer = RateLimitLayer::shared(replica.store.limiter("quota", policy(limits)));
    let service = layer.layer(service_fn(|request: Request<()>| {
        if let Some(reservation) = request.extensions().get::<ReservationHandle>() {
            reservation.settle(Settlement::AsReserved);
        }
        std::future::ready(Ok::<_, Infallible>(Response::new(String::new())))
    }));
    let ask = async |tokens: u64| {
        let (mut parts, ()) = Request::new(()).into_parts();
        if let Err(response) = layer.begin(&mut parts).await {
            return (response.status().as_u16(), false);
        }
        parts.extensions.insert(EstimatedTokens(tokens));
        let response = service.clone().oneshot(Request::from_parts(parts, ())).await.unwrap();
        (response.status().as_u16(), true)
    };
    assert_eq!(ask(60).await, (200, true));
    // A denial by tokens gives the request back. The server is told of that on the way, so it is asked until
    // it knows.
    assert_eq!(ask(60).await, (429, true));
    assert_eq!(ask(40).await, (200, true));
    assert_eq!(ask(1).await, (429, true), "nobody here knows yet that none are left");
    // It is remembered for a second, which a busy machine may let pass.
    let begun = Instant::now();
    while ask(1).await != (429, false) {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "a remembered denial needs neither a body nor the server"
        );
    }
    let retry_after = async || {
        let request = Request::builder().header("content-length", "200").body(()).unwrap();
        let response = layer.begin(&mut request.into_parts().0).await.err()?;
        response.headers()["retry-after"].to_str().unwrap().parse::<u64>().ok()
    };
    let half_a_day = loop {
        // That nobody knows any more that none are left makes it ask again.
        let Some(wait) = retry_after().await else {
            ask(1).await;
            continue;
        };
        break wait;
    };
    assert!((43_000..=43_200).contains(&half_a_day), "fifty of a hundred a day: {half_a_day}");

    let limits = [Limit::requests_per_day(2)];
    let layer = RateLimitLayer::shared(replica.store.limiter("requests", policy(limits)));
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let (mut parts, ()) = Request::new(()).into_parts();
        statuses.push(layer.begin(&mut parts).await.is_ok());
    }
    assert_eq!(statuses, [true, true, false]);
}

#[tokio::test]
async fn a_request_waits_once_for_a_server_that_does_not_answer() {
    let server = Server::start().await;
    let replica = server.hasty_replica(Some(1)).await;
    let limiter = |id| {
        let limits = [Limit::requests_per_day(100), Limit::tokens_per_day(10_000)];
        RateLimitLayer::shared(replica.store.limiter(id, policy(limits)))
    };
    let (outer, inner) = (limiter("outer"), limiter("inner"));
    let model =
        service_fn(|_: Request<()>| std::future::ready(Ok::<_, Infallible>(Response::new(String::new()))));
    let service = outer.layer(inner.layer(model));
    let asked = || {
        let status = replica.store.status();
        (status.answers, status.failures + status.unasked, status.failures)
    };
    let ask = async |is_begun: bool| {
        let (mut parts, ()) = Request::new(()).into_parts();
        if is_begun {
            outer.begin(&mut parts).await.unwrap();
            inner.begin(&mut parts).await.unwrap();
        }
        parts.extensions.insert(EstimatedTokens(10));
        service.clone().oneshot(Request::from_parts(parts, ())).await.unwrap().status()
    };
    assert_eq!(ask(true).await, StatusCode::OK);
    assert_eq!(asked(), (4, 0, 0), "of each limiter first a request, then tokens");
    server.freeze();
    assert_eq!(ask(true).await, StatusCode::OK);
    let (answers, alone, failures) = asked();
    // None, if the driver has noticed before.
    assert!((answers, alone) == (4, 4) && failures <= 1, "{alone} decided alone, {failures} of them waited");
    assert_eq!(ask(false).await, StatusCode::OK);
    let (_, alone, failures) = asked();
    assert!(alone == 6 && failures <= 2, "another request asks, and waits once: {failures}");
    server.thaw();
    replica.is_reachable(true).await;
}

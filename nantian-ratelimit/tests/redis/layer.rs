//! The Layer with shared limits.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response, StatusCode};
use nantian_ratelimit::redis::OnOutage;
use nantian_ratelimit::{Limit, Limiter, RateLimitLayer};
use tower::{Layer, ServiceExt, service_fn};

use crate::server::{Server, eventually, policy};

#[tokio::test]
async fn services_of_two_processes_share_a_limit() {
    let server = Server::start().await;
    let (one, two) = (server.replica().await, server.replica().await);
    let calls = Arc::new(AtomicUsize::new(0));
    let service = |store: &nantian_ratelimit::redis::RedisStore| {
        let calls = Arc::clone(&calls);
        let limiter =
            store.limiter("quota", policy([Limit::tokens_per_hour(10), Limit::requests_per_minute(3)]));
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
    let outer = Limiter::new(policy([Limit::requests_per_minute(100)]));
    let inner = replica.store.limiter("quota", policy([Limit::requests_per_minute(1)]));
    let service = RateLimitLayer::new(outer.clone()).layer(RateLimitLayer::shared(inner).layer(service_fn(
        |_: Request<()>| std::future::ready(Ok::<_, Infallible>(Response::new(String::new()))),
    )));
    for status in [200, 429, 429, 429] {
        assert_eq!(service.clone().oneshot(Request::new(())).await.unwrap().status(), status);
    }
    let mut hasher = outer.hasher();
    hasher.part(&nantian_ratelimit::ScopePart::Route, None);
    let key = hasher.finish();
    eventually(|| outer.levels_at(outer.now(), key).tightest().unwrap().remaining == 99).await;
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

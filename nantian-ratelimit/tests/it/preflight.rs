//! CORS preflight requests.

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use nantian_ratelimit::{Cost, Limit, RateLimitLayer, Settlement};
use tower::{Layer, ServiceExt, service_fn};

use crate::admit::limiter;
use crate::layer::{Log, echo, remaining};

fn preflight() -> Request<()> {
    let request = Request::builder().method(Method::OPTIONS);
    request.header("access-control-request-method", "POST").body(()).unwrap()
}

#[tokio::test]
async fn a_preflight_request_that_is_not_exempt_is_a_request_like_any_other() {
    for (requests, statuses) in [(0, [429, 429]), (1, [200, 429])] {
        let limiter = limiter([Limit::requests_per_minute(requests)]);
        let service = RateLimitLayer::new(limiter).exempt(|_| false).layer(service_fn(echo));
        for status in statuses {
            assert_eq!(service.clone().oneshot(preflight()).await.unwrap().status(), status);
        }
    }
}

#[tokio::test]
async fn a_preflight_request_that_is_not_exempt_takes_no_prompts_tokens() {
    let limiter = limiter([Limit::tokens_per_minute(1000)]);
    limiter.admit(limiter.key(b"k"), Cost::tokens(1)).unwrap().reserve().settle(Settlement::Used(300));
    assert_eq!(limiter.typical_tokens(), 300);
    let service = RateLimitLayer::new(limiter.clone()).exempt(|_| false).layer(service_fn(echo));
    service.oneshot(preflight()).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(remaining(&limiter), 999);
}

#[tokio::test]
async fn a_preflight_request_passes_uncounted() {
    let limiter = limiter([Limit::requests_per_minute(1)]);
    let log = Log::default();
    let service = RateLimitLayer::new(limiter.clone()).observer(log.clone()).layer(service_fn(echo));
    for _ in 0..3 {
        let response = service.clone().oneshot(preflight()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(remaining(&limiter), 1);
    assert_eq!(log.entries(), ["exempt"; 3]);
}

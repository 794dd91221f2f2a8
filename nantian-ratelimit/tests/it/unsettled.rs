//! What becomes of reservations that nobody settles.

use std::convert::Infallible;
use std::future::pending;

use axum::body::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use nantian_ratelimit::{Attempted, Limit, RateLimitLayer, ReservationHandle, Settlement};
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::admit::limiter;
use crate::layer::{Metered, echo, estimated, remaining};
use crate::usage_meter::ByBytes;

#[tokio::test]
async fn what_was_asked_of_somebody_before_an_inner_limiter_denied_it_stays_charged() {
    for (first, left) in [(Settlement::AtLeast(30), 900), (Settlement::NotServed, 1000)] {
        let requests = limiter([Limit::requests_per_minute(10)]);
        let tokens = limiter([Limit::tokens_per_minute(1000)]);
        let denying = RateLimitLayer::new(limiter([Limit::requests_per_minute(0)])).layer(service_fn(echo));
        let failover = service_fn(async |request: Request<()>| {
            // One was asked and has failed; the other stands in.
            request.extensions().get::<ReservationHandle>().unwrap().settle_attempt(first);
            let mut response = denying.clone().oneshot(request).await?;
            response.extensions_mut().insert(Attempted);
            Ok::<_, Infallible>(response)
        });
        let layer = RateLimitLayer::new(tokens.clone()).if_unsettled(Settlement::NotServed);
        let layer = layer.usage_meter(ByBytes::default());
        let service = RateLimitLayer::new(requests.clone()).layer(layer.layer(failover));
        let denied = service.oneshot(estimated(100)).await.unwrap();
        assert_eq!(denied.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(denied.headers().get_all("ratelimit").iter().count(), 1, "only who denied is told of");
        drop(denied);
        assert_eq!((remaining(&requests), remaining(&tokens)), (9, left), "{first:?}");
    }
}

#[tokio::test]
async fn what_nobody_settles_can_cost_nothing() {
    let limiter = limiter([Limit::tokens_per_minute(1000)]);
    let layer = RateLimitLayer::new(limiter.clone()).if_unsettled(Settlement::NotServed);
    let redirected = layer.layer(service_fn(echo)).oneshot(estimated(100)).await.unwrap();
    assert_eq!(remaining(&limiter), 900);
    drop(redirected);
    assert_eq!(remaining(&limiter), 1000);
    let mut silent =
        layer.layer(service_fn(|_: Request<()>| pending::<Result<Response<Full<Bytes>>, Infallible>>()));
    let given_up = silent.call(estimated(100));
    assert_eq!(remaining(&limiter), 900);
    drop(given_up);
    assert_eq!(remaining(&limiter), 1000);
}

#[tokio::test]
async fn what_was_used_of_an_answer_that_is_broken_off_around_its_meter_stays_charged() {
    let limiter = limiter([Limit::tokens_per_minute(1000)]);
    let layer = RateLimitLayer::new(limiter.clone()).if_unsettled(Settlement::NotServed);
    let service = layer.layer(service_fn(async |request: Request<()>| {
        let handle = request.extensions().get::<ReservationHandle>().unwrap().clone();
        Ok::<_, Infallible>(Response::new(Limited::new(Metered(handle), 0)))
    }));
    let mut body = service.oneshot(estimated(600)).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap_err();
    assert_eq!(remaining(&limiter), 877);
}

//! The Layer around services.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::body::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use nantian_ratelimit::{
    Cost, Decision, Denied, EstimatedTokens, InvalidPolicy, KeyExtractor, Limit, Limiter, MissingKey,
    Observer, OnLimit, Policy, RateLimitLayer, ReservationHandle, ScopePart, ScopeValues, Settled,
    Settlement, clock::ManualClock, respond::Refusal,
};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_test::mock;

use crate::admit::limiter;

/// Counts what it is told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn entries(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn add(&self, entry: impl Into<String>) {
        self.0.lock().unwrap().push(entry.into());
    }
}

impl Observer for Log {
    fn decided(&self, decision: &Decision<'_>) {
        self.add(match decision {
            Decision::Admitted(_) => "admitted".to_owned(),
            Decision::Denied(denied) => format!("denied by {}", denied.limit().name()),
            Decision::Warned(denied) => format!("warned by {}", denied.limit().name()),
            _ => "exempt".to_owned(),
        });
    }

    fn settled(&self, settled: &Settled) {
        self.add(format!("settled {} of {}", settled.used, settled.reserved));
    }
}

fn get() -> Request<()> {
    Request::new(())
}

pub(crate) fn estimated(tokens: u64) -> Request<()> {
    Request::builder().extension(EstimatedTokens(tokens)).body(()).unwrap()
}

pub(crate) fn echo(request: Request<()>) -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
    let body = request.uri().to_string();
    ready(Ok(Response::new(Full::from(body))))
}

pub(crate) fn remaining(limiter: &Limiter) -> u64 {
    let mut hasher = limiter.hasher();
    hasher.part(&ScopePart::Route, None);
    let levels = limiter.levels(hasher.finish());
    levels.tightest().unwrap().remaining
}

#[tokio::test]
async fn denied_request_does_not_reach_inner() {
    let limiter = limiter([Limit::requests_per_minute(2)]);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let service = RateLimitLayer::new(limiter).layer(service_fn(move |request: Request<()>| {
        counted.fetch_add(1, Ordering::Relaxed);
        echo(request)
    }));
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(service.clone().oneshot(get()).await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 429, 429]);
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_router_is_limited_in_one_line() {
    use axum::{Router, body::Body, routing};

    let policy = Policy::builder().limit(Limit::requests_per_minute(1)).build().unwrap();
    let app = Router::new()
        .route("/", routing::get(|| async { "hello" }))
        .layer(RateLimitLayer::new(Limiter::new(policy)));
    let get = || Request::get("/").body(Body::empty()).unwrap();
    let served = app.clone().oneshot(get()).await.unwrap();
    assert_eq!(served.into_body().collect().await.unwrap().to_bytes(), "hello");
    let refused = app.oneshot(get()).await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let body = refused.into_body().collect().await.unwrap().to_bytes();
    assert!(
        body.starts_with(b"{\"type\":\"https://iana.org/assignments/http-problem-types#quota-exceeded\"")
    );
}

#[tokio::test]
async fn a_policy_that_warns_refuses_nobody_and_is_counted() {
    let policy = Policy::builder().limit(Limit::requests_per_minute(1)).on_limit(OnLimit::Warn);
    let log = Log::default();
    let layer = RateLimitLayer::new(Limiter::new(policy.build().unwrap())).observer(log.clone());
    let service = layer.layer(service_fn(echo));
    for _ in 0..2 {
        let response = service.clone().oneshot(get()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(log.entries(), ["admitted", "warned by requests-per-minute"]);
}

#[tokio::test]
async fn readiness_is_that_of_the_inner_service_and_takes_no_token() {
    let limiter = limiter([Limit::requests_per_minute(1)]);
    let layer = RateLimitLayer::new(limiter.clone());
    let (mut mock, mut handle) =
        mock::spawn_with(|inner: mock::Mock<Request<()>, Response<Full<Bytes>>>| layer.layer(inner));
    handle.allow(0);
    assert!(mock.poll_ready().is_pending());
    handle.allow(1);
    for _ in 0..5 {
        assert!(mock.poll_ready().is_ready());
    }
    assert_eq!(remaining(&limiter), 1);
}

#[tokio::test]
async fn requests_of_different_routes_do_not_share_a_bucket() {
    let limiter = limiter([Limit::requests_per_minute(1)]);
    let layer =
        |route| RateLimitLayer::new(limiter.clone()).key_extractor(ScopeValues::new().with_route(route));
    for route in ["a", "b"] {
        let service = layer(route).layer(service_fn(echo));
        assert_eq!(service.clone().oneshot(get()).await.unwrap().status(), 200);
        assert_eq!(service.oneshot(get()).await.unwrap().status(), 429);
    }
}

#[tokio::test]
async fn reported_usage_settles_the_reservation_once() {
    let limiter = limiter([Limit::tokens_per_minute(1000)]);
    let log = Log::default();
    let layer = RateLimitLayer::new(limiter.clone()).observer(log.clone());
    let service = layer.layer(service_fn(|request: Request<()>| {
        let handle = request.extensions().get::<ReservationHandle>().unwrap().clone();
        assert_eq!(handle.reserved_tokens(), 600);
        handle.settle(Settlement::Used(250));
        handle.clone().settle(Settlement::Used(999));
        echo(request)
    }));
    let response = service.oneshot(estimated(600)).await.unwrap();
    response.into_body().collect().await.unwrap();
    assert_eq!(remaining(&limiter), 750);
    assert_eq!(log.entries(), ["admitted", "settled 250 of 600"]);
}

#[tokio::test]
async fn a_response_that_nobody_settled_costs_what_was_reserved_when_its_body_ends() {
    let limiter = limiter([Limit::tokens_per_minute(1000)]);
    let log = Log::default();
    let service = RateLimitLayer::new(limiter.clone()).observer(log.clone()).layer(service_fn(echo));
    let response = service.oneshot(estimated(600)).await.unwrap();
    assert_eq!(log.entries(), ["admitted"]);
    response.into_body().collect().await.unwrap();
    assert_eq!(log.entries(), ["admitted", "settled 600 of 600"]);
    assert_eq!(remaining(&limiter), 400);
}

#[tokio::test]
async fn a_server_error_refunds_the_tokens_unless_it_is_a_timeout() {
    for (status, left) in [
        (StatusCode::INTERNAL_SERVER_ERROR, 1000),
        (StatusCode::BAD_GATEWAY, 1000),
        (StatusCode::SERVICE_UNAVAILABLE, 1000),
        (StatusCode::GATEWAY_TIMEOUT, 400),
    ] {
        let limiter = limiter([Limit::tokens_per_minute(1000)]);
        let service = RateLimitLayer::new(limiter.clone()).layer(service_fn(move |_: Request<()>| {
            let mut response = Response::new(Full::from("broken"));
            *response.status_mut() = status;
            ready(Ok::<Response<Full<Bytes>>, Infallible>(response))
        }));
        let response = service.oneshot(estimated(600)).await.unwrap();
        response.into_body().collect().await.unwrap();
        assert_eq!(remaining(&limiter), left, "{status}");
    }
}

#[tokio::test]
async fn a_failed_call_costs_what_was_reserved_unless_somebody_knows_that_nothing_was_sent() {
    for (error, left) in [("timed out", 400), ("connection refused", 1000)] {
        let limiter = limiter([Limit::tokens_per_minute(1000)]);
        let service = RateLimitLayer::new(limiter.clone()).layer(service_fn(move |request: Request<()>| {
            if error == "connection refused" {
                let handle = request.extensions().get::<ReservationHandle>().unwrap();
                handle.settle(Settlement::NotServed);
            }
            ready(Err::<Response<Full<Bytes>>, _>(error))
        }));
        assert_eq!(service.oneshot(estimated(600)).await.unwrap_err(), error);
        assert_eq!(remaining(&limiter), left, "{error}");
    }
}

#[tokio::test]
async fn a_request_given_up_before_its_response_costs_what_was_reserved() {
    let limiter = limiter([Limit::tokens_per_minute(1000)]);
    let log = Log::default();
    let layer = RateLimitLayer::new(limiter.clone()).observer(log.clone());
    let mut service = layer.layer(service_fn(|_: Request<()>| {
        std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()
    }));
    drop(service.call(estimated(600)));
    assert_eq!(remaining(&limiter), 400);
    assert_eq!(log.entries(), ["admitted", "settled 600 of 600"]);
}

/// A body that settles when it is dropped, as a usage meter does when a client goes away in mid-stream.
pub(crate) struct Metered(pub(crate) ReservationHandle);

impl Drop for Metered {
    fn drop(&mut self) {
        self.0.settle(Settlement::Used(123));
    }
}

impl http_body::Body for Metered {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(b"chunk")))))
    }
}

#[tokio::test]
async fn a_meter_inside_settles_even_if_it_is_dropped_with_the_body() {
    let limiter = limiter([Limit::tokens_per_minute(1000)]);
    let service = RateLimitLayer::new(limiter.clone()).layer(service_fn(|request: Request<()>| {
        let handle = request.extensions().get::<ReservationHandle>().unwrap().clone();
        ready(Ok::<_, Infallible>(Response::new(Metered(handle))))
    }));
    let mut body = service.oneshot(estimated(600)).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(remaining(&limiter), 877);
}

#[tokio::test]
async fn bodies_keep_their_size_and_trailers() {
    use http_body::Body as _;

    let limiter = limiter([Limit::requests_per_minute(1)]);
    let service = RateLimitLayer::new(limiter).layer(service_fn(|_: Request<()>| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let body = Full::new(Bytes::from("12345")).with_trailers(ready(Some(Ok(trailers))));
        ready(Ok::<_, Infallible>(Response::new(body)))
    }));
    let body = service.clone().oneshot(get()).await.unwrap().into_body();
    let trailers = body.collect().await.unwrap().trailers().unwrap().clone();
    assert_eq!(trailers["grpc-status"], "0");
    let refused = service.oneshot(get()).await.unwrap().into_body();
    let announced = refused.size_hint().exact().unwrap();
    assert!(!refused.is_end_stream());
    let collected = refused.collect().await.unwrap().to_bytes();
    assert_eq!(announced, collected.len() as u64);
}

#[tokio::test]
async fn what_an_inner_limiter_denies_costs_nothing_on_the_outer_one() {
    let outer = limiter([Limit::requests_per_minute(10), Limit::tokens_per_minute(1000)]);
    let inner = limiter([Limit::tokens_per_hour(500)]);
    let service =
        RateLimitLayer::new(outer.clone()).layer(RateLimitLayer::new(inner).layer(service_fn(echo)));
    let served = service.clone().oneshot(estimated(500)).await.unwrap();
    served.into_body().collect().await.unwrap();
    let denied = service.oneshot(estimated(500)).await.unwrap();
    assert_eq!(denied.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(denied.extensions().get::<Denied>().unwrap().limit().name().as_str(), "tokens-per-hour");
    let mut hasher = outer.hasher();
    hasher.part(&ScopePart::Route, None);
    let levels = outer.levels(hasher.finish());
    let left: Vec<u64> = levels.iter().map(|level| level.remaining).collect();
    assert_eq!(left, [9, 500]);
}

#[tokio::test]
async fn usage_settles_the_reservations_of_all_limiters_around() {
    let [outer, inner] = [1000, 2000].map(|max| limiter([Limit::tokens_per_minute(max)]));
    let meter = service_fn(|request: Request<()>| {
        let handle = request.extensions().get::<ReservationHandle>().unwrap();
        handle.settle(Settlement::Used(10));
        echo(request)
    });
    let service = RateLimitLayer::new(outer.clone()).layer(RateLimitLayer::new(inner.clone()).layer(meter));
    let response = service.oneshot(estimated(600)).await.unwrap();
    response.into_body().collect().await.unwrap();
    assert_eq!([remaining(&outer), remaining(&inner)], [990, 1990]);
}

#[tokio::test]
async fn each_policy_counts_what_was_cached_by_its_own_weight() {
    let policy = |weight| {
        let policy = Policy::builder().limit(Limit::tokens_per_minute(1000)).cached_token_weight(weight);
        policy.build().unwrap()
    };
    let limiters = [1.0, 0.25, 0.0].map(|weight| Limiter::new(policy(weight)));
    let inner = service_fn(|request: Request<()>| {
        let handle: &ReservationHandle = request.extensions().get().unwrap();
        handle.settle(Settlement::Used(500).with_cached(400));
        echo(request)
    });
    let [whole, quarter, free] = limiters.each_ref().map(|limiter| RateLimitLayer::new(limiter.clone()));
    whole.layer(quarter.layer(free.layer(inner))).oneshot(estimated(600)).await.unwrap();
    assert_eq!(limiters.each_ref().map(remaining), [500, 800, 900]);
}

#[test]
fn a_weight_beyond_one_is_refused() {
    for weight in [-0.1, 1.1, f64::NAN] {
        let policy = Policy::builder().limit(Limit::tokens_per_minute(1)).cached_token_weight(weight);
        assert!(matches!(policy.build(), Err(InvalidPolicy::CachedTokenWeight(_))), "{weight}");
    }
}

#[tokio::test]
async fn a_failed_attempt_settles_what_was_reserved_for_it_alone() {
    let [request, attempt] = [(); 2].map(|()| limiter([Limit::tokens_per_minute(1000)]));
    let failing = service_fn(|request: Request<()>| {
        let handle = request.extensions().get::<ReservationHandle>().unwrap();
        handle.settle_attempt(Settlement::NotServed);
        handle.settle_attempt(Settlement::Used(7));
        ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("busy"))))
    });
    let attempts = RateLimitLayer::new(attempt.clone()).of_attempt(true).layer(failing);
    let service = RateLimitLayer::new(request.clone()).layer(attempts);
    let response = service.oneshot(estimated(100)).await.unwrap();
    assert_eq!(remaining(&attempt), 1000);
    assert_eq!(remaining(&request), 900, "another attempt may serve it");
    drop(response);
    assert_eq!((remaining(&request), remaining(&attempt)), (900, 1000));
}

#[tokio::test]
async fn what_is_reserved_around_a_limiter_of_requests_is_told_within_it() {
    let [outer, inner] =
        [limiter([Limit::tokens_per_minute(1000)]), limiter([Limit::requests_per_minute(10)])];
    let service = RateLimitLayer::new(inner).layer(service_fn(|request: Request<()>| {
        assert_eq!(request.extensions().get::<ReservationHandle>().unwrap().reserved_tokens(), 100);
        echo(request)
    }));
    let service = RateLimitLayer::new(outer.clone()).layer(service);
    service.oneshot(estimated(100)).await.unwrap();
    assert_eq!(remaining(&outer), 900);
}

#[tokio::test]
async fn without_an_estimate_what_is_typical_is_reserved() {
    let limiter = limiter([Limit::tokens_per_minute(1000)]);
    let used = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&used);
    let service = RateLimitLayer::new(limiter).layer(service_fn(move |request: Request<()>| {
        let handle = request.extensions().get::<ReservationHandle>().unwrap();
        seen.lock().unwrap().push(handle.reserved_tokens());
        handle.settle(Settlement::Used(100));
        echo(request)
    }));
    for _ in 0..2 {
        let request = Request::builder().header("content-length", "200").body(()).unwrap();
        service.clone().oneshot(request).await.unwrap();
    }
    assert_eq!(*used.lock().unwrap(), [50, 100]);
}

#[tokio::test]
async fn extractor_estimator_and_responder_can_be_replaced() {
    let limiter = limiter([Limit::requests_per_minute(10)]);
    let layer = RateLimitLayer::new(limiter)
        .cost_estimator(|request: &http::request::Parts, _: u64| {
            let requests = if request.method == Method::POST { 10 } else { 1 };
            Cost::new(requests, 0)
        })
        .responder(|refusal: Refusal<'_>, _: &http::request::Parts| {
            let mut response = Response::new(Bytes::from(refusal.to_string()));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        });
    let service = layer.layer(service_fn(echo));
    service.clone().oneshot(get()).await.unwrap();
    let post = Request::builder().method(Method::POST).body(()).unwrap();
    let refused = service.oneshot(post).await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["retry-after"], "6");
}

/// Compiles only if services need nothing of their inner services, futures and bodies that they do not have.
#[test]
fn what_is_not_send_can_be_limited_and_what_is_send_stays_send() {
    fn assert_send<T: Send>(value: T) -> T {
        value
    }
    let layer = RateLimitLayer::new(limiter([Limit::requests_per_minute(1)]));
    let local = std::rc::Rc::new(());
    let mut service = layer.layer(service_fn(move |_: Request<()>| {
        let local = std::rc::Rc::clone(&local);
        async move {
            drop(local);
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
        }
    }));
    drop(service.call(get()));
    let mut service = assert_send(layer.layer(service_fn(echo)));
    drop(assert_send(service.call(get())));
}

#[tokio::test]
async fn a_request_that_an_inner_limit_knows_no_key_of_costs_nothing_around_it() {
    let outer = limiter([Limit::requests_per_minute(10)]);
    let inner = Policy::builder()
        .limit(Limit::requests_per_minute(10))
        .scope("apiKey".parse().unwrap())
        .missing_key(MissingKey::Reject)
        .build()
        .unwrap();
    let inner = RateLimitLayer::new(Limiter::new(inner)).layer(service_fn(echo));
    let service = RateLimitLayer::new(outer.clone()).layer(inner);
    for _ in 0..20 {
        assert_eq!(service.clone().oneshot(get()).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(outer.live_keys(), 0);
}

#[tokio::test]
async fn the_layer_can_be_told_how_to_find_clients_addresses() {
    let policy = Policy::builder().limit(Limit::requests_per_minute(1)).scope(ScopePart::Ip.into());
    let limiter = Limiter::new(policy.build().unwrap());
    // What the extractor would say is the same for all.
    let values = ScopeValues::new().with_client("192.0.2.1".parse().unwrap());
    let layer = RateLimitLayer::new(limiter).client_ip(|_, extensions| extensions.get::<IpAddr>().copied());
    let service = layer.key_extractor(values).layer(service_fn(echo));
    let from =
        |client: &str| Request::builder().extension::<IpAddr>(client.parse().unwrap()).body(()).unwrap();
    let mut statuses = Vec::new();
    for request in [from("192.0.2.1"), from("192.0.2.2"), from("::ffff:192.0.2.1"), get(), get()] {
        statuses.push(service.clone().oneshot(request).await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 429, 200, 429], "who has no address shares a bucket");
}

#[tokio::test]
async fn what_a_layer_is_given_may_be_shared() {
    let log = Arc::new(Log::default());
    let extractor: Arc<dyn KeyExtractor> = Arc::new(ScopeValues::new().with_route("shop"));
    let clock = Arc::new(ManualClock::new());
    let policy = Policy::builder().limit(Limit::requests_per_minute(1)).build().unwrap();
    let limiter = Limiter::builder(policy).clock(Arc::clone(&clock)).build();
    let layer = RateLimitLayer::new(limiter.clone());
    let layer = layer.observer(Arc::clone(&log)).key_extractor(Arc::clone(&extractor));
    let mut service = layer.layer(service_fn(echo));
    assert_eq!(service.clone().oneshot(get()).await.unwrap().status(), StatusCode::OK);
    assert_eq!(log.entries(), ["admitted"]);
    let (request, ()) = get().into_parts();
    let key = limiter.key_of(&*extractor, &request).unwrap().unwrap();
    assert!(limiter.admit(key, Cost::REQUEST).is_err());
    clock.advance(std::time::Duration::from_secs(60));
    assert!(limiter.admit(key, Cost::REQUEST).is_ok());
    let inner = *service.get_ref();
    *service.get_mut() = inner;
    assert_eq!(service.into_inner().oneshot(get()).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_layer_around_can_answer_with_no_body() {
    let body = nantian_ratelimit::body::ResponseBody::<Full<Bytes>>::default();
    assert!(http_body::Body::is_end_stream(&body));
    assert_eq!(body.collect().await.unwrap().to_bytes(), "");
}

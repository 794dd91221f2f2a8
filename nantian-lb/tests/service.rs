//! The balancer as a tower service: where requests go, and how long they are counted.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::convert::Infallible;
use std::future::{Ready, pending, ready};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use nantian_lb::clock::ManualClock;
use nantian_lb::health::{Health, OutlierConfig};
use nantian_lb::{
    AttemptTimeout, BalanceConfig, BalanceLayer, Balancer, ClientAddr, Endpoint, HashKey, PickContext,
    PickError, Routed, Strategy, UpgradeGuard,
};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_test::mock;

type Asked = Routed<&'static str, Request<()>>;

fn balancer(config: &BalanceConfig) -> Balancer<&'static str> {
    Balancer::new(["a", "b"].map(|id| Endpoint::new(id, id)), config)
}

fn in_flight(balancer: &Balancer<&'static str>) -> usize {
    balancer.status().iter().map(|status| status.in_flight).sum()
}

/// The reply of an upstream that names the endpoint that was asked.
fn echo(asked: Asked) -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
    ready(Ok(Response::new(Full::from(asked.target))))
}

/// The reply of a balanced upstream that always gives this response.
async fn reply<B: Body>(
    balancer: &Balancer<&'static str>,
    request: Request<()>,
    response: Response<B>,
) -> Response<nantian_lb::body::ResponseBody<B>> {
    let mut response = Some(response);
    let upstream = service_fn(move |_: Asked| ready(Ok::<_, Infallible>(response.take().unwrap())));
    let client = BalanceLayer::new(balancer.clone()).layer(upstream);
    client.oneshot(request).await.unwrap()
}

fn frames<const N: usize>(
    frames: [Result<Frame<Bytes>, &'static str>; N],
) -> UnsyncBoxBody<Bytes, &'static str> {
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

fn data(text: &'static str) -> Result<Frame<Bytes>, &'static str> {
    Ok(Frame::data(Bytes::from(text)))
}

async fn text<B: Body<Error: std::fmt::Debug>>(response: Response<B>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn requests_are_sent_to_the_endpoints_in_turn() {
    let mut client = BalanceLayer::new(balancer(&BalanceConfig::default())).layer(service_fn(echo));
    let directly = client.get_mut().call(Routed::new("a", Request::new(()))).await.unwrap();
    assert_eq!(text(directly).await, "a");
    let mut asked = Vec::new();
    for _ in 0..4 {
        asked.push(text(client.clone().oneshot(Request::new(())).await.unwrap()).await);
    }
    assert_ne!(asked[0], asked[1]);
    assert_eq!(asked[..2], asked[2..]);
}

#[tokio::test]
async fn the_request_reaches_the_upstream_as_it_came() {
    let upstream = service_fn(async |routed: Routed<&str, Request<&str>>| {
        let request = routed.request;
        assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/cart"));
        assert_eq!(request.headers()["x-user"], "alice");
        assert_eq!(*request.body(), "body");
        Ok::<_, Infallible>(Response::new(String::new()))
    });
    let client = BalanceLayer::new(balancer(&BalanceConfig::default())).layer(upstream);
    let request = Request::post("/cart").header("x-user", "alice").body("body").unwrap();
    assert_eq!(client.oneshot(request).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_request_is_counted_while_the_upstream_works_on_it() {
    let balancer = balancer(&BalanceConfig::default());
    let (client, mut upstream) = mock::pair::<Asked, Response<String>>();
    let mut client = BalanceLayer::new(balancer.clone()).layer(client);
    let response = client.ready().await.unwrap().call(Request::new(()));
    let (asked, reply) = upstream.next_request().await.unwrap();
    let counted = balancer.status().into_iter().find(|status| status.in_flight == 1);
    assert_eq!(counted.unwrap().target, asked.target);

    reply.send_response(Response::new("body".into()));
    let response = response.await.unwrap();
    assert_eq!(in_flight(&balancer), 1, "the body has yet to be read");
    assert_eq!(text(response).await, "body");
    assert_eq!(in_flight(&balancer), 0);
}

#[tokio::test]
async fn dropping_the_future_ends_the_count() {
    let balancer = balancer(&BalanceConfig::default());
    let upstream = service_fn(|_: Asked| pending::<Result<Response<String>, Infallible>>());
    let mut client = BalanceLayer::new(balancer.clone()).layer(upstream);
    let mut response = client.call(Request::new(()));
    assert!((&mut response).now_or_never().is_none());
    assert_eq!(in_flight(&balancer), 1);
    drop(response);
    assert_eq!(in_flight(&balancer), 0);
}

#[test]
fn who_answers_nobody_in_time_is_left_out_and_who_is_left_by_its_clients_is_not() {
    for (is_late, expected) in [(true, Health::Ejected), (false, Health::Healthy)] {
        let config = BalanceConfig::default().with_outlier(OutlierConfig::new());
        let balancer = Balancer::new([Endpoint::new("silent", "silent")], &config);
        let silent = service_fn(|_: Asked| pending::<Result<Response<String>, Infallible>>());
        let mut client = BalanceLayer::new(balancer.clone()).layer(silent);
        for _ in 0..5 {
            let (timeout, mut request) = (AttemptTimeout::new(), Request::new(()));
            request.extensions_mut().insert(timeout.clone());
            let response = client.call(request);
            if is_late {
                timeout.expire();
            }
            drop(response);
        }
        let status = &balancer.status()[0];
        assert_eq!((status.health, status.in_flight), (expected, 0));
    }
}

#[test]
fn who_keeps_requests_until_they_are_given_up_is_left_out() {
    const LIMIT: Duration = Duration::from_secs(10);
    for (waited, expected) in [(LIMIT, Health::Ejected), (LIMIT / 2, Health::Healthy)] {
        let config = BalanceConfig::default().with_outlier(OutlierConfig::new());
        let clock = ManualClock::new();
        let silent = [Endpoint::new("silent", "silent")];
        let balancer = Balancer::with_clock(silent, &config, clock.clone());
        let service = service_fn(|_: Asked| pending::<Result<Response<String>, Infallible>>());
        let mut client = BalanceLayer::new(balancer.clone()).blame_after(LIMIT).layer(service);
        for _ in 0..5 {
            let response = client.call(Request::new(()));
            clock.advance(waited);
            drop(response);
        }
        assert_eq!(balancer.status()[0].health, expected);
    }
}

#[tokio::test]
async fn an_error_of_the_upstream_is_passed_on_and_ends_the_count() {
    let balancer = balancer(&BalanceConfig::default());
    let upstream = service_fn(|_: Asked| ready(Err::<Response<String>, _>("refused")));
    let client = BalanceLayer::new(balancer.clone()).layer(upstream);
    assert_eq!(client.oneshot(Request::new(())).await.unwrap_err(), "refused");
    assert_eq!(in_flight(&balancer), 0);
}

#[tokio::test]
async fn dropping_the_body_half_read_ends_the_count() {
    let balancer = balancer(&BalanceConfig::default());
    let body = frames([data("one"), data("two")]);
    let mut response = reply(&balancer, Request::new(()), Response::new(body)).await;
    response.frame().await.unwrap().unwrap();
    assert_eq!(in_flight(&balancer), 1);
    drop(response);
    assert_eq!(in_flight(&balancer), 0);
}

#[tokio::test]
async fn a_body_that_breaks_ends_the_count() {
    let balancer = balancer(&BalanceConfig::default());
    let body = frames([data("one"), Err("reset")]);
    let mut response = reply(&balancer, Request::new(()), Response::new(body)).await;
    response.frame().await.unwrap().unwrap();
    assert_eq!(in_flight(&balancer), 1);
    assert_eq!(response.frame().await.unwrap().unwrap_err(), "reset");
    assert_eq!(in_flight(&balancer), 0);
}

#[tokio::test]
async fn data_trailers_and_the_end_are_passed_on_and_then_the_count_ends() {
    let balancer = balancer(&BalanceConfig::default());
    let trailers = HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("x"))]);
    let body = frames([data("one"), Ok(Frame::trailers(trailers.clone()))]);
    let mut response = reply(&balancer, Request::new(()), Response::new(body)).await;
    let first = response.frame().await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "one");
    let last = response.frame().await.unwrap().unwrap();
    assert_eq!(last.into_trailers().unwrap(), trailers);
    assert_eq!(in_flight(&balancer), 1);
    assert!(response.frame().await.is_none());
    assert_eq!(in_flight(&balancer), 0);
}

#[tokio::test]
async fn the_size_of_the_body_is_that_of_the_upstream() {
    let balancer = balancer(&BalanceConfig::default());
    let response = reply(&balancer, Request::new(()), Response::new(Full::<Bytes>::from("four"))).await;
    assert_eq!(response.body().size_hint().exact(), Some(4));
    assert!(!response.body().is_end_stream());
}

#[tokio::test]
async fn a_body_known_to_have_ended_is_not_waited_for() {
    let balancer = balancer(&BalanceConfig::default());
    let empty = reply(&balancer, Request::new(()), Response::new(String::new())).await;
    assert!(empty.body().is_end_stream());
    assert_eq!(in_flight(&balancer), 0);

    let mut last = reply(&balancer, Request::new(()), Response::new(Full::<Bytes>::from("all"))).await;
    last.frame().await.unwrap().unwrap();
    assert_eq!(in_flight(&balancer), 0, "the only frame has been read");
}

#[tokio::test]
async fn an_upgraded_connection_is_counted_until_it_is_closed() {
    let balancer = balancer(&BalanceConfig::default());
    let switched = || Response::builder().status(101).body(String::new()).unwrap();
    let connect = || Request::connect("shop.example:443").body(()).unwrap();
    for (request, response) in [(Request::new(()), switched()), (connect(), Response::new(String::new()))] {
        let mut response = reply(&balancer, request, response).await;
        let guard = response.extensions_mut().remove::<UpgradeGuard>().unwrap();
        drop(response);
        assert_eq!(in_flight(&balancer), 1);
        let clone = guard.clone();
        drop(guard);
        assert!(["a", "b"].contains(&clone.endpoint().as_str()));
        assert_eq!(in_flight(&balancer), 1);
        drop(clone);
        assert_eq!(in_flight(&balancer), 0);
    }
    let refused = Response::builder().status(403).body(String::new()).unwrap();
    let refused = reply(&balancer, connect(), refused).await;
    assert!(refused.extensions().get::<UpgradeGuard>().is_none());
}

#[tokio::test]
async fn without_an_endpoint_the_upstream_is_not_asked() {
    let balancer = Balancer::<&str>::new([], &BalanceConfig::default());
    let (client, mut upstream) = mock::pair::<Asked, Response<String>>();
    let mut client = BalanceLayer::new(balancer).layer(client);
    let response = client.ready().await.unwrap().call(Request::new(())).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(text(response).await, "");
    drop(client);
    assert!(upstream.next_request().await.is_none());
}

#[tokio::test]
async fn a_refusal_can_be_told_from_a_503_of_an_endpoint() {
    let unavailable = || Response::builder().status(503).body(String::new()).unwrap();
    let theirs = reply(&balancer(&BalanceConfig::default()), Request::new(()), unavailable()).await;
    assert_eq!(theirs.extensions().get::<PickError>(), None);

    let empty = Balancer::new([], &BalanceConfig::default());
    let ours = reply(&empty, Request::new(()), unavailable()).await;
    assert_eq!(ours.extensions().get(), Some(&PickError::NoEndpoints));
}

#[tokio::test]
async fn a_client_of_grpc_is_refused_in_grpc() {
    let empty = Balancer::new([], &BalanceConfig::default());
    for content_type in ["application/grpc", "application/grpc+proto", "application/grpc; x=y"] {
        let request = Request::post("/shop.Cart/Add").header("content-type", content_type).body(()).unwrap();
        let refusal = reply(&empty, request, Response::new(String::new())).await;
        assert_eq!(refusal.status(), StatusCode::OK);
        assert_eq!(refusal.headers()["content-type"], "application/grpc");
        assert_eq!(refusal.headers()["grpc-status"], "14");
        assert!(refusal.body().is_end_stream());
    }
    for content_type in ["application/grpc-web", "application/json"] {
        let request = Request::post("/").header("content-type", content_type).body(()).unwrap();
        let refusal = reply(&empty, request, Response::new(String::new())).await;
        assert_eq!(refusal.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}

#[tokio::test]
async fn an_error_that_is_not_the_endpoints_does_not_speak_against_it() {
    for (error, expected) in [("the client left", Health::Healthy), ("reset", Health::Ejected)] {
        let config = BalanceConfig::default().with_outlier(OutlierConfig::new());
        let balancer = Balancer::new([Endpoint::new("a", "a")], &config);
        let layer = BalanceLayer::new(balancer.clone()).blame(|error: &&str| *error == "reset");
        let client = layer.layer(service_fn(move |_: Asked| ready(Err::<Response<String>, _>(error))));
        for _ in 0..5 {
            client.clone().oneshot(Request::new(())).await.unwrap_err();
        }
        assert_eq!(balancer.status()[0].health, expected, "{error}");
    }
}

#[tokio::test]
async fn a_layer_around_can_answer_with_no_body() {
    let body = nantian_lb::body::ResponseBody::<Full<Bytes>>::default();
    assert!(body.is_end_stream());
    assert_eq!(body.collect().await.unwrap().to_bytes(), "");
}

#[tokio::test]
async fn the_embedder_decides_how_a_refusal_looks() {
    let config = BalanceConfig::default().with_max_inflight_requests(NonZeroU32::MIN);
    let balancer = balancer(&config);
    let respond = |error: &PickError, request: &Parts| {
        let mut response = Response::new(Bytes::from(format!("{}: {error}", request.uri)));
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        response
    };
    let client = BalanceLayer::new(balancer.clone()).responder(respond).layer(service_fn(echo));
    let held = [(); 2].map(|()| balancer.pick(&PickContext::new()).unwrap());
    let refusal = client.clone().oneshot(Request::new(())).await.unwrap();
    assert_eq!(refusal.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(text(refusal).await, "/: every endpoint is full, at 1 in flight");
    drop(held);
    assert_eq!(client.oneshot(Request::new(())).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn the_client_is_found_in_an_extension_or_by_the_rule_of_the_embedder() {
    let config = BalanceConfig::new(Strategy::ConsistentHash(HashKey::SourceIp));
    let endpoints = (0..50).map(|at| Endpoint::new(format!("pod-{at}"), &*format!("pod-{at}").leak()));
    let layer = BalanceLayer::new(Balancer::new(endpoints, &config));
    let trusting = layer.clone().client_ip(|headers: &HeaderMap, _: &Extensions| {
        headers.get("x-real-ip")?.to_str().ok()?.parse().ok()
    });
    let ip: IpAddr = "192.0.2.9".parse().unwrap();
    let mut asked = Vec::new();
    for _ in 0..20 {
        let request = Request::builder().extension(ClientAddr(ip)).body(()).unwrap();
        asked.push(text(layer.layer(service_fn(echo)).oneshot(request).await.unwrap()).await);
        let request = Request::builder().header("x-real-ip", "192.0.2.9").body(()).unwrap();
        asked.push(text(trusting.layer(service_fn(echo)).oneshot(request).await.unwrap()).await);
    }
    asked.dedup();
    assert_eq!(asked.len(), 1);
}

#[test]
fn readiness_is_that_of_the_upstream() {
    let (mut client, mut upstream) = mock::spawn_layer::<Asked, Response<String>, _>(BalanceLayer::new(
        balancer(&BalanceConfig::default()),
    ));
    upstream.allow(0);
    assert!(client.poll_ready::<Request<()>>().is_pending());
    upstream.allow(1);
    assert!(client.poll_ready::<Request<()>>().is_ready());
}

#[tokio::test]
async fn an_upstream_of_one_thread_can_be_balanced() {
    let upstream = service_fn(async |_: Asked| {
        let here = Rc::new(StatusCode::OK);
        tokio::task::yield_now().await;
        let mut response = Response::new(String::new());
        *response.status_mut() = *here;
        Ok::<_, Infallible>(response)
    });
    let client = BalanceLayer::new(balancer(&BalanceConfig::default())).layer(upstream);
    assert_eq!(client.oneshot(Request::new(())).await.unwrap().status(), StatusCode::OK);
}

#[test]
fn clients_of_many_threads_can_be_balanced() {
    fn check<T: Clone + Send + Sync>(_: &T) {}
    fn check_future<F: Future + Send>(_: F) {}
    let mut client = BalanceLayer::new(balancer(&BalanceConfig::default())).layer(service_fn(echo));
    check(&client);
    check_future(client.call(Request::new(())));
}

//! Meters of responses, and what they settle.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use bytes::{Buf, buf::Chain};
use http::{Request, Response, StatusCode, request, response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use nantian_ratelimit::{
    CachedSettlement, Limit, RateLimitLayer, ReservationHandle, ResponseEnd, ResponseMeter, Settlement,
    UsageMeter, UsedTokens,
};
use tower::{Layer, ServiceExt, service_fn};

use crate::admit::limiter;
use crate::layer::{estimated, remaining};

/// Tells what each response has shown, and takes a byte for a token.
#[derive(Clone, Default)]
pub(crate) struct ByBytes(Arc<Mutex<Vec<String>>>);

struct Seen {
    told: Arc<Mutex<Vec<String>>>,
    status: Option<StatusCode>,
    bytes: Vec<u8>,
}

impl ByBytes {
    fn told(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl UsageMeter for ByBytes {
    fn begin(&self, request: &request::Parts) -> Option<Box<dyn ResponseMeter>> {
        let told = Arc::clone(&self.0);
        (request.uri.path() != "/unmetered")
            .then(|| Box::new(Seen { told, status: None, bytes: Vec::new() }) as Box<dyn ResponseMeter>)
    }
}

impl ResponseMeter for Seen {
    fn head(&mut self, response: &response::Parts) {
        self.status = Some(response.status);
    }

    fn data(&mut self, data: &[u8]) {
        self.bytes.extend_from_slice(data);
    }

    fn end(self: Box<Self>, end: ResponseEnd) -> Option<CachedSettlement> {
        let status = self.status.map_or(0, |status| status.as_u16());
        let text = String::from_utf8(self.bytes).unwrap();
        let used = text.len() as u64;
        self.told.lock().unwrap().push(format!("{status} {text} {end:?}"));
        Some(match end {
            ResponseEnd::Complete => Settlement::Used(used).into(),
            _ => Settlement::AtLeast(used).into(),
        })
    }
}

fn twenty(_: Request<()>) -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
    ready(Ok(Response::new(Full::from("12345678901234567890"))))
}

/// Frames of two pieces each, which are not one in memory, and then the error, if there is one.
fn in_pieces(
    error: Option<io::Error>,
) -> Response<StreamBody<impl futures_util::Stream<Item = Result<Frame<Bytes>, io::Error>>>> {
    let frames = ["a", "bc", "", "def"].map(|text| Ok(Frame::data(Bytes::from(text))));
    Response::new(StreamBody::new(futures_util::stream::iter(frames.into_iter().chain(error.map(Err)))))
}

#[tokio::test]
async fn tokens_that_a_handler_reports_are_those_that_count() {
    let limiter = limiter([Limit::tokens_per_minute(1000)]);
    let service = RateLimitLayer::new(limiter.clone()).layer(service_fn(|request: Request<()>| {
        let mut response = Response::new(Full::<Bytes>::from("answer"));
        if request.uri().path() == "/reported" {
            response.extensions_mut().insert(UsedTokens(42));
        }
        ready(Ok::<_, Infallible>(response))
    }));
    let mut reported = estimated(600);
    *reported.uri_mut() = "/reported".parse().unwrap();
    drop(service.clone().oneshot(reported).await.unwrap());
    assert_eq!(remaining(&limiter), 958);
    drop(service.oneshot(estimated(600)).await.unwrap());
    assert_eq!(remaining(&limiter), 358);
}

#[tokio::test]
async fn a_meter_is_shown_head_and_body_and_settles_at_the_end() {
    let limiter = limiter([Limit::tokens_per_minute(1000)]);
    let meter = ByBytes::default();
    let layer = RateLimitLayer::new(limiter.clone()).usage_meter(meter.clone());
    let service = layer.layer(service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(in_pieces(None)))));
    let response = service.oneshot(estimated(600)).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "abcdef");
    assert_eq!(meter.told(), ["200 abcdef Complete"]);
    assert_eq!(remaining(&limiter), 994);
}

/// As hyper does with a body of a length that is known.
#[tokio::test]
async fn a_body_that_is_seen_to_be_at_its_end_need_not_be_asked_for_it() {
    let limiter = limiter([Limit::tokens_per_minute(1000)]);
    let meter = ByBytes::default();
    let layer = RateLimitLayer::new(limiter).usage_meter(meter.clone());
    let mut body = layer.layer(service_fn(twenty)).oneshot(estimated(600)).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    let empty = service_fn(|_: Request<()>| ready(Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))));
    drop(layer.layer(empty).oneshot(estimated(600)).await.unwrap());
    assert_eq!(meter.told(), ["200 12345678901234567890 Complete", "200  Complete"]);
}

#[tokio::test]
async fn a_meter_knows_a_failure_from_a_client_that_leaves() {
    let limiter = limiter([Limit::tokens_per_minute(1000)]);
    let meter = ByBytes::default();
    let layer = RateLimitLayer::new(limiter.clone()).usage_meter(meter.clone());
    let failing = || Some(io::Error::other("cut"));
    let cut = layer.layer(service_fn(move |_: Request<()>| ready(Ok::<_, Infallible>(in_pieces(failing())))));
    cut.clone().oneshot(estimated(100)).await.unwrap().into_body().collect().await.unwrap_err();
    let mut left = cut.oneshot(estimated(100)).await.unwrap().into_body();
    left.frame().await.unwrap().unwrap();
    drop(left);
    assert_eq!(meter.told(), ["200 abcdef Failed", "200 a Dropped"]);
    assert_eq!(remaining(&limiter), 800);
}

#[tokio::test]
async fn data_in_pieces_is_shown_whole() {
    let limiter = limiter([Limit::tokens_per_minute(1000)]);
    let meter = ByBytes::default();
    let layer = RateLimitLayer::new(limiter).usage_meter(meter.clone());
    let service = layer.layer(service_fn(|_: Request<()>| {
        let frame = Pieces(Bytes::from("ab").chain(Bytes::from("cd")));
        let frames = futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(frame))]);
        ready(Ok::<_, Infallible>(Response::new(StreamBody::new(frames))))
    }));
    let body = service.oneshot(estimated(1)).await.unwrap().into_body();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "abcd");
    assert_eq!(meter.told(), ["200 abcd Complete"]);
}

/// Data that is not one piece of memory.
struct Pieces(Chain<Bytes, Bytes>);

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.0.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.0.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.0.advance(count);
    }
}

impl From<Bytes> for Pieces {
    fn from(bytes: Bytes) -> Self {
        Self(bytes.chain(Bytes::new()))
    }
}

#[tokio::test]
async fn what_was_settled_before_holds() {
    let limiter = limiter([Limit::tokens_per_minute(1000)]);
    let layer = RateLimitLayer::new(limiter.clone()).usage_meter(ByBytes::default());
    let service = layer.layer(service_fn(|request: Request<()>| {
        request.extensions().get::<ReservationHandle>().unwrap().settle(Settlement::Used(300));
        twenty(request)
    }));
    service.oneshot(estimated(600)).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(remaining(&limiter), 700);
}

#[tokio::test]
async fn a_request_without_a_meter_counts_as_if_nobody_settled() {
    let limiter = limiter([Limit::tokens_per_minute(1000)]);
    let meter = ByBytes::default();
    let layer = RateLimitLayer::new(limiter.clone()).usage_meter(meter.clone());
    let mut request = estimated(600);
    *request.uri_mut() = "/unmetered".parse().unwrap();
    drop(layer.layer(service_fn(twenty)).oneshot(request).await.unwrap());
    assert_eq!(remaining(&limiter), 400);
    assert_eq!(meter.told(), [""; 0]);
}

#[tokio::test]
async fn limiters_around_are_settled_too_and_what_one_inside_denies_costs_them_nothing() {
    let (outer, inner) =
        (limiter([Limit::tokens_per_minute(1000)]), limiter([Limit::tokens_per_minute(500)]));
    let meter = ByBytes::default();
    let metered = RateLimitLayer::new(inner.clone()).usage_meter(meter.clone());
    let service = RateLimitLayer::new(outer.clone()).layer(metered.layer(service_fn(twenty)));
    let served = service.clone().oneshot(estimated(490)).await.unwrap();
    served.into_body().collect().await.unwrap();
    assert_eq!([&outer, &inner].map(remaining), [980, 480]);
    let denied = service.oneshot(estimated(490)).await.unwrap();
    assert_eq!(denied.status(), StatusCode::TOO_MANY_REQUESTS);
    drop(denied);
    assert_eq!([&outer, &inner].map(remaining), [980, 480]);
    assert_eq!(meter.told().len(), 1);
}

#[tokio::test]
async fn a_meter_of_an_outer_limiter_says_nothing_of_what_an_inner_one_denies() {
    let (outer, inner) = (limiter([Limit::tokens_per_minute(1000)]), limiter([Limit::tokens_per_minute(10)]));
    let meter = ByBytes::default();
    let metered = RateLimitLayer::new(outer.clone()).usage_meter(meter.clone());
    let service = metered.layer(RateLimitLayer::new(inner).layer(service_fn(twenty)));
    for _ in 0..2 {
        drop(service.clone().oneshot(estimated(10)).await.unwrap());
    }
    assert_eq!(remaining(&outer), 990);
    assert_eq!(meter.told(), ["200  Dropped"]);
}

#[tokio::test]
async fn a_meter_of_an_attempt_settles_only_that() {
    let (request, attempt) =
        (limiter([Limit::tokens_per_minute(1000)]), limiter([Limit::tokens_per_minute(1000)]));
    let of_attempt = RateLimitLayer::new(attempt.clone()).usage_meter(ByBytes::default()).of_attempt(true);
    let service = RateLimitLayer::new(request.clone()).layer(of_attempt.layer(service_fn(twenty)));
    let served = service.oneshot(estimated(600)).await.unwrap();
    served.into_body().collect().await.unwrap();
    assert_eq!([&request, &attempt].map(remaining), [400, 980]);
}

/// Says of every response that it was not served.
struct NotServed;

impl UsageMeter for NotServed {
    fn begin(&self, _: &request::Parts) -> Option<Box<dyn ResponseMeter>> {
        Some(Box::new(Self))
    }
}

impl ResponseMeter for NotServed {
    fn end(self: Box<Self>, _: ResponseEnd) -> Option<CachedSettlement> {
        Some(Settlement::NotServed.into())
    }
}

#[tokio::test]
async fn a_meter_of_the_last_attempt_makes_others_no_less() {
    for (first, left) in [(Settlement::AtLeast(30), 400), (Settlement::NotServed, 1000)] {
        let limiter = limiter([Limit::tokens_per_minute(1000)]);
        let layer = RateLimitLayer::new(limiter.clone()).usage_meter(NotServed);
        let service = layer.layer(service_fn(|request: Request<()>| {
            request.extensions().get::<ReservationHandle>().unwrap().settle_attempt(first);
            twenty(request)
        }));
        service.oneshot(estimated(600)).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(remaining(&limiter), left, "{first:?}");
    }
}

#[tokio::test]
async fn a_meter_is_not_asked_of_what_has_no_response() {
    let limiter = limiter([Limit::tokens_per_minute(1000)]);
    let layer = RateLimitLayer::new(limiter.clone()).usage_meter(NotServed);
    let failing = service_fn(|_: Request<()>| ready(Err::<Response<Full<Bytes>>, _>(io::Error::other("no"))));
    layer.layer(failing).oneshot(estimated(600)).await.unwrap_err();
    assert_eq!(remaining(&limiter), 400);
}

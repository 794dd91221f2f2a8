//! Models of a route that ask to be left alone for a while.

use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use nantian_ai::body::{RequestBody, ResponseBody};
use nantian_ai::retry::{BudgetPolicy, RetryPolicy};
use nantian_ai::route::{Choice, ModelRoute};
use nantian_ai::usage::Outcome;
use tokio::time::Instant;
use tower::{Layer as _, ServiceExt as _};

use crate::support::{Body, Upstream, json, layer, openai, post};
use crate::too_long::ask;

const ANSWER: &str =
    r#"{"choices":[{"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}"#;

/// A request for the first of two.
fn chat() -> Request<Full<Bytes>> {
    post("/v1/chat/completions", r#"{"model":"short","messages":[]}"#)
}

fn answer() -> Response<Body> {
    json(200, ANSWER)
}

/// A refusal of one that is not to be asked for so many seconds.
fn busy(status: u16, seconds: &'static str) -> Response<Body> {
    let mut busy = json(status, "{}");
    busy.headers_mut().insert("retry-after", seconds.parse().unwrap());
    busy
}

#[tokio::test(start_paused = true)]
async fn who_is_not_to_be_asked_for_seconds_is_passed_over_where_there_is_another() {
    for (status, asked, requests) in [(503, "5", 1), (503, "1", 2), (425, "5", 1), (429, "5", 1)] {
        let first = Upstream::new().replies(busy(status, asked)).replies(answer());
        let other = Upstream::new().replies(answer());
        let begun = Instant::now();
        let (status, body, _) = ask("openai", [&first, &other], chat()).await;
        assert_eq!((status, first.requests(), other.requests()), (200, requests, 2 - requests), "{body}");
        assert_eq!(begun.elapsed().as_secs(), if requests == 1 { 0 } else { 1 });
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_passed_over_is_waited_for_once_the_others_have_failed() {
    for failure in [json(503, "{}"), json(404, "{}"), busy(429, "60")] {
        let first = Upstream::new().replies(busy(429, "5")).replies(answer());
        let other = Upstream::new().replies(failure);
        let begun = Instant::now();
        let (status, body, reports) = ask("openai", [&first, &other], chat()).await;
        assert_eq!((status, first.requests(), other.requests()), (200, 2, 1), "{body}");
        assert_eq!((begun.elapsed().as_secs(), reports.only().outcome), (5, Outcome::Completed));
    }
    // Nothing would come of it.
    let first = Upstream::new().replies(busy(429, "60"));
    let (status, ..) = ask("openai", [&first, &Upstream::new().replies(json(503, "{}"))], chat()).await;
    assert_eq!((status, first.requests()), (503, 1));
}

#[tokio::test(start_paused = true)]
async fn what_one_says_that_was_waited_for_takes_the_place_of_what_it_said_before() {
    let refusal = r#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#;
    let first = Upstream::new().replies(busy(429, "5")).replies(json(400, refusal));
    let other = Upstream::new().replies(json(503, "{}"));
    let (status, body, _) = ask("openai", [&first, &other], chat()).await;
    assert_eq!((status, first.requests(), other.requests()), (400, 2, 1), "{body}");
    assert!(body.contains("context_length_exceeded"), "{body}");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_waited_for_where_a_provider_refuses_the_request_or_time_mends_nothing() {
    let broke = || {
        let mut broke = json(429, r#"{"error":{"message":"no credit","code":"insufficient_quota"}}"#);
        broke.headers_mut().insert("retry-after", "5".parse().unwrap());
        broke
    };
    for (first, other) in [(busy(429, "5"), json(400, "{}")), (broke(), json(503, "{}"))] {
        let (first, other) = (Upstream::new().replies(first), Upstream::new().replies(other));
        let begun = Instant::now();
        let (status, body, _) = ask("openai", [&first, &other], chat()).await;
        assert_eq!((first.requests(), other.requests()), (1, 1), "{status} {body}");
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_waited_for_is_asked_again_within_the_budget() {
    let first = Upstream::new().replies(busy(429, "5")).replies(busy(429, "5")).replies(answer());
    let other = Upstream::new().replies(json(503, "{}")).replies(json(503, "{}"));
    let choice = |name: &str, upstream: &Upstream, retries| {
        let budget = BudgetPolicy::default().with_percent(0).with_min_concurrent(1);
        let config = openai().with_retry(RetryPolicy::new(retries, Duration::ZERO).with_budget(budget));
        let service = layer(config).layer(upstream.clone());
        Choice::new(name, name, service)
    };
    let route = ModelRoute::new([choice("short", &first, 3), choice("other", &other, 0)]);
    let (one, two) = tokio::join!(route.clone().oneshot(chat()), route.oneshot(chat()));
    let mut statuses = [one.unwrap().status().as_u16(), two.unwrap().status().as_u16()];
    statuses.sort_unstable();
    assert_eq!((statuses[0], first.requests(), other.requests()), (200, 3, 2));
    assert_ne!(statuses[1], 200, "one of two may be repeated");
}

#[tokio::test(start_paused = true)]
async fn who_is_passed_over_takes_no_place_among_the_repeats() {
    let first = Upstream::new().replies(busy(429, "5")).replies(json(503, "{}")).replies(answer());
    let budget = BudgetPolicy::default().with_percent(0).with_min_concurrent(1);
    let asked = layer(openai().with_retry(RetryPolicy::new(1, Duration::ZERO).with_budget(budget)));
    let short = asked.layer(first.clone());
    let other = layer(openai()).layer(Upstream::new().hangs());
    let choice = |name: &str, service| Choice::new(name, name, service);
    let both = ModelRoute::new([choice("short", short.clone()), choice("other", other)]);
    let mut passed = Box::pin(both.oneshot(chat()));
    assert!(passed.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let alone = ModelRoute::new([choice("short", short)]).oneshot(chat()).await.unwrap();
    assert_eq!((alone.status().as_u16(), first.requests()), (200, 3));
}

#[tokio::test(start_paused = true)]
async fn who_is_waited_for_is_not_repeated_more_often_for_that() {
    let fails = |upstream: Upstream| upstream.replies(json(500, "{}"));
    let new = Upstream::new;
    for (retries, asks, first) in [
        (1, 2, new().replies(busy(429, "5"))),
        (2, 3, new().replies(busy(429, "5")).replies(busy(429, "2"))),
        (3, 4, fails(new()).replies(busy(429, "5"))),
    ] {
        let first = (0..9).fold(first, |upstream, _| fails(upstream));
        let other = Upstream::new().replies(json(503, "{}"));
        let choice = |name: &str, upstream: &Upstream, retries| {
            let service =
                layer(openai().with_retry(RetryPolicy::new(retries, Duration::ZERO))).layer(upstream.clone());
            Choice::new(name, name, service)
        };
        let route = ModelRoute::new([choice("short", &first, retries), choice("other", &other, 0)]);
        let status = route.oneshot(chat()).await.unwrap().status();
        assert_eq!((status.as_u16(), first.requests(), other.requests()), (500, asks, 1), "{retries}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_waited_for_as_well_where_a_limit_denies_the_other_one() {
    type Answer = Response<ResponseBody<Body, ()>>;
    let as_it_is: fn(Answer) -> Answer = |response| response;
    let denied: fn(Answer) -> Answer = |mut response| {
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        response
    };
    let first = Upstream::new().replies(busy(429, "5")).replies(answer());
    let choice = |name: &str, upstream: Upstream, limit| {
        let config = openai().with_retry(RetryPolicy::new(3, Duration::ZERO));
        let asked = layer(config).layer(upstream);
        let service = tower::ServiceExt::<Request<RequestBody>>::map_response(asked, limit);
        Choice::new(name, name, service)
    };
    let route = ModelRoute::new([
        choice("short", first.clone(), as_it_is),
        choice("other", Upstream::new().replies(answer()), denied),
    ]);
    let response = route.oneshot(chat()).await.unwrap();
    assert_eq!((response.status().as_u16(), first.requests()), (200, 2));
}

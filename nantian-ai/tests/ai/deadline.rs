//! The time of a whole exchange, which somebody around the target bounds.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use nantian_ai::route::{Choice, ModelRoute};
use nantian_ai::usage::Outcome;
use nantian_ai::{
    AiLayer, ClientDialect, Deadline, Dialect, Error, TargetConfig, Timeouts, retry::RetryPolicy,
};
use tokio::time::Instant;
use tower::{Layer as _, ServiceExt as _};

use crate::support::{Reports, Upstream, chat, events, json, layer, openai, send};
use crate::troubles::{content_type, last_event, message, request, target, token};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn within(limit: Duration, mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    request.extensions_mut().insert(Deadline::after(limit));
    request
}

fn patient(dialect: Dialect) -> TargetConfig {
    target(dialect).with_timeouts(Timeouts::none()).with_retry(RetryPolicy::new(5, Duration::ZERO))
}

#[tokio::test(start_paused = true)]
async fn what_is_not_answered_in_the_time_of_all_is_504_in_the_clients_dialect_and_is_not_asked_again() {
    for client in ClientDialect::ALL.map(Dialect::from) {
        for provider in Dialect::ALL {
            for stream in [false, true] {
                let (upstream, reports) = (Upstream::new().hangs(), Reports::default());
                let started = Instant::now();
                let service = layer(patient(provider)).observer(reports.clone());
                let (head, body) =
                    send(service, &upstream, within(seconds(3), request(client, stream))).await;
                assert_eq!((head.status.as_u16(), upstream.requests()), (504, 1), "{client} to {provider}");
                assert_eq!(started.elapsed(), seconds(3));
                assert!(message(client, &body).contains("sent no complete answer within 3s"), "{body}");
                assert!(!head.extensions.get::<Arc<Error>>().unwrap().may_fail_over());
                let report = reports.only();
                assert_eq!((report.outcome, report.call.error), (Outcome::Truncated, Some("timeout")));
                assert!(report.usage.input > 0, "the prompt was sent");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_at_that_time_with_an_error_event_whether_or_not_it_has_more() {
    for client in ClientDialect::ALL.map(Dialect::from) {
        for provider in Dialect::ALL {
            for pause in [seconds(1), Duration::ZERO] {
                let chunks =
                    (0..).map(move |at| (if at > 3 { pause } else { seconds(1) }, Some(token(provider))));
                let upstream = Upstream::new().replies(events(content_type(provider), chunks));
                let reports = Reports::default();
                let service = layer(patient(provider)).observer(reports.clone()).layer(upstream);
                let response = service.oneshot(within(seconds(5), request(client, true))).await.unwrap();
                assert!(response.extensions().get::<Deadline>().is_some(), "its body keeps to the time");
                let mut body = response.into_body();
                let mut said = Vec::new();
                while let Some(frame) = body.frame().await {
                    said.extend(frame.unwrap().into_data().unwrap_or_default());
                    if pause.is_zero() && said.len() > 2_000 {
                        // A client that reads slowly.
                        tokio::time::advance(seconds(5)).await;
                    }
                }
                let said = String::from_utf8(said).unwrap();
                let last = last_event(&said);
                assert!(message(client, last).contains("no complete answer within 5s"), "{said}");
                let report = reports.only();
                assert_eq!((report.outcome, report.call.error), (Outcome::Truncated, Some("timeout")));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_waited_for_that_would_be_too_late() {
    for (asked, requests) in [("7", 1), ("3", 2)] {
        let mut full = json(503, "{}");
        full.headers_mut().insert("retry-after", asked.parse().unwrap());
        let upstream = Upstream::new().replies(full).replies(json(200, "{}"));
        let config = openai().with_retry(RetryPolicy::new(1, Duration::ZERO));
        let started = Instant::now();
        let (head, _) = send(layer(config), &upstream, within(seconds(5), chat())).await;
        assert_eq!(
            (head.status.as_u16(), upstream.requests()),
            (if requests == 1 { 503 } else { 200 }, requests)
        );
        assert_eq!(started.elapsed().as_secs(), if requests == 1 { 0 } else { 3 });
    }
}

#[tokio::test(start_paused = true)]
async fn no_other_model_is_asked_when_there_is_no_time_left() {
    let (slow, other) = (Upstream::new().hangs(), Upstream::new());
    let choice = |name: &str, upstream: &Upstream| {
        let target = nantian_ai::Target::new(patient(Dialect::OpenAi)).unwrap();
        Choice::new(name, name, AiLayer::new(target).layer(upstream.clone()))
    };
    let route = ModelRoute::new([choice("any", &slow), choice("other", &other)]);
    let response = route.oneshot(within(seconds(3), request(Dialect::Anthropic, true))).await.unwrap();
    assert_eq!((response.status().as_u16(), slow.requests(), other.requests()), (504, 1, 0));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(message(Dialect::Anthropic, std::str::from_utf8(&body).unwrap()).contains("within 3s"));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_after_that_time() {
    let (upstream, reports) = (Upstream::new(), Reports::default());
    let late = within(Duration::ZERO, request(Dialect::Ollama, false));
    let (head, body) = send(layer(patient(Dialect::OpenAi)).observer(reports.clone()), &upstream, late).await;
    assert_eq!((head.status.as_u16(), upstream.requests()), (504, 0), "{body}");
    assert_eq!(reports.only().outcome, Outcome::NotServed);
}

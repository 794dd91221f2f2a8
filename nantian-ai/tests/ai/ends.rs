//! How a stream ends that passes as it comes, whatever marks its end.

use std::{cell::Cell, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, Full, StreamBody};
use nantian_ai::retry::RetryPolicy;
use nantian_ai::usage::Outcome;
use nantian_ai::{BoxError, ClientDialect, Dialect, Ending};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::support::{Body, Reports, Upstream, events, layer, send};
use crate::troubles::{content_type, last_event, message, request, target, token};

/// Frames of a stream, all there.
fn frames<const N: usize>(dialect: Dialect, frames: [Frame<Bytes>; N]) -> Response<Body> {
    let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok))).boxed_unsync();
    Response::builder().header("content-type", content_type(dialect)).body(body).unwrap()
}

/// What the client gets who asks for no more once there are trailers, as hyper does.
async fn read(upstream: Upstream, dialect: Dialect, reports: &Reports) -> (String, Option<HeaderMap>) {
    let service = layer(target(dialect)).observer(reports.clone()).layer(upstream);
    let mut body = service.oneshot(request(dialect, true)).await.unwrap().into_body();
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame.unwrap().into_data() {
            Ok(data) => read.extend_from_slice(&data),
            Err(last) => return (String::from_utf8(read).unwrap(), last.into_trailers().ok()),
        }
    }
    (String::from_utf8(read).unwrap(), None)
}

#[tokio::test]
async fn a_stream_that_ends_within_its_first_event_is_asked_for_again() {
    for client in ClientDialect::ALL.map(Dialect::from) {
        for provider in Dialect::ALL {
            let now = |event| events(content_type(provider), [(Duration::ZERO, Some(event))]);
            let cut = || now(token(provider).slice(..40));
            let upstream = Upstream::new().replies(cut()).replies(now(token(provider)));
            let config = target(provider).with_retry(RetryPolicy::new(1, Duration::ZERO));
            let (head, body) = send(layer(config), &upstream, request(client, true)).await;
            let pair = format!("{client} to {provider}: {body}");
            assert_eq!((head.status.as_u16(), upstream.requests()), (200, 2), "{pair}");
            let upstream = Upstream::new().replies(cut());
            let (head, body) = send(layer(target(provider)), &upstream, request(client, true)).await;
            assert_eq!(head.status, 502, "{pair}");
            assert!(message(client, &body).contains("broke off"), "{pair}");
        }
    }
}

#[tokio::test]
async fn trailers_end_a_stream_no_better_than_its_body() {
    for dialect in ClientDialect::ALL.map(Dialect::from) {
        let trailers = HeaderMap::from_iter([(http::header::ETAG, "t".parse().unwrap())]);
        let ends = [Frame::data(token(dialect)), Frame::trailers(trailers.clone())];
        let reports = Reports::default();
        let (body, passed) = read(Upstream::new().replies(frames(dialect, ends)), dialect, &reports).await;
        assert!(message(dialect, last_event(&body)).contains("broke off"), "{dialect}: {body}");
        assert_eq!(reports.only().outcome, Outcome::Truncated, "{dialect}");
        // Where usage is taken out of a stream they do not pass.
        assert_eq!(passed, Some(trailers).filter(|_| dialect != Dialect::OpenAi), "{dialect}");
        let numbered = last_event(&body).contains(r#""sequence_number":3"#);
        assert_eq!(numbered, dialect == Dialect::Responses, "{body}");
    }
}

#[tokio::test]
async fn what_stands_before_trailers_is_read_to_its_end() {
    const LAST: &str = r#"{"message":{"role":"assistant","content":""},"done":true,"prompt_eval_count":7000,"eval_count":500}"#;
    let chunks = [token(Dialect::Ollama), Bytes::from(LAST)].map(Frame::data);
    let [first, last] = chunks;
    let (reports, end) = (Reports::default(), Frame::trailers(HeaderMap::new()));
    let upstream = Upstream::new().replies(frames(Dialect::Ollama, [first, last, end]));
    let (body, _) = read(upstream, Dialect::Ollama, &reports).await;
    let report = reports.only();
    assert!(body.ends_with(LAST), "{body}");
    assert_eq!((report.outcome, report.usage.input, report.usage.output), (Outcome::Completed, 7000, 500));
}

#[tokio::test]
async fn a_stream_whose_length_is_told_ends_with_an_error_where_it_breaks_off() {
    for dialect in ClientDialect::ALL.map(Dialect::from) {
        let token = token(dialect);
        let response = Response::builder()
            .header("content-type", content_type(dialect))
            .header("content-length", token.len())
            .body(Full::from(token).map_err(|never| match never {}).boxed_unsync());
        let service = layer(target(dialect)).layer(Upstream::new().replies(response.unwrap()));
        let response = service.oneshot(request(dialect, true)).await.unwrap();
        assert!(!response.headers().contains_key("content-length"), "{dialect}");
        let body = response.into_body();
        assert!(!body.is_end_stream() && body.size_hint().exact().is_none(), "{dialect}");
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().into()).unwrap();
        assert!(message(dialect, last_event(&body)).contains("broke off"), "{dialect}: {body}");
    }
}

#[tokio::test]
async fn what_ends_with_the_process_is_asked_of_nobody_else_and_no_fault_of_the_provider() {
    for (client, stream) in [
        (Dialect::OpenAi, true),
        (Dialect::OpenAi, false),
        (Dialect::Anthropic, true),
        (Dialect::Anthropic, false),
    ] {
        let asked = Cell::new(0);
        let provider = service_fn(|_| {
            asked.set(asked.get() + 1);
            let begun = if stream { token(Dialect::OpenAi) } else { Bytes::from_static(b"{") };
            let kind = if stream { content_type(Dialect::OpenAi) } else { "application/json" };
            let cut: [Result<_, BoxError>; 2] = [Ok(Frame::data(begun)), Err(Ending.into())];
            let body = StreamBody::new(futures_util::stream::iter(cut));
            let response = Response::builder().header("content-type", kind).body(body).unwrap();
            async move { Ok::<_, BoxError>(response) }
        });
        let reports = Reports::default();
        let config = target(Dialect::OpenAi).with_retry(RetryPolicy::new(2, Duration::ZERO));
        let service = layer(config).observer(reports.clone()).layer(provider);
        let response = service.oneshot(request(client, stream)).await.unwrap();
        let status = response.status().as_u16();
        let read = response.into_body().collect().await.map(|body| body.to_bytes());
        let (pair, report) = (format!("{client} {stream}: {read:?}"), reports.only());
        assert_eq!(asked.get(), 1, "{pair}");
        assert_eq!(status, if stream { 200 } else { 503 }, "{pair}");
        let code = (!stream).then_some("unavailable");
        assert_eq!((report.outcome, report.call.error), (Outcome::Aborted, code), "{pair}");
        let body = String::from_utf8(read.unwrap().into()).unwrap();
        let said = message(client, if stream { last_event(&body) } else { &body });
        assert!(said.contains("the proxy ends"), "{pair}");
    }
}

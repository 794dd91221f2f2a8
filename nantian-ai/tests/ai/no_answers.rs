//! Replies whose status is that of an answer, and which are none, where they would pass as they are.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt as _, Full, StreamBody};
use nantian_ai::TargetConfig;
use nantian_ai::body::RequestBody;
use nantian_ai::usage::Outcome;
use serde_json::Value;
use tower::{Layer as _, ServiceExt as _};

use crate::support::{Body, Reports, Upstream, events, html, json, layer, openai, post, send};
use crate::too_long::ask;

const ANSWER: &str =
    r#"{"choices":[{"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}"#;
const PAGE: &str = "<html>Busy</html>";
const BUSY: &str =
    "\n \n{\n \"error\": {\"message\": \"Provider is busy\", \"code\": 503}, \"user_id\": \"u\"}";

fn chat(streams: bool) -> Request<Full<Bytes>> {
    let body =
        format!(r#"{{"model":"short","messages":[{{"role":"user","content":"Hi"}}],"stream":{streams}}}"#);
    post("/v1/chat/completions", &body)
}

/// A stream that ends before anything is said.
fn ended() -> http::Response<Body> {
    events(
        "text/event-stream",
        [(Duration::ZERO, Some(": busy\n\n")), (Duration::ZERO, Some("data: [DONE]\n\n"))],
    )
}

/// The beginning of an answer, as if it were all of it, or before the connection breaks.
fn half(breaks: bool) -> http::Response<Body> {
    let half = (Duration::ZERO, ANSWER.get(..40));
    events("application/json", [Some(half), breaks.then_some((Duration::ZERO, None))].into_iter().flatten())
}

#[tokio::test(start_paused = true)]
async fn another_model_answers_and_the_client_sees_nothing_of_it() {
    let replies: [fn() -> http::Response<Body>; 5] =
        [|| json(200, BUSY), || json(200, ""), || html(200, PAGE), || half(false), || half(true)];
    for reply in replies {
        for streams in [false, true] {
            let bad = (0..4).fold(Upstream::new(), |bad, _| bad.replies(reply()));
            let good = Upstream::new().replies(json(200, ANSWER));
            let (status, body, reports) = ask("openai", [&bad, &good], chat(streams)).await;
            assert_eq!((status, body.as_str()), (200, ANSWER));
            assert_eq!((bad.requests(), good.requests()), (4, 1));
            assert_eq!(reports.count(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_only_says_that_it_is_done_is_no_answer() {
    const STREAM: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\n\
                          data: [DONE]\n\n";
    const ASKED: &str = r#""model":"short","max_tokens":9,"stream":true"#;
    const SAYS: &str = r#"[{"role":"user","content":"Hi"}]"#;
    for (provider, path) in [
        ("openai", "/v1/chat/completions"),
        ("openai", "/v1/messages"),
        ("openai", "/api/chat"),
        ("anthropic", "/v1/messages"),
        ("anthropic", "/v1/chat/completions"),
    ] {
        let request = || post(path, &format!(r#"{{{ASKED},"messages":{SAYS}}}"#));
        let bad = (0..4).fold(Upstream::new(), |bad, _| bad.replies(ended()));
        let good = Upstream::new().replies(events("text/event-stream", [(Duration::ZERO, Some(STREAM))]));
        let (status, body, _) = ask(provider, [&bad, &good], request()).await;
        assert!(status == 200 && body.contains("Hi"), "{provider} {path}: {status} {body}");
        assert_eq!((bad.requests(), good.requests()), (4, 1), "{provider} {path}");
    }
    // Under the type of a whole answer, too.
    let plain = events("application/json", [(Duration::ZERO, Some("data: [DONE]\n\n"))]);
    let (head, _) = send(layer(openai()), &Upstream::new().replies(plain), chat(false)).await;
    assert_eq!(head.status, 502);
}

#[tokio::test]
async fn the_client_is_told_by_a_status_where_nobody_else_is_asked() {
    let compact = || post("/v1/responses/compact", r#"{"model":"any","input":"Hi"}"#);
    for (request, reply, status, outcome) in [
        (chat(false), json(200, BUSY), 503, Outcome::NotServed),
        (chat(false), json(200, ""), 502, Outcome::Truncated),
        (chat(false), html(200, PAGE), 502, Outcome::Truncated),
        (chat(false), half(false), 502, Outcome::Truncated),
        (chat(false), half(true), 502, Outcome::Truncated),
        (compact(), half(false), 502, Outcome::Truncated),
    ] {
        let (upstream, reports) = (Upstream::new().replies(reply), Reports::default());
        let (head, body) = send(layer(openai()).observer(reports.clone()), &upstream, request).await;
        let error: Value = serde_json::from_str(&body).unwrap();
        assert!(error["error"]["message"].is_string(), "{body}");
        assert_eq!((head.status.as_u16(), reports.only().outcome), (status, outcome), "{body}");
    }
}

#[tokio::test]
async fn messages_under_another_name_are_looked_at_too() {
    let request = || post("/v1/messages", r#"{"model":"mine","max_tokens":9,"messages":[]}"#);
    let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    for (said, status) in [(error, 529), ("", 502), (" \n", 502), ("<html>", 502), (r#"{"id":"#, 502)] {
        let config = TargetConfig::new("demo/claude", "anthropic", "claude-sonnet-4-5");
        let upstream = Upstream::new().replies(json(200, said));
        let (head, body) = send(layer(config), &upstream, request()).await;
        assert_eq!(head.status, status, "{said} {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_an_answer_passes_as_it_comes() {
    let second = Duration::from_secs(1);
    let large = "x".repeat(70_000);
    // What may be an error, and what is not large, is read to its end.
    for (chunks, seconds) in [
        (["{", r#""error":null,"choices":[]"#, "}"], 3),
        (["\n", "{\"id\"", ":1}"], 3),
        (["\u{feff}", "{\"id\":1", "}"], 3),
        (["{\"id\":1", "}", "\n"], 2),
        (["{\"id\":\"", &large, "\"}"], 2),
        (["data", ": {}\n\n", "data: [DONE]\n\n"], 2),
    ] {
        let said = chunks.map(|chunk| (second, Some(chunk.to_owned())));
        let upstream = Upstream::new().replies(events("application/json", said));
        let begun = tokio::time::Instant::now();
        let response = layer(openai()).layer(upstream).oneshot(chat(false)).await.unwrap();
        assert_eq!((response.status().as_u16(), begun.elapsed().as_secs()), (200, seconds), "{chunks:?}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, chunks.concat());
    }
}

/// An answer with this body.
fn answer(
    body: impl http_body::Body<Data = Bytes, Error = io::Error> + Send + 'static,
) -> http::Response<Body> {
    let response = http::Response::builder().header("content-type", "application/json");
    response.body(body.boxed_unsync()).unwrap()
}

/// A body that tells its length, and its end one frame after its last byte, as HTTP/2 may.
struct EndsLate(RequestBody);

impl http_body::Body for EndsLate {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx).map_err(|never: Infallible| -> io::Error { match never {} })
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

#[tokio::test]
async fn a_large_answer_that_ends_before_its_last_brace_breaks_off() {
    let begun = Bytes::from(format!(r#"{{"data":[{}"#, "0,".repeat(40_000)));
    let pieces = [begun, Bytes::from_static(b"0,0")];
    let comes = |last: Option<Frame<Bytes>>| {
        let frames = pieces.clone().map(Frame::data).into_iter().chain(last);
        answer(StreamBody::new(futures_util::stream::iter(frames.map(Ok))))
    };
    // Its length is told.
    let sized = |pieces: Vec<Bytes>| {
        answer(RequestBody::from(pieces).map_err(|never: Infallible| -> io::Error { match never {} }))
    };
    for (reply, status) in [
        (comes(None), 200),
        (comes(Some(Frame::trailers(HeaderMap::new()))), 200),
        (sized(pieces.to_vec()), 200),
        (sized(vec![Bytes::from(pieces.concat())]), 502),
        (answer(EndsLate(pieces.to_vec().into())), 200),
        (answer(EndsLate(vec![Bytes::from(pieces.concat())].into())), 502),
    ] {
        let (upstream, reports) = (Upstream::new().replies(reply), Reports::default());
        let service = layer(openai()).observer(reports.clone()).layer(upstream);
        let response = service.oneshot(chat(false)).await.unwrap();
        assert_eq!(response.status(), status);
        let body = response.into_body().collect().await;
        assert_eq!(body.is_err(), status == 200, "half of it looks whole");
        let report = reports.only();
        assert_eq!((report.outcome, report.call.error), (Outcome::Truncated, Some("upstream_truncated")));
        assert_eq!(report.call.attempts[0].error, report.call.error);
    }
}

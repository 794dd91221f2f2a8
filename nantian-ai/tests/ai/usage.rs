use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use nantian_ai::body::RequestBody;
use nantian_ai::usage::{Outcome, UsageLayer, UsageObserver, UsageReport};
use nantian_ai::{
    AiLayer, BodyMemory, RequestFacts, Surface, Target, TargetConfig, Timeouts, ir::Block, retry::RetryPolicy,
};
use tower::{Layer as _, ServiceExt as _};

use crate::support::{Body, Reports, Upstream, chat, events, json, layer, openai, post, send, stream_chat};

const TOKEN: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hello, world\"}}]}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3,\"total_tokens\":10}}\n\ndata: [DONE]\n\n";
const REPLY: &str = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}"#;

fn stream<const N: usize>(chunks: [Option<&'static str>; N]) -> http::Response<Body> {
    events("text/event-stream", chunks.map(|chunk| (Duration::ZERO, chunk)))
}

#[tokio::test]
async fn estimates_learn_from_what_the_provider_reports() {
    let question = "How far is the moon from here? ".repeat(1200);
    let asked = |tools: &str| {
        format!(r#"{{"messages":[{{"role":"user","content":"{question}"}}],"tools":[{tools}]}}"#)
    };
    let target = Arc::new(Target::new(openai().with_endpoint("http://vllm:8000")).unwrap());
    let count = async || {
        let request = post("/v1/messages/count_tokens", &asked(""));
        let (_, body) = send(AiLayer::new(target.clone()), &Upstream::new(), request).await;
        let counted: serde_json::Value = serde_json::from_str(&body).unwrap();
        counted["input_tokens"].as_u64().unwrap()
    };
    let before = count().await;
    let reported = async |tools: &str| {
        let reply =
            format!(r#"{{"choices":[],"usage":{{"prompt_tokens":{},"completion_tokens":1}}}}"#, 2 * before);
        for _ in 0..100 {
            let upstream = Upstream::new().replies(json(200, &reply));
            send(AiLayer::new(target.clone()), &upstream, post("/v1/chat/completions", &asked(tools))).await;
        }
    };
    reported(r#"{"type":"web_search"}"#).await;
    assert_eq!(count().await, before, "nobody knows what it has found");
    reported("").await;
    let learnt = count().await;
    assert!(learnt.abs_diff(2 * before) <= before / 100, "{learnt} of {before}");
}

#[tokio::test]
async fn a_complete_answer_is_reported_once() {
    for (reply, expected) in [(json(200, REPLY), (9, 3)), (stream([Some(TOKEN), Some(USAGE)]), (7, 3))] {
        let reports = Reports::default();
        let upstream = Upstream::new().replies(reply);
        send(layer(openai()).observer(reports.clone()), &upstream, chat()).await;
        let report = reports.only();
        assert_eq!(report.outcome, Outcome::Completed);
        assert_eq!((report.usage.input, report.usage.output), expected);
        assert!(!report.usage.estimated);
    }
}

#[tokio::test]
async fn a_reply_is_reported_with_its_last_byte_even_if_nobody_asks_for_more() {
    let reports = Reports::default();
    let shared = Arc::new(reports.clone());
    let service = layer(openai()).observer(shared).layer(Upstream::new().replies(json(200, REPLY)));
    let mut body = service.oneshot(chat()).await.unwrap().into_body();
    assert_eq!(body.size_hint().exact(), Some(REPLY.len() as u64));
    body.frame().await.unwrap().unwrap();
    assert!(body.is_end_stream());
    assert_eq!(reports.only().outcome, Outcome::Completed);
    drop(body);
    assert_eq!(reports.count(), 1);
}

#[tokio::test]
async fn a_client_that_goes_away_is_reported_with_what_it_got() {
    let reports = Reports::default();
    let service = layer(openai())
        .observer(reports.clone())
        .layer(Upstream::new().replies(stream([Some(TOKEN), Some(USAGE)])));
    let mut body = service.oneshot(stream_chat()).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(reports.count(), 0);
    drop(body);
    let report = reports.only();
    assert_eq!(report.outcome, Outcome::Aborted);
    assert_eq!(report.usage.output, 3);
    assert!(report.usage.estimated && report.usage.input > 0);
}

#[tokio::test]
async fn a_client_that_goes_away_before_the_head_is_reported() {
    let reports = Reports::default();
    let service = layer(openai()).observer(reports.clone()).layer(Upstream::new().hangs());
    let mut call = Box::pin(service.oneshot(chat()));
    assert!(futures_util::FutureExt::now_or_never(&mut call).is_none());
    assert_eq!(reports.count(), 0);
    drop(call);
    let report = reports.only();
    assert_eq!(report.outcome, Outcome::Aborted);
    assert!(report.usage.input > 0);
    assert_eq!(report.usage.output, 0);
}

#[tokio::test]
async fn a_broken_stream_is_reported_as_truncated() {
    let reports = Reports::default();
    let service =
        layer(openai()).observer(reports.clone()).layer(Upstream::new().replies(stream([Some(TOKEN), None])));
    let body = service.oneshot(stream_chat()).await.unwrap().into_body();
    body.collect().await.unwrap();
    let UsageReport { outcome, call, .. } = reports.only();
    assert_eq!((outcome, call.error), (Outcome::Truncated, Some("upstream_truncated")));
    let attempts: Vec<_> = call.attempts.iter().map(|attempt| (attempt.status, attempt.error)).collect();
    assert_eq!(attempts, [(Some(http::StatusCode::OK), call.error)]);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_stream_is_reported_as_truncated() {
    let reports = Reports::default();
    let reply =
        events("text/event-stream", [(Duration::ZERO, Some(TOKEN)), (Duration::from_secs(9), Some(USAGE))]);
    let config = openai().with_timeouts(Timeouts::uniform(Duration::from_secs(1)));
    let layer = layer(config).observer(reports.clone());
    send(layer, &Upstream::new().replies(reply), stream_chat()).await;
    let report = reports.only();
    assert_eq!(report.outcome, Outcome::Truncated);
    assert_eq!(report.usage.output, 3);
}

#[tokio::test]
async fn a_stream_of_several_answers_is_complete_with_the_last_of_them() {
    let end = |index: u32| {
        format!(
            "data: {{\"choices\":[{{\"index\":{index},\"delta\":{{\"content\":\"a\"}},\"finish_reason\":\"stop\"}}]}}\n\n"
        )
    };
    for (stream, outcome) in [
        (end(0), Outcome::Truncated),
        // Some say it twice.
        (end(0) + &end(0), Outcome::Truncated),
        (end(1) + &end(0), Outcome::Completed),
        (end(0) + "data: [DONE]\n\n", Outcome::Completed),
    ] {
        let reports = Reports::default();
        let chunks = [(Duration::ZERO, Some(stream.clone()))];
        let upstream = Upstream::new().replies(events("text/event-stream", chunks));
        let asked = post("/v1/chat/completions", r#"{"model":"any","messages":[],"stream":true,"n":2}"#);
        let (_, body) = send(layer(openai()).observer(reports.clone()), &upstream, asked).await;
        assert_eq!(reports.only().outcome, outcome, "{stream}");
        assert_eq!(body.contains("upstream_truncated"), outcome == Outcome::Truncated, "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_that_fail_are_not_reported_each() {
    let reports = Reports::default();
    let upstream = Upstream::new().replies(json(503, "{}")).refuses_connection().replies(json(429, "{}"));
    let config = openai().with_retry(RetryPolicy::new(2, Duration::from_millis(1)));
    send(layer(config).observer(reports.clone()), &upstream, chat()).await;
    let report = reports.only();
    assert_eq!(report.outcome, Outcome::NotServed);
    assert_eq!(report.usage.total, 0);
}

#[tokio::test]
async fn a_connection_that_breaks_has_cost_the_prompt_and_one_that_cannot_be_made_has_not() {
    let report = async |upstream: Upstream| {
        let reports = Reports::default();
        send(layer(openai()).observer(reports.clone()), &upstream, chat()).await;
        reports.only()
    };
    let broken = report(Upstream::new().breaks_off()).await;
    assert_eq!((broken.outcome, broken.usage.estimated), (Outcome::Truncated, true));
    assert!(broken.usage.input > 0);
    let refused = report(Upstream::new().refuses_connection()).await;
    assert_eq!((refused.outcome, refused.usage.total), (Outcome::NotServed, 0));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_got_the_prompt_and_timed_out_has_been_paid_for_it() {
    let second = Duration::from_secs(1);
    for last in [None, Some(503), Some(200)] {
        let reports = Reports::default();
        let upstream = Upstream::new().hangs();
        let upstream = match last {
            None => upstream.hangs(),
            Some(200) => upstream.replies(json(200, REPLY)),
            Some(status) => upstream.replies(json(status, "{}")),
        };
        let config =
            openai().with_retry(RetryPolicy::new(1, second)).with_timeouts(Timeouts::uniform(second));
        send(layer(config).observer(reports.clone()), &upstream, chat()).await;
        let report = reports.only();
        if last == Some(200) {
            assert_eq!((report.outcome, report.usage.total), (Outcome::Completed, 12));
        } else {
            let expected = last.map_or(Outcome::Truncated, |_| Outcome::Refused);
            assert_eq!(report.outcome, expected, "{last:?}");
            assert!(report.usage.estimated && report.usage.input > 0, "{last:?}");
            assert_eq!(report.usage.output, 0, "{last:?}");
        }
    }
}

#[tokio::test]
async fn a_request_that_is_refused_here_is_not_begun() {
    let reports = Reports::default();
    let layer = layer(openai()).observer(reports.clone());
    send(layer, &Upstream::new(), post("/v1/chat/completions", "no")).await;
    assert_eq!(reports.count(), 0);
}

#[tokio::test]
async fn a_function_is_an_observer_and_sees_extensions_and_facts() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let layer = layer(openai()).observer(move |extensions: &http::Extensions, facts: &RequestFacts| {
        let reservation = extensions.get::<u32>().copied();
        let estimate = facts.input_estimate;
        let sender = sender.clone();
        move |report: UsageReport| {
            sender.send((reservation, estimate, report.usage.total)).unwrap();
        }
    });
    let mut request = chat();
    request.extensions_mut().insert(41_u32);
    send(layer, &Upstream::new().replies(json(200, REPLY)), request).await;
    let (reservation, estimate, total) = receiver.recv().unwrap();
    assert_eq!(reservation, Some(41));
    assert!(estimate > 0);
    assert_eq!(total, 12);
}

#[tokio::test]
async fn any_service_can_be_metered() {
    let reports = Reports::default();
    let upstream = Upstream::new().replies(stream([Some(TOKEN)]));
    let service = UsageLayer::new(reports.clone()).layer(upstream.clone());
    let body = br#"{"model":"m","stream":true}"#;
    let mut request = Request::post("/v1/chat/completions")
        .header("accept-encoding", "gzip")
        .body(RequestBody::default())
        .unwrap();
    let surface = Surface::detect(request.method(), request.uri().path(), request.headers()).unwrap();
    let facts = RequestFacts::read(&surface, body).unwrap();
    let estimate = facts.input_estimate;
    request.extensions_mut().insert(facts);

    let body = service.oneshot(request).await.unwrap().into_body();
    assert_eq!(body.collect().await.unwrap().to_bytes(), TOKEN);

    let report = reports.only();
    assert_eq!(report.outcome, Outcome::Truncated);
    assert_eq!((report.usage.input, report.usage.output), (estimate, 3));
    let (head, _) = upstream.request();
    assert_eq!(head.headers["accept-encoding"], "identity");
}

#[tokio::test]
async fn what_is_no_operation_passes_a_meter_untouched() {
    let reports = Reports::default();
    let upstream = Upstream::new().replies(json(200, "{}"));
    let service = UsageLayer::new(reports.clone()).layer(upstream);
    let request = Request::get("/healthz").body(RequestBody::default()).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "{}");
    assert_eq!(reports.count(), 0);
}

/// What a metered service reports of a request whose body, of 399 bytes, nobody has read.
async fn metered(upstream: &Upstream) -> UsageReport {
    let reports = Reports::default();
    let request = Request::post("/v1/chat/completions")
        .header("content-length", "399")
        .body(RequestBody::default())
        .unwrap();
    if let Ok(response) = UsageLayer::new(reports.clone()).layer(upstream.clone()).oneshot(request).await {
        response.into_body().collect().await.unwrap();
    }
    reports.only()
}

#[tokio::test]
async fn the_length_of_a_request_stands_for_its_input_where_nobody_read_it() {
    let report = metered(&Upstream::new().replies(stream([Some(TOKEN), Some("data: [DONE]\n\n")]))).await;
    assert_eq!(report.outcome, Outcome::Completed);
    assert!(report.usage.estimated);
    assert_eq!((report.usage.input, report.usage.output, report.usage.total), (100, 3, 103));
}

#[tokio::test]
async fn a_metered_call_that_fails_or_times_out_may_have_used_its_input() {
    for (upstream, outcome) in [
        (Upstream::new().breaks_off(), Outcome::Truncated),
        (Upstream::new().replies(json(504, "{}")), Outcome::Refused),
    ] {
        let report = metered(&upstream).await;
        assert_eq!(report.outcome, outcome);
        assert_eq!((report.usage.input, report.usage.output), (100, 0));
        assert!(report.usage.estimated);
    }
    let report = metered(&Upstream::new().replies(json(503, "{}"))).await;
    assert_eq!((report.outcome, report.usage.total), (Outcome::NotServed, 0));
}

/// Wants contents, too.
struct Contents(Reports);

impl UsageObserver for Contents {
    type Sink = <Reports as UsageObserver>::Sink;

    fn begin(&self, extensions: &http::Extensions, facts: &RequestFacts) -> Self::Sink {
        self.0.begin(extensions, facts)
    }

    fn keeps(&self) -> usize {
        64 << 10
    }
}

#[tokio::test]
async fn contents_have_a_quarter_of_the_memory_for_bodies_and_their_calls_are_served() {
    let (memory, reports) = (BodyMemory::new(2_000), Reports::default());
    let length = chat().into_body().size_hint().exact().unwrap() + REPLY.len() as u64;
    for asked in 1..10 {
        let layer = layer(openai()).observer(Contents(reports.clone())).memory(memory.clone());
        let (head, body) = send(layer, &Upstream::new().replies(json(200, REPLY)), chat()).await;
        assert_eq!((head.status.as_u16(), body.as_str()), (200, REPLY));
        let all = reports.all();
        let kept = all.iter().filter_map(|report| report.call.content.as_ref());
        let kept = kept.inspect(|content| assert_eq!(content.reply, REPLY)).count() as u64;
        assert_eq!(kept, asked.min(500 / length), "{length} bytes each");
        assert_eq!(memory.held(), kept * length, "what waits to be told counts");
    }
    assert_eq!(memory.refused(), 0);
    drop(reports);
    assert_eq!(memory.held(), 0);
}

#[tokio::test]
async fn what_is_said_to_go_on_with_a_stored_conversation_is_told() {
    let thread = r#""thread":{"type":"continue","previous_message_id":"msg_1"}"#;
    for (provider, path, body) in [
        (
            "openai",
            "/v1/responses",
            r#"{"model":"m","previous_response_id":"resp_1","input":"Who?"}"#.to_owned(),
        ),
        (
            "anthropic",
            "/v1/messages",
            format!(r#"{{"model":"m",{thread},"messages":[{{"role":"user","content":"Who?"}}]}}"#),
        ),
    ] {
        let reports = Reports::default();
        let layer = layer(TargetConfig::new("demo/x", provider, "m")).observer(Contents(reports.clone()));
        send(layer, &Upstream::new().replies(json(200, "{}")), post(path, &body)).await;
        let asked = reports.only().call.content.as_ref().and_then(|content| content.asked()).unwrap();
        assert_eq!(asked.messages[0].content, [Block::Text("Who?".to_owned())], "{provider}");
    }
}

#[tokio::test]
async fn a_client_of_another_dialect_is_told_an_estimate_where_the_provider_tells_nothing_and_that_it_is_one()
{
    const SAID: &str = "Hello, how may I help you?";
    let whole = |usage: &str| {
        let reply = format!(
            r#"{{"choices":[{{"message":{{"role":"assistant","content":"{SAID}"}},"finish_reason":"stop"}}]{usage}}}"#
        );
        json(200, &reply)
    };
    let streamed = |usage: &str| {
        let chunk = format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{SAID}\"}},\"finish_reason\":\"stop\"}}]{usage}}}\n\ndata: [DONE]\n\n"
        );
        events("text/event-stream", [(Duration::ZERO, Some(chunk))])
    };
    let told = r#","usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}"#;
    for (usage, output, flag) in [("", 7, Some("estimated")), (told, 3, None)] {
        for stream in [false, true] {
            let reply = if stream { streamed(usage) } else { whole(usage) };
            let body = format!(
                r#"{{"model":"m","max_tokens":9,"stream":{stream},"messages":[{{"role":"user","content":"Hi"}}]}}"#
            );
            let service = layer(openai()).layer(Upstream::new().replies(reply));
            let answer = service.oneshot(post("/v1/messages", &body)).await.unwrap();
            let (head, body) = answer.into_parts();
            let body = body.collect().await.unwrap();
            let fields = if stream { body.trailers().cloned().unwrap_or_default() } else { head.headers };
            assert_eq!(fields.get("x-nantian-usage").map(|flag| flag.to_str().unwrap()), flag);
            let body = body.to_bytes();
            let body = std::str::from_utf8(&body).unwrap();
            assert!(body.contains(&format!(r#""output_tokens":{output}}}"#)), "{body}");
        }
    }
}

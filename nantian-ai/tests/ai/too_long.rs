//! Conversations that are too long for one model of a route.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use nantian_ai::route::{Choice, ModelRoute};
use nantian_ai::usage::Outcome;
use nantian_ai::{
    Credential, TargetConfig,
    retry::{Attempts, RetryPolicy},
};
use serde_json::Value;
use tower::{Layer as _, ServiceExt as _};

use crate::support::{Reports, Upstream, chat, events, json, layer, openai, post, send, stream_chat};

const OPENAI: &str = r#"{"error":{"message":"Your input exceeds what the model can take.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#;
const ANTHROPIC: &str = r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 208310 tokens > 200000 maximum"}}"#;
const BOTH: &str = r#"{"type":"error","error":{"type":"invalid_request_error","message":"input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000"}}"#;
const BEDROCK: &str = r#"{"message":"Input is too long for requested model."}"#;
const GEMINI: &str = r#"{"error":{"code":400,"message":"The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).","status":"INVALID_ARGUMENT"}}"#;
const OLLAMA: &str = r#"{"error":"the input length exceeds the context length"}"#;
const NEWER_OLLAMA: &str = r#"{"error":"{\"error\":{\"code\":400,\"message\":\"request (8889 tokens) exceeds the available context size (4096 tokens), try increasing it\",\"type\":\"exceed_context_size_error\",\"n_prompt_tokens\":8889,\"n_ctx\":4096}}"}"#;
const XAI: &str = r#"{"code":"Client specified an invalid argument","error":"This model's maximum prompt length is 131072 but the request contains 140000 tokens."}"#;
/// How OpenAI tells it a client of Responses that has asked for a stream.
const STREAM: &str = "data: {\"type\":\"response.created\",\"response\":{\"id\":\"r\",\"status\":\"in_progress\"}}\n\n\
                      data: {\"type\":\"response.failed\",\"response\":{\"id\":\"r\",\"status\":\"failed\",\"error\":{\"code\":\"context_length_exceeded\",\"message\":\"Your input exceeds the context window of this model.\"}}}\n\n";
const COMPLETION: &str = r#"{"choices":[{"message":{"content":"read all of it"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#;

const DONE: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"read all of it\"},\"finish_reason\":\"stop\"}]}\n\n\
                    data: [DONE]\n\n";

/// A model that reads little, and repeats what can be repeated.
fn short(provider: &str) -> TargetConfig {
    let config =
        TargetConfig::new("demo/short", provider, "short-1").with_retry(RetryPolicy::new(3, Duration::ZERO));
    let config = config.with_endpoint("http://short").with_credential(Credential::bearer("key"));
    if provider == "bedrock" { config.with_region("eu-central-1") } else { config }
}

fn bare(provider: &str) -> Request<Full<Bytes>> {
    let (path, body) = match provider {
        "anthropic" => (
            "/v1/messages",
            r#"{"model":"short","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#,
        ),
        "ollama" => {
            ("/api/chat", r#"{"model":"short","stream":false,"messages":[{"role":"user","content":"Hi"}]}"#)
        }
        "responses" => ("/v1/responses", r#"{"model":"short","input":"Hi"}"#),
        _ => ("/v1/chat/completions", r#"{"model":"short","messages":[{"role":"user","content":"Hi"}]}"#),
    };
    post(path, body)
}

/// What a client gets of a route to a model of `provider` that is named, and one of OpenAI's that reads more.
pub(crate) async fn ask(
    provider: &str,
    upstreams: [&Upstream; 2],
    request: Request<Full<Bytes>>,
) -> (u16, String, Reports) {
    let reports = Reports::default();
    let choice = |name: &str, config: TargetConfig, upstream: &Upstream| {
        let service = layer(config).observer(reports.clone()).layer(upstream.clone());
        Choice::new(name, format!("{name}-1"), service)
    };
    let [little, more] = upstreams;
    let route = ModelRoute::new([choice("short", short(provider), little), choice("long", openai(), more)]);
    let response = route.oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap(), reports)
}

#[tokio::test(start_paused = true)]
async fn another_model_reads_it_and_the_first_is_not_asked_twice() {
    for (provider, client, refusal) in [
        ("openai", "openai", OPENAI),
        ("openai", "responses", OPENAI),
        ("openai", "anthropic", OPENAI),
        ("anthropic", "anthropic", ANTHROPIC),
        ("anthropic", "anthropic", BOTH),
        ("anthropic", "openai", ANTHROPIC),
        ("bedrock", "openai", BEDROCK),
        ("bedrock", "ollama", BEDROCK),
        ("gemini", "openai", GEMINI),
        ("gemini", "anthropic", GEMINI),
        ("ollama", "ollama", OLLAMA),
        ("ollama", "openai", OLLAMA),
        ("ollama", "anthropic", NEWER_OLLAMA),
        ("ollama", "responses", NEWER_OLLAMA),
    ] {
        let little = Upstream::new().replies(json(400, refusal));
        let answer = if client == "responses" {
            r#"{"id":"r","object":"response","status":"completed","output":[{"type":"message","role":"assistant","content":[{"type":"output_text","text":"read all of it"}]}],"usage":{"input_tokens":5,"output_tokens":2,"total_tokens":7}}"#
        } else {
            COMPLETION
        };
        let more = Upstream::new().replies(json(200, answer));
        let (status, body, reports) = ask(provider, [&little, &more], bare(client)).await;
        assert!(status == 200 && body.contains("read all of it"), "{provider}, {client}: {status} {body}");
        assert_eq!((little.requests(), more.requests()), (1, 1), "{provider}, {client}");
        let report = reports.only();
        assert_eq!((report.outcome, report.usage.total), (Outcome::Completed, 7));
    }
}

#[tokio::test(start_paused = true)]
async fn where_no_model_reads_it_each_client_hears_the_words_that_it_acts_on() {
    for (client, config, refusal, words) in [
        ("anthropic", openai(), OPENAI, "\"message\":\"prompt is too long: Your input exceeds"),
        ("anthropic", short("gemini"), GEMINI, "\"message\":\"prompt is too long: The input token count"),
        ("openai", short("anthropic"), ANTHROPIC, "\"code\":\"context_length_exceeded\""),
        ("responses", short("bedrock"), BEDROCK, "\"code\":\"context_length_exceeded\""),
        (
            "anthropic",
            short("ollama"),
            NEWER_OLLAMA,
            "\"message\":\"prompt is too long: request (8889 tokens)",
        ),
        (
            "openai",
            short("ollama"),
            NEWER_OLLAMA,
            "\"message\":\"request (8889 tokens) exceeds the available",
        ),
    ] {
        let upstream = Upstream::new().replies(json(400, refusal));
        let (head, body) = send(layer(config), &upstream, bare(client)).await;
        assert!(head.status == 400 && body.contains(words), "{client}: {} {body}", head.status);
    }
}

/// A request of Codex.
fn of_codex() -> Request<Full<Bytes>> {
    post("/v1/responses", r#"{"model":"short","input":"Hi","stream":true,"store":false}"#)
}

#[tokio::test(start_paused = true)]
async fn codex_hears_it_in_the_stream_that_it_has_asked_for() {
    let streamed = events("text/event-stream", [(Duration::ZERO, Some(STREAM))]);
    for (config, refusal, words) in [
        (short("anthropic"), json(400, ANTHROPIC), "prompt is too long: 208310 tokens"),
        (short("gemini"), json(400, GEMINI), "The input token count"),
        (short("vllm"), json(400, OPENAI), "Your input exceeds"),
        // Where bytes pass, too.
        (short("openai"), json(400, OPENAI), "Your input exceeds"),
        (short("openai"), streamed, "Your input exceeds"),
        (short("xai"), json(400, XAI), "This model's maximum prompt length"),
    ] {
        let upstream = Upstream::new().replies(refusal);
        let (head, body) = send(layer(config), &upstream, of_codex()).await;
        assert_eq!(
            (head.status.as_u16(), &head.headers["content-type"]),
            (200, &"text/event-stream".parse().unwrap())
        );
        let data = body.lines().filter_map(|line| line.strip_prefix("data: "));
        let events: Vec<Value> = data.map(|event| serde_json::from_str(event).unwrap()).collect();
        let types: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["response.created", "response.in_progress", "error", "response.failed"]);
        let response = &events[3]["response"];
        assert_eq!(
            (&response["status"], &response["error"]["code"]),
            (&"failed".into(), &"context_length_exceeded".into())
        );
        assert!(response["error"]["message"].as_str().unwrap().starts_with(words), "{body}");
    }
    // Anything else that is wrong with its request is told by the status, as it is who asks for no stream.
    for (provider, refusal, request) in [
        ("vllm", r#"{"error":{"message":"no such parameter"}}"#, of_codex()),
        ("openai", r#"{"error":{"message":"no such parameter"}}"#, of_codex()),
        ("openai", OPENAI, bare("responses")),
    ] {
        let upstream = Upstream::new().replies(json(400, refusal));
        let (head, _) = send(layer(short(provider)), &upstream, request).await;
        assert_eq!(head.status, 400, "{provider}: {refusal}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_says_so_is_a_refusal_to_a_route() {
    let little = || Upstream::new().replies(json(400, ANTHROPIC));
    let done = format!(
        "data: {}\n\n",
        r#"{"type":"response.completed","response":{"id":"r","status":"completed","output":[]}}"#
    );
    let more = Upstream::new().replies(events("text/event-stream", [(Duration::ZERO, Some(done))]));
    let (status, body, _) = ask("anthropic", [&little(), &more], of_codex()).await;
    assert!(status == 200 && body.contains("response.completed"), "{status} {body}");
    let none = Upstream::new().replies(json(400, r#"{"error":{"message":"no such parameter"}}"#));
    let (status, body, reports) = ask("anthropic", [&little(), &none], of_codex()).await;
    assert!(status == 200 && body.contains("prompt is too long"), "{status} {body}");
    assert_eq!(reports.only().outcome, Outcome::NotServed);
}

#[tokio::test(start_paused = true)]
async fn an_error_in_the_first_frame_of_a_stream_counts_too() {
    let error = format!("data: {OPENAI}\n\n");
    let little = Upstream::new().replies(events("text/event-stream", [(Duration::ZERO, Some(error))]));
    let more = Upstream::new().replies(events("text/event-stream", [(Duration::ZERO, Some(DONE))]));
    let body = r#"{"model":"short","messages":[],"stream":true}"#;
    let (status, body, _) = ask("openai", [&little, &more], post("/v1/chat/completions", body)).await;
    assert!(status == 200 && body.contains("read all of it"), "{status} {body}");
    assert_eq!(little.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_all_find_too_long_is_refused_in_the_words_of_the_one_that_was_meant() {
    let longer = r#"{"error":{"message":"This model's maximum context length is 9 tokens","code":"context_length_exceeded"}}"#;
    let (little, more) =
        (Upstream::new().replies(json(400, OPENAI)), Upstream::new().replies(json(400, longer)));
    let (status, body, reports) = ask("openai", [&little, &more], bare("openai")).await;
    assert_eq!((status, body.as_str()), (400, OPENAI));
    assert_eq!(reports.only().outcome, Outcome::NotServed);
    // It is no answer to a client that could shorten its conversation that another model knows no such
    // parameter.
    let other = Upstream::new().replies(json(400, r#"{"error":{"message":"no such parameter"}}"#));
    let little = Upstream::new().replies(json(400, ANTHROPIC));
    let (status, body, _) = ask("anthropic", [&little, &other], bare("openai")).await;
    assert_eq!(status, 400);
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["error"]["code"], "context_length_exceeded");
    // One that may read it later is worth asking again.
    let busy = Upstream::new().replies(json(503, "{}"));
    let little = Upstream::new().replies(json(400, OPENAI));
    assert_eq!(ask("openai", [&little, &busy], bare("openai")).await.0, 503);
}

#[tokio::test]
async fn where_there_is_no_other_model_the_refusal_passes_as_it_is() {
    for request in [chat(), stream_chat()] {
        let upstream = Upstream::new().replies(json(400, OPENAI));
        let (head, body) = send(layer(openai()), &upstream, request).await;
        assert_eq!((head.status.as_u16(), body.as_str()), (400, OPENAI));
        assert_eq!(head.extensions.get::<Attempts>(), None);
    }
}

//! What a client asks for in words that only some of a provider's models know: they are asked without, and it
//! is named.

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::Full;
use nantian_ai::{Credential, TargetConfig, retry::Attempts};
use serde_json::{Value, json};

use crate::support::{Reports, Upstream, json as reply, layer, openai, post, send};

const DOES_NOT_THINK: &str = r#"{"error":"\"llama3.1:8b\" does not support thinking"}"#;
const OF_OLLAMA: &str =
    r#"{"message":{"role":"assistant","content":"Hi"},"done":true,"prompt_eval_count":3,"eval_count":4}"#;
const OF_BEDROCK: &str = r#"{"output":{"message":{"role":"assistant","content":[{"text":"Hi"}]}},"stopReason":"end_turn","usage":{"inputTokens":3,"outputTokens":4}}"#;
const OF_ANTHROPIC: &str = r#"{"id":"m","type":"message","role":"assistant","content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn","usage":{"input_tokens":3,"output_tokens":4}}"#;

fn llama() -> TargetConfig {
    TargetConfig::new("demo/llama", "ollama", "llama3.1:8b")
}

fn bedrock() -> TargetConfig {
    TargetConfig::new("demo/claude", "bedrock", "eu.anthropic.claude-sonnet-4-5-20250929-v1:0")
        .with_region("eu-central-1")
        .with_credential(Credential::bearer("bedrock-key"))
}

/// A conversation with Claude, with more members and headers.
fn messages(more: &str, headers: &[(&'static str, &'static str)]) -> Request<Full<Bytes>> {
    let body =
        format!(r#"{{"model":"any","max_tokens":2000,"messages":[{{"role":"user","content":"Hi"}}]{more}}}"#);
    let mut request = post("/v1/messages", &body);
    for (name, value) in headers {
        request.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    request
}

fn thinking() -> Request<Full<Bytes>> {
    messages(r#","thinking":{"type":"enabled","budget_tokens":1024}"#, &[])
}

/// A member of each request that the provider got.
pub(crate) fn asked(upstream: &Upstream, path: &str) -> Vec<Value> {
    let all = upstream.all();
    all.iter()
        .map(|(head, body)| {
            assert_eq!(head.headers["content-length"], body.len().to_string());
            serde_json::from_slice::<Value>(body).unwrap().pointer(path).cloned().unwrap_or_default()
        })
        .collect()
}

#[tokio::test]
async fn a_model_that_does_not_think_is_not_asked_to_from_then_on() {
    let adaptive = || messages(r#","thinking":{"type":"adaptive"}"#, &[]);
    let effort = || {
        let body = r#"{"model":"any","reasoning_effort":"high","messages":[{"role":"user","content":"Hi"}]}"#;
        post("/v1/chat/completions", body)
    };
    for request in [thinking, adaptive, effort] {
        let reports = Reports::default();
        let layer = layer(llama()).observer(reports.clone());
        let upstream = Upstream::new()
            .replies(reply(400, DOES_NOT_THINK))
            .replies(reply(200, OF_OLLAMA))
            .replies(reply(200, OF_OLLAMA));
        for attempts in [Some(Attempts(2)), None] {
            let (head, body) = send(layer.clone(), &upstream, request()).await;
            assert_eq!(head.status, 200, "{body}");
            assert_eq!(head.headers["x-nantian-dropped"], "thinking");
            assert_eq!(head.extensions.get().copied(), attempts);
        }
        assert_eq!(asked(&upstream, "/think"), [json!(true), Value::Null, Value::Null]);
        for report in reports.all() {
            assert!(report.call.dropped.to_string() == "thinking" && report.usage.output == 4, "{report:?}");
        }
    }
}

#[tokio::test]
async fn a_model_that_thinks_is_asked_to() {
    let upstream = Upstream::new().replies(reply(200, OF_OLLAMA));
    send(layer(llama()), &upstream, thinking()).await;
    assert_eq!(asked(&upstream, "/think"), [json!(true)]);
}

#[tokio::test]
async fn nothing_is_left_out_where_nothing_may_be_lost_and_what_the_client_says_itself_is_its_own() {
    // A level of effort would be lost at once.
    let adaptive = messages(r#","thinking":{"type":"adaptive"}"#, &[]);
    let own = post("/api/chat", r#"{"model":"any","messages":[],"think":true,"stream":false}"#);
    for (config, request) in [(llama().with_strict(true), adaptive), (llama(), own)] {
        let upstream = Upstream::new().replies(reply(400, DOES_NOT_THINK));
        let (head, body) = send(layer(config), &upstream, request).await;
        assert_eq!((head.status.as_u16(), upstream.requests()), (400, 1));
        assert!(body.contains("does not support thinking"), "{body}");
    }
}

#[tokio::test]
async fn features_of_claude_are_told_to_bedrock_as_far_as_it_knows_them() {
    const PATH: &str = "/additionalModelRequestFields/anthropic_beta";
    for (headers, told, dropped) in [
        (&[("anthropic-beta", "context-1m-2025-08-07")][..], json!(["context-1m-2025-08-07"]), None),
        (
            &[
                ("anthropic-beta", "claude-code-20250219, interleaved-thinking-2025-05-14"),
                ("anthropic-beta", "context-1m-2025-08-07"),
            ],
            json!(["interleaved-thinking-2025-05-14", "context-1m-2025-08-07"]),
            Some("anthropic-beta"),
        ),
        (&[("anthropic-beta", "files-api-2025-04-14")], Value::Null, Some("anthropic-beta")),
        (&[], Value::Null, None),
    ] {
        let upstream = Upstream::new().replies(reply(200, OF_BEDROCK));
        let (head, _) = send(layer(bedrock()), &upstream, messages("", headers)).await;
        assert_eq!(asked(&upstream, PATH), [told]);
        let named = head.headers.get("x-nantian-dropped").map(|value| value.to_str().unwrap());
        assert_eq!(named, dropped, "{headers:?}");
        assert!(!upstream.request().0.headers.contains_key("anthropic-beta"));
    }
}

#[tokio::test]
async fn a_feature_that_a_model_at_bedrock_does_not_know_is_left_out_of_that_request() {
    const REFUSED: &str = r#"{"message":"The model returned the following errors: invalid beta flag"}"#;
    let layer = layer(bedrock());
    let upstream = Upstream::new()
        .replies(reply(400, REFUSED))
        .replies(reply(200, OF_BEDROCK))
        .replies(reply(200, OF_BEDROCK));
    let request = || messages(r#","top_k":3"#, &[("anthropic-beta", "context-1m-2025-08-07")]);
    let (head, _) = send(layer.clone(), &upstream, request()).await;
    assert_eq!(
        (head.status.as_u16(), &head.headers["x-nantian-dropped"]),
        (200, &HeaderValue::from_static("anthropic-beta"))
    );
    // The names are the client's: another one may name features that the model knows.
    send(layer, &upstream, request()).await;
    let told = json!({"anthropic_beta": ["context-1m-2025-08-07"], "top_k": 3});
    let own = asked(&upstream, "/additionalModelRequestFields");
    assert_eq!(own, [told.clone(), json!({"top_k": 3}), told]);
}

#[tokio::test]
async fn features_that_a_provider_does_not_know_are_named() {
    let request = || messages("", &[("anthropic-beta", "context-1m-2025-08-07")]);
    let upstream = Upstream::new().replies(reply(200, r#"{"choices":[{"message":{"content":"Hi"}}]}"#));
    let (head, _) = send(layer(openai()), &upstream, request()).await;
    assert_eq!(head.headers["x-nantian-dropped"], "anthropic-beta");
    assert!(!upstream.request().0.headers.contains_key("anthropic-beta"));
    let (head, body) = send(layer(openai().with_strict(true)), &Upstream::new(), request()).await;
    assert!(head.status == 400 && body.contains("anthropic-beta"), "{body}");
}

#[tokio::test]
async fn features_reach_the_provider_that_knows_them_from_any_client() {
    let claude = TargetConfig::new("demo/claude", "anthropic", "claude-sonnet-4-5");
    let mut request =
        post("/v1/chat/completions", r#"{"model":"any","messages":[{"role":"user","content":"Hi"}]}"#);
    request.headers_mut().insert("anthropic-beta", HeaderValue::from_static("context-1m-2025-08-07"));
    let upstream = Upstream::new().replies(reply(200, OF_ANTHROPIC));
    let (head, _) = send(layer(claude), &upstream, request).await;
    assert!(!head.headers.contains_key("x-nantian-dropped"));
    assert_eq!(upstream.request().0.headers["anthropic-beta"], "context-1m-2025-08-07");
}

const OF_OPENAI: &str = r#"{"choices":[{"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#;

/// What a coding agent asks for.
fn agent(headers: &[(&'static str, &'static str)]) -> Request<Full<Bytes>> {
    let mut request = post(
        "/v1/messages",
        r#"{"model":"any","max_tokens":32000,"messages":[{"role":"user","content":"Hi"}]}"#,
    );
    for (name, value) in headers {
        request.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    request
}

fn refused(message: &str) -> http::Response<crate::support::Body> {
    let error =
        json!({"error": {"message": message, "type": "invalid_request_error", "param": "max_tokens"}});
    reply(400, &error.to_string())
}

#[tokio::test]
async fn a_limit_that_a_model_does_not_have_is_lowered_to_its_own_and_named() {
    const TOO_LARGE: &str = "max_tokens is too large: 32000. This model supports at most 16384 completion tokens, whereas you provided 32000.";
    let upstream = Upstream::new().replies(refused(TOO_LARGE)).replies(reply(200, OF_OPENAI));
    let (head, body) = send(layer(openai()), &upstream, agent(&[])).await;
    assert_eq!(
        (head.status.as_u16(), &head.headers["x-nantian-dropped"]),
        (200, &HeaderValue::from_static("max_tokens")),
        "{body}"
    );
    assert_eq!(head.extensions.get::<Attempts>(), Some(&Attempts(2)));
    assert_eq!(asked(&upstream, "/max_tokens"), [json!(32_000), json!(16_384)]);
}

#[tokio::test]
async fn a_limit_is_lowered_where_other_dialects_have_it() {
    const TOO_LARGE: &str = r#"{"message":"The maximum tokens you requested exceeds the model limit of 10000. Try again with a maximum tokens value that is lower than 10000."}"#;
    let upstream = Upstream::new().replies(reply(400, TOO_LARGE)).replies(reply(200, OF_BEDROCK));
    let (head, _) = send(layer(bedrock()), &upstream, agent(&[])).await;
    assert_eq!(head.status, 200);
    assert_eq!(asked(&upstream, "/inferenceConfig/maxTokens"), [json!(32_000), json!(10_000)]);
}

#[tokio::test]
async fn a_refusal_that_quotes_one_client_lowers_no_limit_of_another_one() {
    const QUOTED: &str = "Invalid schema for function 'f': 'max_tokens supports at most 1 token' is not valid under any of the given schemas.";
    let layer = layer(openai());
    let upstream =
        Upstream::new().replies(refused(QUOTED)).replies(refused(QUOTED)).replies(reply(200, OF_OPENAI));
    assert_eq!(send(layer.clone(), &upstream, agent(&[])).await.0.status, 400);
    let (head, body) = send(layer, &upstream, agent(&[])).await;
    assert!(head.status == 200 && !head.headers.contains_key("x-nantian-dropped"), "{body}");
    assert_eq!(asked(&upstream, "/max_tokens").last(), Some(&json!(32_000)));
}

#[tokio::test]
async fn a_limit_for_which_a_conversation_leaves_no_room_is_lowered_for_it_alone() {
    const NO_ROOM: &str = "'max_tokens' or 'max_completion_tokens' is too large: 32000. This model's maximum context length is 40000 tokens and your request has 10000 input tokens (32000 > 40000 - 10000).";
    let vllm = TargetConfig::new("demo/vllm", "vllm", "qwen").with_endpoint("http://vllm/v1");
    let layer = layer(vllm);
    let upstream = Upstream::new()
        .replies(refused(NO_ROOM))
        .replies(reply(200, OF_OPENAI))
        .replies(reply(200, OF_OPENAI));
    for _ in 0..2 {
        let (head, body) = send(layer.clone(), &upstream, agent(&[])).await;
        assert_eq!(head.status, 200, "{body}");
    }
    let named = asked(&upstream, "/max_tokens");
    let named = if named[0].is_null() { asked(&upstream, "/max_completion_tokens") } else { named };
    assert_eq!(named, [json!(32_000), json!(30_000), json!(32_000)]);
}

#[tokio::test]
async fn a_limit_is_not_lowered_where_nothing_may_be_lost_nor_twice() {
    const TOO_LARGE: &str =
        "max_tokens is too large: 32000. This model supports at most 16384 completion tokens.";
    let upstream = Upstream::new().replies(refused(TOO_LARGE));
    let (head, _) = send(layer(openai()), &upstream, agent(&[("x-nantian-strict", "true")])).await;
    assert_eq!((head.status.as_u16(), upstream.requests()), (400, 1));

    let again = "max_tokens is too large: 16384. This model supports at most 4096 completion tokens.";
    let upstream = Upstream::new().replies(refused(TOO_LARGE)).replies(refused(again));
    let (head, body) = send(layer(openai()), &upstream, agent(&[])).await;
    assert_eq!((head.status.as_u16(), upstream.requests()), (400, 2));
    assert!(body.contains("4096"), "{body}");

    // In its own dialect a client knows what it asks for.
    let upstream = Upstream::new().replies(refused(TOO_LARGE));
    let same = post("/v1/chat/completions", r#"{"model":"any","max_tokens":32000,"messages":[]}"#);
    assert_eq!(send(layer(openai()), &upstream, same).await.0.status, 400);
}

#[tokio::test]
async fn reasoning_that_a_provider_refuses_is_left_out_and_named() {
    const REFUSED: &str = r#"{"type":"error","error":{"type":"invalid_request_error","message":"messages.1.content.0: Invalid `signature` in `thinking` block"}}"#;
    const BODY: &str = r#"{"model":"any","max_tokens":9,"thinking":{"type":"enabled","budget_tokens":1024},"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"of-another"},{"type":"tool_use","id":"c","name":"f","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"c"}]}]}"#;
    let claude = || TargetConfig::new("demo/claude", "anthropic", "claude-sonnet-4-5");
    let upstream = Upstream::new().replies(reply(400, REFUSED)).replies(reply(200, OF_ANTHROPIC));
    let (head, body) = send(layer(claude()), &upstream, post("/v1/messages", BODY)).await;
    assert_eq!((head.status.as_u16(), head.extensions.get()), (200, Some(&Attempts(2))), "{body}");
    assert_eq!(head.headers["x-nantian-dropped"], "messages.reasoning,thinking");
    assert_eq!(asked(&upstream, "/messages/1/content/0/type"), ["thinking", "tool_use"]);
    // It does not think in a turn of which the beginning is gone.
    assert_eq!(asked(&upstream, "/thinking/type"), ["enabled", "disabled"]);

    let mut strict = post("/v1/messages", BODY);
    strict.headers_mut().insert("x-nantian-strict", HeaderValue::from_static("true"));
    let upstream = Upstream::new().replies(reply(400, REFUSED));
    let (head, body) = send(layer(claude()), &upstream, strict).await;
    assert_eq!((head.status.as_u16(), &*body), (400, REFUSED));
}

#[tokio::test]
async fn reasoning_that_a_provider_refuses_is_left_out_of_a_count_of_tokens_too() {
    const OF_CLAUDE: &str = r#"{"model":"any","messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"of-another"},{"type":"text","text":"b"}]},{"role":"user","content":"c"}]}"#;
    const OF_GPT: &str = r#"{"model":"any","input":[{"role":"user","content":"a"},{"type":"reasoning","id":"rs_0_resp_1","summary":[],"encrypted_content":"ntn1.signed.openai.rs_1.gAAA"},{"type":"message","role":"assistant","content":"b"}]}"#;
    let claude = TargetConfig::new("demo/claude", "anthropic", "claude-sonnet-4-5");
    let gpt = TargetConfig::new("demo/gpt", "openai", "gpt-5");
    for (config, path, body, refusal, kind, kinds) in [
        (
            claude,
            "/v1/messages/count_tokens",
            OF_CLAUDE,
            "messages.1.content.0: Invalid `signature` in `thinking` block",
            "/messages/1/content/0/type",
            ["thinking", "text"],
        ),
        (
            gpt,
            "/v1/responses/input_tokens",
            OF_GPT,
            "The encrypted content gAAA...5IEt could not be verified.",
            "/input/1/type",
            ["reasoning", "message"],
        ),
    ] {
        let upstream = Upstream::new().replies(refused(refusal)).replies(reply(200, r#"{"input_tokens":9}"#));
        let (head, said) = send(layer(config), &upstream, post(path, body)).await;
        assert_eq!((head.status.as_u16(), &*said), (200, r#"{"input_tokens":9}"#), "{path}");
        assert_eq!(head.headers["x-nantian-dropped"], "messages.reasoning", "{path}");
        assert_eq!(asked(&upstream, kind), kinds, "{path}");
    }
}

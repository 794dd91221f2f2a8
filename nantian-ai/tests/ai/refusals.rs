use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use nantian_ai::retry::RetryPolicy;
use nantian_ai::usage::Outcome;
use nantian_ai::{ClientDialect, Error, TargetConfig, Unasked};
use serde_json::{Value, json};

use crate::support::{
    Reports, Upstream, chat, events, json as reply, layer, openai, post, send, stream_chat,
};

async fn refusal(config: TargetConfig, request: Request<Full<Bytes>>) -> (u16, Value) {
    let upstream = Upstream::new();
    let (head, body) = send(layer(config), &upstream, request).await;
    assert_eq!(upstream.requests(), 0);
    assert_eq!(head.headers["content-type"], "application/json");
    let error = head.extensions.get::<Arc<Error>>().unwrap();
    assert_eq!(error.status(), head.status);
    assert!(head.extensions.get::<Unasked>().is_some());
    (head.status.as_u16(), serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn an_operation_that_is_not_translated_is_named_in_the_clients_dialect() {
    let (status, body) = refusal(openai(), post("/api/generate", "{}")).await;
    assert_eq!(status, 400);
    let message = "completions of the ollama dialect cannot be asked of a provider that speaks openai";
    assert_eq!(body, json!({"error": message}));
    let ollama = TargetConfig::new("demo/ollama", "ollama", "llama3");
    let (status, body) = refusal(ollama, post("/v1/completions", "{}")).await;
    assert_eq!(status, 400);
    assert_eq!(
        body,
        json!({"error": {
            "message": "completions of the openai dialect cannot be asked of a provider that speaks ollama",
            "type": "invalid_request_error",
            "param": null,
            "code": "unsupported_dialect",
        }})
    );
}

#[tokio::test]
async fn what_the_other_dialect_cannot_carry_is_refused_by_its_field() {
    let audio = r#"{"messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}]}]}"#;
    let claude = TargetConfig::new("demo/claude", "anthropic", "claude-sonnet-4-5");
    let (status, body) = refusal(claude, post("/v1/chat/completions", audio)).await;
    assert_eq!(status, 400);
    assert_eq!(body["error"]["code"], "untranslatable");
    let message = "`messages.content.type` `input_audio` is not translated";
    assert_eq!(body["error"]["message"], message);
}

#[tokio::test]
async fn sound_is_refused_of_anybody_but_a_user() {
    for (role, said) in [("system", ""), ("developer", ""), ("assistant", r#"{"type":"text","text":"Hm"},"#)]
    {
        let recording = format!(
            r#"{{"messages":[{{"role":"{role}","content":[{said}{{"type":"input_audio","input_audio":{{"data":"AAAA","format":"wav"}}}}]}},{{"role":"user","content":"Hi"}}]}}"#
        );
        let gemini = TargetConfig::new("demo/gemini", "gemini", "gemini-2.5-flash");
        let (status, body) = refusal(gemini, post("/v1/chat/completions", &recording)).await;
        assert_eq!((status, body["error"]["code"].as_str()), (400, Some("untranslatable")), "{role}");
        let message = "`messages.content.type` `input_audio` is translated of a user alone";
        assert_eq!(body["error"]["message"], message);
    }
}

#[tokio::test]
async fn a_conversation_that_only_its_provider_has_stored_is_refused_by_others() {
    let more = r#"{"previous_response_id":"resp_1","input":"And?"}"#;
    for config in [
        TargetConfig::new("demo/claude", "anthropic", "claude-sonnet-4-5"),
        TargetConfig::new("demo/deepseek", "deepseek", "deepseek-chat"),
    ] {
        let (status, body) = refusal(config, post("/v1/responses", more)).await;
        assert_eq!(status, 400);
        let message = "`previous_response_id` names what only its own provider has stored";
        assert_eq!(body["error"]["message"], message);
    }
}

#[tokio::test]
async fn a_client_or_an_operator_may_rather_be_refused_than_lose_anything() {
    let body = r#"{"messages":[],"seed":7,"logit_bias":{"1":2}}"#;
    let claude = || TargetConfig::new("demo/claude", "anthropic", "claude-sonnet-4-5");
    let mut asked = post("/v1/chat/completions", body);
    asked.headers_mut().insert("x-nantian-strict", HeaderValue::from_static("true"));
    for (config, request) in
        [(claude(), asked), (claude().with_strict(true), post("/v1/chat/completions", body))]
    {
        let (status, body) = refusal(config, request).await;
        assert_eq!((status, body["error"]["code"].as_str()), (400, Some("lossy")));
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains("logit_bias") && message.contains("seed"), "{message}");
    }
}

#[tokio::test]
async fn a_body_that_is_no_json_object_is_refused() {
    for body in ["", "hello", "[]", r#"{"model":"#, r#"{"model":"a"} x"#] {
        let (status, answer) = refusal(openai(), post("/v1/chat/completions", body)).await;
        assert_eq!(status, 400, "{body}");
        assert_eq!(answer["error"]["code"], "invalid_json", "{body}");
    }
}

/// A chat after what may stand before it.
fn marked(mark: &str) -> String {
    format!(r#"{mark}{{"messages":[{{"role":"user","content":"Hi"}}]}}"#)
}

#[tokio::test]
async fn a_body_in_another_encoding_is_refused_for_that_and_one_that_only_names_its_own_is_not() {
    let claude = || TargetConfig::new("demo/claude", "anthropic", "claude-sonnet-4-5");
    for text in ["\u{feff}", ""].map(marked) {
        let chars = || text.chars().map(u32::from);
        let bodies: [Vec<u8>; 4] = [
            text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
            chars().flat_map(u32::to_le_bytes).collect(),
            chars().flat_map(u32::to_be_bytes).collect(),
        ];
        for (config, body) in bodies.into_iter().flat_map(|body| [(openai(), body.clone()), (claude(), body)])
        {
            let mut request = chat();
            *request.body_mut() = Full::from(body);
            let (status, answer) = refusal(config, request).await;
            assert_eq!((status, answer["error"]["code"].as_str()), (400, Some("invalid_json")));
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(message.contains("JSON must be UTF-8"), "{message}");
        }
    }
    for config in [openai(), claude()] {
        let upstream = Upstream::new().replies(reply(200, r#"{"choices":[],"content":[]}"#));
        let request = post("/v1/chat/completions", &marked("\u{feff}"));
        let (head, body) = send(layer(config), &upstream, request).await;
        assert_eq!((head.status.as_u16(), upstream.requests()), (200, 1), "{body}");
    }
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused() {
    let (status, body) = refusal(openai().with_max_body(20), chat()).await;
    assert_eq!(status, 413);
    assert_eq!(body["error"]["code"], "request_too_large");
}

#[tokio::test]
async fn a_request_that_is_compressed_with_something_else_is_refused() {
    let mut request = chat();
    request.headers_mut().insert("content-encoding", HeaderValue::from_static("br"));
    let (status, body) = refusal(openai(), request).await;
    assert_eq!(status, 415);
    assert_eq!(body["error"]["code"], "unsupported_encoding");
}

#[tokio::test]
async fn what_is_no_operation_is_refused() {
    let (status, body) = refusal(openai(), post("/v1/files", "{}")).await;
    assert_eq!(status, 404);
    assert_eq!(body["error"]["code"], "unknown_path");
    let request = Request::get("/v1/messages").body(Full::default()).unwrap();
    let (status, body) = refusal(openai(), request).await;
    assert_eq!(status, 405);
    assert_eq!(body["error"]["type"], "invalid_request_error");
}

#[tokio::test]
async fn a_credential_that_the_provider_refuses_is_not_blamed_on_the_client() {
    let upstream =
        Upstream::new().replies(reply(401, r#"{"error":{"message":"Incorrect API key sk-ou***rs"}}"#));
    let (head, body) = send(layer(openai()), &upstream, chat()).await;
    assert_eq!(head.status, 502);
    assert!(!body.contains("sk-ou"), "{body}");
    assert!(body.contains("upstream_auth_error"), "{body}");
    assert!(head.extensions.get::<Arc<Error>>().unwrap().may_fail_over());
}

#[tokio::test]
async fn an_account_without_credit_is_not_told_to_the_client() {
    let claude = || TargetConfig::new("demo/claude", "anthropic", "claude-sonnet-4-5");
    let messages = || post("/v1/messages", r#"{"model":"any","max_tokens":9,"messages":[]}"#);
    for said in [
        "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits.",
        "You have reached your specified API usage limits. You will regain access on 2026-04-01 at 00:00 UTC.",
        "You have reached your specified workspace API usage limits.",
        "This organization has been disabled.",
    ] {
        let error = json!({"type": "error", "error": {"type": "invalid_request_error", "message": said}});
        for request in [chat(), messages()] {
            let upstream = Upstream::new().replies(reply(400, &error.to_string()));
            let (head, body) = send(layer(claude()), &upstream, request).await;
            assert_eq!((head.status.as_u16(), upstream.requests()), (502, 1));
            assert!(!body.contains(said), "{body}");
            assert_eq!(head.headers["x-should-retry"], "false", "no other try mends it");
            let error = head.extensions.get::<Arc<Error>>().unwrap();
            assert!(error.may_fail_over() && error.code() == "upstream_auth");
        }
    }
}

#[tokio::test]
async fn an_account_without_credit_is_told_apart_from_a_limit_of_its_rate() {
    let spent = r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#;
    for request in [chat(), post("/v1/messages", r#"{"model":"any","max_tokens":9,"messages":[]}"#)] {
        let mut refusal = reply(429, spent);
        refusal.headers_mut().insert("retry-after", HeaderValue::from_static("1"));
        refusal.headers_mut().insert("retry-after-ms", HeaderValue::from_static("1000"));
        let (head, body) = send(layer(openai()), &Upstream::new().replies(refusal), request).await;
        assert_eq!(head.status, 502);
        assert!(!body.contains("billing"), "{body}");
        assert!(
            body.contains(r#""type":"upstream_auth_error""#) || body.contains(r#""type":"api_error""#),
            "{body}"
        );
        assert_eq!(head.headers["x-should-retry"], "false", "no other try mends it");
        assert!(!head.headers.keys().any(|name| name.as_str().starts_with("retry-after")));
    }

    let busy = r#"{"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded"}}"#;
    let mut refusal = reply(429, busy);
    refusal.headers_mut().insert("retry-after", HeaderValue::from_static("7"));
    let upstream = Upstream::new().replies(refusal);
    let (head, body) = send(layer(openai()), &upstream, chat()).await;
    assert_eq!(
        (head.status.as_u16(), &head.headers["retry-after"], &*body),
        (429, &HeaderValue::from_static("7"), busy)
    );
    assert!(head.extensions.get::<Arc<Error>>().unwrap().may_fail_over());
}

#[tokio::test]
async fn the_providers_own_errors_pass_as_they_are() {
    let error = r#"{"error":{"message":"no such thing","type":"invalid_request_error"}}"#;
    for (status, is_of_the_provider) in [(404, true), (400, false)] {
        let upstream = Upstream::new().replies(reply(status, error));
        let (head, body) = send(layer(openai()), &upstream, chat()).await;
        assert_eq!((head.status.as_u16(), body.as_str()), (status, error));
        let error = head.extensions.get::<Arc<Error>>();
        assert_eq!(error.is_some_and(|error| error.may_fail_over()), is_of_the_provider);
    }
}

#[tokio::test]
async fn a_model_that_is_gone_is_of_the_provider_whatever_its_status() {
    let messages = || post("/v1/messages", r#"{"model":"any","max_tokens":9,"messages":[]}"#);
    for (error, request, status) in [
        (r#"{"error":{"message":"Model Not Exist","type":"invalid_request_error"}}"#, chat(), 400),
        (r#"{"error":{"message":"Model Not Exist","type":"invalid_request_error"}}"#, messages(), 404),
        (
            r#"{"error":{"message":"Failed to deserialize the JSON body into the target type: messages[3]: unknown variant `image_url`, expected `text`"}}"#,
            chat(),
            400,
        ),
        (r#"{"error":{"message":"Unsupported MIME type: image/gif","code":400}}"#, messages(), 400),
    ] {
        let upstream = Upstream::new().replies(reply(400, error));
        let (head, body) = send(layer(openai()), &upstream, request).await;
        assert_eq!((head.status.as_u16(), upstream.requests()), (status, 1), "{body}");
        assert!(head.extensions.get::<Arc<Error>>().unwrap().may_fail_over(), "{error}");
    }
}

/// What Groq says of what the model has written.
const FAILED: &str = r#"{"error":{"message":"Failed to call a function. Please adjust your prompt. See 'failed_generation' for more details.","type":"invalid_request_error","code":"tool_use_failed","failed_generation":"<function=f"}}"#;

#[tokio::test(start_paused = true)]
async fn what_the_model_has_failed_at_is_tried_again_and_is_no_fault_of_the_client() {
    const ANSWER: &str =
        r#"{"choices":[{"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}"#;
    let messages = || post("/v1/messages", r#"{"model":"any","max_tokens":9,"messages":[]}"#);
    let groq = || TargetConfig::new("demo/groq", "groq", "m").with_retry(RetryPolicy::new(1, Duration::ZERO));
    for request in [chat as fn() -> Request<Full<Bytes>>, messages] {
        let upstream = Upstream::new().replies(reply(400, FAILED)).replies(reply(200, ANSWER));
        let (head, body) = send(layer(groq()), &upstream, request()).await;
        assert_eq!((head.status.as_u16(), upstream.requests()), (200, 2), "{body}");
        let upstream = Upstream::new().replies(reply(400, FAILED)).replies(reply(400, FAILED));
        let reports = Reports::default();
        let (head, _) = send(layer(groq()).observer(reports.clone()), &upstream, request()).await;
        assert!(head.extensions.get::<Arc<Error>>().unwrap().may_fail_over());
        assert_eq!(reports.only().outcome, Outcome::Refused, "it was not free");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_model_has_failed_at_is_not_free_where_a_stream_tells_so() {
    let messages = || post("/v1/messages", r#"{"model":"any","max_tokens":9,"stream":true,"messages":[]}"#);
    let other = r#"{"error":{"message":"m","type":"server_error"}}"#;
    for request in [stream_chat as fn() -> Request<Full<Bytes>>, messages] {
        for (error, outcome) in [(FAILED, Outcome::Refused), (other, Outcome::NotServed)] {
            let stream = format!("event: error\ndata: {error}\n\n");
            let upstream =
                Upstream::new().replies(events("text/event-stream", [(Duration::ZERO, Some(stream))]));
            let reports = Reports::default();
            let config =
                TargetConfig::new("demo/groq", "groq", "m").with_retry(RetryPolicy::new(0, Duration::ZERO));
            let (head, _) = send(layer(config).observer(reports.clone()), &upstream, request()).await;
            assert!(!head.status.is_success());
            assert_eq!(reports.only().outcome, outcome, "{error}");
        }
    }
}

#[tokio::test]
async fn another_responder_answers_instead() {
    let teapot = |error: &Error, client: ClientDialect| {
        let body = format!("{client}: {}", error.code());
        Response::builder().status(418).body(Bytes::from(body)).unwrap()
    };
    let upstream = Upstream::new();
    let layer = layer(openai()).responder(teapot);
    let (head, body) = send(layer, &upstream, post("/api/generate", "{}")).await;
    assert_eq!(head.status, 418);
    assert_eq!(body, "ollama: unsupported_dialect");
}

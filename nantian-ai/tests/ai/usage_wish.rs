//! Providers that refuse to be asked for the usage of a stream.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use nantian_ai::{AiLayer, Dialect, Target, TargetConfig, retry::Attempts};
use serde_json::Value;

use crate::support::{Body, Reports, Upstream, events, json, post, send, stream_chat};
use crate::wishes;

const REFUSAL: &str = r#"{"error":{"message":"Unrecognized request argument supplied: stream_options","type":"invalid_request_error"}}"#;

const STREAM: &str = "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"four score\"},\
                      \"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

fn older(reports: &Reports) -> AiLayer<Reports> {
    let config = TargetConfig::new("demo/older", "acme", "m")
        .with_format(Dialect::OpenAi)
        .with_endpoint("http://provider");
    AiLayer::new(Arc::new(Target::new(config).unwrap())).observer(reports.clone())
}

fn stream() -> Response<Body> {
    events("text/event-stream", [(Duration::ZERO, Some(STREAM))])
}

fn anthropic_chat() -> Request<Full<bytes::Bytes>> {
    let body = r#"{"model":"any","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"stream_options"}]}"#;
    post("/v1/messages", body)
}

/// The `stream_options` of each request that the provider got.
fn asked(upstream: &Upstream) -> Vec<Value> {
    wishes::asked(upstream, "/stream_options")
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_refuses_the_wish_is_asked_without_it_from_then_on() {
    let wish = serde_json::json!({"include_usage": true});
    for chat in [stream_chat, anthropic_chat] {
        for (status, said) in [(400, REFUSAL), (422, r#"{"detail":[{"loc":["body","stream_options"]}]}"#)] {
            let reports = Reports::default();
            let layer = older(&reports);
            let upstream = Upstream::new().replies(json(status, said)).replies(stream()).replies(stream());
            let (head, body) = send(layer.clone(), &upstream, chat()).await;
            assert!(head.status == 200 && body.contains("four score"), "{body}");
            assert_eq!(head.extensions.get::<Attempts>(), Some(&Attempts(2)));
            let (head, _) = send(layer, &upstream, chat()).await;
            assert_eq!(head.extensions.get::<Attempts>(), None);
            assert_eq!(asked(&upstream), [wish.clone(), Value::Null, Value::Null]);
            for report in reports.all() {
                assert!(report.usage.estimated && report.usage.output > 0, "{report:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_something_else_is_the_answer_and_teaches_nothing() {
    // It repeats the request, as those of FastAPI do.
    const OTHER: &str = r#"{"detail":[{"loc":["body","temperature"],"input":{"stream_options":{}}}]}"#;
    let layer = older(&Reports::default());
    let upstream = Upstream::new().replies(json(422, OTHER)).replies(json(422, OTHER)).replies(stream());
    let (head, body) = send(layer.clone(), &upstream, stream_chat()).await;
    assert_eq!((head.status.as_u16(), body.as_str()), (422, OTHER));
    send(layer, &upstream, stream_chat()).await;
    let asked = asked(&upstream);
    assert!(asked[0].is_object() && asked[1].is_null() && asked[2].is_object(), "{asked:?}");
}

#[tokio::test]
async fn a_refusal_without_a_word_of_it_passes() {
    let other = r#"{"error": {"message": "no such parameter", "type": "invalid_request_error"}}"#;
    let upstream = Upstream::new().replies(json(400, other));
    let (head, body) = send(older(&Reports::default()), &upstream, stream_chat()).await;
    assert_eq!((head.status.as_u16(), body.as_str(), upstream.requests()), (400, other, 1));
}

#[tokio::test]
async fn a_wish_of_the_client_is_its_own() {
    let upstream = Upstream::new().replies(json(400, REFUSAL));
    let body = r#"{"model":"any","messages":[],"stream":true,"stream_options":{"include_usage":true}}"#;
    let request = post("/v1/chat/completions", body);
    let (head, body) = send(older(&Reports::default()), &upstream, request).await;
    assert_eq!((head.status.as_u16(), body.as_str(), upstream.requests()), (400, REFUSAL, 1));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_what_the_client_says_in_the_field_is_the_answer_and_teaches_nothing() {
    let wish = serde_json::json!({"include_usage": true});
    for said in [r#"{"include_obfuscation":5}"#, r#"{"include_usage":false}"#, "{}", "5"] {
        let layer = older(&Reports::default());
        let upstream = Upstream::new().replies(json(400, REFUSAL)).replies(stream());
        let asking = format!(r#"{{"model":"any","messages":[],"stream":true,"stream_options":{said}}}"#);
        let (head, body) = send(layer.clone(), &upstream, post("/v1/chat/completions", &asking)).await;
        assert_eq!((head.status.as_u16(), body.as_str(), upstream.requests()), (400, REFUSAL, 1), "{said}");
        send(layer, &upstream, stream_chat()).await;
        assert_eq!(asked(&upstream)[1], wish, "{said}: all others are still asked for");
    }
}

#[tokio::test(start_paused = true)]
async fn a_null_in_the_field_says_nothing() {
    let upstream = Upstream::new().replies(json(400, REFUSAL)).replies(stream());
    let body = r#"{"model":"any","messages":[],"stream":true,"stream_options":null}"#;
    let (head, _) = send(older(&Reports::default()), &upstream, post("/v1/chat/completions", body)).await;
    assert_eq!(head.status, 200);
    assert_eq!(asked(&upstream), [serde_json::json!({"include_usage": true}), Value::Null]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_names_the_field_teaches_nothing() {
    let wish = serde_json::json!({"include_usage": true});
    for chat in [stream_chat, anthropic_chat] {
        for status in [403, 404, 500, 503] {
            let layer = older(&Reports::default());
            let upstream = Upstream::new().replies(json(status, REFUSAL)).replies(stream());
            let (head, _) = send(layer.clone(), &upstream, chat()).await;
            assert!(!head.status.is_success() && upstream.requests() == 1, "{status}: {head:?}");
            send(layer, &upstream, chat()).await;
            assert_eq!(asked(&upstream), [wish.clone(), wish.clone()], "{status}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_one_piece_teaches_nothing() {
    let wish = serde_json::json!({"include_usage": true});
    let whole = r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"four score"},"finish_reason":"stop"}]}"#;
    // Providers may read the first of two members of one name.
    let twice =
        || post("/v1/chat/completions", r#"{"model":"any","messages":[],"stream":false,"stream":true}"#);
    for request in [twice, stream_chat, anthropic_chat] {
        let layer = older(&Reports::default());
        let upstream =
            Upstream::new().replies(json(400, REFUSAL)).replies(json(200, whole)).replies(stream());
        let (head, _) = send(layer.clone(), &upstream, request()).await;
        assert_eq!(head.status, 200);
        send(layer, &upstream, stream_chat()).await;
        assert_eq!(asked(&upstream), [wish.clone(), Value::Null, wish.clone()]);
    }
}

//! Pictures in a conversation with a model that sees none.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use nantian_ai::TargetConfig;
use serde_json::{Value, json};

use crate::{
    support::{Upstream, json as reply, layer, post, send},
    taught::{asked, refused, strict},
    too_long::ask,
};

const SEES_NONE: &str = "Failed to deserialize the JSON body into the target type: messages[1]: unknown variant `image_url`, expected `text` at line 1 column 9";
const OF_OLLAMA: &str = r#"{"error":"this model does not support image input"}"#;
const OF_OPENROUTER: &str =
    r#"{"error":{"message":"No endpoints found that support image input","code":404}}"#;
const OF_VLLM: &str = r#"{"error":{"message":"Qwen/Qwen3-8B is not a multimodal model None","type":"BadRequestError","param":null,"code":400}}"#;
const OF_LLAMACPP: &str = r#"{"error":{"code":500,"message":"image input is not supported - hint: if this is unexpected, you may need to provide the mmproj","type":"server_error"}}"#;
const OF_BEDROCK: &str = r#"{"message":"This model doesn't support the image field for user messages. Remove image and try again."}"#;
const ANSWER: &str =
    r#"{"choices":[{"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}"#;
const CONVERSED: &str =
    r#"{"output":{"message":{"role":"assistant","content":[{"text":"Hi"}]}},"stopReason":"end_turn"}"#;
const LINE: &str = r#"{"message":{"role":"assistant","content":"Hi"},"done":true,"done_reason":"stop"}"#;

/// A screenshot that a tool of the client has made.
fn seen() -> Request<Full<Bytes>> {
    let body = json!({"model": "short", "max_tokens": 9, "messages": [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        ]}]},
    ]});
    post("/v1/messages", &body.to_string())
}

/// The same of a client of Chat Completions.
fn seen_in_a_chat() -> Request<Full<Bytes>> {
    let picture = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}});
    let body = json!({"model": "short", "messages": [{"role": "user", "content": [picture]}]});
    post("/v1/chat/completions", &body.to_string())
}

#[tokio::test(start_paused = true)]
async fn another_model_is_shown_them_where_there_is_one() {
    for (provider, request, refusal) in [
        ("deepseek", seen(), refused(SEES_NONE)),
        ("deepseek", seen_in_a_chat(), refused(SEES_NONE)),
        ("vllm", seen(), reply(400, OF_VLLM)),
    ] {
        let blind = Upstream::new().replies(refusal);
        let other = Upstream::new().replies(reply(200, ANSWER));
        let (status, body, _) = ask(provider, [&blind, &other], request).await;
        assert_eq!((status, blind.requests(), other.requests()), (200, 1, 1), "{body}");
        assert!(String::from_utf8_lossy(&other.request().1).contains("AAAA"));
    }
}

#[tokio::test(start_paused = true)]
async fn another_model_reads_what_gemini_cannot_fetch() {
    for said in [
        "Cannot fetch content from the provided URL. Please ensure the URL is valid.",
        "Invalid or unsupported file uri: https://a.example/b.png",
        "Unsupported MIME type: image/webp",
    ] {
        let refusal = json!({"error": {"code": 400, "message": said, "status": "INVALID_ARGUMENT"}});
        let blind = Upstream::new().replies(reply(400, &refusal.to_string()));
        let other = Upstream::new().replies(reply(200, ANSWER));
        let picture =
            json!({"type": "image_url", "image_url": {"url": "https://a.example/b.png?X-Amz-Signature=c"}});
        let body = json!({"model": "short", "messages": [{"role": "user", "content": [picture]}]});
        let (status, body, _) =
            ask("gemini", [&blind, &other], post("/v1/chat/completions", &body.to_string())).await;
        assert_eq!((status, blind.requests(), other.requests()), (200, 1, 1), "{said} {body}");
    }
}

fn at_bedrock(model: &str) -> TargetConfig {
    TargetConfig::new("demo/any", "bedrock", model).with_region("eu-central-1")
}

#[tokio::test]
async fn the_conversation_goes_on_without_them_where_there_is_none() {
    let deepseek = || TargetConfig::new("demo/deepseek", "deepseek", "deepseek-chat");
    let openrouter = || TargetConfig::new("demo/qwen", "openrouter", "qwen/qwen3");
    let llamacpp = || TargetConfig::new("demo/qwen", "llamacpp", "qwen3").with_endpoint("http://provider");
    let vllm = TargetConfig::new("demo/qwen", "vllm", "Qwen/Qwen3-8B").with_endpoint("http://provider");
    let llama = TargetConfig::new("demo/llama", "ollama", "llama3.2");
    for (config, request, refusal, answer) in [
        (deepseek(), seen(), refused(SEES_NONE), ANSWER),
        (deepseek(), seen_in_a_chat(), refused(SEES_NONE), ANSWER),
        (llama, seen(), reply(400, OF_OLLAMA), LINE),
        (openrouter(), seen(), reply(404, OF_OPENROUTER), ANSWER),
        (openrouter(), seen_in_a_chat(), reply(404, OF_OPENROUTER), ANSWER),
        (vllm, seen(), reply(400, OF_VLLM), ANSWER),
        (llamacpp(), seen(), reply(500, OF_LLAMACPP), ANSWER),
        (llamacpp(), seen_in_a_chat(), reply(500, OF_LLAMACPP), ANSWER),
        (at_bedrock("zai.glm-4.7"), seen(), reply(400, OF_BEDROCK), CONVERSED),
        (at_bedrock("amazon.nova-micro-v1:0"), seen(), reply(400, OF_BEDROCK), CONVERSED),
    ] {
        let upstream = Upstream::new().replies(refusal).replies(reply(200, answer));
        let (head, body) = send(layer(config), &upstream, request).await;
        assert_eq!((head.status.as_u16(), upstream.requests()), (200, 2), "{body}");
        let named = head.headers["x-nantian-dropped"].to_str().unwrap();
        assert!(named.contains("messages.content.image"), "{named}");
        let sent = asked(&upstream, "/messages");
        assert!(sent[0].to_string().contains("AAAA") && !sent[1].to_string().contains("AAAA"), "{sent:?}");
        assert!(sent[1].to_string().contains("[image omitted]"), "{sent:?}");
    }
}

#[tokio::test]
async fn where_nothing_may_be_lost_the_client_hears_of_it() {
    let config = TargetConfig::new("demo/vllm", "vllm", "qwen3");
    let upstream = Upstream::new().replies(refused(SEES_NONE));
    let request = strict(seen());
    let (head, body) = send(layer(config.with_endpoint("http://provider")), &upstream, request).await;
    let error = &serde_json::from_str::<Value>(&body).unwrap()["error"]["type"];
    assert_eq!((head.status.as_u16(), error), (400, &json!("invalid_request_error")));
    assert_eq!(upstream.requests(), 1);
    let upstream = Upstream::new().replies(refused(SEES_NONE));
    let config = TargetConfig::new("demo/deepseek", "deepseek", "deepseek-chat");
    let (head, body) = send(layer(config), &upstream, strict(seen_in_a_chat())).await;
    assert!(head.status == 400 && body.contains("image_url"), "{body}");
}

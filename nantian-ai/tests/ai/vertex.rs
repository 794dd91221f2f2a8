//! Claude at Vertex AI.

use http::{HeaderMap, Method, StatusCode};
use nantian_ai::translate::Translation;
use nantian_ai::{Credential, Surface, Target, TargetConfig};

use crate::{
    support::{Upstream, json as reply, layer, post, send},
    taught::refused,
};

const BASE: &str = "https://aiplatform.eu.rep.googleapis.com/v1/projects/p/locations/eu/publishers/anthropic";
const MODEL: &str = "claude-sonnet-4-5@20250929";
const MESSAGE: &str = r#"{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-4-5","content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}"#;

fn claude() -> TargetConfig {
    TargetConfig::new("demo/claude", "anthropic", MODEL)
        .with_endpoint(BASE)
        .with_credential(Credential::bearer("ya29.ours"))
}

#[tokio::test]
async fn claude_at_vertex_ai_is_named_by_the_path_and_told_its_version_by_the_body() {
    let counted = format!(
        r#"{{"anthropic_version":"vertex-2023-10-16","model":"{MODEL}","messages":[{{"role":"user","content":"Hi"}}]}}"#
    );
    for (path, asked, at, sent) in [
        (
            "/v1/messages?beta=true",
            r#"{"model":"any","max_tokens":9,"messages":[]}"#,
            "claude-sonnet-4-5@20250929:rawPredict",
            r#"{"anthropic_version":"vertex-2023-10-16","max_tokens":9,"messages":[]}"#,
        ),
        (
            "/v1/messages",
            r#"{"max_tokens":9, "model" : "any","fallbacks":"default","stream":true,"messages":[]}"#,
            "claude-sonnet-4-5@20250929:streamRawPredict",
            r#"{"anthropic_version":"vertex-2023-10-16","max_tokens":9,"stream":true,"messages":[]}"#,
        ),
        (
            "/v1/messages/count_tokens",
            r#"{"model":"any","messages":[{"role":"user","content":"Hi"}]}"#,
            "count-tokens:rawPredict",
            &counted,
        ),
        (
            "/v1/chat/completions",
            r#"{"model":"any","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#,
            "claude-sonnet-4-5@20250929:rawPredict",
            r#"{"anthropic_version":"vertex-2023-10-16","max_tokens":9,"messages":[{"role":"user","content":[{"type":"text","text":"Hi"}]}]}"#,
        ),
        (
            "/v1/responses/input_tokens",
            r#"{"model":"any","input":"Hi"}"#,
            "count-tokens:rawPredict",
            &counted.replace(r#""Hi""#, r#"[{"type":"text","text":"Hi"}]"#),
        ),
    ] {
        let upstream = Upstream::new().replies(reply(200, MESSAGE));
        let mut request = post(path, asked);
        let features = "server-side-fallback-2026-07-01, interleaved-thinking-2025-05-14";
        request.headers_mut().insert("anthropic-beta", features.parse().unwrap());
        send(layer(claude()), &upstream, request).await;
        let (head, body) = upstream.request();
        assert_eq!(head.uri.to_string(), format!("{BASE}/models/{at}"), "{path}");
        assert_eq!(body, sent, "{path}");
        assert_eq!(head.headers["content-length"], body.len().to_string());
        assert_eq!(head.headers["authorization"], "Bearer ya29.ours");
        // For counts it takes fewer features than for answers.
        let is_count = at == "count-tokens:rawPredict";
        let features = head.headers.get("anthropic-beta").map(|value| value.to_str().unwrap());
        assert_eq!(features, (!is_count).then_some("interleaved-thinking-2025-05-14"), "{path}");
    }
}

#[tokio::test]
async fn what_claude_at_vertex_ai_refuses_is_left_out_as_it_is_at_anthropic() {
    let upstream = Upstream::new()
        .replies(refused("messages.1.content.0: Invalid `signature` in `thinking` block"))
        .replies(reply(200, MESSAGE));
    let asked = r#"{"model":"any","max_tokens":9,"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"thinking","thinking":"Hm.","signature":"EqoB"},{"type":"text","text":"b"}]},{"role":"user","content":"c"}]}"#;
    let (head, body) = send(layer(claude()), &upstream, post("/v1/messages", asked)).await;
    assert_eq!(head.status, 200, "{body}");
    assert_eq!(head.headers["x-nantian-dropped"], "messages.reasoning");
    let (_, again) = upstream.all().remove(1);
    assert_eq!(
        again,
        r#"{"anthropic_version":"vertex-2023-10-16","max_tokens":9,"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"text","text":"b"}]},{"role":"user","content":"c"}]}"#
    );
}

#[tokio::test]
async fn what_vertex_ai_denies_the_credential_does_not_name_the_project_to_clients() {
    const DENIED: &str = r#"{"error":{"code":403,"message":"Permission 'aiplatform.endpoints.predict' denied on resource '//aiplatform.googleapis.com/projects/ours'","status":"PERMISSION_DENIED"}}"#;
    let openapi = "https://aiplatform.googleapis.com/v1/projects/ours/locations/global/endpoints/openapi";
    let gemini = TargetConfig::new("demo/gemini", "openai", "google/gemini-2.5-pro").with_endpoint(openapi);
    for (config, path) in [
        (claude(), "/v1/messages"),
        (claude(), "/v1/messages/count_tokens"),
        (claude(), "/v1/chat/completions"),
        (gemini, "/v1/chat/completions"),
    ] {
        let upstream = Upstream::new().replies(reply(403, DENIED));
        let asked = r#"{"model":"any","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#;
        let (head, body) = send(layer(config), &upstream, post(path, asked)).await;
        assert_eq!(head.status, 502, "{path}: {body}");
        assert!(body.contains("the provider refused the configured credential"), "{path}: {body}");
    }
    // Proxies of callbacks tell their clients no more.
    let surface = Surface::detect(&Method::POST, "/v1/chat/completions", &HeaderMap::new()).unwrap();
    let asked = br#"{"model":"any","messages":[{"role":"user","content":"Hi"}]}"#;
    let (translation, _) =
        Translation::begin(&Target::new(claude()).unwrap(), &surface, asked, false).unwrap();
    let (status, body) = translation.refusal(StatusCode::FORBIDDEN, DENIED.as_bytes());
    assert_eq!(status, 502);
    assert!(!body.windows(4).any(|word| word == b"ours"), "{body:?}");
}

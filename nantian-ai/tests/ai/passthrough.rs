use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use nantian_ai::{Credential, Dialect, TargetConfig};
use tower::{Layer as _, ServiceExt as _};

use crate::support::{Upstream, chat, events, json, layer, openai, post, send};

fn names_and_values(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<_> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn a_request_reaches_the_provider_with_our_credential_and_model_and_nothing_else_changed() {
    let upstream = Upstream::new().replies(json(200, r#"{"choices":[]}"#));
    let request = Request::post("/team-a/v1/chat/completions?trace=1&beta=true&apikey=theirs")
        .header("host", "ai.example")
        .header("authorization", "Bearer of-the-client")
        .header("x-api-key", "of-the-client")
        .header("api-key", "of-the-client")
        .header("cookie", "session=of-the-client")
        .header("openai-organization", "of-the-client")
        .header("anthropic-workspace-id", "of-the-client")
        .header("x-forwarded-for", "192.0.2.7")
        .header("sec-fetch-mode", "cors")
        .header("connection", "keep-alive, x-hop")
        .header("x-hop", "1")
        .header("accept-encoding", "gzip")
        .header("content-length", "999")
        .header("content-type", "application/json")
        .header("user-agent", "client/1")
        .header("traceparent", "00-1-2-01")
        .header("openai-beta", "assistants=v2")
        .body(Full::from(
            "{\n  \"messages\": [{\"content\": \"\\u00e9\", \"model\": \"x\"}],\n  \"model\": \"alias\" }",
        ))
        .unwrap();

    let (head, body) = send(layer(openai()), &upstream, request).await;

    assert_eq!(head.status, 200);
    assert_eq!(body, r#"{"choices":[]}"#);
    let (head, body) = upstream.request();
    assert_eq!(head.method, "POST");
    assert_eq!(head.uri, "https://api.openai.com/v1/chat/completions?beta=true");
    let expected_body =
        "{\n  \"messages\": [{\"content\": \"\\u00e9\", \"model\": \"x\"}],\n  \"model\": \"gpt-4o\" }";
    assert_eq!(body, expected_body);
    assert_eq!(
        names_and_values(&head.headers),
        [
            "accept-encoding: identity",
            "authorization: Bearer sk-ours",
            &format!("content-length: {}", expected_body.len()),
            "content-type: application/json",
            "host: api.openai.com",
            "openai-beta: assistants=v2",
            "traceparent: 00-1-2-01",
            "user-agent: client/1",
        ]
    );
}

#[tokio::test]
async fn a_target_without_a_credential_sends_none() {
    let upstream = Upstream::new().replies(json(200, "{}"));
    let config = TargetConfig::new("demo/vllm", "vllm", "llama").with_endpoint("http://vllm:8000/v1");
    let mut request = chat();
    request.headers_mut().insert("authorization", "Bearer of-the-client".parse().unwrap());
    send(layer(config), &upstream, request).await;
    let (head, _) = upstream.request();
    assert_eq!(head.uri, "http://vllm:8000/v1/chat/completions");
    assert!(!head.headers.contains_key("authorization"));
}

#[tokio::test]
async fn a_credential_in_another_header_does_not_let_the_clients_header_through() {
    let upstream = Upstream::new().replies(json(200, "{}"));
    let config = openai().with_credential(Credential::bearer("sk-ours").in_header("X-Token"));
    let mut request = chat();
    for name in ["authorization", "x-token"] {
        request.headers_mut().insert(name, "of-the-client".parse().unwrap());
    }
    send(layer(config), &upstream, request).await;
    let (head, _) = upstream.request();
    assert!(!head.headers.contains_key("authorization"));
    let sent: Vec<_> = head.headers.get_all("x-token").iter().collect();
    assert_eq!(sent, ["Bearer sk-ours"]);
    assert!(sent[0].is_sensitive());
}

#[tokio::test]
async fn anthropic_gets_its_key_and_a_version() {
    let upstream = Upstream::new().replies(json(200, "{}"));
    let config = TargetConfig::new("demo/claude", "anthropic", "claude-sonnet-4-5")
        .with_credential(Credential::api_key("sk-ant"));
    let request = post("/v1/messages?beta=true", r#"{"max_tokens":9,"messages":[]}"#);
    send(layer(config), &upstream, request).await;
    let (head, body) = upstream.request();
    assert_eq!(head.uri, "https://api.anthropic.com/v1/messages?beta=true");
    assert_eq!(head.headers["x-api-key"], "sk-ant");
    assert_eq!(head.headers["anthropic-version"], "2023-06-01");
    assert_eq!(body, r#"{"model":"claude-sonnet-4-5","max_tokens":9,"messages":[]}"#);
}

#[tokio::test]
async fn no_model_is_asked_but_the_operators() {
    for (config, path, asked, sent, dropped) in [
        (
            TargetConfig::new("demo/openrouter", "openrouter", "x/y:free"),
            "/v1/chat/completions",
            r#"{"model":"a","models":["anthropic/claude-opus-5"],"messages":[]}"#,
            r#"{"model":"x/y:free","messages":[]}"#,
            "models",
        ),
        (
            TargetConfig::new("demo/openrouter", "openrouter", "x/y:free"),
            "/v1/chat/completions",
            r#"{"model":"a","route":"fallback","messages":[]}"#,
            r#"{"model":"x/y:free","messages":[]}"#,
            "route",
        ),
        (
            TargetConfig::new("demo/claude", "anthropic", "claude-haiku-4-5"),
            "/v1/messages",
            r#"{"fallbacks":[{"model":"claude-opus-5"}],"max_tokens":9,"messages":[],"model":"a"}"#,
            r#"{"max_tokens":9,"messages":[],"model":"claude-haiku-4-5"}"#,
            "fallbacks",
        ),
    ] {
        let upstream = Upstream::new().replies(json(200, "{}"));
        let (head, _) = send(layer(config.clone()), &upstream, post(path, asked)).await;
        assert_eq!(head.headers["x-nantian-dropped"], dropped);
        assert_eq!(upstream.request().1, sent);
        let mut strict = post(path, asked);
        strict.headers_mut().insert("x-nantian-strict", "true".parse().unwrap());
        let (head, body) = send(layer(config), &Upstream::new(), strict).await;
        assert_eq!(head.status, 400, "{body}");
    }
}

#[tokio::test]
async fn every_operation_has_its_place_below_the_endpoint() {
    for (provider, path, expected) in [
        ("openai", "/v1/embeddings", "/base/embeddings"),
        ("openai", "/v1/completions", "/base/completions"),
        ("openai", "/v1/responses", "/base/responses"),
        ("anthropic", "/v1/messages/count_tokens", "/base/messages/count_tokens"),
        ("ollama", "/api/chat", "/base/chat"),
        ("ollama", "/api/generate", "/base/generate"),
        ("ollama", "/api/embed", "/base/embed"),
    ] {
        let upstream = Upstream::new().replies(json(200, "{}"));
        let config = TargetConfig::new("demo/x", provider, "m").with_endpoint("http://host:81/base");
        send(layer(config), &upstream, post(path, "{}")).await;
        let (head, body) = upstream.request();
        assert_eq!(head.uri.path(), expected);
        assert_eq!(head.headers["host"], "host:81");
        assert_eq!(body, r#"{"model":"m"}"#);
    }
}

#[tokio::test]
async fn responses_pass_where_the_provider_has_them_and_are_translated_elsewhere() {
    let body = r#"{"model":"any","input":"Hi"}"#;
    for (config, path, sent) in [
        (openai(), "/v1/responses", r#"{"model":"gpt-4o","input":"Hi"}"#),
        (
            TargetConfig::new("demo/vllm", "vllm", "m"),
            "/v1/chat/completions",
            r#"{"model":"m","messages":[{"role":"user","content":"Hi"}]}"#,
        ),
        (
            TargetConfig::new("demo/vllm", "vllm", "m").with_format(Dialect::Responses),
            "/v1/responses",
            r#"{"model":"m","input":"Hi"}"#,
        ),
    ] {
        let upstream =
            Upstream::new().replies(json(200, r#"{"choices":[{"message":{"content":"Ho"}}],"output":[]}"#));
        send(layer(config), &upstream, post("/v1/responses", body)).await;
        let (head, body) = upstream.request();
        assert_eq!(head.uri.path(), path);
        assert_eq!(body, sent);
    }
    // What is no conversation is the same in both dialects.
    let upstream = Upstream::new().replies(json(200, "{}"));
    let config = openai().with_format(Dialect::Responses);
    send(layer(config), &upstream, post("/v1/embeddings", r#"{"input":"x"}"#)).await;
    assert_eq!(upstream.request().0.uri.path(), "/v1/embeddings");
}

#[tokio::test]
async fn a_compressed_request_is_sent_on_as_it_was_before() {
    let plain = br#"{"model":"any","messages":[]}"#;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut gzip, plain).unwrap();
    // So short a text stands in the frame as it is.
    let zstd = [&b"\x28\xb5\x2f\xfd\x00\x58\xe9\x00\x00"[..], plain].concat();
    for (coding, packed) in [("gzip", gzip.finish().unwrap()), ("zstd", zstd)] {
        let request = Request::post("/v1/chat/completions")
            .header("content-encoding", coding)
            .body(Full::from(packed))
            .unwrap();
        let upstream = Upstream::new().replies(json(200, "{}"));
        send(layer(openai()), &upstream, request).await;
        let (head, body) = upstream.request();
        assert_eq!(body, r#"{"model":"gpt-4o","messages":[]}"#);
        assert!(!head.headers.contains_key("content-encoding"));
        assert_eq!(head.headers["content-length"], body.len().to_string());
    }
}

#[tokio::test]
async fn models_are_listed_by_the_provider() {
    for (path, expected) in [
        ("/v1/models", "https://api.openai.com/v1/models"),
        ("/v1/models/gpt-4o", "https://api.openai.com/v1/models/gpt-4o"),
    ] {
        let upstream = Upstream::new().replies(json(200, r#"{"data":[]}"#));
        let request = Request::get(path).body(Full::default()).unwrap();
        let (_, body) = send(layer(openai()), &upstream, request).await;
        assert_eq!(body, r#"{"data":[]}"#);
        let (head, body) = upstream.request();
        assert_eq!(head.uri, expected);
        assert!(body.is_empty());
        assert!(!head.headers.contains_key("content-length"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_passes_chunk_by_chunk_as_it_comes() {
    let chunks = [
        "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n",
        "\ndata: {\"cho",
        "ices\":[]}\r\n\r\n: odd\n\n",
        "data: [DONE]\n\n",
    ];
    let paced = chunks.map(|chunk| (Duration::from_millis(10), Some(chunk)));
    let upstream = Upstream::new().replies(events("text/event-stream", paced));

    let service = layer(openai()).layer(upstream);
    let mut body = service.oneshot(chat()).await.unwrap().into_body();

    for chunk in chunks {
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), chunk);
    }
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn a_reply_loses_only_what_concerns_the_providers_site_and_account() {
    let mut reply = json(200, "{}");
    for (name, value) in [
        ("set-cookie", "__cf_bm=x"),
        ("alt-svc", "h3=\":443\""),
        ("strict-transport-security", "max-age=1"),
        ("openai-organization", "acme"),
        ("openai-project", "proj_1"),
        ("anthropic-organization-id", "1"),
        ("anthropic-workspace-id", "1"),
        ("x-request-id", "req_1"),
        ("openai-processing-ms", "12"),
    ] {
        reply.headers_mut().insert(name, value.parse().unwrap());
    }
    let upstream = Upstream::new().replies(reply);
    let (head, _) = send(layer(openai()), &upstream, chat()).await;
    assert_eq!(
        names_and_values(&head.headers),
        ["content-type: application/json", "openai-processing-ms: 12", "x-request-id: req_1",]
    );
}

#[tokio::test]
async fn a_large_body_passes_whole() {
    let image = "A".repeat(2 * 1024 * 1024);
    let upstream = Upstream::new().replies(json(200, "{}"));
    let request = post("/v1/chat/completions", &format!(r#"{{"messages":["{image}"],"model":"any","n":1}}"#));
    send(layer(openai()), &upstream, request).await;
    let (head, body) = upstream.request();
    let expected = format!(r#"{{"messages":["{image}"],"model":"gpt-4o","n":1}}"#);
    assert_eq!(body, Bytes::from(expected));
    assert_eq!(head.headers["content-length"], body.len().to_string());
}

#[tokio::test]
async fn the_extensions_of_a_request_go_with_it() {
    let upstream = Upstream::new().replies(json(200, "{}"));
    let mut request = chat();
    request.extensions_mut().insert("of an earlier layer");
    send(layer(openai()), &upstream, request).await;
    let (head, _) = upstream.request();
    assert_eq!(head.extensions.get::<&str>(), Some(&"of an earlier layer"));
}

#[tokio::test]
async fn no_spelling_of_a_name_gets_past_what_an_operator_decides() {
    let config = TargetConfig::new("demo/ollama", "ollama", "llama3.2");
    let asked = r#"{"model":"llama3.2","MODEL":"deepseek-v3.1:671b-cloud","messages":[],"Options":{"num_predict":99999}}"#;
    let upstream = Upstream::new().replies(json(200, "{}"));
    let (head, _) = send(layer(config.clone()), &upstream, post("/api/chat", asked)).await;
    assert_eq!(upstream.request().1, r#"{"model":"llama3.2","messages":[]}"#);
    assert_eq!(head.headers["x-nantian-dropped"], "options");

    let upstream = Upstream::new();
    let (head, body) = send(layer(config.with_strict(true)), &upstream, post("/api/chat", asked)).await;
    assert!(head.status == 400 && body.contains("options"), "{body}");
}

#[tokio::test]
async fn an_answer_of_anthropic_names_the_model_that_the_client_has_asked_for() {
    const WHOLE: &str = "{ \"model\":\"claude-opus-4-8\",\"content\":[]}";
    let event = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"claude-opus-4-8\"}}\n\n";
    let stream = [
        event,
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"\\\"model\\\"\"}}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    ];
    let claude = || TargetConfig::new("demo/claude", "anthropic", "claude-opus-4-8");
    let ask =
        |model: &str| post("/v1/messages", &format!(r#"{{"model":"{model}","max_tokens":9,"messages":[]}}"#));
    for (asked, told) in [("claude-x", Some("claude-opus-4-8")), ("claude-opus-4-8", None), ("", None)] {
        let name = if told.is_some() { asked } else { "claude-opus-4-8" };
        let chunks = stream.map(|event| (Duration::ZERO, Some(event)));
        for (reply, said) in
            [(json(200, WHOLE), WHOLE.to_owned()), (events("text/event-stream", chunks), stream.concat())]
        {
            let upstream = Upstream::new().replies(reply);
            let (head, body) = send(layer(claude()), &upstream, ask(asked)).await;
            assert_eq!(body, said.replacen("claude-opus-4-8", name, 1));
            assert_eq!(head.headers.get("x-nantian-model").map(|model| model.to_str().unwrap()), told);
        }
    }
}

#[tokio::test]
async fn what_others_than_claude_have_thought_is_not_said_to_be_of_claude() {
    const WHOLE: &str =
        r#"{"model":"glm-4.6","content":[{"type":"thinking","thinking":"hm","signature":"of-glm"}]}"#;
    let glm = TargetConfig::new("demo/glm", "anthropic", "glm-4.6").with_endpoint("http://glm/api");
    let upstream = Upstream::new().replies(json(200, WHOLE));
    let asked = post("/v1/messages", r#"{"model":"claude-opus-4-8","max_tokens":9,"messages":[]}"#);
    let (head, body) = send(layer(glm), &upstream, asked).await;
    assert_eq!((&*body, head.headers.get("x-nantian-model")), (WHOLE, None));
}

#[tokio::test]
async fn a_user_does_not_speak_right_after_a_tool_to_a_model_of_mistral_wherever_it_runs() {
    const CHAT: &str = r#"{"model":"any","messages":[{"role":"assistant","tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"call_1","content":"1"},{"role":"user","content":"And?"}]}"#;
    for (model, speaks) in [("mistralai/Devstral-Small-2507", true), ("qwen/qwen3-coder", false)] {
        let config = TargetConfig::new("demo/router", "openrouter", model);
        let upstream = Upstream::new().replies(json(200, "{}"));
        send(layer(config), &upstream, post("/v1/chat/completions", CHAT)).await;
        let sent = String::from_utf8(upstream.request().1.to_vec()).unwrap();
        assert_eq!((sent.contains("Understood."), sent.matches("call_1").count()), (speaks, 2), "{sent}");
    }
}

#[tokio::test]
async fn ids_of_calls_are_as_long_as_openai_takes_them_in_calls_and_results_alike() {
    const LONG: &str = "chatcmpl-tool-0123456789abcdef0123456789abcdef";
    let chat = format!(
        r#"{{"model":"m","messages":[{{"role":"assistant","tool_calls":[{{"id": "{LONG}","type":"function","function":{{"name":"f","arguments":"{{}}"}}}},{{"id":"functions.f:0","type":"function","function":{{"name":"f","arguments":"{{}}"}}}}]}},{{"tool_call_id":"{LONG}","role":"tool","content":"{LONG}"}},{{"role":"tool","tool_call_id":"functions.f:0","content":"2"}}]}}"#
    );
    let messages = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":[{"type":"tool_use","id":"LONG","name":"f","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"LONG","content":"1"}]}]}"#.replace("LONG", LONG);
    let config = |provider| TargetConfig::new("demo/m", provider, "m");
    let azure = || config("azure-openai").with_endpoint("https://x.openai.azure.com");
    for (config, is_cut) in [
        (azure(), true),
        (config("openai"), true),
        (config("openai").with_endpoint("http://10.0.0.7:8000/v1"), false),
        (config("groq"), false),
    ] {
        let upstream = Upstream::new().replies(json(200, "{}"));
        send(layer(config.clone()), &upstream, post("/v1/chat/completions", &chat)).await;
        let sent = String::from_utf8(upstream.request().1.to_vec()).unwrap();
        let body: serde_json::Value = serde_json::from_str(&sent).unwrap();
        let said = &body["messages"];
        let id = said[0]["tool_calls"][0]["id"].as_str().unwrap();
        assert_eq!((id == LONG, id.len() <= 40), (!is_cut, is_cut), "{sent}");
        assert_eq!(sent, chat.replacen(LONG, id, 2), "the rest stays as it is");
    }
    let upstream = Upstream::new().replies(json(200, "{}"));
    send(layer(azure()), &upstream, post("/v1/messages", &messages)).await;
    let body: serde_json::Value = serde_json::from_slice(&upstream.request().1).unwrap();
    let said = body["messages"].as_array().unwrap();
    let id = said[1]["tool_calls"][0]["id"].as_str().unwrap();
    assert!(id.len() <= 40 && said[2]["tool_call_id"] == id, "{body}");
}

#[tokio::test]
async fn thoughts_of_a_stream_come_back_without_the_index_that_claude_refuses_behind_a_proxy() {
    const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b","thinking_blocks":[{"index":0,"type":"thinking","thinking":"Hm.","signature":"EqoB"}, {"type":"redacted_thinking","data":"EmwK","index":1}],"tool_calls":[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c","content":"1"}]}"#;
    let proxy = TargetConfig::new("demo/proxy", "acme", "m").with_format(Dialect::OpenAi);
    let upstream = Upstream::new().replies(json(200, "{}"));
    let request = post("/v1/chat/completions", CHAT);
    let (head, _) = send(layer(proxy.with_endpoint("http://proxy")), &upstream, request).await;
    let expected = CHAT.replace(r#"[{"index":0,"type":"thinking""#, r#"[{"type":"thinking""#);
    assert_eq!(upstream.request().1, expected.replace(r#","index":1"#, ""));
    assert!(!head.headers.contains_key("x-nantian-dropped"), "nothing is lost");
}

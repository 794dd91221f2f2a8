//! AIService: what the gateway itself refuses is said in the words that a client's library reads.

use std::time::Duration;

use serde_json::Value;

use crate::support::{
    Backend, Message, Running, Wire, World,
    limits::{ai_service, post},
    llm, plugin, provider, rule, to_ai,
};

const ASK_STREAM: &str =
    r#"{"model":"any","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
const RESPONSES: &str = r#"{"model":"any","input":"hi","stream":true}"#;

/// Each dialect: the path, a request for a stream.
const CLIENTS: [(&str, &str); 4] = [
    ("/v1/chat/completions", ASK_STREAM),
    ("/v1/responses", RESPONSES),
    ("/v1/messages", ASK_STREAM),
    ("/api/chat", ASK_STREAM),
];

const TOKEN: &str = "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"four\"}}]}\n\n";

/// The type and the message of an error of a dialect.
fn error(path: &str, body: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{path}: {body}")).to_owned();
    match path {
        "/api/chat" => (String::new(), text(&body["error"])),
        _ => {
            assert_eq!(body["type"] == "error", path == "/v1/messages", "{body}");
            (text(&body["error"]["type"]), text(&body["error"]["message"]))
        }
    }
}

fn check(path: &str, reply: &Message, status: u16, kinds: (&str, &str), words: &str) {
    assert_eq!(
        (reply.status(), reply.header("content-type")),
        (status, Some("application/json")),
        "{reply:?}"
    );
    let (kind, message) = error(path, &reply.json());
    assert!(message.contains(words), "{message}");
    match path {
        "/v1/messages" => assert_eq!(kind, kinds.0),
        "/api/chat" => {}
        _ => assert_eq!(kind, kinds.1),
    }
}

/// A provider that streams a token every tenth of a second, for ever.
async fn endless() -> Backend {
    Backend::raw(|mut wire: Wire| async move {
        while wire.message().await.is_ok() {
            wire.send(
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
            )
            .await;
            let chunk = format!("{:x}\r\n{TOKEN}\r\n", TOKEN.len());
            while wire.write(chunk.as_bytes()).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    })
    .await
}

/// Never answers.
async fn silent() -> Backend {
    Backend::raw(|mut wire: Wire| async move { while wire.message().await.is_ok() {} }).await
}

/// One route to the AIService `llm`, with more fields of its rule.
fn bounded(backend: &Backend, fields: &str) -> World {
    World::new()
        .manifest("service", &ai_service("llm", "m", backend))
        .route("llm", &[rule("/", &format!("{fields}, {}", to_ai("llm")))])
        .options(&["--access-log", "json"])
}

/// What the access log says of the calls of AIServices.
async fn logged(mut gateway: Running) -> Vec<Value> {
    gateway.signal("TERM");
    assert!(gateway.exit().await.success());
    let lines = gateway.output.all();
    let calls = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    calls.map(|line| line["ai"][0].clone()).collect()
}

#[tokio::test]
async fn the_time_of_a_rule_is_told_before_the_head_as_clients_know_it() {
    let provider = silent().await;
    let gateway = bounded(&provider, "timeouts: {request: 300ms}").start().await;
    for (path, body) in CLIENTS {
        let reply = gateway.ask(post(path, "", body)).await;
        check(path, &reply, 504, ("timeout_error", "timeout"), "sent no complete answer within 300ms");
    }
    let truncated = r#"nantian_ai_calls_total{ai_service="demo/llm",outcome="truncated"}"#;
    assert_eq!(gateway.metric(truncated).await, Some(4.0));
    let calls = logged(gateway).await;
    assert_eq!(calls.len(), 4);
    for call in calls {
        assert_eq!((&call["outcome"], &call["error"]), (&"truncated".into(), &"timeout".into()), "{call}");
        assert_eq!(call["attempts"][0]["error"], "timeout", "{call}");
    }
}

#[tokio::test]
async fn the_time_of_a_rule_ends_a_stream_with_an_error_event() {
    let provider = endless().await;
    let gateway = bounded(&provider, "timeouts: {request: 500ms}").start().await;
    for (path, body) in CLIENTS.into_iter().filter(|(path, _)| *path != "/v1/responses") {
        let reply = gateway.ask(post(path, "", body)).await;
        assert_eq!(reply.status(), 200);
        let text = reply.text();
        assert!(text.contains("four"), "{text}");
        let last = text.trim_end().lines().last().unwrap();
        assert!(last.contains("sent no complete answer within 500ms"), "{text}");
        let event: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap_or(last)).unwrap();
        assert!(error(path, &event).1.contains("500ms"));
    }
    for call in logged(gateway).await {
        assert_eq!(call["stream"], true);
        assert_eq!((&call["outcome"], &call["error"]), (&"truncated".into(), &"timeout".into()), "{call}");
    }
}

#[tokio::test]
async fn a_call_that_is_over_in_time_is_not_touched() {
    let provider = provider("{\"choices\":[]}", "data: {\"choices\":[]}\n\ndata: [DONE]\n\n").await;
    let gateway = bounded(&provider, "timeouts: {request: 30s}").start().await;
    let reply = gateway.ask(post("/v1/chat/completions", "", ASK_STREAM)).await;
    assert_eq!(reply.text(), "data: {\"choices\":[]}\n\ndata: [DONE]\n\n");
}

#[tokio::test]
async fn what_the_gateway_itself_refuses_is_an_error_of_the_clients_dialect() {
    let provider = silent().await;
    let mixed = "backendRefs: [{name: empty, port: 80}, \
                 {group: gateway.nantian.dev, kind: AIService, name: llm, weight: 0}]";
    let gateway = llm(&provider, "")
        .service("empty", &[])
        .manifest("plugin", &plugin("plugged", "configMap: {name: nothing}"))
        .route("plugged", &[rule("/plugged", &to_ai("llm"))])
        .route("rest", &[rule("/gone", &to_ai("gone")), rule("/mixed", mixed), rule("/large", &to_ai("llm"))])
        .options(&["--max-request-body-bytes", "1000"])
        .start()
        .await;
    for (path, body) in CLIENTS {
        for (prefix, status, words) in [
            ("/plugged", 503, "a plugin of this route is missing"),
            ("/gone", 500, "this route has no valid backend"),
            ("/mixed", 503, "no endpoint is ready"),
        ] {
            let reply = gateway.ask(post(&format!("{prefix}{path}"), "", body)).await;
            check(path, &reply, status, ("api_error", "server_error"), words);
        }
        let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
        let large = format!(
            "POST /large{path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n"
        );
        let reply = gateway.ask(large).await;
        check(path, &reply, 413, ("request_too_large", "invalid_request_error"), "too large");
        let reply = gateway.ask(post(path, "", &"x".repeat(1001))).await;
        check(path, &reply, 413, ("request_too_large", "invalid_request_error"), "at most 1000 bytes");
    }
    let reply = gateway.get("/mixed/page").await;
    assert_eq!((reply.status(), reply.text().as_str()), (503, "no endpoint is ready\n"));
}

#[tokio::test]
async fn a_status_without_words_has_none() {
    let busy = Backend::raw(|mut wire: Wire| async move {
        while wire.message().await.is_ok() {
            wire.send("HTTP/1.1 503 Busy\r\nx-should-retry: false\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    let gateway = bounded(&busy, "timeouts: {request: 9s}").start().await;
    let reply = gateway.ask(post("/v1/messages", "", ASK_STREAM)).await;
    assert_eq!(reply.start, "HTTP/1.1 529 ");
}

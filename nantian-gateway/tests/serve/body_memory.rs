//! What the bodies that are read whole take together.

use std::{future::pending, sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use serde_json::Value;
use tokio::{sync::Notify, task::JoinSet, time::interval};

use crate::support::{
    Backend, Running, Wire, World, after, eventually,
    http2::{client, upload},
    limits::{ai_service, completion, limits, post},
    plugin, rule, soon, to, to_ai,
};

/// An AIService at `/v1`, and a Service with a limit for each user at `/plain`, with room for 4 MiB, 3 of
/// them for bodies over 1 MiB.
async fn gateway(provider: &Backend) -> Running {
    World::new()
        .manifest("llm", &ai_service("llm", "m", provider))
        .service("plain", &[provider])
        .route("web", &[rule("/v1", &to_ai("llm"))])
        .route("plain", &[rule("/plain", &to("plain"))])
        .manifest(
            "limits",
            &limits("limits", "kind: HTTPRoute, name: plain", "requestsPerMinute: 9, scope: user"),
        )
        .options(&["--max-body-memory-bytes", "4194304", "--access-log", "json"])
        .start()
        .await
}

/// A request whose body is `length` bytes long.
fn request(path: &str, length: usize) -> String {
    let empty = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":""}]}"#;
    let text = "x".repeat(length - empty.len());
    post(path, "", &empty.replace(r#""content":"""#, &format!(r#""content":"{text}""#)))
}

/// The answer that says `text`.
fn said(text: &str) -> String {
    let body = format!(
        r#"{{"id":"x","object":"chat.completion","model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}]}}"#
    );
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// A body that goes no further than `length` bytes.
async fn half_sent_one(gateway: &Running, path: &str, length: usize) -> Wire {
    let whole = request(path, length + 1);
    let mut wire = gateway.connect().await;
    wire.send(&whole[..whole.len() - 1]).await;
    wire
}

/// As many bodies as `count` that go no further than `length` bytes, and the gateway has read them.
async fn half_sent(gateway: &Running, path: &str, count: usize, length: usize) -> Vec<Wire> {
    let mut wires = Vec::new();
    for _ in 0..count {
        wires.push(half_sent_one(gateway, path, length).await);
    }
    holds(gateway, count * length).await;
    wires
}

async fn holds(gateway: &Running, bytes: usize) {
    let bytes = Some(bytes as f64);
    eventually("it holds so much", async || gateway.metric("nantian_body_memory_bytes").await == bytes).await;
}

#[tokio::test]
async fn half_sent_bodies_of_ai_services_take_no_more_than_there_is() {
    let provider = Backend::answering(|_| completion(5)).await;
    let mut gateway = gateway(&provider).await;
    let wires = half_sent(&gateway, "/v1/chat/completions", 2, 1_500_000).await;
    let answered = soon(gateway.ask(request("/v1/chat/completions", 1_500_000))).await;
    assert_eq!((answered.status(), answered.header("retry-after")), (503, Some("1")));
    assert_eq!(answered.json()["error"]["type"], "server_error");
    let answered = soon(gateway.ask(request("/v1/messages", 1_500_000))).await;
    assert_eq!((answered.status(), answered.header("retry-after")), (503, Some("1")));
    assert_eq!(answered.json()["error"]["type"], "api_error");
    assert_eq!(provider.seen().len(), 0);
    assert_eq!(soon(gateway.ask(request("/v1/chat/completions", 1_000_000))).await.status(), 200);
    holds(&gateway, 3_000_000).await;
    assert_eq!(gateway.metric("nantian_body_memory_refused_requests_total").await, Some(2.0));

    drop(wires);
    holds(&gateway, 0).await;
    assert_eq!(soon(gateway.ask(request("/v1/chat/completions", 2_500_000))).await.status(), 200);
    holds(&gateway, 0).await;
    gateway.signal("TERM");
    assert!(gateway.exit().await.success());
    let lines = gateway.output.all();
    let lines = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let refused: Vec<_> = lines.filter(|line| line["status"] == 503).collect();
    assert_eq!(refused.len(), 2);
    for line in refused {
        assert_eq!(line["error"], "there is no memory for the body, too many others are being read");
    }
}

#[tokio::test]
async fn half_sent_bodies_before_limits_take_no_more_than_there_is() {
    let provider = Backend::answering(|_| completion(5)).await;
    let gateway = gateway(&provider).await;
    let wires = half_sent(&gateway, "/plain/", 4, 1_000_000).await;
    let answered = soon(gateway.ask(request("/plain/", 300_000))).await;
    assert_eq!((answered.status(), answered.header("retry-after")), (503, Some("1")), "{answered:?}");
    assert_eq!(soon(gateway.ask(request("/plain/", 100_000))).await.status(), 200);
    drop(wires);
    holds(&gateway, 0).await;
    assert_eq!(soon(gateway.ask(request("/plain/", 300_000))).await.status(), 200);
    holds(&gateway, 0).await;
}

/// Goes on with the body of a request by a byte at a time.
async fn trickle(mut wire: Wire) {
    let mut pace = interval(Duration::from_millis(100));
    loop {
        pace.tick().await;
        if wire.write(b"x").await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn short_bodies_that_never_end_do_not_keep_out_all_others() {
    let provider = Backend::answering(|_| completion(5)).await;
    let gateway = World::new()
        .manifest("llm", &ai_service("llm", "m", &provider))
        .route("web", &[rule("/v1", &to_ai("llm"))])
        .options(&["--max-body-memory-bytes", "4194304", "--stall-timeout", "5s"])
        .start()
        .await;
    let path = "/v1/chat/completions";
    let status = async || soon(gateway.ask(request(path, 200_000))).await.status();
    let begun = post(path, "", &"x".repeat(1_040_000));
    let mut wires = Vec::new();
    for _ in 0..4 {
        let mut wire = gateway.connect().await;
        wire.send(&begun[..begun.len() - 40_000]).await;
        wires.push(wire);
    }
    holds(&gateway, 4_000_000).await;
    let _clients: JoinSet<_> = wires.into_iter().map(trickle).collect();
    assert_eq!(status().await, 503);
    eventually("there is room again", async || status().await == 200).await;
}

#[tokio::test]
async fn a_body_that_two_read_is_held_once() {
    let provider = Backend::answering(|_| completion(5)).await;
    let second = ai_service("other", "n", &provider);
    let shares = "backendRefs: [{group: gateway.nantian.dev, kind: AIService, name: llm}, {group: gateway.nantian.dev, kind: AIService, name: other}]";
    let gateway = World::new()
        .manifest("llm", &ai_service("llm", "m", &provider))
        .manifest("other", &second)
        .route("web", &[rule("/v1", shares)])
        .manifest(
            "limits",
            &limits("limits", "kind: HTTPRoute, name: web", "requestsPerMinute: 9, scope: model"),
        )
        .options(&["--max-body-memory-bytes", "4194304"])
        .start()
        .await;
    let wires = half_sent(&gateway, "/v1/chat/completions", 1, 1_000_000).await;
    assert_eq!(soon(gateway.ask(request("/v1/chat/completions", 2_000_000))).await.status(), 200);
    drop(wires);
    holds(&gateway, 0).await;
}

#[tokio::test]
async fn a_body_that_never_fits_is_not_told_to_come_again() {
    let provider = Backend::answering(|_| completion(5)).await;
    let gateway = gateway(&provider).await;
    let answered = soon(gateway.ask(request("/v1/chat/completions", 3_200_000))).await;
    assert_eq!((answered.status(), answered.header("retry-after")), (413, None));
    assert_eq!(answered.json()["error"]["type"], "invalid_request_error");
    assert_eq!(gateway.metric("nantian_body_memory_refused_requests_total").await, Some(0.0));
    assert_eq!(provider.seen().len(), 0);
}

#[tokio::test]
async fn a_short_answer_to_a_long_request_finds_the_room_of_short_ones() {
    let (asked, answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let shared = (Arc::clone(&asked), Arc::clone(&answer));
    let provider = Backend::raw(move |mut wire| {
        let (asked, answer) = shared.clone();
        async move {
            let Ok(_) = wire.message().await else { return };
            asked.notify_one();
            answer.notified().await;
            wire.send(said("yes")).await;
        }
    })
    .await;
    let gateway = gateway(&provider).await;
    let path = "/v1/chat/completions";
    let _long = half_sent(&gateway, path, 1, 1_400_000).await;
    let mut wire = gateway.connect().await;
    wire.send(request("/v1/messages", 1_700_000)).await;
    soon(asked.notified()).await;
    let _short = half_sent_one(&gateway, path, 900_000).await;
    holds(&gateway, 1_400_000 + 1_700_000 + 900_000).await;
    answer.notify_one();
    let answered = soon(wire.reply()).await;
    assert_eq!((answered.status(), &answered.json()["content"][0]["text"]), (200, &"yes".into()));
}

#[tokio::test]
async fn an_answer_that_is_read_whole_is_held_too() {
    let answer = said(&"x".repeat(1_200_000));
    let provider = Backend::answering(move |_| answer.clone()).await;
    let gateway = gateway(&provider).await;
    assert_eq!(soon(gateway.ask(request("/v1/messages", 1_000))).await.status(), 200);
    holds(&gateway, 0).await;
    let wires = half_sent(&gateway, "/v1/chat/completions", 1, 2_500_000).await;
    let answered = soon(gateway.ask(request("/v1/messages", 1_000))).await;
    assert_eq!((answered.status(), answered.header("retry-after")), (503, Some("1")));
    // Passed on as it comes, it takes nothing.
    assert_eq!(soon(gateway.ask(request("/v1/chat/completions", 1_000))).await.status(), 200);
    drop(wires);
    holds(&gateway, 0).await;
}

/// Holds the body of a request to its end.
const HOLDS_BODY: &str =
    r#"(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.eqz (local.get 2)))"#;

/// A plugin of this text on the HTTPRoute `plain`.
fn plugin_of(text: &str, policy: &str) -> String {
    let guest =
        format!(r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1")) {text})"#);
    let guest = format!("inline: {}", BASE64_STANDARD.encode(wat::parse_str(guest).unwrap()));
    let sandbox = format!("sandbox: {{maxBufferedBodyBytes: 4194304}}\n  failurePolicy: {policy}\n  wasm:");
    plugin("plain", &guest).replace("wasm:", &sandbox)
}

/// A gateway with a plugin of this text in front of `/plain`, and room for 4 MiB, 3 of them for bodies over 1
/// MiB.
fn plugged(text: &str, policy: &str, backend: &Backend) -> World {
    World::new()
        .service("a", &[backend])
        .route("plain", &[rule("/plain", &to("a"))])
        .manifest("plugin", &plugin_of(text, policy))
        .options(&["--max-body-memory-bytes", "4194304"])
}

#[tokio::test]
async fn half_sent_bodies_that_plugins_hold_take_no_more_than_there_is() {
    let backend = Backend::echo("a").await;
    for policy in ["FailClosed", "FailOpen"] {
        let gateway = plugged(HOLDS_BODY, policy, &backend).start().await;
        let wires = half_sent(&gateway, "/plain/", 2, 1_500_000).await;
        let answered = soon(gateway.ask(request("/plain/", 1_500_000))).await;
        assert_eq!((answered.status(), answered.header("retry-after")), (503, Some("1")), "{policy}");
        assert_eq!(soon(gateway.ask(request("/plain/", 1_000_000))).await.status(), 200);
        drop(wires);
        holds(&gateway, 0).await;
        assert_eq!(soon(gateway.ask(request("/plain/", 3_500_000))).await.status(), 413, "it never fits");
        assert_eq!(soon(gateway.ask(request("/plain/", 2_500_000))).await.status(), 200);
        holds(&gateway, 0).await;
    }
}

#[tokio::test]
async fn what_comes_of_bodies_while_plugins_hold_their_headers_takes_no_more_than_there_is() {
    let backend = Backend::echo("a").await;
    let holds_headers = r#"
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 0))"#;
    let gateway = plugged(holds_headers, "FailClosed", &backend).start().await;
    // What is not read does not leave its client.
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        let mut wire = gateway.connect().await;
        clients.spawn(async move {
            wire.send(request("/plain/", 1_500_000)).await;
            wire
        });
    }
    eventually("there is no room", async || {
        gateway.metric("nantian_body_memory_refused_requests_total").await >= Some(1.0)
    })
    .await;
}

#[tokio::test]
async fn an_upload_that_nobody_holds_may_be_slow_while_others_fill_the_memory() {
    let backend = Backend::echo("a").await;
    let silent = Backend::raw(|mut wire| async move {
        let _ = wire.message().await;
        pending::<()>().await;
    })
    .await;
    let sees_head =
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0))"#;
    let gateway = plugged(sees_head, "FailClosed", &backend)
        .manifest("llm", &ai_service("llm", "m", &silent))
        .route("web", &[rule("/v1", &to_ai("llm"))])
        .options(&["--stall-timeout", "2s"])
        .start()
        .await;
    let mut long = gateway.connect().await;
    long.send(request("/v1/chat/completions", 2_500_000)).await;
    holds(&gateway, 2_500_000).await;
    let body = "x".repeat(30);
    let slow = post("/plain/", "", &body);
    let mut wire = gateway.connect().await;
    wire.send(&slow[..slow.len() - body.len()]).await;
    for byte in body.bytes() {
        after(Duration::from_millis(100)).await;
        wire.send([byte]).await;
    }
    assert_eq!(soon(wire.reply()).await.text(), body);
    holds(&gateway, 2_500_000).await;
}

#[tokio::test]
async fn calls_that_plugins_hold_and_that_never_end_do_not_keep_out_all_others() {
    let backend = Backend::h2c(async |request: Request<Incoming>| {
        let _ = request.into_body().collect().await;
        Response::new(Empty::<Bytes>::new())
    })
    .await;
    let route = "
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls, namespace: demo}
spec: {parentRefs: [{name: demo}], rules: [{backendRefs: [{name: a, port: 80}]}]}
";
    let plugin = plugin_of(HOLDS_BODY, "FailClosed");
    let gateway = World::new()
        .h2c_service("a", &backend)
        .manifest("route", route)
        .manifest("plugin", &plugin.replace("HTTPRoute, name: plain", "GRPCRoute, name: calls"))
        .options(&["--max-body-memory-bytes", "4194304", "--stall-timeout", "3s"])
        .start()
        .await;
    let mut client = client(&gateway).await;
    let part: &'static str = "x".repeat(750_000).leak();
    let mut calls = Vec::new();
    for _ in 0..4 {
        let (parts, mut request) = upload("/watch.Service/Watch");
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        parts.send(part).unwrap();
        calls.push((parts, tokio::spawn(client.send_request(request))));
    }
    holds(&gateway, 3_000_000).await;
    eventually("there is room again", async || {
        gateway.metric("nantian_body_memory_bytes").await <= Some(1_500_000.0)
    })
    .await;
}

//! The endpoints that call-outs of plugins go to.

use std::convert::Infallible;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use http_body_util::{Empty, StreamBody};

use crate::{
    plugins::{ASKING, ok},
    support::{Backend, Port, Running, World, eventually, plugin, rule, service, to},
};

/// A plugin that asks the Service `auth`, over HTTP, whether a request may pass, and waits so many
/// milliseconds.
fn asking_over_http(milliseconds: u32) -> Vec<u8> {
    let guest = include_str!("../../../nantian-wasm/tests/guests/call_out.wat");
    wat::parse_str(guest.replace("(i32.const 2000)", &format!("(i32.const {milliseconds})"))).unwrap()
}

/// A gateway whose plugin asks the Service `auth`, which has these endpoints and no route.
async fn gateway(module: &[u8], protocol: &str, endpoints: &[&Backend]) -> Running {
    let backend = Backend::echo("a").await;
    let module = format!("inline: {}", BASE64_STANDARD.encode(module));
    let network = "sandbox: {allowNetwork: true}\n  config: auth\n  wasm:";
    World::new()
        .service("a", &[&backend])
        .manifest("auth", &service("auth", protocol, endpoints))
        .route("r", &[rule("/", &to("a"))])
        .manifest("plugin", &plugin("r", &module).replace("wasm:", network))
        .start()
        .await
}

/// An endpoint that answers each call over gRPC with one message.
async fn answering_over_grpc() -> Backend {
    Backend::h2c(|_| async {
        let ended = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from(0))]);
        let frames = [Frame::data(Bytes::from_static(&[0, 0, 0, 0, 1, b'x'])), Frame::trailers(ended)];
        http::Response::new(StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, Infallible>))))
    })
    .await
}

/// How often an endpoint of `auth` was left out.
async fn ejections(gateway: &Running, endpoint: &Backend) -> Option<f64> {
    let labels = format!("backend=\"demo/auth:80\",endpoint=\"{}\"", endpoint.address);
    gateway.metric(&format!("nantian_endpoint_ejections_total{{{labels}}}")).await
}

#[tokio::test]
async fn call_out_that_reaches_no_endpoint_goes_to_another_one_and_the_first_is_left_out() {
    let closed = Port::reserve();
    let closed = Backend::at(closed.address());
    let over_http = Backend::answering(|_| ok(b"")).await;
    let over_grpc = answering_over_grpc().await;
    let grpc = wat::parse_str(ASKING).unwrap();
    for (module, protocol, well) in
        [(asking_over_http(10_000), "http", over_http), (grpc, "kubernetes.io/h2c", over_grpc)]
    {
        let gateway = gateway(&module, protocol, &[&closed, &well]).await;
        eventually("it is left out", async || {
            assert_eq!(gateway.get("/").await.status(), 200, "{protocol}");
            ejections(&gateway, &closed).await == Some(1.0)
        })
        .await;
    }
}

#[tokio::test]
async fn call_out_is_made_in_the_http_of_its_service_and_over_grpc_in_http2() {
    let over_http = asking_over_http(10_000);
    let over_grpc = wat::parse_str(ASKING).unwrap();
    let http1 = Backend::answering(|_| ok(b"")).await;
    let h2c = Backend::h2c(|_| async { http::Response::new(Empty::<Bytes>::new()) }).await;
    let says_nothing = "null";
    for (module, protocol, endpoint) in [
        (&over_http, says_nothing, http1),
        (&over_http, "kubernetes.io/h2c", h2c),
        (&over_grpc, says_nothing, answering_over_grpc().await),
    ] {
        let gateway = gateway(module, protocol, &[&endpoint]).await;
        assert_eq!(gateway.get("/").await.status(), 200, "{protocol}");
    }
}

#[tokio::test]
async fn endpoint_that_answers_call_outs_too_late_is_left_out() {
    let silent = Backend::raw(|mut wire| async move { while wire.message().await.is_ok() {} }).await;
    let well = Backend::answering(|_| ok(b"")).await;
    let gateway = gateway(&asking_over_http(1_000), "http", &[&silent, &well]).await;
    eventually("it is left out", async || {
        gateway.get("/").await;
        ejections(&gateway, &silent).await == Some(1.0)
    })
    .await;
    eventually("the other one answers", async || gateway.get("/").await.status() == 200).await;
}

#[tokio::test]
async fn call_of_grpc_that_is_not_answered_in_time_has_found_nobody_available() {
    let silent = Backend::h2c(|_| std::future::pending::<http::Response<Empty<Bytes>>>()).await;
    let module = wat::parse_str(ASKING.replace("(i32.const 10000)", "(i32.const 100)")).unwrap();
    let gateway = gateway(&module, "kubernetes.io/h2c", &[&silent]).await;
    assert_eq!(gateway.get("/").await.status(), 414);
}

#[tokio::test]
async fn call_to_a_service_without_endpoints_fails_at_once_as_in_envoy() {
    let over_http = asking_over_http(10_000);
    let gateway_of_none = gateway(&over_http, "http", &[]).await;
    assert_eq!(gateway_of_none.get("/").await.status(), 200, "passes without an answer to judge");

    let told = ASKING
        .replace("(drop (call $ask", "(call $answer (i32.add (i32.const 500) (call $ask")
        .replace("(i32.const 10000) (i32.const 0)))", "(i32.const 10000) (i32.const 0))))");
    let gateway_of_none = gateway(&wat::parse_str(told).unwrap(), "kubernetes.io/h2c", &[]).await;
    assert_eq!(gateway_of_none.get("/").await.status(), 510, "an internal failure");
}

#[tokio::test]
async fn metrics_tell_why_a_service_cannot_be_called() {
    let backend = Backend::echo("a").await;
    let module = format!("inline: {}", BASE64_STANDARD.encode(asking_over_http(10_000)));
    let asking = |upstream: &str| {
        let network = format!("sandbox: {{allowNetwork: true}}\n  config: {upstream}\n  wasm:");
        plugin("r", &module).replace("wasm:", &network)
    };
    let grant = "apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: g, namespace: granted}
spec:
  from: [{group: gateway.nantian.dev, kind: WasmPlugin, namespace: demo}]
  to: [{group: '', kind: Service}]";
    let gateway = World::of_backend(&backend)
        .manifest("grant", grant)
        .manifest("plugin", &asking("nobody"))
        .start()
        .await;
    for (upstream, reason) in [
        ("none", "unknown_upstream"),
        ("\"a:81\"", "unusable_upstream"),
        ("a.elsewhere", "not_allowed"),
        ("a.granted", "unknown_upstream"),
    ] {
        gateway.edit("plugin", &asking(upstream)).await;
        let name = format!("nantian_wasm_refused_calls_total{{plugin=\"demo/r\",reason=\"{reason}\"}}");
        let before = gateway.metric(&name).await.unwrap_or_default();
        eventually(&name, async || {
            gateway.get("/").await;
            gateway.metric(&name).await.unwrap_or_default() > before
        })
        .await;
    }
}

#[tokio::test]
async fn plugin_calls_what_the_property_cluster_name_says() {
    let module = include_str!("../../../nantian-wasm/tests/guests/call_out.wat")
        .replace(
            "(memory (export \"memory\") 1)",
            r#"(import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 160) "cluster_name")"#,
        )
        .replace(
            "(global.set $waiting (local.get $context))",
            "(global.set $waiting (local.get $context))
            (drop (call $property (i32.const 160) (i32.const 12) (i32.const 0) (i32.const 4)))
            (global.set $upstream (i32.load (i32.const 0)))
            (global.set $upstream_length (i32.load (i32.const 4)))",
        )
        .replace("(then (return (i32.const 0)))", "(then unreachable)");
    let gateway = gateway(&wat::parse_str(module).unwrap(), "http", &[]).await;
    assert_eq!(gateway.get("/").await.status(), 200);
}

/// Asks the Service `auth`, and answers with what it hears.
const RELAYING: &str = r#"(module
    (import "env" "proxy_http_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_effective_context" (func $become (param i32) (result i32)))
    (import "env" "proxy_get_buffer_bytes" (func $buffer (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_send_local_response"
        (func $answer (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (global $stream (mut i32) (i32.const 0))
    (data (i32.const 100) "auth")
    (data (i32.const 1000) "\04\00\00\00\03\00\00\00\01\00\00\00\07\00\00\00\03\00\00\00\05\00\00\00\01\00\00\00\0a\00\00\00\01\00\00\00x-a\001\00:method\00GET\00:path\00/\00:authority\00a\00")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 2000))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (global.set $stream (local.get 0))
        (drop (call $call (i32.const 100) (i32.const 4) (i32.const 1000) (i32.const 75)
            (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 10000) (i32.const 0)))
        (i32.const 1))
    (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
        (drop (call $become (global.get $stream)))
        (drop (call $buffer (i32.const 4) (i32.const 0) (local.get 3) (i32.const 8) (i32.const 12)))
        (drop (call $answer (i32.const 418) (i32.const 0) (i32.const 0) (i32.load (i32.const 8))
            (i32.load (i32.const 12)) (i32.const 0) (i32.const 0) (i32.const -1)))))"#;

#[tokio::test]
async fn guest_hears_in_the_words_of_envoy_why_nobody_answered() {
    let closed = Port::reserve();
    let hangs_up = Backend::raw(|mut wire| async move { drop(wire.message().await) }).await;
    for (endpoint, reason) in
        [(Backend::at(closed.address()), "remote connection failure"), (hangs_up, "connection termination")]
    {
        let gateway = gateway(&wat::parse_str(RELAYING).unwrap(), "http", &[&endpoint]).await;
        let told =
            format!("upstream connect error or disconnect/reset before headers. reset reason: {reason}");
        assert_eq!(gateway.get("/").await.text(), told);
    }
}

#[tokio::test]
async fn host_is_the_first_header_of_a_call_out() {
    let auth = Backend::answering(|_| ok(b"heard")).await;
    let gateway = gateway(&wat::parse_str(RELAYING).unwrap(), "http", &[&auth]).await;
    assert_eq!(gateway.get("/").await.text(), "heard");
    let asked = auth.last();
    let names: Vec<_> = asked.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..2], ["host", "x-a"]);
}

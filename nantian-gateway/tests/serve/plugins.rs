//! Where plugins come from, and what is shut while they are not there.

use std::{
    convert::Infallible,
    io::ErrorKind,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use http_body_util::StreamBody;
use nantian_wasm::Digest;

use crate::support::{Backend, World, eventually, http2, plugin, rule, soon, to};

/// A module that adds the request header `x-wasm-plugin`.
pub(crate) fn add_header() -> Vec<u8> {
    let guest = concat!(env!("CARGO_MANIFEST_DIR"), "/../nantian-wasm/tests/guests/add_header.wat");
    wat::parse_file(guest).unwrap()
}

pub(crate) fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn module_is_fetched_once_and_tried_again_until_it_is_there() {
    let (asked, is_there) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let origin = Backend::answering({
        let (asked, is_there) = (Arc::clone(&asked), Arc::clone(&is_there));
        move |_| {
            asked.fetch_add(1, Ordering::Relaxed);
            let is_there = is_there.load(Ordering::Relaxed);
            if is_there {
                ok(&add_header())
            } else {
                b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec()
            }
        }
    })
    .await;
    let url =
        format!("url: \"http://{}/plugin.wasm\", sha256: {}", origin.address, Digest::of(&add_header()));
    let backend = Backend::echo("a").await;
    let gateway = World::of_backend(&backend).manifest("plugin", &plugin("r", &url)).start().await;

    assert_eq!(gateway.get("/").await.status(), 503, "closed until the module is there");
    eventually("the failure is told", async || {
        gateway.condition("WasmPlugin demo/r", "Programmed").await["reason"] == "FetchFailed"
    })
    .await;
    is_there.store(true, Ordering::Relaxed);
    eventually("the module is served", async || gateway.get("/").await.status() == 200).await;
    assert_eq!(backend.last().header("x-wasm-plugin"), Some("demo/r"));
    eventually("its status follows", async || {
        gateway.condition("WasmPlugin demo/r", "Programmed").await["status"] == "True"
    })
    .await;

    let asked_before = asked.load(Ordering::Relaxed);
    gateway.edit("plugin", &plugin("r", &url).replace("wasm:", "config: edited\n  wasm:")).await;
    assert_eq!(gateway.get("/").await.status(), 200);
    assert_eq!(asked.load(Ordering::Relaxed), asked_before, "an edit of the configuration fetches nothing");
}

#[tokio::test]
async fn module_is_fetched_anew_for_another_digest_and_when_what_came_was_none() {
    let answers: Arc<Mutex<Vec<u8>>> = Arc::new(Mutex::new(b"<html>not yet</html>".to_vec()));
    let origin = Backend::answering({
        let answers = Arc::clone(&answers);
        move |_| ok(&answers.lock().unwrap())
    })
    .await;
    let backend = Backend::echo("a").await;
    let at = |more: &str| plugin("r", &format!("url: \"http://{}/plugin.wasm\"{more}", origin.address));
    let gateway = World::of_backend(&backend).manifest("plugin", &at("")).start().await;
    eventually("an error page is no module", async || {
        gateway.condition("WasmPlugin demo/r", "Programmed").await["reason"] == "FetchFailed"
    })
    .await;
    // A part of one: it ends where its connection broke off.
    *answers.lock().unwrap() = add_header()[..20].to_vec();
    eventually("nor is half a module", async || {
        gateway.condition("WasmPlugin demo/r", "Programmed").await["reason"] == "ModuleInvalid"
    })
    .await;
    *answers.lock().unwrap() = add_header();
    eventually("the module is served", async || gateway.get("/").await.status() == 200).await;
    assert_eq!(backend.last().header("x-wasm-plugin"), Some("demo/r"));

    let next =
        wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1")))"#)
            .unwrap();
    gateway.edit("plugin", &at(&format!(", sha256: {}", Digest::of(&next)))).await;
    eventually("the old bytes are not those", async || {
        gateway.condition("WasmPlugin demo/r", "Programmed").await["reason"] == "FetchFailed"
    })
    .await;
    assert_eq!(gateway.get("/").await.status(), 200, "the last good one serves on");
    *answers.lock().unwrap() = next;
    eventually("the new module is served", async || {
        gateway.get("/").await.status() == 200 && backend.last().header("x-wasm-plugin").is_none()
    })
    .await;
}

#[tokio::test]
async fn module_that_runs_is_pinned_without_being_fetched_anew() {
    let (asked, is_moved) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let origin = Backend::answering({
        let (asked, is_moved) = (Arc::clone(&asked), Arc::clone(&is_moved));
        move |_| {
            asked.fetch_add(1, Ordering::Relaxed);
            if is_moved.load(Ordering::Relaxed) { ok(b"\0asm, another") } else { ok(&add_header()) }
        }
    })
    .await;
    let backend = Backend::echo("a").await;
    let at = |more: &str| plugin("r", &format!("url: \"http://{}/plugin.wasm\"{more}", origin.address));
    let gateway = World::of_backend(&backend).manifest("plugin", &at("")).start().await;
    eventually("the module is served", async || gateway.get("/").await.status() == 200).await;
    is_moved.store(true, Ordering::Relaxed);
    let pinned = at(&format!(", sha256: {}", Digest::of(&add_header())));
    gateway.edit("plugin", &pinned.replace("wasm:", "config: pinned\n  wasm:")).await;
    eventually("the edit takes effect", async || {
        gateway.condition("WasmPlugin demo/r", "Programmed").await["status"] == "True"
    })
    .await;
    assert_eq!(asked.load(Ordering::Relaxed), 1, "what runs is the one");
}

#[tokio::test]
async fn module_of_another_digest_or_from_a_private_place_is_not_served() {
    let origin = Backend::answering(|_| ok(&add_header())).await;
    let backend = Backend::echo("a").await;
    let wrong = format!("url: \"http://{}/\", sha256: {}", origin.address, Digest::of(b"other"));
    let gateway = World::new()
        .service("a", &[&backend])
        .route("digest", &[rule("/digest", &to("a"))])
        .route("metadata", &[rule("/metadata", &to("a"))])
        .manifest("digest", &plugin("digest", &wrong))
        .manifest("metadata", &plugin("metadata", "url: \"http://169.254.169.254/latest\""))
        .start()
        .await;
    for (path, object, reason, words) in [
        ("/digest", "WasmPlugin demo/digest", "FetchFailed", "sha256 is"),
        ("/metadata", "WasmPlugin demo/metadata", "FetchFailed", "never asked"),
    ] {
        eventually(path, async || gateway.condition(object, "Programmed").await["reason"] == reason).await;
        let message = gateway.condition(object, "Programmed").await["message"].to_string();
        assert!(message.contains(words), "{message}");
        assert_eq!(gateway.get(path).await.status(), 503);
    }
    assert!(backend.seen().is_empty());
}

#[tokio::test]
async fn plugin_asks_a_service_whether_a_request_may_pass() {
    let guest = concat!(env!("CARGO_MANIFEST_DIR"), "/../nantian-wasm/tests/guests/call_out.wat");
    let module = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, wat::parse_file(guest).unwrap());
    let is_open = Arc::new(AtomicBool::new(true));
    let auth = Backend::answering({
        let is_open = Arc::clone(&is_open);
        move |request| {
            assert!(request.start.starts_with("GET /auth "), "{}", request.start);
            let status = if is_open.load(Ordering::Relaxed) { "200 OK" } else { "401 Unauthorized" };
            format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")
        }
    })
    .await;
    let backend = Backend::echo("a").await;
    let asking = |upstream: &str| {
        let sandbox = format!("sandbox: {{allowNetwork: true}}\n  config: \"{upstream}\"\n  wasm:");
        plugin("r", &format!("inline: {module}")).replace("wasm:", &sandbox)
    };
    let gateway = World::new()
        .service("a", &[&backend])
        .service("auth", &[&auth])
        .route("r", &[rule("/", &to("a"))])
        .manifest("plugin", &asking("auth"))
        .start()
        .await;
    assert_eq!(gateway.get("/").await.status(), 200);
    assert_eq!(auth.last().header("host"), Some("auth"));
    is_open.store(false, Ordering::Relaxed);
    assert_eq!(gateway.get("/").await.status(), 403);
    assert_eq!((backend.seen().len(), auth.seen().len()), (1, 2));

    gateway.edit("plugin", &asking("auth.elsewhere")).await;
    assert_eq!(gateway.get("/").await.status(), 200, "the guest lets pass what it cannot ask about");
    assert_eq!(auth.seen().len(), 2, "a Service of another namespace is not there for it");
}

/// Asks `auth` over gRPC whether a request may pass: 200 if it brings a message, else 400 and the status of
/// gRPC.
pub(crate) const ASKING: &str = r#"(module
    (import "env" "proxy_grpc_call"
        (func $ask (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_effective_context" (func $become (param i32) (result i32)))
    (import "env" "proxy_send_local_response"
        (func $respond (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 64) "auth")
    (global $stream (mut i32) (i32.const 0))
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func $answer (param i32)
        (drop (call $become (global.get $stream)))
        (drop (call $respond (local.get 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0) (i32.const -1))))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (global.set $stream (local.get 0))
        (drop (call $ask (i32.const 64) (i32.const 4) (i32.const 64) (i32.const 4) (i32.const 64) (i32.const 4)
            (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 10000) (i32.const 0)))
        (i32.const 1))
    (func (export "proxy_on_grpc_receive") (param i32 i32 i32) (call $answer (i32.const 200)))
    (func (export "proxy_on_grpc_close") (param i32 i32 i32)
        (call $answer (i32.add (i32.const 400) (local.get 2)))))"#;

#[tokio::test]
async fn unary_call_that_ends_well_without_a_message_has_failed() {
    let answers = Arc::new(AtomicUsize::new(0));
    let auth = Backend::h2c(move |_| {
        let number = answers.fetch_add(1, Ordering::Relaxed);
        async move {
            let ended =
                HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from(0))]);
            let message = Frame::data(Bytes::from_static(&[0, 0, 0, 0, 1, b'x']));
            let (frames, headers) = match number {
                0 => (vec![], ended),
                1 => (vec![Frame::trailers(ended)], HeaderMap::new()),
                _ => (vec![message, Frame::trailers(ended)], HeaderMap::new()),
            };
            let frames = futures_util::stream::iter(frames.into_iter().map(Ok::<_, Infallible>));
            let mut response = http::Response::new(StreamBody::new(frames));
            *response.headers_mut() = headers;
            response
        }
    })
    .await;
    let backend = Backend::echo("a").await;
    let module = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, wat::parse_str(ASKING).unwrap());
    let asking = plugin("r", &format!("inline: {module}"));
    let gateway = World::new()
        .service("a", &[&backend])
        .h2c_service("auth", &auth)
        .route("r", &[rule("/", &to("a"))])
        .manifest("plugin", &asking.replace("wasm:", "sandbox: {allowNetwork: true}\n  wasm:"))
        .start()
        .await;
    for (answer, status) in [("no body at all", 413), ("trailers alone", 413), ("a message", 200)] {
        assert_eq!(gateway.get("/").await.status(), status, "{answer}");
    }
}

/// Closes the stream of every request, before or after it has got a response.
fn closing(callback: &str, stream: u32) -> String {
    let guest = format!(
        r#"(module
            (import "env" "proxy_close_stream" (func $close (param i32) (result i32)))
            (memory (export "memory") 1)
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
            (func (export "{callback}") (param i32 i32 i32) (result i32) (call $close (i32.const {stream}))))"#
    );
    base64::Engine::encode(&base64::prelude::BASE64_STANDARD, wat::parse_str(guest).unwrap())
}

#[tokio::test]
async fn client_of_a_stream_that_a_plugin_closes_gets_nothing_and_others_are_served() {
    let backend = Backend::echo("a").await;
    let early = plugin("early", &format!("inline: {}", closing("proxy_on_request_headers", 0)));
    let late = plugin("late", &format!("inline: {}", closing("proxy_on_response_headers", 1)));
    let gateway = World::new()
        .service("a", &[&backend])
        .route("early", &[rule("/early", &to("a"))])
        .route("late", &[rule("/late", &to("a"))])
        .route("open", &[rule("/open", &to("a"))])
        .manifest("early", &early)
        .manifest("late", &late)
        .start()
        .await;
    for path in ["/early", "/late"] {
        let mut wire = gateway.connect().await;
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        let end = soon(wire.head()).await.expect_err("the connection ends");
        assert!(matches!(end.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{end:?}");
    }
    let mut client = http2::client(&gateway).await;
    for path in ["/early", "/late"] {
        let broken = soon(client.send_request(http2::get(path))).await;
        assert!(broken.is_err(), "{path}: {broken:?}");
    }
    let served = soon(client.send_request(http2::get("/open"))).await.unwrap();
    assert_eq!(served.status(), 200, "the other streams of the connection go on");
    assert_eq!(backend.seen().len(), 3, "the early ones are not asked for");
}

#[tokio::test]
async fn plugin_whose_first_version_cannot_be_read_keeps_its_target_shut() {
    let module = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, add_header());
    let good = plugin("r", &format!("inline: {module}"));
    let broken = good.replace("wasm:", "hoks: [onRequest]\n  wasm:");
    let backend = Backend::echo("a").await;
    let gateway = World::of_backend(&backend)
        .route("open", &[rule("/open", &to("a"))])
        .manifest("plugin", &broken)
        .manifest("open", &plugin("open", "inlin: x").replace("wasm:", "failurePolicy: FailOpen\n  wasm:"))
        .start()
        .await;
    assert_eq!(gateway.get("/").await.status(), 503);
    assert_eq!(gateway.get("/open").await.status(), 200, "as its failure policy says");
    let accepted = gateway.condition("WasmPlugin demo/r", "Accepted").await;
    assert_eq!(accepted["status"], "False");
    assert!(accepted["message"].to_string().contains("hoks"), "{accepted}");

    gateway.edit("plugin", &good).await;
    assert_eq!(gateway.get("/").await.status(), 200);
    gateway.edit("plugin", &broken).await;
    assert_eq!(gateway.get("/").await.status(), 200, "the last good version serves on");
    assert_eq!(backend.last().header("x-wasm-plugin"), Some("demo/r"));
}

#[tokio::test]
async fn last_good_module_serves_on_and_the_status_tells_what_is_wrong_with_the_edit() {
    let module = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, add_header());
    let good = plugin("r", &format!("inline: {module}"));
    let backend = Backend::echo("a").await;
    let gateway = World::of_backend(&backend).manifest("plugin", &good).start().await;
    let wrong = Digest::of(b"other");
    for (wasm, reason, words) in [
        (format!("inline: {module}, sha256: {wrong}"), "ModuleInvalid", "sha256 is"),
        ("inline: AGFzbQEAAAA=".to_owned(), "ModuleInvalid", "no known plugin ABI"),
        ("inline: '!'".to_owned(), "", ""),
        ("configMap: {name: absent}".to_owned(), "ConfigMapNotFound", "does not exist"),
        (
            "url: 'oci://registry.test/p', imagePullSecret: absent".to_owned(),
            "SecretNotFound",
            "does not exist",
        ),
        ("url: 'http://169.254.169.254/p'".to_owned(), "FetchFailed", "never asked"),
    ] {
        gateway.edit("plugin", &plugin("r", &wasm)).await;
        if !reason.is_empty() {
            eventually(reason, async || {
                gateway.condition("WasmPlugin demo/r", "Programmed").await["reason"] == reason
            })
            .await;
            let programmed = gateway.condition("WasmPlugin demo/r", "Programmed").await;
            assert_eq!(programmed["status"], "False");
            assert!(programmed["message"].to_string().contains(words), "{programmed}");
        }
        assert_eq!(gateway.get("/").await.status(), 200, "{wasm}");
        assert_eq!(backend.last().header("x-wasm-plugin"), Some("demo/r"), "{wasm}");
    }
    gateway.edit("plugin", &good).await;
    eventually("it has started again", async || {
        gateway.condition("WasmPlugin demo/r", "Programmed").await["status"] == "True"
    })
    .await;
}

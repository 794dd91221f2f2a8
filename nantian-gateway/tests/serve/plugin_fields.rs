//! What a WasmPlugin says about its module, seen at work.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::{
    Backend, Certificate, Message, Port, Running, Wire, World, chat, eventually, http2,
    limits::{ai_service, completion},
    plugin, rule, soon, to, to_ai,
};

/// Puts the property that its configuration names into the request header `x-value`.
pub(crate) const PROPERTY: &str = r#"(module
    (import "env" "proxy_get_buffer_bytes" (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_property" (func $get_property (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_add_header_map_value" (func $add_header (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 64) "x-value")
    (global $heap (mut i32) (i32.const 1024))
    (global $path (mut i32) (i32.const 0))
    (global $length (mut i32) (i32.const 0))
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
        (global.get $heap)
        (global.set $heap (i32.add (global.get $heap) (local.get $size))))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (drop (call $get_buffer (i32.const 7) (i32.const 0) (local.get 1) (i32.const 0) (i32.const 4)))
        (global.set $path (i32.load (i32.const 0)))
        (global.set $length (local.get 1))
        (i32.const 1))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (global.set $heap (i32.const 2048))
        (if (i32.eqz (call $get_property (global.get $path) (global.get $length) (i32.const 0) (i32.const 4)))
            (then
                (drop (call $log (i32.const 2) (i32.load (i32.const 0)) (i32.load (i32.const 4))))
                (drop (call $add_header (i32.const 0) (i32.const 64) (i32.const 7)
                    (i32.load (i32.const 0)) (i32.load (i32.const 4))))))
        (i32.const 0)))"#;

/// Puts its first environment variable into the request header `x-value`.
const ENVIRONMENT: &str = r#"(module
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
    (import "env" "proxy_add_header_map_value" (func $add_header (param i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 64) "x-value")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (drop (call $sizes (i32.const 0) (i32.const 4)))
        (drop (call $environ (i32.const 128) (i32.const 2048)))
        (drop (call $add_header (i32.const 0) (i32.const 64) (i32.const 7)
            (i32.const 2048) (i32.sub (i32.load (i32.const 4)) (i32.const 1))))
        (i32.const 0)))"#;

/// Compresses the text `again and again` and puts what uncompressing it gives into the request header
/// `x-value`.
const FOREIGN: &str = r#"(module
    (import "env" "proxy_call_foreign_function" (func $call (param i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_add_header_map_value" (func $add_header (param i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 64) "x-value")
    (data (i32.const 80) "compress")
    (data (i32.const 96) "uncompress")
    (data (i32.const 112) "again and again")
    (global $heap (mut i32) (i32.const 1024))
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
        (global.get $heap)
        (global.set $heap (i32.add (global.get $heap) (local.get $size))))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (global.set $heap (i32.const 1024))
        (if (call $call (i32.const 80) (i32.const 8) (i32.const 112) (i32.const 15) (i32.const 8) (i32.const 12))
            (then (return (i32.const 0))))
        (if (call $call (i32.const 96) (i32.const 10) (i32.load (i32.const 8)) (i32.load (i32.const 12))
                (i32.const 8) (i32.const 12))
            (then (return (i32.const 0))))
        (drop (call $add_header (i32.const 0) (i32.const 64) (i32.const 7)
            (i32.load (i32.const 8)) (i32.load (i32.const 12))))
        (i32.const 0)))"#;

/// Holds every request for ever.
const HOLDING: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1)))"#;

/// The source of a plugin.
pub(crate) fn inline(text: &str) -> String {
    format!("inline: {}", BASE64_STANDARD.encode(wat::parse_str(text).unwrap()))
}

/// One of the guests of the crate.
fn guest(name: &str) -> String {
    let path = format!("{}/../nantian-wasm/tests/guests/{name}.wat", env!("CARGO_MANIFEST_DIR"));
    format!("inline: {}", BASE64_STANDARD.encode(wat::parse_file(path).unwrap()))
}

/// The route `r` with a plugin; `fields` are further fields of its spec.
fn world(backend: &Backend, wasm: &str, fields: &str) -> World {
    World::of_backend(backend).manifest("plugin", &spec(wasm, fields))
}

pub(crate) fn spec(wasm: &str, fields: &str) -> String {
    plugin("r", wasm).replace("  wasm:", &format!("  {fields}\n  wasm:"))
}

async fn value(gateway: &Running, backend: &Backend) -> Option<String> {
    assert_eq!(gateway.get("/").await.status(), 200);
    backend.last().header("x-value").map(str::to_owned)
}

#[tokio::test]
async fn guest_knows_where_it_runs_and_what_it_is_called() {
    let backend = Backend::echo("a").await;
    let gateway = world(&backend, &inline(PROPERTY), "config: route_name").start().await;
    assert_eq!(value(&gateway, &backend).await.as_deref(), Some("demo/r"));
    for (config, expected) in [
        (r"xds\0route_name", "demo/r".to_owned()),
        ("cluster_name", "demo/a:80".to_owned()),
        (r"xds\0cluster_name", "demo/a:80".to_owned()),
        (r"destination\0address", gateway.address().to_string()),
        ("plugin_name", "demo/r".to_owned()),
        ("plugin_root_id", "second".to_owned()),
        (r"request\0url_path", "/".to_owned()),
    ] {
        let fields = format!("config: \"{config}\"\n  pluginName: second");
        gateway.edit("plugin", &spec(&inline(PROPERTY), &fields)).await;
        assert_eq!(value(&gateway, &backend).await, Some(expected), "{config}");
    }
}

#[tokio::test]
async fn guest_knows_where_the_request_went_once_it_has_gone_there() {
    let backend = Backend::echo("a").await;
    let fields = r#"config: "upstream\0address""#;
    let gateway = world(&backend, &inline(PROPERTY), fields).start().await;
    assert_eq!(value(&gateway, &backend).await, None, "no endpoint is picked yet");
    let in_response = PROPERTY
        .replace("proxy_on_request_headers", "proxy_on_response_headers")
        .replace("$add_header (i32.const 0)", "$add_header (i32.const 2)");
    gateway.edit("plugin", &spec(&inline(&in_response), fields)).await;
    let address = backend.address.to_string();
    assert_eq!(gateway.get("/").await.header("x-value"), Some(address.as_str()));
    let of_backend = spec(&inline(&in_response), fields).replace("name: r,", "name: of-backend,").replace(
        "group: gateway.networking.k8s.io, kind: HTTPRoute, name: r",
        "group: '', kind: Service, name: a",
    );
    let both = format!("{}\n---\n{of_backend}", spec(&inline(&in_response), fields));
    gateway.edit("plugin", &both).await;
    assert_eq!(gateway.get("/").await.all("x-value"), [&address, &address], "plugins of both are told");
}

#[tokio::test]
async fn guest_knows_what_the_handshake_of_the_client_has_settled() {
    let (certificate, backend, port) =
        (Certificate::new(&["h.example"]), Backend::echo("a").await, Port::reserve());
    let tls = "protocol: HTTPS, tls: {mode: Terminate, certificateRefs: [{name: own}]}";
    let listener = port.listener("https", tls);
    let gateway = World::with_listeners(port, &[listener])
        .manifest("own", &certificate.secret("own"))
        .service("a", &[&backend])
        .route("r", &[rule("/", &to("a"))])
        .manifest("plugin", &spec(&inline(PROPERTY), "config: ''"))
        .start()
        .await;
    for (config, expected) in
        [("tls_version", "TLSv1.3"), ("requested_server_name", "h.example"), ("mtls", "\0")]
    {
        let fields = format!(r#"config: "connection\0{config}""#);
        gateway.edit("plugin", &spec(&inline(PROPERTY), &fields)).await;
        let stream = soon(TcpStream::connect(gateway.address())).await.unwrap();
        let connector = TlsConnector::from(Certificate::client(&[&certificate], &[]));
        let stream = soon(connector.connect("h.example".try_into().unwrap(), stream)).await.unwrap();
        let reply = Wire::over(stream).ask("GET / HTTP/1.1\r\nHost: h.example\r\n\r\n").await;
        // No header carries a NUL, so that the request ends there.
        let is_text = !expected.contains('\0');
        assert_eq!(reply.status() == 200, is_text, "{config}");
        if is_text {
            assert_eq!(backend.last().header("x-value"), Some(expected), "{config}");
        }
    }
}

#[tokio::test]
async fn guest_logs_under_the_names_of_plugin_and_stream() {
    let backend = Backend::echo("a").await;
    let gateway = world(&backend, &inline(PROPERTY), "config: plugin_name").start().await;
    value(&gateway, &backend).await;
    let line = gateway.log.more("\"nantian_wasm::guest\"", 0).await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["fields"]["plugin"], "demo/r");
    assert_eq!(line["fields"]["message"], "demo/r");
    assert!(line["fields"]["context"].as_u64().is_some_and(|stream| stream > 1), "{line}");
    assert_eq!(gateway.metric("nantian_wasm_streams_total{plugin=\"demo/r\"}").await, Some(1.0));
    let calls = gateway.metric("nantian_wasm_calls_total{plugin=\"demo/r\"}").await;
    assert!(calls.is_some_and(|calls| calls >= 1.0), "{calls:?}");
    assert!(gateway.metric("nantian_wasm_guest_seconds_total{plugin=\"demo/r\"}").await.is_some());
}

/// Traps with every request.
const TRAPPING: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "proxy_abi_version_0_2_1"))
    (func $judge (unreachable))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (call $judge) (i32.const 0)))"#;

#[tokio::test]
async fn operator_is_told_why_and_where_a_plugin_fails() {
    let backend = Backend::echo("a").await;
    let world = world(&backend, &inline(TRAPPING), "config: ''").options(&["--access-log", "json"]);
    let mut gateway = world.start().await;
    assert_eq!(gateway.get("/").await.status(), 503);
    for (cause, count) in [("trap", 1.0), ("paused", 0.0)] {
        let failures = format!("nantian_wasm_failures_total{{plugin=\"demo/r\",cause=\"{cause}\"}}");
        assert_eq!(gateway.metric(&failures).await, Some(count), "{cause}");
    }
    let line = gateway.log.more("plugin instance ended", 0).await;
    assert!(line.contains("judge at 0x"), "{line}");
    gateway.signal("TERM");
    assert!(gateway.exit().await.success());
    let line: serde_json::Value = serde_json::from_str(&gateway.output.all()[0]).unwrap();
    let error = line["error"].to_string();
    assert!(error.contains("plugin demo/r failed in request headers: trap"), "{line}");
}

#[tokio::test]
async fn guest_has_the_environment_and_nobody_is_shown_it() {
    let backend = Backend::echo("a").await;
    let fields = "vmConfig: {env: [{name: MODE, value: sk-secret}]}";
    let gateway = world(&backend, &inline(ENVIRONMENT), fields).start().await;
    assert_eq!(value(&gateway, &backend).await.as_deref(), Some("MODE=sk-secret"));
    assert!(!gateway.config().await.to_string().contains("sk-secret"));
}

#[tokio::test]
async fn variable_of_a_secret_is_there_once_the_secret_is_and_is_shown_to_nobody() {
    let backend = Backend::echo("a").await;
    let fields = "vmConfig: {env: [{name: TOKEN, valueFrom: {secretKeyRef: {name: tokens, key: audit}}}]}";
    let gateway = world(&backend, &inline(ENVIRONMENT), fields).start().await;
    let tokens = |entry: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: tokens, namespace: demo}}\nstringData: {{{entry}}}"
        )
    };
    let path = "spec.vmConfig.env[0].valueFrom.secretKeyRef: ";
    for (secret, words) in [
        (None, "Secret demo/tokens does not exist"),
        (Some(tokens("other: sk-1")), "Secret demo/tokens has no entry \"audit\""),
        (Some(tokens(r#"audit: "sk\0""#)), "the entry is no text of up to 32768 bytes"),
    ] {
        if let Some(secret) = secret {
            gateway.edit("secret", &secret).await;
        }
        let resolved = gateway.condition("WasmPlugin demo/r", "ResolvedRefs").await;
        assert_eq!((&resolved["status"], &resolved["reason"]), (&"False".into(), &"SecretNotFound".into()));
        assert!(resolved["message"].as_str().unwrap().ends_with(&format!("{path}{words}")), "{resolved}");
        assert_eq!(gateway.get("/").await.status(), 503);
    }
    for token in ["sk-old", "sk-new"] {
        gateway.edit("secret", &tokens(&format!("audit: {token}"))).await;
        let expected = format!("TOKEN={token}");
        eventually("the plugin has it", async || value(&gateway, &backend).await.as_ref() == Some(&expected))
            .await;
    }
    gateway.edit("secret", &tokens("other: sk-new")).await;
    assert_eq!(value(&gateway, &backend).await.as_deref(), Some("TOKEN=sk-new"), "the last good one");
    for shown in [gateway.config().await.to_string(), gateway.log.text()] {
        assert!(!shown.contains("sk-old") && !shown.contains("sk-new"), "{shown}");
    }
}

#[tokio::test]
async fn variables_that_are_too_long_together_keep_the_plugin_shut() {
    let backend = Backend::echo("a").await;
    let from = "valueFrom: {secretKeyRef: {name: tokens}}";
    let fields = |count: usize| {
        let all: Vec<_> = (0..count).map(|index| format!("{{name: T{index}, {from}}}")).collect();
        format!("vmConfig: {{env: [{}]}}", all.join(", "))
    };
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: tokens, namespace: demo}}\nstringData: {{all: {}}}",
        "a".repeat(32_766)
    );
    let gateway = world(&backend, &inline(ENVIRONMENT), &fields(5)).manifest("secret", &secret).start().await;
    let programmed = gateway.condition("WasmPlugin demo/r", "Programmed").await;
    let words = "spec.vmConfig.env: the names and values are longer than 131072 bytes together";
    assert!(programmed["message"].as_str().unwrap().ends_with(words), "{programmed}");
    assert_eq!(gateway.get("/").await.status(), 503);
    gateway.edit("plugin", &spec(&inline(ENVIRONMENT), &fields(4))).await;
    eventually("they are not too long", async || {
        gateway.condition("WasmPlugin demo/r", "Programmed").await["status"] == "True"
    })
    .await;
}

#[tokio::test]
async fn status_and_log_tell_which_bytes_run() {
    let backend = Backend::echo("a").await;
    let digest = nantian_wasm::Digest::of(&wat::parse_str(ENVIRONMENT).unwrap());
    let pinned = format!("{}, sha256: {digest}", inline(ENVIRONMENT));
    let text = inline(ENVIRONMENT);
    let map = text.replace(
        "inline:",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m, namespace: demo}\ndata:\n  m:",
    );
    let gateway = world(&backend, &pinned, "config: ''").manifest("map", &map).start().await;
    let by_name = "configMap: {name: m, key: m}".to_owned();
    for (edit, told, starts) in [(None, "", 1), (Some(by_name), ", not pinned", 1), (Some(text), "", 2)] {
        if let Some(wasm) = edit {
            gateway.edit("plugin", &spec(&wasm, "config: ''")).await;
        }
        let message = format!("the module is in force; sha256 {digest}{told}");
        eventually(&message, async || {
            gateway.condition("WasmPlugin demo/r", "Programmed").await["message"] == message
        })
        .await;
        assert_eq!(gateway.log.count(&format!("WasmPlugin demo/r is served: sha256 {digest}{told}")), starts);
    }
}

#[tokio::test]
async fn module_is_given_the_configuration_of_its_virtual_machine() {
    /// Starts only with a configuration of so many bytes.
    const STARTING: &str = r#"(module
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.eq (local.get 1) (i32.const 7))))"#;
    let backend = Backend::echo("a").await;
    let fields = "vmConfig: {configuration: sk-conf}";
    let gateway = world(&backend, &inline(STARTING), fields).start().await;
    assert_eq!(gateway.get("/").await.status(), 200);
    assert!(!gateway.config().await.to_string().contains("sk-conf"));
}

#[tokio::test]
async fn module_that_holds_headers_decides_by_the_body_where_it_may() {
    /// Holds headers, and answers once it has the body.
    const DECIDING: &str = r#"(module
        (import "env" "proxy_send_local_response"
            (func $answer (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
            (call $answer (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                (i32.const 0) (i32.const 0) (i32.const -1))))"#;
    let backend = Backend::echo("a").await;
    for (allow, status) in [("true", 403), ("false", 503)] {
        let fields = format!("allowOnHeadersStopIteration: {allow}\n  sandbox: {{maxPauseMs: 500}}");
        let gateway = world(&backend, &inline(DECIDING), &fields).start().await;
        let post = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(gateway.ask(post).await.status(), status, "{allow}");
    }
    assert!(backend.seen().is_empty());
}

#[tokio::test]
async fn foreign_functions_of_envoy_are_there() {
    let backend = Backend::echo("a").await;
    let gateway = world(&backend, &inline(FOREIGN), "config: ''").start().await;
    assert_eq!(value(&gateway, &backend).await.as_deref(), Some("again and again"));
}

#[tokio::test]
async fn capability_that_is_not_listed_is_not_there() {
    let backend = Backend::echo("a").await;
    let listed = |names: &str| format!("sandbox: {{allowedCapabilities: [{names}]}}");
    let most = "proxy_on_configure, proxy_get_buffer_bytes, proxy_get_property, proxy_log";
    let config = "config: plugin_name\n  ";
    let all = listed(&format!("{most}, proxy_on_request_headers, proxy_add_header_map_value"));
    let gateway = world(&backend, &inline(PROPERTY), &format!("{config}{all}")).start().await;
    assert_eq!(value(&gateway, &backend).await.as_deref(), Some("demo/r"));
    for fewer in [
        listed(&format!("{most}, proxy_on_request_headers")),
        listed(&format!("{most}, proxy_add_header_map_value")),
    ] {
        gateway.edit("plugin", &spec(&inline(PROPERTY), &format!("{config}{fewer}"))).await;
        assert_eq!(value(&gateway, &backend).await, None, "{fewer}");
    }
    let no_files = listed("proxy_on_request_headers, proxy_add_header_map_value, environ_get");
    let fields = format!("vmConfig: {{env: [{{name: A, value: b}}]}}\n  {no_files}");
    gateway.edit("plugin", &spec(&inline(ENVIRONMENT), &fields)).await;
    assert_ne!(value(&gateway, &backend).await.as_deref(), Some("A=b"), "a function of WASI is one too");
}

#[tokio::test]
async fn message_is_held_no_longer_and_no_more_of_it_than_the_sandbox_allows() {
    let backend = Backend::echo("a").await;
    let gateway = world(&backend, &inline(HOLDING), "sandbox: {maxPauseMs: 50}").start().await;
    assert_eq!(gateway.get("/").await.status(), 503, "before the client's patience ends");
    assert!(backend.seen().is_empty());

    let post = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
    for (limit, status) in [(4, 413), (5, 200)] {
        let fields = format!("config: h\n  sandbox: {{maxBufferedBodyBytes: {limit}}}");
        gateway.edit("plugin", &spec(&guest("body"), &fields)).await;
        assert_eq!(gateway.ask(post).await.status(), status, "{limit}");
    }
}

/// A stream of two events in parts of three bytes.
fn events(_: &Message) -> Vec<u8> {
    let mut reply =
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for part in b"data: one\n\ndata: two\n\n".chunks(3) {
        reply.extend(format!("{:x}\r\n", part.len()).bytes());
        reply.extend(part);
        reply.extend(b"\r\n");
    }
    reply.extend(b"0\r\n\r\n");
    reply
}

#[tokio::test]
async fn guest_sees_whole_events_where_it_asks_for_them() {
    let backend = Backend::answering(events).await;
    // The guest puts an exclamation mark behind each part that it is shown.
    let gateway = world(&backend, &guest("body"), "config: a\n  streamFraming: Events").start().await;
    let text = gateway.get("/").await.text();
    assert_eq!(text.replace('!', ""), "data: one\n\ndata: two\n\n");
    for (cut, _) in text.match_indices('!') {
        let before = text[..cut].trim_end_matches('!');
        assert!(before.ends_with("\n\n"), "{text:?}");
    }
    assert!(text.contains('!'), "{text:?}");
}

#[tokio::test]
async fn hooks_that_are_not_named_are_not_called() {
    let backend = Backend::answering(events).await;
    let gateway = world(&backend, &guest("body"), "config: a\n  hooks: [onRequest]").start().await;
    assert_eq!(gateway.get("/").await.text(), "data: one\n\ndata: two\n\n");
    gateway.edit("plugin", &spec(&guest("body"), "config: a\n  hooks: [onResponse]")).await;
    assert_eq!(
        gateway.get("/").await.text(),
        "data: one\n\ndata: two\n\n",
        "streams have a hook of their own"
    );
    gateway.edit("plugin", &spec(&guest("body"), "config: a\n  hooks: [onStreamChunk]")).await;
    assert!(gateway.get("/").await.text().contains('!'));
}

/// What a provider of Anthropic's dialect says, as a whole and as a stream.
const MESSAGE: &str = r#"{"id":"m","type":"message","role":"assistant","model":"claude","content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}"#;
const EVENTS: [&str; 6] = [
    r#"{"type":"message_start","message":{"id":"m","type":"message","role":"assistant","model":"claude","content":[],"usage":{"input_tokens":1,"output_tokens":0}}}"#,
    r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
    r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hi"}}"#,
    r#"{"type":"content_block_stop","index":0}"#,
    r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}"#,
    r#"{"type":"message_stop"}"#,
];

fn anthropic(request: &Message) -> String {
    let asked: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    let (kind, body) = if asked["stream"] == true {
        let event = |data: &str| {
            let kind: serde_json::Value = serde_json::from_str(data).unwrap();
            format!("event: {}\ndata: {data}\n\n", kind["type"].as_str().unwrap())
        };
        ("text/event-stream", EVENTS.map(event).concat())
    } else {
        ("application/json", MESSAGE.to_owned())
    };
    format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn plugin_of_an_ai_route_sees_what_the_client_sends_and_gets() {
    let provider = Backend::answering(anthropic).await;
    let service = format!(
        "
apiVersion: gateway.nantian.dev/v1alpha1
kind: AIService
metadata: {{name: llm, namespace: demo}}
spec: {{provider: anthropic, model: claude, endpoint: 'http://{}', auth: {{type: none}}}}
",
        provider.address
    );
    let fields = r#"config: "request\0url_path""#;
    let gateway = World::new()
        .manifest("service", &service)
        .route("r", &[rule("/v1", &to_ai("llm"))])
        .manifest("plugin", &spec(&inline(PROPERTY), fields))
        .start()
        .await;
    let answer = gateway.ask(chat("h", false)).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert_eq!(answer.json()["object"], "chat.completion", "the client's own dialect");
    assert!(provider.last().start.starts_with("POST /v1/messages "), "{}", provider.last().start);
    let line = gateway.log.more("\"nantian_wasm::guest\"", 0).await;
    assert!(line.contains("/v1/chat/completions"), "the client's own path: {line}");

    // What it changes in the answer is an answer in the client's dialect.
    gateway.edit("plugin", &spec(&guest("body"), "config: a\n  hooks: [onResponse]")).await;
    let answer = gateway.ask(chat("h", false)).await;
    let text = answer.text();
    assert!(text.trim_end_matches('!').ends_with('}') && text.contains("chat.completion"), "{text}");
    assert!(text.ends_with('!'), "{text}");

    // So is what it sees of a stream.
    let fields = "config: a\n  hooks: [onStreamChunk]\n  streamFraming: Events";
    gateway.edit("plugin", &spec(&guest("body"), fields)).await;
    let text = gateway.ask(chat("h", true)).await.text();
    assert!(text.contains("chat.completion.chunk"), "{text}");
    assert!(text.contains("\n\n!") && text.trim_end_matches('!').ends_with("data: [DONE]\n\n"), "{text}");
}

#[tokio::test]
async fn plugin_of_an_ai_service_is_told_the_protocol_that_the_client_speaks() {
    let provider = Backend::answering(|_| completion(2)).await;
    let target = "{group: gateway.nantian.dev, kind: AIService, name: llm}";
    let plugin = spec(&inline(PROPERTY), r#"config: "request\0protocol""#)
        .replace("{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}", target);
    let gateway = World::new()
        .manifest("service", &ai_service("llm", "m", &provider))
        .route("r", &[rule("/v1", &to_ai("llm"))])
        .manifest("plugin", &plugin)
        .start()
        .await;
    let (body, request) = http2::upload("/v1/chat/completions");
    body.send(r#"{"model":"any","messages":[]}"#).unwrap();
    drop(body);
    let (status, answer) = http2::reply(&http2::client(&gateway).await, request).await;
    assert_eq!(status, 200, "{answer:?}");
    let line = gateway.log.more("\"nantian_wasm::guest\"", 0).await;
    assert!(line.contains("HTTP/2"), "{line}");
}

/// A WasmPlugin that adds its name to the request header `x-config`.
fn naming(name: &str, target: &str, created: u32) -> String {
    format!(
        "---
apiVersion: gateway.nantian.dev/v1alpha1
kind: WasmPlugin
metadata: {{name: {name}, namespace: demo, creationTimestamp: '2026-01-0{created}T00:00:00Z'}}
spec:
  {target}
  config: {name}
  wasm: {{{}}}
",
        guest("echo_config")
    )
}

#[tokio::test]
async fn plugins_run_from_the_gateway_to_the_backend_and_the_older_first() {
    let on = |group: &str, kind: &str, name: &str| {
        format!("targetRefs: [{{group: '{group}', kind: {kind}, name: {name}}}]")
    };
    let api = "gateway.networking.k8s.io";
    let listener = on(api, "Gateway", "demo").replace("}]", ", sectionName: http}]");
    let plugins = [
        naming("service", &on("", "Service", "a"), 1),
        naming("route-young", &on(api, "HTTPRoute", "r"), 3),
        naming("route-old-b", &on(api, "HTTPRoute", "r"), 2),
        naming("route-old-a", &on(api, "HTTPRoute", "r"), 2),
        naming("filter", "hooks: [onRequest]", 1),
        naming("listener", &listener, 5),
        naming("gateway", &on(api, "Gateway", "demo"), 4),
    ];
    let filter = "filters: [{type: ExtensionRef, extensionRef: {group: gateway.nantian.dev, kind: WasmPlugin, name: filter}}],";
    let backend = Backend::echo("a").await;
    let gateway = World::new()
        .service("a", &[&backend])
        .route("r", &[rule("/", &format!("{filter} {}", to("a")))])
        .manifest("plugins", &plugins.concat())
        .start()
        .await;
    assert_eq!(gateway.get("/").await.status(), 200);
    assert_eq!(
        backend.last().all("x-config"),
        ["gateway", "listener", "route-old-a", "route-old-b", "route-young", "filter", "service"]
    );
}

/// Defines three hundred counters of two letters each, from `aa` to `nl`, and adds seven to the last.
const COUNTING: &str = r#"(module
    (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_record_metric" (func $record (param i32 i64) (result i32)))
    (memory (export "memory") 1)
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_configure") (param i32 i32) (result i32) (local $number i32)
        (loop $more
            (i32.store8 (i32.const 8) (i32.add (i32.const 97) (i32.rem_u (local.get $number) (i32.const 26))))
            (i32.store8 (i32.const 9) (i32.add (i32.const 97) (i32.div_u (local.get $number) (i32.const 26))))
            (drop (call $define (i32.const 0) (i32.const 8) (i32.const 2) (i32.const 0)))
            (local.set $number (i32.add (local.get $number) (i32.const 1)))
            (br_if $more (i32.lt_u (local.get $number) (i32.const 300))))
        (drop (call $record (i32.load (i32.const 0)) (i64.const 7)))
        (i32.const 1)))"#;

#[tokio::test]
async fn metrics_of_a_guest_are_shown_however_late_it_defines_them() {
    let backend = Backend::echo("a").await;
    let gateway = world(&backend, &inline(COUNTING), "config: ''").start().await;
    value(&gateway, &backend).await;
    let last = r#"nantian_wasm_guest_counter_total{plugin="demo/r",name="nl"}"#;
    let shown = gateway.metric(last).await;
    assert_eq!(shown.map(|value| value % 7.0), Some(0.0), "each instance adds seven");
    assert!(shown > Some(0.0));
}

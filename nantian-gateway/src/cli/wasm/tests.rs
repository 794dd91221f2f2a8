use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::Parser;
use tempfile::TempDir;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: WasmCommand,
}

/// In the place of an argument: the manifest brings the module.
const BROUGHT: &str = "";

/// What a command line says about a guest of the plugin crate's tests, or about this text.
fn said_of(command: &str, guest: &str, arguments: &[&str]) -> (bool, String) {
    let directory = TempDir::new().unwrap();
    let plugin = directory.path().join("probe.wasm");
    let module = if guest.starts_with('(') {
        wat::parse_str(guest).unwrap()
    } else {
        wat::parse_file(format!("{}/../nantian-wasm/tests/guests/{guest}.wat", env!("CARGO_MANIFEST_DIR")))
            .unwrap()
    };
    fs::write(&plugin, module).unwrap();
    fs::write(
        directory.path().join("request"),
        "PUT /things?page=2 HTTP/1.1\r\nhost: shop.example\r\nx-kept: 1\r\n\r\nhello world",
    )
    .unwrap();
    fs::write(directory.path().join("http2"), "GET / HTTP/2\nhost: h.example:8443\n\n").unwrap();
    let elsewhere = "url: 'oci://registry.example/p:1'";
    let inline = format!("inline: {}", BASE64_STANDARD.encode(fs::read(&plugin).unwrap()));
    let pinned = format!("{elsewhere}, sha256: '{}'", "0".repeat(64));
    for (name, wasm, fields) in [
        ("plugin", elsewhere, "config: auth, sandbox: {maxMemoryBytes: 131072}"),
        ("response", elsewhere, "hooks: [onResponse]"),
        ("pinned", &*pinned, "config: ''"),
        ("network", elsewhere, "config: auth, sandbox: {allowNetwork: true}"),
        ("inline", &*inline, "config: ''"),
    ] {
        let manifest = format!(
            "apiVersion: gateway.nantian.dev/v1alpha1\nkind: WasmPlugin\n\
             metadata: {{name: p, namespace: demo}}\nspec: {{wasm: {{{wasm}}}, {fields}}}\n"
        );
        fs::write(directory.path().join(format!("{name}.yaml")), manifest).unwrap();
    }
    fs::write(directory.path().join("allowed"), "HTTP/1.1 200 OK\n\n").unwrap();
    fs::write(directory.path().join("message"), "HTTP/1.1 200 OK\n\n1").unwrap();
    fs::write(directory.path().join("refused"), "HTTP/1.1 200 OK\ngrpc-status: 7\n\n").unwrap();
    fs::write(directory.path().join("denied"), "HTTP/1.1 401 Unauthorized\nx-why: because\n\nno\n").unwrap();
    let plugin = (!arguments.contains(&BROUGHT)).then(|| plugin.display().to_string());
    let path = format!("{}/", directory.path().display());
    let arguments = arguments.iter().filter(|argument| **argument != BROUGHT);
    let arguments = plugin.into_iter().chain(arguments.map(|argument| argument.replace('@', &path)));
    let arguments = ["wasm".to_owned(), command.to_owned()].into_iter().chain(arguments);
    let line = Line::try_parse_from(arguments).unwrap_or_else(|error| panic!("{error}"));
    let log = GuestLog::default();
    let mut out = Vec::new();
    let subscriber = log.clone().subscriber();
    let is_good = tracing::subscriber::with_default(subscriber, || match &line.command {
        WasmCommand::Check(options) => check::check(options, &log, &mut out).unwrap(),
        WasmCommand::Run(options) => run::run(options, &log, &mut out).unwrap(),
    });
    (is_good, String::from_utf8(out).unwrap())
}

#[track_caller]
fn assert_lines(said: &str, expected: &[&str]) {
    for line in expected {
        assert!(said.lines().any(|said| said.contains(line)), "no line with {line:?} in\n{said}");
    }
}

#[test]
fn check_tells_what_a_plugin_is_made_of_and_that_it_starts() {
    let (is_good, said) = said_of("check", "add_header", &[]);
    assert!(is_good, "{said}");
    assert_lines(
        &said,
        &[
            "abi        Proxy-Wasm 0.2.1",
            "           proxy_on_request_headers",
            "           env.proxy_add_header_map_value",
            "data segments",
            "of 100000",
            "started    in ",
        ],
    );
}

#[test]
fn check_and_run_know_the_five_functions() {
    let guest = r#"(module
        (import "pingora" "log" (func $log (param i32 i32 i32)))
        (import "pingora" "set_header" (func $set (param i32 i32 i32 i32)))
        (memory (export "memory") 1)
        (data (i32.const 8) "x-verdict")
        (func (export "alloc") (param i32) (result i32) (i32.const 1024))
        (func (export "on_request") (result i32)
            (call $log (i32.const 1) (i32.const 8) (i32.const 9))
            (call $set (i32.const 8) (i32.const 9) (i32.const 10) (i32.const 7))
            (i32.const 429)))"#;
    let (is_good, said) = said_of("check", guest, &[]);
    assert!(is_good, "{said}");
    assert_lines(
        &said,
        &["abi        pingora", "           on_request", "           pingora.set_header", "started    in "],
    );
    let (is_good, said) = said_of("run", guest, &[]);
    assert!(is_good, "{said}");
    assert_lines(
        &said,
        &["request    not passed on", "+ 429 Too Many Requests", "+ x-verdict: verdict", "log        WARN"],
    );
}

#[test]
fn check_names_everything_that_is_missing_here() {
    let guest = r#"(module (import "env" "proxy_fly" (func)) (import "env" "proxy_swim" (func))
        (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_0")))"#;
    let (is_good, said) = said_of("check", guest, &[]);
    assert!(!is_good);
    assert_lines(&said, &["refused    unknown imports: env.proxy_fly, env.proxy_swim"]);
    let (is_good, said) = said_of("check", "(module)", &[]);
    assert!(!is_good);
    assert_lines(&said, &["abi        none known", "refused    no known plugin ABI: looked for"]);
}

#[test]
fn check_starts_the_plugin_with_its_configuration() {
    let (is_good, said) = said_of("check", "echo_config", &[]);
    assert!(!is_good);
    assert_lines(&said, &["refused    plugin refused its configuration in configure"]);
    assert!(said_of("check", "echo_config", &["--config", "x"]).0);
    let (is_good, said) = said_of("check", "hostile", &["--config", "tc"]);
    assert!(!is_good);
    assert_lines(&said, &["refused    plugin ended in configure: trap: "]);
}

#[test]
fn run_shows_what_the_plugin_changed_and_spent() {
    let (is_good, said) = said_of("run", "add_header", &["--request", "@request"]);
    assert!(is_good, "{said}");
    assert_lines(
        &said,
        &[
            "request    PUT /things?page=2",
            "           x-kept: 1",
            "           content-length: 11",
            "         + x-wasm-plugin: probe",
            "           body: 11 bytes, unchanged",
            "response   200 OK",
            "           content-length: 3",
            "header bytes                   ",
            "of 65536",
            "outcome    passed",
        ],
    );
}

#[test]
fn run_shows_bodies_in_pieces_and_what_became_of_them() {
    let arguments = ["--config", "a", "--data", "hello", "--chunk-bytes", "3", "-H", "x-one: 1"];
    let (is_good, said) = said_of("run", "body", &arguments);
    assert!(is_good, "{said}");
    assert_lines(
        &said,
        &["request    POST /", "         + body: 8 bytes, before 5", "         + | hel!lo!!"],
    );
}

#[test]
fn run_sends_a_body_as_clients_do() {
    let form = "           content-type: application/x-www-form-urlencoded";
    let (_, said) = said_of("run", "add_header", &["--data", "a=b"]);
    assert_lines(&said, &["request    POST /", "           content-length: 3", form]);
    let (_, said) = said_of(
        "run",
        "add_header",
        &["-d", "{}", "-H", "content-type: text/json", "-H", "content-length: 2"],
    );
    assert_lines(&said, &["           content-type: text/json", "           content-length: 2"]);
    assert!(!said.contains(form), "{said}");
    let (_, said) = said_of("run", "add_header", &["-d", "{}", "-H", "transfer-encoding: chunked"]);
    assert!(!said.contains("content-length: 2"), "{said}");
    assert!(!said_of("run", "add_header", &[]).1.contains("content-type"), "there is no body");
}

#[test]
fn run_answers_call_outs_from_files() {
    let (is_good, said) = said_of("run", "call_out", &["--config", "auth", "--reply", "auth=@allowed"]);
    assert!(is_good, "{said}");
    assert_lines(&said, &["log        INFO  call-out upstream=\"auth\"", "outcome    passed"]);
    let (is_good, said) = said_of("run", "call_out", &["--config", "auth", "--reply", "auth=@denied"]);
    assert!(is_good, "{said}");
    assert_lines(
        &said,
        &["request    not passed on", "         + 403 Forbidden", "outcome    answered by the plugin"],
    );
}

/// Asks the upstream `auth` over gRPC, and answers with what has come of it: 200 and the first byte of a
/// message, or 400 and the status of the call.
const ASKING: &str = r#"(module
    (import "env" "proxy_grpc_call"
        (func $ask (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_buffer_bytes" (func $buffer (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_effective_context" (func $become (param i32) (result i32)))
    (import "env" "proxy_send_local_response"
        (func $respond (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 64) "auth")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func $answer (param i32)
        (drop (call $become (i32.const 2)))
        (drop (call $respond (local.get 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0) (i32.const -1))))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (drop (call $ask (i32.const 64) (i32.const 4) (i32.const 64) (i32.const 4) (i32.const 64) (i32.const 4)
            (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 10000) (i32.const 0)))
        (i32.const 1))
    (func (export "proxy_on_grpc_receive") (param i32 i32 i32)
        (drop (call $buffer (i32.const 5) (i32.const 0) (i32.const 9) (i32.const 0) (i32.const 4)))
        (call $answer (i32.add (i32.const 200) (i32.load8_u (i32.load (i32.const 0))))))
    (func (export "proxy_on_grpc_close") (param i32 i32 i32)
        (call $answer (i32.add (i32.const 400) (local.get 2)))))"#;

#[test]
fn run_answers_calls_of_grpc_from_files() {
    let (_, said) = said_of("run", ASKING, &["--reply", "auth=@message"]);
    assert_lines(&said, &["log        INFO  call-out upstream=\"auth\"", "+ 249"]);
    let (_, said) = said_of("run", ASKING, &["--reply", "auth=@refused"]);
    assert_lines(&said, &["+ 407"]);
}

/// Compresses its first environment variable, uncompresses it again, and puts it into a header.
const FOREIGN: &str = r#"(module
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
    (import "env" "proxy_call_foreign_function" (func $call (param i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_add_header_map_value" (func $add_header (param i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 64) "x-value")
    (data (i32.const 80) "compress")
    (data (i32.const 96) "uncompress")
    (global $heap (mut i32) (i32.const 1024))
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
        (global.get $heap)
        (global.set $heap (i32.add (global.get $heap) (local.get $size))))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (drop (call $sizes (i32.const 0) (i32.const 4)))
        (drop (call $environ (i32.const 128) (i32.const 2048)))
        (if (call $call (i32.const 80) (i32.const 8) (i32.const 2048) (i32.sub (i32.load (i32.const 4)) (i32.const 1))
                (i32.const 8) (i32.const 12))
            (then unreachable))
        (if (call $call (i32.const 96) (i32.const 10) (i32.load (i32.const 8)) (i32.load (i32.const 12))
                (i32.const 8) (i32.const 12))
            (then unreachable))
        (call $add_header (i32.const 0) (i32.const 64) (i32.const 7)
            (i32.load (i32.const 8)) (i32.load (i32.const 12)))))"#;

#[test]
fn run_has_the_environment_and_the_functions_of_the_gateway() {
    let (is_good, said) = said_of("run", FOREIGN, &["--env", "MODE=on"]);
    assert!(is_good, "{said}");
    assert_lines(&said, &["+ x-value: MODE=on"]);
}

#[test]
fn run_says_why_a_plugin_failed() {
    let arguments = ["--config", "th", "-H", "x-attack: 1"];
    let (is_good, said) = said_of("run", "hostile", &arguments);
    assert!(!is_good);
    assert_lines(
        &said,
        &[
            "+ 503 Service Unavailable",
            "outcome    failed: plugin probe failed in request headers: trap: ",
            "backtrace  ",
            " at 0x",
        ],
    );
    let (is_good, said) = said_of("run", "hostile", &["--config", "lh", "-H", "x-attack: 1"]);
    assert!(!is_good);
    assert_lines(
        &said,
        &["outcome    failed: plugin probe failed in request headers: time limit of 100ms exceeded"],
    );
    let (_, said) = said_of("run", "hostile", &["--config", "sh", "-H", "x-attack: 1"]);
    assert_lines(&said, &["log        INFO  x-attack", "log lines                      1000 of 64"]);
}

#[test]
fn files_that_are_no_messages_are_told() {
    assert!(message::request(b"").is_err());
    assert!(message::request(b"GET\n\n").is_err());
    assert!(message::request(b"GET / HTTP/1.1\nno header\n\n").is_err());
    assert!(message::response(b"HTTP/1.1 many\n\n").is_err());
    let response = message::response(b"HTTP/1.1 204\nx: 1").unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["x"].as_bytes()), (204, &b"1"[..]));
}

/// Puts the property `source.address` into the request header `x-told`, and `request.protocol` behind it.
const TELLING: &str = r#"(module
    (import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_add_header_map_value" (func $add_header (param i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 64) "source\00address")
    (data (i32.const 96) "request\00protocol")
    (data (i32.const 128) "connection\00requested_server_name")
    (data (i32.const 176) "route_name")
    (data (i32.const 200) "x-told")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func $tell (param $path i32) (param $length i32)
        (if (i32.eqz (call $get (local.get $path) (local.get $length) (i32.const 0) (i32.const 4)))
            (then (drop (call $add_header (i32.const 0) (i32.const 200) (i32.const 6)
                (i32.load (i32.const 0)) (i32.load (i32.const 4)))))))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (call $tell (i32.const 64) (i32.const 14))
        (call $tell (i32.const 96) (i32.const 16))
        (call $tell (i32.const 128) (i32.const 32))
        (call $tell (i32.const 176) (i32.const 10))
        (i32.const 0)))"#;

#[test]
fn run_tells_the_plugin_of_the_client_and_the_route() {
    let (is_good, said) = said_of("run", TELLING, &[]);
    assert!(is_good, "{said}");
    assert_lines(&said, &["x-told: 127.0.0.1:50000", "x-told: HTTP/1.1", "x-told: default/route"]);
    let arguments = ["--request", "@http2", "--source", "203.0.113.9:1234", "--tls", "--route", "shop/r"];
    let (_, said) = said_of("run", TELLING, &arguments);
    assert_lines(
        &said,
        &["x-told: 203.0.113.9:1234", "x-told: HTTP/2", "x-told: h.example", "x-told: shop/r"],
    );
}

#[test]
fn manifest_says_how_the_plugin_runs() {
    let added = "+ x-wasm-plugin: demo/p";
    let (is_good, said) = said_of("run", "add_header", &["--manifest", "@plugin.yaml"]);
    assert!(is_good, "{said}");
    assert_lines(&said, &[added, "bytes of memory                65536 of 131072"]);
    let (_, said) = said_of("run", "add_header", &["--manifest", "@response.yaml"]);
    assert!(!said.contains(added), "it is not called for requests: {said}");
    let (is_good, said) = said_of("check", "add_header", &["--manifest", "@plugin.yaml"]);
    assert!(is_good, "{said}");
    let (is_good, said) = said_of("check", "add_header", &["--manifest", "@pinned.yaml"]);
    assert!(!is_good);
    assert_lines(&said, &["refused    "]);
    let (is_good, said) = said_of("run", "add_header", &[BROUGHT, "--manifest", "@inline.yaml"]);
    assert!(is_good, "{said}");
    assert_lines(&said, &[added]);
}

#[test]
fn call_outs_need_the_manifests_leave() {
    let arguments = |manifest| ["--manifest", manifest, "--reply", "auth=@allowed"];
    let (is_good, said) = said_of("run", "call_out", &arguments("@plugin.yaml"));
    assert!(!said.contains("INFO  call-out upstream"), "{is_good} {said}");
    let (is_good, said) = said_of("run", "call_out", &arguments("@network.yaml"));
    assert!(is_good, "{said}");
    assert_lines(&said, &["INFO  call-out upstream=\"auth\"", "outcome    passed"]);
}

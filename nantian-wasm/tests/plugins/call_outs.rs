//! What guests must not say to others in the name of the host.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use nantian_wasm::{
    Action, Engine, Module, Plugin, PluginConfig, Sandbox, StreamContext, StreamInfo,
    host::{CallError, GrpcCall, GrpcReplies, GrpcStream, Host, HttpCall, HttpCallResponse, HttpReply},
};

use crate::limits::calling;
use crate::support::{Logged, get, guest, plugin_of, send};

/// Notes what it is asked for, and does nothing; may not be asked for `/secret`.
#[derive(Default)]
struct Asked(Mutex<Vec<HttpCall>>);

impl Host for Asked {
    fn http_call(&self, _: &str, call: HttpCall, _: HttpReply) -> Result<(), CallError> {
        if call.request.uri().path() == "/secret" {
            return Err(CallError::NotAllowed);
        }
        self.0.lock().unwrap().push(call);
        Ok(())
    }

    fn grpc_call(&self, _: &str, _: GrpcCall, _: GrpcReplies) -> Result<Box<dyn GrpcStream>, CallError> {
        Err(CallError::UnknownUpstream)
    }
}

/// A block of pairs, as the text of a data segment.
fn block(pairs: &[(&str, &str)]) -> (String, usize) {
    let word = |value: usize| u32::try_from(value).unwrap().to_le_bytes();
    let mut bytes = word(pairs.len()).to_vec();
    for (name, value) in pairs {
        bytes.extend(word(name.len()).into_iter().chain(word(value.len())));
    }
    for (name, value) in pairs {
        bytes.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    (bytes.iter().map(|byte| format!("\\{byte:02x}")).collect(), bytes.len())
}

/// Statuses of an HTTP call with these headers and trailers, and of a gRPC call with these headers; and the
/// HTTP calls made.
fn called(headers: &[(&str, &str)], trailers: &[(&str, &str)]) -> (Vec<u8>, Vec<HttpCall>) {
    called_for("auth", headers, trailers)
}

/// The same, with a method of gRPC of four bytes.
fn called_for(method: &str, headers: &[(&str, &str)], trailers: &[(&str, &str)]) -> (Vec<u8>, Vec<HttpCall>) {
    let (plugin, host) = caller(method, headers, trailers);
    let statuses = send([plugin], get("/")).body.unwrap();
    let calls = std::mem::take(&mut *host.0.lock().unwrap());
    (statuses, calls)
}

/// A plugin that makes both calls and answers with their statuses.
fn caller(method: &str, headers: &[(&str, &str)], trailers: &[(&str, &str)]) -> (Plugin, Arc<Asked>) {
    let ((headers, headers_size), (trailers, trailers_size)) = (block(headers), block(trailers));
    let guest = format!(
        r#"(module
        (import "env" "proxy_http_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_grpc_call"
            (func $grpc (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_send_local_response"
            (func $answer (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 100) "auth")
        (data (i32.const 120) "{method}")
        (data (i32.const 1000) "{headers}")
        (data (i32.const 5000) "{trailers}")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (i32.store8 (i32.const 200) (call $call (i32.const 100) (i32.const 4)
                (i32.const 1000) (i32.const {headers_size}) (i32.const 0) (i32.const 0)
                (i32.const 5000) (i32.const {trailers_size}) (i32.const 1000) (i32.const 0)))
            (i32.store8 (i32.const 201) (call $grpc (i32.const 100) (i32.const 4) (i32.const 100) (i32.const 4)
                (i32.const 120) (i32.const 4) (i32.const 5000) (i32.const {trailers_size})
                (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const -1)))
            (drop (call $answer (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 200) (i32.const 2)
                (i32.const 0) (i32.const 0) (i32.const -1)))
            (i32.const 0)))"#
    );
    asking(&guest)
}

fn asking(guest: &str) -> (Plugin, Arc<Asked>) {
    let engine = Engine::new().unwrap().0;
    let module = Module::compile(&engine, &wat::parse_str(guest).unwrap(), None).unwrap();
    let config = PluginConfig::new("probe").with_instances(NonZeroUsize::MIN);
    let config = config.with_sandbox(Sandbox::default().with_allow_network(true));
    let host = Arc::<Asked>::default();
    (Plugin::with_host(&module, config, Arc::clone(&host)).unwrap(), host)
}

const METHOD: (&str, &str) = (":method", "GET");
const PATH: (&str, &str) = (":path", "/");
const AUTHORITY: (&str, &str) = (":authority", "a");

#[test]
fn call_out_that_would_split_its_request_is_not_made() {
    // A gRPC call has the trailers for its metadata; one that is well fails for the pointer that it gives.
    for (headers, trailers, statuses) in [
        (vec![METHOD, PATH, AUTHORITY, ("x-a", "a\r\nx-b: 1")], vec![], [0, 6]),
        (vec![METHOD, PATH, AUTHORITY, ("x-a\r\nx-b", "1")], vec![("x c", "1")], [10, 10]),
        (vec![METHOD, PATH, AUTHORITY, ("x-a", "a\0b")], vec![("x-c", "\0")], [0, 10]),
        (vec![METHOD, PATH, AUTHORITY], vec![("x-a", "a\r\nx-b: 1")], [0, 10]),
        (vec![METHOD, PATH, AUTHORITY], vec![("", "1")], [10, 10]),
        (vec![METHOD, (":path", "/ HTTP/1.1\r\nx-b: 1"), AUTHORITY], vec![("\r", "")], [10, 10]),
        (vec![METHOD, (":path", "no path"), AUTHORITY], vec![], [0, 6]),
        (vec![METHOD, (":path", "@169.254.169.254/"), AUTHORITY], vec![], [0, 6]),
        (vec![("GET / HTTP/1.1\r\n", ""), PATH, AUTHORITY], vec![("x", "\r")], [2, 10]),
        (vec![(":method", "GET / HTTP/1.1\r\n"), PATH, AUTHORITY], vec![("x", "\x7f")], [10, 10]),
        (vec![(":method", "CONNECT"), PATH, AUTHORITY], vec![], [10, 6]),
        (vec![METHOD, PATH, (":authority", "a\r\nx-b: 1")], vec![(" x", "")], [10, 10]),
        (vec![METHOD, PATH, (":authority", "a b")], vec![], [0, 6]),
    ] {
        let (found, calls) = called(&headers, &trailers);
        assert_eq!((found, calls.len()), (statuses.to_vec(), 0), "{headers:?} {trailers:?}");
    }
}

#[test]
fn call_outs_that_are_not_made_are_counted_by_reason() {
    let refused = |headers: &[(&str, &str)], trailers: &[(&str, &str)]| {
        let (plugin, _) = caller("auth", headers, trailers);
        let lines = Logged::of_plugins(|| (0..2).for_each(|_| drop(send([plugin.clone()], get("/")))));
        let counts = plugin.status().refused_calls.into_iter().filter(|(_, count)| *count > 0);
        (counts.collect::<Vec<_>>(), lines)
    };
    let lines = |count| vec!["probe: call-out not made".to_owned(); count];
    assert_eq!(refused(&[METHOD, AUTHORITY], &[]), (vec![("incomplete", 2)], lines(1)));
    let secret = [METHOD, (":path", "/secret"), AUTHORITY];
    assert_eq!(refused(&secret, &[]), (vec![("not_allowed", 2)], lines(1)));
    // The gRPC call has the trailers for its metadata.
    let both = refused(&[METHOD, AUTHORITY], &[("x a", "")]);
    assert_eq!(both, (vec![("incomplete", 2), ("malformed", 2)], lines(2)), "a line for each reason");
    // The guest hears of a 503, and nobody else would.
    let no_path = [METHOD, (":path", "no path"), AUTHORITY];
    assert_eq!(refused(&no_path, &[]), (vec![("malformed", 2)], lines(1)));
    assert_eq!(refused(&[METHOD, PATH, AUTHORITY], &[]), (vec![], lines(0)));
}

#[test]
fn framing_of_a_call_out_is_the_hosts() {
    let headers = [
        METHOD,
        PATH,
        AUTHORITY,
        ("content-length", "100"),
        ("transfer-encoding", "chunked"),
        ("connection", "x-a"),
        ("x-a", "1"),
        ("host", "b"),
    ];
    let trailers = [("content-length", "7"), ("x-t", "1"), ("\r\n", "")];
    assert_eq!(called(&headers, &trailers).0[0], 10);
    let (statuses, calls) = called(&headers, &[]);
    assert_eq!(statuses[0], 0);
    let names: Vec<_> = calls[0].request.headers().keys().map(|name| name.as_str()).collect();
    assert_eq!((names, calls[0].request.uri().to_string()), (vec!["host", "x-a"], "http://a/".to_owned()));
    assert_eq!(calls[0].request.headers()["host"], "a");
    assert_eq!(calls[0].request.body(), &Bytes::new());
}

#[test]
fn call_of_grpc_whose_method_would_split_its_path_is_not_made() {
    let headers = [METHOD, PATH, AUTHORITY];
    for (method, status) in [("auth", 6), ("a\\00th", 10), ("a\\0dth", 10), ("a th", 10)] {
        assert_eq!(called_for(method, &headers, &[]).0, [0, status], "{method}");
    }
}

#[test]
fn names_of_grpc_that_are_too_long_are_a_failure_that_sdks_know() {
    for lengths in [[5_000, 4, 4], [4, 5_000, 4], [4, 4, 5_000]] {
        let names = lengths.map(|length| format!("(i32.const 100) (i32.const {length})")).join(" ");
        let guest = format!(
            r#"(module
            (import "env" "proxy_grpc_call"
                (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_grpc_stream" (func $open (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (func (export "proxy_abi_version_0_2_1"))
            (func $tell (param $status i32)
                (i32.store8 (i32.const 0) (i32.add (i32.const 65) (local.get $status)))
                (drop (call $log (i32.const 2) (i32.const 0) (i32.const 1))))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (call $tell (call $call {names} (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                    (i32.const 1000) (i32.const 8)))
                (call $tell (call $open {names} (i32.const 0) (i32.const 0) (i32.const 8)))
                (i32.const 0)))"#
        );
        let (plugin, _outside) = calling(&Engine::new().unwrap().0, &guest);
        let lines = Logged::during(|| assert_eq!(send([plugin], get("/")).status(), 200));
        assert_eq!(lines, ["probe: K", "probe: K"], "internal failures");
    }
}

#[test]
fn call_of_grpc_to_what_is_no_upstream_fails_as_envoy_says_of_a_name_and_of_a_message() {
    // A message with a cluster or a target has begun a call, which is unavailable (14).
    for (upstream, length, expected) in [
        ("auth", 4, &["probe: E"][..]),
        ("\\0a\\06\\0a\\04auth", 8, &["probe: K", "probe: O"]),
        ("\\12\\06\\0a\\04auth", 8, &["probe: K", "probe: O"]),
    ] {
        let guest = format!(
            r#"(module
            (import "env" "proxy_grpc_call"
                (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 100) "{upstream}")
            (data (i32.const 120) "echo")
            (func (export "proxy_abi_version_0_2_1"))
            (func $tell (param $status i32)
                (i32.store8 (i32.const 0) (i32.add (i32.const 65) (local.get $status)))
                (drop (call $log (i32.const 2) (i32.const 0) (i32.const 1))))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (call $tell (call $call (i32.const 100) (i32.const {length}) (i32.const 120) (i32.const 4)
                    (i32.const 120) (i32.const 4) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                    (i32.const 1000) (i32.const 8)))
                (i32.const 0))
            (func (export "proxy_on_grpc_close") (param i32 i32 i32) (call $tell (local.get 2))))"#
        );
        let (plugin, _host) = asking(&guest);
        let lines = Logged::during(|| assert_eq!(send([plugin], get("/")).status(), 200));
        assert_eq!(lines, expected, "{upstream}");
    }
}

#[test]
fn call_out_without_an_authority_goes_to_the_host_of_its_upstream() {
    let (statuses, calls) = called(&[METHOD, PATH, (":authority", ""), ("", "nameless")], &[]);
    assert_eq!(statuses, [0, 6]);
    assert_eq!(
        (calls[0].request.uri().to_string(), calls[0].request.headers().len()),
        ("http://auth/".into(), 1)
    );
    assert_eq!(calls[0].request.headers()["host"], "", "as the guest has said, and as Envoy sends it");
}

#[test]
fn guest_hears_of_a_call_out_that_cannot_be_sent_as_of_one_that_failed() {
    let (headers, size) = block(&[METHOD, PATH, AUTHORITY, ("x-a", "a\r\nx-b: 1")]);
    let guest = format!(
        r#"(module
        (import "env" "proxy_http_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_set_effective_context" (func $become (param i32) (result i32)))
        (import "env" "proxy_get_buffer_bytes" (func $buffer (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_send_local_response"
            (func $answer (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 100) "auth")
        (data (i32.const 1000) "{headers}")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 2000))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $call (i32.const 100) (i32.const 4) (i32.const 1000) (i32.const {size})
                (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 0))
            (i32.add (i32.const 1)))
        (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
            (drop (call $become (i32.const 2)))
            (drop (call $buffer (i32.const 4) (i32.const 0) (local.get 3) (i32.const 8) (i32.const 12)))
            (drop (call $answer (i32.const 418) (i32.const 0) (i32.const 0) (i32.load (i32.const 8))
                (i32.load (i32.const 12)) (i32.const 0) (i32.const 0) (i32.const -1)))))"#
    );
    let (plugin, outside) = calling(&Engine::new().unwrap().0, &guest);
    let seen = send([plugin], get("/"));
    assert_eq!((seen.status(), seen.text()), (418, "invalid header value for: x-a"));
    assert_eq!(outside.http.lock().unwrap().len(), 0, "nothing is sent");
}

#[test]
fn headers_that_a_call_out_brings_are_joined_as_those_of_messages_are() {
    let (headers, size) = block(&[METHOD, PATH, AUTHORITY]);
    let guest = format!(
        r#"(module
        (import "env" "proxy_http_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_get_header_map_value" (func $value (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 100) "auth")
        (data (i32.const 110) "vary")
        (data (i32.const 1000) "{headers}")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 2000))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (i32.eqz (call $call (i32.const 100) (i32.const 4) (i32.const 1000) (i32.const {size})
                (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 0))))
        (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
            (i32.store8 (i32.const 0) (i32.add (i32.const 48) (local.get 2)))
            (drop (call $log (i32.const 2) (i32.const 0) (i32.const 1)))
            (drop (call $value (i32.const 6) (i32.const 110) (i32.const 4) (i32.const 8) (i32.const 12)))
            (drop (call $log (i32.const 2) (i32.load (i32.const 8)) (i32.load (i32.const 12))))))"#
    );
    let (_plugin, outside) = calling(&Engine::new().unwrap().0, &guest);
    let lines = Logged::during(|| {
        let reply = outside.http.lock().unwrap().pop().unwrap();
        let response = Response::builder().header("vary", "accept").header("vary", "origin");
        let response = response.body(Bytes::new()).unwrap();
        reply.send(Ok(HttpCallResponse::new(response, HeaderMap::new())));
    });
    assert_eq!(lines, ["probe: 2", "probe: accept,origin"], "beside a status");
}

/// A guest that opens a gRPC stream when it is configured, and logs of the metadata that come how many they
/// are and what status they say.
const METADATA: &str = r#"(module
    (import "env" "proxy_grpc_stream" (func $open (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_header_map_value" (func $value (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "auth")
    (data (i32.const 110) ":status")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 2000))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (i32.eqz (call $open (i32.const 100) (i32.const 4) (i32.const 100) (i32.const 4)
            (i32.const 100) (i32.const 4) (i32.const 0) (i32.const 0) (i32.const 0))))
    (func $tell (param $map i32) (param $count i32)
        (i32.store8 (i32.const 0) (i32.add (i32.const 48) (local.get $count)))
        (drop (call $log (i32.const 2) (i32.const 0) (i32.const 1)))
        (if (i32.eqz (call $value (local.get $map) (i32.const 110) (i32.const 7) (i32.const 8) (i32.const 12)))
            (then (drop (call $log (i32.const 2) (i32.load (i32.const 8)) (i32.load (i32.const 12)))))))
    (func (export "proxy_on_grpc_receive_initial_metadata") (param i32 i32 i32)
        (call $tell (i32.const 4) (local.get 2)))
    (func (export "proxy_on_grpc_receive_trailing_metadata") (param i32 i32 i32)
        (call $tell (i32.const 5) (local.get 2))))"#;

#[test]
fn metadata_of_a_grpc_stream_have_the_status_of_their_response() {
    let (_plugin, outside) = calling(&Engine::new().unwrap().0, METADATA);
    let lines = Logged::during(|| {
        let replies = outside.grpc.lock().unwrap().pop().unwrap();
        // What Envoy joins is one for the guest.
        let mut one = HeaderMap::new();
        one.append("grpc-message", HeaderValue::from_static("a"));
        one.append("grpc-message", HeaderValue::from_static("b"));
        replies.initial_metadata(Some(StatusCode::OK), one.clone());
        replies.trailing_metadata(None, one);
    });
    assert_eq!(lines, ["probe: 2", "probe: 200", "probe: 1"]);
}

#[test]
fn end_of_a_call_of_grpc_is_told_to_the_stream_that_made_it() {
    let guest = r#"(module
        (import "env" "proxy_grpc_call"
            (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_set_effective_context" (func $become (param i32) (result i32)))
        (import "env" "proxy_get_status" (func $status (param i32 i32 i32) (result i32)))
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 100) "auth")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1025))
        (func $tell
            (drop (call $status (i32.const 0) (i32.const 4) (i32.const 8)))
            (i32.store8 (i32.const 1024) (i32.add (i32.const 48) (i32.load (i32.const 0))))
            (drop (call $log (i32.const 2) (i32.const 1024) (i32.add (i32.const 1) (i32.load (i32.const 8))))))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $call (i32.const 100) (i32.const 4) (i32.const 100) (i32.const 4) (i32.const 100) (i32.const 4)
                (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 0)))
            (i32.const 0))
        (func (export "proxy_on_grpc_close") (param i32 i32 i32)
            (call $tell)
            (drop (call $become (i32.const 2)))
            (call $tell)))"#;
    let engine = Engine::new().unwrap().0;
    let (plugin, outside) = calling(&engine, guest);
    let lines = Logged::during(|| {
        let mut stream = StreamContext::new([plugin].into(), StreamInfo::default());
        let mut parts = http::Request::new(()).into_parts().0;
        assert!(matches!(stream.on_request_headers(&mut parts, true), Action::Continue));
        outside.grpc.lock().unwrap().pop().unwrap().close(7, "no");
        engine.maintain();
    });
    assert_eq!(lines, ["probe: 7no", "probe: 7no"]);
}

#[test]
fn refusals_that_clients_bring_about_are_logged_once_and_again_in_a_minute() {
    let engine = Engine::new().unwrap().0;
    let answers_from_the_root = r#"(module
        (import "env" "proxy_set_effective_context" (func $become (param i32) (result i32)))
        (import "env" "proxy_send_local_response"
            (func $answer (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $become (i32.const 1)))
            (call $answer (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                (i32.const 0) (i32.const 0) (i32.const -1))))"#;
    for (guest, line) in [
        (guest("call_out"), "probe: call-out not made"),
        (wat::parse_str(answers_from_the_root).unwrap(), "probe: local response outside a stream ignored"),
    ] {
        let plugin =
            plugin_of(&engine, &guest, |config| config.configuration = Bytes::from_static(b"auth")).unwrap();
        let exchanges = |count| {
            Logged::of_plugins(|| {
                (0..count).for_each(|_| assert_eq!(send([plugin.clone()], get("/")).status(), 200));
            })
        };
        assert_eq!(exchanges(3), [line]);
        (0..60_000).for_each(|_| engine.tick());
        assert_eq!(exchanges(1), [line]);
    }
}

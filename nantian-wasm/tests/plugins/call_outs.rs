//! What guests must not say to others in the name of the host.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use nantian_wasm::{
    Engine, Module, Plugin, PluginConfig,
    host::{CallError, GrpcCall, GrpcReplies, GrpcStream, Host, HttpCall, HttpReply},
};

use crate::support::{get, send};

/// Notes what it is asked for, and does nothing.
#[derive(Default)]
struct Asked(Mutex<Vec<HttpCall>>);

impl Host for Asked {
    fn http_call(&self, _: &str, call: HttpCall, _: HttpReply) -> Result<(), CallError> {
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
        (data (i32.const 1000) "{headers}")
        (data (i32.const 5000) "{trailers}")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (i32.store8 (i32.const 200) (call $call (i32.const 100) (i32.const 4)
                (i32.const 1000) (i32.const {headers_size}) (i32.const 0) (i32.const 0)
                (i32.const 5000) (i32.const {trailers_size}) (i32.const 1000) (i32.const 0)))
            (i32.store8 (i32.const 201) (call $grpc (i32.const 100) (i32.const 4) (i32.const 100) (i32.const 4)
                (i32.const 100) (i32.const 4) (i32.const 5000) (i32.const {trailers_size})
                (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const -1)))
            (drop (call $answer (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 200) (i32.const 2)
                (i32.const 0) (i32.const 0) (i32.const -1)))
            (i32.const 0)))"#
    );
    let engine = Engine::new().unwrap().0;
    let module = Module::compile(&engine, &wat::parse_str(guest).unwrap(), None).unwrap();
    let mut config = PluginConfig::new("probe");
    config.instances = NonZeroUsize::new(1);
    config.sandbox.allow_network = true;
    let host = Arc::<Asked>::default();
    let plugin = Plugin::with_host(&module, config, Arc::clone(&host) as Arc<dyn Host>).unwrap();
    let statuses = send([plugin], get("/")).body.unwrap();
    let calls = std::mem::take(&mut *host.0.lock().unwrap());
    (statuses, calls)
}

const METHOD: (&str, &str) = (":method", "GET");
const PATH: (&str, &str) = (":path", "/");
const AUTHORITY: (&str, &str) = (":authority", "a");

#[test]
fn call_out_that_would_split_its_request_is_not_made() {
    // A gRPC call with the trailers for its metadata fails here; the host would not know its upstream.
    for (headers, trailers, statuses) in [
        (vec![METHOD, PATH, AUTHORITY, ("x-a", "a\r\nx-b: 1")], vec![("x-c", "\n")], [2, 10]),
        (vec![METHOD, PATH, AUTHORITY, ("x-a\r\nx-b", "1")], vec![("x c", "1")], [2, 10]),
        (vec![METHOD, PATH, AUTHORITY, ("x-a", "a\0b")], vec![("x-c", "\0")], [2, 10]),
        (vec![METHOD, PATH, AUTHORITY], vec![("x-a", "a\r\nx-b: 1")], [2, 10]),
        (vec![METHOD, PATH, AUTHORITY], vec![("", "1")], [2, 10]),
        (vec![METHOD, (":path", "/ HTTP/1.1\r\nx-b: 1"), AUTHORITY], vec![("\r", "")], [2, 10]),
        (vec![METHOD, (":path", "no path"), AUTHORITY], vec![("x:", "")], [2, 10]),
        (vec![("GET / HTTP/1.1\r\n", ""), PATH, AUTHORITY], vec![("x", "\r")], [2, 10]),
        (vec![(":method", "GET / HTTP/1.1\r\n"), PATH, AUTHORITY], vec![("x", "\x7f")], [2, 10]),
        (vec![METHOD, PATH, (":authority", "a\r\nx-b: 1")], vec![(" x", "")], [2, 10]),
        (vec![METHOD, PATH, (":authority", "a b")], vec![("x ", "")], [2, 10]),
    ] {
        let (found, calls) = called(&headers, &trailers);
        assert_eq!((found, calls.len()), (statuses.to_vec(), 0), "{headers:?} {trailers:?}");
    }
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
    assert_eq!(called(&headers, &trailers).0[0], 2);
    let (statuses, calls) = called(&headers, &[]);
    assert_eq!(statuses[0], 0);
    let names: Vec<_> = calls[0].request.headers().keys().map(|name| name.as_str()).collect();
    assert_eq!((names, calls[0].request.uri().to_string()), (vec!["x-a"], "http://a/".to_owned()));
    assert_eq!(calls[0].request.body(), &Bytes::new());
}

//! Modules of the `pingora` ABI: five functions, three hooks, a verdict from each.

use http::{HeaderValue, Request, Response};
use nantian_wasm::{
    Abi, Capabilities, Cause, Engine, FailurePolicy, Hooks, Inventory, Module, ModuleError, Plugin,
    PluginConfig,
};

use crate::support::{Frames, Seen, built, data, exchange, frames, get, plugin_of};

fn guest() -> Vec<u8> {
    built("pingora_guest")
}

fn plugin(change: impl FnOnce(&mut PluginConfig)) -> Plugin {
    plugin_of(&Engine::new().unwrap().0, &guest(), change).unwrap()
}

fn keyed(parts: &[&'static str]) -> Request<Frames> {
    let parts: Vec<_> = parts.iter().map(|part| data(part)).collect();
    Request::post("/").header("host", "example.com").header("x-api-key", "k").body(frames(parts)).unwrap()
}

fn sent(plugin: Plugin, request: Request<Frames>) -> Seen {
    exchange([plugin], request, Response::new(frames([data("o"), data("k")])))
}

fn stream() -> Response<Frames> {
    let events = frames([data("data: 1\n\n"), data("data: secret\n\n"), data("data: 3\n\n")]);
    Response::builder().header("content-type", "text/event-stream").body(events).unwrap()
}

#[test]
fn abi_is_found_in_the_bytes_and_listed() {
    let module = Module::compile(&Engine::new().unwrap().0, &guest(), None).unwrap();
    assert_eq!(module.abi(), Abi::Pingora);
    let inventory = Inventory::of(&guest()).unwrap();
    assert_eq!(inventory.abi, Some(Abi::Pingora));
    assert_eq!(inventory.abi.unwrap().to_string(), "pingora");
    for hook in ["on_request", "on_response", "on_stream_chunk", "alloc"] {
        assert!(inventory.callbacks.iter().any(|callback| callback == hook), "{hook}");
    }
    assert!(inventory.imports.iter().any(|import| import == "pingora.get_all_headers"));
}

#[test]
fn hook_of_another_type_and_unknown_functions_are_refused() {
    let compile =
        |text: &str| Module::compile(&Engine::new().unwrap().0, &wat::parse_str(text).unwrap(), None);
    let import = r#"(import "pingora" "log" (func (param i32 i32 i32)))"#;
    let memory = r#"(memory (export "memory") 1)"#;
    let mistyped = format!(r#"(module {import} {memory} (func (export "on_request") (param i32)))"#);
    let refused = compile(&mistyped).unwrap_err();
    assert_eq!(refused.to_string(), "export on_request has type (i32) -> (), expected () -> (i32)");
    let blind = compile(&format!("(module {import})")).unwrap_err();
    assert!(matches!(blind, ModuleError::MissingExport { name: "memory" }), "{blind}");
    let unknown = format!(r#"(module (import "pingora" "fly" (func)) {memory})"#);
    assert_eq!(compile(&unknown).unwrap_err().to_string(), "unknown imports: pingora.fly");
}

#[test]
fn request_is_refused_with_the_status_of_the_verdict() {
    let seen = sent(plugin(|_| {}), get("/"));
    assert_eq!((seen.status(), seen.response_header("x-auth-result")), (401, Some("denied")));
    assert!(seen.request.is_none(), "upstream is not asked");
    for (verdict, status) in [("429", 429), ("1", 403), ("-1", 403), ("199", 403), ("100000", 403)] {
        let request = Request::get("/").header("host", "example.com").header("x-verdict", verdict);
        let seen = sent(plugin(|_| {}), request.body(frames([])).unwrap());
        assert_eq!(seen.status(), status, "{verdict}");
    }
}

#[test]
fn what_a_hook_sets_is_a_header_of_the_response() {
    let seen = sent(plugin(|_| {}), keyed(&[]));
    assert_eq!((seen.status(), seen.text()), (200, "ok"));
    assert_eq!(seen.response_header("x-auth-result"), Some("allowed"));
    assert_eq!(seen.response_header("x-headers"), Some("host example.com x-api-key k "));
    assert_eq!(seen.response_header("x-response-body"), Some("ok"), "a response's hook has its whole body");
    assert_eq!(seen.request_header("x-auth-result"), None, "and nothing goes upstream");
}

#[test]
fn all_headers_are_text_for_a_hook() {
    let mut request = keyed(&[]);
    request.headers_mut().insert("x-last", HeaderValue::from_bytes(b"caf\xe9").unwrap());
    let seen = sent(plugin(|_| {}), request);
    let told = seen.response.headers()["x-headers"].as_bytes();
    assert_eq!(told, "host example.com x-api-key k x-last caf\u{e9} ".as_bytes());
}

#[test]
fn hook_of_the_request_sees_its_whole_body() {
    let seen = sent(plugin(|_| {}), keyed(&["a forbid", "den word"]));
    assert_eq!(seen.status(), 422);
    assert!(seen.request.is_none());
    let seen = sent(plugin(|_| {}), keyed(&["words ", "that pass"]));
    assert_eq!((seen.status(), seen.request_body.as_deref()), (200, Ok(&b"words that pass"[..])));
    let seen = sent(plugin(|config| config.sandbox.max_buffered_body = 4), keyed(&["a body", " too large"]));
    assert_eq!(seen.status(), 413);
}

#[test]
fn response_is_replaced_by_the_verdict_of_its_hook() {
    let mut request = keyed(&[]);
    request.headers_mut().insert("x-refuse", "1".parse().unwrap());
    let seen = sent(plugin(|_| {}), request);
    assert_eq!((seen.status(), seen.text()), (503, ""));
}

#[test]
fn stream_is_cut_before_the_part_that_is_refused_under_either_policy() {
    for policy in [FailurePolicy::FailClosed, FailurePolicy::FailOpen] {
        let seen = exchange([plugin(|config| config.failure_policy = policy)], keyed(&[]), stream());
        assert_eq!(seen.status(), 200);
        assert_eq!(seen.response_header("x-response-body"), Some(""), "the headers do not wait for a stream");
        assert!(seen.body.is_err(), "{:?}", seen.body);
    }
}

#[test]
fn response_whose_client_would_have_a_stream_is_shown_as_a_whole_where_it_is_waited_for() {
    let sent = |hooks: Hooks, parts: [&'static str; 2]| {
        let mut request = keyed(&[]);
        request.headers_mut().insert("accept", HeaderValue::from_static("text/event-stream"));
        let response = Response::new(frames(parts.map(data)));
        exchange([plugin(|config| config.hooks = hooks)], request, response)
    };
    let seen = sent(Hooks::ALL, ["o", "k"]);
    assert_eq!((seen.response_header("x-response-body"), seen.text()), (Some("ok"), "ok"));
    let seen = sent(Hooks::ALL.with_on_response(false), ["o", "secret"]);
    assert_eq!((seen.response_header("x-response-body"), seen.body.is_err()), (None, true));
}

#[test]
fn hooks_that_are_off_let_pass() {
    let only = |hooks: Hooks| plugin(|config| config.hooks = hooks);
    let seen = exchange([only(Hooks::NONE.with_on_request(true))], keyed(&[]), stream());
    assert!(seen.body.is_ok());
    assert_eq!(seen.response_header("x-auth-result"), Some("allowed"));
    assert_eq!(seen.response_header("x-response-body"), None);
    let seen = sent(only(Hooks::NONE.with_on_stream_chunk(true)), get("/"));
    assert_eq!(seen.status(), 200, "nobody asks for a key");
}

#[test]
fn header_that_is_no_http_ends_the_request_and_framing_is_left_out() {
    let set = |text: &'static str| {
        let mut request = keyed(&[]);
        request.headers_mut().insert("x-set", HeaderValue::from_static(text));
        sent(plugin(|_| {}), request)
    };
    assert_eq!(set("x-set=fine").response_header("x-set"), Some("fine"));
    assert_eq!(set("x-set=one CRLFx-smuggled: 1").status(), 503);
    assert_eq!(set("x set=1").status(), 503);
    let seen = set("content-length=100");
    assert_eq!((seen.status(), seen.text(), seen.response_header("content-length")), (200, "ok", None));
}

#[test]
fn header_whose_value_finds_no_memory_fails_the_request() {
    let plugin = plugin(|_| {});
    // More than the guest's allocator has: that must not look as if the header were absent.
    let request = Request::get("/").header("host", "example.com").header("x-api-key", "k".repeat(5000));
    assert_eq!(sent(plugin.clone(), request.body(frames([])).unwrap()).status(), 503);
    let cause = plugin.status().last_failure.map(|failure| failure.cause);
    assert_eq!(cause, Some(Cause::Trap("the guest's allocator gave no memory".to_owned())));
}

#[test]
fn allocator_that_asks_for_memory_itself_gets_none() {
    let module = r#"(module
        (import "pingora" "get_header" (func $get (param i32 i32) (result i64)))
        (memory (export "memory") 1)
        (data (i32.const 8) "host")
        (func (export "alloc") (param i32) (result i32)
            (drop (call $get (i32.const 8) (i32.const 4)))
            (i32.const 1024))
        (func (export "on_request") (result i32)
            (drop (call $get (i32.const 8) (i32.const 4)))
            (i32.const 0)))"#;
    let plugin = plugin_of(&Engine::new().unwrap().0, &wat::parse_str(module).unwrap(), |_| {}).unwrap();
    assert_eq!(sent(plugin.clone(), get("/")).status(), 503);
    assert_eq!(plugin.status().traps.trap, 1);
}

#[test]
fn hook_that_is_not_among_the_capabilities_is_not_called() {
    let unasked = plugin(|config| config.capabilities = Capabilities::only(["get_header", "on_response"]));
    assert_eq!(sent(unasked, get("/")).status(), 200, "nobody asks for a key");
    let blind = plugin(|config| config.capabilities = Capabilities::only(["on_request"]));
    assert_eq!(sent(blind, keyed(&[])).status(), 401, "the key is there and cannot be seen");
}

#[test]
fn module_without_an_allocator_is_told_of_no_header_but_those_that_are_not_there() {
    let module = r#"(module
        (import "pingora" "get_header" (func $get (param i32 i32) (result i64)))
        (memory (export "memory") 1)
        (data (i32.const 8) "x-none")
        (func (export "on_request") (result i32)
            (if (i64.ne (call $get (i32.const 8) (i32.const 6)) (i64.const 0)) (then (return (i32.const 404))))
            (drop (call $get (i32.const 8) (i32.const 5)))
            (i32.const 0)))"#;
    let plugin = plugin_of(&Engine::new().unwrap().0, &wat::parse_str(module).unwrap(), |_| {}).unwrap();
    assert_eq!(sent(plugin.clone(), get("/")).status(), 200);
    let request = Request::get("/").header("x-non", "1").body(frames([])).unwrap();
    assert_eq!(sent(plugin, request).status(), 503);
}

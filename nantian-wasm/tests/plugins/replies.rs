//! Replies to call-outs: whose time they take, and what becomes of a message that they answer.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use nantian_wasm::{
    Action, CallError, Cause, Engine, ForeignError, Host, HttpCall, HttpCallResponse, HttpReply, Module,
    Plugin, PluginConfig, StreamContext, StreamInfo,
};

use crate::support::{Logged, get, plugin_of, send};

/// Answers each call-out at once, and lets a millisecond pass with each foreign call.
struct Answering {
    engine: Engine,
    calls: AtomicUsize,
}

impl Host for Answering {
    fn http_call(&self, _: &str, _: HttpCall, reply: HttpReply) -> Result<(), CallError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        reply.send(Ok(HttpCallResponse::new(Response::new(Bytes::new()), HeaderMap::new())));
        Ok(())
    }

    fn foreign_function(&self, _: &str, _: &str, _: &[u8]) -> Option<Result<Vec<u8>, ForeignError>> {
        self.engine.tick();
        None
    }
}

/// A guest that makes a call-out and holds the message in the callback `HELD`, does `REPLY` when one returns, and logs the
/// status of the response at its end.
const ASKING: &str = r#"(module
    (import "env" "proxy_http_call" (func $http_call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_call_foreign_function" (func $foreign (param i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_effective_context" (func $become (param i32) (result i32)))
    (import "env" "proxy_send_local_response" (func $respond (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_header_map_value" (func $value (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "auth")
    (data (i32.const 110) ":status")
    (data (i32.const 200) "\03\00\00\00\07\00\00\00\03\00\00\00\05\00\00\00\01\00\00\00\0a\00\00\00\01\00\00\00:method\00GET\00:path\00/\00:authority\00a\00")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func $call
        (drop (call $http_call (i32.const 100) (i32.const 4) (i32.const 200) (i32.const 61) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0) (i32.const 5000) (i32.const 8))))
    (func $toil (param $milliseconds i32)
        (loop $more
            (drop (call $foreign (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 12)))
            (local.set $milliseconds (i32.sub (local.get $milliseconds) (i32.const 1)))
            (br_if $more (local.get $milliseconds))))
    (func $answer (drop (call $respond (i32.const 418) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 0) (i32.const -1))))
    (func (export "HELD") (param i32 i32 i32) (result i32) (call $call) (i32.const 1))
    (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
        (drop (call $become (i32.const 2)))
        REPLY)
    (func (export "proxy_on_log") (param i32)
        (drop (call $value (i32.const 2) (i32.const 110) (i32.const 7) (i32.const 8) (i32.const 12)))
        (drop (call $log (i32.const 2) (i32.load (i32.const 8)) (i32.load (i32.const 12))))))"#;

fn asking(held: &str, reply: &str) -> (Plugin, Arc<Answering>) {
    let engine = Engine::new().unwrap();
    let text = ASKING.replace("HELD", held).replace("REPLY", reply);
    let module = Module::compile(&engine, &wat::parse_str(text).unwrap(), None).unwrap();
    let mut config = PluginConfig::new("asks");
    config.instances = NonZeroUsize::new(1);
    config.sandbox.allow_network = true;
    let host = Arc::new(Answering { engine, calls: AtomicUsize::new(0) });
    let plugin = Plugin::with_host(&module, config, Arc::clone(&host) as Arc<dyn Host>).unwrap();
    (plugin, host)
}

#[test]
fn time_of_replies_is_that_of_the_stream_that_has_asked() {
    let (plugin, host) = asking("proxy_on_request_headers", "(call $toil (i32.const 60)) (call $call)");
    let mut stream = StreamContext::new([plugin.clone()].into(), StreamInfo::default());
    let mut parts = Request::new(()).into_parts().0;
    let mut context = Context::from_waker(Waker::noop());
    let failure = loop {
        match stream.on_request_headers(&mut parts, true) {
            Action::Pending => {
                while stream.poll_request(&mut context).is_pending() {
                    assert!(host.calls.load(Ordering::Relaxed) < 60, "never stopped");
                    host.engine.maintain();
                }
            }
            Action::Fail(failure) => break failure,
            action => panic!("{action:?}"),
        }
    };
    assert_eq!(failure.cause, Cause::Budget { what: "time of the stream" });
    // A second of 60 ms each, and what came back meanwhile.
    let calls = host.calls.load(Ordering::Relaxed);
    assert!((16..=20).contains(&calls), "{calls} calls");
    let status = plugin.status();
    assert_eq!((status.traps.total(), status.live_instances), (0, 1), "the instance lives on");
}

#[test]
fn response_that_a_reply_answers_is_logged_as_it_was_sent() {
    let (plugin, _) = asking("proxy_on_response_headers", "(call $answer)");
    let lines = Logged::during(|| assert_eq!(send([plugin], get("/")).status(), 418));
    assert!(lines.iter().any(|line| line.contains("418")), "{lines:?}");
}

/// A guest that answers twice.
const ANSWERS: &str = r#"(module
    (import "env" "proxy_send_local_response" (func $respond (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "first second")
    (data (i32.const 120) "response\00code_details")
    (data (i32.const 200) "\02\00\00\00\0e\00\00\00\01\00\00\00\03\00\00\00\01\00\00\00content-length\009\00x-a\00b\00")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func $answer (param $status i32) (param $details i32) (param $length i32)
        (drop (call $respond (local.get $status) (local.get $details) (local.get $length) (i32.const 100) (i32.const 5)
            (i32.const 200) (i32.const 43) (i32.const -1))))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (call $answer (i32.const 401) (i32.const 100) (i32.const 5))
        (call $answer (i32.const 403) (i32.const 106) (i32.const 6))
        (i32.const 1))
    (func (export "proxy_on_log") (param i32)
        (drop (call $property (i32.const 120) (i32.const 21) (i32.const 8) (i32.const 12)))
        (drop (call $log (i32.const 2) (i32.load (i32.const 8)) (i32.load (i32.const 12))))))"#;

#[test]
fn first_answer_is_sent_and_the_details_of_the_last_one_are_logged() {
    let module = wat::parse_str(ANSWERS).unwrap();
    let plugin = plugin_of(&Engine::new().unwrap(), &module, |_| {}).unwrap();
    let lines = Logged::during(|| {
        let seen = send([plugin], get("/"));
        assert_eq!((seen.status(), seen.text()), (401, "first"));
        let names: Vec<_> = seen.response.headers().keys().map(http::HeaderName::as_str).collect();
        assert_eq!(names, ["content-length", "x-a", "content-type"], "in the order that it gave them");
        assert_eq!(seen.response_header("content-length"), Some("5"), "the right one");
    });
    assert!(lines.iter().any(|line| line.ends_with("second")), "{lines:?}");
}

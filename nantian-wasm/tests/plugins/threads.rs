//! Which thread runs a guest that a reply is for.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::join;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use nantian_wasm::{
    Engine, Module, Plugin, PluginConfig, Sandbox, WasmLayer,
    body::{RequestBody, ResponseBody},
    host::{
        CallError, ForeignError, GrpcCall, GrpcReplies, GrpcStream, Host, HttpCall, HttpCallResponse,
        HttpReply,
    },
};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::support::{Frames, data, frames, get, send};

/// Keeps replies until somebody brings them, and notes on which threads the guest was when it called a
/// foreign function.
#[derive(Default)]
struct Apart {
    replies: Mutex<Vec<HttpReply>>,
    ran_on: Mutex<Vec<ThreadId>>,
}

impl Host for Apart {
    fn may_run_guests(&self) -> bool {
        false
    }

    fn http_call(&self, _: &str, _: HttpCall, reply: HttpReply) -> Result<(), CallError> {
        self.replies.lock().unwrap().push(reply);
        Ok(())
    }

    fn foreign_function(&self, _: &str, _: &str, _: &[u8]) -> Option<Result<Vec<u8>, ForeignError>> {
        self.ran_on.lock().unwrap().push(thread::current().id());
        None
    }
}

impl Apart {
    /// Brings the reply to a call-out from a thread of its own.
    fn bring(&self) {
        let reply = self.replies.lock().unwrap().remove(0);
        let response = HttpCallResponse::new(Response::new(Bytes::new()), HeaderMap::new());
        thread::spawn(move || reply.send(Ok(response))).join().unwrap();
    }

    fn ran_on(&self) -> Vec<ThreadId> {
        self.ran_on.lock().unwrap().clone()
    }
}

fn calling(engine: &Engine, callback: &str) -> (Plugin, Arc<Apart>) {
    let host = Arc::<Apart>::default();
    (calling_by(engine, callback, Arc::clone(&host)), host)
}

/// A guest that calls out in this callback, and calls a foreign function and continues the request when the
/// reply is there.
fn calling_by(engine: &Engine, callback: &str, host: impl Host) -> Plugin {
    let text = r#"(module
        (import "env" "proxy_http_call"
            (func $http_call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_call_foreign_function" (func $foreign (param i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_set_effective_context" (func $become (param i32) (result i32)))
        (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
        (import "env" "proxy_set_tick_period_milliseconds" (func $period (param i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 100) "auth")
        (data (i32.const 200) "\03\00\00\00\07\00\00\00\03\00\00\00\05\00\00\00\01\00\00\00\0a\00\00\00\01\00\00\00:method\00GET\00:path\00/\00:authority\00a\00")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
        (func $call (drop (call $http_call (i32.const 100) (i32.const 4) (i32.const 200) (i32.const 61)
            (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 5000) (i32.const 8))))
        (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
            (drop (call $foreign (i32.const 100) (i32.const 4) (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 12)))
            (if (i32.eqz (call $become (i32.const 2))) (then (drop (call $continue (i32.const 0))))))
        CALLBACK)"#;
    let module = wat::parse_str(text.replace("CALLBACK", callback)).unwrap();
    let module = Module::compile(engine, &module, None).unwrap();
    let config = PluginConfig::new("apart").with_instances(NonZeroUsize::MIN);
    let config = config.with_sandbox(Sandbox::default().with_allow_network(true));
    Plugin::with_host(&module, config, host).unwrap()
}

const HOLDING: &str = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (call $call) (i32.const 1))"#;
const LOGGING: &str = r#"(func (export "proxy_on_log") (param i32) (call $call))"#;

const TICKING: &str = r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
        (drop (call $period (i32.const 10))) (i32.const 1))
    (func (export "proxy_on_tick") (param i32) (call $call))"#;

#[test]
fn reply_is_for_the_thread_of_the_stream_that_waits_for_it() {
    let engine = Engine::new().unwrap().0;
    let (plugin, host) = calling(&engine, HOLDING);
    let inner = service_fn(async |_| Ok::<_, String>(Response::new(frames([data("ok")]))));
    let service = WasmLayer::new([plugin]).layer(inner);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // It waits when the reply comes.
    let (response, ()) = runtime.block_on(join(service.oneshot(get("/")), async { host.bring() }));
    assert_eq!(response.unwrap().status(), 200);
    assert_eq!(host.ran_on(), [thread::current().id()]);
}

#[test]
fn reply_that_no_stream_waits_for_is_left_to_upkeep() {
    let engine = Engine::new().unwrap().0;
    let (plugin, host) = calling(&engine, LOGGING);
    assert_eq!(send([plugin.clone()], get("/")).status(), 200);
    host.bring();
    assert_eq!(host.ran_on(), []);
    engine.maintain();
    assert_eq!(host.ran_on(), [thread::current().id()]);
}

#[test]
fn what_a_plugin_has_begun_ends_although_nobody_has_the_engine() {
    let leaving = r#"(func (export "proxy_on_delete") (param i32) (if (i32.eq (local.get 0) (i32.const 1)) (then
        (drop (call $foreign (i32.const 100) (i32.const 4) (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 12))))))"#;
    let (engine, threads) = Engine::new().unwrap();
    let (plugin, host) = calling(&engine, &format!("{LOGGING} {leaving}"));
    drop(engine);
    let threads = [threads.clock, threads.upkeep].map(|each| thread::spawn(|| each.run()));
    assert_eq!(send([plugin.clone()], get("/")).status(), 200);
    // Upkeep may have the instance when the stream ends, and end that itself.
    while host.replies.lock().unwrap().is_empty() {
        thread::yield_now();
    }
    host.bring();
    while host.ran_on().is_empty() {
        thread::yield_now();
    }
    drop(plugin);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(host.ran_on().len(), 2, "it was told that it is deleted");
}

/// Makes calls as tasks of the runtime around, which the thread of upkeep does not have.
struct Spawning;

impl Host for Spawning {
    fn http_call(&self, _: &str, _: HttpCall, reply: HttpReply) -> Result<(), CallError> {
        tokio::spawn(async move { drop(reply) });
        Ok(())
    }
}

#[test]
fn host_that_panics_has_made_no_call_and_upkeep_goes_on() {
    let engine = Engine::new().unwrap().0;
    let plugin = calling_by(&engine, TICKING, Spawning);
    for _ in 0..20 {
        engine.tick();
        engine.maintain();
    }
    let status = plugin.status();
    assert_eq!((status.refused_calls["unavailable"], status.traps.total()), (2, 0));
    assert_eq!(send([plugin], get("/")).status(), 200);
}

/// A plugin that opens a stream over gRPC in each tick, and has it end by this host call.
fn streaming_by(engine: &Engine, end: &str, host: impl Host) -> Plugin {
    let text = r#"(module
        (import "env" "proxy_grpc_stream" (func $open (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "END" (func $end (param i32) (result i32)))
        (import "env" "proxy_set_tick_period_milliseconds" (func $period (param i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 100) "\0a\06\0a\04auth")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (drop (call $period (i32.const 10))) (i32.const 1))
        (func (export "proxy_on_tick") (param i32)
            (drop (call $open (i32.const 100) (i32.const 8) (i32.const 104) (i32.const 4)
                (i32.const 104) (i32.const 4) (i32.const 0) (i32.const 0) (i32.const 8)))
            (drop (call $end (i32.load (i32.const 8))))))"#;
    let module = wat::parse_str(text.replace("END", end)).unwrap();
    let module = Module::compile(engine, &module, None).unwrap();
    let config = PluginConfig::new("streams").with_instances(NonZeroUsize::MIN);
    let config = config.with_sandbox(Sandbox::default().with_allow_network(true));
    Plugin::with_host(&module, config, host).unwrap()
}

/// Panics when it has put by what would tell of a call's end.
#[derive(Default)]
struct Keeping(Mutex<Vec<GrpcReplies>>);

impl Host for Keeping {
    fn grpc_call(
        &self,
        _: &str,
        _: GrpcCall,
        replies: GrpcReplies,
    ) -> Result<Box<dyn GrpcStream>, CallError> {
        self.0.lock().unwrap().push(replies);
        panic!("no runtime")
    }
}

#[test]
fn call_of_a_host_that_panics_is_over() {
    let engine = Engine::new().unwrap().0;
    let plugin = streaming_by(&engine, "proxy_grpc_cancel", Keeping::default());
    for _ in 0..300 {
        engine.tick();
        engine.maintain();
    }
    let refused = plugin.status().refused_calls;
    assert!(refused["unavailable"] > 16, "{refused:?}");
    assert_eq!(refused["too_many"], 0);
}

/// Has no answer to whether it may run guests; its streams panic when they are closed or cancelled.
#[derive(Default)]
struct Fragile {
    opened: AtomicUsize,
}

impl Host for Fragile {
    fn may_run_guests(&self) -> bool {
        panic!("no answer")
    }

    fn grpc_call(&self, _: &str, _: GrpcCall, _: GrpcReplies) -> Result<Box<dyn GrpcStream>, CallError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(FragileStream))
    }
}

struct FragileStream;

impl GrpcStream for FragileStream {
    fn send(&mut self, _: Bytes) {}

    fn close(&mut self) {
        panic!("closed")
    }
}

impl Drop for FragileStream {
    fn drop(&mut self) {
        panic!("cancelled")
    }
}

#[test]
fn stream_that_panics_when_it_is_closed_or_cancelled_is_over_and_ends_nothing_else() {
    for end in ["proxy_grpc_close", "proxy_grpc_cancel"] {
        let engine = Engine::new().unwrap().0;
        let host = Arc::<Fragile>::default();
        let plugin = streaming_by(&engine, end, Arc::clone(&host));
        for _ in 0..300 {
            engine.tick();
            engine.maintain();
        }
        assert!(host.opened.load(Ordering::Relaxed) > 16, "{end}");
        let status = plugin.status();
        assert_eq!((status.refused_calls["too_many"], status.traps.total()), (0, 0), "{end}");
    }
}

/// Drops the body of a response while a guest runs with the same stream.
#[derive(Default)]
struct Leaving(Mutex<Option<ResponseBody<Frames>>>);

impl Host for Leaving {
    fn foreign_function(&self, _: &str, _: &str, _: &[u8]) -> Option<Result<Vec<u8>, ForeignError>> {
        drop(self.0.lock().unwrap().take());
        None
    }
}

#[test]
fn response_that_ends_while_another_thread_has_its_stream_is_logged_with_its_size() {
    let text = r#"(module
        (import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_record_metric" (func $record (param i32 i64) (result i32)))
        (import "env" "proxy_call_foreign_function" (func $foreign (param i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 16) "response\00size")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (i32.eqz (call $define (i32.const 1) (i32.const 25) (i32.const 4) (i32.const 8))))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
            (drop (call $foreign (i32.const 16) (i32.const 4) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 4)))
            (i32.const 0))
        (func (export "proxy_on_log") (param i32)
            (drop (call $get (i32.const 16) (i32.const 13) (i32.const 0) (i32.const 4)))
            (drop (call $record (i32.load (i32.const 8)) (i64.load (i32.const 1024))))))"#;
    let engine = Engine::new().unwrap().0;
    let module = Module::compile(&engine, &wat::parse_str(text).unwrap(), None).unwrap();
    let config = PluginConfig::new("leaving").with_instances(NonZeroUsize::MIN);
    let host = Arc::<Leaving>::default();
    let plugin = Plugin::with_host(&module, config, Arc::clone(&host)).unwrap();
    let kept = Mutex::<Option<RequestBody<Frames>>>::default();
    let inner = service_fn(|request: Request<RequestBody<Frames>>| {
        *kept.lock().unwrap() = Some(request.into_body());
        std::future::ready(Ok::<_, String>(Response::new(frames([data("four"), data("more")]))))
    });
    let request = Request::post("/").header("host", "example.com").body(frames([data("body")])).unwrap();
    let response = WasmLayer::new([plugin.clone()]).layer(inner).oneshot(request).now_or_never();
    let mut response = response.unwrap().unwrap().into_body();
    response.frame().now_or_never().unwrap().unwrap().unwrap();
    *host.0.lock().unwrap() = Some(response);
    let request = kept.lock().unwrap().take().unwrap();
    request.collect().now_or_never().unwrap().unwrap();
    assert!(host.0.lock().unwrap().is_none());
    assert_eq!(plugin.status().metrics.iter().map(|metric| metric.value).collect::<Vec<_>>(), [4]);
}

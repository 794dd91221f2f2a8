//! What waits for a guest, and what it may have under way, has an end; and what a call ends with is never
//! lost.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use nantian_wasm::{
    Action, Cause, Engine, Module, Plugin, PluginConfig, PluginError, Sandbox, StreamContext, StreamInfo,
    host::{CallError, GrpcCall, GrpcReplies, GrpcStream, Host, HttpCall, HttpCallResponse, HttpReply},
};

use crate::support::{begin, get, plugin_of, send, ticks_with_logs};

/// A guest that opens a gRPC stream when it is configured, makes seventeen calls for each stream, and logs.
const CALLER: &str = r#"(module
    (import "env" "proxy_http_call"
        (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_grpc_stream" (func $open (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_record_metric" (func $record (param i32 i64) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "auth")
    (data (i32.const 200) "\03\00\00\00\07\00\00\00\03\00\00\00\05\00\00\00\01\00\00\00\0a\00\00\00\01\00\00\00:method\00GET\00:path\00/\00:authority\00a\00")
    (data (i32.const 300) "made")
    (data (i32.const 310) "refused")
    (data (i32.const 320) "answered")
    (data (i32.const 330) "reset")
    (data (i32.const 340) "messages")
    (data (i32.const 350) "closed")
    (func (export "proxy_abi_version_0_2_1"))
    (func $count (param $id i32) (drop (call $record (local.get $id) (i64.const 1))))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (drop (call $define (i32.const 0) (i32.const 300) (i32.const 4) (i32.const 0)))
        (drop (call $define (i32.const 0) (i32.const 310) (i32.const 7) (i32.const 0)))
        (drop (call $define (i32.const 0) (i32.const 320) (i32.const 8) (i32.const 0)))
        (drop (call $define (i32.const 0) (i32.const 330) (i32.const 5) (i32.const 0)))
        (drop (call $define (i32.const 0) (i32.const 340) (i32.const 8) (i32.const 0)))
        (drop (call $define (i32.const 1) (i32.const 350) (i32.const 6) (i32.const 0)))
        (i32.eqz (call $open (i32.const 100) (i32.const 4) (i32.const 100) (i32.const 4)
            (i32.const 100) (i32.const 4) (i32.const 0) (i32.const 0) (i32.const 0))))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (local $left i32) (local $status i32)
        (local.set $left (i32.const 17))
        (loop $more
            (local.set $status (call $call (i32.const 100) (i32.const 4) (i32.const 200) (i32.const 61)
                (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 0)))
            (if (i32.eqz (local.get $status)) (then (call $count (i32.const 4))))
            (if (i32.eq (local.get $status) (i32.const 10)) (then (call $count (i32.const 8))))
            (local.set $left (i32.sub (local.get $left) (i32.const 1)))
            (br_if $more (local.get $left)))
        (local.set $left (i32.const 2))
        (loop $more
            (drop (call $log (i32.const 2) (i32.const 100) (i32.const 4)))
            (local.set $left (i32.sub (local.get $left) (i32.const 1)))
            (br_if $more (local.get $left)))
        (i32.const 0))
    (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
        (call $count (i32.const 12))
        (if (i32.eqz (local.get 2)) (then (call $count (i32.const 16)))))
    (func (export "proxy_on_grpc_receive") (param i32 i32 i32) (call $count (i32.const 20)))
    (func (export "proxy_on_grpc_close") (param i32 i32 i32)
        (drop (call $record (i32.const 5) (i64.extend_i32_u (local.get 2))))))"#;

/// Keeps what is to be answered.
#[derive(Default)]
pub(crate) struct Outside {
    pub(crate) http: Mutex<Vec<HttpReply>>,
    pub(crate) grpc: Mutex<Vec<GrpcReplies>>,
}

struct Open;

impl GrpcStream for Open {
    fn send(&mut self, _: Bytes) {}
    fn close(&mut self) {}
}

impl Host for Outside {
    fn http_call(&self, _: &str, _: HttpCall, reply: HttpReply) -> Result<(), CallError> {
        self.http.lock().unwrap().push(reply);
        Ok(())
    }

    fn grpc_call(
        &self,
        _: &str,
        _: GrpcCall,
        replies: GrpcReplies,
    ) -> Result<Box<dyn GrpcStream>, CallError> {
        self.grpc.lock().unwrap().push(replies);
        Ok(Box::new(Open))
    }
}

pub(crate) fn calling(engine: &Engine, guest: &str) -> (Plugin, Arc<Outside>) {
    let module = Module::compile(engine, &wat::parse_str(guest).unwrap(), None).unwrap();
    let config = PluginConfig::new("probe").with_instances(NonZeroUsize::MIN);
    let config = config.with_sandbox(Sandbox::default().with_allow_network(true));
    let outside = Arc::<Outside>::default();
    (Plugin::with_host(&module, config, Arc::clone(&outside)).unwrap(), outside)
}

fn metric(plugin: &Plugin, name: &str) -> u64 {
    let metrics = plugin.status().metrics;
    metrics.iter().find(|metric| metric.name == name).unwrap().value
}

/// Lets this happen while the instance stands still in the middle of a callback.
fn while_busy(engine: &Engine, plugin: &Plugin, happens: impl FnOnce()) -> StreamContext {
    let mut stream = StreamContext::new([plugin.clone()].into(), StreamInfo::default());
    let mut parts = Request::new(()).into_parts().0;
    tracing::subscriber::with_default(ticks_with_logs(engine.clone(), 2), || {
        assert!(matches!(stream.on_request_headers(&mut parts, true), Action::Pending));
    });
    happens();
    let mut context = Context::from_waker(Waker::noop());
    while stream.poll_request(&mut context).is_pending() {}
    assert!(matches!(stream.on_request_headers(&mut parts, true), Action::Continue));
    engine.maintain();
    stream
}

fn large() -> Bytes {
    static LARGE: [u8; 4 << 20] = [0; 4 << 20];
    Bytes::from_static(&LARGE)
}

#[test]
fn every_call_out_hears_of_its_end_however_much_waits_for_the_instance() {
    let engine = Engine::new().unwrap().0;
    let (plugin, outside) = calling(&engine, CALLER);
    let _first = begin(&plugin);
    let _second = while_busy(&engine, &plugin, || {
        for reply in std::mem::take(&mut *outside.http.lock().unwrap()) {
            reply.send(Ok(HttpCallResponse::new(Response::new(large()), HeaderMap::new())));
        }
    });
    assert_eq!((metric(&plugin, "made"), metric(&plugin, "answered")), (32, 32));
    // 64 MiB wait at most: fifteen answers of 4 MiB and what they weigh besides.
    assert_eq!(metric(&plugin, "reset"), 32 - 15);
    assert_eq!(plugin.status().traps.total(), 0);
}

#[test]
fn grpc_call_whose_messages_pile_up_is_closed_and_the_guest_told() {
    let engine = Engine::new().unwrap().0;
    let (plugin, outside) = calling(&engine, CALLER);
    let _stream = while_busy(&engine, &plugin, || {
        let replies = outside.grpc.lock().unwrap().pop().unwrap();
        (0..40).for_each(|_| replies.message(large()));
        replies.close(0, "all is well");
    });
    assert_eq!((metric(&plugin, "messages"), metric(&plugin, "closed")), (15, 8));
}

#[test]
fn messages_of_no_bytes_are_not_for_nothing() {
    let engine = Engine::new().unwrap().0;
    let (plugin, outside) = calling(&engine, CALLER);
    let _stream = while_busy(&engine, &plugin, || {
        let replies = outside.grpc.lock().unwrap().pop().unwrap();
        (0..300_000).for_each(|_| replies.message(Bytes::new()));
    });
    assert_eq!((metric(&plugin, "messages"), metric(&plugin, "closed")), ((64 << 20) / 256, 8));
}

#[test]
fn stream_has_sixteen_calls_at_a_time_and_a_plugin_a_thousand_and_some() {
    let engine = Engine::new().unwrap().0;
    let (plugin, outside) = calling(&engine, CALLER);
    let streams: Vec<_> = (0..64).map(|_| begin(&plugin)).collect();
    // The gRPC stream that is open is one of the plugin's.
    assert_eq!((metric(&plugin, "made"), metric(&plugin, "refused")), (1_023, 64 + 1));
    let _one_more = begin(&plugin);
    assert_eq!((metric(&plugin, "made"), metric(&plugin, "refused")), (1_023, 64 + 1 + 17));
    drop(streams);
    outside.http.lock().unwrap().clear();
    let _another = begin(&plugin);
    assert_eq!((metric(&plugin, "made"), metric(&plugin, "refused")), (1_023 + 16, 64 + 1 + 17 + 1));
    assert_eq!(plugin.status().traps.total(), 0);
}

/// A guest that makes three calls for a stream, and sets a property of it in the callback of each: under its
/// id, so long.
const PROPERTIES: &str = r#"(module
    (import "env" "proxy_http_call"
        (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_effective_context" (func $become (param i32) (result i32)))
    (import "env" "proxy_set_property" (func $set (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 2)
    (data (i32.const 100) "auth")
    (data (i32.const 200) "\03\00\00\00\07\00\00\00\03\00\00\00\05\00\00\00\01\00\00\00\0a\00\00\00\01\00\00\00:method\00GET\00:path\00/\00:authority\00a\00")
    (func (export "proxy_abi_version_0_2_1"))
    (func $ask (drop (call $call (i32.const 100) (i32.const 4) (i32.const 200) (i32.const 61)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 0))))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (call $ask) (call $ask) (call $ask) (i32.const 0))
    (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
        (drop (call $become (i32.const 2)))
        (i32.store (i32.const 0) (local.get 1))
        (drop (call $set (i32.const 0) (i32.const 4) (i32.const 1000) (i32.const 30000)))))"#;

#[test]
fn stream_keeps_so_many_properties_whichever_callbacks_set_them() {
    let engine = Engine::new().unwrap().0;
    let (plugin, outside) = calling(&engine, PROPERTIES);
    let mut stream = begin(&plugin);
    let mut context = Context::from_waker(Waker::noop());
    let replies = std::mem::take(&mut *outside.http.lock().unwrap());
    for (fails, reply) in [false, false, true].into_iter().zip(replies) {
        reply.send(Ok(HttpCallResponse::new(Response::new(Bytes::new()), HeaderMap::new())));
        assert_eq!(stream.poll_interrupt(&mut context).is_ready(), fails, "a stream may set 64 KiB");
    }
    let status = plugin.status();
    assert_eq!(status.last_failure.unwrap().cause, Cause::StreamBudget { what: "property bytes" });
    assert_eq!(status.traps.total(), 0, "clients may have sent what it sets");
}

#[test]
fn stream_pays_for_its_call_outs_though_its_guest_hears_of_no_reply() {
    let engine = Engine::new().unwrap().0;
    let guest = PROPERTIES.replace("proxy_on_http_call_response", "nobody");
    let (plugin, outside) = calling(&engine, &guest);
    let stream = begin(&plugin);
    let replies = std::mem::take(&mut *outside.http.lock().unwrap());
    for reply in replies {
        reply.send(Ok(HttpCallResponse::new(Response::new(Bytes::new()), HeaderMap::new())));
    }
    drop(stream);
    engine.maintain();
    let peaks = plugin.status().peaks;
    assert_eq!(peaks.iter().find(|peak| peak.what == "call-outs").unwrap().used, 3);
}

/// Names of two bytes and no values: they cost what the host keeps beside them.
#[test]
fn properties_are_few_however_short_they_are() {
    for (count, status) in [(900, 200), (1_000, 503)] {
        let text = format!(
            r#"(module
            (import "env" "proxy_set_property" (func $set (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (loop $next
                    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
                    (drop (call $set (i32.const 0) (i32.const 2) (i32.const 0) (i32.const 0)))
                    (br_if $next (i32.lt_u (i32.load (i32.const 0)) (i32.const {count}))))
                (i32.const 0)))"#
        );
        let plugin = plugin_of(&Engine::new().unwrap().0, &wat::parse_str(text).unwrap(), |_| {}).unwrap();
        assert_eq!(send([plugin], get("/")).status(), status, "{count}");
    }
}

#[test]
fn body_of_any_length_passes_a_guest_that_reads_and_writes_each_part() {
    let text = r#"(module
        (import "env" "proxy_get_buffer_bytes" (func $get (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_set_buffer_bytes" (func $set (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 40)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 65536))
        (func (export "proxy_on_request_body") (param i32) (param $length i32) (param i32) (result i32)
            (drop (call $get (i32.const 0) (i32.const 0) (local.get $length) (i32.const 0) (i32.const 4)))
            (drop (call $set (i32.const 0) (i32.const 0) (local.get $length) (i32.const 65536) (local.get $length)))
            (i32.const 0)))"#;
    let plugin = plugin_of(&Engine::new().unwrap().0, &wat::parse_str(text).unwrap(), |_| {}).unwrap();
    let mut stream = StreamContext::new([plugin.clone()].into(), StreamInfo::default());
    let mut parts = Request::new(()).into_parts().0;
    assert!(matches!(stream.on_request_headers(&mut parts, false), Action::Continue));
    for megabyte in 0..40 {
        let mut chunk = Bytes::from(vec![1; 1 << 20]);
        assert!(matches!(stream.on_request_body(&mut chunk, false), Action::Continue), "{megabyte}");
        assert_eq!(chunk.len(), 1 << 20);
    }
    drop(stream);
    assert_eq!(plugin.status().peaks[0].used, 1 << 20, "those of the callback that copied most");
}

#[test]
fn instance_may_start_for_as_long_as_a_callback_runs_but_for_one_second_to_ten() {
    // Takes time three times, and is asked twice whether it may go on.
    let guest = wat::parse_str(
        r#"(module
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_configure") (param i32 i32) (result i32) (local $left i32)
            (local.set $left (i32.const 3))
            (loop $more
                (drop (call $log (i32.const 2) (i32.const 0) (i32.const 4)))
                (local.set $left (i32.sub (local.get $left) (i32.const 1)))
                (br_if $more (local.get $left)))
            (i32.const 1)))"#,
    )
    .unwrap();
    let started = |limit, each| {
        let engine = Engine::new().unwrap().0;
        tracing::subscriber::with_default(ticks_with_logs(engine.clone(), each), || {
            plugin_of(&engine, &guest, |config| config.sandbox.max_execution_time = limit)
        })
    };
    let second = Duration::from_secs(1);
    for (limit, each, reached) in [(second / 10, 900, second), (second * 60, 9000, second * 10)] {
        let error = started(limit, each).unwrap_err();
        let cause = Cause::TimeLimit { limit: reached };
        assert!(matches!(&error, PluginError::Start { cause: found, .. } if *found == cause), "{error:?}");
    }
    started(second * 2, 900).unwrap();
}

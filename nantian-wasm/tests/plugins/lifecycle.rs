//! A plugin's life: start, streams and their end, ticks, shared state, threads.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use nantian_wasm::{
    Action, Engine, Module, Plugin, PluginConfig, StreamContext, StreamInfo, WasmLayer, WasmService,
    body::ResponseBody, future::ResponseFuture,
};

use crate::support::{configured, counts, data, exchange, frames, get, guest, plugin, plugin_of, send};

fn expected(values: [u64; 6]) -> Vec<(String, u64)> {
    ["start", "create", "log", "done", "delete", "tick"].into_iter().map(str::to_owned).zip(values).collect()
}

#[test]
fn every_stream_is_logged_finished_and_deleted_once() {
    let plugin = plugin("lifecycle", |_| {});
    for _ in 0..3 {
        let _ = exchange([plugin.clone()], get("/"), Response::new(frames([data("a"), data("b")])));
    }
    assert_eq!(counts(&plugin), expected([1, 3, 3, 3, 3, 0]));
    assert_eq!(plugin.status().streams, 3);
}

#[test]
fn stream_that_is_dropped_half_way_is_ended_all_the_same() {
    let plugin = plugin("lifecycle", |_| {});
    let plugins: Arc<[_]> = [plugin.clone()].into();
    let (mut parts, ()) = http::Request::new(()).into_parts();
    let mut streams: Vec<_> =
        (0..4).map(|_| StreamContext::new(Arc::clone(&plugins), StreamInfo::default())).collect();
    for stream in &mut streams {
        assert!(matches!(stream.on_request_headers(&mut parts, true), Action::Continue));
    }
    assert_eq!(counts(&plugin), expected([1, 4, 0, 0, 0, 0]));
    drop(streams);
    assert_eq!(counts(&plugin), expected([1, 4, 4, 4, 4, 0]));
}

#[test]
fn every_instance_starts_once_and_shares_the_plugins_state() {
    let three = plugin("lifecycle", |config| config.instances = std::num::NonZeroUsize::new(3));
    assert_eq!(counts(&three), expected([3, 0, 0, 0, 0, 0]));
    assert_eq!((three.status().instances, three.status().live_instances), (3, 3));

    let counter = plugin("shared_counter", |_| {});
    for letter in ["a", "b", "c"] {
        assert_eq!(send([counter.clone()], get("/")).request_header("x-count"), Some(letter));
    }
}

#[test]
fn ticks_come_when_their_period_has_passed() {
    let engine = Engine::new().unwrap().0;
    let plugin = plugin_of(&engine, &guest("lifecycle"), |_| {}).unwrap();
    for _ in 0..100 {
        engine.maintain();
        engine.tick();
    }
    // Every 25 ms: at 25, 50 and 75.
    assert_eq!(counts(&plugin).last().unwrap().1, 3);
}

/// A guest that ticks every 100 ms, from its first tick on every 20 ms, and when it has seen a request every
/// 10 ms.
const PERIODS: &str = r#"(module
    (import "env" "proxy_set_tick_period_milliseconds" (func $period (param i32) (result i32)))
    (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "ticks")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (drop (call $define (i32.const 0) (i32.const 100) (i32.const 5) (i32.const 0)))
        (drop (call $period (i32.const 100)))
        (i32.const 1))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (call $period (i32.const 10)))
    (func (export "proxy_on_tick") (param i32)
        (drop (call $increment (i32.load (i32.const 0)) (i64.const 1)))
        (drop (call $period (i32.const 20)))))"#;

#[test]
fn new_period_of_ticks_begins_at_once() {
    let engine = Engine::new().unwrap().0;
    let plugin = plugin_of(&engine, &wat::parse_str(PERIODS).unwrap(), |_| {}).unwrap();
    let ticks_in = |milliseconds: u32| {
        let before = plugin.status().metrics[0].value;
        for _ in 0..milliseconds {
            engine.tick();
            engine.maintain();
        }
        plugin.status().metrics[0].value - before
    };
    assert_eq!(ticks_in(99), 0);
    assert_eq!(ticks_in(1), 1, "the first period is over");
    assert_eq!(
        (ticks_in(19), ticks_in(1), ticks_in(40)),
        (0, 1, 2),
        "the next ones are as the tick has said"
    );
    assert_eq!(send([plugin.clone()], get("/")).status(), 200);
    assert_eq!((ticks_in(9), ticks_in(1)), (0, 1), "and as a request has");
}

#[test]
fn compiled_modules_live_as_long_as_somebody_uses_them() {
    let engine = Engine::new().unwrap().0;
    let bytes = guest("add_header");
    let first = plugin_of(&engine, &bytes, |_| {}).unwrap();
    let second = plugin_of(&engine, &bytes, |_| {}).unwrap();
    assert_eq!(engine.module_count(), 1);
    drop(first);
    assert_eq!(engine.module_count(), 1);
    drop(second);
    assert_eq!(engine.module_count(), 0);
    let again = Module::compile(&engine, &bytes, None).unwrap();
    assert_eq!((engine.module_count(), again.abi().to_string().as_str()), (1, "Proxy-Wasm 0.2.1"));
}

#[test]
fn two_threads_share_one_instance_without_losing_a_stream() {
    let plugin = plugin("lifecycle", |_| {});
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..200 {
                    assert_eq!(send([plugin.clone()], get("/")).status(), 200);
                }
            });
        }
    });
    // Streams that ended while the other thread ran a guest are ended by the next to come, or by upkeep.
    let seen = send([plugin.clone()], get("/"));
    assert_eq!((seen.status(), counts(&plugin)), (200, expected([1, 401, 401, 401, 401, 0])));
}

#[test]
fn layer_is_shared_between_threads_and_its_futures_travel_with_the_inner_ones() {
    fn shared<T: Clone + Send + Sync>() {}
    fn sent<T: Send>() {}
    type Body = http_body_util::Full<Bytes>;
    type Inner = tower::util::BoxCloneSyncService<
        http::Request<nantian_wasm::body::RequestBody<Body>>,
        Response<Body>,
        std::convert::Infallible,
    >;
    shared::<Plugin>();
    shared::<WasmLayer>();
    shared::<WasmService<Inner>>();
    sent::<ResponseFuture<Inner, Body, Body>>();
    sent::<ResponseBody<Body>>();
    sent::<StreamContext>();
}

#[test]
fn inner_service_and_bodies_need_not_be_send() {
    use http_body_util::BodyExt as _;
    use tower::{Layer as _, ServiceExt as _, service_fn};

    let local = std::rc::Rc::new(());
    let inner = service_fn(move |request: http::Request<_>| {
        let local = std::rc::Rc::clone(&local);
        async move {
            drop(local);
            Ok::<_, std::convert::Infallible>(Response::new(request.into_body()))
        }
    });
    let body = frames([data("ok")]).map_frame({
        let local = std::rc::Rc::new(());
        move |frame| {
            let _ = &local;
            frame
        }
    });
    let service = WasmLayer::new([configured("body", b"u")]).layer(inner);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let collected = runtime.block_on(async {
        service
            .oneshot(http::Request::new(body))
            .await
            .unwrap()
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
    });
    assert_eq!(collected, "ok");
}

#[test]
fn guest_that_answers_when_its_stream_is_created_is_not_shown_the_request() {
    let engine = Engine::new().unwrap().0;
    let guest = wat::parse_str(
        r#"(module
            (import "env" "proxy_send_local_response"
                (func $answer (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_context_create") (param $id i32) (param $parent i32)
                (if (local.get $parent) (then (drop (call $answer
                    (i32.const 418) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                    (i32.const 0) (i32.const 0) (i32.const -1))))))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) unreachable))"#,
    );
    let plugin = plugin_of(&engine, &guest.unwrap(), |_| {}).unwrap();
    assert_eq!(send([plugin.clone()], get("/")).status(), 418);
    assert_eq!(plugin.status().traps.total(), 0);
}

/// A guest whose root context is not done before its next tick.
const FAREWELL: &str = r#"(module
    (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_increment_metric" (func $add (param i32 i64) (result i32)))
    (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
    (import "env" "proxy_done" (func $done (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "early")
    (data (i32.const 110) "asked")
    (data (i32.const 120) "done")
    (data (i32.const 130) "deleted")
    (func $count (param $id i32) (drop (call $add (local.get $id) (i64.const 1))))
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (drop (call $define (i32.const 0) (i32.const 100) (i32.const 5) (i32.const 0)))
        (drop (call $define (i32.const 0) (i32.const 110) (i32.const 5) (i32.const 0)))
        (drop (call $define (i32.const 0) (i32.const 120) (i32.const 4) (i32.const 0)))
        (drop (call $define (i32.const 0) (i32.const 130) (i32.const 7) (i32.const 0)))
        (drop (call $tick (i32.const 10)))
        (if (i32.eqz (call $done)) (then (call $count (i32.const 4))))
        (i32.const 1))
    (func (export "proxy_on_tick") (param i32) (if (i32.eqz (call $done)) (then (call $count (i32.const 12)))))
    (func (export "proxy_on_done") (param i32) (result i32)
        (if (i32.eq (local.get 0) (i32.const 1)) (then (call $count (i32.const 8))))
        (i32.const 0))
    (func (export "proxy_on_delete") (param i32)
        (if (i32.eq (local.get 0) (i32.const 1)) (then (call $count (i32.const 16))))))"#;

#[test]
fn root_context_of_a_plugin_that_is_gone_is_waited_for_and_deleted() {
    let engine = Engine::new().unwrap().0;
    let old = plugin_of(&engine, &wat::parse_str(FAREWELL).unwrap(), |_| {}).unwrap();
    // Made of the same module: it shares the metrics, and lives on.
    let new = old.successor(old.module(), PluginConfig::new("probe")).unwrap();
    let values = || counts(&new).into_iter().map(|(_, value)| value).collect::<Vec<_>>();
    let round = || {
        engine.tick();
        engine.maintain();
    };
    round();
    assert_eq!(values(), [0, 0, 0, 0], "nobody is done before he is asked");
    assert_eq!(send([old.clone()], get("/")).status(), 200);
    drop(old);
    round();
    assert_eq!(values(), [0, 1, 0, 0]);
    (0..20).for_each(|_| round());
    assert_eq!(values(), [0, 1, 1, 1]);
}

/// Registers a queue that its configuration names, puts an item into it, and defines a hundred counters.
const NAMES: &str = r#"(module
    (import "env" "proxy_get_buffer_bytes" (func $get (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_register_shared_queue" (func $register (param i32 i32 i32) (result i32)))
    (import "env" "proxy_enqueue_shared_queue" (func $enqueue (param i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (local $left i32)
        (drop (call $get (i32.const 7) (i32.const 0) (i32.const 2) (i32.const 0) (i32.const 4)))
        (drop (call $register (i32.const 1024) (i32.const 2) (i32.const 8)))
        (drop (call $enqueue (i32.load (i32.const 8)) (i32.const 1024) (i32.const 2)))
        (local.set $left (i32.const 100))
        (loop $more
            (local.set $left (i32.sub (local.get $left) (i32.const 1)))
            (i32.store8 (i32.const 1026) (i32.add (i32.const 48) (i32.div_u (local.get $left) (i32.const 10))))
            (i32.store8 (i32.const 1027) (i32.add (i32.const 48) (i32.rem_u (local.get $left) (i32.const 10))))
            (drop (call $define (i32.const 0) (i32.const 1024) (i32.const 4) (i32.const 12)))
            (br_if $more (local.get $left)))
        (i32.const 1)))"#;

#[test]
fn names_that_only_versions_have_which_are_gone_make_room() {
    let engine = Engine::new().unwrap().0;
    let mut present = plugin_of(&engine, &wat::parse_str(NAMES).unwrap(), |config| {
        config.configuration = "00".into();
    })
    .unwrap();
    for version in 1..=20 {
        let config = PluginConfig::new("probe").with_configuration(format!("{version:02}"));
        let config = config.with_instances(std::num::NonZeroUsize::MIN);
        present = present.successor(present.module(), config).unwrap();
    }
    let status = present.status();
    assert_eq!((status.metrics.len(), status.dropped_metrics), (1_000, 0));
    let of = |version: &str| status.metrics.iter().filter(|metric| metric.name.starts_with(version)).count();
    assert_eq!((of("20"), of("00")), (100, 0));
    assert_eq!(status.dropped_queue_items, 5, "those of the queues that made room, with each edit");
}

/// Registers 16 queues, whose names begin with the first letter of its configuration, and refuses to start if
/// the second one is `n`. Each request puts an item into the first queue, whose items are counted.
const SIXTEEN: &str = r#"(module
    (import "env" "proxy_get_buffer_bytes" (func $get (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_increment_metric" (func $add (param i32 i64) (result i32)))
    (import "env" "proxy_register_shared_queue" (func $register (param i32 i32 i32) (result i32)))
    (import "env" "proxy_enqueue_shared_queue" (func $enqueue (param i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "items")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (local $left i32)
        (drop (call $define (i32.const 0) (i32.const 100) (i32.const 5) (i32.const 16)))
        (drop (call $get (i32.const 7) (i32.const 0) (i32.const 2) (i32.const 0) (i32.const 4)))
        (i32.store8 (i32.const 200) (i32.load8_u (i32.const 1024)))
        (local.set $left (i32.const 16))
        (loop $more
            (local.set $left (i32.sub (local.get $left) (i32.const 1)))
            (i32.store8 (i32.const 201) (i32.add (i32.const 65) (local.get $left)))
            (drop (call $register (i32.const 200) (i32.const 2) (i32.const 8)))
            (br_if $more (local.get $left)))
        (i32.ne (i32.load8_u (i32.const 1025)) (i32.const 110)))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (drop (call $enqueue (i32.load (i32.const 8)) (i32.const 100) (i32.const 5)))
        (i32.const 0))
    (func (export "proxy_on_queue_ready") (param i32 i32)
        (drop (call $add (i32.load (i32.const 16)) (i64.const 1)))))"#;

#[test]
fn queues_of_the_version_that_runs_stay_its_own_whatever_one_has_wanted_that_was_refused() {
    let engine = Engine::new().unwrap().0;
    let plugin = plugin_of(&engine, &wat::parse_str(SIXTEEN).unwrap(), |config| {
        config.configuration = "ay".into();
    })
    .unwrap();
    let follow = |configuration: &'static str| {
        let config = PluginConfig::new("probe").with_configuration(configuration);
        plugin.successor(plugin.module(), config.with_instances(std::num::NonZeroUsize::MIN))
    };
    let heard = || {
        assert_eq!(send([plugin.clone()], get("/")).status(), 200);
        engine.maintain();
        counts(&plugin)[0].1
    };
    assert_eq!(heard(), 1);
    assert!(follow("an").is_err(), "it refuses");
    assert_eq!(heard(), 2, "the version that runs hears of its queues on");
    assert!(follow("by").is_err(), "there is no room for other queues");
    assert_eq!((heard(), plugin.status().dropped_queue_items), (3, 0));
    let next = follow("ay").unwrap();
    assert_eq!(send([next.clone()], get("/")).status(), 200);
    engine.maintain();
    assert_eq!(counts(&next)[0].1, 4);
}

#[test]
fn root_reads_the_configuration_of_its_plugin_while_it_is_created_and_not_while_its_vm_starts() {
    // Four bytes are the plugin's, and two those of its VM.
    let guest = r#"(module
        (import "env" "proxy_get_buffer_bytes" (func $buffer (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_get_configuration" (func $configuration (param i32 i32) (result i32)))
        (memory (export "memory") 1)
        (global $created (mut i32) (i32.const 0))
        (func (export "proxy_abi_version_0_1_0"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
        (func $status_of_buffer (result i32)
            (call $buffer (i32.const 7) (i32.const 0) (i32.const 9) (i32.const 0) (i32.const 4)))
        (func $has (param $length i32) (result i32)
            (drop (call $configuration (i32.const 0) (i32.const 4)))
            (i32.eq (i32.load (i32.const 4)) (local.get $length)))
        (func (export "proxy_on_context_create") (param i32 i32)
            (global.set $created (i32.and (call $has (i32.const 4)) (i32.eqz (call $status_of_buffer)))))
        (func (export "proxy_on_vm_start") (param i32 i32) (result i32)
            (i32.and (global.get $created)
                (i32.and (call $has (i32.const 2)) (i32.eq (call $status_of_buffer) (i32.const 1))))))"#;
    let plugin = plugin_of(&Engine::new().unwrap().0, &wat::parse_str(guest).unwrap(), |config| {
        config.configuration = Bytes::from_static(b"four");
        config.vm_configuration = Bytes::from_static(b"vm");
    });
    plugin.unwrap();
}

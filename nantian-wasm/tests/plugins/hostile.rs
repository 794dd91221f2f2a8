//! Guests that mean harm: each ends by policy, and the next request is served.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use nantian_wasm::{Cause, Engine, FailurePolicy, Phase, Plugin, PluginError};

use crate::support::{
    Frames, Logged, Seen, Ticking, configured, data, exchange, frames, get, guest, plugin, plugin_of, send,
    ticks_with_logs,
};

fn attack() -> Request<Frames> {
    Request::post("/").header("x-attack", "1").body(frames([data("body")])).unwrap()
}

/// A guest that does `what_where`, on an engine whose clock runs while it serves.
fn hostile(what_where: &str, change: impl FnOnce(&mut nantian_wasm::PluginConfig)) -> (Engine, Plugin) {
    let engine = Engine::new().unwrap().0;
    let plugin = plugin_of(&engine, &guest("hostile"), |config| {
        config.configuration = Bytes::copy_from_slice(what_where.as_bytes());
        // The test's clock runs fast: long enough for a callback that does nothing on a busy machine.
        config.sandbox.max_execution_time = Duration::from_secs(1);
        change(config);
    });
    (engine, plugin.unwrap())
}

fn cause(plugin: &Plugin) -> Option<Cause> {
    plugin.status().last_failure.map(|failure| failure.cause)
}

fn is_time_limit(cause: Option<Cause>) -> bool {
    matches!(cause, Some(Cause::TimeLimit { .. }))
}

fn attacked(engine: &Engine, plugin: &Plugin) -> Seen {
    let _ticking = Ticking::of(engine);
    let seen = exchange([plugin.clone()], attack(), Response::new(frames([data("ok")])));
    while plugin.status().traps.total() == 0 {
        // The stream is over, and its guest still runs: upkeep ends it, some slices a round.
        engine.maintain();
    }
    seen
}

#[test]
fn endless_loop_in_any_callback_is_stopped_and_requests_are_served_again_after_upkeep() {
    for place in ["lh", "lb", "lr", "lB", "ln"] {
        let (engine, plugin) = hostile(place, |_| {});
        let seen = attacked(&engine, &plugin);
        let is_refused = if place == "lB" { seen.body.is_err() } else { seen.status() == 503 };
        assert!(is_refused && is_time_limit(cause(&plugin)), "{place}: {seen:?}");
        assert_eq!(plugin.status().traps.total(), 1, "{place}");
        if place != "ln" {
            engine.maintain();
            let next = send([plugin.clone()], get("/"));
            assert_eq!((next.status(), next.text()), (200, "ok"), "{place}");
        }
    }
}

#[test]
fn endless_loop_when_a_stream_is_logged_costs_only_the_instance() {
    let (engine, plugin) = hostile("lg", |_| {});
    let seen = attacked(&engine, &plugin);
    assert_eq!((seen.status(), seen.text()), (200, "ok"));
    engine.maintain();
    let status = plugin.status();
    assert_eq!((status.traps.total(), status.failures, status.live_instances), (1, 0, 1));
}

#[test]
fn endless_loop_at_start_is_a_typed_error() {
    let engine = Engine::new().unwrap().0;
    let _ticking = Ticking::of(&engine);
    let refused =
        plugin_of(&engine, &guest("hostile"), |config| config.configuration = Bytes::from_static(b"lc"));
    assert!(matches!(refused, Err(PluginError::Start { cause: Cause::TimeLimit { .. }, .. })), "{refused:?}");
    let in_allocator =
        plugin_of(&engine, &guest("hostile"), |config| config.configuration = Bytes::from_static(b"tc"));
    assert!(
        matches!(in_allocator, Err(PluginError::Start { cause: Cause::Trap(_), .. })),
        "{in_allocator:?}"
    );
}

/// A guest that logs so many lines in the creation of its root context, in on_vm_start and in on_configure.
fn slow_start([create, start, configure]: [u32; 3]) -> Vec<u8> {
    let text = format!(
        r#"(module
            (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (func $dawdle (param $lines i32)
                (block $done (loop $more
                    (br_if $done (i32.eqz (local.get $lines)))
                    (drop (call $log (i32.const 2) (i32.const 0) (i32.const 1)))
                    (local.set $lines (i32.sub (local.get $lines) (i32.const 1)))
                    (br $more))))
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_context_create") (param i32 i32) (call $dawdle (i32.const {create})))
            (func (export "proxy_on_vm_start") (param i32 i32) (result i32)
                (call $dawdle (i32.const {start})) (i32.const 1))
            (func (export "proxy_on_configure") (param i32 i32) (result i32)
                (call $dawdle (i32.const {configure})) (i32.const 1)))"#
    );
    wat::parse_str(text).unwrap()
}

#[test]
fn start_and_configuration_share_one_second() {
    for (tenths, expected) in
        [([3, 3, 3], None), ([6, 3, 3], Some(Phase::Configure)), ([6, 6, 0], Some(Phase::Start))]
    {
        let engine = Engine::new().unwrap().0;
        let started = tracing::subscriber::with_default(ticks_with_logs(engine.clone(), 100), || {
            plugin_of(&engine, &slow_start(tenths), |_| {})
        });
        let ended = started.err().map(|error| match error {
            PluginError::Start { phase, cause } if is_time_limit(Some(cause.clone())) => phase,
            other => panic!("{tenths:?}: {other}"),
        });
        assert_eq!(ended, expected, "{tenths:?}");
    }
}

#[test]
fn endless_loop_in_the_allocator_counts_for_the_callback_that_needed_it() {
    let (engine, plugin) = hostile("la", |_| {});
    let seen = attacked(&engine, &plugin);
    assert_eq!(seen.status(), 503);
    assert!(is_time_limit(cause(&plugin)));
}

#[test]
fn status_tells_where_the_guest_was_when_it_trapped() {
    let text = r#"(module
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
        (func $innermost unreachable)
        (func $between call $innermost)
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (call $between) (i32.const 0)))"#;
    let plugin = plugin_of(&Engine::new().unwrap().0, &wat::parse_str(text).unwrap(), |_| {}).unwrap();
    assert!(plugin.status().last_backtrace.is_empty());
    assert_eq!(send([plugin.clone()], get("/")).status(), 503);
    let backtrace = plugin.status().last_backtrace;
    let functions: Vec<_> =
        backtrace.iter().filter_map(|frame| frame.split_once(" at 0x")).map(|(name, _)| name).collect();
    assert_eq!(functions[..2], ["innermost", "between"], "{backtrace:?}");
    assert_eq!(functions.len(), 3, "the guest's own functions and no others: {backtrace:?}");
}

#[test]
fn trap_ends_only_streams_that_are_hit() {
    for (what, words) in
        [("th", "unreachable"), ("oh", "stack"), ("tb", "unreachable"), ("tr", "unreachable")]
    {
        let (engine, plugin) = hostile(what, |_| {});
        let seen = send([plugin.clone()], attack());
        assert_eq!((seen.status(), seen.text()), (503, ""), "{what}");
        assert!(matches!(cause(&plugin), Some(Cause::Trap(text)) if text.contains(words)), "{what}");
        engine.maintain();
        assert_eq!(send([plugin.clone()], get("/")).status(), 200);
        assert_eq!(plugin.status().rebuilds, 1);
    }
    let (_, plugin) = hostile("xh", |_| {});
    assert_eq!(send([plugin.clone()], attack()).status(), 503);
    assert_eq!(cause(&plugin), Some(Cause::Exit { code: 7 }));
}

#[test]
fn trap_of_a_plugin_that_fails_open_lets_the_request_pass() {
    for place in ["th", "tb", "tr", "tB", "tn"] {
        let (_, plugin) = hostile(place, |config| config.failure_policy = FailurePolicy::FailOpen);
        let seen = exchange([plugin.clone()], attack(), Response::new(frames([data("ok")])));
        assert_eq!((seen.status(), seen.text()), (200, "ok"), "{place}");
        assert_eq!(seen.request_body.as_deref(), Ok(&b"body"[..]), "{place}");
        assert_eq!(plugin.status().failures, 1, "{place}");
    }
}

#[test]
fn answer_of_a_guest_that_traps_is_never_sent() {
    let (_, answers_and_traps) = hostile("qh", |_| {});
    let seen = send([plugin("response_header", |_| {}), answers_and_traps], attack());
    assert_eq!((seen.status(), seen.text()), (503, ""));
    assert_eq!(seen.response_header("x-request-path"), Some("/"), "outer plugins see the refusal");
}

#[test]
fn memory_bomb_is_refused_its_memory() {
    let (engine, plugin) = hostile("gh", |config| config.sandbox.max_memory = 2 << 20);
    assert_eq!(send([plugin.clone()], attack()).status(), 503);
    let cause = cause(&plugin).unwrap().to_string();
    assert_eq!(
        cause,
        "trap: wasm `unreachable` instruction executed, after memory.grow was refused at the limit of \
         2097152 bytes"
    );
    engine.maintain();
    assert_eq!(send([plugin], get("/")).status(), 200);
}

#[test]
fn module_that_starts_larger_than_its_limit_does_not_start() {
    let engine = Engine::new().unwrap().0;
    let large =
        wat::parse_str(r#"(module (func (export "proxy_abi_version_0_2_1")) (memory (export "memory") 64))"#);
    let refused = plugin_of(&engine, &large.unwrap(), |config| config.sandbox.max_memory = 1 << 20);
    assert!(matches!(refused, Err(PluginError::Start { .. })), "{refused:?}");
}

#[test]
fn header_flood_ends_by_budget() {
    let (_, plugin) = hostile("mh", |_| {});
    assert_eq!(send([plugin.clone()], attack()).status(), 503);
    assert!(matches!(cause(&plugin), Some(Cause::Budget { what: "header bytes" })), "{:?}", cause(&plugin));
}

#[test]
fn log_flood_is_dropped_and_counted() {
    let (engine, plugin) = hostile("sh", |_| {});
    assert_eq!(send([plugin.clone()], attack()).status(), 200);
    assert_eq!(plugin.status().dropped_log_lines, 0, "nobody listens: nothing is dropped");
    tracing::subscriber::with_default(ticks_with_logs(engine, 0), || {
        assert_eq!(send([plugin.clone()], attack()).status(), 200);
    });
    assert_eq!(plugin.status().dropped_log_lines, 1000 - 64);
}

#[test]
fn plugin_whose_streams_all_log_as_much_as_they_may_is_silenced_by_its_rate() {
    let (engine, plugin) = hostile("sh", |_| {});
    tracing::subscriber::with_default(ticks_with_logs(engine.clone(), 0), || {
        // 64 lines of 8 bytes each and of what stands around a line: 1 MiB is logged by the 228th stream.
        (0..300).for_each(|_| assert_eq!(send([plugin.clone()], attack()).status(), 200));
    });
    let admitted = 300 * 1000 - plugin.status().dropped_log_lines;
    assert_eq!(admitted, (1 << 20) / (64 + 8), "while no time passes");
}

#[test]
fn pause_that_nobody_ends_is_a_failure_when_its_time_is_over() {
    for place in ["ph", "pr"] {
        let (engine, plugin) = hostile(place, |config| config.sandbox.max_pause = Duration::from_millis(50));
        let _kept = Ticking::with_upkeep(&engine);
        assert_eq!(send([plugin.clone()], attack()).status(), 503);
        assert_eq!(cause(&plugin), Some(Cause::Paused));
        assert_eq!(plugin.status().traps.total(), 0, "the instance lives on");
    }
}

#[test]
fn lying_pointers_get_a_status_and_nothing_else() {
    let seen = send([plugin("lying_pointers", |_| {})], get("/"));
    assert_eq!(seen.status(), 200);
    // `set_shared_data` with a good key and the 64 KiB metric name are refused for their pointers as well;
    // WASI has its own number for a bad address, and gets no bytes it cannot write whole.
    let expected = [6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 21, 21];
    assert_eq!(seen.body.as_deref(), Ok(&expected[..]));
}

#[test]
fn guest_that_traps_on_every_stream_is_not_rebuilt_without_end() {
    let (engine, plugin) = hostile("tn", |_| {});
    for _ in 0..60 {
        assert_eq!(send([plugin.clone()], get("/")).status(), 503);
        engine.maintain();
    }
    let status = plugin.status();
    assert_eq!(status.rebuilds, 20);
    assert_eq!(cause(&plugin), Some(Cause::NoInstance));
    for _ in 0..50 {
        engine.tick();
    }
    engine.maintain();
    assert_eq!(plugin.status().rebuilds, 21);
}

#[test]
fn instances_that_end_again_and_again_are_logged_once_a_minute() {
    let (engine, plugin) = hostile("tn", |_| {});
    let logged = Logged::of_plugins(|| {
        for _ in 0..3 {
            for _ in 0..20 {
                assert_eq!(send([plugin.clone()], get("/")).status(), 503);
                engine.maintain();
            }
            (0..60_000).for_each(|_| engine.tick());
        }
    });
    assert_eq!(logged, ["probe: plugin instance ended"; 3]);
    assert_eq!(plugin.status().traps.total(), 60);
}

#[test]
fn upkeep_replaces_an_instance_and_no_request_waits_for_that() {
    let (engine, plugin) = hostile("th", |_| {});
    assert_eq!(send([plugin.clone()], attack()).status(), 503);
    assert_eq!(send([plugin.clone()], get("/")).status(), 503);
    assert_eq!(cause(&plugin), Some(Cause::NoInstance));
    assert_eq!((plugin.status().live_instances, plugin.status().rebuilds), (0, 0));
    engine.maintain();
    assert_eq!((plugin.status().live_instances, plugin.status().rebuilds), (1, 1));
    assert_eq!(send([plugin.clone()], get("/")).status(), 200);
    assert_eq!(plugin.status().rebuilds, 1);
}

#[test]
fn tick_that_traps_costs_only_the_instance() {
    let (engine, plugin) = hostile("tt", |_| {});
    engine.maintain();
    for _ in 0..20 {
        engine.tick();
    }
    engine.maintain();
    assert_eq!((plugin.status().traps.total(), plugin.status().live_instances), (1, 0));
    assert_eq!(send([configured("hostile", b"--")], get("/")).status(), 200);
}

//! What a plugin's status counts.

use std::time::Duration;

use nantian_wasm::{Action, Engine, Plugin, PluginConfig, StreamContext, StreamInfo};

use crate::support::{Frames, Logged, get, plugin, plugin_of, send, ticks_with_logs};

/// Traps where it is shown a header `x-trap`.
const TRAPS: &str = r#"(module
    (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 16) "x-trap")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (if (i32.eqz (call $get (i32.const 0) (i32.const 16) (i32.const 6) (i32.const 0) (i32.const 4)))
            (then (unreachable)))
        (i32.const 0)))"#;

fn trapping() -> http::Request<Frames> {
    let mut request = get("/");
    request.headers_mut().insert("x-trap", "1".parse().unwrap());
    request
}

fn next_version(plugin: &Plugin) -> Plugin {
    let config = PluginConfig::new("probe").with_instances(std::num::NonZeroUsize::MIN);
    plugin.successor(plugin.module(), config).unwrap()
}

#[test]
fn log_tells_at_once_of_each_version_that_an_instance_has_ended() {
    let engine = Engine::new().unwrap().0;
    let old = plugin_of(&engine, &wat::parse_str(TRAPS).unwrap(), |_| {}).unwrap();
    let new = next_version(&old);
    let logged = Logged::of_plugins(|| {
        for plugin in [&old, &old, &new, &new] {
            assert_eq!(send([plugin.clone()], trapping()).status(), 503);
            engine.maintain();
        }
    });
    assert_eq!(new.status().traps.total(), 4);
    assert_eq!(logged, ["probe: plugin instance ended"; 2]);
}

#[test]
fn what_is_counted_goes_on_with_an_edit_and_counts_what_versions_before_it_do() {
    let engine = Engine::new().unwrap().0;
    let old = plugin_of(&engine, &wat::parse_str(TRAPS).unwrap(), |_| {}).unwrap();
    assert_eq!(send([old.clone()], trapping()).status(), 503);
    engine.maintain();

    let new = next_version(&old);
    let told = || {
        let status = new.status();
        (status.streams, status.calls, status.failures, status.traps.total(), status.rebuilds)
    };
    assert_eq!(told(), (1, 1, 1, 1, 1));
    assert_eq!(send([old.clone()], get("/")).status(), 200);
    assert_eq!(send([new.clone()], get("/")).status(), 200);
    assert_eq!(told(), (3, 3, 1, 1, 1), "streams that began before it go on as they were");
    drop(old);
    engine.maintain();
    assert_eq!(told(), (3, 3, 1, 1, 1));
}

#[test]
fn calls_into_guests_are_counted() {
    let plugin = plugin("lifecycle", |_| {});
    for _ in 0..3 {
        assert_eq!(send([plugin.clone()], get("/")).status(), 200);
    }
    assert_eq!(plugin.status().calls, 3 * 2, "each is created, and logged, done and deleted at once");
    assert_eq!(plugin.status().guest_time, Duration::ZERO);
}

#[test]
fn time_of_guests_is_that_of_the_beats_which_meet_their_calls() {
    let guest = r#"(module (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
        (func $toil
            (local $rounds i32)
            (loop $more
                (drop (call $log (i32.const 2) (i32.const 0) (i32.const 1)))
                (local.set $rounds (i32.add (local.get $rounds) (i32.const 1)))
                (br_if $more (i32.le_u (local.get $rounds) (i32.const 20)))))
        (func (export "proxy_on_configure") (param i32 i32) (result i32) (call $toil) (i32.const 1))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (call $toil) (i32.const 0)))"#;
    let engine = Engine::new().unwrap().0;
    let plugin = tracing::subscriber::with_default(ticks_with_logs(engine.clone(), 1), || {
        let plugin = plugin_of(&engine, &wat::parse_str(guest).unwrap(), |_| {}).unwrap();
        assert_eq!(plugin.status().guest_time, Duration::ZERO, "it has started");
        let mut stream = StreamContext::new([plugin.clone()].into(), StreamInfo::default());
        let (mut parts, ()) = http::Request::new(()).into_parts();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        while let Action::Pending = stream.on_request_headers(&mut parts, true) {
            while stream.poll_request(&mut context).is_pending() {}
        }
        plugin
    });
    assert_eq!(plugin.status().guest_time, Duration::from_millis(21));
}

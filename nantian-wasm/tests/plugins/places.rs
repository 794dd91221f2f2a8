//! Places of instances: reserved, all taken, or not to be had.

use std::num::{NonZeroU32, NonZeroUsize};
use std::process::Command;

use nantian_wasm::{
    Allocation, Engine, MemoryOf, Module, Phase, Plugin, PluginConfig, PluginError, SharedSpace,
};

use crate::support::{Ticking, begin, get, guest, plugin_of, send};

fn engine_of(places: u32) -> Engine {
    Engine::builder().max_instances(NonZeroU32::new(places).unwrap()).build().unwrap().0
}

fn instances(count: usize) -> impl FnOnce(&mut PluginConfig) {
    move |config| config.instances = NonZeroUsize::new(count)
}

/// A module of these parts.
fn module(parts: &str) -> Vec<u8> {
    wat::parse_str(format!(r#"(module (func (export "proxy_abi_version_0_2_1")) {parts})"#)).unwrap()
}

#[test]
fn plugin_that_finds_no_place_is_refused_and_the_one_it_was_to_replace_serves_on() {
    let engine = engine_of(3);
    let present = plugin_of(&engine, &guest("add_header"), instances(2)).unwrap();
    let mut config = PluginConfig::new("next");
    config.instances = NonZeroUsize::new(2);
    let refused = present.successor(present.module(), config.clone()).unwrap_err();
    assert_eq!(refused, PluginError::Full { max_instances: NonZeroU32::new(3).unwrap() });
    assert_eq!(refused.to_string(), "all 3 places for instances of plugins are taken");
    assert_eq!(send([present.clone()], get("/")).request_header("x-wasm-plugin"), Some("probe"));

    // What a refused plugin had taken is free again.
    let third = plugin_of(&engine, &guest("add_header"), instances(1)).unwrap();
    drop((present, third));
    let next = plugin_of(&engine, &guest("add_header"), instances(3)).unwrap();
    assert_eq!(send([next], get("/")).request_header("x-wasm-plugin"), Some("probe"));
}

#[test]
fn plugins_share_the_memory_of_their_engine() {
    let engine = Engine::builder().max_memory(6 << 20).build().unwrap().0;
    // The first begins with 2 MiB and takes one more each time it is asked, the other has 3 MiB.
    let growing = module(
        r#"(memory (export "memory") 32)
           (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
               (if (i32.lt_s (memory.grow (i32.const 16)) (i32.const 0)) (then unreachable))
               (i32.const 0))"#,
    );
    let large = module(r#"(memory (export "memory") 48)"#);
    let growing = plugin_of(&engine, &growing, instances(1)).unwrap();
    assert_eq!(send([growing.clone()], get("/")).status(), 200);
    let other = plugin_of(&engine, &large, instances(1)).unwrap();
    let refused = PluginError::NoMemory { max_memory: 6 << 20, of: MemoryOf::Engine };
    assert_eq!(plugin_of(&engine, &large, instances(1)).unwrap_err(), refused);

    assert_eq!(send([growing.clone()], get("/")).status(), 503);
    let cause = growing.status().last_failure.unwrap().cause.to_string();
    assert!(
        cause.ends_with("memory.grow was refused at the limit of 6291456 bytes for all plugins together"),
        "{cause}"
    );
    // The instance that has ended has given back what it had.
    drop(other);
    engine.maintain();
    engine.maintain();
    for _ in 0..4 {
        assert_eq!(send([growing.clone()], get("/")).status(), 200);
    }
    engine.maintain();
    assert_eq!(growing.status().memory, 6 << 20);
}

#[test]
fn plugin_has_as_many_instances_as_leave_memory_for_an_edit_of_it() {
    let engine = Engine::builder().max_memory(8 << 20).build().unwrap().0;
    // What an instance takes is known when it has started: 1 MiB.
    let growing = module(
        r#"(memory (export "memory") 1)
           (func (export "proxy_on_configure") (param i32 i32) (result i32)
               (i32.gt_s (memory.grow (i32.const 15)) (i32.const 0)))"#,
    );
    let mut present = plugin_of(&engine, &growing, instances(16)).unwrap();
    let live = |plugin: &Plugin| plugin.status().live_instances;
    assert_eq!(live(&present), 5);
    for edits in 1..=3 {
        let config = PluginConfig::new("next").with_instances(NonZeroUsize::new(16).unwrap());
        let next = present.successor(present.module(), config).unwrap();
        assert_eq!((live(&next), send([next.clone()], get("/")).status()), (1, 200));
        engine.maintain();
        assert_eq!(live(&next), 1, "they have room when those of the last version have gone");
        present = next;
        for _ in 0..10 {
            engine.maintain();
        }
        let status = present.status();
        let expected = (5, edits * 4);
        assert_eq!((status.live_instances, status.rebuilds), expected, "what finds no room is not tried");
    }
}

#[test]
fn plugin_does_without_an_instance_that_leaves_no_memory_for_an_edit_of_it() {
    let engine = Engine::builder().max_memory(8 << 20).build().unwrap().0;
    let growing = module(
        r#"(memory (export "memory") 16)
           (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
               (drop (memory.grow (i32.const 48)))
               (i32.const 0))"#,
    );
    let plugin = plugin_of(&engine, &growing, instances(2)).unwrap();
    let state = || (plugin.status().live_instances, plugin.status().memory);
    assert_eq!(state(), (2, 2 << 20));
    let stream = begin(&plugin);
    for _ in 0..3 {
        engine.maintain();
    }
    assert_eq!(state(), (2, 5 << 20), "it goes when no stream is on it");
    drop(stream);
    for _ in 0..2 {
        engine.maintain();
    }
    assert_eq!(state(), (1, 1 << 20));
    assert_eq!(send([plugin], get("/")).status(), 200);
}

#[test]
fn plugins_of_a_space_leave_memory_to_those_of_others() {
    let engine = Engine::builder().max_memory(6 << 20).max_memory_of_space(3 << 20).build().unwrap().0;
    let bytes = module(r#"(memory (export "memory") 32)"#);
    let started = |space: &SharedSpace| {
        plugin_of(&engine, &bytes, |config| {
            config.instances = NonZeroUsize::new(1);
            config.shared_space = Some(space.clone());
        })
    };
    let (greedy, other) = (SharedSpace::new(), SharedSpace::new());
    let first = started(&greedy).unwrap();
    let refused = PluginError::NoMemory { max_memory: 3 << 20, of: MemoryOf::Space };
    assert_eq!(started(&greedy).unwrap_err(), refused);
    let _other = started(&other).unwrap();
    drop(first);
    engine.maintain();
    engine.maintain();
    started(&greedy).unwrap();
}

#[test]
fn guest_that_lacks_memory_as_it_starts_is_not_what_is_wrong() {
    let engine = Engine::builder().max_memory(1 << 20).build().unwrap().0;
    let greedy = module(
        r#"(memory (export "memory") 1)
           (func (export "_initialize")
               (if (i32.lt_s (memory.grow (i32.const 16)) (i32.const 0)) (then unreachable)))"#,
    );
    let refused = plugin_of(&engine, &greedy, |_| {}).unwrap_err();
    assert_eq!(refused, PluginError::NoMemory { max_memory: 1 << 20, of: MemoryOf::Engine });
    let own = plugin_of(&engine, &greedy, |config| config.sandbox.max_memory = 1 << 19).unwrap_err();
    assert!(matches!(own, PluginError::Start { .. }), "{own:?}");
}

#[test]
fn guest_that_does_without_memory_as_it_starts_fails_for_its_own_reasons() {
    let engine = Engine::builder().max_memory(1 << 20).build().unwrap().0;
    let started = |end: &str| {
        let modest = format!(
            r#"(memory (export "memory") 1)
               (func $ask (drop (memory.grow (i32.const 16))))
               (func (export "_initialize") (call $ask))
               (func (export "proxy_on_configure") (param i32 i32) (result i32) {end})"#
        );
        plugin_of(&engine, &module(&modest), |_| {})
    };
    assert!(started("(call $ask) (i32.const 1)").is_ok());
    let refused = started("(call $ask) (i32.const 0)").unwrap_err();
    assert_eq!(refused, PluginError::Rejected { phase: Phase::Configure });
    let trapped = started("unreachable").unwrap_err();
    assert!(matches!(trapped, PluginError::Start { phase: Phase::Configure, .. }), "{trapped:?}");
}

#[test]
fn instance_that_ends_is_replaced_where_every_place_is_taken() {
    let engine = engine_of(1);
    let bytes = module(
        r#"(memory (export "memory") 1)
           (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) unreachable)"#,
    );
    let plugin = plugin_of(&engine, &bytes, instances(1)).unwrap();
    for rebuilds in 1..=10 {
        assert_eq!(send([plugin.clone()], get("/")).status(), 503);
        engine.maintain();
        let status = plugin.status();
        assert_eq!((status.rebuilds, status.live_instances), (rebuilds, 1));
    }
}

#[test]
fn largest_modules_that_are_accepted_have_a_place() {
    let engine = engine_of(1);
    assert_eq!(*engine.allocation(), Allocation::Pooled);
    let functions = "(func)".repeat(19_999);
    let elements = (0..20_000).map(|index| format!("{index} ")).collect::<String>();
    for parts in [
        "(memory (export \"memory\") 65536)".to_owned(),
        "(memory (export \"memory\") 1) (table 24576 funcref)".to_owned(),
        // As Go has them, behind 4096 places of none.
        format!(
            "(memory (export \"memory\") 1) {functions} (table 24096 funcref) (elem (i32.const 4096) func {elements})"
        ),
        format!(
            "(memory (export \"memory\") 1) {}",
            "(global (mut v128) (v128.const i64x2 0 0))".repeat(1_000)
        ),
    ] {
        let started = plugin_of(&engine, &module(&parts), |config| config.sandbox.max_memory = 4 << 30);
        assert!(started.is_ok(), "{}: {started:?}", &parts[..60.min(parts.len())]);
    }
}

/// Limits the addresses of a process of its own, in which it goes on.
#[test]
#[cfg(target_os = "linux")]
fn plugins_run_where_no_places_can_be_reserved() {
    const HERE: &str = "NANTIAN_TEST_HAS_FEW_ADDRESSES";
    if std::env::var_os(HERE).is_none() {
        let child = Command::new("sh")
            .args(["-c", r#"ulimit -v 2097152 && exec "$0" --exact "$1" --nocapture"#])
            .arg(std::env::current_exe().unwrap())
            .arg("places::plugins_run_where_no_places_can_be_reserved")
            .env(HERE, "1")
            .output()
            .unwrap();
        assert!(child.status.success(), "{child:?}");
        return;
    }
    let engine = Engine::new().unwrap().0;
    let Allocation::OnDemand { reason } = engine.allocation() else { panic!("places in so few addresses") };
    assert!(!reason.is_empty());
    let _kept = Ticking::with_upkeep(&engine);
    let plugins: Vec<_> =
        (0..20).map(|_| plugin_of(&engine, &guest("add_header"), |_| {}).unwrap()).collect();
    for plugin in plugins {
        assert_eq!(send([plugin], get("/")).request_header("x-wasm-plugin"), Some("probe"));
    }
    // A guest that grows its memory to its limit, finds what it wrote, and then reads behind the end.
    let bytes = module(
        r#"(memory (export "memory") 1)
           (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
               (i32.store (i32.const 64) (i32.const 7))
               (if (i32.ne (memory.grow (i32.const 15)) (i32.const 1)) (then (return (i32.const 99))))
               (if (i32.ne (memory.grow (i32.const 1)) (i32.const -1)) (then (return (i32.const 99))))
               (if (i32.ne (i32.load (i32.const 64)) (i32.const 7)) (then (return (i32.const 99))))
               (drop (i32.load (i32.const 1048576)))
               (i32.const 0))"#,
    );
    let plugin = plugin_of(&engine, &bytes, |config| config.sandbox.max_memory = 1 << 20).unwrap();
    assert_eq!(send([plugin.clone()], get("/")).status(), 503);
    let failure = plugin.status().last_failure.unwrap();
    let refused = "after memory.grow was refused at the limit of 1048576 bytes";
    assert_eq!(failure.cause.to_string(), format!("trap: out of bounds memory access, {refused}"));
}

#[test]
fn memory_of_a_place_is_empty_for_its_next_guest() {
    let engine = engine_of(1);
    // Says by its verdict whether it found anything, and leaves something.
    let parts = r#"(memory (export "memory") 4)
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (local $at i32)
            (loop $more
                (if (i32.load (local.get $at)) (then unreachable))
                (i32.store (local.get $at) (i32.const -1))
                (local.set $at (i32.add (local.get $at) (i32.const 4)))
                (br_if $more (i32.lt_u (local.get $at) (i32.const 262144))))
            (i32.const 0))"#;
    let same = Module::compile(&engine, &module(parts), None).unwrap();
    let other = Module::compile(&engine, &module(&format!("{parts} (func)")), None).unwrap();
    for module in [&same, &same, &other, &same] {
        let config = PluginConfig::new("probe").with_instances(NonZeroUsize::MIN);
        let plugin = Plugin::new(module, config).unwrap();
        assert_eq!(send([plugin], get("/")).status(), 200);
    }
}

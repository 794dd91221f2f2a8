//! What plugins of a space share by their VM ids, and what they do not.

use nantian_wasm::{Engine, Plugin, PluginConfig, SharedSpace};

use crate::support::{Logged, get, plugin_of, send};

/// Counts the bytes that come out of the queue `jobs`, which it registers.
const RECEIVER: &str = r#"(module
    (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_increment_metric" (func $add (param i32 i64) (result i32)))
    (import "env" "proxy_register_shared_queue" (func $register (param i32 i32 i32) (result i32)))
    (import "env" "proxy_dequeue_shared_queue" (func $dequeue (param i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "jobs")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (drop (call $define (i32.const 0) (i32.const 100) (i32.const 4) (i32.const 16)))
        (i32.eqz (call $register (i32.const 100) (i32.const 4) (i32.const 8))))
    (func (export "proxy_on_queue_ready") (param i32) (param $token i32)
        (loop $more
            (if (i32.eqz (call $dequeue (local.get $token) (i32.const 0) (i32.const 4)))
                (then
                    (drop (call $add (i32.load (i32.const 16)) (i64.load32_u (i32.const 4))))
                    (br $more))))))"#;

/// Puts an item of five bytes into the queue `jobs` of the VM `receiver` with each request, or into the first
/// queue of all if it finds none, and tells the status of the search, and a hundred times that of the item.
const SENDER: &str = r#"(module
    (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_record_metric" (func $record (param i32 i64) (result i32)))
    (import "env" "proxy_resolve_shared_queue" (func $resolve (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_enqueue_shared_queue" (func $enqueue (param i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "jobs")
    (data (i32.const 200) "receiver")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (i32.eqz (call $define (i32.const 1) (i32.const 100) (i32.const 4) (i32.const 16))))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (local $status i32)
        (i32.store (i32.const 8) (i32.const 1))
        (local.set $status
            (call $resolve (i32.const 200) (i32.const 8) (i32.const 100) (i32.const 4) (i32.const 8)))
        (drop (call $record (i32.load (i32.const 16))
            (i64.extend_i32_u (i32.add (local.get $status) (i32.mul (i32.const 100)
                (call $enqueue (i32.load (i32.const 8)) (i32.const 200) (i32.const 5)))))))
        (i32.const 0)))"#;

/// Counts requests in shared data, and tells the number.
const COUNTER: &str = r#"(module
    (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_record_metric" (func $record (param i32 i64) (result i32)))
    (import "env" "proxy_get_shared_data" (func $get (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_shared_data" (func $set (param i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "requests")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (i32.eqz (call $define (i32.const 1) (i32.const 100) (i32.const 8) (i32.const 16))))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (i64.store (i32.const 1024) (i64.const 0))
        (drop (call $get (i32.const 100) (i32.const 8) (i32.const 0) (i32.const 4) (i32.const 8)))
        (i64.store (i32.const 1024) (i64.add (i64.load (i32.const 1024)) (i64.const 1)))
        (drop (call $set (i32.const 100) (i32.const 8) (i32.const 1024) (i32.const 8) (i32.const 0)))
        (drop (call $record (i32.load (i32.const 16)) (i64.load (i32.const 1024))))
        (i32.const 0)))"#;

/// A tenant's plugins.
struct Tenant<'a> {
    engine: &'a Engine,
    space: SharedSpace,
}

impl<'a> Tenant<'a> {
    fn new(engine: &'a Engine) -> Self {
        Self { engine, space: SharedSpace::new() }
    }

    fn plugin(&self, text: &str, vm_id: &str) -> Plugin {
        let place = |config: &mut PluginConfig| {
            *config = config.clone().with_vm_id(vm_id).with_shared_space(self.space.clone());
        };
        plugin_of(self.engine, &wat::parse_str(text).unwrap(), place).unwrap()
    }
}

fn told(plugin: &Plugin) -> u64 {
    plugin.status().metrics[0].value
}

/// What a plugin tells of one more request.
fn ask(plugin: &Plugin) -> u64 {
    assert_eq!(send([plugin.clone()], get("/")).status(), 200);
    told(plugin)
}

const SENT: u64 = 0;
/// Neither is the queue found, nor is one of the token that it would have.
const NOT_FOUND: u64 = 101;

#[test]
fn queue_is_found_by_its_vm_id_in_its_space_alone() {
    let engine = Engine::new().unwrap().0;
    let (tenant, other) = (Tenant::new(&engine), Tenant::new(&engine));
    let (sender, stranger) = (tenant.plugin(SENDER, "sender"), other.plugin(SENDER, "sender"));
    assert_eq!(ask(&sender), NOT_FOUND, "the receiver is not there yet");
    let receiver = tenant.plugin(RECEIVER, "receiver");
    assert_eq!((ask(&sender), ask(&sender)), (SENT, SENT));
    engine.maintain();
    assert_eq!(told(&receiver), 10, "it hears of both items");
    assert_eq!(ask(&tenant.plugin(SENDER, "")), SENT, "a plugin without a VM id finds others");
    assert_eq!(ask(&stranger), NOT_FOUND);
    assert_eq!(ask(&other.plugin(SENDER, "receiver")), NOT_FOUND, "not by having its VM id either");
    engine.maintain();
    assert_eq!(told(&receiver), 15);
}

#[test]
fn queue_of_a_plugin_without_a_vm_id_is_its_own() {
    let engine = Engine::new().unwrap().0;
    let tenant = Tenant::new(&engine);
    let private = tenant.plugin(RECEIVER, "");
    assert_eq!(ask(&tenant.plugin(SENDER, "")), NOT_FOUND);
    engine.maintain();
    assert_eq!(told(&private), 0);
}

#[test]
fn instance_that_was_last_to_register_a_queue_hears_of_it_whichever_plugin_it_is_of() {
    let engine = Engine::new().unwrap().0;
    let tenant = Tenant::new(&engine);
    let sender = tenant.plugin(SENDER, "receiver");
    let (first, last) = (tenant.plugin(RECEIVER, "receiver"), tenant.plugin(RECEIVER, "receiver"));
    assert_eq!(ask(&sender), SENT);
    engine.maintain();
    assert_eq!((told(&first), told(&last)), (0, 5));
    drop(last);
    assert_eq!(ask(&sender), SENT);
    engine.maintain();
    assert_eq!(told(&first), 5, "the queue is there as long as one has it");
}

#[test]
fn data_is_that_of_a_vm_id_in_a_space_for_as_long_as_a_plugin_has_it() {
    let engine = Engine::new().unwrap().0;
    let (tenant, other) = (Tenant::new(&engine), Tenant::new(&engine));
    let (one, another) = (tenant.plugin(COUNTER, "v"), tenant.plugin(COUNTER, "v"));
    assert_eq!((ask(&one), ask(&another), ask(&one)), (1, 2, 3));
    assert_eq!((told(&one), told(&another)), (3, 2), "metrics stay those of each");
    assert_eq!(ask(&tenant.plugin(COUNTER, "w")), 1);
    assert_eq!(ask(&tenant.plugin(COUNTER, "")), 1);
    assert_eq!(ask(&tenant.plugin(COUNTER, "")), 1, "two plugins without a VM id");
    assert_eq!(ask(&other.plugin(COUNTER, "v")), 1);
    let named = |config: &mut PluginConfig| *config = config.clone().with_vm_id("v");
    let alone = || plugin_of(&engine, &wat::parse_str(COUNTER).unwrap(), named).unwrap();
    assert_eq!((ask(&alone()), ask(&alone())), (1, 1), "a VM id in no space is nobody else's");
    drop(one);
    assert_eq!(ask(&tenant.plugin(COUNTER, "v")), 4);
    drop(another);
    assert_eq!(ask(&tenant.plugin(COUNTER, "v")), 1);
}

#[test]
fn shared_data_and_queues_survive_an_edit_that_keeps_the_vm_id() {
    let engine = Engine::new().unwrap().0;
    let tenant = Tenant::new(&engine);
    for vm_id in ["v", ""] {
        let first = tenant.plugin(COUNTER, vm_id);
        assert_eq!(ask(&first), 1);
        let config = PluginConfig::new("probe").with_vm_id(vm_id);
        let edited = first.successor(first.module(), config.clone()).unwrap();
        drop(first);
        assert_eq!(ask(&edited), 2, "it stays in its space");
        let config = config.with_shared_space(tenant.space.clone());
        let edited = edited.successor(edited.module(), config.clone()).unwrap();
        assert_eq!(ask(&edited), 3);
        assert_eq!(ask(&edited.successor(edited.module(), config.with_vm_id("w")).unwrap()), 1);
    }
    let (sender, receiver) = (tenant.plugin(SENDER, "sender"), tenant.plugin(RECEIVER, "receiver"));
    let config = PluginConfig::new("probe").with_vm_id("receiver");
    let edited = receiver.successor(receiver.module(), config).unwrap();
    drop(receiver);
    assert_eq!(ask(&sender), SENT);
    engine.maintain();
    assert_eq!(told(&edited), 5);
}

/// Clears the cache of routes in both ways with each request.
const CLEARS: &str = r#"(module
    (import "env" "proxy_clear_route_cache" (func $clear (result i32)))
    (import "env" "proxy_call_foreign_function" (func $call (param i32 i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "clear_route_cache")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (if (call $clear) (then (unreachable)))
        (if (call $call (i32.const 100) (i32.const 17) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
            (then (unreachable)))
        (i32.const 0)))"#;

#[test]
fn author_is_told_once_a_minute_that_no_other_route_is_chosen() {
    let engine = Engine::new().unwrap().0;
    let plugin = plugin_of(&engine, &wat::parse_str(CLEARS).unwrap(), |_| {}).unwrap();
    let logged = Logged::of_plugins(|| {
        for _ in 0..3 {
            assert_eq!(send([plugin.clone()], get("/")).status(), 200);
        }
        (0..60_000).for_each(|_| engine.tick());
        assert_eq!(send([plugin.clone()], get("/")).status(), 200);
    });
    let line = "probe: clear_route_cache has no effect: routes are chosen before plugins run";
    assert_eq!(logged, [line, line]);
}

//! What WasmPlugins of one namespace share.

use crate::{
    plugin_fields::inline,
    support::{Backend, Port, World, eventually, plugin, route, rule, service, to},
};

/// Counts requests in shared data and puts the number into the request header `x-value`, as the character
/// that is so many behind the zero.
const COUNTING: &str = r#"(module
    (import "env" "proxy_get_shared_data" (func $get (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_shared_data" (func $set (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_add_header_map_value" (func $add_header (param i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 64) "x-value")
    (data (i32.const 80) "k")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (i32.store8 (i32.const 1024) (i32.const 48))
        (drop (call $get (i32.const 80) (i32.const 1) (i32.const 0) (i32.const 4) (i32.const 8)))
        (i32.store8 (i32.const 1024) (i32.add (i32.load8_u (i32.const 1024)) (i32.const 1)))
        (drop (call $set (i32.const 80) (i32.const 1) (i32.const 1024) (i32.const 1) (i32.const 0)))
        (drop (call $add_header (i32.const 0) (i32.const 64) (i32.const 7) (i32.const 1024) (i32.const 1)))
        (i32.const 0)))"#;

fn counting(route: &str, vm_id: &str, text: &str) -> String {
    let fields = format!("  vmConfig: {{vmId: {vm_id}}}\n  wasm:");
    plugin(route, &inline(text)).replace("  wasm:", &fields)
}

fn elsewhere(manifest: &str) -> String {
    manifest
        .replace("namespace: demo", "namespace: other")
        .replace("name: demo}", "name: demo, namespace: demo}")
}

#[tokio::test]
async fn plugins_of_one_vm_id_share_data_in_their_namespace_and_keep_it_over_edits() {
    let (backend, port) = (Backend::echo("a").await, Port::reserve());
    let listener = port.listener("http", "protocol: HTTP, allowedRoutes: {namespaces: {from: All}}");
    let of = |name: &str| route(name, "", &[rule(&format!("/{name}"), &to("a"))]);
    let mut world = World::with_listeners(port, &[listener])
        .service("a", &[&backend])
        .manifest("elsewhere", &elsewhere(&service("a", "http", &[&backend])))
        .manifest("route-c", &elsewhere(&of("c")))
        .manifest("plugin-c", &elsewhere(&counting("c", "v", COUNTING)));
    for (name, vm_id) in [("a", "v"), ("b", "v"), ("d", "w"), ("e", "''"), ("f", "''")] {
        let plugin = counting(name, vm_id, COUNTING);
        world =
            world.manifest(&format!("route-{name}"), &of(name)).manifest(&format!("plugin-{name}"), &plugin);
    }
    let gateway = world.start().await;
    let count = async |name: &str, header: &str| {
        assert_eq!(gateway.get(&format!("/{name}")).await.status(), 200, "{name}");
        backend.last().header(header).map(|value| value.as_bytes()[0] - b'0')
    };
    for (name, expected) in [("a", 1), ("b", 2), ("c", 1), ("d", 1), ("e", 1), ("f", 1), ("a", 3)] {
        assert_eq!(count(name, "x-value").await, Some(expected), "{name}");
    }
    gateway.edit("plugin-a", &counting("a", "v", &COUNTING.replace("x-value", "y-value"))).await;
    let (mut asked, mut told) = (3, None);
    eventually("the edit is served", async || {
        asked += 1;
        told = count("a", "y-value").await;
        told.is_some()
    })
    .await;
    assert_eq!(told, Some(asked));
    assert_eq!(count("b", "x-value").await, Some(asked + 1));
}

/// Sets a property under its own name, and puts those of `demo/a` and `demo/b` into request headers of their
/// names.
const LEAVING: &str = r#"(module
    (import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_property" (func $set (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_add_header_map_value" (func $add_header (param i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 64) "plugin_name")
    (data (i32.const 80) "demo/a")
    (data (i32.const 96) "demo/b")
    (data (i32.const 112) "x-a")
    (data (i32.const 128) "x-b")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func $tell (param $name i32) (param $header i32)
        (if (i32.eqz (call $get (local.get $name) (i32.const 6) (i32.const 0) (i32.const 4)))
            (then (drop (call $add_header (i32.const 0) (local.get $header) (i32.const 3)
                (i32.load (i32.const 0)) (i32.load (i32.const 4)))))))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (call $tell (i32.const 80) (i32.const 112))
        (call $tell (i32.const 96) (i32.const 128))
        (drop (call $get (i32.const 64) (i32.const 11) (i32.const 0) (i32.const 4)))
        (call $set (i32.load (i32.const 0)) (i32.load (i32.const 4)) (i32.load (i32.const 0)) (i32.load (i32.const 4)))))"#;

#[tokio::test]
async fn plugins_of_a_service_find_what_those_of_its_routes_have_set() {
    let backend = Backend::echo("a").await;
    let module = inline(LEAVING);
    let of_service = plugin("b", &module).replace(
        "group: gateway.networking.k8s.io, kind: HTTPRoute, name: b",
        "group: '', kind: Service, name: a",
    );
    let gateway = World::new()
        .service("a", &[&backend])
        .route("a", &[rule("/", &to("a"))])
        .manifest("plugin-a", &plugin("a", &module))
        .manifest("plugin-b", &of_service)
        .start()
        .await;
    for _ in 0..2 {
        assert_eq!(gateway.get("/").await.status(), 200);
        let told = ["x-a", "x-b"].map(|name| backend.last().header(name).map(str::to_owned));
        assert_eq!(told, [Some("demo/a".to_owned()), None], "of this request alone");
    }
}

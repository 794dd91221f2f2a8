//! What plugins see of answers that the gateway gives itself.

use std::future::pending;

use crate::support::{Backend, Port, World, plugin, rule, to};

/// Says in the response header `x-status` which status it has seen, and answers `/callback` itself.
const SEEING: &str = r#"(module
    (import "env" "proxy_get_header_map_value" (func $get_header (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_add_header_map_value" (func $add_header (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_send_local_response"
        (func $respond (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 64) ":status")
    (data (i32.const 80) ":path")
    (data (i32.const 96) "x-status")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (drop (call $get_header (i32.const 0) (i32.const 80) (i32.const 5) (i32.const 0) (i32.const 4)))
        (if (i32.eq (i32.load (i32.const 4)) (i32.const 9))
            (then (drop (call $respond (i32.const 202) (i32.const 0) (i32.const 0) (i32.const 80) (i32.const 5)
                (i32.const 0) (i32.const 0) (i32.const -1)))))
        (i32.const 0))
    (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
        (drop (call $get_header (i32.const 2) (i32.const 64) (i32.const 7) (i32.const 0) (i32.const 4)))
        (drop (call $add_header (i32.const 2) (i32.const 96) (i32.const 8)
            (i32.load (i32.const 0)) (i32.load (i32.const 4))))
        (i32.const 0)))"#;

/// The plugin on a target.
fn seeing(group: &str, kind: &str, name: &str) -> String {
    let module = wat::parse_str(SEEING).unwrap();
    let module = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, module);
    plugin("r", &format!("inline: {module}")).replace(
        "group: gateway.networking.k8s.io, kind: HTTPRoute, name: r",
        &format!("group: '{group}', kind: {kind}, name: {name}"),
    )
}

const API: &str = "gateway.networking.k8s.io";

#[tokio::test]
async fn errors_of_backends_and_late_ones_are_answers_that_plugins_see() {
    let closed = Port::reserve();
    let silent = Backend::raw(|mut wire| async move {
        let _ = wire.message().await;
        pending().await
    })
    .await;
    for target in [seeing(API, "HTTPRoute", "r"), seeing("", "Service", "a")] {
        let (refusing, late) =
            (Backend::at(closed.address()), rule("/late", "timeouts: {request: 100ms}, BACKEND"));
        let attempt = rule("/attempt", "timeouts: {backendRequest: 100ms}, BACKEND");
        let gateway = World::new()
            .service("a", &[&refusing])
            .service("b", &[&silent])
            .route(
                "r",
                &[
                    rule("/", &to("a")),
                    late.replace("BACKEND", &to("b")),
                    attempt.replace("BACKEND", &to("b")),
                ],
            )
            .manifest("plugin", &target)
            .start()
            .await;
        let reply = gateway.get("/").await;
        assert_eq!((reply.status(), reply.header("x-status")), (502, Some("502")), "{target}");
        let seen = target.contains("HTTPRoute").then_some("504");
        for path in ["/late", "/attempt"] {
            let reply = gateway.get(path).await;
            assert_eq!((reply.status(), reply.header("x-status")), (504, seen), "{path}: {target}");
        }
    }
}

#[tokio::test]
async fn plugins_of_a_gateway_see_what_no_route_is_for() {
    let backend = Backend::echo("a").await;
    let gateway = World::new()
        .service("a", &[&backend])
        .route("r", &[rule("/a", &to("a"))])
        .manifest("plugin", &seeing(API, "Gateway", "demo"))
        .start()
        .await;
    let reply = gateway.get("/a").await;
    assert_eq!((reply.status(), reply.all("x-status")), (200, vec!["200"]));
    let reply = gateway.get("/nobody").await;
    assert_eq!((reply.status(), reply.all("x-status")), (404, vec!["404"]));
    assert_eq!(reply.text(), "no route matches this request\n");
    let reply = gateway.get("/callback").await;
    assert_eq!((reply.status(), reply.all("x-status"), reply.text()), (202, vec!["202"], ":path".to_owned()));

    gateway.edit("plugin", &seeing(API, "HTTPRoute", "r")).await;
    let reply = gateway.get("/nobody").await;
    assert_eq!(
        (reply.status(), reply.all("x-status")),
        (404, Vec::new()),
        "one of a route sees its requests"
    );
}

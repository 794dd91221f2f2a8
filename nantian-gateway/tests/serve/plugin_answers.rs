//! What plugins see of answers that the gateway gives itself.

use std::future::pending;

use crate::support::{
    Backend, Port, World, eventually,
    limits::{limits, statuses},
    plugin, rule, to,
};

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

/// Looks at bodies, counts responses and ends, and says in the response header `x-details` why it is.
const TELLING: &str = r#"(module
    (import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_add_header_map_value" (func $add_header (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 64) "response\00code_details")
    (data (i32.const 96) "x-details")
    (data (i32.const 112) "responses")
    (data (i32.const 128) "ends")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (drop (call $define (i32.const 0) (i32.const 112) (i32.const 9) (i32.const 8)))
        (drop (call $define (i32.const 0) (i32.const 128) (i32.const 4) (i32.const 12)))
        (i32.const 1))
    (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 0))
    (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
        (drop (call $increment (i32.load (i32.const 8)) (i64.const 1)))
        (drop (call $property (i32.const 64) (i32.const 21) (i32.const 0) (i32.const 4)))
        (drop (call $add_header (i32.const 2) (i32.const 96) (i32.const 9)
            (i32.load (i32.const 0)) (i32.load (i32.const 4))))
        (i32.const 0))
    (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (i32.const 0))
    (func (export "proxy_on_log") (param i32)
        (drop (call $increment (i32.load (i32.const 12)) (i64.const 1)))))"#;

fn telling(backend: &Backend) -> World {
    let module = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, wat::parse_str(TELLING).unwrap());
    World::of_backend(backend).manifest("plugin", &plugin("r", &format!("inline: {module}")))
}

#[tokio::test]
async fn denial_of_a_limit_is_not_told_as_an_answer_of_the_backend() {
    let backend = Backend::echo("a").await;
    let limits = limits("limits", "kind: HTTPRoute, name: r", "requestsPerMinute: 1");
    let gateway = telling(&backend).manifest("limits", &limits).start().await;
    for (status, details) in [(200, "via_upstream"), (429, "request_rate_limited")] {
        let reply = gateway.get("/").await;
        assert_eq!((reply.status(), reply.header("x-details")), (status, Some(details)));
    }
}

#[tokio::test]
async fn error_of_a_backend_has_its_length_and_is_not_told_as_an_answer_of_the_backend() {
    let closed = Port::reserve();
    let gateway = telling(&Backend::at(closed.address())).start().await;
    let reply = gateway.get("/").await;
    let length = reply.text().len().to_string();
    assert_eq!((reply.status(), reply.header("content-length")), (502, Some(&*length)));
    let details = "upstream_reset_before_response_started{remote_connection_failure}";
    assert_eq!(reply.header("x-details"), Some(details));
}

#[tokio::test]
async fn client_that_leaves_in_the_middle_of_its_upload_is_answered_nothing() {
    let backend = Backend::echo("a").await;
    let gateway = telling(&backend).start().await;
    let mut wire = gateway.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nhalf").await;
    drop(wire);
    let count = async |name: &str| {
        gateway
            .metric(&format!("nantian_wasm_guest_counter_total{{plugin=\"demo/r\",name=\"{name}\"}}"))
            .await
    };
    eventually("it is over", async || count("ends").await == Some(1.0)).await;
    assert_eq!(count("responses").await.unwrap_or_default(), 0.0);
    assert_eq!((gateway.get("/").await.status(), count("responses").await), (200, Some(1.0)));
}

/// Answers 418 in the place of each refusal, or fails at it.
const REPLACING: &str = r#"(module
    (import "env" "proxy_get_header_map_value" (func $get_header (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_send_local_response"
        (func $respond (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 64) ":status")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
        (drop (call $get_header (i32.const 2) (i32.const 64) (i32.const 7) (i32.const 0) (i32.const 4)))
        (if (i32.eq (i32.load8_u (i32.load (i32.const 0))) (i32.const 52)) (then REPLACE))
        (i32.const 0)))"#;

#[tokio::test]
async fn denial_in_whose_place_a_plugin_answers_costs_nothing_around_it() {
    let backend = Backend::echo("a").await;
    let answer =
        "(drop (call $respond (i32.const 418) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 0) (i32.const -1)))";
    for (replace, status) in [(answer, 418), ("unreachable", 503)] {
        let module = wat::parse_str(REPLACING.replace("REPLACE", replace)).unwrap();
        let module = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, module);
        let plugin = plugin("r", &format!("inline: {module}")).replace(
            "group: gateway.networking.k8s.io, kind: HTTPRoute, name: r",
            "group: '', kind: Service, name: a",
        );
        let gateway = World::new()
            .service("a", &[&backend])
            .service("b", &[&backend])
            .route("r", &[rule("/", &to("a")), rule("/b", &to("b"))])
            .manifest("plugin", &plugin)
            .manifest("around", &limits("around", "kind: HTTPRoute, name: r", "requestsPerMinute: 3"))
            .manifest("within", &limits("within", "kind: Service, name: a", "requestsPerMinute: 1"))
            .start()
            .await;
        assert_eq!(statuses(&gateway, "/", 2).await, [200, status]);
        assert_eq!(statuses(&gateway, "/b", 3).await, [200, 200, 429], "one of three was used");
    }
}

//! A gateway of some namespaces of a cluster.

use serde_json::json;

use super::{ApiServer, Cluster, apply_gateway, condition, route};
use crate::support::{Backend, Port, World, eventually, manifests, rule, to};

/// An HTTPRoute of the Gateway `demo` in this namespace, which serves the Service `a` there.
fn route_in(namespace: &str, path: &str) -> String {
    let route = manifests::route(namespace, "", &[rule(path, &to("a"))]);
    let route = route.replace("namespace: demo", &format!("namespace: {namespace}"));
    route.replace("[{name: demo}]", "[{name: demo, namespace: demo}]")
}

#[tokio::test]
async fn nothing_is_read_outside_of_the_namespaces_that_are_watched() {
    let backend = Backend::echo("a").await;
    let (server, port) = (ApiServer::start().await, Port::reserve());
    let listener = port.listener("http", "protocol: HTTP, allowedRoutes: {namespaces: {from: All}}");
    server.apply(&manifests::gateway(&[listener]));
    for namespace in ["demo", "second", "hidden"] {
        let service = manifests::service("a", "http", &[&backend]);
        server.apply(&service.replace("namespace: demo", &format!("namespace: {namespace}")));
        server.apply(&route_in(namespace, &format!("/{namespace}")));
    }
    let gateway = World::of_cluster(port, &server.kubeconfig());
    let gateway = gateway.options(&["--watch-namespaces", "demo,second"]).start().await;
    let cluster = Cluster { server, gateway };
    for (path, status) in [("/demo", 200), ("/second", 200), ("/hidden", 404)] {
        assert_eq!(cluster.gateway.get(path).await.status(), status, "{path}");
    }
    for all in ["/api/v1/secrets", "/api/v1/services", "/apis/gateway.networking.k8s.io/v1/httproutes"] {
        assert_eq!(cluster.server.requests(all), 0, "{all}");
    }
    // What is listed anew in one of them says nothing about the other one.
    cluster.server.expire();
    cluster.server.apply(&route_in("demo", "/new"));
    cluster.becomes("/new", 200).await;
    cluster.server.apply(&route_in("second", "/newer"));
    cluster.becomes("/newer", 200).await;
    for (path, status) in [("/new", 200), ("/newer", 200), ("/demo", 404), ("/second", 404)] {
        assert_eq!(cluster.gateway.get(path).await.status(), status, "{path}");
    }
}

#[test]
fn files_are_not_those_of_some_namespaces() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_nantian-gateway"))
        .args(["run", "--manifests", ".", "--admin-addr", "none", "--watch-namespaces", "demo"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--watch-namespaces cannot be used with --manifests"), "{said}");
}

#[tokio::test]
async fn nothing_of_a_namespace_is_served_nor_taken_back_before_all_of_its_kinds_may_be_read() {
    let (backend, server) = (Backend::echo("a").await, ApiServer::start().await);
    server.apply(&nantian_crd::crds_yaml());
    server.set_hidden(&["wasmplugins"]);
    let port = apply_gateway(&server);
    server.apply(&manifests::service("a", "http", &[&backend]));
    server.apply(&route(&rule("/", &to("a"))));
    let controller = "gateway.nantian.dev/gateway-controller";
    let said = json!({
        "parents": [{ "parentRef": { "name": "demo" }, "controllerName": controller, "conditions": [] }],
    });
    server.set_status("httproutes", "demo", "all", said.clone());
    let gateway = World::of_cluster(port, &server.kubeconfig());
    let gateway = gateway.options(&["--watch-namespaces", "demo"]).start().await;
    let withheld = async || gateway.config().await["withheld"].take();
    assert_eq!(withheld().await, json!(["demo"]));
    // What is written with the first one is there with the second one.
    for _ in 0..2 {
        server.set_status("gatewayclasses", "", "nantian", json!({}));
        eventually("it writes", async || {
            condition(&server.status("gatewayclasses", "", "nantian"), "Accepted")["status"] == "True"
        })
        .await;
    }
    assert_eq!(server.status("httproutes", "demo", "all"), said);
    gateway.log.more("nothing new of namespace demo is served", 0).await;
    server.set_hidden(&[]);
    eventually("it is served", async || withheld().await == json!([])).await;
    assert_eq!(gateway.get("/").await.status(), 200);
    gateway.log.more("all kinds of a namespace are read", 0).await;
}

#[tokio::test]
async fn nothing_new_of_a_namespace_is_served_while_one_of_its_kinds_may_not_be_read() {
    let (backend, other) = (Backend::echo("a").await, Backend::echo("b").await);
    let cluster = Cluster::start_with(&backend, &["--watch-namespaces", "demo"]).await;
    assert_eq!(cluster.gateway.get("/").await.status(), 200);
    let withheld = async || cluster.gateway.config().await["withheld"].take();
    cluster.server.set_hidden(&["backendtlspolicies"]);
    // Every watch ends.
    cluster.server.expire();
    eventually("it is withheld", async || withheld().await == json!(["demo"])).await;
    cluster.server.apply(&route(&rule("/new", &to("a"))));
    cluster.server.apply(&manifests::service("a", "http", &[&other]));
    eventually("endpoints change, and the route does not", async || {
        cluster.gateway.get("/").await.header("x-backend") == Some("b")
    })
    .await;
    cluster.server.set_hidden(&[]);
    cluster.becomes("/", 404).await;
    assert_eq!(cluster.gateway.get("/new").await.status(), 200);
}

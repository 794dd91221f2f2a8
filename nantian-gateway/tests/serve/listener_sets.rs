//! Listeners that others add to a Gateway.

use crate::support::{Backend, Port, Running, Wire, World, manifests, rule, to};

fn set(name: &str, namespace: &str, listeners: &[String]) -> String {
    let listeners = listeners.join(", ");
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{parentRef: {{name: demo, namespace: demo}}, listeners: [{listeners}]}}
"
    )
}

fn route(name: &str, parents: &str, host: &str, service: &str) -> String {
    let route = manifests::route(name, &format!("hostnames: [{host}],"), &[rule("/", &to(service))]);
    route.replace("parentRefs: [{name: demo}]", &format!("parentRefs: [{parents}]"))
}

async fn at(port: std::net::SocketAddr, host: &str) -> (u16, Option<String>) {
    let reply = Wire::connect(port).await.ask(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
    (reply.status(), reply.header("x-backend").map(str::to_owned))
}

async fn reason(gateway: &Running, object: &str, kind: &str) -> String {
    gateway.condition(object, kind).await["reason"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn routes_are_served_on_the_listeners_of_the_set_that_they_name() {
    let (a, b) = (Backend::echo("a").await, Backend::echo("b").await);
    let (port, more) = (Port::reserve(), Port::reserve());
    let open = |from: &str| {
        let gateway = manifests::gateway(&[port.listener("http", "protocol: HTTP, hostname: own.example")]);
        format!("{gateway}  allowedListeners: {{namespaces: {{from: {from}}}}}\n")
    };
    let (same, none) = (open("Same"), open("None"));
    let listeners = [
        port.listener("shared", "protocol: HTTP, hostname: set.example"),
        more.listener("more", "protocol: HTTP"),
        port.listener("taken", "protocol: HTTP, hostname: own.example"),
    ];
    let parent = "{group: gateway.networking.k8s.io, kind: ListenerSet, name: extra}";
    let elsewhere =
        set("extra", "elsewhere", &[more.listener("http", "protocol: HTTP, hostname: e.example")]);
    let more = more.address();
    let gateway = World::with_listeners(port, &[])
        .manifest("gateway", &same)
        .manifest("set", &set("extra", "demo", &listeners))
        .manifest("elsewhere", &elsewhere)
        .service("a", &[&a])
        .service("b", &[&b])
        .manifest("own", &route("own", "{name: demo}", "'*.example'", "a"))
        .manifest("extra", &route("extra", parent, "'*.example'", "b"))
        .manifest("absent", &route("absent", "{name: demo, sectionName: shared}", "c.example", "a"))
        .start()
        .await;
    let own = gateway.address();
    let from = |name: &str| (200, Some(name.to_owned()));
    assert_eq!(at(own, "own.example").await, from("a"));
    assert_eq!(at(own, "set.example").await, from("b"));
    assert_eq!(at(more, "any.example").await, from("b"));
    assert_eq!(at(own, "other.example").await.0, 404);
    assert_eq!(reason(&gateway, "ListenerSet elsewhere/extra", "Accepted").await, "NotAllowed");
    assert_eq!(reason(&gateway, "HTTPRoute demo/absent", "Accepted").await, "NoMatchingParent");
    let config = gateway.config().await;
    let status = &config["conditions"]["ListenerSet demo/extra"];
    assert_eq!(status["listeners"][2]["conditions"][1]["reason"], "HostnameConflict");
    assert_eq!(status["listeners"][0]["attachedRoutes"], 1);
    assert_eq!(config["conditions"]["Gateway demo/demo"]["attachedListenerSets"], 1);
    let limit = "
apiVersion: gateway.nantian.dev/v1alpha1
kind: TokenPolicy
metadata: {name: once, namespace: demo}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: ListenerSet, name: extra, sectionName: shared}]
  requestsPerMinute: 1
";
    gateway.edit("limit", limit).await;
    let mut of_set = Vec::new();
    for host in ["set.example", "set.example", "own.example"] {
        of_set.push(at(own, host).await.0);
    }
    assert_eq!(
        (of_set, at(more, "any.example").await.0),
        (vec![200, 429, 200], 200),
        "one listener of the set"
    );
    gateway.edit("gateway", &none).await;
    assert_eq!(at(own, "set.example").await.0, 404);
    assert_eq!(at(own, "own.example").await, from("a"));
}

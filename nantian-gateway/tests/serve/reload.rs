//! Configuration that changes under load.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use tokio::{net::TcpStream, time::Instant};

use crate::support::{
    Backend, Port, Running, Wire, World, after, eventually, gateway, limits::limits, plugin, rule, to,
};

/// A rule whose responses say which version of it served them.
fn versioned(version: usize) -> String {
    let filter = format!(
        "filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: x-version, value: '{version}'}}]}}}}],"
    );
    rule("/edited", &format!("{filter} {}", to("a")))
}

/// Clients that ask one after the other until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    async fn start(gateway: &Running, clients: usize) -> Self {
        let (stop, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut tasks = Vec::new();
        for client in 0..clients {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            let mut wire = gateway.connect().await;
            let path = if client % 2 == 0 { "/edited" } else { "/other" };
            tasks.push(tokio::spawn(async move {
                while !stop.load(Relaxed) {
                    let reply = wire.get(path).await;
                    assert_eq!(reply.status(), 200, "{path}: {reply:?}");
                    served.fetch_add(1, Relaxed);
                }
            }));
        }
        Self { stop, served, clients: tasks }
    }

    /// Stops, and gives the number of requests, each of which was served.
    async fn stop(self) -> usize {
        self.stop.store(true, Relaxed);
        for client in self.clients {
            client.await.expect("no request fails");
        }
        self.served.load(Relaxed)
    }
}

async fn version(wire: &mut Wire) -> usize {
    wire.get("/edited").await.header("x-version").unwrap().parse().unwrap()
}

async fn start(backend: &Backend) -> Running {
    World::new()
        .service("a", &[backend])
        .route("edited", &[versioned(0)])
        .route("other", &[rule("/other", &to("a"))])
        .start()
        .await
}

#[tokio::test]
async fn edits_under_load_lose_no_request_and_most_show_within_a_second() {
    let backend = Backend::echo("a").await;
    let gateway = start(&backend).await;
    let load = Load::start(&gateway, 64).await;
    let mut wire = gateway.connect().await;
    let mut took = Vec::new();
    for edit in 1..=20 {
        let begun = Instant::now();
        gateway.edit_route("edited", &[versioned(edit)]).await;
        assert_eq!(version(&mut wire).await, edit);
        took.push(begun.elapsed());
    }
    let served = load.stop().await;
    assert!(served > 1000, "{served} requests are no load");
    took.sort_unstable();
    // A machine that is busy with other tests may hold up some of them.
    assert!(took[10] < Duration::from_secs(1), "20 edits took {took:?} to show");
}

#[tokio::test]
async fn a_broken_edit_is_reported_and_changes_nothing() {
    let backend = Backend::echo("a").await;
    let gateway = start(&backend).await;
    let load = Load::start(&gateway, 8).await;
    let mut wire = gateway.connect().await;
    let unreadable = "apiVersion: [";
    let unknown_field = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: edited, namespace: demo}
spec: {parentRefs: [{name: demo}], rulez: []}
";
    let impossible = format!("{{timeouts: {{request: 1s, backendRequest: 2s}}, {}}}", to("a"));
    for (edit, broken) in [unreadable, unknown_field].into_iter().enumerate() {
        gateway.edit("route-edited", broken).await;
        assert_eq!(version(&mut wire).await, edit, "the last good version serves");
        assert_eq!(gateway.metric("nantian_config_faults").await, Some(1.0));
        eventually("the fault is shown", async || {
            let faults = gateway.config().await["faults"].to_string();
            faults.contains("route-edited.yaml")
        })
        .await;
        gateway.edit_route("edited", &[versioned(edit + 1)]).await;
        assert_eq!(version(&mut wire).await, edit + 1);
        assert_eq!(gateway.metric("nantian_config_faults").await, Some(0.0));
    }
    gateway.edit_route("edited", &[impossible]).await;
    assert_eq!(version(&mut wire).await, 2, "what the translator refuses is taken back");
    assert_eq!(gateway.metric("nantian_config_faults").await, Some(1.0));
    let accepted = gateway.condition("HTTPRoute demo/edited", "Accepted").await;
    assert_eq!(accepted["status"], "False");
    let message = accepted["message"].as_str().unwrap();
    assert!(message.ends_with("a gateway that starts later does not have it"), "{message}");
    assert_eq!(gateway.metric("nantian_config_reloads_total{result=\"with_faults\"}").await, Some(3.0));
    gateway.edit_route("edited", &[versioned(2)]).await;
    assert_eq!(gateway.metric("nantian_config_faults").await, Some(0.0), "the author has taken it back, too");
    assert_eq!(gateway.condition("HTTPRoute demo/edited", "Accepted").await["status"], "True");
    load.stop().await;
}

#[tokio::test]
async fn what_is_told_of_an_edit_that_was_taken_back_stays_true_of_what_serves() {
    let backend = Backend::echo("a").await;
    let running = start(&backend).await;
    let good = gateway(&[running.listener("http", "protocol: HTTP")]);
    running
        .edit("gateway", &good.replace("type: IPAddress, value: 127.0.0.1", "type: Hostname, value: h"))
        .await;
    let impossible = format!("{{timeouts: {{request: 1s, backendRequest: 2s}}, {}}}", to("a"));
    running.edit_route("edited", &[impossible]).await;
    let routes = async || {
        let config = running.config().await;
        config["conditions"]["Gateway demo/demo"]["listeners"][0]["attachedRoutes"].as_u64().unwrap()
    };
    assert_eq!(running.condition("Gateway demo/demo", "Accepted").await["reason"], "UnsupportedAddress");
    assert_eq!(running.condition("Gateway demo/demo", "Programmed").await["status"], "True");
    assert_eq!(running.condition("HTTPRoute demo/edited", "ResolvedRefs").await["status"], "True");
    assert_eq!(routes().await, 2);

    running.edit_route("third", &[rule("/third", &to("a"))]).await;
    assert_eq!(routes().await, 3);
    running.edit("service-a", "").await;
    assert_eq!(running.condition("HTTPRoute demo/edited", "ResolvedRefs").await["reason"], "BackendNotFound");
    assert_eq!(running.condition("HTTPRoute demo/edited", "Accepted").await["reason"], "UnsupportedValue");
    assert_eq!(running.condition("Gateway demo/demo", "Accepted").await["reason"], "UnsupportedAddress");

    running.edit("gateway", &good).await;
    assert_eq!(running.condition("Gateway demo/demo", "Accepted").await["status"], "True");
}

#[tokio::test]
async fn endpoints_change_alone_while_a_plugin_cannot_be_served() {
    let (first, second) = (Backend::echo("first").await, Backend::echo("second").await);
    let module = format!("inline: {}", BASE64_STANDARD.encode("no module"));
    let gateway = World::new()
        .service("a", &[&first])
        .route("r", &[rule("/guarded", &to("a"))])
        .route("other", &[rule("/", &to("a"))])
        .manifest("plugin", &plugin("r", &module))
        .start()
        .await;
    assert_eq!(gateway.condition("WasmPlugin demo/r", "Programmed").await["reason"], "ModuleInvalid");
    let generation = gateway.config().await["generation"].clone();
    gateway.edit_service("a", &[&second]).await;
    assert_eq!(gateway.get("/").await.header("x-backend"), Some("second"));
    assert_eq!(gateway.config().await["generation"], generation, "no route is compiled again");
}

#[tokio::test]
async fn no_route_is_compiled_again_for_limits_that_nothing_refers_to() {
    let backend = Backend::echo("a").await;
    let gateway = World::of_backend(&backend).start().await;
    let generation = gateway.config().await["generation"].clone();
    let limits = |spec| limits("limits", "kind: HTTPRoute, name: absent", spec);
    for edit in [&*limits("requestsPerMinute: 1"), &*limits("requestsPerMinute: 2"), ""] {
        gateway.edit("limits", edit).await;
        assert_eq!(gateway.config().await["generation"], generation, "{edit}");
    }
}

#[tokio::test]
async fn routes_and_ports_come_and_go() {
    let backend = Backend::echo("a").await;
    let gateway = start(&backend).await;
    let mut wire = gateway.connect().await;
    assert_eq!(wire.get("/other").await.status(), 200);
    gateway.edit("route-other", "").await;
    assert_eq!(wire.get("/other").await.status(), 404);

    let (old, new) = (gateway.listener("http", "protocol: HTTP"), Port::reserve());
    gateway.edit_listeners(&[old, new.listener("new", "protocol: HTTP")]).await;
    let mut second = Wire::connect(new.address()).await;
    assert_eq!(second.get("/edited").await.status(), 200);
    assert_eq!(wire.get("/edited").await.status(), 200, "the old port is not touched");
    gateway.edit_listeners(&[new.listener("new", "protocol: HTTP")]).await;
    let refused = async || TcpStream::connect(gateway.address()).await.is_err();
    eventually("nobody listens there any more", refused).await;
    assert_eq!(second.get("/edited").await.status(), 200);
}

#[tokio::test]
async fn an_edit_that_takes_away_what_others_refer_to_is_told_once_in_the_log() {
    let backend = Backend::echo("a").await;
    let gateway = start(&backend).await;
    let absent = "HTTPRoute/demo/edited: spec.rules[0].backendRefs[0].name: Service demo/b does not exist";
    gateway.edit_route("edited", &[rule("/edited", &to("b"))]).await;
    gateway.log.more("does not exist", 0).await;
    gateway.edit_route("other", &[rule("/elsewhere", &to("a"))]).await;
    let told = gateway.log.text();
    assert_eq!(told.matches("Service demo/b does not exist").count(), 1, "{absent}: {told}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_and_tried_again() {
    let backend = Backend::echo("a").await;
    let gateway = start(&backend).await;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let (free, listener) = (
        gateway.listener("http", "protocol: HTTP"),
        format!("{{name: b, port: {}, protocol: HTTP}}", address.port()),
    );
    gateway.edit_listeners(&[listener, free]).await;
    assert_eq!(gateway.get("/edited").await.status(), 200, "the other port serves");
    eventually("the truth is told", async || {
        gateway.condition("Gateway demo/demo", "Programmed").await["status"] == "False"
            || gateway.config().await["conditions"].to_string().contains("PortUnavailable")
    })
    .await;
    let accepted = gateway.condition("Gateway demo/demo", "Accepted").await;
    assert_eq!(accepted["message"], "1 of 2 listeners valid", "the Gateway says what its listeners say");

    drop(taken);
    gateway.log.more("the port is served now", 0).await;
    assert_eq!(Wire::connect(address).await.get("/edited").await.status(), 200);
    let config = gateway.config().await;
    let conditions = config["conditions"].to_string();
    assert!(!conditions.contains("AddressNotUsable") && !conditions.contains("PortUnavailable"), "{config}");

    gateway.signal("HUP");
    gateway.log.more("SIGHUP", 0).await;
    assert_eq!(gateway.get("/edited").await.status(), 200);
}

#[tokio::test]
async fn a_change_of_address_loses_no_connection() {
    let backend = Backend::echo("a").await;
    let running = World::of_backend(&backend).start().await;
    let stop = Arc::<AtomicBool>::default();
    let newcomers: Vec<_> = (0..8)
        .map(|_| {
            let (stop, address) = (Arc::clone(&stop), running.address());
            tokio::spawn(async move {
                let mut served = 0;
                while !stop.load(Relaxed) {
                    let reply = Wire::connect(address).await.get("/").await;
                    assert_eq!(reply.status(), 200);
                    served += 1;
                }
                served
            })
        })
        .collect();
    let mut old = running.connect().await;
    let one = gateway(&[running.listener("http", "protocol: HTTP")]);
    let all = one.replace("addresses: [{type: IPAddress, value: 127.0.0.1}]", "");
    for manifest in [&all, &one, &all, &one] {
        running.edit("gateway", manifest).await;
        assert_eq!(old.get("/").await.status(), 200, "a connection that was there is served on");
        after(Duration::from_millis(400)).await;
    }
    stop.store(true, Relaxed);
    for newcomer in newcomers {
        assert!(newcomer.await.expect("no connection is lost") > 0);
    }
}

//! Gateways that are reached through a Service of their own.

use serde_json::{Value, json};

use super::{ApiServer, condition, route};
use crate::support::{Backend, Message, Port, Running, World, eventually, manifests, rule, to};

/// The condition `Programmed` of the Gateway `demo`: its status and its reason.
fn programmed(server: &ApiServer) -> (Value, Value) {
    let status = server.status("gateways", "demo", "demo");
    let programmed = condition(&status, "Programmed");
    (programmed["status"].clone(), programmed["reason"].clone())
}

/// The Gateway `demo` with a listener on port 80 and no address.
fn gateway(infrastructure: &str) -> String {
    let gateway = manifests::gateway(&["{name: http, port: 80, protocol: HTTP}".to_owned()]);
    gateway.replace("addresses: [{type: IPAddress, value: 127.0.0.1}]", infrastructure)
}

/// A cluster whose Gateway has a Service that leads to `port`, and two replicas that the Service
/// `nantian-gateway` finds.
async fn start(backend: &Backend, port: Port) -> (ApiServer, Running) {
    let server = ApiServer::start().await;
    server.apply(&gateway("infrastructure: {labels: {team: a}}"));
    server.apply(&manifests::service("a", "http", &[backend]));
    server.apply(&route(&rule("/", &to("a"))));
    let own = manifests::service("nantian-gateway", "http", &[backend, backend]);
    server.apply(&own.replace("namespace: demo", "namespace: default"));
    let uid = server.get("gateways", "demo", "demo").unwrap()["metadata"]["uid"].clone();
    // As an earlier leader left it: which ports are free on this machine is not up to the test.
    let number = port.address().port();
    server.apply(&format!(
        "
apiVersion: v1
kind: Service
metadata:
  name: demo-nantian
  namespace: demo
  labels: {{app.kubernetes.io/managed-by: nantian-gateway}}
  ownerReferences: [{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, name: demo, uid: {uid}}}]
spec: {{type: LoadBalancer, ports: [{{name: tcp-80, port: 80, targetPort: {number}, protocol: TCP}}]}}
"
    ));
    let world = World::of_cluster(port, &server.kubeconfig());
    let running = world.options(&["--gateway-service", "LoadBalancer"]).start().await;
    (server, running)
}

#[tokio::test]
async fn a_gateway_is_reached_through_its_service_and_tells_the_address_of_that() {
    let backend = Backend::echo("a").await;
    let (server, running) = start(&backend, Port::reserve_behind_service()).await;
    eventually("the route is served", async || running.get("/").await.status() == 200).await;
    eventually("there is no address yet", async || {
        programmed(&server) == (json!("False"), json!("AddressNotAssigned"))
    })
    .await;
    let slice = || server.get("endpointslices", "demo", "demo-nantian-ipv4");
    eventually("the Service leads somewhere", async || slice().is_some()).await;
    let slice = slice().unwrap();
    assert_eq!(slice["endpoints"].as_array().map(Vec::len), Some(2));
    assert_eq!(slice["ports"][0]["port"], running.address().port());
    eventually("the Service has the label", async || {
        server.get("services", "demo", "demo-nantian").unwrap()["metadata"]["labels"]["team"] == "a"
    })
    .await;

    let ingress = json!([{ "ip": "192.0.2.7" }, { "hostname": "lb.example.com" }]);
    server.set_status("services", "demo", "demo-nantian", json!({ "loadBalancer": { "ingress": ingress } }));
    eventually("the address is told", async || programmed(&server).0 == "True").await;
    let addresses = json!([
        { "type": "IPAddress", "value": "192.0.2.7" }, { "type": "Hostname", "value": "lb.example.com" },
    ]);
    assert_eq!(server.status("gateways", "demo", "demo")["addresses"], addresses);

    server.apply(&gateway(""));
    eventually("the label is gone", async || {
        server.get("services", "demo", "demo-nantian").unwrap()["metadata"]["labels"]["team"].is_null()
    })
    .await;
    let writes = server.writes();
    let idle: Vec<_> = writes.iter().filter(|write| !write.has_changed).collect();
    // One may be written before the news of the one before it has come.
    assert!(idle.len() <= 2 && !idle.iter().any(|write| write.path.ends_with("/status")), "{idle:?}");
    for (named, told) in [("192.0.2.7", "Programmed"), ("192.0.2.8", "AddressNotUsable")] {
        let before = server.get("services", "demo", "demo-nantian").unwrap();
        server.apply(&gateway(&format!("addresses: [{{value: {named}}}]")));
        eventually("the Service asks for the address", async || {
            let service = server.get("services", "demo", "demo-nantian").unwrap();
            service["metadata"]["uid"] == before["metadata"]["uid"]
                && service["spec"]["loadBalancerIP"] == named
        })
        .await;
        eventually("it is told whether it has it", async || programmed(&server).1 == told).await;
        assert_eq!(running.get("/").await.status(), 200, "it is reached through its Service all the same");
    }
}

#[tokio::test]
async fn clients_are_sent_to_the_port_that_they_know() {
    let backend = Backend::echo("a").await;
    let (server, running) = start(&backend, Port::reserve_behind_service()).await;
    let redirect = "filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /new}}}]";
    server.apply(&route(&rule("/old", redirect)));
    let answer: fn(&Message) -> Option<&str> = |answer| answer.header("location");
    eventually("the redirect is served", async || {
        answer(&running.ask("GET /old HTTP/1.1\r\nhost: example.com\r\n\r\n").await)
            == Some("http://example.com/new")
    })
    .await;
}

#[tokio::test]
async fn a_gateway_whose_address_nobody_knows_is_not_programmed() {
    let backend = Backend::echo("a").await;
    let server = ApiServer::start().await;
    let port = Port::reserve();
    let listener = port.listener("http", "protocol: HTTP");
    let gateway = manifests::gateway(&[listener]);
    server.apply(&gateway.replace("addresses: [{type: IPAddress, value: 127.0.0.1}]", ""));
    server.apply(&manifests::service("a", "http", &[&backend]));
    server.apply(&route(&rule("/", &to("a"))));
    let running = World::of_cluster(port, &server.kubeconfig()).start().await;
    assert_eq!(running.get("/").await.status(), 200, "it is served all the same");
    eventually("that is told", async || programmed(&server) == (json!("False"), json!("AddressNotAssigned")))
        .await;
    assert_eq!(server.status("gateways", "demo", "demo")["addresses"], json!([]));
}

#[tokio::test]
async fn gateways_on_all_interfaces_tell_the_addresses_that_they_are_told() {
    let backend = Backend::echo("a").await;
    let server = ApiServer::start().await;
    let port = Port::reserve();
    let gateway = manifests::gateway(&[port.listener("http", "protocol: HTTP")]);
    let asking =
        |addresses: &str| gateway.replace("addresses: [{type: IPAddress, value: 127.0.0.1}]", addresses);
    server.apply(&asking(""));
    server.apply(&manifests::service("a", "http", &[&backend]));
    server.apply(&route(&rule("/", &to("a"))));
    let world = World::of_cluster(port, &server.kubeconfig());
    let running = world.options(&["--gateway-status-address", "192.0.2.7,edge.example.com"]).start().await;
    let told = json!([
        { "type": "IPAddress", "value": "192.0.2.7" }, { "type": "Hostname", "value": "edge.example.com" },
    ]);
    let own = json!([{ "type": "IPAddress", "value": "127.0.0.1" }]);
    for (asked, addresses) in [
        ("", &told),
        ("addresses: [{type: IPAddress, value: 127.0.0.1}]", &own),
        ("addresses: [{type: IPAddress}]", &told),
    ] {
        server.apply(&asking(asked));
        eventually("the addresses are told", async || {
            server.status("gateways", "demo", "demo")["addresses"] == *addresses
        })
        .await;
        eventually("it is Programmed", async || programmed(&server).0 == "True").await;
        assert_eq!(running.get("/").await.status(), 200, "{asked}");
    }
}

#[tokio::test]
async fn a_service_that_the_server_refuses_is_told_once_and_not_tried_at_once() {
    let server = ApiServer::start().await;
    server.refuse_mixed_protocols();
    let listeners = |protocol: &str| {
        let gateway = gateway("");
        gateway.replace(
            "protocol: HTTP}]",
            &format!("protocol: HTTP}}, {{name: l4, port: 81, protocol: {protocol}}}]"),
        )
    };
    server.apply(&listeners("UDP"));
    let world = World::of_cluster(Port::reserve(), &server.kubeconfig());
    let running = world.options(&["--gateway-service", "LoadBalancer"]).start().await;
    let line = running.log.more("Service demo/demo-nantian cannot be written", 0).await;
    assert!(line.contains("may not contain a mix of protocols"), "{line}");
    eventually("there is an event of the Gateway", async || {
        server.notes("demo").iter().any(|note| note.contains("may not contain a mix of protocols"))
    })
    .await;
    let tried = server.requests("/api/v1/namespaces/demo/services/demo-nantian");
    // Something else is written meanwhile, more than once.
    for round in 0..3 {
        server.apply(&route(&rule(&format!("/{round}"), &to("a"))));
        eventually("a status is written", async || {
            let status = server.status("httproutes", "demo", "all");
            status["parents"][0]["conditions"][0]["observedGeneration"] == round + 1
        })
        .await;
    }
    assert!(server.requests("/api/v1/namespaces/demo/services/demo-nantian") <= tried + 3);
    assert_eq!(running.log.count("cannot be written"), 1);
    server.apply(&listeners("TCP"));
    eventually("it is there", async || server.get("services", "demo", "demo-nantian").is_some()).await;
}

#[tokio::test]
async fn an_edit_of_a_gateway_that_is_refused_costs_it_no_service() {
    let backend = Backend::echo("a").await;
    let (server, running) = start(&backend, Port::reserve_behind_service()).await;
    eventually("the Service leads somewhere", async || {
        server.get("endpointslices", "demo", "demo-nantian-ipv4").is_some()
    })
    .await;
    let service = || server.get("services", "demo", "demo-nantian").unwrap();
    let mut wire = running.connect().await;
    assert_eq!(wire.get("/").await.status(), 200);
    let (before, deletions) = (service()["spec"].clone(), server.deletions("services"));
    for address in [
        "{type: Hostname, value: a.example.org}",
        "{type: example.com/Odd, value: x}",
        "{value: 192.0.2.7}, {value: 192.0.2.8}",
    ] {
        let edited = gateway(&format!("addresses: [{address}]")).replace("port: 80,", "port: 8080,");
        server.apply(&edited);
        eventually("the refusal is told", async || {
            let gateway = server.get("gateways", "demo", "demo").unwrap();
            let conditions = gateway["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let is_it = |condition: &Value| {
                condition["reason"] == "UnsupportedAddress"
                    && condition["observedGeneration"] == gateway["metadata"]["generation"]
            };
            conditions.iter().any(is_it)
        })
        .await;
        assert_eq!(wire.get("/").await.status(), 200);
        assert_eq!(running.get("/").await.status(), 200, "the port is open");
    }
    // A change of the Service that the leader takes back comes after anything else that it would do.
    let mut edited = service();
    edited["spec"]["type"] = "ClusterIP".into();
    edited["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    server.apply(&edited.to_string());
    eventually("the Service is brought back", async || service()["spec"]["type"] == "LoadBalancer").await;
    assert_eq!((service()["spec"].clone(), server.deletions("services")), (before, deletions));
}

#[tokio::test]
async fn a_replica_that_does_not_lead_keeps_the_endpoints_up_to_date() {
    let backend = Backend::echo("a").await;
    let (server, first) = start(&backend, Port::reserve_behind_service()).await;
    let endpoints = || {
        let slice = server.get("endpointslices", "demo", "demo-nantian-ipv4");
        slice.and_then(|slice| slice["endpoints"].as_array().map(Vec::len))
    };
    eventually("the Service leads to both", async || endpoints() == Some(2)).await;
    eventually("the first one leads", async || !server.all("leases").is_empty()).await;
    let world = World::of_cluster(Port::reserve(), &server.kubeconfig());
    let second = world.options(&["--gateway-service", "LoadBalancer"]).start().await;
    first.signal("KILL");
    let mut lease = server.all("leases").remove(0);
    lease["spec"]["leaseDurationSeconds"] = 3600.into();
    lease["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    server.apply(&lease.to_string());
    server.delete("endpointslices", "default", "nantian-gateway-1");
    eventually("the dead one is left out, though nobody leads", async || endpoints() == Some(1)).await;
    drop(second);
}

use std::sync::Arc;

use kube::Resource;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::*;
use crate::{
    controller::{ServiceKind, TrafficPolicy},
    source::{
        ByName, PublicAddress,
        kube::{Scope, placements},
    },
};

fn config() -> GatewayServiceConfig {
    GatewayServiceConfig {
        kind: ServiceKind::LoadBalancer,
        own_service: ObjectName::new("system", "nantian-gateway"),
        scope: Scope::default(),
        traffic_policy: TrafficPolicy::Local,
        load_balancer_class: None,
    }
}

fn put<T: DeserializeOwned + Resource>(objects: &mut ByName<T>, value: Value) {
    let object: T = serde_json::from_value(value).unwrap();
    let metadata = object.meta();
    let namespace = metadata.namespace.clone().unwrap_or_default();
    objects.insert(ObjectName::new(namespace, metadata.name.clone().unwrap()), Arc::new(object));
}

impl Plan {
    fn is_empty(&self) -> bool {
        self.services.is_empty() && self.slices.is_empty() && self.delete.is_empty()
    }
}

/// A class, two replicas in the namespace `system`, and the Gateway `web`.
fn world() -> Objects {
    let mut objects = Objects::default();
    let spec = json!({ "controllerName": objects.controller });
    let class = json!({ "metadata": { "name": "ours" }, "spec": spec });
    put(&mut objects.gateway_classes, class);
    let labels = json!({ (SERVICE_NAME_LABEL): "nantian-gateway" });
    put(
        &mut objects.endpoint_slices,
        json!({
            "metadata": { "name": "own-1", "namespace": "system", "labels": labels },
            "addressType": "IPv4",
            "endpoints": [
                {
                    "addresses": ["10.0.0.1"], "conditions": { "ready": true }, "nodeName": "n1", "hostname": "h",
                    "targetRef": { "kind": "Pod", "namespace": "system", "name": "own-a", "uid": "u" },
                },
                { "addresses": ["10.0.0.2"], "conditions": { "ready": false } },
            ],
            "ports": [{ "name": "admin", "port": 19080 }],
        }),
    );
    gateway(&mut objects, "web", &[("HTTP", 80), ("HTTPS", 443), ("HTTP", 80)], json!({}));
    objects
}

fn gateway(objects: &mut Objects, name: &str, listeners: &[(&str, u16)], infrastructure: Value) {
    let listener = |(index, (protocol, port)): (usize, &(&str, u16))| json!({ "name": format!("l{index}"), "protocol": protocol, "port": port });
    let listeners: Vec<Value> = listeners.iter().enumerate().map(listener).collect();
    put(
        &mut objects.gateways,
        json!({
            "metadata": { "name": name, "namespace": "demo", "uid": format!("uid-of-{name}") },
            "spec": { "gatewayClassName": "ours", "listeners": listeners, "infrastructure": infrastructure },
        }),
    );
}

/// Writes what is planned, as the API server would.
fn carry_out(objects: &mut Objects) -> Plan {
    // No more is known of the world.
    let plan = plan(&objects.for_gateway_services(), &config());
    for Desired { resource, name, body, .. } in plan.services.iter().chain(&plan.slices) {
        let mut body = body.clone();
        body["metadata"]["uid"] = format!("uid-of-{}", name.name).into();
        match resource.kind.as_str() {
            "Service" => put(&mut objects.services, body),
            _ => put(&mut objects.endpoint_slices, body),
        }
    }
    for name in &plan.delete {
        objects.services.remove(name);
    }
    see(objects);
    plan
}

/// Takes in where the Gateways are reached.
fn see(objects: &mut Objects) {
    let before = match &objects.placements {
        Placements::InFront(placed) => placed.clone(),
        _ => BTreeMap::new(),
    };
    objects.placements = Placements::InFront(placements(objects, &before, |_| Value::Null));
}

fn bound(objects: &Objects, gateway: &str) -> Vec<((Transport, u16), u16)> {
    let Placements::InFront(placed) = &objects.placements else { panic!("{:?}", objects.placements) };
    placed[&ObjectName::new("demo", gateway)].ports.iter().map(|(port, bound)| (*port, *bound)).collect()
}

#[test]
fn a_gateway_is_given_a_service_that_leads_to_the_replicas() {
    let mut objects = world();
    let first = carry_out(&mut objects);
    assert_eq!(
        (first.services.len(), first.slices.len()),
        (1, 0),
        "the slices name the Service that is not there yet"
    );
    let service = &first.services[0].body;
    assert_eq!(service["metadata"]["ownerReferences"][0]["uid"], "uid-of-web");
    assert_eq!(service["metadata"]["labels"]["gateway.networking.k8s.io/gateway-name"], "web");
    assert_eq!(service["spec"]["type"], "LoadBalancer");
    let [((Transport::Tcp, 80), http), ((Transport::Tcp, 443), https)] = bound(&objects, "web")[..] else {
        panic!("{:?}", bound(&objects, "web"));
    };
    assert!(http != https && [http, https].iter().all(|port| FRONT_PORTS.contains(port)));

    let second = carry_out(&mut objects);
    assert_eq!((second.services.len(), second.slices.len()), (0, 1));
    let slice = &second.slices[0].body;
    assert_eq!(slice["metadata"]["labels"][SERVICE_NAME_LABEL], "web-ours");
    assert_eq!(slice["metadata"]["ownerReferences"][0]["uid"], "uid-of-web-ours");
    let pod = json!({ "kind": "Pod", "namespace": "system", "name": "own-a", "uid": "u" });
    let endpoints = json!([
        { "addresses": ["10.0.0.1"], "conditions": { "ready": true }, "nodeName": "n1", "targetRef": pod },
        { "addresses": ["10.0.0.2"], "conditions": { "ready": false } },
    ]);
    assert_eq!(slice["endpoints"], endpoints);
    let ports = json!([
        { "name": "tcp-80", "protocol": "TCP", "port": http },
        { "name": "tcp-443", "protocol": "TCP", "port": https },
    ]);
    assert_eq!(slice["ports"], ports);

    let third = carry_out(&mut objects);
    assert!(third.is_empty(), "{third:?}");
}

#[test]
fn a_listener_keeps_its_port_and_two_never_share_one() {
    let mut objects = world();
    carry_out(&mut objects);
    let first = bound(&objects, "web");
    let many: Vec<(&str, u16)> = (1..=60).flat_map(|port| [("HTTP", port), ("UDP", port)]).collect();
    for name in ["a", "b", "c", "d"] {
        gateway(&mut objects, name, &many, json!({}));
    }
    gateway(&mut objects, "web", &[("HTTP", 8080), ("HTTPS", 443)], json!({}));
    carry_out(&mut objects);
    let second = bound(&objects, "web");
    assert_eq!((second[0], second[1].0), (first[1], (Transport::Tcp, 8080)));
    let names = ["web", "a", "b", "c", "d"];
    let all =
        names.iter().flat_map(|name| bound(&objects, name)).map(|((transport, _), port)| (transport, port));
    let all: Vec<_> = all.collect();
    assert_eq!((all.len(), all.iter().collect::<BTreeSet<_>>().len()), (482, 482));
}

#[test]
fn a_service_leads_to_no_port_that_is_not_its_gateways() {
    let mut objects = world();
    carry_out(&mut objects);
    let [(_, of_web), _] = bound(&objects, "web")[..] else { panic!("two listeners") };
    gateway(&mut objects, "younger", &[("HTTP", 80), ("HTTP", 81)], json!({}));
    lead(&mut objects, "younger", &[(80, 19_080), (81, of_web)]);
    assert_eq!(bound(&objects, "younger"), []);
    carry_out(&mut objects);
    let ports: Vec<u16> = bound(&objects, "younger").into_iter().map(|(_, port)| port).collect();
    assert!(
        ports.len() == 2 && ports.iter().all(|port| FRONT_PORTS.contains(port) && *port != of_web),
        "{ports:?}"
    );
}

/// Lets the Service of a Gateway lead to these ports, each with that of the process, as its owner might.
fn lead(objects: &mut Objects, gateway: &str, ports: &[(u16, u16)]) {
    let ports = ports.iter().map(|(port, bound)| json!({ "port": port, "targetPort": bound }));
    let owner = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": gateway,
        "uid": format!("uid-of-{gateway}"),
    });
    let name = format!("{gateway}-ours");
    let metadata = json!({
        "name": name, "namespace": "demo", "uid": format!("uid-of-{name}"), "ownerReferences": [owner],
    });
    put(
        &mut objects.services,
        json!({ "metadata": metadata, "spec": { "ports": ports.collect::<Vec<_>>() } }),
    );
    see(objects);
}

#[test]
fn an_older_gateway_takes_no_port_that_another_one_has() {
    let mut objects = world();
    // Names decide where the times are the same.
    gateway(&mut objects, "older", &[("HTTP", 80), ("HTTP", 81)], json!({}));
    carry_out(&mut objects);
    let (web, older) = (bound(&objects, "web"), bound(&objects, "older"));
    lead(&mut objects, "older", &[(80, web[0].1), (81, web[1].1)]);
    assert_eq!((bound(&objects, "web"), bound(&objects, "older")), (web.clone(), Vec::new()));
    carry_out(&mut objects);
    assert_eq!((bound(&objects, "web"), bound(&objects, "older")), (web, older), "all is as it was");
    // Ports that no listener of its has are kept from nobody.
    let many: Vec<(u16, u16)> = (1000..2000).map(|port| (port, port + 9000)).collect();
    lead(&mut objects, "older", &many);
    assert_eq!(bound(&objects, "older"), []);
}

#[test]
fn two_listeners_never_share_a_port() {
    let mut objects = world();
    lead(&mut objects, "web", &[(80, 12_345), (443, 12_345)]);
    assert_eq!(bound(&objects, "web"), [((Transport::Tcp, 80), 12_345)]);
}

#[test]
fn every_port_can_be_found() {
    let all = |except: u16| {
        let ports = FRONT_PORTS.filter(|port| *port != except);
        ports.map(|port| (Transport::Tcp, port)).collect::<BTreeSet<_>>()
    };
    let objects = world();
    let gateway = objects.gateways.values().next().unwrap();
    for left in [*FRONT_PORTS.start(), 12_345, *FRONT_PORTS.end()] {
        assert_eq!(free_port(gateway, Transport::Tcp, 80, &all(left)), Some(left));
    }
    assert_eq!(free_port(gateway, Transport::Tcp, 80, &all(0)), None);
    assert!(free_port(gateway, Transport::Udp, 80, &all(0)).is_some());
}

#[test]
fn what_infrastructure_asks_for_is_on_the_service() {
    let mut objects = world();
    carry_out(&mut objects);
    carry_out(&mut objects);
    let asked = json!({ "labels": { "team": "a" }, "annotations": { "lb.example.com/internal": "true" } });
    gateway(&mut objects, "web", &[("HTTP", 80)], asked);
    let labelled = carry_out(&mut objects);
    let metadata = &labelled.services[0].body["metadata"];
    assert_eq!(metadata["labels"]["team"], "a");
    assert_eq!(metadata["annotations"]["lb.example.com/internal"], "true");
    carry_out(&mut objects);
    gateway(&mut objects, "web", &[("HTTP", 80)], json!({}));
    let plain = carry_out(&mut objects);
    let metadata = &plain.services[0].body["metadata"];
    assert_eq!((&metadata["labels"]["team"], plain.services.len()), (&Value::Null, 1));
}

#[test]
fn what_others_add_is_left_alone_and_what_they_take_away_is_brought_back() {
    let mut objects = world();
    carry_out(&mut objects);
    carry_out(&mut objects);
    let name = ObjectName::new("demo", "web-ours");
    let mut service = Service::clone(&objects.services[&name]);
    let spec = service.spec.as_mut().unwrap();
    spec.cluster_ip = Some("10.96.0.9".to_owned());
    spec.ports.as_mut().unwrap()[0].node_port = Some(30_080);
    service.metadata.annotations.as_mut().unwrap().insert("their".to_owned(), "own".to_owned());
    objects.services.insert(name.clone(), Arc::new(service.clone()));
    assert!(plan(&objects, &config()).is_empty());
    service.spec.as_mut().unwrap().type_ = Some("ClusterIP".to_owned());
    objects.services.insert(name, Arc::new(service));
    assert_eq!(plan(&objects, &config()).services.len(), 1);
}

#[test]
fn nobody_elses_service_is_touched() {
    let mut objects = world();
    put(&mut objects.services, json!({ "metadata": { "name": "web-ours", "namespace": "demo" } }));
    put(&mut objects.services, json!({ "metadata": { "name": "x", "namespace": "demo" } }));
    let plan = plan(&objects, &config());
    assert!(plan.is_empty(), "{plan:?}");
    let obstacle = "Gateway demo/web: Service demo/web-ours exists and belongs to somebody else";
    let obstacles: Vec<_> = plan.obstacles.iter().map(ToString::to_string).collect();
    assert_eq!(obstacles, [obstacle]);
}

#[test]
fn two_installations_do_not_take_a_service_from_each_other() {
    let mut objects = world();
    let replicas =
        |namespace: &str| json!({ "metadata": { "name": "nantian-gateway", "namespace": namespace } });
    put(&mut objects.services, replicas("system"));
    carry_out(&mut objects);
    let second =
        GatewayServiceConfig { own_service: ObjectName::new("second", "nantian-gateway"), ..config() };
    let refused = plan(&objects, &second);
    assert!(
        refused.is_empty() && refused.obstacles[0].text.contains("system/nantian-gateway"),
        "{refused:?}"
    );
    objects.services.remove(&ObjectName::new("system", "nantian-gateway"));
    for (withheld, taken) in [(None, 1), (Some("demo"), 1), (Some("system"), 0)] {
        objects.withheld = withheld.map(str::to_owned).into_iter().collect();
        assert_eq!(plan(&objects, &second).services.len(), taken, "without {withheld:?}");
    }
    objects.withheld.clear();
    let scope = Scope::of(["demo".to_owned()]).with_own("second");
    let refused = plan(&objects, &GatewayServiceConfig { scope, ..second });
    assert!(refused.is_empty() && refused.obstacles.len() == 1, "it may be there: {refused:?}");
}

#[test]
fn a_service_stays_when_its_gateway_is_out_of_sight_or_names_an_address() {
    let mut objects = world();
    carry_out(&mut objects);
    let (classes, gateways) = (objects.gateway_classes.clone(), objects.gateways.clone());
    objects.gateway_classes.clear();
    assert!(plan(&objects, &config()).delete.is_empty());
    objects.gateways.clear();
    assert!(plan(&objects, &config()).delete.is_empty());
    (objects.gateway_classes, objects.gateways) = (classes, gateways);
    ask_for(&mut objects, json!([{ "value": "192.0.2.7" }]));
    let named = carry_out(&mut objects);
    assert_eq!(
        (named.delete, &named.services[0].body["spec"]["loadBalancerIP"]),
        (vec![], &json!("192.0.2.7"))
    );
    ask_for(&mut objects, json!([{}]));
    let named = carry_out(&mut objects);
    assert!(named.services[0].body["spec"]["loadBalancerIP"].is_null(), "any will do again");
}

fn ask_for(objects: &mut Objects, addresses: Value) {
    let gateway = objects.gateways.values_mut().next().unwrap();
    let mut asking = Gateway::clone(gateway);
    asking.spec.addresses = serde_json::from_value(addresses).unwrap();
    *gateway = Arc::new(asking);
}

#[test]
fn nothing_changes_in_front_of_a_gateway_that_is_refused_for_its_addresses() {
    for refused in [
        json!([{ "type": "Hostname", "value": "a.example.org" }]),
        json!([{ "value": "192.0.2.7" }, { "type": "Hostname", "value": "a.example.org" }]),
        json!([{ "value": "192.0.2.7" }, { "value": "192.0.2.8" }]),
        json!([{ "value": "a.example.org" }]),
    ] {
        let mut objects = world();
        ask_for(&mut objects, refused.clone());
        assert!(plan(&objects, &config()).is_empty(), "no Service is made: {refused}");
        ask_for(&mut objects, json!([]));
        carry_out(&mut objects);
        carry_out(&mut objects);
        gateway(&mut objects, "web", &[("HTTP", 8080)], json!({}));
        ask_for(&mut objects, refused.clone());
        let planned = carry_out(&mut objects);
        assert!(planned.is_empty() && planned.obstacles.is_empty(), "{refused}: {planned:?}");
        let ports = |objects: &Objects| {
            let slice = &objects.endpoint_slices[&ObjectName::new("demo", "web-ours-ipv4")];
            slice.ports.iter().flatten().filter_map(|port| port.port).collect::<Vec<_>>()
        };
        let before = ports(&objects);
        replace_replicas(&mut objects, "IPv4", &["10.0.0.3"]);
        let planned = carry_out(&mut objects);
        assert_eq!((planned.services.len(), planned.slices.len()), (0, 1), "{refused}");
        assert_eq!(planned.slices[0].body["endpoints"], json!([{ "addresses": ["10.0.0.3"] }]));
        assert_eq!((ports(&objects), before.len()), (before, 2), "of the version before");
    }
}

#[test]
fn the_service_of_a_gateway_that_is_refused_leads_to_no_port_of_another_one() {
    let mut objects = world();
    carry_out(&mut objects);
    let [(_, of_web), _] = bound(&objects, "web")[..] else { panic!("two listeners") };
    gateway(&mut objects, "another", &[("HTTP", 80), ("HTTP", 81)], json!({}));
    carry_out(&mut objects);
    carry_out(&mut objects);
    let [_, (_, own)] = bound(&objects, "another")[..] else { panic!("two listeners") };
    lead(&mut objects, "another", &[(80, of_web), (81, own)]);
    ask_for(&mut objects, json!([{ "type": "Hostname", "value": "a.example.org" }]));
    carry_out(&mut objects);
    let slice = &objects.endpoint_slices[&ObjectName::new("demo", "another-ours-ipv4")];
    let ports: Vec<_> = slice.ports.iter().flatten().filter_map(|port| port.port).collect();
    assert_eq!(ports, [i32::from(own)]);
}

#[test]
fn a_gateway_that_is_refused_for_parameters_is_given_no_service() {
    let parameters = json!({ "group": "example.com", "kind": "Parameters", "name": "p" });
    let mut objects = world();
    gateway(&mut objects, "web", &[("HTTP", 80)], json!({ "parametersRef": parameters.clone() }));
    assert!(plan(&objects, &config()).is_empty());
    let mut objects = world();
    let spec = json!({ "controllerName": objects.controller, "parametersRef": parameters });
    put(&mut objects.gateway_classes, json!({ "metadata": { "name": "ours" }, "spec": spec }));
    assert!(plan(&objects, &config()).is_empty());
}

#[test]
fn the_cluster_is_not_asked_for_an_address_of_its_own() {
    let mut objects = world();
    ask_for(&mut objects, json!([{ "value": "10.96.0.7" }]));
    let config = GatewayServiceConfig { kind: ServiceKind::ClusterIp, ..config() };
    let spec = plan(&objects, &config).services.remove(0).body["spec"].take();
    let asked = (&spec["type"], &spec["clusterIP"], &spec["loadBalancerIP"]);
    assert_eq!(asked, (&json!("ClusterIP"), &Value::Null, &Value::Null));
}

#[test]
fn a_service_has_the_policy_that_is_asked_for_and_the_balancer_that_it_was_made_with() {
    let asking = |class: &str| GatewayServiceConfig {
        traffic_policy: TrafficPolicy::Cluster,
        load_balancer_class: Some(class.to_owned()),
        ..config()
    };
    let mut objects = world();
    let spec = |objects: &Objects, config: &GatewayServiceConfig| {
        let [service] = &plan(objects, config).services[..] else { panic!("one is written") };
        let spec = &service.body["spec"];
        (spec["externalTrafficPolicy"].clone(), spec["loadBalancerClass"].clone())
    };
    assert_eq!(spec(&objects, &config()), (json!("Local"), Value::Null));
    assert_eq!(spec(&objects, &asking("a.example/one")), (json!("Cluster"), json!("a.example/one")));
    carry_out(&mut objects);
    assert_eq!(
        spec(&objects, &asking("a.example/one")),
        (json!("Cluster"), Value::Null),
        "it has a balancer"
    );
    let name = ObjectName::new("demo", "web-ours");
    let class = |objects: &mut Objects, kind: &str, class: Option<&str>| {
        let mut service = Service::clone(&objects.services[&name]);
        let spec = service.spec.as_mut().unwrap();
        (spec.type_, spec.load_balancer_class) = (Some(kind.to_owned()), class.map(str::to_owned));
        objects.services.insert(name.clone(), Arc::new(service));
    };
    class(&mut objects, "LoadBalancer", Some("a.example/one"));
    assert_eq!(spec(&objects, &asking("a.example/two")), (json!("Cluster"), json!("a.example/one")));
    assert_eq!(
        spec(&objects, &config()),
        (json!("Local"), json!("a.example/one")),
        "it cannot be taken away"
    );
    class(&mut objects, "ClusterIP", None);
    assert_eq!(spec(&objects, &asking("a.example/two")), (json!("Cluster"), json!("a.example/two")));
    let inner = GatewayServiceConfig { kind: ServiceKind::ClusterIp, ..config() };
    objects.services.clear();
    assert_eq!(spec(&objects, &inner), (Value::Null, Value::Null));
}

#[test]
fn a_service_of_another_class_goes_when_the_one_of_this_class_has_an_address() {
    let mut objects = world();
    carry_out(&mut objects);
    let spec = json!({ "controllerName": objects.controller });
    let class = json!({ "metadata": { "name": "other" }, "spec": spec });
    put(&mut objects.gateway_classes, class);
    let web = ObjectName::new("demo", "web");
    let mut moved = Gateway::clone(&objects.gateways[&web]);
    moved.spec.gateway_class_name = "other".to_owned();
    objects.gateways.insert(web.clone(), Arc::new(moved));
    assert_eq!(carry_out(&mut objects).services.len(), 1);
    assert_eq!(carry_out(&mut objects).delete, [], "clients still come by the old one");
    let Placements::InFront(placed) = &mut objects.placements else { panic!("{:?}", objects.placements) };
    placed.get_mut(&web).unwrap().addresses = vec![PublicAddress::Host("lb.example.com".to_owned())];
    assert_eq!(plan(&objects, &config()).delete, [ObjectName::new("demo", "web-ours")]);
}

#[test]
fn the_service_of_another_controllers_gateway_goes_only_if_it_leads_here() {
    let mut objects = world();
    carry_out(&mut objects);
    let theirs =
        GatewayServiceConfig { own_service: ObjectName::new("inner", "nantian-gateway"), ..config() };
    objects.controller = "example.com/inner".parse().unwrap();
    assert_eq!(plan(&objects, &theirs).delete, [], "the two would take it from each other for ever");
    assert_eq!(plan(&objects, &config()).delete, [ObjectName::new("demo", "web-ours")]);
}

#[test]
fn the_listeners_of_a_set_that_its_gateway_takes_have_ports_too() {
    let mut objects = world();
    let set = |namespace: &str, port: u16| {
        json!({
            "metadata": { "name": "more", "namespace": namespace },
            "spec": {
                "parentRef": { "name": "web", "namespace": "demo" },
                "listeners": [{ "name": "l", "protocol": "HTTP", "port": port }],
            },
        })
    };
    put(&mut objects.listener_sets, set("demo", 8080));
    put(&mut objects.listener_sets, set("elsewhere", 8081));
    let web = ObjectName::new("demo", "web");
    let mut gateway = Gateway::clone(&objects.gateways[&web]);
    gateway.spec.allowed_listeners =
        serde_json::from_value(json!({ "namespaces": { "from": "Same" } })).unwrap();
    objects.gateways.insert(web, Arc::new(gateway));
    let plan = plan(&objects, &config());
    let ports = plan.services[0].body["spec"]["ports"].as_array().unwrap();
    let ports: Vec<_> = ports.iter().map(|port| port["port"].as_u64().unwrap()).collect();
    assert_eq!(ports, [80, 443, 8080]);
}

#[test]
fn a_service_keeps_all_of_its_ports_while_listeners_may_be_out_of_sight() {
    let mut objects = world();
    carry_out(&mut objects);
    carry_out(&mut objects);
    let before = bound(&objects, "web");
    let web = Arc::clone(&objects.gateways[&ObjectName::new("demo", "web")]);
    gateway(&mut objects, "web", &[("HTTP", 80)], json!({}));
    see(&mut objects);
    assert_eq!(plan(&objects, &config()).services.len(), 1);
    objects.withheld = ["elsewhere".to_owned()].into();
    assert!(plan(&objects, &config()).is_empty());
    gateway(&mut objects, "web", &[("HTTP", 80), ("HTTP", 8080)], json!({}));
    see(&mut objects);
    let body = &plan(&objects, &config()).services[0].body;
    let ports = body["spec"]["ports"].as_array().unwrap().iter();
    assert_eq!(ports.map(|port| port["port"].as_u64().unwrap()).collect::<Vec<_>>(), [80, 443, 8080]);
    gateway(&mut objects, "web", &[("HTTP", 80)], json!({}));
    see(&mut objects);
    // One with the same UID would have the same ports if nobody had them.
    objects.gateways.insert(ObjectName::new("demo", "other"), web);
    replace_replicas(&mut objects, "IPv4", &["10.0.0.2"]);
    let changed = plan(&objects, &config());
    let slices: Vec<_> = changed.slices.iter().map(|slice| &slice.body).collect();
    assert_eq!(slices[0]["endpoints"], json!([{ "addresses": ["10.0.0.2"] }]));
    assert_eq!((slices.len(), slices[0]["ports"].as_array().unwrap().len()), (1, 2));
    let [service] = &changed.services[..] else { panic!("{:?}", changed.services) };
    for port in service.body["spec"]["ports"].as_array().unwrap() {
        assert!(before.iter().all(|(_, bound)| port["targetPort"] != *bound), "{port}");
    }
}

/// Puts the replicas that have an address of this family in place of those that had.
fn replace_replicas(objects: &mut Objects, family: &str, addresses: &[&str]) {
    let endpoints = addresses.iter().map(|address| json!({ "addresses": [address] }));
    let labels = json!({ (SERVICE_NAME_LABEL): "nantian-gateway" });
    let metadata = json!({ "name": "own-1", "namespace": "system", "labels": labels });
    put(
        &mut objects.endpoint_slices,
        json!({ "metadata": metadata, "addressType": family, "endpoints": endpoints.collect::<Vec<_>>(), "ports": [] }),
    );
}

#[test]
fn a_family_of_addresses_that_no_replica_has_any_more_leads_nowhere() {
    let mut objects = world();
    carry_out(&mut objects);
    carry_out(&mut objects);
    replace_replicas(&mut objects, "IPv6", &["fd00::1"]);
    let changed = carry_out(&mut objects);
    let bodies = changed.slices.iter().map(|slice| (&*slice.name.name, &slice.body["endpoints"]));
    let bodies: Vec<_> = bodies.collect();
    assert_eq!(
        bodies,
        [("web-ours-ipv4", &json!([])), ("web-ours-ipv6", &json!([{ "addresses": ["fd00::1"] }]))]
    );
    assert!(carry_out(&mut objects).is_empty());
}

#[test]
fn who_does_not_lead_sees_to_the_slices_alone() {
    let mut objects = world();
    carry_out(&mut objects);
    let slices = |objects: &Objects| plan(&objects.for_gateway_services(), &config()).of_slices();
    assert_eq!(slices(&objects).slices.len(), 1);
    carry_out(&mut objects);
    replace_replicas(&mut objects, "IPv4", &["10.0.0.2"]);
    assert_eq!(slices(&objects).slices[0].body["endpoints"], json!([{ "addresses": ["10.0.0.2"] }]));
    // The leader has not chosen the port of a new listener yet.
    gateway(&mut objects, "web", &[("HTTP", 80), ("HTTP", 81)], json!({}));
    assert!(slices(&objects).is_empty());
}

//! The manifests of a test, whole.
//!
//! What may be left out: `apiVersion`; the namespace, which is `infra`; the class of a Gateway; the parent of
//! a route, which is the Gateway `same-namespace`. Each Gateway has an address of its own, and ports are
//! moved to where everybody may listen.

use std::{collections::BTreeMap, net::Ipv4Addr, process};

use serde_json::{Value, json};

/// What is added to each port of a listener.
pub(super) const OFFSET: u16 = 20_000;

/// The objects of a test.
pub(super) struct Objects {
    number: usize,
    list: Vec<Value>,
}

/// Where a listener with this port is really.
pub(super) fn moved(port: u16) -> u16 {
    if port < OFFSET { port + OFFSET } else { port }
}

impl Objects {
    /// Those that every test has, and `documents`.
    pub(super) fn new(number: usize, documents: Vec<Value>) -> Self {
        let base = include_str!("../../conformance/base.yaml");
        let base: Vec<Value> = serde_saphyr::from_multiple(base).unwrap();
        let mut objects = Self { number, list: Vec::new() };
        for document in base.into_iter().chain(documents) {
            objects.apply(document);
        }
        objects
    }

    /// Says where the endpoint of a Service is.
    pub(super) fn endpoint(&mut self, service: &str, protocol: &str, port: u16) {
        let (namespace, name) = service.split_once('/').unwrap();
        let ports = ["", "http", "h2c", "ws", "https", "https-2", "udp"];
        let ports = ports.map(|name| json!({"name": name, "port": port, "protocol": protocol}));
        self.apply(json!({
            "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["127.0.0.1"]}],
            "ports": ports,
        }));
    }

    /// Puts an object in the place of the one of its name.
    pub(super) fn apply(&mut self, mut object: Value) {
        complete(&mut object);
        let key = |object: &Value| {
            (
                object["kind"].clone(),
                object["metadata"]["namespace"].clone(),
                object["metadata"]["name"].clone(),
            )
        };
        match self.list.iter_mut().find(|known| key(known) == key(&object)) {
            Some(known) => *known = object,
            None => self.list.push(object),
        }
        let (number, mut place) = (self.number, 0);
        for gateway in self.list.iter_mut().filter(|object| object["kind"] == "Gateway") {
            place += 1;
            if gateway["spec"].get("addresses").is_none() {
                let address = address(number, place);
                gateway["spec"]["addresses"] = json!([{"type": "IPAddress", "value": address.to_string()}]);
            }
        }
    }

    /// Where a Gateway listens.
    pub(super) fn address(&self, gateway: &str) -> Ipv4Addr {
        let (namespace, name) = gateway.split_once('/').unwrap();
        let found = self.list.iter().find(|object| {
            object["kind"] == "Gateway"
                && object["metadata"]["name"] == name
                && object["metadata"]["namespace"] == namespace
        });
        let found = found.unwrap_or_else(|| panic!("no Gateway {gateway}"));
        found["spec"]["addresses"][0]["value"].as_str().unwrap().parse().unwrap()
    }

    /// All of them as text.
    pub(super) fn text(&self) -> String {
        let texts: Vec<_> = self.list.iter().map(ToString::to_string).collect();
        texts.join("\n---\n")
    }

    /// The generations that are written into the objects.
    pub(super) fn generations(&self) -> BTreeMap<String, i64> {
        let generation = |object: &Value| {
            let metadata = &object["metadata"];
            let name = metadata["name"].as_str().unwrap();
            let name = match metadata["namespace"].as_str() {
                Some(namespace) => format!("{namespace}/{name}"),
                None => name.to_owned(),
            };
            Some((format!("{} {name}", object["kind"].as_str().unwrap()), metadata["generation"].as_i64()?))
        };
        self.list.iter().filter_map(generation).collect()
    }
}

/// An address that no other test has.
fn address(number: usize, place: usize) -> Ipv4Addr {
    let process = process::id();
    let byte = |value: u32| u8::try_from(value % 200).unwrap() + 10;
    let last = number * 8 + place;
    Ipv4Addr::new(
        127,
        byte(process),
        byte(process / 200 + u32::try_from(last / 200).unwrap()),
        byte(u32::try_from(last).unwrap()),
    )
}

fn complete(object: &mut Value) {
    let kind = object["kind"].as_str().expect("an object has a kind").to_owned();
    let version = match kind.as_str() {
        "Service" | "Secret" | "ConfigMap" | "Namespace" => "v1",
        "EndpointSlice" => "discovery.k8s.io/v1",
        _ => "gateway.networking.k8s.io/v1",
    };
    object["apiVersion"] = version.into();
    if kind != "Namespace" && kind != "GatewayClass" && object["metadata"].get("namespace").is_none() {
        object["metadata"]["namespace"] = "infra".into();
    }
    match kind.as_str() {
        "Gateway" => {
            let spec = &mut object["spec"];
            if spec.get("gatewayClassName").is_none() {
                spec["gatewayClassName"] = "nantian".into();
            }
            move_ports(&mut spec["listeners"]);
            if let Some(ports) = spec.pointer_mut("/tls/frontend/perPort") {
                move_ports(ports);
            }
        }
        "ListenerSet" => move_ports(&mut object["spec"]["listeners"]),
        "HTTPRoute" | "GRPCRoute" | "TLSRoute" | "TCPRoute" | "UDPRoute" => {
            let spec = &mut object["spec"];
            if spec.get("parentRefs").is_none() {
                spec["parentRefs"] = json!([{"name": "same-namespace"}]);
            }
            move_ports(&mut spec["parentRefs"]);
        }
        _ => {}
    }
}

fn move_ports(list: &mut Value) {
    for entry in list.as_array_mut().into_iter().flatten() {
        if let Some(port) = entry.get("port").and_then(Value::as_u64) {
            entry["port"] = moved(u16::try_from(port).unwrap()).into();
        }
    }
}

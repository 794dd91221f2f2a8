//! A cluster gives what its manifests would give.

use std::{
    collections::{BTreeSet, VecDeque},
    fs,
};

use futures_util::FutureExt as _;
use gateway_api::experimental::gateways::Gateway;
use kube::api::{ApiResource, DynamicObject};
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};

use super::*;
use crate::{
    gates::FeatureGates,
    source::{Files, kind::Kind},
    translate::translate,
};

/// One thing that happens to a cluster.
#[derive(Debug, Clone)]
enum Edit {
    /// An object is written, in one of several variants.
    Put(usize, u8),
    Delete(usize),
    /// Only the server's part of an object is another.
    Touch(usize),
    /// A kind is listed anew.
    Relist(usize),
    /// The watch of Secrets tells the next thing that has happened.
    Tell,
    /// The server is asked for the Secrets that are wanted.
    Ask,
    /// Its first answer is heard.
    Answer,
    /// The gateway takes in what has changed.
    Read,
}

const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";

/// The objects that may be there: kind, namespace and name.
const OBJECTS: [(Kind, &str, &str); 12] = [
    (Kind::GatewayClass, "", "nantian"),
    (Kind::Gateway, "demo", "a"),
    (Kind::Gateway, "demo", "b"),
    (Kind::HttpRoute, "demo", "r"),
    (Kind::HttpRoute, "demo", "s"),
    (Kind::HttpRoute, "other", "t"),
    (Kind::Service, "demo", "x"),
    (Kind::EndpointSlice, "demo", "x-1"),
    (Kind::ReferenceGrant, "demo", "g"),
    (Kind::Namespace, "", "other"),
    (Kind::Secret, "demo", "c"),
    (Kind::Secret, "demo", "d"),
];

fn object(at: usize, variant: u8) -> Value {
    let (kind, namespace, name) = OBJECTS[at];
    let mut metadata = json!({ "name": name });
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.into();
    }
    let (api_version, mut fields) = match kind {
        Kind::GatewayClass => {
            let controller =
                ["gateway.nantian.dev/gateway-controller", "example.com/other"][usize::from(variant % 2)];
            (GATEWAY_API, json!({ "spec": { "controllerName": controller } }))
        }
        Kind::Gateway => {
            let from = ["Same", "All"][usize::from(variant % 2)];
            let mut listener = json!({
                "name": "http", "protocol": "HTTP", "port": 8000 + u16::from(variant),
                "allowedRoutes": { "namespaces": { "from": from } },
            });
            if variant > 0 {
                listener["protocol"] = "HTTPS".into();
                let secret = ["c", "d"][usize::from(variant % 2)];
                listener["tls"] = json!({ "certificateRefs": [{ "name": secret }] });
            }
            (GATEWAY_API, json!({ "spec": { "gatewayClassName": "nantian", "listeners": [listener] } }))
        }
        Kind::HttpRoute => {
            let parent = ["a", "b"][usize::from(variant % 2)];
            let parents = json!([{ "name": parent, "namespace": "demo" }]);
            let backends = json!([{ "name": "x", "namespace": "demo", "port": 80 }]);
            let path = json!({ "type": "PathPrefix", "value": format!("/{variant}") });
            let rule = json!({ "matches": [{ "path": path }], "backendRefs": backends });
            (GATEWAY_API, json!({ "spec": { "parentRefs": parents, "rules": [rule] } }))
        }
        Kind::Service => ("v1", json!({ "spec": { "ports": [{ "port": 80 + i32::from(variant % 2) }] } })),
        Kind::EndpointSlice => {
            metadata["labels"] = json!({ "kubernetes.io/service-name": "x" });
            let endpoints = json!([{ "addresses": [format!("10.0.0.{variant}")] }]);
            let ports = json!([{ "port": 8080 }]);
            ("discovery.k8s.io/v1", json!({ "addressType": "IPv4", "endpoints": endpoints, "ports": ports }))
        }
        Kind::ReferenceGrant => {
            let from =
                json!([{ "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "other" }]);
            (GATEWAY_API, json!({ "spec": { "from": from, "to": [{ "group": "", "kind": "Service" }] } }))
        }
        Kind::Secret => {
            let pem = |what: &str| format!("-----BEGIN {what}-----\nAAA{variant}\n-----END {what}-----\n");
            let data = json!({ "tls.crt": pem("CERTIFICATE"), "tls.key": pem("PRIVATE KEY") });
            ("v1", json!({ "type": "kubernetes.io/tls", "stringData": data }))
        }
        _ => ("v1", json!({})),
    };
    fields["apiVersion"] = api_version.into();
    fields["kind"] = kind.info().name.into();
    fields["metadata"] = metadata;
    fields
}

/// An object, or none.
type Answer = Option<(Kind, DynamicObject)>;

/// A cluster, and the manifests that were last written to it.
#[derive(Default)]
struct World {
    cache: Arc<ObjectCache>,
    written: BTreeMap<usize, Value>,
    version: u64,
    /// The Secrets as the server has them,
    secrets: BTreeMap<usize, DynamicObject>,
    /// what has happened to them that the watch has not told, and whether they are gone,
    untold: VecDeque<(Kind, DynamicObject, bool)>,
    /// and what the server has answered that was not heard, for the version that was asked for.
    answers: VecDeque<(ObjectRef, Option<String>, Answer)>,
}

impl World {
    /// The object as the server shows it.
    fn shown(&mut self, at: usize) -> Option<DynamicObject> {
        self.version += 1;
        let mut object = self.written.get(&at)?.clone();
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        object["status"] = json!({ "conditions": [] });
        Some(serde_json::from_value(object).unwrap())
    }

    fn put(&mut self, at: usize) -> Option<ObjectRef> {
        let mut object = self.shown(at)?;
        if OBJECTS[at].0 == Kind::Secret {
            let known = self.secrets.get(&at).and_then(|known| known.metadata.uid.clone());
            object.metadata.uid = known.or_else(|| Some(self.version.to_string()));
            self.secrets.insert(at, object.clone());
            self.untold.push_back((Kind::Secret, object, false));
            return None;
        }
        let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&());
        self.cache.put(OBJECTS[at].0, &resource, object)
    }

    fn edit(&mut self, edit: Edit, cluster: &mut Cluster) {
        match edit {
            Edit::Put(at, variant) => {
                self.written.insert(at, object(at, variant));
                self.put(at);
            }
            Edit::Touch(at) => drop(self.put(at)),
            Edit::Delete(at) => {
                if let Some(object) = self.shown(at) {
                    self.written.remove(&at);
                    match self.secrets.remove(&at) {
                        Some(secret) => self.untold.push_back((Kind::Secret, secret, true)),
                        None => self.cache.remove(OBJECTS[at].0, &object.metadata),
                    }
                }
            }
            Edit::Relist(at) if OBJECTS[at].0 == Kind::Secret => {
                self.untold.clear();
                let put =
                    |secret: &DynamicObject| self.cache.put(Kind::Secret, &secret_resource(), secret.clone());
                let listed: BTreeSet<ObjectRef> = self.secrets.values().filter_map(put).collect();
                self.cache.retain(&all(Kind::Secret), &listed);
            }
            Edit::Tell => match self.untold.pop_front() {
                Some((kind, secret, true)) => self.cache.remove(kind, &secret.metadata),
                Some((kind, secret, false)) => drop(self.cache.put(kind, &secret_resource(), secret)),
                None => {}
            },
            Edit::Ask => {
                let asked: BTreeSet<_> = self.answers.iter().map(|(name, ..)| name.clone()).collect();
                for (name, version) in self.cache.wanted(1, |name| asked.contains(name)) {
                    let at = OBJECTS.iter().position(|(kind, _, known)| {
                        kind.info().name == name.kind && *known == &*name.name.name
                    });
                    let now = self.secrets.get(&at.unwrap()).map(|secret| (Kind::Secret, secret.clone()));
                    self.answers.push_back((name, version, now));
                }
            }
            Edit::Answer => {
                if let Some((name, version, object)) = self.answers.pop_front() {
                    self.cache.put_value(&name, &version, object);
                }
            }
            Edit::Relist(at) => {
                let kind = OBJECTS[at].0;
                let of_kind = (0..OBJECTS.len()).filter(|other| OBJECTS[*other].0 == kind);
                let listed: BTreeSet<ObjectRef> = of_kind.filter_map(|at| self.put(at)).collect();
                self.cache.retain(&all(kind), &listed);
            }
            Edit::Read => {
                cluster.read();
                cluster.stands();
            }
        }
    }

    /// Goes on until all is told and answered.
    fn settle(&mut self, cluster: &mut Cluster) {
        while !self.untold.is_empty() || !self.answers.is_empty() || !self.cache.is_read() {
            for edit in [Edit::Tell, Edit::Ask, Edit::Answer] {
                self.edit(edit, cluster);
            }
        }
    }
}

/// All objects of a kind.
fn all(kind: Kind) -> scope::Part {
    scope::Part { kind, namespace: None }
}

fn secret_resource() -> ApiResource {
    ApiResource::erase::<k8s_openapi::api::core::v1::Secret>(&())
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = || 0..OBJECTS.len();
    prop_oneof![
        6 => (at(), select(&[0, 1, 2, 3][..])).prop_map(|(at, variant)| Edit::Put(at, variant)),
        2 => at().prop_map(Edit::Delete),
        1 => at().prop_map(Edit::Touch),
        1 => at().prop_map(Edit::Relist),
        2 => Just(Edit::Read),
        3 => select(&[Edit::Tell, Edit::Ask, Edit::Answer][..]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_edits_end_in_what_the_final_manifests_say(edits in vec(edit(), 0..60)) {
        let mut world = World::default();
        let mut cluster = Cluster::new(Arc::clone(&world.cache), Addressing::Nobody);
        // Enough that most worlds serve something.
        for at in 0..OBJECTS.len() {
            world.edit(Edit::Put(at, 0), &mut cluster);
        }
        for edit in edits {
            world.edit(edit, &mut cluster);
        }
        world.settle(&mut cluster);
        let reading = cluster.read();
        prop_assert!(reading.faults.is_empty(), "{:?}", reading.faults);

        let directory = tempfile::tempdir().unwrap();
        for (at, object) in &world.written {
            fs::write(directory.path().join(format!("{at}.yaml")), object.to_string()).unwrap();
        }
        let standalone = Files::new([directory.path().to_owned()]).load();
        prop_assert!(standalone.faults.is_empty(), "{:?}", standalone.faults);
        let gates = FeatureGates::all();
        // Only files leave it open where a Gateway without an address is reached.
        let here = Objects { placements: Placements::Here, ..cluster.objects().clone() };
        prop_assert_eq!(translate(&here, gates), translate(&standalone.objects, gates));
        prop_assert!(cluster.read().is_idle);
    }
}

#[test]
fn a_gateway_stays_as_it_was_until_the_certificate_is_read_that_it_newly_refers_to() {
    let mut world = World::default();
    let mut cluster = Cluster::new(Arc::clone(&world.cache), Addressing::Nobody);
    for at in [0, 1, 10, 11] {
        world.edit(Edit::Put(at, 0), &mut cluster);
    }
    world.settle(&mut cluster);
    world.edit(Edit::Read, &mut cluster);
    let secrets = |cluster: &Cluster| {
        cluster.objects().secrets.keys().map(|name| name.name.to_string()).collect::<Vec<_>>()
    };
    let port = |cluster: &Cluster| cluster.objects().gateways.values().next().unwrap().spec.listeners[0].port;
    assert_eq!((port(&cluster), secrets(&cluster)), (8000, vec![]), "nothing refers to any");
    world.edit(Edit::Put(1, 2), &mut cluster);
    world.edit(Edit::Read, &mut cluster);
    assert_eq!((port(&cluster), secrets(&cluster)), (8000, vec![]));
    for edit in [Edit::Ask, Edit::Answer, Edit::Read] {
        world.edit(edit, &mut cluster);
    }
    assert_eq!((port(&cluster), secrets(&cluster)), (8002, vec!["c".to_owned()]));
    // The one that is deleted before it is read is none to wait for.
    world.edit(Edit::Put(1, 1), &mut cluster);
    world.edit(Edit::Delete(11), &mut cluster);
    for edit in [Edit::Ask, Edit::Answer, Edit::Read, Edit::Read] {
        world.edit(edit, &mut cluster);
    }
    assert_eq!((port(&cluster), secrets(&cluster)), (8001, vec![]), "and the other one is let go");
}

#[test]
fn a_secret_is_read_for_gateways_of_this_controller_alone() {
    let mut world = World::default();
    let mut cluster = Cluster::new(Arc::clone(&world.cache), Addressing::Nobody);
    // The class is another controller's, and the Gateway refers to the Secret `c`.
    for (at, variant) in [(0, 1), (1, 2), (10, 0)] {
        world.edit(Edit::Put(at, variant), &mut cluster);
    }
    let secrets = |world: &mut World, cluster: &mut Cluster| {
        world.settle(cluster);
        world.edit(Edit::Read, cluster);
        world.edit(Edit::Read, cluster);
        cluster.objects().secrets.len()
    };
    assert_eq!(secrets(&mut world, &mut cluster), 0);
    world.edit(Edit::Put(0, 0), &mut cluster);
    assert_eq!(secrets(&mut world, &mut cluster), 1);
    world.edit(Edit::Put(0, 1), &mut cluster);
    assert_eq!(secrets(&mut world, &mut cluster), 0);
}

#[test]
fn nothing_of_a_namespace_is_handed_out_before_all_its_kinds_were_listed() {
    let mut world = World::default();
    let part = |kind| scope::Part { kind, namespace: Some("demo".to_owned()) };
    let (services, routes) = (part(Kind::Service), part(Kind::HttpRoute));
    world.cache.withhold(&services, false);
    world.cache.withhold(&routes, false);
    let taken = |world: &World| {
        let taken = world.cache.take().into_keys();
        taken.map(|name| name.to_string()).collect::<Vec<_>>()
    };
    for at in [3, 5, 6] {
        world.written.insert(at, object(at, 0));
        world.put(at);
    }
    assert_eq!(taken(&world), ["HTTPRoute other/t", "Service demo/x"], "nothing leads to a Service");
    world.cache.set_listed(&services);
    assert!(taken(&world).is_empty());
    world.cache.set_listed(&routes);
    assert_eq!(taken(&world), ["HTTPRoute demo/r"]);
    // A guard is gone, and another one in its place.
    let plugin = json!({ "metadata": { "name": "p", "namespace": "demo" } });
    let plugin: DynamicObject = serde_json::from_value(plugin).unwrap();
    world.cache.put(Kind::WasmPlugin, &secret_resource(), plugin.clone());
    assert_eq!(taken(&world), ["WasmPlugin demo/p"]);
    world.cache.withhold(&services, false);
    world.cache.remove(Kind::WasmPlugin, &plugin.metadata);
    world.cache.retain(&services, &BTreeSet::new());
    world.put(3);
    assert_eq!(taken(&world), ["Service demo/x"], "what guards others is not let go before");
    world.cache.set_listed(&services);
    assert_eq!(taken(&world), ["HTTPRoute demo/r", "WasmPlugin demo/p"]);
    // The namespace itself is gone.
    world.cache.withhold(&services, false);
    world.written.insert(9, object(9, 0));
    world.put(9);
    world.cache.retain(&routes, &BTreeSet::new());
    assert_eq!(taken(&world), ["HTTPRoute demo/r", "Namespace other"], "nothing is in its place");
}

#[test]
fn a_namespace_is_withheld_until_what_its_objects_refer_to_is_read() {
    let mut world = World::default();
    let mut cluster = Cluster::new(Arc::clone(&world.cache), Addressing::Nobody);
    let secrets = scope::Part { kind: Kind::Secret, namespace: Some("demo".to_owned()) };
    world.cache.withhold(&secrets, false);
    // Gateway `a` refers to the Secret `c`, and `b` to none.
    for (at, variant) in [(0, 0), (1, 2), (2, 0), (10, 0)] {
        world.edit(Edit::Put(at, variant), &mut cluster);
    }
    world.edit(Edit::Relist(10), &mut cluster);
    world.cache.set_listed(&secrets);
    let handed_out = |cluster: &mut Cluster| {
        let withheld = cluster.read().unserved.namespaces.len();
        (withheld, cluster.objects().gateways.len())
    };
    assert_eq!(handed_out(&mut cluster), (1, 0));
    world.settle(&mut cluster);
    assert_eq!(handed_out(&mut cluster), (0, 2));
}

#[test]
fn a_secret_that_could_not_be_watched_for_a_while_is_still_known() {
    let mut world = World::default();
    let mut cluster = Cluster::new(Arc::clone(&world.cache), Addressing::Nobody);
    let secrets = scope::Part { kind: Kind::Secret, namespace: Some("demo".to_owned()) };
    for edit in [Edit::Put(10, 0), Edit::Tell] {
        world.edit(edit, &mut cluster);
    }
    world.cache.withhold(&secrets, true);
    world.cache.set_listed(&secrets);
    // Gateway `a` refers to it.
    for (at, variant) in [(0, 0), (1, 2)] {
        world.edit(Edit::Put(at, variant), &mut cluster);
    }
    world.settle(&mut cluster);
    world.edit(Edit::Read, &mut cluster);
    assert_eq!((cluster.objects().gateways.len(), cluster.objects().secrets.len()), (1, 1));
}

#[test]
fn a_new_service_of_a_namespace_that_is_withheld_waits_for_its_tls_policy() {
    let world = World::default();
    let part = |kind| scope::Part { kind, namespace: Some("demo".to_owned()) };
    let (policies, routes) = (part(Kind::BackendTlsPolicy), part(Kind::HttpRoute));
    let put = |kind, name: &str, mut object: Value| {
        object["metadata"]["name"] = name.into();
        object["metadata"]["namespace"] = "demo".into();
        world.cache.put(kind, &secret_resource(), serde_json::from_value(object).unwrap());
    };
    let taken = || world.cache.take().into_keys().map(|name| name.to_string()).collect::<Vec<_>>();
    put(Kind::Service, "old", json!({}));
    assert_eq!(taken(), ["Service demo/old"]);
    world.cache.withhold(&policies, false);
    world.cache.withhold(&routes, false);
    put(Kind::Service, "old", json!({ "metadata": { "generation": 2 } }));
    put(Kind::Service, "a", json!({}));
    put(Kind::Service, "b", json!({}));
    let owner = json!({ "apiVersion": GATEWAY_API, "kind": "Gateway", "name": "web", "uid": "u" });
    put(Kind::Service, "web-ours", json!({ "metadata": { "ownerReferences": [owner] } }));
    assert_eq!(taken(), ["Service demo/old", "Service demo/web-ours"], "others may have policies");
    let target = json!({ "group": "", "kind": "Service", "name": "a" });
    put(Kind::BackendTlsPolicy, "p", json!({ "spec": { "targetRefs": [target] } }));
    world.cache.set_listed(&policies);
    assert_eq!(taken(), ["Service demo/b"]);
    world.cache.set_listed(&routes);
    assert_eq!(taken(), ["BackendTLSPolicy demo/p", "Service demo/a"]);
}

#[test]
fn what_comes_and_goes_in_a_namespace_that_is_withheld_leaves_nothing() {
    let mut world = World::default();
    let mut cluster = Cluster::new(Arc::clone(&world.cache), Addressing::Nobody);
    let services = scope::Part { kind: Kind::Service, namespace: Some("demo".to_owned()) };
    // Route `r` was handed out, and `s` never is.
    for edit in [Edit::Put(3, 0), Edit::Read] {
        world.edit(edit, &mut cluster);
    }
    world.cache.withhold(&services, false);
    let (gone, made) = ([Edit::Put(4, 0), Edit::Delete(4)], [Edit::Delete(3), Edit::Put(3, 1)]);
    for edit in gone.into_iter().chain(made).chain([Edit::Delete(3)]) {
        world.edit(edit, &mut cluster);
    }
    world.cache.set_listed(&services);
    let taken: Vec<_> = world.cache.take().into_keys().map(|name| name.to_string()).collect();
    assert_eq!(taken, ["HTTPRoute demo/r"], "nobody knows of the other one");
}

#[test]
fn nobody_is_told_of_a_secret_that_nothing_refers_to() {
    let mut world = World::default();
    let mut cluster = Cluster::new(Arc::clone(&world.cache), Addressing::Nobody);
    let mut reports = world.cache.reports();
    let mut is_told = |edits: &[Edit]| {
        reports.mark_unchanged();
        for edit in edits {
            world.edit(edit.clone(), &mut cluster);
        }
        reports.has_changed().unwrap()
    };
    assert!(!is_told(&[
        Edit::Put(10, 0),
        Edit::Tell,
        Edit::Put(10, 1),
        Edit::Tell,
        Edit::Delete(10),
        Edit::Tell
    ]));
    assert!(!is_told(&[Edit::Put(11, 0), Edit::Tell, Edit::Delete(11), Edit::Relist(11)]));
    assert!(is_told(&[Edit::Put(0, 0), Edit::Put(1, 2)]));
    for edit in [Edit::Put(10, 0), Edit::Delete(10)] {
        assert!(is_told(&[edit.clone(), Edit::Tell]), "{edit:?} of one that is referred to");
    }
}

#[test]
fn what_makes_others_count_waits_for_what_they_refer_to() {
    let mut world = World::default();
    let mut cluster = Cluster::new(Arc::clone(&world.cache), Addressing::Nobody);
    let set = json!({
        "metadata": { "name": "l", "namespace": "demo" },
        "spec": { "parentRef": { "name": "a" }, "listeners": [
            { "name": "tls", "protocol": "HTTPS", "port": 9000, "tls": { "certificateRefs": [{ "name": "d" }] } },
        ] },
    });
    world.cache.put(Kind::ListenerSet, &secret_resource(), serde_json::from_value(set).unwrap());
    // Gateway `b` refers to the Secret `c`; there is neither its class nor the Gateway of the ListenerSet.
    for (at, variant) in [(2, 2), (10, 0), (11, 0)] {
        world.edit(Edit::Put(at, variant), &mut cluster);
    }
    world.settle(&mut cluster);
    let handed_out = |world: &mut World, cluster: &mut Cluster, edits: &[Edit]| {
        for edit in edits.iter().cloned().chain([Edit::Read]) {
            world.edit(edit, cluster);
        }
        let objects = cluster.objects();
        (objects.gateway_classes.len(), objects.gateways.len(), objects.secrets.len())
    };
    let read = [Edit::Ask, Edit::Answer];
    assert_eq!(handed_out(&mut world, &mut cluster, &[]), (0, 1, 0));
    assert_eq!(handed_out(&mut world, &mut cluster, &[Edit::Put(0, 0)]), (0, 1, 0), "it waits for `c`");
    assert_eq!(handed_out(&mut world, &mut cluster, &read), (1, 1, 1));
    assert_eq!(handed_out(&mut world, &mut cluster, &[Edit::Put(1, 0)]), (1, 1, 1), "it waits for `d`");
    assert_eq!(handed_out(&mut world, &mut cluster, &read), (1, 2, 2));
    // What refers to another one waits for it alone.
    for edit in [Edit::Delete(11), Edit::Tell, Edit::Put(11, 1), Edit::Tell, Edit::Put(2, 1), Edit::Touch(0)]
    {
        world.edit(edit, &mut cluster);
    }
    let taken: Vec<_> = world.cache.take().into_keys().map(|name| name.to_string()).collect();
    assert_eq!(taken, ["GatewayClass nantian", "Secret demo/d"]);
}

#[test]
fn a_secret_that_nobody_may_read_holds_up_no_class() {
    let mut world = World::default();
    let mut cluster = Cluster::new(Arc::clone(&world.cache), Addressing::Nobody);
    // Gateway `a` refers to the Secret `c`.
    for (at, variant) in [(1, 2), (10, 0)] {
        world.edit(Edit::Put(at, variant), &mut cluster);
    }
    world.settle(&mut cluster);
    let secrets = scope::Part { kind: Kind::Secret, namespace: Some("demo".to_owned()) };
    let handed_out = |world: &mut World, cluster: &mut Cluster| {
        world.edit(Edit::Read, cluster);
        (cluster.objects().gateway_classes.len(), cluster.objects().secrets.len())
    };
    assert_eq!(handed_out(&mut world, &mut cluster), (0, 0), "there is no class");
    world.edit(Edit::Put(0, 0), &mut cluster);
    assert_eq!(handed_out(&mut world, &mut cluster), (0, 0), "it waits for `c`");
    world.cache.withhold(&secrets, false);
    assert!(world.cache.is_read() && world.cache.wanted(1, |_| false).is_empty());
    assert_eq!(handed_out(&mut world, &mut cluster), (1, 0));
    world.edit(Edit::Relist(10), &mut cluster);
    world.cache.set_listed(&secrets);
    world.settle(&mut cluster);
    assert_eq!(handed_out(&mut world, &mut cluster), (1, 1));
}

#[test]
fn a_start_waits_for_no_newer_version_of_a_secret_that_was_read() {
    let mut world = World::default();
    let mut cluster = Cluster::new(Arc::clone(&world.cache), Addressing::Nobody);
    // Gateway `a` refers to the Secret `c`.
    for edit in [Edit::Put(0, 0), Edit::Put(1, 2), Edit::Put(10, 0), Edit::Tell] {
        world.edit(edit, &mut cluster);
    }
    let is_over = |world: &World| world.cache.values_read().now_or_never().is_some();
    assert!(!is_over(&world));
    world.settle(&mut cluster);
    assert!(is_over(&world));
    for edit in [Edit::Put(10, 1), Edit::Tell] {
        world.edit(edit, &mut cluster);
    }
    assert!(!world.cache.is_read() && is_over(&world), "nobody may be let read it");
}

/// Writes a status of a Gateway and reads it back as the watch tells it.
fn tell_address(world: &mut World, at: usize, address: &str) {
    let mut gateway = world.shown(at).unwrap();
    gateway.data["status"] = json!({ "addresses": [{ "type": "IPAddress", "value": address }] });
    let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&());
    world.cache.put(Kind::Gateway, &resource, gateway);
}

#[test]
fn a_replica_binds_the_addresses_that_another_one_has_told() {
    let mut world = World::default();
    let pool = "10.0.0.1-10.0.0.2".parse().unwrap();
    let mut cluster = Cluster::new(Arc::clone(&world.cache), Addressing::Pool(pool));
    for at in [0, 1, 2] {
        world.edit(Edit::Put(at, 0), &mut cluster);
    }
    cluster.read();
    let addresses = |cluster: &Cluster| {
        let gateways = cluster.objects().gateways.values();
        let address = |gateway: &Gateway| gateway.spec.addresses.as_ref()?.first()?.value.clone();
        gateways.filter_map(|gateway| address(gateway)).collect::<Vec<_>>()
    };
    assert_eq!(addresses(&cluster), ["10.0.0.1", "10.0.0.2"]);
    // The leader has met `b` before `a`; nothing but the statuses tells of it.
    tell_address(&mut world, 1, "10.0.0.2");
    tell_address(&mut world, 2, "10.0.0.1");
    let reading = cluster.read();
    let moved: Vec<_> = reading.changed.iter().map(ToString::to_string).collect();
    assert_eq!(moved, ["Gateway demo/a", "Gateway demo/b"]);
    assert_eq!(addresses(&cluster), ["10.0.0.2", "10.0.0.1"]);
    assert!(cluster.read().is_idle);
}

#[test]
fn an_edit_that_is_taken_back_costs_a_gateway_no_address() {
    let mut world = World::default();
    let pool = "10.0.0.1-10.0.0.2".parse().unwrap();
    let mut cluster = Cluster::new(Arc::clone(&world.cache), Addressing::Pool(pool));
    for at in [0, 2] {
        world.edit(Edit::Put(at, 0), &mut cluster);
    }
    cluster.read();
    cluster.stands();
    let address = |cluster: &Cluster, name: &str| {
        let gateway = &cluster.objects().gateways[&ObjectName::new("demo", name)];
        gateway.spec.addresses.as_ref()?.first()?.value.clone()
    };
    assert_eq!(address(&cluster, "b").as_deref(), Some("10.0.0.1"));
    let mut refused = object(2, 0);
    refused["spec"]["addresses"] = json!([{ "type": "Hostname", "value": "b.example.com" }]);
    world.written.insert(2, refused);
    world.put(2);
    world.edit(Edit::Put(1, 0), &mut cluster);
    cluster.read();
    assert!(cluster.reject(&ObjectRef { kind: "Gateway", name: ObjectName::new("demo", "b") }));
    cluster.stands();
    assert_eq!(["a", "b"].map(|name| address(&cluster, name).unwrap()), ["10.0.0.2", "10.0.0.1"]);
}

#[test]
fn an_object_that_was_made_anew_takes_over_nothing_of_the_one_before() {
    let mut world = World::default();
    let mut cluster = Cluster::new(Arc::clone(&world.cache), Addressing::Nobody);
    let route = ObjectRef { kind: "HTTPRoute", name: ObjectName::new("demo", "r") };
    let mut write = |cluster: &mut Cluster, uid: &str, mut route: Value| {
        route["metadata"]["uid"] = uid.into();
        world.written.insert(3, route);
        world.put(3);
        cluster.read().changed
    };
    write(&mut cluster, "a", object(3, 0));
    write(&mut cluster, "a", object(3, 1));
    assert!(cluster.reject(&route), "an edit is taken back");
    write(&mut cluster, "b", object(3, 2));
    assert!(!cluster.reject(&route), "there is nothing to go back to");
    let mut broken = object(3, 0);
    broken["spec"] = "broken".into();
    assert_eq!(write(&mut cluster, "b", broken.clone()), []);
    assert_eq!(cluster.objects().http_routes.len(), 1, "an edit leaves the last good version");
    assert_eq!(write(&mut cluster, "c", broken), [route]);
    assert!(cluster.objects().http_routes.is_empty());
}

//! The shape of statuses, and how later stages correct what the translator could not know.

use nantian_gateway::{
    gates::FeatureGates,
    ir::{ListenerId, ObjectName, Transport},
    pattern::Patterns,
    source::{ObjectRef, Placement, Placements, PublicAddress},
    tenancy::Tenancy,
    translate::{
        Environment, Locality,
        conditions::{Condition, ConditionType, Reason},
        status::Statuses,
        translate, translate_at,
    },
};
use serde_json::{Value, json};

use crate::load;

const WORLD: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: { name: nantian }
spec: { controllerName: gateway.nantian.dev/gateway-controller }
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: web, generation: 3 }
spec:
  gatewayClassName: nantian
  listeners:
  - { name: a, port: 80, protocol: HTTP }
  - { name: b, port: 81, protocol: HTTP }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: route, generation: 5 }
spec:
  parentRefs: [{ name: web, sectionName: a }]
---
apiVersion: gateway.nantian.dev/v1alpha1
kind: WasmPlugin
metadata: { name: plugin, generation: 7 }
spec:
  wasm: { inline: AGFzbQEAAAA= }
  targetRefs: [{ group: gateway.networking.k8s.io, kind: Gateway, name: web }]
"#;

#[test]
fn an_installation_answers_for_the_classes_of_its_own_controller_alone() {
    let mut objects = load::objects(WORLD);
    objects.controller = "example.com/inner".parse().unwrap();
    let translated = translate(&objects, FeatureGates::all());
    assert!(translated.ir.ports.is_empty() && translated.ir.routes.is_empty());
    let statuses = serde_json::to_value(&translated.statuses).unwrap();
    assert_eq!(statuses["HTTPRoute default/route"]["parents"], json!([]));
    assert_eq!(
        (&statuses["GatewayClass nantian"], &statuses["Gateway default/web"]),
        (&Value::Null, &Value::Null)
    );

    let mut objects =
        load::objects(&WORLD.replace("gateway.nantian.dev/gateway-controller", "example.com/inner"));
    objects.controller = "example.com/inner".parse().unwrap();
    let translated = translate(&objects, FeatureGates::all());
    assert_eq!(translated.ir.ports.len(), 2);
    let statuses = serde_json::to_value(&translated.statuses).unwrap();
    assert_eq!(statuses["HTTPRoute default/route"]["parents"][0]["controllerName"], "example.com/inner");
    assert_eq!(statuses["WasmPlugin default/plugin"]["ancestors"][0]["controllerName"], "example.com/inner");
}

#[test]
fn a_status_has_the_shape_of_its_kind() {
    let statuses = shown(&world());
    let accepted = |generation: u32, message: &str| {
        json!({
            "type": "Accepted", "status": "True", "reason": "Accepted", "message": message,
            "observedGeneration": generation,
        })
    };
    let parent = &statuses["HTTPRoute default/route"]["parents"][0];
    assert_eq!(parent["parentRef"], json!({ "name": "web", "sectionName": "a" }));
    assert_eq!(parent["controllerName"], "gateway.nantian.dev/gateway-controller");
    assert_eq!(parent["conditions"][0], accepted(5, "attached to 1 listener"));
    let listener = &statuses["Gateway default/web"]["listeners"][0];
    assert_eq!(listener["name"], "a");
    assert_eq!(listener["attachedRoutes"], 1);
    let kinds =
        ["HTTPRoute", "GRPCRoute"].map(|kind| json!({ "group": "gateway.networking.k8s.io", "kind": kind }));
    assert_eq!(listener["supportedKinds"], json!(kinds));
    let ancestor = &statuses["WasmPlugin default/plugin"]["ancestors"][0];
    let gateway = json!({
        "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "default", "name": "web",
    });
    assert_eq!(ancestor["ancestorRef"], gateway);
    assert_eq!(ancestor["conditions"][0], accepted(7, "in force on Gateway default/web"));
    let class = json!([{
        "type": "Accepted", "status": "True", "reason": "Accepted", "message": "served by this gateway",
    }]);
    assert_eq!(statuses["GatewayClass nantian"]["conditions"], class);
}

#[test]
fn a_gateway_stays_programmed_as_long_as_one_listener_is() {
    let mut statuses = world();
    let unbound = || Condition::fails(ConditionType::Programmed, Reason::AddressNotUsable, "address in use");
    statuses.set_listener_condition(&listener("a"), unbound());
    assert_eq!(programmed(&statuses), ["True", "Programmed", "1 of 2 listeners served"]);
    statuses.set_listener_condition(&listener("b"), unbound());
    assert_eq!(programmed(&statuses), ["False", "AddressNotUsable", "address in use"], "why is told");
    let bound = Condition::holds(ConditionType::Programmed, Reason::Programmed, "listener is served");
    statuses.set_listener_condition(&listener("b"), bound);
    assert_eq!(programmed(&statuses), ["True", "Programmed", "1 of 2 listeners served"]);
}

#[test]
fn a_gateway_counts_a_listener_whose_port_cannot_be_bound_as_not_valid() {
    let mut statuses = world();
    let accepted = |statuses: &Statuses| {
        let condition = &shown(statuses)["Gateway default/web"]["conditions"][0];
        ["type", "status", "reason", "message"].map(|field| condition[field].as_str().unwrap().to_owned())
    };
    let unbound = || Condition::fails(ConditionType::Accepted, Reason::PortUnavailable, "address in use");
    statuses.set_listener_condition(&listener("a"), unbound());
    let told = ["Accepted", "True", "ListenersNotValid", "1 of 2 listeners valid"];
    assert_eq!(accepted(&statuses), told);
    statuses.set_listener_condition(&listener("b"), unbound());
    assert_eq!(accepted(&statuses), ["Accepted", "False", "ListenersNotValid", "0 of 2 listeners valid"]);
}

#[test]
fn a_listener_set_counts_a_listener_whose_port_cannot_be_bound_as_not_valid() {
    let (world, set) = (
        WORLD.replace("  listeners:\n", "  allowedListeners: { namespaces: { from: Same } }\n  listeners:\n"),
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: { name: more }
spec:
  parentRef: { name: web }
  listeners:
  - { name: c, port: 82, protocol: HTTP }
  - { name: d, port: 83, protocol: HTTP }
",
    );
    let mut statuses = translate(&load::objects(&(world + set)), FeatureGates::all()).statuses;
    let told = |statuses: &Statuses| {
        let statuses = shown(statuses);
        let conditions = &statuses["ListenerSet default/more"]["conditions"];
        let text = |it: &Value| {
            ["type", "status", "reason", "message"].map(|field| it[field].as_str().unwrap().to_owned())
        };
        let told: Vec<_> = conditions.as_array().unwrap().iter().map(|it| text(it).join(" ")).collect();
        (told.join(", "), statuses["Gateway default/web"]["attachedListenerSets"].clone())
    };
    let id = |name: &str| ListenerId { set: Some(ObjectName::new("default", "more")), ..listener(name) };
    let valid =
        |told: &str| format!("Accepted True {told}, Programmed True Programmed 1 of 2 listeners served");
    statuses.set_unbound(&id("c"), "no such address", true);
    assert_eq!(told(&statuses), (valid("Accepted 2 of 2 listeners valid"), json!(1)), "it is free elsewhere");
    statuses.set_unbound(&id("c"), "address in use", false);
    assert_eq!(told(&statuses), (valid("ListenersNotValid 1 of 2 listeners valid"), json!(1)));
    statuses.set_unbound(&id("d"), "address in use", false);
    let none = "Accepted False ListenersNotValid 0 of 2 listeners valid, \
                Programmed False ListenersNotValid no listener is served";
    assert_eq!(told(&statuses), (none.to_owned(), Value::Null), "and no set is attached");
}

#[test]
fn a_listener_set_is_accepted_while_it_waits_for_its_certificate() {
    let world =
        WORLD.replace("  listeners:\n", "  allowedListeners: { namespaces: { from: Same } }\n  listeners:\n");
    let set = "---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: { name: more }
spec:
  parentRef: { name: web }
  listeners:
  - { name: c, port: 443, protocol: HTTPS, tls: { certificateRefs: [{ name: later }] } }
";
    for (reference, accepted, attached) in [
        ("{ name: later }", "True", json!(1)),
        ("{ name: later, namespace: others }", "False", Value::Null),
        ("{ name: later }, { name: later, namespace: others }", "False", Value::Null),
        ("{ name: later, namespace: others }, { name: later }", "False", Value::Null),
        (
            "{ name: later, namespace: others }] }, allowedRoutes: { kinds: [{ kind: Odd }",
            "False",
            Value::Null,
        ),
    ] {
        let set = set.replace("{ name: later }", reference);
        let world = load::objects(&format!("{world}{set}"));
        let statuses = shown(&translate(&world, FeatureGates::all()).statuses);
        let conditions = &statuses["ListenerSet default/more"]["conditions"];
        let told = [0, 1].map(|index| conditions[index]["status"].as_str().unwrap());
        assert_eq!(told, [accepted, "False"], "Accepted and Programmed: {conditions}");
        assert_eq!(statuses["Gateway default/web"]["attachedListenerSets"], attached);
    }
}

/// A class, and Gateways of these namespaces on these addresses, port 80, from the oldest to the youngest.
fn gateways(of: &[(&str, &str)]) -> String {
    let class = WORLD.split("---").next().unwrap().to_owned();
    let gateways = of.iter().enumerate().map(|(second, (namespace, addresses))| {
        let metadata = format!(
            "{{ name: g, namespace: {namespace}, creationTimestamp: '2026-01-01T00:00:0{second}Z' }}"
        );
        let listener = "{ name: a, port: 80, protocol: HTTP }";
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {metadata}\nspec: {{ gatewayClassName: \
             nantian, addresses: [{addresses}], listeners: [{listener}] }}\n"
        )
    });
    [class].into_iter().chain(gateways).collect::<Vec<_>>().join("---\n")
}

#[test]
fn nobody_takes_clients_from_gateways_of_others_by_naming_an_address() {
    let (open, bound, every) = ("", "{ value: 10.0.0.5 }", "{ value: 0.0.0.0 }");
    for (tenancy, of, programmed) in [
        (Tenancy::Shared, [("a", open), ("b", bound)], ["True", "False"]),
        (Tenancy::Shared, [("a", open), ("b", every)], ["True", "False"]),
        (Tenancy::Shared, [("b", bound), ("a", open)], ["True", "True"]),
        (Tenancy::Single, [("a", open), ("b", bound)], ["True", "True"]),
    ] {
        let environment = Environment { here: &Locality::default(), identities: None, tenancy };
        let objects = load::objects(&gateways(&of));
        let world = translate_at(&objects, FeatureGates::all(), &Patterns::default(), environment);
        let statuses = shown(&world.statuses);
        let seen = of.map(|(namespace, _)| {
            let conditions = &statuses[format!("Gateway {namespace}/g")]["listeners"][0]["conditions"];
            let conditions = conditions.as_array().unwrap();
            conditions.iter().find(|it| it["type"] == "Programmed").unwrap()["status"].clone()
        });
        assert_eq!(seen, programmed, "{tenancy:?} {of:?}");
    }
}

#[test]
fn a_gateway_with_a_service_is_told_whether_that_has_the_address_which_it_asks_for() {
    let told = |asked: &str, has: &[[u8; 4]]| {
        let mut objects = load::objects(&gateways(&[("a", asked)]));
        let addresses = has.iter().map(|address| PublicAddress::Ip((*address).into())).collect();
        let placement = Placement { ports: [((Transport::Tcp, 80), 10_080)].into(), addresses };
        objects.placements = Placements::InFront([(ObjectName::new("a", "g"), placement)].into());
        let shown = shown(&translate(&objects, FeatureGates::all()).statuses);
        let conditions = &shown["Gateway a/g"]["conditions"];
        [0, 1].map(|index| conditions[index]["reason"].as_str().unwrap().to_owned())
    };
    let one = "{ value: 10.96.0.5 }";
    assert_eq!(told(one, &[]), ["Accepted", "AddressNotAssigned"]);
    assert_eq!(told(one, &[[10, 96, 0, 9]]), ["Accepted", "AddressNotUsable"]);
    assert_eq!(told(one, &[[10, 96, 0, 9], [10, 96, 0, 5]]), ["Accepted", "Programmed"]);
    assert_eq!(told("{ value: '::' }", &[[10, 96, 0, 9]]), ["Accepted", "Programmed"]);
    let several = "{ value: 10.96.0.5 }, { value: 10.96.0.6 }";
    assert_eq!(told(several, &[[10, 96, 0, 5]]), ["UnsupportedAddress", "Invalid"]);
}

#[test]
fn a_module_that_does_not_compile_takes_its_plugin_out_of_force() {
    let mut statuses = world();
    let plugin = ObjectRef { kind: "WasmPlugin", name: ObjectName::new("default", "plugin") };
    let invalid = Condition::fails(ConditionType::Programmed, Reason::ModuleInvalid, "no such export");
    statuses.set_condition(&plugin, &invalid);
    let conditions = &shown(&statuses)["WasmPlugin default/plugin"]["ancestors"][0]["conditions"];
    let expected = json!({
        "type": "Programmed", "status": "False", "reason": "ModuleInvalid", "message": "no such export",
        "observedGeneration": 7,
    });
    assert_eq!(conditions.as_array().unwrap().len(), 3);
    assert_eq!(conditions[2], expected);
}

#[test]
fn what_has_no_status_cannot_be_corrected() {
    let mut statuses = world();
    let condition = Condition::holds(ConditionType::Programmed, Reason::Programmed, "");
    let absent = ObjectRef { kind: "Gateway", name: ObjectName::new("default", "absent") };
    statuses.set_condition(&absent, &condition);
    statuses.set_listener_condition(&listener("c"), condition);
    assert_eq!(shown(&statuses), shown(&world()));
}

fn world() -> Statuses {
    translate(&load::objects(WORLD), FeatureGates::all()).statuses
}

fn listener(name: &str) -> ListenerId {
    ListenerId { gateway: ObjectName::new("default", "web"), set: None, name: name.to_owned() }
}

fn shown(statuses: &Statuses) -> Value {
    serde_json::to_value(statuses).unwrap()
}

fn programmed(statuses: &Statuses) -> [String; 3] {
    let shown = shown(statuses);
    let condition = &shown["Gateway default/web"]["conditions"][1];
    assert_eq!(condition["type"], "Programmed");
    ["status", "reason", "message"].map(|field| condition[field].as_str().unwrap().to_owned())
}

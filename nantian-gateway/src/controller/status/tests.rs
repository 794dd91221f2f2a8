use std::net::IpAddr;

use super::*;
use crate::{
    ir::ObjectName,
    translate::{
        conditions::{Condition, ConditionType, Reason},
        status::{GatewayAddress, ParentReference, PlainStatus, RouteStatus},
    },
};

/// What is written of an object, by a gateway without features.
fn merged(
    object: &ObjectRef,
    present: &Value,
    now: &Timestamp,
    truth: Option<&ObjectStatus>,
) -> Option<Value> {
    let (controller, claims) = (ControllerName::default(), ClassClaims::default());
    super::merged(object, present, now, truth, &controller, &claims, false).status
}

fn object(kind: &'static str) -> ObjectRef {
    ObjectRef { kind, name: ObjectName::new("demo", "it") }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn accepted(generation: i64, holds: bool) -> Conditions {
    let mut conditions = Conditions::new(Some(generation));
    conditions.set(match holds {
        true => Condition::holds(ConditionType::Accepted, Reason::Accepted, "attached"),
        false => Condition::fails(ConditionType::Accepted, Reason::NoMatchingParent, "no listener"),
    });
    conditions
}

fn route(parents: &[(&str, Conditions)]) -> ObjectStatus {
    let parents = parents.iter().map(|(name, conditions)| ParentStatus {
        parent_ref: ParentReference { name: (*name).to_owned(), ..ParentReference::default() },
        controller_name: ControllerName::default(),
        conditions: conditions.clone(),
    });
    ObjectStatus::Route(RouteStatus { parents: parents.collect() })
}

#[test]
fn what_is_written_once_is_not_written_again() {
    let truth = route(&[("a", accepted(1, true))]);
    let status = merged(&object("HTTPRoute"), &Value::Null, &at(1), Some(&truth)).unwrap();
    assert_eq!(status["parents"][0]["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:01Z");
    assert_eq!(merged(&object("HTTPRoute"), &status, &at(2), Some(&truth)), None);
}

#[test]
fn the_time_moves_only_with_the_status() {
    let time = |status: &Value| status["parents"][0]["conditions"][0]["lastTransitionTime"].clone();
    let merge = |present: &Value, second, generation, holds| {
        let truth = route(&[("a", accepted(generation, holds))]);
        merged(&object("HTTPRoute"), present, &at(second), Some(&truth)).unwrap()
    };
    let first = merge(&Value::Null, 1, 1, true);
    let edited = merge(&first, 2, 2, true);
    assert_eq!(time(&edited), time(&first));
    assert_eq!(edited["parents"][0]["conditions"][0]["observedGeneration"], 2);
    let refused = merge(&edited, 3, 3, false);
    assert_eq!(time(&refused), "1970-01-01T00:00:03Z");
}

#[test]
fn entries_of_other_controllers_stay_and_our_stale_ones_go() {
    let foreign =
        json!({ "parentRef": { "name": "a" }, "controllerName": "example.com/other", "conditions": [] });
    let stale = json!({ "parentRef": { "name": "gone" }, "controllerName": ControllerName::default(), "conditions": [] });
    let present = json!({ "parents": [stale, foreign] });
    let truth = route(&[("a", accepted(1, true))]);
    let status = merged(&object("HTTPRoute"), &present, &at(1), Some(&truth)).unwrap();
    assert_eq!(status["parents"][0], foreign);
    assert_eq!(status["parents"][1]["parentRef"]["name"], "a");
    assert_eq!(status["parents"].as_array().unwrap().len(), 2);
    let left = merged(&object("HTTPRoute"), &status, &at(2), None).unwrap();
    assert_eq!(left["parents"], json!([foreign]));
    assert_eq!(merged(&object("HTTPRoute"), &left, &at(3), None), None);
}

#[test]
fn no_entry_is_taken_away_while_there_may_be_more_to_say() {
    let (route_ref, controller) = (object("HTTPRoute"), ControllerName::default());
    let truth = route(&[("a", accepted(1, true)), ("b", accepted(1, true))]);
    let present = merged(&route_ref, &Value::Null, &at(1), Some(&truth)).unwrap();
    let truth = route(&[("b", accepted(2, false)), ("c", accepted(2, true))]);
    let merged =
        super::merged(&route_ref, &present, &at(2), Some(&truth), &controller, &ClassClaims::default(), true);
    let status = merged.status.unwrap();
    let parents = status["parents"].as_array().unwrap().iter();
    let said = parents.map(|it| json!([it["parentRef"]["name"], it["conditions"][0]["status"]]));
    let known = [["a", "True"], ["b", "False"], ["c", "True"]];
    assert_eq!(said.collect::<Vec<_>>(), known.map(|it| json!(it)));
}

#[test]
fn nothing_is_written_about_what_is_not_ours() {
    for kind in ["HTTPRoute", "TokenPolicy", "Gateway", "ListenerSet", "GatewayClass"] {
        let present = json!({ "conditions": [{ "type": "Accepted" }] });
        assert_eq!(merged(&object(kind), &present, &at(1), None), None, "{kind}");
        assert_eq!(merged(&object(kind), &Value::Null, &at(1), None), None, "{kind}");
    }
}

#[test]
fn what_was_said_of_an_ai_service_is_taken_back() {
    let said = merged(&object("AIService"), &Value::Null, &at(1), Some(&plain(1, true))).unwrap();
    let left = merged(&object("AIService"), &said, &at(2), None).unwrap();
    assert_eq!(left["conditions"], json!([]));
    for present in [left, Value::Null] {
        assert_eq!(merged(&object("AIService"), &present, &at(3), None), None);
    }
}

#[test]
fn a_gateway_whose_class_is_gone_is_not_said_to_be_served() {
    let listener = json!({ "name": "http", "supportedKinds": [], "attachedRoutes": 1, "conditions": [] });
    let condition = |kind: &str| json!({ "type": kind, "status": "True", "reason": kind, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" });
    let present = json!({
        "addresses": [{ "value": "10.0.0.1" }], "listeners": [listener],
        "conditions": [condition("Accepted"), condition("Programmed")],
    });
    let class = ObjectRef { kind: "GatewayClass", name: ObjectName::new("", "nantian") };
    let truth = abandoned(&object("Gateway"), &class, Some(3));
    let status = merged(&object("Gateway"), &present, &at(1), Some(&truth)).unwrap();
    for condition in status["conditions"].as_array().unwrap() {
        assert_eq!((&condition["status"], &condition["observedGeneration"]), (&json!("Unknown"), &json!(3)));
        assert_eq!(condition["message"], "GatewayClass nantian does not exist");
    }
    assert_eq!((&status["addresses"], &status["listeners"]), (&json!([]), &json!([])));
}

#[test]
fn conditions_of_others_on_a_gateway_stay() {
    let theirs = json!({
        "type": "example.com/Audited", "status": "True", "reason": "Fine", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let listener = ListenerStatus {
        name: "http".to_owned(),
        supported_kinds: Vec::new(),
        attached_routes: 0,
        conditions: accepted(1, true),
    };
    let truth = ObjectStatus::Gateway(GatewayStatus {
        conditions: accepted(1, true),
        listeners: vec![listener],
        ..GatewayStatus::default()
    });
    let listeners = json!([{ "name": "http", "conditions": [theirs] }]);
    let present = json!({ "conditions": [theirs], "listeners": listeners });
    let status = merged(&object("Gateway"), &present, &at(1), Some(&truth)).unwrap();
    for conditions in [&status["conditions"], &status["listeners"][0]["conditions"]] {
        assert_eq!((&conditions[0], &conditions[1]["type"]), (&theirs, &json!("Accepted")));
    }
    assert_eq!(merged(&object("Gateway"), &status, &at(2), Some(&truth)), None);
}

#[test]
fn a_class_tells_its_features_together_with_its_acceptance() {
    let truth = ObjectStatus::Plain(PlainStatus { conditions: accepted(1, true) });
    let merged = |present, second| {
        let version = Condition::holds(ConditionType::SupportedVersion, Reason::SupportedVersion, "v1.6.1");
        let claims = ClassClaims { features: &["GRPCRoute", "Gateway"], version: Some(&version) };
        let controller = ControllerName::default();
        super::merged(
            &object("GatewayClass"),
            present,
            &at(second),
            Some(&truth),
            &controller,
            &claims,
            false,
        )
        .status
    };
    let status = merged(&Value::Null, 1).unwrap();
    for (index, kind) in ["Accepted", "SupportedVersion"].into_iter().enumerate() {
        let condition = &status["conditions"][index];
        assert_eq!((&condition["type"], &condition["observedGeneration"]), (&json!(kind), &json!(1)));
    }
    assert_eq!(status["supportedFeatures"], json!([{ "name": "GRPCRoute" }, { "name": "Gateway" }]));
    assert_eq!(merged(&status, 2), None);
}

/// As a leader begins, and one that may not read the CRDs goes on.
#[test]
fn what_another_leader_has_said_of_the_version_stays_until_it_is_known() {
    let said = json!({ "type": "SupportedVersion", "status": "True", "reason": "SupportedVersion",
        "message": "v1.6.1", "observedGeneration": 1, "lastTransitionTime": "1970-01-01T00:00:00Z" });
    let truth = ObjectStatus::Plain(PlainStatus { conditions: accepted(1, true) });
    let present = json!({ "conditions": [said] });
    let status = merged(&object("GatewayClass"), &present, &at(1), Some(&truth)).unwrap();
    assert_eq!(status["conditions"][0], said);
    assert_eq!(status["conditions"][1]["type"], "Accepted");
}

#[test]
fn a_judgement_of_an_older_generation_overwrites_no_newer_one() {
    let newer = merged(&object("AIService"), &Value::Null, &at(1), Some(&plain(5, true))).unwrap();
    assert_eq!(merged(&object("AIService"), &newer, &at(2), Some(&plain(4, false))), None);
}

fn plain(generation: i64, holds: bool) -> ObjectStatus {
    ObjectStatus::Plain(PlainStatus { conditions: accepted(generation, holds) })
}

fn ours(name: &str) -> AncestorStatus {
    AncestorStatus {
        ancestor_ref: ParentReference { name: name.to_owned(), ..ParentReference::default() },
        controller_name: ControllerName::default(),
        conditions: accepted(1, true),
    }
}

#[test]
fn ancestors_for_which_others_leave_no_room_are_counted() {
    let ancestor = |name: String, controller: &str| json!({ "ancestorRef": { "name": name }, "controllerName": controller, "conditions": [] });
    let others: Vec<_> = (0..15).map(|index| ancestor(format!("g{index}"), "example.com/other")).collect();
    let truth = ObjectStatus::Policy(crate::translate::status::PolicyStatus {
        ancestors: vec![ours("a"), ours("b")],
    });
    let present = json!({ "ancestors": others });
    let controller = ControllerName::default();
    let merged = super::merged(
        &object("TokenPolicy"),
        &present,
        &at(1),
        Some(&truth),
        &controller,
        &ClassClaims::default(),
        false,
    );
    assert_eq!(merged.left_out, 1);
    assert_eq!(merged.status.unwrap()["ancestors"].as_array().unwrap().len(), 16);
}

#[test]
fn a_gateway_of_many_addresses_has_a_status_that_the_api_server_takes() {
    let addresses = (1..=17).map(|last| GatewayAddress::from(IpAddr::from([192, 0, 2, last]))).collect();
    let truth = GatewayStatus { addresses, conditions: accepted(1, true), ..GatewayStatus::default() };
    let truth = ObjectStatus::Gateway(truth);
    let status = merged(&object("Gateway"), &json!({}), &at(1), Some(&truth)).unwrap();
    assert_eq!(status["addresses"].as_array().map(Vec::len), Some(16));
    assert_eq!(merged(&object("Gateway"), &status, &at(2), Some(&truth)), None, "written once");
}

#[test]
fn entries_of_other_controllers_in_the_status_of_a_policy_stay_as_they_are() {
    // Conditions were optional once, and fields may come.
    let theirs = json!({ "ancestorRef": { "name": "g" }, "controllerName": "example.com/other", "new": 1 });
    let present = json!({ "ancestors": [theirs], "observed": true });
    let truth = ObjectStatus::Policy(crate::translate::status::PolicyStatus { ancestors: vec![ours("g")] });
    let status = merged(&object("BackendTLSPolicy"), &present, &at(1), Some(&truth)).unwrap();
    assert_eq!((&status["ancestors"][0], &status["observed"]), (&theirs, &json!(true)));
    assert_eq!(status["ancestors"][1]["conditions"][0]["type"], "Accepted");
    assert_eq!(merged(&object("BackendTLSPolicy"), &status, &at(2), Some(&truth)), None);
    assert_eq!(merged(&object("BackendTLSPolicy"), &status, &at(3), None), Some(present));
}

#[test]
fn two_controllers_do_not_put_the_entries_of_a_route_in_order_in_turn() {
    let truth = route(&[("a", accepted(1, true))]);
    let write = |present: &Value, controller: &ControllerName| {
        super::merged(
            &object("HTTPRoute"),
            present,
            &at(1),
            Some(&truth),
            controller,
            &ClassClaims::default(),
            false,
        )
        .status
    };
    let [one, other] = ["example.com/one", "example.com/other"].map(|name| name.parse().unwrap());
    let first = write(&Value::Null, &one).unwrap();
    let both = write(&first, &other).unwrap();
    assert_eq!((write(&both, &one), write(&both, &other)), (None, None));
}

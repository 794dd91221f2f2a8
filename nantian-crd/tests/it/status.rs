use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use nantian_crd::status::{ParentReference, PolicyAncestorStatus, PolicyStatus, merge};
use nantian_crd::{NantianObject, validate};
use serde_json::json;

use crate::seed::seed;

fn condition(second: i64, generation: i64, type_: &str, holds: bool) -> Condition {
    Condition {
        last_transition_time: Time(Timestamp::from_second(second).expect("it is in range")),
        message: String::new(),
        observed_generation: Some(generation),
        reason: if holds { type_ } else { "Conflicted" }.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        type_: type_.to_owned(),
    }
}

fn accepted(second: i64, generation: i64) -> Condition {
    condition(second, generation, "Accepted", true)
}

fn conflicted(second: i64, generation: i64) -> Condition {
    condition(second, generation, "Accepted", false)
}

fn times(conditions: &[Condition]) -> Vec<i64> {
    conditions.iter().map(|condition| condition.last_transition_time.0.as_second()).collect()
}

#[test]
fn transition_time_moves_only_when_the_status_changes() {
    let mut conditions = Vec::new();
    assert!(merge(&mut conditions, accepted(1, 1)));
    assert!(!merge(&mut conditions, accepted(2, 1)), "nothing changed");
    assert!(merge(&mut conditions, accepted(3, 2)), "the generation changed");
    assert_eq!((times(&conditions), conditions.len()), (vec![1], 1));
    assert!(merge(&mut conditions, conflicted(4, 2)));
    assert_eq!(times(&conditions), [4]);
    let condition = conditions.first().expect("there is one");
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "Conflicted"));
}

#[test]
fn a_condition_of_a_newer_generation_is_left_alone() {
    let mut conditions = Vec::new();
    merge(&mut conditions, accepted(1, 5));
    assert!(!merge(&mut conditions, conflicted(2, 4)));
    assert_eq!(conditions.first().map(|condition| condition.status.as_str()), Some("True"));
}

#[test]
fn conditions_of_other_types_stay() {
    let mut conditions = Vec::new();
    merge(&mut conditions, condition(1, 1, "Programmed", true));
    merge(&mut conditions, accepted(1, 1));
    let types: Vec<_> = conditions.iter().map(|condition| condition.type_.as_str()).collect();
    assert_eq!(types, ["Programmed", "Accepted"]);
}

#[test]
fn a_long_message_is_cut_between_characters() {
    let mut conditions = Vec::new();
    merge(&mut conditions, Condition { message: "…".repeat(20_000), ..accepted(1, 1) });
    assert!(conditions.iter().all(|condition| (32_760..=32_768).contains(&condition.message.len())));
}

#[test]
fn a_status_is_read_back_and_a_strange_one_counts_as_absent() {
    let mut object = seed("token-policy");
    let status = PolicyStatus {
        ancestors: vec![PolicyAncestorStatus {
            ancestor_ref: ParentReference::gateway("demo", "edge"),
            controller_name: "gateway.nantian.dev/gateway-controller".to_owned(),
            conditions: vec![accepted(1, 1)],
        }],
    };
    let Some(fields) = object.as_object_mut() else { panic!("a manifest is an object") };
    fields.insert("status".to_owned(), serde_json::to_value(&status).expect("a status is JSON"));
    let Ok(NantianObject::TokenPolicy(read)) = validate(&object) else { panic!("it has faults") };
    assert_eq!(read.status, Some(status));
    let Some(fields) = object.as_object_mut() else { panic!("a manifest is an object") };
    fields.insert("status".to_owned(), json!({ "ancestors": 7 }));
    let Ok(NantianObject::TokenPolicy(read)) = validate(&object) else { panic!("it has faults") };
    assert_eq!(read.status, None);
}

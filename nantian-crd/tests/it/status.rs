use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use nantian_crd::status::{
    AncestorRef, ConditionType, MAX_ANCESTORS, PolicyAncestorStatus, PolicyStatus, Reason, Verdict, merge_at,
};
use nantian_crd::{NantianObject, validate};
use serde_json::json;

use crate::seed::seed;

const OURS: &str = "gateway.nantian.dev/gateway-controller";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("it is in range")
}

fn accepted() -> Verdict {
    Verdict::holds(ConditionType::Accepted, Reason::Accepted, "attached")
}

fn conflicted() -> Verdict {
    Verdict::fails(ConditionType::Accepted, Reason::Conflicted, "older: a/b")
}

fn times(conditions: &[Condition]) -> Vec<i64> {
    conditions.iter().map(|condition| condition.last_transition_time.0.as_second()).collect()
}

#[test]
fn transition_time_moves_only_when_the_status_changes() {
    let mut conditions = Vec::new();
    assert!(merge_at(&mut conditions, at(1), Some(1), accepted()));
    assert!(!merge_at(&mut conditions, at(2), Some(1), accepted()), "nothing changed");
    assert!(merge_at(&mut conditions, at(3), Some(2), accepted()), "the generation changed");
    assert_eq!((times(&conditions), conditions.len()), (vec![1], 1));
    assert!(merge_at(&mut conditions, at(4), Some(2), conflicted()));
    assert_eq!(times(&conditions), [4]);
    let condition = conditions.first().expect("there is one");
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "Conflicted"));
}

#[test]
fn a_condition_of_a_newer_generation_is_left_alone() {
    let mut conditions = Vec::new();
    merge_at(&mut conditions, at(1), Some(5), accepted());
    assert!(!merge_at(&mut conditions, at(2), Some(4), conflicted()));
    assert_eq!(conditions.first().map(|condition| condition.status.as_str()), Some("True"));
}

#[test]
fn conditions_of_other_types_stay() {
    let mut conditions = Vec::new();
    merge_at(&mut conditions, at(1), None, Verdict::holds(ConditionType::Programmed, Reason::Programmed, ""));
    merge_at(&mut conditions, at(1), None, accepted());
    let types: Vec<_> = conditions.iter().map(|condition| condition.type_.as_str()).collect();
    assert_eq!(types, ["Programmed", "Accepted"]);
}

#[test]
fn a_long_message_is_cut_between_characters() {
    let mut conditions = Vec::new();
    let verdict = Verdict::fails(ConditionType::Accepted, Reason::Invalid, "…".repeat(20_000));
    merge_at(&mut conditions, at(1), None, verdict);
    assert!(conditions.iter().all(|condition| (32_760..=32_768).contains(&condition.message.len())));
}

#[test]
fn what_other_controllers_say_stays_and_what_no_longer_holds_goes() {
    let foreign = PolicyAncestorStatus {
        ancestor_ref: AncestorRef::gateway("demo", "edge"),
        controller_name: "example.com/other".to_owned(),
        conditions: Vec::new(),
    };
    let mut status = PolicyStatus { ancestors: vec![foreign.clone()] };
    let both = ["edge", "inner"].map(|name| (AncestorRef::gateway("demo", name), vec![accepted()]));
    assert!(status.apply_at(at(1), OURS, Some(1), both.clone()).changed);
    assert!(!status.apply_at(at(2), OURS, Some(1), both).changed);
    assert_eq!(status.ancestors.len(), 3);
    let inner = (AncestorRef::gateway("demo", "inner"), vec![conflicted()]);
    assert!(status.apply_at(at(3), OURS, Some(1), [inner]).changed);
    assert_eq!(status.ancestors.first(), Some(&foreign));
    assert_eq!(status.ancestors.len(), 2);
    assert!(status.apply_at(at(4), OURS, Some(1), []).changed);
    assert_eq!(status.ancestors, [foreign]);
}

#[test]
fn a_full_status_leaves_out_and_says_so() {
    let mut status = PolicyStatus::default();
    let entries =
        (0..MAX_ANCESTORS + 2).map(|n| (AncestorRef::gateway("demo", n.to_string()), vec![accepted()]));
    let applied = status.apply_at(at(1), OURS, None, entries);
    assert_eq!(status.ancestors.len(), MAX_ANCESTORS);
    assert_eq!(applied.left_out, ["16", "17"].map(|name| AncestorRef::gateway("demo", name)));
}

#[test]
fn a_status_is_read_back_and_a_strange_one_counts_as_absent() {
    let mut object = seed("token-policy");
    let mut status = PolicyStatus::default();
    status.apply_at(at(1), OURS, Some(1), [(AncestorRef::gateway("demo", "edge"), vec![accepted()])]);
    let Some(fields) = object.as_object_mut() else { panic!("a manifest is an object") };
    fields.insert("status".to_owned(), serde_json::to_value(&status).expect("a status is JSON"));
    let Ok(NantianObject::TokenPolicy(read)) = validate(&object) else { panic!("it has faults") };
    assert_eq!(read.status, Some(status));
    let Some(fields) = object.as_object_mut() else { panic!("a manifest is an object") };
    fields.insert("status".to_owned(), json!({ "ancestors": 7 }));
    let Ok(NantianObject::TokenPolicy(read)) = validate(&object) else { panic!("it has faults") };
    assert_eq!(read.status, None);
}

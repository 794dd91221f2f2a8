use std::{sync::LazyLock, time};

use nantian_crd::{AuthType, Backoff, Duration, FaultKind, NantianKind, Scope, crds, validate};
use proptest::prelude::*;
use regex::Regex;
use serde_json::{Map, Value, json};

use crate::{broken::variants, seed::seed};

const SEEDS: [&str; 4] = ["ai-service", "token-policy", "wasm-plugin", "backend-lb-policy"];
const LONGEST_MS: u64 = ((99_999 * 60 + 59) * 60 + 59) * 1000 + 999;

/// Every name that occurs in a variant, so that random objects get past the first check.
static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
    fn collect(value: &Value, names: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    names.push(name.clone());
                    collect(field, names);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, names)),
            _ => {}
        }
    }
    let mut names = Vec::new();
    variants().for_each(|variant| collect(&variant.object, &mut names));
    names.sort();
    names.dedup();
    names
});

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-1..200_i64).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        prop::sample::select(vec!["", "none", "Header", "Service", "5s", "99999h99999h", "a", "{}"])
            .prop_map(Value::from),
    ]
}

fn json() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 24, 4, |inner| {
        let name = prop::sample::select(NAMES.clone());
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..5)
                .prop_map(|fields| Value::Object(Map::from_iter(fields))),
        ]
    })
}

fn places(value: &Value) -> usize {
    1 + match value {
        Value::Object(fields) => fields.values().map(places).sum::<usize>(),
        Value::Array(items) => items.iter().map(places).sum(),
        _ => 0,
    }
}

/// Puts `new` in the `place`-th place of `value`, counted depth first.
fn replace(value: &mut Value, place: &mut usize, new: &Value) {
    if *place == 0 {
        *value = new.clone();
    }
    *place = place.wrapping_sub(1);
    match value {
        Value::Object(fields) if *place < usize::MAX / 2 => {
            fields.values_mut().for_each(|field| replace(field, place, new));
        }
        Value::Array(items) if *place < usize::MAX / 2 => {
            items.iter_mut().for_each(|item| replace(item, place, new));
        }
        _ => {}
    }
}

/// What the CRD of a kind demands of a text field.
fn pattern(kind: NantianKind, pointer: &str) -> Regex {
    let crd = crds().into_iter().find(|crd| crd.spec.names.kind == kind.as_str()).expect("a CRD");
    let crd = serde_json::to_value(crd).expect("a CRD is JSON");
    let pointer =
        format!("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/{pointer}/pattern");
    Regex::new(crd.pointer(&pointer).and_then(Value::as_str).expect("a pattern"))
        .expect("a regular expression")
}

static DURATION: LazyLock<Regex> = LazyLock::new(|| pattern(NantianKind::AiService, "timeout"));
static BACKOFF: LazyLock<Regex> =
    LazyLock::new(|| pattern(NantianKind::AiService, "retry/properties/backoff"));
static AUTH_TYPE: LazyLock<Regex> = LazyLock::new(|| pattern(NantianKind::AiService, "auth/properties/type"));
static SCOPE: LazyLock<Regex> = LazyLock::new(|| pattern(NantianKind::TokenPolicy, "scope"));

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_json_is_judged(value in json(), kind in prop::sample::select(NantianKind::ALL.to_vec())) {
        let _ = validate(&value);
        let object = json!({ "apiVersion": kind.api_version(), "kind": kind.as_str(), "metadata": { "name": "a" }, "spec": value });
        if let Err(faults) = validate(&object) {
            let unreadable = faults.iter().find(|fault| matches!(fault.kind, FaultKind::Unreadable { .. }));
            prop_assert_eq!(unreadable, None);
            prop_assert!(faults.iter().all(|fault| !fault.to_string().contains('\n')));
        }
    }

    #[test]
    fn what_has_no_fault_can_be_read_and_written_back(name in prop::sample::select(SEEDS.to_vec()), place in any::<prop::sample::Index>(), new in json()) {
        let mut object = seed(name);
        let mut place = place.index(places(&object));
        replace(&mut object, &mut place, &new);
        match validate(&object) {
            Ok(read) => {
                let written = serde_json::to_value(&read).expect("an object is JSON");
                prop_assert_eq!(validate(&written), Ok(read));
            }
            Err(faults) => {
                let unreadable = faults.iter().find(|fault| matches!(fault.kind, FaultKind::Unreadable { .. }));
                prop_assert_eq!(unreadable, None);
            }
        }
    }

    #[test]
    fn duration_reads_what_it_writes(ms in 0..=LONGEST_MS) {
        let duration = Duration::try_from(time::Duration::from_millis(ms)).expect("it is in range");
        let text = duration.to_string();
        prop_assert!(DURATION.is_match(&text));
        prop_assert_eq!(text.parse(), Ok(duration));
    }

    #[test]
    fn duration_reads_what_its_pattern_admits(text in "([0-9]{0,6}(h|m|s|ms|d|)){0,5}") {
        let too_long = matches!(text.parse::<Duration>(), Err(nantian_crd::InvalidDuration::TooLong(_)));
        prop_assert_eq!(text.parse::<Duration>().is_ok() || too_long, DURATION.is_match(&text));
    }

    #[test]
    fn scope_reads_what_its_pattern_admits(text in "(route|user|apiKey|header:[a-z+ A-Z%]{0,3}|Route|[a-z]{0,4}){1}(\\+(ip|model|header:x|)){0,3}") {
        prop_assert_eq!(text.parse::<Scope>().is_ok(), SCOPE.is_match(&text));
    }

    #[test]
    fn backoff_reads_what_its_pattern_admits(text in "(exponential|linear|fixed|Linear|[0-9]{1,3}(s|ms|)|)") {
        prop_assert_eq!(text.parse::<Backoff>().is_ok(), BACKOFF.is_match(&text));
    }

    #[test]
    fn auth_type_reads_what_its_pattern_admits(text in "[bB]earer|[aA]pi-?[kK]ey|BASIC|[nN]one|custom|[a-z]{0,6}") {
        prop_assert_eq!(text.parse::<AuthType>().is_ok(), AUTH_TYPE.is_match(&text));
    }
}

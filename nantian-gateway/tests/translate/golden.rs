//! Golden files: `tests/golden/<case>/input.yaml` gives `expected.yaml`.
//!
//! `UPDATE_GOLDEN=1` writes what the translator says now; read it before committing it.

use std::{env, fs, path::Path};

use nantian_gateway::{
    gates::FeatureGates,
    pattern::Patterns,
    tenancy::Tenancy,
    translate::{Environment, Locality, Translation, translate_at},
};
use serde_json::{Map, Value};

use crate::load;

/// The first line of an input may name the gates: `# gates: AIService=true`. Else all are open.
const GATES: &str = "# gates:";
/// Or the zone and the node that the gateway runs in.
const HERE: &str = "# here:";

#[test]
fn every_golden_case_translates_as_expected() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 25, "only {} cases", cases.len());
    let mut different = Vec::new();
    for case in cases {
        let input = fs::read_to_string(case.join("input.yaml")).unwrap();
        let actual = show(&input);
        let expected = case.join("expected.yaml");
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, &actual).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != actual {
            different.push(format!("{}:\n{actual}", case.display()));
        }
    }
    assert!(different.is_empty(), "differs from expected.yaml\n{}", different.join("\n"));
}

#[test]
fn the_same_objects_give_the_same_translation() {
    let input = include_str!("../golden/four-kinds/input.yaml");
    assert_eq!(show(input), show(input));
}

/// What `/config` shows, short enough to be read: a condition is one line, and what is empty is left out.
fn show(input: &str) -> String {
    let gates = match input.lines().next().and_then(|line| line.strip_prefix(GATES)) {
        Some(gates) => gates.trim().parse().unwrap(),
        None => FeatureGates::all(),
    };
    let here = input.lines().next().and_then(|line| line.strip_prefix(HERE)?.trim().split_once(' '));
    let here = here.map_or_else(Locality::default, |(zone, node)| Locality {
        zone: zone.to_owned(),
        node: node.to_owned(),
    });
    let environment = Environment { here: &here, identities: None, tenancy: Tenancy::Single };
    let translation: Translation =
        translate_at(&load::objects(input), gates, &Patterns::default(), environment);
    let full = serde_json::to_value(&translation).unwrap();
    serde_saphyr::to_string(&shorten(full)).unwrap()
}

fn shorten(value: Value) -> Value {
    match value {
        Value::Array(list) => Value::Array(list.into_iter().map(shorten).collect()),
        Value::Object(map) if map.contains_key("reason") => Value::String(condition(&map)),
        Value::Object(map) => {
            let fields = map.into_iter().map(|(name, field)| (name, shorten(field)));
            Value::Object(fields.filter(|(_, field)| !is_empty(field)).collect())
        }
        other => other,
    }
}

fn condition(fields: &Map<String, Value>) -> String {
    let text = |name: &str| fields[name].as_str().unwrap();
    let generation = fields.get("observedGeneration").map(|generation| format!(" @{generation}"));
    let generation = generation.unwrap_or_default();
    format!("{} {} {}{generation}: {}", text("type"), text("status"), text("reason"), text("message"))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

//! Each rule stands twice, as CEL for the API server and as Rust for offline validation; both must judge
//! alike.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cel::{Context, Env, Program, Value as CelValue, extensions::strings};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, ValidationRule,
};
use nantian_crd::{Fault, FaultKind, crds, validate};
use serde_json::Value;

use crate::broken::variants;

/// The schema of each kind.
fn schemas() -> BTreeMap<String, JSONSchemaProps> {
    let schema = |crd: CustomResourceDefinition| {
        let version = crd.spec.versions.into_iter().next().expect("a version");
        let schema = version.schema.and_then(|schema| schema.open_api_v3_schema).expect("a schema");
        (crd.spec.names.kind, schema)
    };
    crds().into_iter().map(schema).collect()
}

/// Fills in defaults, as the API server does before it evaluates rules, and drops nulls.
fn with_defaults(schema: &JSONSchemaProps, value: &mut Value) {
    if let Value::Object(object) = value {
        object.retain(|_, field| !field.is_null());
        for (name, field) in schema.properties.iter().flatten() {
            if let (Some(default), None) = (&field.default, object.get(name)) {
                object.insert(name.clone(), default.0.clone());
            }
            if let Some(value) = object.get_mut(name) {
                with_defaults(field, value);
            }
        }
    }
    if let (Value::Array(items), Some(JSONSchemaPropsOrArray::Schema(schema))) = (value, &schema.items) {
        items.iter_mut().for_each(|item| with_defaults(schema, item));
    }
}

/// Hands every rule of the schema to `judge`, with the value it is about and the path of that value.
fn each_rule(
    schema: &JSONSchemaProps,
    value: &Value,
    path: &str,
    judge: &mut impl FnMut(&ValidationRule, &Value, &str),
) {
    for rule in schema.x_kubernetes_validations.iter().flatten() {
        judge(rule, value, path);
    }
    for (name, field) in schema.properties.iter().flatten() {
        if let Some(value) = value.get(name) {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            each_rule(field, value, &path, judge);
        }
    }
    if let (Some(JSONSchemaPropsOrArray::Schema(schema)), Some(items)) = (&schema.items, value.as_array()) {
        for (index, item) in items.iter().enumerate() {
            each_rule(schema, item, &format!("{path}[{index}]"), judge);
        }
    }
}

/// The rules, compiled once each.
#[derive(Default)]
struct Cel(BTreeMap<String, Program>);

impl Cel {
    fn holds(&mut self, rule: &str, value: &Value) -> bool {
        let mut env = Env::stdlib();
        env.add_extension(strings).expect("the API server has these functions too");
        let env = Arc::new(env);
        let program = self
            .0
            .entry(rule.to_owned())
            .or_insert_with(|| env.compile(rule).unwrap_or_else(|error| panic!("{rule}: {error}")));
        let mut context = Context::with_env(env);
        context.add_variable("self", value).expect("JSON is CEL");
        match program.execute(&context) {
            Ok(CelValue::Bool(holds)) => holds,
            other => panic!("{rule} on {value}: {other:?}"),
        }
    }
}

/// The rules that Rust finds broken, by path and message; nothing if the schema itself already refuses the
/// object, since then the API server does not get to the rules.
fn broken_in_rust(object: &Value) -> Option<BTreeSet<(String, String)>> {
    let Err(faults) = validate(object) else {
        return Some(BTreeSet::new());
    };
    let rule = |fault: Fault| match fault.kind {
        FaultKind::Rule { message } => Some((fault.path.to_string(), message.to_owned())),
        _ => None,
    };
    faults.into_iter().map(rule).collect()
}

#[test]
fn cel_and_rust_judge_alike() {
    let mut verdicts: BTreeMap<String, BTreeSet<bool>> = BTreeMap::new();
    let schemas = schemas();
    let mut cel = Cel::default();
    for variant in variants() {
        let Some(in_rust) = broken_in_rust(&variant.object) else { continue };
        let kind = variant.object.get("kind").and_then(Value::as_str).expect("a kind");
        let schema = schemas.get(kind).expect("a schema of the kind");
        let mut object = variant.object.clone();
        with_defaults(schema, &mut object);
        let mut in_cel = BTreeSet::new();
        each_rule(schema, &object, "", &mut |rule, value, path| {
            let holds = cel.holds(&rule.rule, value);
            verdicts.entry(rule.rule.clone()).or_default().insert(holds);
            if !holds {
                let field = rule.field_path.as_deref().unwrap_or_default();
                in_cel.insert((format!("{path}{field}"), rule.message.clone().expect("a message")));
            }
        });
        assert_eq!(in_cel, in_rust, "{}", variant.line);
    }
    assert!(verdicts.len() > 12, "the CRDs carry {} rules", verdicts.len());
    for (rule, verdicts) in verdicts {
        assert_eq!(verdicts.len(), 2, "no variant shows both verdicts of {rule}");
    }
}

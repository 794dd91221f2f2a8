//! The validator on schemas that are not ours.

use gateway_api::apis::experimental::httproutes::HttpRoute;
use k8s_openapi::api::core::v1::{Secret, Service};
use nantian_crd::{
    FieldPath,
    schema::{Compiler, Hint, Rule, Validator, check, resource},
};
use serde_json::{Value, json};

fn lines(schema: &Value, value: &Value) -> Vec<String> {
    check(schema, value, &FieldPath::root()).iter().map(ToString::to_string).collect()
}

fn walk(validator: &Validator, manifest: &str) -> Vec<String> {
    let object: Value = serde_saphyr::from_str(manifest).expect("the manifest is YAML");
    validator.validate(&object, &FieldPath::root()).iter().map(ToString::to_string).collect()
}

const NONE: [&str; 0] = [];

#[test]
fn references_are_followed_however_deep_the_value() {
    let tree = json!({
        "$ref": "#/$defs/Tree",
        "$defs": { "Tree": { "type": "object", "properties": {
            "size": { "type": "integer", "format": "uint8" },
            "children": { "type": "array", "items": { "$ref": "#/$defs/Tree" } },
        } } },
    });
    assert_eq!(lines(&tree, &json!({ "children": [{ "children": [{ "size": 1 }] }] })), NONE);
    assert_eq!(
        lines(&tree, &json!({ "children": [{ "children": [{ "size": 256, "sise": 1 }] }] })),
        [
            "children[0].children[0].size: 256 is out of range; allowed: 0 to 255",
            "children[0].children[0].sise: unknown field; did you mean \"size\"?",
        ]
    );
}

#[test]
fn a_reference_to_itself_ends() {
    let circle = json!({ "$ref": "#/$defs/A", "$defs": { "A": { "$ref": "#/$defs/A" } } });
    assert_eq!(lines(&circle, &json!(1)), ["is nested too deeply"]);
}

#[test]
fn a_reference_that_points_nowhere_asks_for_nothing() {
    assert_eq!(lines(&json!({ "$ref": "#/$defs/Absent" }), &json!({ "a": 1 })), NONE);
}

#[test]
fn optional_values_may_be_null_and_keep_their_own_faults() {
    let schema = json!({ "properties": {
        "a": { "anyOf": [{ "$ref": "#/$defs/A" }, { "type": "null" }] },
        "b": { "type": ["integer", "null"] },
        "c": { "type": "integer" },
    }, "$defs": { "A": { "type": "object", "required": ["x"], "properties": { "x": { "type": "string" } } } } });
    assert_eq!(lines(&schema, &json!({ "a": null, "b": null, "c": null })), NONE);
    assert_eq!(
        lines(&schema, &json!({ "a": { "y": 1 }, "b": "1", "c": [null] })),
        [
            "a.y: unknown field; allowed: x",
            "a.x: required field is missing",
            "b: \"1\" is not an integer",
            "c: a list is not an integer",
        ]
    );
}

#[test]
fn documented_choices_are_choices() {
    let schema = json!({ "oneOf": [
        { "description": "One.", "type": "string", "const": "A" },
        { "description": "Other.", "type": "string", "enum": ["B", "C"] },
    ] });
    assert_eq!(lines(&schema, &json!("B")), NONE);
    assert_eq!(lines(&schema, &json!("D")), ["\"D\" is not one of A, B, C"]);
}

#[test]
fn the_nearest_alternative_is_explained() {
    let schema = json!({ "oneOf": [
        { "type": "object", "required": ["file"], "properties": { "file": { "type": "string" } } },
        { "type": "object", "required": ["url"], "properties": { "url": { "type": "string" } } },
    ] });
    assert_eq!(lines(&schema, &json!({ "url": "x" })), NONE);
    assert_eq!(lines(&schema, &json!({ "url": 1 })), ["url: 1 is not a string"]);
    assert_eq!(lines(&schema, &json!(7)), ["7 fits none of the allowed forms"]);
    assert_eq!(
        lines(&schema, &json!({ "url": "x", "file": "y" })),
        ["fits several forms of which only one is allowed"]
    );
    assert_eq!(
        lines(&schema, &json!({ "url": "x", "uri": "y" })),
        ["uri: unknown field; did you mean \"url\"?"]
    );
}

#[test]
fn fields_of_all_parts_are_known() {
    let schema = json!({
        "properties": { "a": { "type": "integer" } },
        "allOf": [{ "properties": { "b": { "type": "integer" } } }, { "not": { "required": ["c"] } }],
        "anyOf": [{ "properties": { "c": {} } }, { "required": ["b"] }],
    });
    assert_eq!(lines(&schema, &json!({ "a": 1, "b": 2 })), NONE);
    assert_eq!(
        lines(&schema, &json!({ "b": 2, "c": 3, "d": 4 })),
        ["d: unknown field; allowed: a, b, c", "is not allowed here"]
    );
}

#[test]
fn open_objects_take_any_field() {
    for open in [
        json!({ "properties": { "a": {} }, "x-kubernetes-preserve-unknown-fields": true }),
        json!({ "properties": { "a": {} }, "additionalProperties": true }),
        json!({ "type": "object" }),
        json!(true),
        json!({}),
    ] {
        assert_eq!(lines(&open, &json!({ "b": { "c": [null] } })), NONE, "{open}");
    }
    let map = json!({ "additionalProperties": { "type": "string" }, "maxProperties": 2 });
    assert_eq!(
        lines(&map, &json!({ "a.b/c": 1, "d": "", "e": "" })),
        ["has 3 fields; allowed: at most 2", "[\"a.b/c\"]: 1 is not a string"]
    );
    let closed = json!({ "additionalProperties": false });
    assert_eq!(lines(&closed, &json!({ "a": 1 })), ["a: unknown field"]);
    assert_eq!(
        lines(&json!({ "properties": { "a": false } }), &json!({ "a": 1 })),
        ["a: is not allowed here"]
    );
}

#[test]
fn numbers_keep_to_their_bounds() {
    let float = json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1.5 });
    assert_eq!(lines(&float, &json!(1)), NONE);
    assert_eq!(lines(&float, &json!(0)), ["0 is out of range; allowed: more than 0 and at most 1.5"]);
    let flagged = json!({ "type": "integer", "maximum": 10, "exclusiveMaximum": true });
    assert_eq!(lines(&flagged, &json!(10)), ["10 is out of range; allowed: less than 10"]);
    let port = json!({ "type": "integer", "format": "uint16", "minimum": 1 });
    assert_eq!(lines(&port, &json!(65_536)), ["65536 is out of range; allowed: 1 to 65535"]);
    assert_eq!(lines(&json!({ "format": "int64" }), &json!(u64::MAX)).len(), 1);
}

#[test]
fn text_keeps_to_its_form() {
    let hour = json!({ "type": "string", "pattern": "^[0-9]{2}$", "maxLength": 2 });
    assert_eq!(lines(&hour, &json!("24")), NONE);
    assert_eq!(
        lines(&hour, &json!("noon")),
        ["has 4 characters; allowed: at most 2", "\"noon\" is not of the form ^[0-9]{2}$"]
    );
    let hints = [Hint::new("^[0-9]{2}$", "an hour")];
    let validator = Compiler::new().hints(hints).compile(&hour);
    assert_eq!(walk(&validator, "'1'"), ["\"1\" is not an hour"]);
    assert_eq!(lines(&json!({ "format": "byte" }), &json!("YQ==")), NONE);
    assert_eq!(lines(&json!({ "format": "byte" }), &json!("a?")), ["\"a?\" is not base64"]);
    assert_eq!(lines(&json!({ "format": "date-time" }), &json!("2026-01-31T12:00:00Z")), NONE);
    let either = json!({ "x-kubernetes-int-or-string": true });
    assert_eq!(lines(&either, &json!("http")), NONE);
    assert_eq!(lines(&either, &json!(8080)), NONE);
    assert_eq!(lines(&either, &json!(true)), ["true is not an integer or a string"]);
}

#[test]
fn rules_of_others_can_be_added() {
    const ORDER: Rule = Rule::new("self.from <= self.to", "is more than to", |range| {
        range.get("from").and_then(Value::as_i64) <= range.get("to").and_then(Value::as_i64)
    })
    .with_field("from");
    let schema = json!({ "x-kubernetes-validations": [{ "rule": ORDER.cel }] });
    let value = json!({ "from": 2, "to": 1 });
    assert_eq!(lines(&schema, &value), NONE);
    let faults = Compiler::new().rules([ORDER]).compile(&schema).validate(&value, &FieldPath::from("spec"));
    assert_eq!(faults.iter().map(ToString::to_string).collect::<Vec<_>>(), ["spec.from: 2 is more than to"]);
}

#[test]
fn http_routes_are_checked() {
    let validator = Validator::of::<HttpRoute>();
    let route = |rule: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: a, namespace: b }}\n\
             spec: {{ parentRefs: [{{ name: edge }}], hostnames: [a.test], rules: [{rule}] }}\n\
             status: {{ parents: 7 }}\n"
        )
    };
    let sound = "{ matches: [{ path: { type: PathPrefix, value: / } }], backendRefs: [{ name: echo, port: 80 }], \
                  filters: [{ type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: a, value: b }] } }] }";
    assert_eq!(walk(&validator, &route(sound)), NONE);
    assert_eq!(
        walk(&validator, &route("{ matches: [{ path: { typ: Exact, value: 1 } }], backendRef: [] }")),
        [
            "spec.rules[0].matches[0].path.typ: unknown field; did you mean \"type\"?",
            "spec.rules[0].matches[0].path.value: 1 is not a string",
            "spec.rules[0].backendRef: unknown field; did you mean \"backendRefs\"?",
        ]
    );
}

#[test]
fn services_are_checked() {
    let validator = Validator::of::<Service>();
    let service = |port: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{ name: echo }}\nspec: {{ ports: [{{ {port} }}] }}"
        )
    };
    assert_eq!(walk(&validator, &service("port: 80, targetPort: http, protocol: TCP")), NONE);
    assert_eq!(
        walk(&validator, &service("port: '80', targetport: 1")),
        [
            "spec.ports[0].port: \"80\" is not an integer",
            "spec.ports[0].targetport: unknown field; did you mean \"targetPort\"?",
        ]
    );
}

#[test]
fn secrets_are_checked_without_being_shown() {
    let validator = Compiler::new().redacting(["data", "stringData"]).compile(&resource::<Secret>());
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: { name: a }\ndata: { token: hunter2?, n: 7 }\nstringData: hunter2";
    assert_eq!(
        walk(&validator, secret),
        [
            "data.token: [redacted] is not base64",
            "data.n: [redacted] is not a string",
            "stringData: [redacted] is not an object",
        ]
    );
}

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;

#[test]
fn the_number_of_members_is_bounded() {
    let body = |count: usize| format!("{{{}\"\":0}}", "\"\":0,".repeat(count - 1));
    assert!(Object::parse(body(MOST_MEMBERS).as_bytes()).is_ok());
    let malformed = Object::parse(body(MOST_MEMBERS + 1).as_bytes()).unwrap_err();
    assert_eq!(malformed.reason, "too many members");
}

fn set(body: &str, value: &str) -> String {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let pieces = Object::parse(&body).unwrap().set(&body, &[("model", value)]);
    String::from_utf8(pieces.concat()).unwrap()
}

#[test]
fn only_the_value_of_the_outermost_model_changes() {
    let body = "{ \"b\" : {\"model\":\"inner\"},\n\t\"model\" :\"gpt\" ,\"a\":[\"model\"]}";
    let expected = "{ \"b\" : {\"model\":\"inner\"},\n\t\"model\" :\"x\" ,\"a\":[\"model\"]}";
    assert_eq!(set(body, "\"x\""), expected);
    let marked = |body: &str| format!("\u{feff}{body}");
    assert_eq!(set(&marked(body), "\"x\""), marked(expected));
    assert_eq!(set(&marked("{}"), "\"x\""), marked(r#"{"model":"x"}"#));
}

#[test]
fn every_duplicate_and_every_escape_is_replaced() {
    let body = r#"{"model":"a","mod\u0065l":"b","model":{"c":1}}"#;
    let expected = r#"{"model":"x","mod\u0065l":"x","model":"x"}"#;
    assert_eq!(set(body, "\"x\""), expected);
}

#[test]
fn members_are_taken_out_with_their_commas() {
    for (body, expected) in [
        (r#"{"a":1,"u":null}"#, r#"{"a":1}"#),
        (r#"{"u":{"x":[1,2]},"a":1}"#, r#"{"a":1}"#),
        (r#"{"a":"u", "u" : 1 , "b":2}"#, r#"{"a":"u" , "b":2}"#),
        (r#"{"u":1,"u":2}"#, r#"{}"#),
        (r#"{"u":1,"a":0,"u":2}"#, r#"{"a":0}"#),
        (r#"{ "u":1 }"#, r#"{  }"#),
        (r#"{"a":1}"#, r#"{"a":1}"#),
    ] {
        let object = Object::parse(body.as_bytes()).unwrap();
        let seen = object.without("u").concat();
        assert_eq!(String::from_utf8(seen).unwrap(), expected, "{body}");
    }
}

#[test]
fn an_absent_model_becomes_the_first_member() {
    assert_eq!(set(r#" {"a":1}"#, "\"x\""), r#" {"model":"x","a":1}"#);
    assert_eq!(set("{ }", "\"x\""), r#"{"model":"x" }"#);
}

#[test]
fn several_members_are_set_at_once() {
    let set = |body: &str| {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let pieces = Object::parse(&body).unwrap().set(&body, &[("model", "\"x\""), ("o", "{}")]);
        String::from_utf8(pieces.concat()).unwrap()
    };
    assert_eq!(set(r#"{"o":1, "a":2,"model":"y"}"#), r#"{"o":{}, "a":2,"model":"x"}"#);
    assert_eq!(set(r#"{"model":"y"}"#), r#"{"o":{},"model":"x"}"#);
    assert_eq!(set("{}"), r#"{"model":"x","o":{}}"#);
}

#[test]
fn many_members_that_are_cut_do_not_take_long() {
    // As many as there may be; with a look at all cuts for each member it would take seconds.
    const MANY: usize = MOST_MEMBERS - 1;
    let body = Bytes::from(format!("{{{}\"a\":1}}", "\"N\":1,".repeat(MANY)));
    let object = Object::parse(&body).unwrap();
    let cuts: Vec<_> = (0..MANY).map(|index| (6 * index + 1..6 * index + 7, "")).collect();
    let set = |cuts| object.set_and(&body, &[("model", "\"x\"")], cuts).concat();
    assert_eq!(set(cuts.clone()), br#"{"model":"x","a":1}"#);
    let all = [cuts, vec![(1 + 6 * MANY..body.len() - 1, "")]].concat();
    assert_eq!(set(all), br#"{"model":"x"}"#);
}

#[test]
fn members_that_are_cut_out_one_by_one_are_all_gone() {
    let body = Bytes::from_static(br#"{"a":1, "b":2 , "c":3, "d":4}"#);
    let object = Object::parse(&body).unwrap();
    for gone in ["a", "ab", "ba", "abc", "bc", "bd", "acd", "abcd", "dcba"] {
        let mut cuts = Vec::new();
        for one in gone.bytes() {
            cut::cut_out(object.members().map(|(name, range)| (range, name == [one])), 0, &mut cuts);
        }
        let left = object.set_and(&body, &[], cuts).concat();
        let left: Map<String, Value> = serde_json::from_slice(&left).unwrap();
        let expected = ["a", "b", "c", "d"].into_iter().filter(|name| !gone.contains(name));
        assert!(left.keys().eq(expected), "{gone}: {left:?}");
    }
}

#[test]
fn a_body_that_already_names_the_model_is_not_touched() {
    let body = Bytes::from_static(br#"{"model":"x"}"#);
    let pieces = Object::parse(&body).unwrap().set(&body, &[("model", "\"x\"")]);
    assert_eq!(pieces, [body]);
}

#[test]
fn the_model_is_read_through_escapes_and_duplicates() {
    let model = |body: &str| model_of(body.as_bytes()).map(Cow::into_owned);
    assert_eq!(model(r#"{"model":"a","model":"b"}"#).as_deref(), Some("b"));
    assert_eq!(model(r#"{"model":"a\/b"}"#).as_deref(), Some("a/b"));
    assert_eq!(model(r#"{"model":7}"#), None);
    assert_eq!(model(r#"[{"model":"a"}]"#), None);
    assert_eq!(model("{"), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn setting_the_model_is_what_a_parsed_object_would_do(
        members in vec(("model|[a-z\"\\\\é]{0,4}", "\\PC{0,8}"), 0..6),
        model in "\\PC{0,8}",
    ) {
        let object: Map<String, Value> =
            members.into_iter().map(|(name, value)| (name, value.into())).collect();
        let text = serde_json::to_string_pretty(&object).unwrap();
        prop_assert_eq!(
            model_of(text.as_bytes()).map(Cow::into_owned),
            object.get("model").and_then(Value::as_str).map(str::to_owned)
        );
        let edited = set(&text, &Value::from(model.as_str()).to_string());
        let mut expected = object;
        expected.insert("model".to_owned(), model.into());
        prop_assert_eq!(serde_json::from_str::<Map<String, Value>>(&edited).unwrap(), expected);
    }
}

use super::*;

/// The schema as it is enforced, and whether all of it is.
fn read(schema: &str) -> Option<(String, bool)> {
    enforced(&Json::parse(schema).unwrap()).map(|it| (it.schema.to_string(), it.is_whole))
}

#[test]
fn objects_are_closed_and_members_keep_their_order() {
    let pydantic = r##"{"$defs":{"Pet":{"properties":{"name":{"title":"Name","type":"string"}},"required":["name"],"title":"Pet","type":"object"}},
        "properties":{"zoo":{"items":{"$ref":"#/$defs/Pet"},"title":"Zoo","type":"array"},"input":{"type":"object","properties":{"format":{"type":"string"}}},
        "age":{"anyOf":[{"type":"integer"},{"type":"null"}],"default":null}},"required":["zoo"],"title":"Owner","type":"object"}"##;
    let expected = r##"{"type":"object","properties":{"zoo":{"type":"array","items":{"$ref":"#/$defs/Pet"},"title":"Zoo"},"input":{"type":"object","properties":{"format":{"type":"string"}},"additionalProperties":false},"age":{"anyOf":[{"type":"integer"},{"type":"null"}],"default":null}},"required":["zoo"],"additionalProperties":false,"title":"Owner","$defs":{"Pet":{"type":"object","properties":{"name":{"type":"string","title":"Name"}},"required":["name"],"additionalProperties":false,"title":"Pet"}}}"##;
    assert_eq!(read(pydantic), Some((expected.to_owned(), true)));
    let counted = enforced(&Json::parse(pydantic).unwrap()).unwrap();
    assert_eq!((counted.optional, counted.unions), (3, 1));
}

#[test]
fn what_cannot_be_enforced_is_said_in_the_description() {
    for (schema, expected) in [
        (
            r#"{"type":"integer","minimum":0,"maximum":130,"description":"Years."}"#,
            r#"{"type":"integer","description":"Years.\n\n{minimum: 0, maximum: 130}"}"#,
        ),
        (
            r#"{"type":"string","format":"phone","pattern":"^x$"}"#,
            r#"{"type":"string","description":"{pattern: \"^x$\", format: \"phone\"}"}"#,
        ),
        (
            r#"{"type":"array","items":{"type":"string"},"minItems":2,"uniqueItems":true}"#,
            r#"{"type":"array","items":{"type":"string"},"description":"{uniqueItems: true, minItems: 2}"}"#,
        ),
        (
            r#"{"oneOf":[{"type":"string"},{"type":"null"}]}"#,
            r#"{"anyOf":[{"type":"string"},{"type":"null"}]}"#,
        ),
        (
            r#"{"anyOf":[{"type":"string"},{"type":"null"}],"maxLength":5,"title":"T"}"#,
            r#"{"anyOf":[{"type":"string"},{"type":"null"}],"title":"T","description":"{maxLength: 5}"}"#,
        ),
        (
            r##"{"$defs":{"A":{"type":"null"}},"$ref":"#/$defs/A","description":"a"}"##,
            r##"{"$ref":"#/$defs/A","$defs":{"A":{"type":"null"}}}"##,
        ),
    ] {
        assert_eq!(read(schema), Some((expected.to_owned(), false)), "{schema}");
    }
}

#[test]
fn what_is_known_stays() {
    for (schema, expected) in [
        (r#"{"$schema":"s","type":"string","format":"date"}"#, r#"{"type":"string","format":"date"}"#),
        (r#"{"type":["string","null"]}"#, r#"{"type":["string","null"]}"#),
        (r#"{"type":"string","enum":["a","b"]}"#, r#"{"enum":["a","b"]}"#),
        (r#"{"const":1,"type":"integer","title":"t"}"#, r#"{"const":1,"title":"t"}"#),
        (r#"{"type":"array","minItems":1}"#, r#"{"type":"array","minItems":1}"#),
        (
            r#"{"type":"object","properties":{}}"#,
            r#"{"type":"object","properties":{},"additionalProperties":false}"#,
        ),
        (
            r#"{"type":"object","additionalProperties":false}"#,
            r#"{"type":"object","properties":{},"additionalProperties":false}"#,
        ),
        (
            r##"{"definitions":{"A":{"type":"null"}},"properties":{"a":{"allOf":[{"$ref":"#/definitions/A"}]}}}"##,
            r##"{"type":"object","properties":{"a":{"$ref":"#/definitions/A"}},"additionalProperties":false,"definitions":{"A":{"type":"null"}}}"##,
        ),
    ] {
        assert_eq!(read(schema), Some((expected.to_owned(), true)), "{schema}");
    }
}

#[test]
fn a_schema_that_would_become_another_is_none() {
    for schema in [
        "{}",
        "true",
        r#"{"type":"object"}"#,
        r#"{"type":"object","additionalProperties":{"type":"integer"}}"#,
        r#"{"type":"object","properties":{"a":{"type":"null"}},"additionalProperties":{}}"#,
        r#"{"type":"object","properties":{"a":{}}}"#,
        r#"{"type":"array","items":{}}"#,
        r#"{"type":"array","prefixItems":[{"type":"null"}]}"#,
        r#"{"allOf":[{"type":"object","properties":{}},{"type":"object","properties":{}}]}"#,
        r#"{"type":"object","properties":{"id":{"type":"null"}},"required":["id"],"oneOf":[{"type":"object","properties":{"a":{"type":"null"}}}]}"#,
        r#"{"anyOf":[{"type":"null"}],"oneOf":[{"type":"null"}]}"#,
        r#"{"enum":["a"],"anyOf":[{"type":"string"}]}"#,
        r#"{"type":"object","patternProperties":{"^x-":{"type":"string"}},"additionalProperties":false}"#,
        r#"{"type":"object","properties":{"a":{"type":"null"}},"if":{},"then":{"required":["b"]}}"#,
        r#"{"type":"object","properties":{"a":{"type":"null"}},"required":["b"]}"#,
        r##"{"$ref":"#/$defs/A","properties":{"b":{"type":"null"}},"$defs":{"A":{"type":"object","properties":{}}}}"##,
        r##"{"$ref":"#"}"##,
        r##"{"$ref":"#/$defs/A"}"##,
        r#"{"$ref":"https://example.com/a.json"}"#,
        r##"{"$ref":"#/$defs/A","$defs":{"A":{"type":"object","properties":{"a":{"$ref":"#/$defs/A"}}}}}"##,
        r##"{"type":"null","$defs":{"A":{"items":{"$ref":"#/$defs/B"}},"B":{"anyOf":[{"$ref":"#/$defs/A"}]}}}"##,
    ] {
        assert_eq!(read(schema), None, "{schema}");
    }
    let nested = |levels| {
        format!(
            "{}{{\"type\":\"null\"}}{}",
            "{\"type\":\"array\",\"items\":".repeat(levels),
            "}".repeat(levels)
        )
    };
    assert!(read(&nested(30)).is_some());
    assert!(read(&nested(100)).is_none());
}

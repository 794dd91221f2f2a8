use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn scan(chunks: &[&[u8]]) -> Result<Vec<(Mark, usize)>, Malformed> {
    let mut scanner = Scanner::new();
    let mut marks = Vec::new();
    let mut before = 0;
    for chunk in chunks {
        scanner.push(chunk, |mark, at| marks.push((mark, before + at)))?;
        before += chunk.len();
    }
    scanner.finish()?;
    Ok(marks)
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}|[\"\\\\\n\t/]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            vec(("[a-c\"\\\\]{0,3}", inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

#[test]
fn members_of_the_outermost_object_are_marked() {
    let text = br#" {"a": [1, {"a": 2}], "b":"x"} "#;
    let marks = scan(&[text]).unwrap();
    let spans: Vec<_> = marks.chunks(2).map(|pair| &text[pair[0].1..pair[1].1]).collect();
    let expected: [&[u8]; 4] = [b"a", br#"[1, {"a": 2}]"#, b"b", br#""x""#];
    assert_eq!(spans, expected);
}

#[test]
fn what_is_not_json_is_refused() {
    for text in [
        "",
        " ",
        "{",
        "{]",
        "[}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "[1,]",
        "[1 2]",
        "01",
        "1.",
        "-",
        "1e",
        "tru",
        "truex",
        "nul",
        "\"",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\n\"",
        "{} {}",
        "{a:1}",
        "'a'",
        "+1",
        ".5",
        "[1]]",
        "\u{feff}{}",
    ] {
        assert!(scan(&[text.as_bytes()]).is_err(), "{text}");
        assert!(serde_json::from_str::<Value>(text).is_err(), "{text}");
    }
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    scan(&[nested(128).as_bytes()]).unwrap();
    let error = scan(&[nested(129).as_bytes()]).unwrap_err();
    assert_eq!(error.offset, 128);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn accepts_exactly_what_serde_accepts(value in any_json(), at: prop::sample::Index, byte: u8) {
        let text = serde_json::to_vec_pretty(&value).unwrap();
        prop_assert!(scan(&[&text]).is_ok());
        let mut broken = text;
        let at = at.index(broken.len());
        broken[at] = byte & 0x7F;
        if std::str::from_utf8(&broken).is_ok() {
            // An exponent that overflows is JSON, though serde has no number for it.
            let read = serde_json::from_slice::<serde::de::IgnoredAny>(&broken);
            prop_assert_eq!(scan(&[&broken]).is_ok(), read.is_ok(), "{:?}", broken);
        }
    }

    #[test]
    fn any_chunking_gives_the_same_marks(value in any_json(), cuts in vec(any::<prop::sample::Index>(), 0..6)) {
        let text = serde_json::to_vec(&value).unwrap();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len())).collect();
        cuts.sort_unstable();
        let mut chunks = Vec::new();
        let mut from = 0;
        for cut in cuts {
            chunks.push(&text[from..cut]);
            from = cut;
        }
        chunks.push(&text[from..]);
        prop_assert_eq!(scan(&chunks), scan(&[&text]));
    }
}

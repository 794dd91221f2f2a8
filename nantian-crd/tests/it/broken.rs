//! Variants of the seed manifests: the sound ones have no fault, the broken ones exactly the faults that are
//! written under them.

use nantian_crd::validate;

use crate::seed::Variant;

const BROKEN: &str = include_str!("broken.txt");
const SOUND: &str = include_str!("sound.txt");

/// The broken variants with the lines expected of each.
fn broken() -> Vec<(Variant<'static>, Vec<&'static str>)> {
    let mut cases: Vec<(Variant<'static>, Vec<&'static str>)> = Vec::new();
    for line in BROKEN.lines() {
        match (line.strip_prefix("    "), cases.last_mut()) {
            (Some(fault), Some((_, faults))) => faults.push(fault),
            _ => cases.push((Variant::new(line), Vec::new())),
        }
    }
    cases
}

pub(crate) fn variants() -> impl Iterator<Item = Variant<'static>> {
    broken().into_iter().map(|(variant, _)| variant).chain(SOUND.lines().map(Variant::new))
}

#[test]
fn variants_have_the_faults_written_under_them() {
    let cases = broken();
    assert!(cases.len() >= 100, "only {} cases were read", cases.len());
    for (variant, expected) in cases {
        let faults = validate(&variant.object).expect_err(variant.line);
        let found: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{}", variant.line);
    }
}

#[test]
fn sound_variants_have_no_fault() {
    for variant in SOUND.lines().map(Variant::new) {
        if let Err(faults) = validate(&variant.object) {
            panic!("{}\n{faults}", variant.line);
        }
    }
}

#[test]
fn a_document_that_is_no_object_is_told_without_a_field() {
    let faults = validate(&serde_json::json!(["spec"])).unwrap_err();
    let paths: Vec<_> = faults.iter().map(|fault| fault.path.to_string()).collect();
    assert_eq!(paths, [""]);
}

#[test]
fn secrets_appear_in_no_fault() {
    for (variant, faults) in broken() {
        for secret in ["sk-", "s3cret", "12345678"] {
            let leak = faults.iter().find(|fault| fault.contains(secret));
            assert_eq!(leak, None, "{}", variant.line);
        }
    }
}

//! What is read of manifests.

use nantian_crd::validate;
use serde_json::Value;

/// Whatever YAML it is given, validation answers; what it lets pass is valid when it is written out again.
pub fn validate_manifest(manifest: &[u8]) {
    let Ok(text) = std::str::from_utf8(manifest) else { return };
    let Ok(value) = serde_saphyr::from_str::<Value>(text) else { return };
    match validate(&value) {
        Ok(object) => {
            let written = serde_json::to_value(&object).expect("an object is written as JSON");
            let again = validate(&written).unwrap_or_else(|faults| panic!("{faults}\n{written}"));
            assert_eq!(again, object);
        }
        Err(faults) => assert!(!faults.to_string().is_empty()),
    }
}

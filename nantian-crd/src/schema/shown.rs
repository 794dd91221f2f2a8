//! How a value appears in a fault.

use std::borrow::Cow;

use serde_json::Value;

/// Longer values are cut.
const MAX_SHOWN: usize = 64;

/// A scalar as JSON on one line, cut if it is long. Objects, lists and secrets are not shown.
pub(super) fn shown(value: &Value, secret: bool) -> Option<String> {
    match value {
        Value::Object(_) | Value::Array(_) => None,
        _ if secret => Some("[redacted]".to_owned()),
        Value::String(text) => {
            let text = without_password(text);
            let cut: String = text.chars().take(MAX_SHOWN).collect();
            let more = if cut.len() < text.len() { "…" } else { "" };
            Some(Value::String(cut + more).to_string())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
    }
}

/// A URL without the credentials that some people put into it.
fn without_password(text: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = text.split_once("://") else { return text.into() };
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest.get(..authority).and_then(|authority| authority.rfind('@')) {
        Some(at) => format!("{scheme}://[redacted]{}", rest.get(at..).unwrap_or_default()).into(),
        None => text.into(),
    }
}

//! The fields of OpenRouter's limits, which some of its 429s have in their bodies alone.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::profile::is_one;

/// Whether a provider tells of its limits so.
pub(crate) fn has_limits_in_bodies(provider: &str) -> bool {
    is_one(provider, &["openrouter"])
}

/// The fields that are in a body, as those of a head.
pub(crate) fn limit_headers(body: &[u8]) -> HeaderMap {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let fields = body.pointer("/error/metadata/headers").and_then(Value::as_object);
    let field = |(name, value): (&String, &Value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
    };
    fields.into_iter().flatten().filter_map(field).collect()
}

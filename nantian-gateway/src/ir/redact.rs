//! Values that may be credentials, told by the name of their header or parameter, are not shown.

use http::{HeaderName, HeaderValue};
use serde::Serializer;

use super::shown::text;

/// What is shown instead.
pub(crate) const REDACTED: &str = "[redacted]";

/// What is part of the names of headers and parameters that carry credentials.
const TELLING: [&str; 7] = ["auth", "cookie", "credential", "key", "passw", "secret", "token"];

/// Whether the value under this name may be a credential.
pub(crate) fn is_sensitive(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    TELLING.iter().any(|part| name.contains(part))
}

/// Shows headers without the values that may be credentials.
pub(super) fn show_headers<S: Serializer>(
    headers: &[(HeaderName, HeaderValue)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(headers.iter().map(|(name, value)| {
        let value = if is_sensitive(name.as_str()) { REDACTED.into() } else { text(value) };
        (name.as_str(), value)
    }))
}

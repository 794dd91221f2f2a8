//! How what others have a type for is shown: as its text, of durations `1.5s`.

use std::{borrow::Cow, fmt::Display, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serializer;

/// The text of a value.
pub(super) fn text(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

/// Shows a value; the absence of one stays absent.
pub(super) fn value<S: Serializer>(value: &Option<HeaderValue>, serializer: S) -> Result<S::Ok, S::Error> {
    optional(&value.as_ref().map(text), serializer)
}

/// Shows the members of a list; none are an empty one.
pub(super) fn list<S: Serializer>(list: &Option<HeaderValue>, serializer: S) -> Result<S::Ok, S::Error> {
    let list = list.as_ref().map(text);
    serializer.collect_seq(list.iter().flat_map(|list| list.split(", ")))
}

/// Shows what is shown as it is displayed; the absence of it stays absent.
pub(super) fn optional<S: Serializer>(
    shown: &Option<impl Display>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match shown {
        Some(shown) => serializer.collect_str(shown),
        None => serializer.serialize_none(),
    }
}

/// Shows what is shown as it is displayed.
pub(super) fn display<S: Serializer>(shown: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(shown)
}

/// Shows the names of headers.
pub(super) fn names<S: Serializer>(names: &[HeaderName], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(names.iter().map(HeaderName::as_str))
}

/// Shows a status as its number.
pub(super) fn status<S: Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

/// Shows a duration.
pub(super) fn duration<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{duration:?}"))
}

/// Shows a limit; the absence of one stays absent.
pub(super) fn limit<S: Serializer>(limit: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    optional(&limit.map(|limit| format!("{limit:?}")), serializer)
}

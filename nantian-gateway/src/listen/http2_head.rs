//! What a head over HTTP/2 may say otherwise than one over HTTP/1.1.

use http::{HeaderValue, StatusCode, request::Parts};

use super::{connection::MAX_HEADERS, forward, refusal::Refusal, response_head::say_length_once};

/// Makes of a head over HTTP/2 what the parser of HTTP/1.1 would have, and refuses what has more fields than
/// that takes. h2 has a limit of bytes alone, and of a field that HPACK repeats by one byte 72 are held.
pub(super) fn settle(parts: &mut Parts) -> Result<(), Refusal> {
    parts.headers.values_mut().for_each(trim);
    let had_many = parts.headers.len() > MAX_HEADERS;
    // Over HTTP/1.1 cookies are not split, and hyper has made one length of several.
    if parts.headers.len() > parts.headers.keys_len() {
        forward::join_cookies(&mut parts.headers);
        say_length_once(&mut parts.headers);
    }
    // The authority would be a Host.
    if parts.headers.len() + usize::from(parts.uri.authority().is_some()) > MAX_HEADERS {
        let reason = format!("a head may have at most {MAX_HEADERS} fields");
        return Err(Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, reason));
    }
    if had_many {
        // What was joined leaves its room behind, 144 KiB of it, and a copy has as much as it needs.
        parts.headers = parts.headers.clone();
    }
    Ok(())
}

/// Leaves off blanks at either end, as the parser of HTTP/1.1 does (RFC 9110, section 5.5): a backend of
/// HTTP/1.1 would, and read a value that no rule and no limit has seen.
fn trim(value: &mut HeaderValue) {
    if let [b' ' | b'\t', ..] | [.., b' ' | b'\t'] = value.as_bytes()
        && let Ok(mut trimmed) = HeaderValue::from_bytes(value.as_bytes().trim_ascii())
    {
        trimmed.set_sensitive(value.is_sensitive());
        *value = trimmed;
    }
}

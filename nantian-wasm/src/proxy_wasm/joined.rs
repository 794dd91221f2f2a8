//! Headers of which a guest sees one, whatever number of them there is: their values stand behind one
//! another, with commas between them. They are those of Envoy, whose guests look at the first value of a name
//! and at no other.

use http::{HeaderMap, HeaderName, HeaderValue, header::COOKIE};

use super::abi::MapKind;

/// Those of a request.
const REQUEST: [&str; 28] = [
    "accept",
    "accept-encoding",
    "access-control-request-headers",
    "access-control-request-method",
    "access-control-request-private-network",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-type",
    "expect",
    "grpc-accept-encoding",
    "grpc-timeout",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "origin",
    "pragma",
    "referer",
    "user-agent",
    "via",
    "x-client-trace-id",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// Those of a response.
const RESPONSE: [&str; 21] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-allow-private-network",
    "access-control-expose-headers",
    "access-control-max-age",
    "age",
    "cache-control",
    "content-encoding",
    "content-type",
    "date",
    "etag",
    "expires",
    "grpc-message",
    "grpc-status",
    "last-modified",
    "location",
    "server",
    "vary",
    "via",
];

/// Those of a response's trailers.
const TRAILERS: [&str; 2] = ["grpc-message", "grpc-status"];

/// The names that are joined in maps of a kind.
pub(super) fn names(kind: MapKind) -> &'static [&'static str] {
    match kind {
        MapKind::RequestHeaders => &REQUEST,
        MapKind::ResponseHeaders => &RESPONSE,
        MapKind::ResponseTrailers => &TRAILERS,
        _ => &[],
    }
}

/// Both values in one.
pub(super) fn both(first: &HeaderValue, second: &HeaderValue) -> Option<HeaderValue> {
    HeaderValue::from_bytes(&[first.as_bytes(), b",", second.as_bytes()].concat()).ok()
}

/// Joins what came in several headers of a name. A guest must not judge the first and let the others pass
/// unseen.
pub(crate) fn join(map: &mut HeaderMap, kind: MapKind) {
    if map.len() == map.keys_len() {
        return;
    }
    for name in names(kind).iter().map(|name| HeaderName::from_static(name)) {
        let mut values = map.get_all(&name).iter();
        let Some(first) = values.next().cloned() else { continue };
        if let Some(joined) = values.try_fold(first, |joined, next| both(&joined, next)) {
            map.insert(name, joined);
        }
    }
}

/// Joins the parts of a Cookie header, which clients of HTTP/2 may send one by one (RFC 9113, section 8.2.3).
pub(crate) fn join_cookies(map: &mut HeaderMap) {
    if map.len() == map.keys_len() {
        return;
    }
    let parts: Vec<_> = map.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if parts.len() > 1
        && let Ok(cookie) = HeaderValue::from_bytes(&parts.join(&b"; "[..]))
    {
        map.insert(COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_known_headers_are_joined_and_others_stay_apart() {
        let mut map = HeaderMap::new();
        for (name, value) in
            [("accept", "a"), ("cookie", "1"), ("accept", "b"), ("cookie", "2"), ("accept", "c")]
        {
            map.append(name, HeaderValue::from_static(value));
        }
        join(&mut map, MapKind::RequestHeaders);
        let all =
            |name: &str| map.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!((all("accept"), all("cookie")), (vec!["a,b,c"], vec!["1", "2"]));
    }
}

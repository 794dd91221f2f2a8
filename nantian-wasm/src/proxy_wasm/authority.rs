//! The request target, in pieces: where HTTP/1.1 and HTTP/2 disagree about who carries the authority.

use http::Uri;
use http::header::{HOST, HeaderValue};
use http::uri::{Authority, Parts, PathAndQuery, Scheme};

use crate::stream::{Exchange, RequestHead};

/// `:path`: path and query; a CONNECT request has none.
pub(crate) fn path(request: &RequestHead) -> Option<&str> {
    request.uri.path_and_query().map(PathAndQuery::as_str)
}

/// `:authority`: that of the target, else the `host` header.
pub(crate) fn authority(request: &RequestHead) -> Option<&[u8]> {
    match request.uri.authority() {
        Some(authority) => Some(authority.as_str().as_bytes()),
        None => request.headers.get(HOST).map(HeaderValue::as_bytes),
    }
}

/// `:scheme`: that of the target, else what a guest has set, else that of the connection.
pub(crate) fn scheme(exchange: &Exchange) -> &str {
    let RequestHead { uri, scheme, .. } = &exchange.request;
    match uri.scheme_str().or_else(|| scheme.as_ref().map(Scheme::as_str)) {
        Some(scheme) => scheme,
        None if exchange.info.tls => "https",
        None => "http",
    }
}

/// Replaces path and query, or nothing when they are no request target.
pub(crate) fn set_path(request: &mut RequestHead, value: &[u8]) -> Option<()> {
    let path = PathAndQuery::try_from(value).ok()?;
    rebuild(request, |parts| parts.path_and_query = Some(path))
}

/// Replaces the authority wherever the request carries it; without one it has an empty `host`.
pub(crate) fn set_authority(request: &mut RequestHead, value: &[u8]) -> Option<()> {
    if value.is_empty() {
        request.scheme = request.uri.scheme().cloned().or_else(|| request.scheme.take());
        rebuild(request, |parts| (parts.scheme, parts.authority) = (None, None))?;
        request.headers.map_mut()?.try_insert(HOST, HeaderValue::from_static("")).ok()?;
        return Some(());
    }
    let authority = Authority::try_from(value).ok()?;
    let header = HeaderValue::from_bytes(value).ok()?;
    if request.uri.authority().is_none() || request.headers.contains_key(HOST) {
        request.headers.map_mut()?.try_insert(HOST, header).ok()?;
    }
    if request.uri.authority().is_none() {
        return Some(());
    }
    rebuild(request, |parts| parts.authority = Some(authority))
}

/// Replaces the scheme of an absolute target; beside any other it is noted for guests.
pub(crate) fn set_scheme(request: &mut RequestHead, value: &[u8]) -> Option<()> {
    let scheme = Scheme::try_from(value).ok()?;
    if request.uri.scheme().is_none() {
        request.scheme = Some(scheme);
        return Some(());
    }
    rebuild(request, |parts| parts.scheme = Some(scheme))
}

/// Changes one part of the target; a target that would not be one stays as it was.
fn rebuild(request: &mut RequestHead, change: impl FnOnce(&mut Parts)) -> Option<()> {
    let mut parts = request.uri.clone().into_parts();
    change(&mut parts);
    request.uri = Uri::from_parts(parts).ok()?;
    Some(())
}

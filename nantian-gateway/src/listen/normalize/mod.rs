//! One spelling for each authority and each path, so that no spelling dodges a route.

use std::{borrow::Cow, net::Ipv6Addr};

use http::{HeaderMap, Uri, Version, header, uri::PathAndQuery};

use crate::spelling::{self, InvalidPath};

/// A request target that is refused with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidTarget {
    #[error("the request names no host")]
    NoHost,
    #[error("the request names more than one host")]
    ManyHosts,
    #[error("the host is not valid")]
    Host,
    #[error("the request names no path")]
    NoPath,
    #[error(transparent)]
    Path(#[from] InvalidPath),
}

/// The longest host name there can be (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 255;

/// Refuses more than one Host header and, over HTTP/1.1, none, whatever the target says (RFC 9112, section
/// 3.2).
pub(super) fn one_host(headers: &HeaderMap, version: Version) -> Result<(), InvalidTarget> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version == Version::HTTP_11 => Err(InvalidTarget::NoHost),
        (_, Some(_)) => Err(InvalidTarget::ManyHosts),
        _ => Ok(()),
    }
}

/// The host that a request is for: lower-case, without port and trailing dot.
///
/// The authority of the URI wins over the Host header (RFC 9112, section 3.2.2).
pub(super) fn host<'a>(
    uri: &'a Uri,
    headers: &'a HeaderMap,
    required: bool,
) -> Result<Cow<'a, str>, InvalidTarget> {
    let authority = match (uri.authority(), headers.get(header::HOST)) {
        (Some(authority), _) => authority.as_str(),
        (None, Some(host)) => host.to_str().map_err(|_| InvalidTarget::Host)?,
        (None, None) if required => return Err(InvalidTarget::NoHost),
        (None, None) => "",
    };
    let host = without_port(authority)?;
    if host.len() > MAX_HOST || (host.is_empty() && (required || !authority.is_empty())) {
        return Err(InvalidTarget::Host);
    }
    if host.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'0'..=b'9' | b'.' | b'-')) {
        return Ok(Cow::Borrowed(host));
    }
    // Brackets stand around an IPv6 address alone: HTTP/2 to a backend has no words for others.
    let literal = host.strip_prefix('[').and_then(|literal| literal.strip_suffix(']'));
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte);
    if literal.is_none_or(|literal| literal.parse::<Ipv6Addr>().is_err()) && !host.bytes().all(named) {
        return Err(InvalidTarget::Host);
    }
    Ok(Cow::Owned(host.to_ascii_lowercase()))
}

fn without_port(authority: &str) -> Result<&str, InvalidTarget> {
    let end = match authority.strip_prefix('[') {
        Some(literal) => literal.find(']').ok_or(InvalidTarget::Host)? + 2,
        None => memchr::memchr(b':', authority.as_bytes()).unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at_checked(end).ok_or(InvalidTarget::Host)?;
    let port = if port.is_empty() { port } else { port.strip_prefix(':').ok_or(InvalidTarget::Host)? };
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(InvalidTarget::Host);
    }
    Ok(host.strip_suffix('.').unwrap_or(host))
}

/// Rewrites the path of `uri` to its one spelling; does nothing to the many that have it already, nor to `*`.
///
/// What names a host and then a query has the path `/` (RFC 9110, section 4.2.3); `:path` says it itself (RFC
/// 9113, section 8.3.1).
pub(super) fn path(uri: &mut Uri, version: Version) -> Result<(), InvalidTarget> {
    let text = uri.path();
    let is_absent = uri.path_and_query().is_some_and(|target| target.as_str().starts_with('?'));
    if is_absent && version == Version::HTTP_2 {
        return Err(InvalidTarget::NoPath);
    }
    if text == "*" || !is_absent && spelling::is_normal(text) {
        return Ok(());
    }
    let path = spelling::normal(text)?;
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let target = PathAndQuery::try_from(target).map_err(|_| InvalidPath::Character)?;
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(target);
    *uri = Uri::from_parts(parts).map_err(|_| InvalidPath::Character)?;
    Ok(())
}

#[cfg(test)]
mod tests;

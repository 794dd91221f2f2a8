//! One spelling for each authority and each path, so that no spelling dodges a route.
//!
//! The path that is matched is the path that the backend sees:
//!
//! - `%41` becomes `A`, `%2d` becomes `-`: unreserved characters are not encoded (RFC 3986, section 6.2.2.2);
//!   other escapes are kept, in upper case.
//! - `/a/./b/../c` becomes `/a/c` (section 5.2.4); `..` above the root is refused.
//! - `//` becomes `/`.
//! - `\`, control characters, `%00` and broken escapes are refused, and so is an encoded slash or backslash (`%2F`, `%5C`)
//!   beside a dot segment, because a backend that decodes it would see another path.

use std::borrow::Cow;

use http::{HeaderMap, Uri, header, uri::PathAndQuery};

/// A request target that is refused with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidTarget {
    #[error("the request names no host")]
    NoHost,
    #[error("the request names more than one host")]
    ManyHosts,
    #[error("the host is not valid")]
    Host,
    #[error("the path has a broken escape")]
    Escape,
    #[error("the path has a forbidden character")]
    Character,
    #[error("the path leaves the root")]
    AboveRoot,
    #[error("the path hides a dot segment")]
    HiddenDots,
}

/// The longest host name there can be (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 255;

/// Refuses more than one Host header (RFC 9112, section 3.2).
pub(super) fn one_host(headers: &HeaderMap) -> Result<(), InvalidTarget> {
    match headers.get_all(header::HOST).iter().nth(1) {
        Some(_) => Err(InvalidTarget::ManyHosts),
        None => Ok(()),
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
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=[]:".contains(&byte);
    if !host.bytes().all(valid) {
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
pub(super) fn path(uri: &mut Uri) -> Result<(), InvalidTarget> {
    let text = uri.path();
    if text == "*" || is_normal(text.as_bytes()) {
        return Ok(());
    }
    let path = normalized(text)?;
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let target = PathAndQuery::try_from(target).map_err(|_| InvalidTarget::Character)?;
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(target);
    *uri = Uri::from_parts(parts).map_err(|_| InvalidTarget::Character)?;
    Ok(())
}

/// Whether a path needs no work: no escape, no backslash, no empty segment, no segment that begins with a dot.
fn is_normal(path: &[u8]) -> bool {
    let mut previous = 0;
    path.first() == Some(&b'/')
        && path.iter().all(|&byte| {
            let after_slash = previous == b'/';
            previous = byte;
            !(matches!(byte, b'%' | b'\\' | 0..=b' ' | 0x7f..) || after_slash && matches!(byte, b'/' | b'.'))
        })
}

fn normalized(path: &str) -> Result<String, InvalidTarget> {
    let decoded = decode_unreserved(path)?;
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_in_slash = false;
    for segment in decoded.split('/') {
        ends_in_slash = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop().ok_or(InvalidTarget::AboveRoot)?;
            }
            segment if hides_dots(segment) => return Err(InvalidTarget::HiddenDots),
            segment => segments.push(segment),
        }
    }
    let mut normal = String::with_capacity(decoded.len() + 1);
    for segment in &segments {
        normal.push('/');
        normal.push_str(segment);
    }
    if ends_in_slash || normal.is_empty() {
        normal.push('/');
    }
    Ok(normal)
}

/// Whether a segment would be, or have, a dot segment if its path parameters were cut off (`..;a=b`) and its encoded
/// slashes and backslashes decoded.
fn hides_dots(segment: &str) -> bool {
    is_dots(segment)
        || (segment.contains("%2F") || segment.contains("%5C"))
            && segment.split("%2F").flat_map(|part| part.split("%5C")).any(is_dots)
}

fn is_dots(part: &str) -> bool {
    matches!(part.split(';').next(), Some("." | ".."))
}

fn decode_unreserved(path: &str) -> Result<String, InvalidTarget> {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at(at);
        push_checked(&mut decoded, before)?;
        let digits = escape.get(1..3).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let digits = digits.ok_or(InvalidTarget::Escape)?;
        let byte = u8::from_str_radix(digits, 16).map_err(|_| InvalidTarget::Escape)?;
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                decoded.push(char::from(byte))
            }
            0 => return Err(InvalidTarget::Character),
            _ => {
                decoded.push('%');
                decoded.push_str(&digits.to_ascii_uppercase());
            }
        }
        rest = escape.get(3..).unwrap_or_default();
    }
    push_checked(&mut decoded, rest)?;
    Ok(decoded)
}

fn push_checked(out: &mut String, text: &str) -> Result<(), InvalidTarget> {
    if text.bytes().any(|byte| byte == b'\\' || byte <= b' ' || byte == 0x7f) {
        return Err(InvalidTarget::Character);
    }
    out.push_str(text);
    Ok(())
}

#[cfg(test)]
mod tests;

//! Cross-origin requests.

use std::fmt;

use http::HeaderValue;
use serde::{Serialize, Serializer};

use super::shown;

/// Which other origins may use a route from a browser.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cors {
    /// The origins.
    pub origins: Vec<OriginPattern>,
    /// Whether requests may carry credentials.
    pub credentials: bool,
    /// The methods of requests, besides those that are always allowed.
    pub methods: Names,
    /// The headers of requests, besides those that are always allowed.
    pub headers: Names,
    /// The headers of responses that scripts may read, besides those that they always may.
    pub exposed: Names,
    /// How long a preflight may be remembered.
    pub max_age_seconds: u32,
}

/// Names of methods or headers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Names {
    /// Whatever is asked for.
    Any,
    /// These, as answers list them; `None` are none.
    Listed(#[serde(serialize_with = "shown::list")] Option<HeaderValue>),
}

/// An origin (RFC 6454): a scheme, a host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin<'a> {
    /// In any case of letters.
    scheme: &'a str,
    /// In any case of letters, with the brackets of an IPv6 address.
    host: &'a str,
    port: Option<u16>,
}

/// The origins that one entry allows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OriginPattern {
    /// Every one, `*`.
    Any,
    /// Those of a scheme and a port.
    Of {
        /// Lower-case.
        scheme: String,
        /// Lower-case; after `*` it is the end of the host.
        host: String,
        /// Whether anything may stand before `host`.
        is_suffix: bool,
        /// Absent is that of the scheme.
        port: Option<u16>,
    },
}

// === impl Names ===

impl Default for Names {
    fn default() -> Self {
        Self::Listed(None)
    }
}

// === impl Origin ===

impl<'a> Origin<'a> {
    /// Reads the value of an Origin header; `null` is none.
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let end = authority.rfind(']').unwrap_or(0);
        let (host, port) = match authority.rfind(':').filter(|colon| *colon >= end) {
            Some(colon) => (authority.get(..colon)?, Some(port(authority.get(colon + 1..)?)?)),
            None => (authority, None),
        };
        let port = port.filter(|port| Some(*port) != own_port(scheme));
        (!scheme.is_empty() && !host.is_empty()).then_some(Self { scheme, host, port })
    }
}

/// A number from 1 on; signs, and zeros in front, are none of it.
fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port: &u16| *port > 0 && port.to_string() == text)
}

fn own_port(scheme: &str) -> Option<u16> {
    match scheme {
        _ if scheme.eq_ignore_ascii_case("http") => Some(80),
        _ if scheme.eq_ignore_ascii_case("https") => Some(443),
        _ => None,
    }
}

// === impl OriginPattern ===

impl OriginPattern {
    /// Reads `*` or an origin of http or https whose host may begin with `*`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        let Origin { scheme, host, port } = Origin::parse(text)?;
        own_port(scheme)?;
        let (host, is_suffix) = match host.strip_prefix('*') {
            Some(end) => (end, true),
            None => (host, false),
        };
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
        host.bytes().all(is_host).then(|| Self::Of {
            scheme: scheme.to_ascii_lowercase(),
            host: host.to_ascii_lowercase(),
            is_suffix,
            port,
        })
    }

    /// Whether `origin`, the value of an Origin header, is allowed.
    pub fn allows(&self, origin: &str) -> bool {
        let Self::Of { scheme, host, is_suffix, port } = self else { return true };
        let Some(origin) = Origin::parse(origin) else { return false };
        let host_is_allowed = if *is_suffix {
            let begin = origin.host.len().checked_sub(host.len()).filter(|begin| *begin > 0);
            begin.and_then(|begin| origin.host.get(begin..)).is_some_and(|end| end.eq_ignore_ascii_case(host))
        } else {
            origin.host.eq_ignore_ascii_case(host)
        };
        host_is_allowed && origin.scheme.eq_ignore_ascii_case(scheme) && origin.port == *port
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Of { scheme, host, is_suffix, port } = self else { return f.write_str("*") };
        write!(f, "{scheme}://{}{host}", if *is_suffix { "*" } else { "" })?;
        port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Serialize for OriginPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_allowed_by_scheme_host_and_port() {
        let cases = [
            ("*", "https://a.b:1", true),
            ("*", "null", true),
            ("https://www.foo.com", "https://www.foo.com", true),
            ("https://www.foo.com", "HTTPS://WWW.foo.com:443", true),
            ("https://www.foo.com:443", "https://www.foo.com", true),
            ("https://www.foo.com", "http://www.foo.com", false),
            ("https://www.foo.com", "https://www.foo.com:8443", false),
            ("https://www.foo.com", "https://www.foo.com.evil.com", false),
            ("https://www.foo.com", "null", false),
            ("https://*.bar.com", "https://a.b.bar.com", true),
            ("https://*.bar.com", "https://bar.com", false),
            ("https://*.bar.com", "https://foobar.com", false),
            ("https://*.bar.com", "https://.bar.com", false),
            ("https://*.bar.com", "https://a.bar.com.evil.com", false),
            ("https://*", "https://any.host", true),
            ("https://*", "https://any.host:8443", false),
            ("http://*:8080", "http://any:8080", true),
            ("http://[::1]:8080", "http://[::1]:8080", true),
            ("http://[::1]", "http://[::1]", true),
        ];
        for (pattern, origin, allowed) in cases {
            assert_eq!(OriginPattern::parse(pattern).unwrap().allows(origin), allowed, "{pattern} {origin}");
        }
    }

    #[test]
    fn what_is_no_origin_is_no_pattern() {
        for text in [
            "",
            "null",
            "foo.com",
            "ftp://foo.com",
            "https://",
            "https://foo.com/",
            "https://a.*.com",
            "https://foo.com:0",
            "https://foo.com:+80",
            "https://foo.com:99999",
            "https://a b",
        ] {
            assert_eq!(OriginPattern::parse(text), None, "{text}");
        }
    }
}

//! The part of a request that consistent hashing places it by.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::HOST;
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderName, Request, Uri};

use crate::hash::KeyHash;

/// The part of a request that [`ConsistentHash`](crate::Strategy::ConsistentHash) places it by.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HashKey {
    /// The client's address, without the port; an IPv4 address mapped to IPv6 counts as IPv4.
    SourceIp,
    /// The first value of this header, without surrounding blanks. An empty value is a missing one.
    Header(HeaderName),
    /// The host that the request is for: lower case, without port and trailing dot.
    ///
    /// All requests for one host go to one endpoint, which suits wildcard routes and little else.
    Hostname,
}

/// A request that keys can be taken from.
///
/// Implemented for [`http::Request`] and its [`Parts`], whose client address is the extension [`ClientAddr`].
/// A proxy with another request type implements it for that.
pub trait KeySource {
    /// The first value of a header.
    fn header(&self, name: &HeaderName) -> Option<&[u8]>;

    /// The host that the request is for; a port may follow.
    fn host(&self) -> Option<&str>;

    /// The address of the client, as far as the embedder trusts the parties between.
    fn client_ip(&self) -> Option<IpAddr>;
}

/// The address of the client that sent a request, as a request extension.
///
/// The embedder puts it there: the peer of the connection, or what a trusted proxy says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "it is one address")]
pub struct ClientAddr(pub IpAddr);

// === impl HashKey ===

impl HashKey {
    pub(crate) fn hash(&self, request: &dyn KeySource) -> Option<KeyHash> {
        match self {
            Self::SourceIp => request.client_ip().map(|ip| match ip.to_canonical() {
                IpAddr::V4(ip) => KeyHash::of(&ip.octets()),
                IpAddr::V6(ip) => KeyHash::of(&ip.octets()),
            }),
            Self::Header(name) => hash_unless_empty(request.header(name)?.trim_ascii()),
            Self::Hostname => hash_unless_empty(canonical_host(request.host()?).as_bytes()),
        }
    }
}

fn hash_unless_empty(key: &[u8]) -> Option<KeyHash> {
    (!key.is_empty()).then(|| KeyHash::of(key))
}

fn canonical_host(host: &str) -> Cow<'_, str> {
    let host = without_port(host);
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

// === impl KeySource ===

impl<B> KeySource for Request<B> {
    fn header(&self, name: &HeaderName) -> Option<&[u8]> {
        header(self.headers(), name)
    }

    fn host(&self) -> Option<&str> {
        host(self.uri(), self.headers())
    }

    fn client_ip(&self) -> Option<IpAddr> {
        client_ip(self.extensions())
    }
}

impl KeySource for Parts {
    fn header(&self, name: &HeaderName) -> Option<&[u8]> {
        header(&self.headers, name)
    }

    fn host(&self) -> Option<&str> {
        host(&self.uri, &self.headers)
    }

    fn client_ip(&self) -> Option<IpAddr> {
        client_ip(&self.extensions)
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    headers.get(name).map(|value| value.as_bytes())
}

fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    uri.host().or_else(|| headers.get(HOST)?.to_str().ok())
}

fn client_ip(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<ClientAddr>().map(|&ClientAddr(ip)| ip)
}

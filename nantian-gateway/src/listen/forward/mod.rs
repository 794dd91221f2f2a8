//! What a proxy removes from a request and what it says about the client.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use bytes::{BufMut, BytesMut};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;
use nantian_wasm::{ClientCertificate, FilterState, UpstreamAddress};

use super::{
    header_order::Order,
    hop_by_hop::{HopHeaders, remove_claims},
    preamble::Ends,
};
use crate::{ir::ClientValidation, tenancy::InvalidNetwork};

/// The `X-Forwarded-For` header.
pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Headers that are written into a request, that of [`Hop`](crate::hops::Hop) among them.
const WRITTEN: usize = 4;

/// Networks of proxies that tell who their clients are. Default: none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Networks(Vec<IpNet>);

impl Networks {
    /// Whether `address` is one of them.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl FromStr for Networks {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries
            .map(|entry| {
                let network = entry.parse().or_else(|_| entry.parse::<IpAddr>().map(IpNet::from));
                network.map_err(|_| InvalidNetwork { entry: entry.to_owned() })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// What later stages ask about a request that its headers do not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    /// The client: the peer, or what a trusted proxy says of it.
    pub(crate) client: IpAddr,
    /// The other end of the connection, or what a PROXY protocol header says.
    pub(crate) peer: SocketAddr,
    /// Where the client has connected to: this end of it, or what a PROXY protocol header says.
    pub(crate) destination: SocketAddr,
    /// A number that no other connection of this process has.
    pub(crate) connection: u64,
    /// Whether the peer spoke TLS.
    pub(crate) tls: bool,
    /// Whether the client did, to this end or to a trusted proxy.
    pub(crate) is_secure: bool,
    /// What it said in its handshake.
    pub(crate) session: Option<Arc<TlsSession>>,
    /// The port of the listener.
    pub(crate) port: u16,
    /// The host, lower-case and without port.
    pub(crate) host: Box<str>,
    /// To be told where the request goes, if a stage wants to know.
    pub(crate) upstream: Option<UpstreamAddress>,
    /// What plugins leave for those of the backend, if there are such.
    pub(crate) filter_state: Option<FilterState>,
}

/// What a client's handshake has settled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TlsSession {
    /// The name that the client has asked for, in lower case.
    pub(crate) server_name: Option<Arc<str>>,
    /// The version, such as `TLSv1.3`.
    pub(crate) version: Option<Arc<str>>,
    /// The certificate that the client has shown, if it was verified.
    pub(crate) client: Option<Arc<ClientCertificate>>,
}

/// The client's address, for balancing by it.
pub(crate) fn client_address(_: &HeaderMap, extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<RequestInfo>().map(|info| info.client)
}

/// What is known of a connection, ready to be written into its requests.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) trusted: bool,
    pub(super) tls: bool,
    /// This end of the connection.
    pub(super) local: SocketAddr,
    /// Where the client has connected to: this end, or what a PROXY protocol header says.
    pub(super) destination: SocketAddr,
    /// A number that no other connection of this process has.
    pub(super) connection: u64,
    /// The name that a client with TLS has asked for, in lower case.
    pub(super) server_name: Option<Arc<str>>,
    /// What else its handshake has settled.
    pub(super) session: Option<Arc<TlsSession>>,
    /// What it had to prove.
    pub(super) clients: Option<Arc<ClientValidation>>,
    address_value: HeaderValue,
}

impl Peer {
    pub(super) fn new(ends: Ends, local: SocketAddr, tls: bool, proxies: &Networks) -> Self {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let address = canonical(ends.client);
        Self {
            address,
            trusted: proxies.contains(address.ip()),
            tls,
            local: canonical(local),
            destination: canonical(ends.destination),
            connection: 0,
            server_name: None,
            session: None,
            clients: None,
            address_value: text_value(&address.ip().to_string()),
        }
    }

    /// The client: the last hop in `X-Forwarded-For` that is no trusted proxy, if the peer is one, else the
    /// peer.
    pub(super) fn client(&self, headers: &HeaderMap, proxies: &Networks) -> IpAddr {
        if self.trusted {
            nantian_ratelimit::client_address(self.address.ip(), headers, |address| proxies.contains(address))
        } else {
            self.address.ip()
        }
    }

    /// Whether the client spoke TLS: what the first of the trusted proxies says of it, else whether the peer
    /// did.
    pub(super) fn is_secure(&self, headers: &HeaderMap) -> bool {
        let told = headers.get(X_FORWARDED_PROTO).filter(|_| self.trusted);
        let first = told.and_then(|told| told.to_str().ok()?.split(',').next());
        match first.map(str::trim) {
            Some(scheme) if ["https", "wss"].iter().any(|it| scheme.eq_ignore_ascii_case(it)) => true,
            Some(scheme) if ["http", "ws"].iter().any(|it| scheme.eq_ignore_ascii_case(it)) => false,
            _ => self.tls,
        }
    }

    /// Writes `X-Forwarded-*`. What an untrusted peer claims is replaced; a trusted proxy's chain is
    /// extended.
    pub(super) fn forward(
        &self,
        headers: &mut HeaderMap,
        seen: HopHeaders,
        order: Order,
        authority: Option<&HeaderValue>,
    ) {
        remove_claims(headers, seen, self.trusted, order);
        if self.trusted {
            self.extend(headers, authority);
            return;
        }
        headers.reserve(WRITTEN);
        headers.insert(X_FORWARDED_FOR, self.address_value.clone());
        headers.insert(X_FORWARDED_PROTO, self.scheme());
        if let Some(authority) = authority {
            headers.insert(X_FORWARDED_HOST, authority.clone());
        }
    }

    fn extend(&self, headers: &mut HeaderMap, authority: Option<&HeaderValue>) {
        let chain = joined(headers, &X_FORWARDED_FOR, self.address_value.as_bytes());
        headers.insert(X_FORWARDED_FOR, chain);
        if headers.contains_key(header::FORWARDED) {
            let chain = joined(headers, &header::FORWARDED, self.forwarded_element(authority).as_bytes());
            headers.insert(header::FORWARDED, chain);
        }
        headers.entry(X_FORWARDED_PROTO).or_insert_with(|| self.scheme());
        if let Some(authority) = authority {
            headers.entry(X_FORWARDED_HOST).or_insert_with(|| authority.clone());
        }
    }

    fn scheme(&self) -> HeaderValue {
        HeaderValue::from_static(if self.tls { "https" } else { "http" })
    }

    /// This hop as an element of the Forwarded header (RFC 7239, section 4).
    fn forwarded_element(&self, authority: Option<&HeaderValue>) -> String {
        let mut element = match self.address.ip() {
            IpAddr::V4(address) => format!("for={address}"),
            IpAddr::V6(address) => format!("for=\"[{address}]\""),
        };
        if let Some(host) = authority.and_then(|host| host.to_str().ok()) {
            // Writing to a String cannot fail.
            let _ = write!(element, ";host=\"{host}\"");
        }
        element.push_str(if self.tls { ";proto=https" } else { ";proto=http" });
        element
    }
}

/// Makes one Cookie header of the many that HTTP/2 allows (RFC 9113, section 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<_> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, cookie);
    }
}

/// All values of `name` and `last`, as one list.
fn joined(headers: &HeaderMap, name: &HeaderName, last: &[u8]) -> HeaderValue {
    let mut list = BytesMut::new();
    for value in headers.get_all(name) {
        list.put_slice(value.as_bytes());
        list.put_slice(b", ");
    }
    list.put_slice(last);
    HeaderValue::from_maybe_shared(list.freeze()).unwrap_or_else(|_| text_value(""))
}

fn text_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests;

//! Whose address a request counts by where proxies stand in between.

use std::net::{IpAddr, SocketAddrV4};

use http::header::{HeaderMap, HeaderName};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of a request's client: the other end of the connection, or what trusted proxies say of it.
///
/// Each proxy writes at the end of `X-Forwarded-For` whom it has the request from. So the chain is believed
/// from its end on, as long as those who wrote it are trusted: the client is the last hop that is no trusted
/// proxy. What stands before it are its own words.
///
/// ```
/// use std::net::{IpAddr, Ipv4Addr};
/// use nantian_ratelimit::{ScopeValues, client_address};
///
/// let mut request = http::Request::get("/").header("x-forwarded-for", "1.2.3.4, 203.0.113.9").body(())?;
/// // With axum, `ConnectInfo` has the peer.
/// let (peer, proxy) = (Ipv4Addr::new(10, 0, 0, 7), Ipv4Addr::new(10, 0, 0, 7));
/// let client = client_address(peer.into(), request.headers(), |address| address == proxy);
/// assert_eq!(client, Ipv4Addr::new(203, 0, 113, 9));
/// // Before the limits are asked, unless they find it themselves (`RateLimitLayer::client_ip`).
/// request.extensions_mut().insert(ScopeValues::new().with_client(client));
/// # Ok::<_, http::Error>(())
/// ```
pub fn client_address(peer: IpAddr, headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut client = peer.to_canonical();
    let values = headers.get_all(X_FORWARDED_FOR).iter().rev();
    // What the client wrote may be no text; what proxies have added to it is.
    let mut hops = values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
    while is_trusted(client) {
        let hop = hops.next().and_then(|hop| str::from_utf8(hop.trim_ascii()).ok());
        let Some(address) = hop.and_then(address_of) else { break };
        client = address.to_canonical();
    }
    client
}

/// The address of a hop, which some proxies write with a port, and IPv6 also in brackets or with a zone.
fn address_of(hop: &str) -> Option<IpAddr> {
    let host = match hop.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            let is_port = |port: &str| port.parse::<u16>().is_ok();
            (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(host)?
        }
        None => match hop.parse::<SocketAddrV4>() {
            Ok(address) => return Some(IpAddr::V4(*address.ip())),
            Err(_) => hop,
        },
    };
    match host.split_once('%') {
        Some((address, _zone)) => address.parse().map(IpAddr::V6).ok(),
        None => host.parse().ok(),
    }
}

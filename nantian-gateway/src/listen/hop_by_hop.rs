//! What one hop tells the next and nobody else (RFC 9110, section 7.6.1).

use std::{
    collections::HashSet,
    io::{self, ErrorKind},
    task::Poll,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;

use super::header_order::Order;
use crate::body::BoxError;

/// What a body has to give.
type PolledFrame<E> = Poll<Option<Result<Frame<Bytes>, E>>>;

/// Which headers of a message concern a proxy; found in one pass, because most messages have few of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct HopHeaders(u16);

impl HopHeaders {
    const CONNECTION: u16 = 1;
    const KEEP_ALIVE: u16 = 1 << 1;
    const PROXY_CONNECTION: u16 = 1 << 2;
    const TE: u16 = 1 << 3;
    const TRANSFER_ENCODING: u16 = 1 << 4;
    const UPGRADE: u16 = 1 << 5;
    const EXPECT: u16 = 1 << 6;
    const CLAIM: u16 = 1 << 7;
    const CDN_LOOP: u16 = 1 << 8;
    /// A claim in the spelling of CGI.
    const ALIAS: u16 = 1 << 9;
    const HOP_BY_HOP: u16 = Self::CONNECTION
        | Self::KEEP_ALIVE
        | Self::PROXY_CONNECTION
        | Self::TE
        | Self::TRANSFER_ENCODING
        | Self::UPGRADE;

    /// Looks at the names of all headers.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self(headers.keys().map(Self::bit).fold(0, std::ops::BitOr::bitor))
    }

    fn bit(name: &HeaderName) -> u16 {
        let name = name.as_str();
        match name.len() {
            2 if name == "te" => Self::TE,
            6 if name == "expect" => Self::EXPECT,
            7 if name == "upgrade" => Self::UPGRADE,
            8 if name == "cdn-loop" => Self::CDN_LOOP,
            10 if name == "connection" => Self::CONNECTION,
            10 if name == "keep-alive" => Self::KEEP_ALIVE,
            16 if name == "proxy-connection" => Self::PROXY_CONNECTION,
            17 if name == "transfer-encoding" => Self::TRANSFER_ENCODING,
            _ if matches!(
                name.as_bytes(),
                [b'x', _, b'f' | b'r', ..] | [b'f', b'o', ..] | [b'c', b'l', ..]
            ) =>
            {
                Self::claim(name)
            }
            _ => 0,
        }
    }

    /// What a name says of hops before this one, or of a certificate that the first of them has seen (RFC
    /// 9440), if it says anything; also where it has a `_`, which CGI and its heirs do not tell from `-`.
    fn claim(name: &str) -> u16 {
        let begins = |claim: &str| {
            let same = |(byte, expected)| byte == expected || byte == b'_' && expected == b'-';
            name.len() >= claim.len() && name.bytes().zip(claim.bytes()).all(same)
        };
        let is = |claim: &str| name.len() == claim.len() && begins(claim);
        let is_claim = begins("x-forwarded-")
            || ["forwarded", "x-real-ip", "client-cert", "client-cert-chain"].into_iter().any(is);
        match is_claim.then(|| name.contains('_')) {
            None => 0,
            Some(false) => Self::CLAIM,
            Some(true) => Self::ALIAS,
        }
    }

    fn has(self, bits: u16) -> bool {
        self.0 & bits != 0
    }

    /// Whether there is a transfer coding.
    pub(crate) fn transfer_encoding(self) -> bool {
        self.has(Self::TRANSFER_ENCODING)
    }

    /// Whether the client waits for 100.
    pub(crate) fn expect(self) -> bool {
        self.has(Self::EXPECT)
    }

    /// Whether it has been said where the message was before.
    pub(crate) fn cdn_loop(self) -> bool {
        self.has(Self::CDN_LOOP)
    }
}

/// Removes what the peer says about hops before it, unless it is `trusted`; spellings that no proxy writes in
/// any case, for one that is trusted may pass them on unseen.
pub(crate) fn remove_claims(headers: &mut HeaderMap, seen: HopHeaders, trusted: bool, order: Order) {
    let removed = if trusted { HopHeaders::ALIAS } else { HopHeaders::ALIAS | HopHeaders::CLAIM };
    if seen.has(removed) {
        order.remove(headers, |name| HopHeaders::bit(name) & removed != 0);
    }
}

/// Removes what is meant for this hop alone.
///
/// Returns the protocols of the Upgrade header if the sender asks to leave HTTP.
pub(crate) fn remove_hop_by_hop(
    headers: &mut HeaderMap,
    seen: HopHeaders,
    order: Order,
) -> Option<HeaderValue> {
    if !seen.has(HopHeaders::HOP_BY_HOP) {
        return None;
    }
    let mut upgrades = false;
    let mut named = HashSet::new();
    for value in headers.get_all(header::CONNECTION) {
        read_connection(value.as_bytes(), &mut upgrades, &mut named);
    }
    let mut codings =
        headers.get_all(header::TE).iter().flat_map(|te| te.as_bytes().split(|byte| *byte == b','));
    let accepts_trailers = seen.has(HopHeaders::TE)
        && codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"));
    let upgrade = headers.get(header::UPGRADE).filter(|offer| upgrades && leaves_http(offer)).cloned();
    order.remove(headers, |name| HopHeaders::bit(name) & HopHeaders::HOP_BY_HOP != 0 || named.contains(name));
    if accepts_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    upgrade
}

/// Whose body it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    Client,
    Backend,
}

/// Takes what is meant for this hop alone out of the trailers of a body, for over HTTP/2 they could not be
/// sent, and what a client may not claim, for some backends merge them into the head. Of trailers that say
/// nothing else the body has none.
pub(crate) fn clean_trailers<E>(mut polled: PolledFrame<E>, sender: Sender) -> PolledFrame<E> {
    let Poll::Ready(Some(Ok(frame))) = &mut polled else { return polled };
    let Some(trailers) = frame.trailers_mut() else { return polled };
    let seen = HopHeaders::of(trailers);
    remove_hop_by_hop(trailers, seen, Order::Any);
    if seen.has(HopHeaders::TE) {
        // That trailers are taken can be said in a head alone.
        trailers.remove(header::TE);
    }
    if sender == Sender::Client {
        remove_claims(trailers, seen, false, Order::Any);
    }
    if trailers.is_empty() { Poll::Ready(None) } else { polled }
}

/// What a body over HTTP/2 has to give: hyper takes a stream that is reset without an error for one that has
/// ended.
pub(crate) fn whole(polled: PolledFrame<hyper::Error>, incoming: &Incoming) -> PolledFrame<BoxError> {
    if matches!(polled, Poll::Ready(None)) && !incoming.is_end_stream() {
        return Poll::Ready(Some(Err(io::Error::from(ErrorKind::UnexpectedEof).into())));
    }
    polled.map_err(Into::into)
}

/// Whether a change of protocol ends HTTP. To `h2c`, `HTTP/…` or `TLS/…` (RFC 2817) it would not: it would
/// open a tunnel to the backend in which further requests pass no route and no policy.
fn leaves_http(offer: &HeaderValue) -> bool {
    let offer = offer.as_bytes().to_ascii_lowercase();
    offer.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).all(|protocol| {
        protocol != b"h2c" && !protocol.starts_with(b"http/") && !protocol.starts_with(b"tls/")
    })
}

/// Reads one Connection header: the headers that it names are meant for this hop too.
fn read_connection(value: &[u8], upgrades: &mut bool, named: &mut HashSet<HeaderName>) {
    for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        if option.eq_ignore_ascii_case(b"keep-alive") || option.eq_ignore_ascii_case(b"close") {
            continue;
        }
        if option.eq_ignore_ascii_case(b"upgrade") {
            *upgrades = true;
            continue;
        }
        // `Connection: host` must not remove what routing and framing rely on.
        let name = HeaderName::from_bytes(option).ok();
        named.extend(name.filter(|name| !matches!(*name, header::HOST | header::CONTENT_LENGTH)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed(pairs: &[(&str, &str)]) -> (Option<HeaderValue>, Vec<String>) {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let seen = HopHeaders::of(&map);
        let upgrade = remove_hop_by_hop(&mut map, seen, Order::Any);
        let mut left: Vec<_> = map.keys().map(|name| name.as_str().to_owned()).collect();
        left.sort_unstable();
        (upgrade, left)
    }

    #[test]
    fn hop_by_hop_headers_and_those_that_connection_names_are_removed() {
        let (upgrade, left) = removed(&[
            ("connection", "close, X-Secret, host, content-length"),
            ("connection", "x-other"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("x-secret", "1"),
            ("x-other", "1"),
            ("host", "a"),
            ("content-length", "0"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
        ]);
        assert_eq!(upgrade, None);
        assert_eq!(left, ["content-length", "host", "te"]);
    }

    #[test]
    fn order_of_the_others_is_kept_where_it_is_asked_for() {
        let names = ["a-1", "keep-alive", "a-2", "x-forwarded-for", "connection", "a-3", "a-2", "a-4"];
        let pair = |name| (HeaderName::from_static(name), HeaderValue::from_static("close"));
        let mut map = HeaderMap::from_iter(names.map(pair));
        let seen = HopHeaders::of(&map);
        remove_hop_by_hop(&mut map, seen, Order::Kept);
        remove_claims(&mut map, seen, false, Order::Kept);
        let left: Vec<_> = map.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(left, ["a-1", "a-2", "a-2", "a-3", "a-4"]);
    }

    #[test]
    fn an_upgrade_is_handed_over() {
        let (upgrade, left) = removed(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(upgrade, Some(HeaderValue::from_static("websocket")));
        assert!(left.is_empty());
    }

    #[test]
    fn an_upgrade_to_http_2_is_not_handed_over() {
        for offer in ["h2c", "H2C", "websocket , h2c", "TLS/1.0", "HTTP/2.0"] {
            let (upgrade, left) = removed(&[("connection", "upgrade"), ("upgrade", offer)]);
            assert_eq!(upgrade, None, "{offer}");
            assert!(left.is_empty());
        }
    }

    #[test]
    fn trailers_are_accepted_whatever_else_is() {
        for fields in [&["trailers, deflate;q=0.5"][..], &["gzip", "Trailers"]] {
            let mut map = HeaderMap::new();
            for field in fields {
                map.append(header::TE, HeaderValue::from_static(field));
            }
            let seen = HopHeaders::of(&map);
            remove_hop_by_hop(&mut map, seen, Order::Any);
            assert_eq!(map.get_all(header::TE).iter().collect::<Vec<_>>(), ["trailers"], "{fields:?}");
        }
        assert_eq!(removed(&[("te", "deflate, x-trailers")]).1, [""; 0]);
    }

    /// What is left of headers that a peer sends.
    fn left(names: &[&'static str], trusted: bool) -> Vec<String> {
        let pair = |name: &&'static str| (HeaderName::from_static(name), HeaderValue::from_static("1"));
        let mut map = HeaderMap::from_iter(names.iter().map(pair));
        let seen = HopHeaders::of(&map);
        remove_claims(&mut map, seen, trusted, Order::Any);
        map.keys().map(|name| name.as_str().to_owned()).collect()
    }

    #[test]
    fn claims_are_those_of_trusted_peers_and_never_in_the_spelling_of_cgi() {
        for name in [
            "forwarded",
            "x-real-ip",
            "x-forwarded-for",
            "x-forwarded-port",
            "x-forwarded-client-cert",
            "x-forwarded-ssl",
            "client-cert",
            "client-cert-chain",
        ] {
            assert_eq!(left(&[name], false), [""; 0]);
            assert_eq!(left(&[name], true), [name]);
        }
        for name in ["x_forwarded_for", "x-forwarded_proto", "x_real-ip", "client_cert"] {
            assert_eq!(left(&[name], false), [""; 0]);
            assert_eq!(left(&[name], true), [""; 0]);
        }
        for name in ["x-forwarded", "x-real-ips", "client-certificate", "user_id", "forwarded-by"] {
            assert_eq!(left(&[name], false), [name]);
        }
    }

    #[test]
    fn trailers_say_nothing_of_hops_and_the_others_stay() {
        let left = |names: &[&'static str], sender| {
            let value = |name| if name == "connection" { "x-named" } else { "trailers" };
            let pair =
                |&name: &&'static str| (HeaderName::from_static(name), HeaderValue::from_static(value(name)));
            let frame = Frame::trailers(names.iter().map(pair).collect());
            let Poll::Ready(frame) = clean_trailers(Poll::Ready(Some(Ok::<_, ()>(frame))), sender) else {
                panic!("there was one")
            };
            let trailers = frame?.unwrap().into_trailers().unwrap();
            let mut left: Vec<_> = trailers.keys().map(|name| name.as_str().to_owned()).collect();
            left.sort_unstable();
            Some(left.join(" "))
        };
        let names = ["te", "connection", "x-named", "transfer-encoding", "x-forwarded-for", "grpc-status"];
        assert_eq!(left(&names, Sender::Client).unwrap(), "grpc-status");
        assert_eq!(left(&names, Sender::Backend).unwrap(), "grpc-status x-forwarded-for");
        assert_eq!(left(&names[..4], Sender::Backend), None, "nothing is left to send");
    }

    #[test]
    fn every_header_of_interest_is_seen() {
        let map = HeaderMap::from_iter([(header::EXPECT, HeaderValue::from_static("100-continue"))]);
        assert!(HopHeaders::of(&map).expect());
    }
}

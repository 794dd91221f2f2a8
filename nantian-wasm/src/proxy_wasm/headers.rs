//! Header maps as the ABI shows them: pseudo headers in front, names in lower case, in the order of their
//! arrival.

use std::borrow::Cow;

use http::header::{HOST, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

use super::abi::MapKind;
use super::state::State;
use super::{authority, pairs, text};
use crate::stream::{Exchange, ResponseHead};

/// A header map to look at.
#[derive(Clone, Copy)]
pub(crate) enum Fields<'a> {
    Request(&'a Exchange),
    Response(&'a StatusCode, &'a HeaderMap),
    Plain(&'a HeaderMap),
}

/// The map of a kind, if the running callback may look at it.
pub(crate) fn fields(state: &State, kind: MapKind) -> Option<Fields<'_>> {
    match kind {
        MapKind::CallHeaders | MapKind::CallTrailers | MapKind::GrpcInitial | MapKind::GrpcTrailing => {
            state.received.as_ref()?.fields(kind)
        }
        _ => {
            let exchange = state.exchange()?;
            let plugin_state = exchange.own_ref()?;
            let may_look = match kind {
                MapKind::RequestHeaders => exchange.is_logged || plugin_state.messages.request.has_headers,
                MapKind::RequestTrailers => !exchange.is_logged && plugin_state.messages.request.has_trailers,
                MapKind::ResponseHeaders => exchange.is_logged || plugin_state.messages.response.has_headers,
                _ => exchange.is_logged || plugin_state.messages.response.has_trailers,
            };
            if may_look { of_exchange(exchange, kind) } else { None }
        }
    }
}

/// The map of a kind, whatever the stream's phase: properties can always be read.
pub(crate) fn of_exchange(exchange: &Exchange, kind: MapKind) -> Option<Fields<'_>> {
    match kind {
        MapKind::RequestHeaders => exchange.has_request.then_some(Fields::Request(exchange)),
        MapKind::RequestTrailers => exchange.trailers.request.as_deref().map(Fields::Plain),
        MapKind::ResponseHeaders => exchange
            .response
            .as_ref()
            .map(|ResponseHead { status, headers }| Fields::Response(status, headers)),
        MapKind::ResponseTrailers => exchange.trailers.response.as_deref().map(Fields::Plain),
        _ => None,
    }
}

// === impl Fields ===

impl<'a> Fields<'a> {
    /// The first value of a name, in its own bytes.
    pub(crate) fn get(self, name: &[u8]) -> Option<&'a [u8]> {
        let map = match self {
            Self::Request(exchange) if is_pseudo(true, name) => return request_pseudo(exchange, name),
            Self::Response(status, _) if Pseudo::of(name) == Some(Pseudo::Status) => {
                return Some(status.as_str().as_bytes());
            }
            Self::Request(exchange) => &*exchange.request.headers,
            Self::Response(_, map) | Self::Plain(map) => map,
        };
        std::str::from_utf8(name).ok().and_then(|name| map.get(name)).map(HeaderValue::as_bytes)
    }

    /// The first value of a name that is a header's, in its own bytes.
    pub(crate) fn get_known(self, name: &HeaderName) -> Option<&'a [u8]> {
        let map = match self {
            Self::Request(exchange) if *name == HOST => return request_pseudo(exchange, b"host"),
            Self::Request(exchange) => &*exchange.request.headers,
            Self::Response(_, map) | Self::Plain(map) => map,
        };
        map.get(name).map(HeaderValue::as_bytes)
    }

    /// All values of a name, the others than the first each behind a comma.
    pub(crate) fn others(self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        let map = match self {
            Self::Request(exchange) => &*exchange.request.headers,
            Self::Response(_, map) | Self::Plain(map) => map,
        };
        let is_pseudo = is_pseudo(matches!(self, Self::Request(_)), name);
        let name = std::str::from_utf8(name).ok().filter(|_| !is_pseudo);
        let values = name.map(|name| map.get_all(name).iter().map(HeaderValue::as_bytes));
        values.into_iter().flatten().skip(1)
    }

    /// Number of pairs, pseudo headers included.
    pub(crate) fn count(self) -> usize {
        match self {
            Self::Request(exchange) => {
                let request = &exchange.request;
                let hosts = request.headers.get_all(HOST).iter().count();
                let pseudo = match request.removed {
                    Some(_) => {
                        let has = |name: &&&[u8]| request_pseudo(exchange, name).is_some();
                        REQUEST_PSEUDO.iter().filter(has).count()
                    }
                    // A method and a scheme it has always.
                    None => {
                        let has_authority = hosts > 0 || request.uri.authority().is_some();
                        2 + usize::from(has_authority) + usize::from(authority::path(request).is_some())
                    }
                };
                pseudo + request.headers.len() - hosts
            }
            Self::Response(_, map) => map.len() + 1,
            Self::Plain(map) => map.len(),
        }
    }

    /// Bytes of all names and values.
    pub(crate) fn size(self) -> usize {
        self.pairs().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// The same of the values as guests are shown them.
    pub(crate) fn shown_size(self) -> usize {
        self.pairs().map(|(name, value)| name.len() + text::shown(value).len()).sum()
    }

    /// Bytes of the block of all pairs.
    pub(super) fn block_length(self) -> usize {
        4 + self.pairs().map(|(name, value)| name.len() + text::shown(value).len() + 10).sum::<usize>()
    }

    /// Puts the block of all pairs into `out`, each value as guests are shown it.
    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        if self.pairs().all(|(_, value)| text::is_text(value)) {
            return pairs::encode(|| self.pairs(), out);
        }
        let shown: Vec<_> = self.pairs().map(|(name, value)| (name, text::shown(value))).collect();
        pairs::encode(|| shown.iter().map(|(name, value)| (*name, &**value)), out);
    }

    /// Puts the block of all pairs into `out`, with the values of a name, which stand beside one another, in
    /// one.
    pub(crate) fn encode_joined(self, out: &mut Vec<u8>) {
        let mut joined: Vec<(&[u8], Cow<'_, [u8]>)> = Vec::new();
        for (name, value) in self.pairs() {
            match joined.last_mut() {
                Some((last, values)) if *last == name => {
                    let values = values.to_mut();
                    values.push(b',');
                    values.extend_from_slice(value);
                }
                _ => joined.push((name, Cow::Borrowed(value))),
            }
        }
        pairs::encode(|| joined.iter().map(|(name, values)| (*name, &**values)), out);
    }

    fn pairs(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let (request, status, map) = match self {
            Self::Request(exchange) => (Some(exchange), None, &*exchange.request.headers),
            Self::Response(status, map) => (None, Some((&b":status"[..], status.as_str().as_bytes())), map),
            Self::Plain(map) => (None, None, map),
        };
        let pseudo = request.into_iter().flat_map(|exchange| {
            REQUEST_PSEUDO.into_iter().filter_map(move |name| Some((name, request_pseudo(exchange, name)?)))
        });
        let fields = map.iter().filter(move |(name, _)| request.is_none() || *name != HOST);
        let fields = fields.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
        pseudo.chain(status).chain(fields)
    }
}

/// Pseudo headers of a request in the order guests expect.
const REQUEST_PSEUDO: [&[u8]; 4] = [b":authority", b":path", b":method", b":scheme"];

/// Parts of a message that stand before its headers, and `host`, which is another name of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pseudo {
    Authority,
    Method,
    Path,
    Scheme,
    Status,
}

// === impl Pseudo ===

impl Pseudo {
    /// The part of this name, in whichever case: guests' names are lowered before they mean anything.
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        const NAMES: [(&[u8], Pseudo); 6] = [
            (b":path", Pseudo::Path),
            (b":method", Pseudo::Method),
            (b":authority", Pseudo::Authority),
            (b"host", Pseudo::Authority),
            (b":scheme", Pseudo::Scheme),
            (b":status", Pseudo::Status),
        ];
        let known = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        known.map(|(_, pseudo)| *pseudo)
    }
}

/// Whether a name stands for a part of the message outside its header fields; `host` is another name of
/// `:authority`.
pub(super) fn is_pseudo(is_request: bool, name: &[u8]) -> bool {
    name.starts_with(b":") || (is_request && name.eq_ignore_ascii_case(b"host"))
}

fn request_pseudo<'a>(exchange: &'a Exchange, name: &[u8]) -> Option<&'a [u8]> {
    let request = &exchange.request;
    let pseudo = Pseudo::of(name)?;
    if let Some(removed) = &request.removed {
        match pseudo {
            Pseudo::Path if removed.path.is_some() => {
                return removed.path.as_deref().filter(|path| !path.is_empty());
            }
            Pseudo::Method if removed.method => return None,
            Pseudo::Scheme if removed.scheme => return None,
            Pseudo::Authority if removed.authority => return None,
            _ => {}
        }
    }
    match pseudo {
        Pseudo::Method => Some(request.method.as_str().as_bytes()),
        Pseudo::Path => authority::path(request).map(str::as_bytes),
        Pseudo::Scheme => Some(authority::scheme(exchange).as_bytes()),
        Pseudo::Authority => authority::authority(request),
        Pseudo::Status => None,
    }
}

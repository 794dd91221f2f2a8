//! Header maps as the ABI shows them: pseudo headers in front, names in lower case, in the order of their arrival.
//!
//! Whatever a guest writes passes through here. Names and values that are no HTTP, a `:status` that is no final status,
//! and anything in the headers that frame a message never reach the exchange.

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method, StatusCode};

use super::abi::MapKind;
use super::scribe::Scribe;
use super::state::State;
use super::{authority, joined, pairs};
use crate::error::Cause;
use crate::stream::{Exchange, ResponseHead};

/// Most entries a map may have after a guest added one.
pub(super) const MAX_ENTRIES: usize = 256;

/// A header map to look at.
#[derive(Clone, Copy)]
pub(crate) enum Fields<'a> {
    Request(&'a Exchange),
    Response(&'a StatusCode, &'a HeaderMap),
    Plain(&'a HeaderMap),
}

/// One change a guest makes to a map.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Edit<'a> {
    Add(&'a [u8], &'a [u8]),
    Replace(&'a [u8], &'a [u8]),
    Remove(&'a [u8]),
    /// Replaces the whole map.
    SetAll(&'a [(&'a [u8], &'a [u8])]),
}

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EditError {
    Unavailable,
    /// The map would become larger than a guest may make it.
    TooMany,
    /// What was written is no HTTP; the stream ends.
    Invalid(Cause),
}

/// The map of a kind, if the running callback may look at it.
pub(crate) fn fields(state: &State, kind: MapKind) -> Option<Fields<'_>> {
    match kind {
        MapKind::CallHeaders | MapKind::CallTrailers | MapKind::GrpcInitial | MapKind::GrpcTrailing => {
            state.received.fields(kind)
        }
        _ => {
            let exchange = state.exchange()?;
            let seat = exchange.own_ref()?;
            let may_look = match kind {
                MapKind::RequestHeaders => exchange.is_logged || seat.request.has_headers,
                MapKind::RequestTrailers => !exchange.is_logged && seat.request.has_trailers,
                MapKind::ResponseHeaders => exchange.is_logged || seat.response.has_headers,
                _ => exchange.is_logged || seat.response.has_trailers,
            };
            if may_look { of_exchange(exchange, kind) } else { None }
        }
    }
}

/// The map of a kind, whatever the stream's phase: properties can always be read.
pub(crate) fn of_exchange(exchange: &Exchange, kind: MapKind) -> Option<Fields<'_>> {
    match kind {
        MapKind::RequestHeaders => Some(Fields::Request(exchange)),
        MapKind::RequestTrailers => exchange.request_trailers.as_ref().map(Fields::Plain),
        MapKind::ResponseHeaders => exchange
            .response
            .as_ref()
            .map(|ResponseHead { status, headers }| Fields::Response(status, headers)),
        MapKind::ResponseTrailers => exchange.response_trailers.as_ref().map(Fields::Plain),
        _ => None,
    }
}

// === impl Fields ===

impl<'a> Fields<'a> {
    /// The first value of a name.
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
                let has_authority = authority::authority(request).is_some();
                let has_path = authority::path(request).is_some();
                // A method and a scheme it has always.
                let pseudo = 2 + usize::from(has_authority) + usize::from(has_path);
                pseudo + request.headers.len() - request.headers.get_all(HOST).iter().count()
            }
            Self::Response(_, map) => map.len() + 1,
            Self::Plain(map) => map.len(),
        }
    }

    /// Bytes of all names and values.
    pub(crate) fn size(self) -> usize {
        self.pairs().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Puts the block of all pairs into `out`.
    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        pairs::encode(|| self.pairs(), out);
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

/// Makes one change.
pub(crate) fn edit(
    exchange: &mut Exchange,
    scribe: &mut Scribe,
    kind: MapKind,
    edit: Edit<'_>,
) -> Result<(), EditError> {
    let may_change = exchange.own_ref().is_some_and(|seat| match kind {
        MapKind::RequestHeaders => seat.request.has_headers,
        MapKind::RequestTrailers => seat.request.has_trailers,
        MapKind::ResponseHeaders => seat.response.has_headers,
        MapKind::ResponseTrailers => seat.response.has_trailers,
        _ => false,
    });
    if !may_change || map_mut(exchange, kind).is_none() {
        return Err(EditError::Unavailable);
    }
    exchange.before_change();
    note_length(exchange, kind, edit);
    if let Edit::SetAll(pairs) = edit {
        return set_all(exchange, scribe, kind, pairs);
    }
    let (Edit::Add(name, _) | Edit::Replace(name, _) | Edit::Remove(name)) = edit else { return Ok(()) };
    if is_pseudo(kind == MapKind::RequestHeaders, name) {
        return match edit {
            Edit::Add(_, value) | Edit::Replace(_, value) => set_pseudo(exchange, kind, name, value),
            // A message without one of these is no message: `:status` ends the stream as it does in Envoy.
            _ if Pseudo::of(name) == Some(Pseudo::Status) => {
                Err(EditError::Invalid(Cause::InvalidStatus { value: "none".to_owned() }))
            }
            _ => Ok(()),
        };
    }
    let joined = joined::names(kind);
    let Some(map) = map_mut(exchange, kind) else { return Err(EditError::Unavailable) };
    match edit {
        Edit::Remove(_) => {
            if let Some(name) = scribe.name(name) {
                remove(map, &name);
            }
            Ok(())
        }
        Edit::Add(name, value) => add(map, scribe, joined, (name, value)),
        Edit::Replace(name, value) => replace(map, scribe, name, value),
        Edit::SetAll(_) => Ok(()),
    }
}

/// Notes that a guest has written a content-length. It is not kept: the right one is known when the body is.
fn note_length(exchange: &mut Exchange, kind: MapKind, edit: Edit<'_>) {
    let is_length = |name: &[u8]| name.eq_ignore_ascii_case(b"content-length");
    let is_written = match edit {
        Edit::Add(name, _) | Edit::Replace(name, _) => is_length(name),
        Edit::SetAll(pairs) => pairs.iter().any(|(name, value)| {
            let present = map_mut(exchange, kind).and_then(|map| map.get(CONTENT_LENGTH));
            is_length(name) && present.is_none_or(|present| present != value)
        }),
        Edit::Remove(_) => false,
    };
    let Some(seat) = exchange.own().filter(|_| is_written) else { return };
    match kind {
        MapKind::RequestHeaders => seat.request.is_resized = true,
        MapKind::ResponseHeaders => seat.response.is_resized = true,
        _ => {}
    }
}

/// Whether a header frames a message or belongs to one connection: never a guest's to write.
pub(super) fn is_framing(name: &HeaderName) -> bool {
    [CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE].contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// Reads a final status: three digits, 200 to 999.
pub(crate) fn status(text: &[u8]) -> Result<StatusCode, Cause> {
    StatusCode::from_bytes(text)
        .ok()
        .filter(|status| status.as_u16() >= 200)
        .ok_or_else(|| Cause::InvalidStatus { value: excerpt(text) })
}

/// The first bytes of what a guest wrote, fit for a log.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    bytes.get(..bytes.len().min(64)).unwrap_or_default().escape_ascii().to_string()
}

/// Adds a value behind those that are there; to the one that is there, if the name is one of `joined`.
fn add(
    map: &mut HeaderMap,
    scribe: &mut Scribe,
    joined: &[&str],
    (name, value): (&[u8], &[u8]),
) -> Result<(), EditError> {
    let Some((name, value)) = scribe.field(name, value).map_err(EditError::Invalid)? else { return Ok(()) };
    if let Some(present) = map.get_mut(&name).filter(|_| joined.contains(&name.as_str())) {
        *present = joined::both(present, &value).ok_or(EditError::TooMany)?;
        return Ok(());
    }
    if map.len() >= MAX_ENTRIES {
        return Err(EditError::TooMany);
    }
    map.try_append(name, value).map(drop).map_err(|_| EditError::TooMany)
}

/// Puts a value in the place of all that are there; as a new header it comes last.
fn replace(map: &mut HeaderMap, scribe: &mut Scribe, name: &[u8], value: &[u8]) -> Result<(), EditError> {
    let Some((name, value)) = scribe.field(name, value).map_err(EditError::Invalid)? else { return Ok(()) };
    if !remove(map, &name) && map.len() >= MAX_ENTRIES {
        return Err(EditError::TooMany);
    }
    map.try_append(name, value).map(drop).map_err(|_| EditError::TooMany)
}

/// Removes all values of a name and keeps the order of the others, which the map's own removal does not.
fn remove(map: &mut HeaderMap, name: &HeaderName) -> bool {
    if !map.contains_key(name) {
        return false;
    }
    if map.keys().last() == Some(name) {
        map.remove(name);
        return true;
    }
    let mut rest = HeaderMap::with_capacity(map.len());
    let mut present = None;
    for (next, value) in map.drain() {
        present = next.or(present);
        if let Some(kept) = present.as_ref().filter(|kept| *kept != name) {
            // As many entries as there were fit again.
            rest.append(kept.clone(), value);
        }
    }
    *map = rest;
    true
}

/// Replaces a map. Pseudo headers that are absent and headers that frame the message stay as they were.
fn set_all(
    exchange: &mut Exchange,
    scribe: &mut Scribe,
    kind: MapKind,
    pairs: &[(&[u8], &[u8])],
) -> Result<(), EditError> {
    let Some(old) = map_mut(exchange, kind).map(std::mem::take) else { return Err(EditError::Unavailable) };
    let is_request = kind == MapKind::RequestHeaders;
    let mut new = HeaderMap::with_capacity(pairs.len());
    let keeps_length = pairs.iter().any(|(name, value)| {
        name.eq_ignore_ascii_case(b"content-length")
            && old.get(CONTENT_LENGTH).is_some_and(|old| old == value)
    });
    for (name, value) in &old {
        let kept = if *name == CONTENT_LENGTH {
            keeps_length
        } else {
            is_framing(name) || (is_request && *name == HOST)
        };
        if kept {
            new.try_append(name.clone(), value.clone()).map_err(|_| EditError::TooMany)?;
        }
    }
    if let Some(map) = map_mut(exchange, kind) {
        *map = new;
    }
    for (name, value) in pairs {
        if is_pseudo(is_request, name) {
            set_pseudo(exchange, kind, name, value)?;
        } else if let Some(map) = map_mut(exchange, kind) {
            add(map, scribe, joined::names(kind), (*name, *value))?;
        }
    }
    Ok(())
}

/// Pseudo headers of a request in the order guests expect.
const REQUEST_PSEUDO: [&[u8]; 4] = [b":authority", b":path", b":method", b":scheme"];

/// Parts of a message that stand before its headers, and `host`, which is another name of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pseudo {
    Authority,
    Method,
    Path,
    Scheme,
    Status,
}

// === impl Pseudo ===

impl Pseudo {
    /// The part of this name, in whichever case: guests' names are lowered before they mean anything.
    fn of(name: &[u8]) -> Option<Self> {
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

/// Whether a name stands for a part of the message outside its header fields; `host` is another name of `:authority`.
fn is_pseudo(is_request: bool, name: &[u8]) -> bool {
    name.starts_with(b":") || (is_request && name.eq_ignore_ascii_case(b"host"))
}

fn request_pseudo<'a>(exchange: &'a Exchange, name: &[u8]) -> Option<&'a [u8]> {
    let request = &exchange.request;
    match Pseudo::of(name)? {
        Pseudo::Method => Some(request.method.as_str().as_bytes()),
        Pseudo::Path => authority::path(request).map(str::as_bytes),
        Pseudo::Scheme => Some(authority::scheme(exchange).as_bytes()),
        Pseudo::Authority => authority::authority(request),
        Pseudo::Status => None,
    }
}

fn set_pseudo(exchange: &mut Exchange, kind: MapKind, name: &[u8], value: &[u8]) -> Result<(), EditError> {
    let invalid = || EditError::Invalid(Cause::InvalidHeader { name: excerpt(name) });
    match (kind, Pseudo::of(name).ok_or_else(invalid)?) {
        (MapKind::RequestHeaders, Pseudo::Method) => {
            let method = Method::from_bytes(value).map_err(|_| invalid())?;
            // CONNECT is another protocol behind the same head: no message turns into one, or back.
            if (method == Method::CONNECT) != (exchange.request.method == Method::CONNECT) {
                return Err(invalid());
            }
            exchange.request.method = method;
        }
        (MapKind::RequestHeaders, Pseudo::Path) => {
            authority::set_path(&mut exchange.request, value).ok_or_else(invalid)?;
        }
        (MapKind::RequestHeaders, Pseudo::Scheme) => {
            authority::set_scheme(&mut exchange.request, value).ok_or_else(invalid)?;
        }
        (MapKind::RequestHeaders, Pseudo::Authority) => {
            authority::set_authority(&mut exchange.request, value).ok_or_else(invalid)?;
        }
        (MapKind::ResponseHeaders, Pseudo::Status) => {
            let status = status(value).map_err(EditError::Invalid)?;
            if let Some(response) = exchange.response.as_mut() {
                response.status = status;
            }
        }
        _ => return Err(invalid()),
    }
    Ok(())
}

fn map_mut(exchange: &mut Exchange, kind: MapKind) -> Option<&mut HeaderMap> {
    match kind {
        MapKind::RequestHeaders => exchange.request.headers.map_mut(),
        MapKind::RequestTrailers => exchange.request_trailers.as_mut(),
        MapKind::ResponseHeaders => exchange.response.as_mut()?.headers.map_mut(),
        MapKind::ResponseTrailers => exchange.response_trailers.as_mut(),
        _ => None,
    }
}

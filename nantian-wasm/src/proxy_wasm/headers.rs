//! Header maps of an exchange as the ABI shows them: pseudo headers in front, names in lower case.
//!
//! Whatever a guest writes passes through here. Names and values that are no HTTP, a `:status` that is no final status,
//! and anything in the headers that frame a message never reach the exchange.

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method, StatusCode};

use super::abi::MapKind;
use super::{authority, pairs};
use crate::error::Cause;
use crate::stream::{Exchange, RequestHead, ResponseHead};

/// Most entries a map may have after a guest added one.
const MAX_ENTRIES: usize = 256;

/// What looking a name up gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lookup<'a> {
    Found(&'a [u8]),
    Missing,
    /// The exchange has no such map now.
    Unavailable,
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

/// The first value of a name.
pub(crate) fn lookup<'a>(exchange: &'a Exchange, kind: MapKind, name: &[u8]) -> Lookup<'a> {
    let Some(map) = map(exchange, kind) else { return Lookup::Unavailable };
    let value = match kind {
        MapKind::RequestHeaders if is_pseudo(kind, name) => request_pseudo(exchange, name),
        MapKind::ResponseHeaders if name == b":status" => response_status(exchange),
        _ => std::str::from_utf8(name).ok().and_then(|name| map.get(name)).map(HeaderValue::as_bytes),
    };
    value.map_or(Lookup::Missing, Lookup::Found)
}

/// Number of pairs in a map, pseudo headers included.
pub(crate) fn count(exchange: &Exchange, kind: MapKind) -> Option<usize> {
    let map = map(exchange, kind)?;
    Some(match kind {
        MapKind::RequestHeaders => {
            let pseudo =
                REQUEST_PSEUDO.iter().filter(|name| request_pseudo(exchange, name).is_some()).count();
            pseudo + map.len() - map.get_all(HOST).iter().count()
        }
        MapKind::ResponseHeaders => map.len() + 1,
        _ => map.len(),
    })
}

/// Puts the block of all pairs of a map into `out`; false when there is no such map.
pub(crate) fn encode(exchange: &Exchange, kind: MapKind, out: &mut Vec<u8>) -> bool {
    let Some(map) = map(exchange, kind) else { return false };
    let is_request = kind == MapKind::RequestHeaders;
    let pairs = || {
        let pseudo = REQUEST_PSEUDO.iter().filter(|_| is_request);
        let pseudo = pseudo.filter_map(|name| Some((*name, request_pseudo(exchange, name)?)));
        let status = response_status(exchange).filter(|_| kind == MapKind::ResponseHeaders);
        let status = status.map(|status| (&b":status"[..], status));
        let fields = map.iter().filter(|(name, _)| !(is_request && *name == HOST));
        pseudo.chain(status).chain(fields.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())))
    };
    pairs::encode(pairs, out);
    true
}

/// Makes one change.
pub(crate) fn edit(exchange: &mut Exchange, kind: MapKind, edit: Edit<'_>) -> Result<(), EditError> {
    if map(exchange, kind).is_none() {
        return Err(EditError::Unavailable);
    }
    exchange.before_change();
    if let Edit::SetAll(pairs) = edit {
        return set_all(exchange, kind, pairs);
    }
    let (Edit::Add(name, _) | Edit::Replace(name, _) | Edit::Remove(name)) = edit else { return Ok(()) };
    if is_pseudo(kind, name) {
        return match edit {
            Edit::Add(_, value) | Edit::Replace(_, value) => set_pseudo(exchange, kind, name, value),
            // A message without one of these is no message: `:status` ends the stream as it does in Envoy.
            _ if name == b":status" => {
                Err(EditError::Invalid(Cause::InvalidStatus { value: "none".to_owned() }))
            }
            _ => Ok(()),
        };
    }
    let Some(map) = map_mut(exchange, kind) else { return Err(EditError::Unavailable) };
    match edit {
        Edit::Remove(_) => {
            if let Ok(name) = std::str::from_utf8(name) {
                map.remove(name);
            }
            Ok(())
        }
        Edit::Add(name, value) => write(map, name, value, false),
        Edit::Replace(name, value) => write(map, name, value, true),
        Edit::SetAll(_) => Ok(()),
    }
}

/// Whether a header frames a message or belongs to one connection: never a guest's to write.
fn is_framing(name: &HeaderName) -> bool {
    [CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE].contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// Checks a field before any of it is kept.
pub(crate) fn field(name: &[u8], value: &[u8]) -> Result<Option<(HeaderName, HeaderValue)>, Cause> {
    let invalid = |_| Cause::InvalidHeader { name: excerpt(name) };
    let parsed = HeaderName::from_bytes(name).map_err(|_| Cause::InvalidHeader { name: excerpt(name) })?;
    let value = HeaderValue::from_bytes(value).map_err(invalid)?;
    Ok(if is_framing(&parsed) { None } else { Some((parsed, value)) })
}

/// Reads a final status: three digits, 200 to 999.
pub(crate) fn status(text: &[u8]) -> Result<StatusCode, Cause> {
    StatusCode::from_bytes(text)
        .ok()
        .filter(|status| status.as_u16() >= 200)
        .ok_or_else(|| Cause::InvalidStatus { value: excerpt(text) })
}

/// The first bytes of what a guest wrote, fit for a log.
fn excerpt(bytes: &[u8]) -> String {
    bytes.get(..bytes.len().min(64)).unwrap_or_default().escape_ascii().to_string()
}

fn write(map: &mut HeaderMap, name: &[u8], value: &[u8], replace: bool) -> Result<(), EditError> {
    let Some((name, value)) = field(name, value).map_err(EditError::Invalid)? else { return Ok(()) };
    if map.len() >= MAX_ENTRIES && !(replace && map.contains_key(&name)) {
        return Err(EditError::TooMany);
    }
    let written =
        if replace { map.try_insert(name, value).map(drop) } else { map.try_append(name, value).map(drop) };
    written.map_err(|_| EditError::TooMany)
}

/// Replaces a map. Pseudo headers that are absent and headers that frame the message stay as they were.
fn set_all(exchange: &mut Exchange, kind: MapKind, pairs: &[(&[u8], &[u8])]) -> Result<(), EditError> {
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
        if is_pseudo(kind, name) {
            set_pseudo(exchange, kind, name, value)?;
        } else if let Some(map) = map_mut(exchange, kind) {
            write(map, name, value, false)?;
        }
    }
    Ok(())
}

/// Pseudo headers of a request in the order guests expect.
const REQUEST_PSEUDO: [&[u8]; 4] = [b":authority", b":path", b":method", b":scheme"];

/// Whether a name stands for a part of the message outside its header fields; `host` is another name of `:authority`.
fn is_pseudo(kind: MapKind, name: &[u8]) -> bool {
    name.starts_with(b":") || (kind == MapKind::RequestHeaders && name.eq_ignore_ascii_case(b"host"))
}

fn request_pseudo<'a>(exchange: &'a Exchange, name: &[u8]) -> Option<&'a [u8]> {
    let request = &exchange.request;
    match name {
        b":method" => Some(request.method.as_str().as_bytes()),
        b":path" => authority::path(request).map(str::as_bytes),
        b":scheme" => Some(authority::scheme(exchange).as_bytes()),
        b":authority" => authority::authority(request),
        _ if name.eq_ignore_ascii_case(b"host") => authority::authority(request),
        _ => None,
    }
}

fn response_status(exchange: &Exchange) -> Option<&[u8]> {
    exchange.response.as_ref().map(|response| response.status.as_str().as_bytes())
}

fn set_pseudo(exchange: &mut Exchange, kind: MapKind, name: &[u8], value: &[u8]) -> Result<(), EditError> {
    let invalid = || EditError::Invalid(Cause::InvalidHeader { name: excerpt(name) });
    match (kind, name) {
        (MapKind::RequestHeaders, b":method") => {
            let method = Method::from_bytes(value).map_err(|_| invalid())?;
            // CONNECT is another protocol behind the same head: no message turns into one, or back.
            if (method == Method::CONNECT) != (exchange.request.method == Method::CONNECT) {
                return Err(invalid());
            }
            exchange.request.method = method;
        }
        (MapKind::RequestHeaders, b":path") => {
            authority::set_path(&mut exchange.request, value).ok_or_else(invalid)?;
        }
        (MapKind::RequestHeaders, b":scheme") => {
            authority::set_scheme(&mut exchange.request, value).ok_or_else(invalid)?;
        }
        (MapKind::RequestHeaders, _) if name == b":authority" || !name.starts_with(b":") => {
            authority::set_authority(&mut exchange.request, value).ok_or_else(invalid)?;
        }
        (MapKind::ResponseHeaders, b":status") => {
            let status = status(value).map_err(EditError::Invalid)?;
            if let Some(response) = exchange.response.as_mut() {
                response.status = status;
            }
        }
        _ => return Err(invalid()),
    }
    Ok(())
}

fn map(exchange: &Exchange, kind: MapKind) -> Option<&HeaderMap> {
    match kind {
        MapKind::RequestHeaders => Some(&exchange.request.headers),
        MapKind::RequestTrailers => exchange.request_trailers.as_ref(),
        MapKind::ResponseHeaders => exchange.response.as_ref().map(|ResponseHead { headers, .. }| headers),
        MapKind::ResponseTrailers => exchange.response_trailers.as_ref(),
        MapKind::CallOut => None,
    }
}

fn map_mut(exchange: &mut Exchange, kind: MapKind) -> Option<&mut HeaderMap> {
    match kind {
        MapKind::RequestHeaders => {
            let RequestHead { headers, .. } = &mut exchange.request;
            Some(headers)
        }
        MapKind::RequestTrailers => exchange.request_trailers.as_mut(),
        MapKind::ResponseHeaders => exchange.response.as_mut().map(|ResponseHead { headers, .. }| headers),
        MapKind::ResponseTrailers => exchange.response_trailers.as_mut(),
        MapKind::CallOut => None,
    }
}

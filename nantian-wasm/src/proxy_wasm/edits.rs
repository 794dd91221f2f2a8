//! Changes of header maps.
//!
//! Whatever a guest writes passes through here. Names and values that are no HTTP, a `:status` that is no
//! final status, and anything in the headers that frame a message never reach the exchange.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};

use super::abi::MapKind;
use super::header_interner::HeaderInterner;
use super::headers::{Pseudo, is_pseudo};
use super::{authority, joined, text};
use crate::error::Cause;
use crate::stream::{Direction, Exchange, RemovedPseudoHeaders, RequestHead};

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
    /// The map would become larger than a map can be.
    TooMany,
    /// What was written is no HTTP; the stream ends.
    Invalid(Cause),
}

/// Fields of a map that a guest can change; none where there is none.
pub(super) fn entries(exchange: &mut Exchange, kind: MapKind) -> usize {
    map_mut(exchange, kind).map_or(0, |map| map.len())
}

/// Makes one change.
pub(crate) fn edit(
    exchange: &mut Exchange,
    interner: &mut HeaderInterner,
    kind: MapKind,
    edit: Edit<'_>,
) -> Result<(), EditError> {
    let may_change = exchange.own_ref().is_some_and(|plugin_state| match kind {
        MapKind::RequestHeaders => plugin_state.messages.request.has_headers,
        MapKind::RequestTrailers => plugin_state.messages.request.has_trailers,
        MapKind::ResponseHeaders => plugin_state.messages.response.has_headers,
        MapKind::ResponseTrailers => plugin_state.messages.response.has_trailers,
        _ => false,
    });
    let added = added_trailers(exchange, kind);
    if added.is_none() && (!may_change || map_mut(exchange, kind).is_none()) {
        return Err(EditError::Unavailable);
    }
    exchange.before_change();
    if let Some(direction) = added {
        *exchange.trailers.of(direction) = Some(Box::default());
        if let Some(plugin_state) = exchange.own() {
            plugin_state.messages.of(direction).has_trailers = true;
        }
    }
    note_length(exchange, kind, edit);
    if let Edit::SetAll(pairs) = edit {
        return set_all(exchange, interner, kind, pairs);
    }
    let (Edit::Add(name, _) | Edit::Replace(name, _) | Edit::Remove(name)) = edit else { return Ok(()) };
    if is_pseudo(kind == MapKind::RequestHeaders, name) {
        return match edit {
            Edit::Add(_, value) | Edit::Replace(_, value) => set_pseudo(exchange, kind, name, value),
            // A response without one is no response: that ends the stream as it does in Envoy.
            _ if kind == MapKind::ResponseHeaders && Pseudo::of(name) == Some(Pseudo::Status) => {
                Err(EditError::Invalid(Cause::InvalidStatus { value: "none".to_owned() }))
            }
            _ => {
                if kind == MapKind::RequestHeaders {
                    take_pseudo(&mut exchange.request, name);
                }
                Ok(())
            }
        };
    }
    let joined = joined::names(kind);
    let Some(map) = map_mut(exchange, kind) else { return Err(EditError::Unavailable) };
    match edit {
        Edit::Remove(_) => {
            if let Some(name) = interner.name(name) {
                remove(map, &name);
            }
            Ok(())
        }
        Edit::Add(name, value) => add(map, interner, joined, (name, value)),
        Edit::Replace(name, value) => replace(map, interner, name, value),
        Edit::SetAll(_) => Ok(()),
    }
}

/// Whose trailers a change would be the first of: the guest is shown the end of a body that came without, or
/// holds it.
pub(super) fn added_trailers(exchange: &Exchange, kind: MapKind) -> Option<Direction> {
    let direction = match kind {
        MapKind::RequestTrailers => Direction::Request,
        MapKind::ResponseTrailers => Direction::Response,
        _ => return None,
    };
    let may_add = exchange.own_ref()?.messages.get(direction).may_add_trailers;
    (may_add && exchange.trailers.get(direction).is_none()).then_some(direction)
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
    let Some(plugin_state) = exchange.own().filter(|_| is_written) else { return };
    match kind {
        MapKind::RequestHeaders => plugin_state.messages.request.is_resized = true,
        MapKind::ResponseHeaders => plugin_state.messages.response.is_resized = true,
        _ => {}
    }
}

/// Whether a header frames a message or belongs to one connection: never a guest's to write.
pub(super) fn is_framing(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "content-length"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Reads a final status: three digits, 200 to 999.
pub(crate) fn status(text: &[u8]) -> Result<StatusCode, Cause> {
    StatusCode::from_bytes(text)
        .ok()
        .filter(|status| status.as_u16() >= 200)
        .ok_or_else(|| Cause::InvalidStatus { value: excerpt(text) })
}

/// The first bytes of what a guest wrote, fit for a log: a host's name is whole, and so are its port and what
/// Istio writes before it.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    bytes.get(..bytes.len().min(320)).unwrap_or_default().escape_ascii().to_string()
}

/// Adds a value behind those that are there; to the one that is there, if the name is one of `joined`.
fn add(
    map: &mut HeaderMap,
    interner: &mut HeaderInterner,
    joined: &[&str],
    (name, value): (&[u8], &[u8]),
) -> Result<(), EditError> {
    let Some((name, value)) = interner.field(name, value).map_err(EditError::Invalid)? else { return Ok(()) };
    if let Some(present) = map.get_mut(&name).filter(|_| joined.contains(&name.as_str())) {
        *present = joined::both(present, &value).ok_or(EditError::TooMany)?;
        return Ok(());
    }
    map.try_append(name, value).map(drop).map_err(|_| EditError::TooMany)
}

/// Puts a value in the place of all that are there; as a new header it comes last.
fn replace(
    map: &mut HeaderMap,
    interner: &mut HeaderInterner,
    name: &[u8],
    value: &[u8],
) -> Result<(), EditError> {
    let Some((name, value)) = interner.field(name, value).map_err(EditError::Invalid)? else { return Ok(()) };
    let value = text::restored(map, &name, value.as_bytes()).unwrap_or(value);
    remove(map, &name);
    map.try_append(name, value).map(drop).map_err(|_| EditError::TooMany)
}

/// Removes all values of a name and keeps the order of the others, which the map's own removal does not.
pub(crate) fn remove(map: &mut HeaderMap, name: &HeaderName) {
    if !map.contains_key(name) {
        return;
    }
    if map.keys().last() == Some(name) {
        map.remove(name);
        return;
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
}

/// Replaces a map. Pseudo headers that are absent and headers that frame the message stay as they were.
fn set_all(
    exchange: &mut Exchange,
    interner: &mut HeaderInterner,
    kind: MapKind,
    pairs: &[(&[u8], &[u8])],
) -> Result<(), EditError> {
    let Some(old) = map_mut(exchange, kind).map(std::mem::take) else { return Err(EditError::Unavailable) };
    let is_request = kind == MapKind::RequestHeaders;
    let mut new = HeaderMap::with_capacity(pairs.len());
    let is_length = |(name, value): &(&[u8], &[u8]), old: &HeaderValue| {
        name.eq_ignore_ascii_case(b"content-length") && old == value
    };
    let mut length =
        old.get(CONTENT_LENGTH).filter(|old| pairs.iter().any(|pair| is_length(pair, old))).cloned();
    for (name, value) in &old {
        if *name != CONTENT_LENGTH && (is_framing(name) || (is_request && *name == HOST)) {
            new.try_append(name.clone(), value.clone()).map_err(|_| EditError::TooMany)?;
        }
    }
    let mut replaced = text::Replaced::of(&old);
    if let Some(map) = map_mut(exchange, kind) {
        *map = new;
    }
    for (name, value) in pairs {
        if is_pseudo(is_request, name) {
            set_pseudo(exchange, kind, name, value)?;
        } else if let Some(map) = map_mut(exchange, kind) {
            match length.take_if(|_| name.eq_ignore_ascii_case(b"content-length")) {
                Some(length) => drop(map.insert(CONTENT_LENGTH, length)),
                None => {
                    let value = replaced.take(name, value);
                    add(map, interner, joined::names(kind), (*name, value))?;
                }
            }
        }
    }
    Ok(())
}

/// Takes a part of a request out of the guests' sight; whether it can do without is judged when it leaves.
fn take_pseudo(request: &mut RequestHead, name: &[u8]) {
    let removed = request.removed.get_or_insert_default();
    match Pseudo::of(name) {
        Some(Pseudo::Path) => removed.path = Some(Bytes::new()),
        Some(Pseudo::Method) => removed.method = true,
        Some(Pseudo::Authority) => removed.authority = true,
        Some(Pseudo::Scheme) => removed.scheme = true,
        Some(Pseudo::Status) | None => {}
    }
}

fn set_pseudo(exchange: &mut Exchange, kind: MapKind, name: &[u8], value: &[u8]) -> Result<(), EditError> {
    let invalid = || EditError::Invalid(Cause::InvalidHeader { name: excerpt(name) });
    // As in Envoy over HTTP/1.1, one that the message cannot have is not sent.
    let Some(pseudo) = Pseudo::of(name) else { return Ok(()) };
    match (kind, pseudo) {
        (MapKind::RequestHeaders, Pseudo::Method) => {
            let method = Method::from_bytes(value).map_err(|_| invalid())?;
            // CONNECT is another protocol behind the same head: no message turns into one, or back.
            if (method == Method::CONNECT) != (exchange.request.method == Method::CONNECT) {
                return Err(invalid());
            }
            exchange.request.method = method;
            found(exchange, |removed| removed.method = false);
        }
        (MapKind::RequestHeaders, Pseudo::Path) => {
            let is_path =
                value.starts_with(b"/") || (value == b"*" && exchange.request.method == Method::OPTIONS);
            if is_path {
                authority::set_path(&mut exchange.request, value).ok_or_else(invalid)?;
                found(exchange, |removed| removed.path = None);
            } else {
                HeaderValue::from_bytes(value).map_err(|_| invalid())?;
                let removed = exchange.request.removed.get_or_insert_default();
                removed.path = Some(Bytes::copy_from_slice(value));
            }
        }
        (MapKind::RequestHeaders, Pseudo::Scheme) => {
            authority::set_scheme(&mut exchange.request, value).ok_or_else(invalid)?;
            found(exchange, |removed| removed.scheme = false);
        }
        (MapKind::RequestHeaders, Pseudo::Authority) => {
            authority::set_authority(&mut exchange.request, value).ok_or_else(invalid)?;
            found(exchange, |removed| removed.authority = false);
        }
        (MapKind::ResponseHeaders, Pseudo::Status) => {
            // What has been read may be written back, also where it is no final status.
            if let Some(response) = exchange.response.as_mut()
                && response.status.as_str().as_bytes() != value
            {
                response.status = status(value).map_err(EditError::Invalid)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Notes that a request has again what was taken from it.
fn found(exchange: &mut Exchange, note: impl FnOnce(&mut RemovedPseudoHeaders)) {
    if let Some(removed) = &mut exchange.request.removed {
        note(removed);
    }
}

fn map_mut(exchange: &mut Exchange, kind: MapKind) -> Option<&mut HeaderMap> {
    match kind {
        MapKind::RequestHeaders => exchange.request.headers.map_mut(),
        MapKind::RequestTrailers => exchange.trailers.request.as_deref_mut(),
        MapKind::ResponseHeaders => exchange.response.as_mut()?.headers.map_mut(),
        MapKind::ResponseTrailers => exchange.trailers.response.as_deref_mut(),
        _ => None,
    }
}

//! State calls on header maps.

use wasmtime::Caller;

use super::abi::{Abi, MapKind, Status};
use super::edits::{self, Edit, EditError};
use super::headers;
use super::memory::{
    AllocationSize, HostCallError, hand_over, hand_over_found, put_u32, read, scratch, slice, view,
};
use super::pairs;
use super::state::State;
use super::text;
use crate::error::{Cause, Phase};

/// Bytes of all names and values as guests are shown them: the size Envoy gives, where all of them are UTF-8.
pub(super) fn get_size(
    caller: &mut Caller<'_, State>,
    kind: u32,
    return_size: u32,
) -> Result<(), HostCallError> {
    let kind = MapKind::from_code(kind)?;
    // Only maps that a guest could change have a size, as in Envoy.
    let may_change = matches!(
        kind,
        MapKind::RequestHeaders
            | MapKind::RequestTrailers
            | MapKind::ResponseHeaders
            | MapKind::ResponseTrailers
    );
    let exchange = caller.data().exchange();
    let is_logged = exchange.is_some_and(|exchange| exchange.is_logged);
    let fields = headers::fields(caller.data(), kind).filter(|_| may_change && !is_logged);
    let size = match fields {
        Some(fields) => fields.shown_size(),
        None if exchange.is_some_and(|exchange| edits::added_trailers(exchange, kind).is_some()) => 0,
        None => return Err(Status::BadArgument.into()),
    };
    put_u32(caller, return_size, u32::try_from(size).unwrap_or(u32::MAX))
}

pub(super) fn get_pairs(
    caller: &mut Caller<'_, State>,
    kind: u32,
    return_pointer: u32,
    return_length: u32,
) -> Result<AllocationSize, HostCallError> {
    let kind = MapKind::from_code(kind)?;
    let mut block = scratch(caller);
    if let Some(fields) = headers::fields(caller.data(), kind).filter(|fields| fields.count() > 0) {
        fields.encode(&mut block);
    }
    hand_over(caller, block, return_pointer, return_length)
}

/// A header that is missing is an empty one in 0.1.0; a map that is missing is a mistake, except in the log
/// callback.
pub(super) fn get_value(
    caller: &mut Caller<'_, State>,
    kind: u32,
    name: u32,
    name_length: u32,
    return_pointer: u32,
    return_length: u32,
) -> Result<AllocationSize, HostCallError> {
    let kind = MapKind::from_code(kind)?;
    hand_over_found(caller, return_pointer, return_length, |memory, state, value| {
        let name = slice(memory, name, name_length)?;
        let place = state.interner.learn(name);
        let known = place.and_then(|place| state.interner.known(place));
        let fields = headers::fields(state, kind);
        let is_logged = state.exchange().is_some_and(|exchange| exchange.is_logged);
        match fields.map(|fields| known.map_or_else(|| fields.get(name), |known| fields.get_known(known))) {
            Some(Some(found)) => value.extend_from_slice(&text::shown(found)),
            // What a call-out did not bring is missing: an SDK guest would abort for a bad argument.
            None if !(is_logged || is_about_call(state, kind)) => return Err(Status::BadArgument.into()),
            _ if state.abi == Abi::V0_1_0 => {}
            _ => return Err(Status::NotFound.into()),
        }
        Ok(())
    })
}

fn is_about_call(state: &State, kind: MapKind) -> bool {
    state.phase == Phase::CallResponse && matches!(kind, MapKind::CallHeaders | MapKind::CallTrailers)
}

pub(super) fn set_pairs(
    caller: &mut Caller<'_, State>,
    kind: u32,
    block: u32,
    length: u32,
) -> Result<(), HostCallError> {
    let kind = MapKind::from_code(kind)?;
    let block = read(caller, block, length)?;
    let state = caller.data_mut();
    // What was there before is not the guest's: a client must not be able to use up what its budget is.
    let before = headers::fields(state, kind).map_or(0, headers::Fields::block_length);
    if let Err(cause) = state.usage.affords_header(block.len().saturating_sub(before))? {
        fail(state, cause);
        return Ok(());
    }
    // A block that does not decode empties the map, as it does in Envoy.
    let pairs = pairs::decode(&block).unwrap_or_default();
    apply(state, kind, Edit::SetAll(&pairs))
}

pub(super) fn add(
    caller: &mut Caller<'_, State>,
    kind: u32,
    name: u32,
    name_length: u32,
    value: u32,
    value_length: u32,
) -> Result<(), HostCallError> {
    write(caller, kind, (name, name_length), (value, value_length), |name, value| Edit::Add(name, value))
}

pub(super) fn replace(
    caller: &mut Caller<'_, State>,
    kind: u32,
    name: u32,
    name_length: u32,
    value: u32,
    value_length: u32,
) -> Result<(), HostCallError> {
    write(caller, kind, (name, name_length), (value, value_length), |name, value| Edit::Replace(name, value))
}

pub(super) fn remove(
    caller: &mut Caller<'_, State>,
    kind: u32,
    name: u32,
    name_length: u32,
) -> Result<(), HostCallError> {
    let kind = MapKind::from_code(kind)?;
    let (memory, state) = view(caller)?;
    let name = slice(memory, name, name_length)?;
    apply(state, kind, Edit::Remove(name))
}

fn write(
    caller: &mut Caller<'_, State>,
    kind: u32,
    name: (u32, u32),
    value: (u32, u32),
    edit: impl for<'a> FnOnce(&'a [u8], &'a [u8]) -> Edit<'a>,
) -> Result<(), HostCallError> {
    let kind = MapKind::from_code(kind)?;
    let (memory, state) = view(caller)?;
    let name = slice(memory, name.0, name.1)?;
    let value = slice(memory, value.0, value.1)?;
    if let Err(cause) = state.usage.affords_header(name.len().saturating_add(value.len()))? {
        fail(state, cause);
        return Ok(());
    }
    apply(state, kind, edit(name, value))
}

/// Ends the stream for what its client may have brought about: the guest lives on.
pub(super) fn fail(state: &mut State, cause: Cause) {
    if let Some(exchange) = state.exchange_mut() {
        exchange.fail(cause);
    }
}

/// Makes a change, or sees to it that the stream ends: the SDKs accept no status but `Ok` for what is no
/// HTTP.
pub(super) fn apply(state: &mut State, kind: MapKind, edit: Edit<'_>) -> Result<(), HostCallError> {
    let (exchange, interner) = state.exchange_to_write().ok_or(Status::BadArgument)?;
    let before = edits::entries(exchange, kind);
    match edits::edit(exchange, interner, kind, edit) {
        Ok(()) => {}
        Err(EditError::Unavailable) => return Err(Status::BadArgument.into()),
        // Whoever sent the message may have filled the map.
        Err(EditError::TooMany) => exchange.fail(Cause::StreamBudget { what: "header entries" }),
        Err(EditError::Invalid(cause)) => exchange.fail(cause),
    }
    let added = edits::entries(exchange, kind).saturating_sub(before);
    if let Err(cause) = state.usage.affords_entries(added)? {
        fail(state, cause);
    }
    Ok(())
}

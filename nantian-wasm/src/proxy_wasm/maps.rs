//! Host calls on header maps.

use wasmtime::Caller;

use super::abi::{MapKind, Status};
use super::headers::{self, Edit, EditError, Lookup};
use super::host::Host;
use super::memory::{Stop, hand_over, put_u32, read, scratch, slice, view};
use super::pairs;
use crate::sandbox::HostTrap;

pub(super) fn get_size(caller: &mut Caller<'_, Host>, kind: u32, return_size: u32) -> Result<(), Stop> {
    let kind = MapKind::from_code(kind)?;
    let size = caller.data().exchange().and_then(|exchange| headers::count(exchange, kind)).unwrap_or(0);
    put_u32(caller, return_size, u32::try_from(size).unwrap_or(u32::MAX))
}

pub(super) fn get_pairs(
    caller: &mut Caller<'_, Host>,
    kind: u32,
    return_pointer: u32,
    return_length: u32,
) -> Result<(), Stop> {
    let kind = MapKind::from_code(kind)?;
    let mut block = scratch(caller);
    if let Some(exchange) = caller.data().exchange() {
        headers::encode(exchange, kind, &mut block);
    }
    hand_over(caller, block, return_pointer, return_length)
}

pub(super) fn get_value(
    caller: &mut Caller<'_, Host>,
    kind: u32,
    name: u32,
    name_length: u32,
    return_pointer: u32,
    return_length: u32,
) -> Result<(), Stop> {
    let kind = MapKind::from_code(kind)?;
    let mut value = scratch(caller);
    let (memory, host) = view(caller)?;
    let name = slice(memory, name, name_length)?;
    match host.exchange().map_or(Lookup::Unavailable, |exchange| headers::lookup(exchange, kind, name)) {
        Lookup::Found(found) => value.extend_from_slice(found),
        Lookup::Missing => return Err(Status::NotFound.into()),
        Lookup::Unavailable => return Err(Status::BadArgument.into()),
    }
    hand_over(caller, value, return_pointer, return_length)
}

pub(super) fn set_pairs(
    caller: &mut Caller<'_, Host>,
    kind: u32,
    block: u32,
    length: u32,
) -> Result<(), Stop> {
    let kind = MapKind::from_code(kind)?;
    let block = read(caller, block, length)?;
    let host = caller.data_mut();
    host.usage.charge_header(block.len())?;
    // A block that does not decode empties the map, as it does in Envoy.
    let pairs = pairs::decode(&block).unwrap_or_default();
    apply(host, kind, Edit::SetAll(&pairs))
}

pub(super) fn add(
    caller: &mut Caller<'_, Host>,
    kind: u32,
    name: u32,
    name_length: u32,
    value: u32,
    value_length: u32,
) -> Result<(), Stop> {
    write(caller, kind, (name, name_length), (value, value_length), |name, value| Edit::Add(name, value))
}

pub(super) fn replace(
    caller: &mut Caller<'_, Host>,
    kind: u32,
    name: u32,
    name_length: u32,
    value: u32,
    value_length: u32,
) -> Result<(), Stop> {
    write(caller, kind, (name, name_length), (value, value_length), |name, value| Edit::Replace(name, value))
}

pub(super) fn remove(
    caller: &mut Caller<'_, Host>,
    kind: u32,
    name: u32,
    name_length: u32,
) -> Result<(), Stop> {
    let kind = MapKind::from_code(kind)?;
    let (memory, host) = view(caller)?;
    let name = slice(memory, name, name_length)?;
    apply(host, kind, Edit::Remove(name))
}

fn write(
    caller: &mut Caller<'_, Host>,
    kind: u32,
    name: (u32, u32),
    value: (u32, u32),
    edit: impl for<'a> FnOnce(&'a [u8], &'a [u8]) -> Edit<'a>,
) -> Result<(), Stop> {
    let kind = MapKind::from_code(kind)?;
    let (memory, host) = view(caller)?;
    let name = slice(memory, name.0, name.1)?;
    let value = slice(memory, value.0, value.1)?;
    host.usage.charge_header(name.len().saturating_add(value.len()))?;
    apply(host, kind, edit(name, value))
}

/// Makes a change, or sees to it that the stream ends: the SDKs accept no status but `Ok` for what is no HTTP.
fn apply(host: &mut Host, kind: MapKind, edit: Edit<'_>) -> Result<(), Stop> {
    let exchange = host.exchange_mut().ok_or(Status::BadArgument)?;
    match headers::edit(exchange, kind, edit) {
        Ok(()) => Ok(()),
        Err(EditError::Unavailable) => Err(Status::BadArgument.into()),
        Err(EditError::TooMany) => Err(HostTrap::Budget("header entries").into()),
        Err(EditError::Invalid(cause)) => {
            exchange.fail(cause);
            Ok(())
        }
    }
}

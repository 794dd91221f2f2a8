//! Guest memory: every pointer and length is a lie until checked.

use wasmtime::Caller;

use super::abi::Status;
use super::state::State;
use crate::sandbox::HostTrap;

/// Largest scratch buffer an instance keeps, in bytes.
const KEPT_SCRATCH: usize = 64 << 10;

/// Bytes that wait for the guest to allocate memory for them, and where it wants to be told of them.
pub(crate) struct Offer {
    bytes: Vec<u8>,
    return_pointer: u32,
    return_length: u32,
}

/// Bytes the guest is to allocate before a host call can end; none when it has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted(u32);

/// How a host call ends when it does not end well.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The guest gets a status.
    Status(Status),
    /// The guest gets nothing: it ends here.
    Trap(wasmtime::Error),
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<HostTrap> for Stop {
    fn from(trap: HostTrap) -> Self {
        Self::Trap(wasmtime::Error::new(trap))
    }
}

/// Turns the end of a host call into what the guest's side of the call returns.
pub(crate) fn reply(result: Result<(), Stop>) -> wasmtime::Result<u32> {
    match result {
        Ok(()) => Ok(Status::Ok as u32),
        Err(Stop::Status(status)) => Ok(status as u32),
        Err(Stop::Trap(error)) => Err(error),
    }
}

/// Turns the first half of a host call that hands bytes over into what the shim understands.
pub(crate) fn prepared(result: Result<Wanted, Stop>) -> wasmtime::Result<i32> {
    match result {
        // A stream gets far less than 2 GiB.
        Ok(Wanted(wanted)) => Ok(wanted.cast_signed()),
        Err(Stop::Status(status)) => Ok(-(status as i32)),
        Err(Stop::Trap(error)) => Err(error),
    }
}

/// Guest memory and state side by side.
pub(crate) fn view<'a>(caller: &'a mut Caller<'_, State>) -> Result<(&'a mut [u8], &'a mut State), Stop> {
    let memory = caller.data().memory.ok_or(Status::InvalidMemoryAccess)?;
    Ok(memory.data_and_store_mut(caller))
}

/// Bytes the guest points at.
pub(crate) fn slice(memory: &[u8], pointer: u32, length: u32) -> Result<&[u8], Status> {
    let (start, end) = range(pointer, length).ok_or(Status::InvalidMemoryAccess)?;
    memory.get(start..end).ok_or(Status::InvalidMemoryAccess)
}

/// Writes bytes where the guest wants them.
pub(crate) fn put(memory: &mut [u8], pointer: u32, bytes: &[u8]) -> Result<(), Status> {
    let length = u32::try_from(bytes.len()).map_err(|_| Status::InvalidMemoryAccess)?;
    let (start, end) = range(pointer, length).ok_or(Status::InvalidMemoryAccess)?;
    memory.get_mut(start..end).ok_or(Status::InvalidMemoryAccess)?.copy_from_slice(bytes);
    Ok(())
}

/// Writes a number through an out-pointer.
pub(crate) fn put_u32(caller: &mut Caller<'_, State>, pointer: u32, value: u32) -> Result<(), Stop> {
    Ok(put(view(caller)?.0, pointer, &value.to_le_bytes())?)
}

/// Writes a number through an out-pointer.
pub(crate) fn put_u64(caller: &mut Caller<'_, State>, pointer: u32, value: u64) -> Result<(), Stop> {
    Ok(put(view(caller)?.0, pointer, &value.to_le_bytes())?)
}

/// Bytes the guest points at, copied out and charged for.
pub(crate) fn read(caller: &mut Caller<'_, State>, pointer: u32, length: u32) -> Result<Vec<u8>, Stop> {
    let (memory, state) = view(caller)?;
    let bytes = slice(memory, pointer, length)?;
    state.usage.charge_from_guest(bytes.len())?;
    Ok(bytes.to_vec())
}

/// An empty buffer for bytes on their way into the guest; give it to [`hand_over`], which returns it.
pub(crate) fn scratch(caller: &mut Caller<'_, State>) -> Vec<u8> {
    let mut scratch = std::mem::take(&mut caller.data_mut().scratch);
    scratch.clear();
    scratch
}

/// Gives the guest bytes in memory of its own allocation, and tells it where they are: when the guest has allocated what
/// this wants, [`take_over`] does so.
///
/// Nothing is allocated for no bytes: the guest gets a null pointer and length zero.
pub(crate) fn hand_over(
    caller: &mut Caller<'_, State>,
    bytes: Vec<u8>,
    return_pointer: u32,
    return_length: u32,
) -> Result<Wanted, Stop> {
    let offer = Offer { bytes, return_pointer, return_length };
    if offer.bytes.is_empty() {
        offer.conclude(caller, 0)?;
        return Ok(Wanted::NOTHING);
    }
    let state = caller.data_mut();
    if state.offer.is_some() {
        return Err(HostTrap::InsideAllocator.into());
    }
    state.usage.charge_into_guest(offer.bytes.len())?;
    if !state.has_allocator {
        return Err(Status::InvalidMemoryAccess.into());
    }
    let wanted = u32::try_from(offer.bytes.len()).map_err(|_| Status::InvalidMemoryAccess)?;
    state.offer = Some(offer);
    Ok(Wanted(wanted))
}

/// The second half of a host call that hands bytes over: the guest has allocated memory for them.
pub(crate) fn take_over(caller: &mut Caller<'_, State>, pointer: u32) -> Result<(), Stop> {
    let offer = caller.data_mut().offer.take().ok_or(Status::InternalFailure)?;
    if pointer == 0 {
        return Err(Status::InvalidMemoryAccess.into());
    }
    put(view(caller)?.0, pointer, &offer.bytes)?;
    offer.conclude(caller, pointer)
}

// === impl Wanted ===

impl Wanted {
    pub(crate) const NOTHING: Self = Self(0);
}

// === impl Offer ===

impl Offer {
    /// Tells the guest where its bytes are.
    fn conclude(self, caller: &mut Caller<'_, State>, pointer: u32) -> Result<(), Stop> {
        let (memory, state) = view(caller)?;
        let length = u32::try_from(self.bytes.len()).map_err(|_| Status::InvalidMemoryAccess)?;
        put(memory, self.return_pointer, &pointer.to_le_bytes())?;
        put(memory, self.return_length, &length.to_le_bytes())?;
        if self.bytes.capacity() <= KEPT_SCRATCH {
            state.scratch = self.bytes;
        }
        Ok(())
    }
}

fn range(pointer: u32, length: u32) -> Option<(usize, usize)> {
    let end = pointer.checked_add(length)?;
    Some((usize::try_from(pointer).ok()?, usize::try_from(end).ok()?))
}

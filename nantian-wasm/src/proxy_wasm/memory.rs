//! Guest memory: every pointer and length is a lie until checked.

use wasmtime::Caller;

use super::abi::Status;
use super::state::State;
use crate::sandbox::HostTrap;

/// Largest scratch buffer an instance keeps, in bytes.
const KEPT_SCRATCH: usize = 64 << 10;

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

/// Guest memory and state state side by side.
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

/// Gives the guest bytes in memory of its own allocation, and tells it where they are.
///
/// Nothing is allocated for no bytes: the guest gets a null pointer and length zero.
pub(crate) async fn hand_over(
    caller: &mut Caller<'_, State>,
    bytes: Vec<u8>,
    return_pointer: u32,
    return_length: u32,
) -> Result<(), Stop> {
    let (pointer, length) = if bytes.is_empty() { (0, 0) } else { copy_in(caller, &bytes).await? };
    let (memory, state) = view(caller)?;
    put(memory, return_pointer, &pointer.to_le_bytes())?;
    put(memory, return_length, &length.to_le_bytes())?;
    if bytes.capacity() <= KEPT_SCRATCH {
        state.scratch = bytes;
    }
    Ok(())
}

async fn copy_in(caller: &mut Caller<'_, State>, bytes: &[u8]) -> Result<(u32, u32), Stop> {
    let state = caller.data_mut();
    if state.allocating {
        return Err(HostTrap::InsideAllocator.into());
    }
    state.usage.charge_into_guest(bytes.len())?;
    let length = u32::try_from(bytes.len()).map_err(|_| Status::InvalidMemoryAccess)?;
    let allocator = state.allocator.clone().ok_or(Status::InvalidMemoryAccess)?;
    state.allocating = true;
    let pointer = allocator.call_async(&mut *caller, length).await.map_err(Stop::Trap)?;
    caller.data_mut().allocating = false;
    if pointer == 0 {
        return Err(Status::InvalidMemoryAccess.into());
    }
    // The memory may have moved and grown meanwhile: it is looked up again.
    put(view(caller)?.0, pointer, bytes)?;
    Ok((pointer, length))
}

fn range(pointer: u32, length: u32) -> Option<(usize, usize)> {
    let end = pointer.checked_add(length)?;
    Some((usize::try_from(pointer).ok()?, usize::try_from(end).ok()?))
}

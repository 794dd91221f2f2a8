//! Guest memory: every pointer and length is a lie until checked.

use wasmtime::Caller;

use super::abi::Status;
use super::state::State;
use crate::sandbox::HostTrap;

/// Largest scratch buffer an instance keeps, in bytes.
const KEPT_SCRATCH: usize = 64 << 10;

/// Bytes that wait for the guest to allocate memory for them.
pub(crate) struct PendingAllocation {
    bytes: Vec<u8>,
    /// Where it wants to be told of their place and their length; none if the call returns both.
    told_at: Option<(u32, u32)>,
}

/// Bytes the guest is to allocate before a host call can end; none when it has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AllocationSize(u32);

/// How a host call ends when it does not end well.
#[derive(Debug)]
pub(crate) enum HostCallError {
    /// The guest gets a status.
    Status(Status),
    /// The guest gets nothing: it ends here.
    Trap(wasmtime::Error),
}

impl From<Status> for HostCallError {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<HostTrap> for HostCallError {
    fn from(trap: HostTrap) -> Self {
        Self::Trap(wasmtime::Error::new(trap))
    }
}

/// Turns the end of a host call into what the guest's side of the call returns.
pub(crate) fn reply(result: Result<(), HostCallError>) -> wasmtime::Result<u32> {
    match result {
        Ok(()) => Ok(Status::Ok as u32),
        Err(HostCallError::Status(status)) => Ok(status as u32),
        Err(HostCallError::Trap(error)) => Err(error),
    }
}

/// Turns the first half of a host call that hands bytes over into what the shim understands.
pub(crate) fn prepared(result: Result<AllocationSize, HostCallError>) -> wasmtime::Result<i32> {
    match result {
        // A stream gets far less than 2 GiB.
        Ok(AllocationSize(wanted)) => Ok(wanted.cast_signed()),
        Err(HostCallError::Status(status)) => Ok(-(status as i32)),
        Err(HostCallError::Trap(error)) => Err(error),
    }
}

/// Guest memory and state side by side.
pub(crate) fn view<'a>(
    caller: &'a mut Caller<'_, State>,
) -> Result<(&'a mut [u8], &'a mut State), HostCallError> {
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
pub(crate) fn put_u32(caller: &mut Caller<'_, State>, pointer: u32, value: u32) -> Result<(), HostCallError> {
    Ok(put_number(view(caller)?.0, pointer, value.to_le_bytes())?)
}

/// Writes a number through an out-pointer.
pub(crate) fn put_u64(caller: &mut Caller<'_, State>, pointer: u32, value: u64) -> Result<(), HostCallError> {
    Ok(put_number(view(caller)?.0, pointer, value.to_le_bytes())?)
}

/// The same as [`put`], for so few bytes that most of its work would be to find out how many they are.
fn put_number<const N: usize>(memory: &mut [u8], pointer: u32, number: [u8; N]) -> Result<(), Status> {
    let place = usize::try_from(pointer).ok().and_then(|start| memory.get_mut(start..)?.first_chunk_mut());
    *place.ok_or(Status::InvalidMemoryAccess)? = number;
    Ok(())
}

/// Bytes the guest points at, copied out and charged for.
pub(crate) fn read(
    caller: &mut Caller<'_, State>,
    pointer: u32,
    length: u32,
) -> Result<Vec<u8>, HostCallError> {
    let (memory, state) = view(caller)?;
    let bytes = slice(memory, pointer, length)?;
    state.charge_from_guest(bytes.len())?;
    Ok(bytes.to_vec())
}

/// The beginning of the text that the guest points at: no more than so many bytes of it are looked at and
/// kept, though all of it must be there. What is no UTF-8 is replaced, and no character is cut in two.
pub(crate) fn read_text(
    caller: &mut Caller<'_, State>,
    pointer: u32,
    length: u32,
    most: usize,
) -> Result<String, HostCallError> {
    /// Bytes of a character behind its first.
    const REST: usize = 3;
    let (memory, state) = view(caller)?;
    let bytes = slice(memory, pointer, length)?;
    let bytes = bytes.get(..most.saturating_add(REST)).unwrap_or(bytes);
    state.charge_from_guest(bytes.len())?;
    let text = String::from_utf8_lossy(bytes);
    Ok(text.get(..text.floor_char_boundary(most)).unwrap_or_default().to_owned())
}

/// An empty buffer for bytes on their way into the guest; give it to [`hand_over`], which returns it.
pub(crate) fn scratch(caller: &mut Caller<'_, State>) -> Vec<u8> {
    let mut scratch = std::mem::take(&mut caller.data_mut().scratch);
    scratch.clear();
    scratch
}

/// Gives the guest bytes in memory of its own allocation, and tells it where they are: when the guest has
/// allocated what this wants, [`take_over`] does so.
///
/// Nothing is allocated for no bytes: the guest gets a null pointer and length zero.
pub(crate) fn hand_over(
    caller: &mut Caller<'_, State>,
    bytes: Vec<u8>,
    return_pointer: u32,
    return_length: u32,
) -> Result<AllocationSize, HostCallError> {
    let told_at = (return_pointer, return_length);
    if bytes.is_empty() {
        tell(caller, told_at, 0, 0)?;
        keep(caller.data_mut(), bytes);
        return Ok(AllocationSize::NOTHING);
    }
    Ok(AllocationSize(request_allocation(caller, bytes, Some(told_at))?))
}

/// Gives the guest what `find` puts into a buffer, as [`hand_over`] does. What is not found leaves the buffer
/// for the next.
pub(crate) fn hand_over_found(
    caller: &mut Caller<'_, State>,
    return_pointer: u32,
    return_length: u32,
    find: impl FnOnce(&[u8], &mut State, &mut Vec<u8>) -> Result<(), HostCallError>,
) -> Result<AllocationSize, HostCallError> {
    let mut bytes = scratch(caller);
    let (memory, state) = view(caller)?;
    if let Err(stop) = find(memory, state, &mut bytes) {
        keep(state, bytes);
        return Err(stop);
    }
    hand_over(caller, bytes, return_pointer, return_length)
}

/// The second half of a host call that hands bytes over: the guest has allocated memory for them.
pub(crate) fn take_over(caller: &mut Caller<'_, State>, pointer: u32) -> Result<(), HostCallError> {
    let (length, told_at) = accept(caller, pointer)?;
    told_at.map_or(Ok(()), |told_at| tell(caller, told_at, pointer, length))
}

/// Puts bytes by for the guest to allocate memory for them, and returns how many they are.
pub(super) fn request_allocation(
    caller: &mut Caller<'_, State>,
    bytes: Vec<u8>,
    told_at: Option<(u32, u32)>,
) -> Result<u32, HostCallError> {
    let state = caller.data_mut();
    if state.pending_allocation.is_some() {
        return Err(HostTrap::InsideAllocator.into());
    }
    state.charge_into_guest(bytes.len())?;
    if !state.has_allocator {
        return Err(Status::InvalidMemoryAccess.into());
    }
    let length = u32::try_from(bytes.len()).map_err(|_| Status::InvalidMemoryAccess)?;
    state.pending_allocation = Some(PendingAllocation { bytes, told_at });
    Ok(length)
}

/// Puts the bytes that wait where the guest has allocated memory for them; returns how many, and where to
/// tell of them.
pub(super) fn accept(
    caller: &mut Caller<'_, State>,
    pointer: u32,
) -> Result<(u32, Option<(u32, u32)>), HostCallError> {
    let PendingAllocation { bytes, told_at } =
        caller.data_mut().pending_allocation.take().ok_or(Status::InternalFailure)?;
    if pointer == 0 && !bytes.is_empty() {
        return Err(Status::InvalidMemoryAccess.into());
    }
    let length = u32::try_from(bytes.len()).map_err(|_| Status::InvalidMemoryAccess)?;
    let (memory, state) = view(caller)?;
    put(memory, pointer, &bytes)?;
    keep(state, bytes);
    Ok((length, told_at))
}

/// Tells the guest where its bytes are.
fn tell(
    caller: &mut Caller<'_, State>,
    at: (u32, u32),
    pointer: u32,
    length: u32,
) -> Result<(), HostCallError> {
    let (memory, _) = view(caller)?;
    put_number(memory, at.0, pointer.to_le_bytes())?;
    Ok(put_number(memory, at.1, length.to_le_bytes())?)
}

/// Keeps a buffer for the next bytes on their way into the guest.
fn keep(state: &mut State, buffer: Vec<u8>) {
    if buffer.capacity() <= KEPT_SCRATCH {
        state.scratch = buffer;
    }
}

// === impl AllocationSize ===

impl AllocationSize {
    pub(crate) const NOTHING: Self = Self(0);
}

fn range(pointer: u32, length: u32) -> Option<(usize, usize)> {
    let end = pointer.checked_add(length)?;
    Some((usize::try_from(pointer).ok()?, usize::try_from(end).ok()?))
}

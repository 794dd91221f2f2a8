//! State calls on byte buffers: bodies and configuration.

use bytes::{Bytes, BytesMut};
use wasmtime::Caller;

use super::abi::{BufferKind, Status};
use super::memory::{AllocationSize, HostCallError, hand_over, put_u32, read, scratch, slice, view};
use super::state::State;
use crate::error::{Cause, Phase};
use crate::stream::{BodyBuffer, BodyBytes, Direction, Exchange};

pub(super) fn get_bytes(
    caller: &mut Caller<'_, State>,
    kind: u32,
    start: u32,
    max: u32,
    return_pointer: u32,
    return_length: u32,
) -> Result<AllocationSize, HostCallError> {
    let kind = BufferKind::from_code(kind)?;
    let mut out = scratch(caller);
    let state = caller.data();
    let bytes = part(contents(state, kind)?, start, max);
    if let Some(direction) = direction(kind)
        && !state.plugin.budgets.admits_into_guest(bytes.len())
    {
        // How long bodies are is for clients to say.
        refuse_body(caller.data_mut(), direction);
        return Err(Status::NotFound.into());
    }
    out.extend_from_slice(bytes);
    hand_over(caller, out, return_pointer, return_length)
}

/// 0.1.0's way to read the plugin configuration.
pub(super) fn get_configuration(
    caller: &mut Caller<'_, State>,
    return_pointer: u32,
    return_length: u32,
) -> Result<AllocationSize, HostCallError> {
    let mut out = scratch(caller);
    let plugin = &caller.data().plugin;
    let is_configuring = caller.data().phase == Phase::Configure;
    out.extend_from_slice(if is_configuring { &plugin.configuration } else { &plugin.vm_configuration });
    hand_over(caller, out, return_pointer, return_length)
}

/// The flags are those of Envoy: none, also at the end of a stream.
pub(super) fn get_status(
    caller: &mut Caller<'_, State>,
    kind: u32,
    return_length: u32,
    return_flags: u32,
) -> Result<(), HostCallError> {
    let kind = BufferKind::from_code(kind)?;
    let length = u32::try_from(contents(caller.data(), kind)?.len()).unwrap_or(u32::MAX);
    put_u32(caller, return_length, length)?;
    put_u32(caller, return_flags, 0)
}

/// Replaces from the front, prepends or appends; anything in the middle of a buffer is refused.
pub(super) fn set_bytes(
    caller: &mut Caller<'_, State>,
    kind: u32,
    start: u32,
    size: u32,
    pointer: u32,
    length: u32,
) -> Result<(), HostCallError> {
    let kind = BufferKind::from_code(kind)?;
    slice(view(caller)?.0, pointer, length)?;
    let Some(direction) = direction(kind) else {
        // One that is there can be read only.
        contents(caller.data(), kind)?;
        return Err(Status::BadArgument.into());
    };
    let state = caller.data_mut();
    let longest = longest(own_window(state, direction)?);
    let added = usize::try_from(length).unwrap_or(usize::MAX);
    // What would be too long is not copied.
    if added > longest || !state.plugin.budgets.admits_from_guest(added) {
        refuse_body(state, direction);
        return Ok(());
    }
    let new = read(caller, pointer, length)?;
    let state = caller.data_mut();
    if let Some(exchange) = state.exchange_mut() {
        exchange.before_change_of_body(direction);
    }
    let window = own_window(state, direction)?;
    let changed = spliced(&window.bytes, start, size, new).ok_or(Status::BadArgument)?;
    if changed.len() > longest {
        refuse_body(state, direction);
        return Ok(());
    }
    window.bytes = BodyBytes::Frame(changed);
    Ok(())
}

/// The part of a body that the guest is shown.
fn own_window(state: &mut State, direction: Direction) -> Result<&mut BodyBuffer, Status> {
    let plugin_state = state.exchange_mut().and_then(Exchange::own).ok_or(Status::BadArgument)?;
    plugin_state.messages.of(direction).window.as_mut().ok_or(Status::BadArgument)
}

/// How long the guest may make it. A frame may be larger than the limit as it comes; growth is the guest's
/// doing, if of what a client has sent.
fn longest(window: &BodyBuffer) -> usize {
    window.limit.max(window.bytes.len())
}

/// Ends the stream for the length of a body.
fn refuse_body(state: &mut State, direction: Direction) {
    let limit = own_window(state, direction).map_or(0, |window| window.limit);
    if let Some(exchange) = state.exchange_mut() {
        exchange.fail(Cause::BodyTooLarge { limit });
    }
}

/// The buffer as a whole; one that does not exist now is empty.
pub(super) fn contents(state: &State, kind: BufferKind) -> Result<&[u8], Status> {
    match kind {
        BufferKind::RequestBody | BufferKind::ResponseBody => {
            let window = direction(kind).and_then(|direction| window(state.exchange()?, direction));
            Ok(window.map_or(&[], |window| &window.bytes))
        }
        BufferKind::PluginConfiguration if state.phase == Phase::Configure => Ok(&state.plugin.configuration),
        BufferKind::PluginConfiguration => Err(Status::NotFound),
        BufferKind::CallBody => {
            state.received.as_ref().and_then(|received| received.call_body()).ok_or(Status::NotFound)
        }
        BufferKind::GrpcMessage => Ok(state.received.as_ref().map_or(&[], |received| received.message())),
        BufferKind::VmConfiguration => Ok(&state.plugin.vm_configuration),
        BufferKind::Empty => Ok(&[]),
    }
}

fn window(exchange: &Exchange, direction: Direction) -> Option<&BodyBuffer> {
    exchange.own_ref()?.messages.get(direction).window.as_ref()
}

fn direction(kind: BufferKind) -> Option<Direction> {
    match kind {
        BufferKind::RequestBody => Some(Direction::Request),
        BufferKind::ResponseBody => Some(Direction::Response),
        _ => None,
    }
}

/// At most `max` bytes from `start` on; none when `start` is behind the end.
fn part(bytes: &[u8], start: u32, max: u32) -> &[u8] {
    let index = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
    let rest = bytes.get(index(start)..).unwrap_or_default();
    rest.get(..index(max).min(rest.len())).unwrap_or_default()
}

/// The buffer with `size` bytes at `start` replaced: from the front, or behind the end.
fn spliced(old: &[u8], start: u32, size: u32, new: Vec<u8>) -> Option<Bytes> {
    let start = usize::try_from(start).ok()?;
    let size = usize::try_from(size).ok()?;
    if start == 0 && size >= old.len() {
        return Some(new.into());
    }
    let (front, back) = match start {
        0 => (new.as_slice(), old.get(size..)?),
        _ if start >= old.len() => (old, new.as_slice()),
        _ => return None,
    };
    let mut whole = BytesMut::with_capacity(front.len().saturating_add(back.len()));
    whole.extend_from_slice(front);
    whole.extend_from_slice(back);
    Some(whole.freeze())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn splice(old: &'static str, start: u32, size: u32, new: &str) -> Option<String> {
        let spliced = spliced(old.as_bytes(), start, size, new.as_bytes().to_vec());
        spliced.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[test]
    fn a_buffer_is_replaced_prepended_or_appended() {
        assert_eq!(splice("body", 0, 4, "new").as_deref(), Some("new"));
        assert_eq!(splice("body", 0, u32::MAX, "new").as_deref(), Some("new"));
        assert_eq!(splice("body", 0, 0, "new ").as_deref(), Some("new body"));
        assert_eq!(splice("body", 0, 1, "n").as_deref(), Some("nody"));
        assert_eq!(splice("body", 4, 0, "!").as_deref(), Some("body!"));
        assert_eq!(splice("body", u32::MAX, u32::MAX, "!").as_deref(), Some("body!"));
        assert_eq!(splice("body", 2, 1, "x"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn reading_never_leaves_the_buffer(bytes in prop::collection::vec(any::<u8>(), 0..32), start: u32, max: u32) {
            for (start, max) in [(start, max), (start % 40, max % 40)] {
                let read = part(&bytes, start, max);
                prop_assert!(read.len() <= max as usize);
                prop_assert!(read.is_empty() || bytes[start as usize..].starts_with(read));
            }
        }
    }
}

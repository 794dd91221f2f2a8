//! State calls that steer: time, logs, contexts, streams and answers.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue};
use wasmtime::Caller;

use super::abi::{MapKind, Status};
use super::header_interner::HeaderInterner;
use super::joined::join;
use super::memory::{
    AllocationSize, HostCallError, hand_over, put_u32, put_u64, read, read_text, scratch, slice, view,
};
use super::state::{ROOT, State};
use super::{edits, pairs};
use crate::error::Cause;
use crate::observe;
use crate::stream::{Direction, LocalResponse};

/// Shortest period of `proxy_on_tick`, in milliseconds: a shorter one starves the instance's streams.
const MIN_TICK_PERIOD: u64 = 10;

/// Highest gRPC status there is.
const MAX_GRPC_STATUS: u32 = 16;

/// Longest reason for an answer, in bytes; the rest is cut off.
const MAX_DETAILS: usize = 256;

/// Largest body of an answer, in bytes.
const MAX_ANSWER_BODY: u32 = 1 << 20;

pub(super) fn log(
    caller: &mut Caller<'_, State>,
    level: u32,
    message: u32,
    length: u32,
) -> Result<(), HostCallError> {
    if level > 5 {
        return Err(Status::BadArgument.into());
    }
    let (memory, state) = view(caller)?;
    let line = slice(memory, message, length)?;
    state.log(level, line);
    Ok(())
}

pub(super) fn get_log_level(caller: &mut Caller<'_, State>, return_level: u32) -> Result<(), HostCallError> {
    put_u32(caller, return_level, observe::log_level())
}

pub(super) fn get_current_time(
    caller: &mut Caller<'_, State>,
    return_time: u32,
) -> Result<(), HostCallError> {
    put_u64(caller, return_time, unix_nanos(SystemTime::now()))
}

/// Nanoseconds since 1970; zero before, and the end of time after the year 2554.
pub(super) fn unix_nanos(time: SystemTime) -> u64 {
    nanos(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Nanoseconds, of at most 584 years.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn set_tick_period(
    caller: &mut Caller<'_, State>,
    milliseconds: u32,
) -> Result<(), HostCallError> {
    let period = Some(u64::from(milliseconds)).filter(|period| *period > 0);
    let state = caller.data_mut();
    state.tick_period = period.map(|period| period.max(MIN_TICK_PERIOD));
    // From now on, whatever is left of the last one; of a tick's own callback, from its end.
    state.next_tick = state.plugin.clock.ticks().saturating_add(state.tick_period.unwrap_or_default());
    Ok(())
}

pub(super) fn set_effective_context(
    caller: &mut Caller<'_, State>,
    context: u32,
) -> Result<(), HostCallError> {
    Ok(caller.data_mut().choose(context)?)
}

/// The root context is done, if that is waited for: a stream is deleted whatever its `proxy_on_done`
/// returned.
pub(super) fn done(caller: &mut Caller<'_, State>) -> Result<(), HostCallError> {
    let was_awaited = std::mem::take(&mut caller.data_mut().is_ending);
    if was_awaited { Ok(()) } else { Err(Status::NotFound.into()) }
}

/// How the call-out ended that the running callback is about, whichever context is the effective one: Envoy
/// tells only the root.
pub(super) fn get_status(
    caller: &mut Caller<'_, State>,
    return_code: u32,
    return_pointer: u32,
    return_length: u32,
) -> Result<AllocationSize, HostCallError> {
    let code = caller.data().received.as_ref().map_or(0, |received| received.status);
    put_u32(caller, return_code, code)?;
    let mut message = scratch(caller);
    if let Some(received) = &caller.data().received {
        message.extend_from_slice(received.status_message.as_bytes());
    }
    hand_over(caller, message, return_pointer, return_length)
}

/// Lets a held message go; one that is not held goes on as it would.
pub(super) fn continue_stream(caller: &mut Caller<'_, State>, stream: u32) -> Result<(), HostCallError> {
    let direction = match stream {
        0 => Direction::Request,
        1 => Direction::Response,
        2 => return Ok(()),
        3 => return Err(Status::Unimplemented.into()),
        _ => return Err(Status::BadArgument.into()),
    };
    let state = caller.data_mut();
    if state.can_steer()
        && let Some(exchange) = state.exchange_mut()
    {
        exchange.resume(direction);
    }
    Ok(())
}

pub(super) fn close_stream(caller: &mut Caller<'_, State>, stream: u32) -> Result<(), HostCallError> {
    match stream {
        0 | 1 => {}
        2 | 3 => return Ok(()),
        _ => return Err(Status::BadArgument.into()),
    }
    let state = caller.data_mut();
    if state.can_steer()
        && let Some(exchange) = state.exchange_mut()
    {
        exchange.fail(Cause::Closed);
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the ABI's parameter list")]
pub(super) fn send_local_response(
    caller: &mut Caller<'_, State>,
    status: u32,
    details: u32,
    details_length: u32,
    body: u32,
    body_length: u32,
    header_pairs: u32,
    header_pairs_length: u32,
    grpc_status: i32,
) -> Result<(), HostCallError> {
    let details = read_text(caller, details, details_length, MAX_DETAILS)?;
    slice(view(caller)?.0, body, body_length)?;
    let is_too_large = body_length > MAX_ANSWER_BODY;
    let body = if is_too_large { Vec::new() } else { read(caller, body, body_length)? };
    let block = read(caller, header_pairs, header_pairs_length)?;
    let state = caller.data_mut();
    let charged = state.usage.affords_header(block.len());
    if !state.can_steer() {
        return Ok(());
    }
    // An answer that is too large is a refusal all the same: the guest lives on, and the stream ends under
    // either policy.
    let head = match charged {
        _ if is_too_large => Err(format!("body of {body_length} bytes")),
        Err(budget) => Err(budget.to_string()),
        Ok(Err(budget)) => Err(budget.to_string()),
        Ok(Ok(())) => answer(&mut state.interner, status, &block).map_err(|cause| cause.to_string()),
    };
    let Some(exchange) = state.exchange_mut() else {
        let is_root = state.effective == ROOT;
        state.plugin.log.ignored_answer(&state.plugin.name, is_root, state.now);
        return Ok(());
    };
    let answered = match head {
        Ok((status, headers)) => Ok(LocalResponse {
            status,
            headers,
            body: Bytes::from(body),
            details: details_of(&details),
            grpc_status: u32::try_from(grpc_status).ok().filter(|status| *status <= MAX_GRPC_STATUS),
        }),
        Err(reason) => Err(Cause::InvalidAnswer { reason }),
    };
    exchange.is_touched = true;
    let Some(plugin_state) = exchange.own() else { return Ok(()) };
    match (&mut plugin_state.answer, answered) {
        // The first one is sent; for logs, the reason is the last one's.
        (Some(first), Ok(answer)) => first.details = answer.details,
        (Some(_), Err(_)) => {}
        (None, Ok(answer)) => plugin_state.answer = Some(Box::new(answer)),
        (None, Err(cause)) => exchange.fail(cause),
    }
    Ok(())
}

/// Details as one word.
fn details_of(details: &str) -> String {
    details.replace(|char: char| char.is_ascii_whitespace(), "_")
}

/// Checks status and headers of an answer; headers that frame a message are left out.
fn answer(
    interner: &mut HeaderInterner,
    status: u32,
    block: &[u8],
) -> Result<(http::StatusCode, HeaderMap), Cause> {
    let status = edits::status(status.to_string().as_bytes())?;
    let mut map = HeaderMap::new();
    for (name, value) in pairs::decode(block).unwrap_or_default() {
        if name.starts_with(b":") {
            continue;
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            // The right one takes its place.
            map.insert(CONTENT_LENGTH, HeaderValue::from(0));
        } else if let Some((name, value)) = interner.field(name, value)? {
            // No more pairs decode than a map has room for.
            map.append(name, value);
        }
    }
    join(&mut map, MapKind::ResponseHeaders);
    Ok((status, map))
}

// === impl State ===

impl State {
    /// Logs a line of the guest, within the budgets of the stream and of the plugin. One that nobody hears
    /// costs nothing.
    pub(super) fn log(&mut self, level: u32, line: &[u8]) {
        if level < observe::log_level() {
            return;
        }
        let (plugin, line) = (&self.plugin, observe::written(line));
        if self.usage.admits_log(line.len()) && plugin.log.guest_lines.admits_at(plugin.clock.ticks(), line) {
            observe::log(&plugin.name, self.active, level, line);
        } else {
            plugin.shared.counters.dropped_log_lines.fetch_add(1, Ordering::Relaxed);
        }
    }
}

//! Host calls that steer: time, logs, contexts, streams and answers.

use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderMap;
use wasmtime::Caller;

use super::abi::Status;
use super::host::{Host, ROOT};
use super::memory::{Stop, hand_over, put_u32, put_u64, read, slice, view};
use super::{headers, pairs};
use crate::error::Cause;
use crate::observe;
use crate::sandbox::HostTrap;
use crate::stream::LocalResponse;

/// Shortest period of `proxy_on_tick`, in milliseconds: a shorter one starves the instance's streams.
const MIN_TICK_PERIOD: u64 = 10;

/// Largest body of an answer, in bytes.
const MAX_ANSWER_BODY: u32 = 1 << 20;

pub(super) fn log(caller: &mut Caller<'_, Host>, level: u32, message: u32, length: u32) -> Result<(), Stop> {
    if level > 5 {
        return Err(Status::BadArgument.into());
    }
    let (memory, host) = view(caller)?;
    let line = slice(memory, message, length)?;
    host.log(level, line);
    Ok(())
}

pub(super) fn get_log_level(caller: &mut Caller<'_, Host>, return_level: u32) -> Result<(), Stop> {
    put_u32(caller, return_level, observe::log_level())
}

pub(super) fn get_current_time(caller: &mut Caller<'_, Host>, return_time: u32) -> Result<(), Stop> {
    put_u64(caller, return_time, unix_nanos(SystemTime::now()))
}

/// Nanoseconds since 1970; zero before, and the end of time after the year 2554.
pub(super) fn unix_nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn set_tick_period(caller: &mut Caller<'_, Host>, milliseconds: u32) -> Result<(), Stop> {
    let period = Some(u64::from(milliseconds)).filter(|period| *period > 0);
    caller.data_mut().tick_period = period.map(|period| period.max(MIN_TICK_PERIOD));
    Ok(())
}

pub(super) fn set_effective_context(caller: &mut Caller<'_, Host>, context: u32) -> Result<(), Stop> {
    let host = caller.data_mut();
    if !host.contexts.contains(&context) {
        return Err(Status::BadArgument.into());
    }
    host.effective = context;
    Ok(())
}

/// Nothing ever waits for it here: `proxy_on_done` is followed by `proxy_on_delete` whatever it returned.
pub(super) fn done(_: &mut Caller<'_, Host>) -> Result<(), Stop> {
    Err(Status::NotFound.into())
}

/// Status of the last call-out: there is none.
pub(super) fn get_status(
    caller: &mut Caller<'_, Host>,
    return_code: u32,
    return_pointer: u32,
    return_length: u32,
) -> Result<(), Stop> {
    put_u32(caller, return_code, 0)?;
    hand_over(caller, Vec::new(), return_pointer, return_length)
}

/// Nothing is ever paused when a guest runs, so there is nothing to continue.
pub(super) fn continue_stream(_: &mut Caller<'_, Host>, stream: u32) -> Result<(), Stop> {
    match stream {
        0..=2 => Ok(()),
        3 => Err(Status::Unimplemented.into()),
        _ => Err(Status::BadArgument.into()),
    }
}

pub(super) fn close_stream(caller: &mut Caller<'_, Host>, stream: u32) -> Result<(), Stop> {
    match stream {
        0 | 1 => {}
        2 | 3 => return Ok(()),
        _ => return Err(Status::BadArgument.into()),
    }
    let host = caller.data_mut();
    if host.can_steer()
        && let Some(exchange) = host.exchange_mut()
    {
        exchange.fail(Cause::Closed);
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the ABI's parameter list")]
pub(super) fn send_local_response(
    caller: &mut Caller<'_, Host>,
    status: u32,
    details: u32,
    details_length: u32,
    body: u32,
    body_length: u32,
    header_pairs: u32,
    header_pairs_length: u32,
    grpc_status: i32,
) -> Result<(), Stop> {
    if body_length > MAX_ANSWER_BODY {
        return Err(HostTrap::Budget("local response body").into());
    }
    let details = read(caller, details, details_length)?;
    let body = read(caller, body, body_length)?;
    let block = read(caller, header_pairs, header_pairs_length)?;
    let host = caller.data_mut();
    host.usage.charge_header(block.len())?;
    if !host.can_steer() {
        return Ok(());
    }
    let Some(exchange) = host.exchange_mut() else {
        observe::ignored_answer(&host.facts.name, host.effective == ROOT);
        return Ok(());
    };
    if exchange.answer.is_some() {
        return Ok(());
    }
    match answer(status, &block) {
        Ok((status, headers)) => {
            exchange.answer = Some(LocalResponse {
                status,
                headers,
                body: Bytes::from(body),
                details: String::from_utf8_lossy(&details).replace(' ', "_"),
                grpc_status: u32::try_from(grpc_status).ok(),
            });
        }
        Err(cause) => exchange.fail(Cause::InvalidAnswer { reason: cause.to_string() }),
    }
    Ok(())
}

/// Checks status and headers of an answer; headers that frame a message are left out.
fn answer(status: u32, block: &[u8]) -> Result<(http::StatusCode, HeaderMap), Cause> {
    let status = headers::status(status.to_string().as_bytes())?;
    let mut map = HeaderMap::new();
    for (name, value) in pairs::decode(block).unwrap_or_default() {
        if name.starts_with(b":") {
            continue;
        }
        if let Some((name, value)) = headers::field(name, value)? {
            // At most 1024 pairs decode: the map has room for all of them.
            map.append(name, value);
        }
    }
    Ok((status, map))
}

// === impl Host ===

impl Host {
    /// Logs a line of the guest, within the stream's budget.
    pub(super) fn log(&mut self, level: u32, line: &[u8]) {
        if self.usage.admits_log(line.len()) {
            observe::log(&self.facts.name, self.active, level, line);
        } else {
            self.facts.counters.dropped_log_lines.fetch_add(1, Ordering::Relaxed);
        }
    }
}

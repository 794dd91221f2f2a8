//! The ABI of modules made for Nantian's first data plane: five functions of the module `pingora`, three
//! hooks that answer with a verdict.
//!
//! `on_request` and `on_response` see the whole body if the module imports `get_body`, and run with the
//! headers otherwise; `on_stream_chunk` sees each part of a streaming response. Zero lets the message pass,
//! anything else refuses it with this status. What a hook sets are headers of the response. The module's
//! `alloc` gives memory for the values of headers; instances are kept, so a hook has to reset it, as those
//! made with the SDK do.

use http::StatusCode;
use wasmtime::{Caller, Linker, TypedFunc};

use super::abi::{BufferKind, MapKind, Status};
use super::buffers::contents;
use super::edits::{Edit, EditError};
use super::header_interner::HeaderInterner;
use super::memory::{self, HostCallError, put, read, slice, view};
use super::state::State;
use super::{headers, maps, text};
use crate::config::Hooks;
use crate::error::{Cause, Phase};
use crate::sandbox::HostTrap;
use crate::stream::{Exchange, LocalResponse, Streaming};

/// The module that its functions are imported from.
pub(crate) const MODULE: &str = "pingora";

/// Hooks and allocator, and the numbers of their parameters and results, all `i32`.
pub(crate) const EXPORTS: &[(&str, &[(usize, usize)])] =
    &[(ON_REQUEST, &[(0, 1)]), (ON_RESPONSE, &[(0, 1)]), (ON_STREAM_CHUNK, &[(0, 1)]), (ALLOC, &[(1, 1)])];

pub(crate) const ON_REQUEST: &str = "on_request";
pub(crate) const ON_RESPONSE: &str = "on_response";
pub(crate) const ON_STREAM_CHUNK: &str = "on_stream_chunk";
pub(crate) const ALLOC: &str = "alloc";

/// What is called about a part of a message.
pub(super) const HOOKS: [&str; 3] = [ON_REQUEST, ON_RESPONSE, ON_STREAM_CHUNK];

/// Reads the body of the message that a hook is about.
pub(crate) const GET_BODY: &str = "get_body";
/// Gives the value of a header: the shim calls the allocator for it.
pub(super) const GET_HEADER: &str = "get_header";

/// What stands for the length of a header that is not there.
const NO_HEADER: i32 = -1;

/// Verdicts of header and body callbacks of Proxy-Wasm: let it go on, or show more of the body first.
const CONTINUE: u32 = 0;
const WAIT: u32 = 1;

/// A hook that answers with a verdict.
pub(crate) type Hook = TypedFunc<(), u32>;

/// The hooks of a module; absent ones let pass.
pub(crate) struct Verdicts {
    pub(crate) on_request: Option<Hook>,
    pub(crate) on_response: Option<Hook>,
    pub(crate) on_stream_chunk: Option<Hook>,
    /// The module reads bodies, so that its hooks run when these are there.
    pub(crate) reads_body: bool,
}

/// What is to be done about a part of a message.
pub(crate) enum Step<'a> {
    /// Nothing: this is the verdict.
    Done(u32),
    /// The hook is called, and its verdict carried out.
    Call(&'a Hook),
}

// === impl Verdicts ===

impl Verdicts {
    /// Keeps the hooks that are on.
    pub(crate) fn only(mut self, hooks: Hooks) -> Self {
        self.on_request = self.on_request.filter(|_| hooks.on_request);
        self.on_response = self.on_response.filter(|_| hooks.on_response);
        self.on_stream_chunk = self.on_stream_chunk.filter(|_| hooks.on_stream_chunk);
        self
    }

    /// Whether the hook for parts sees a response's body: of one that its client would have as a stream, only
    /// where the hook for responses does not wait for that body.
    pub(crate) fn takes_parts(&self, streaming: Streaming) -> bool {
        match streaming {
            Streaming::No => false,
            Streaming::AskedFor => self.on_response.is_none() || !self.reads_body,
            Streaming::Declared => true,
        }
    }

    /// What is to be done in this phase; `end` says that no more of the message follows.
    pub(crate) fn step(&self, phase: Phase, end: bool, is_streaming: bool) -> Step<'_> {
        let (hook, waits) = match phase {
            Phase::RequestHeaders | Phase::RequestBody => (&self.on_request, self.reads_body),
            Phase::ResponseHeaders => (&self.on_response, self.reads_body && !is_streaming),
            Phase::ResponseBody if is_streaming => (&self.on_stream_chunk, false),
            Phase::ResponseBody => (&self.on_response, self.reads_body),
            _ => return Step::Done(CONTINUE),
        };
        let is_body = matches!(phase, Phase::RequestBody | Phase::ResponseBody);
        match hook {
            // The hook has been called with the headers.
            Some(_) if is_body && !waits && !is_streaming => Step::Done(CONTINUE),
            Some(_) if waits && !end => Step::Done(WAIT),
            Some(hook) => Step::Call(hook),
            None => Step::Done(CONTINUE),
        }
    }
}

/// Carries a hook's verdict out; returns that of the callback.
pub(crate) fn carry_out(state: &mut State, verdict: u32, is_streaming: bool) -> u32 {
    let phase = state.phase;
    let Some(exchange) = state.exchange_mut().filter(|_| verdict != 0) else { return CONTINUE };
    if phase == Phase::ResponseBody && is_streaming {
        exchange.fail(Cause::Closed);
        return CONTINUE;
    }
    let status = u16::try_from(verdict).ok().filter(|status| *status >= 200);
    let status = status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::FORBIDDEN);
    if let Some(plugin_state) = exchange.own() {
        plugin_state.answer.get_or_insert_with(|| Box::new(LocalResponse::new(status, "")));
    }
    CONTINUE
}

/// Puts what a request's hook has set into the headers of the response.
pub(crate) fn set_kept(exchange: &mut Exchange) {
    let Some(kept) = exchange.own().and_then(|plugin_state| plugin_state.response_headers.take()) else {
        return;
    };
    if let Some(headers) = exchange.response.as_mut().and_then(|response| response.headers.map_mut()) {
        for (name, value) in kept.iter() {
            headers.insert(name, value.clone());
        }
    }
}

/// Links the five functions.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(
        MODULE,
        "log",
        |mut caller: Caller<'_, State>, level: u32, line: u32, length: u32| {
            if may_call(&caller, "log") { silent(log(&mut caller, level, line, length)) } else { Ok(()) }
        },
    )?;
    // Modules are checked against its type; their instances get the shim's.
    linker.func_wrap(MODULE, GET_HEADER, |_: u32, _: u32| -> wasmtime::Result<u64> {
        Err(wasmtime::Error::new(HostTrap::NoMemory))
    })?;
    linker.func_wrap(
        MODULE,
        "set_header",
        |mut caller: Caller<'_, State>, name: u32, name_length: u32, value: u32, value_length: u32| {
            if !may_call(&caller, "set_header") {
                return Ok(());
            }
            silent(set_header(&mut caller, (name, name_length), (value, value_length)))
        },
    )?;
    linker.func_wrap(MODULE, GET_BODY, |mut caller: Caller<'_, State>, out: u32, length: u32| {
        if !may_call(&caller, GET_BODY) {
            return Ok(0);
        }
        let kind = match caller.data().phase {
            Phase::RequestHeaders | Phase::RequestBody => BufferKind::RequestBody,
            _ => BufferKind::ResponseBody,
        };
        let body = contents(caller.data(), kind).unwrap_or_default();
        let bytes = first(body, length).to_vec();
        fill(&mut caller, &bytes, out)
    })?;
    linker.func_wrap(MODULE, "get_all_headers", |mut caller: Caller<'_, State>, out: u32, length: u32| {
        if !may_call(&caller, "get_all_headers") {
            return Ok(0);
        }
        let mut block = Vec::new();
        for (name, value) in
            caller.data().exchange().into_iter().flat_map(|exchange| exchange.request.headers.iter())
        {
            for part in [name.as_str().as_bytes(), &text::shown(value.as_bytes())] {
                block.extend_from_slice(part);
                block.push(0);
            }
        }
        fill(&mut caller, first(&block, length), out)
    })?;
    Ok(())
}

fn may_call(caller: &Caller<'_, State>, name: &str) -> bool {
    caller.data().plugin.capabilities.allow(name)
}

/// A function without a result: what has no meaning has no effect.
fn silent(result: Result<(), HostCallError>) -> wasmtime::Result<()> {
    match result {
        Ok(()) | Err(HostCallError::Status(_)) => Ok(()),
        Err(HostCallError::Trap(error)) => Err(error),
    }
}

/// The first bytes, as many as the guest has room for.
fn first(bytes: &[u8], length: u32) -> &[u8] {
    bytes.get(..usize::try_from(length).unwrap_or(usize::MAX)).unwrap_or(bytes)
}

/// Writes bytes where the guest wants them, and returns how many: none, if there is no such place.
fn fill(caller: &mut Caller<'_, State>, bytes: &[u8], out: u32) -> wasmtime::Result<u32> {
    let written = view(caller).and_then(|(memory, state)| {
        state.charge_into_guest(bytes.len())?;
        Ok(put(memory, out, bytes)?)
    });
    match written {
        Ok(()) => Ok(u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
        Err(HostCallError::Status(_)) => Ok(0),
        Err(HostCallError::Trap(error)) => Err(error),
    }
}

/// The SDK's levels are 0 for information, 1 for warnings and 2 for errors.
fn log(caller: &mut Caller<'_, State>, level: u32, line: u32, length: u32) -> Result<(), HostCallError> {
    let (memory, state) = view(caller)?;
    let line = slice(memory, line, length)?;
    state.log(level.saturating_add(2).min(4), line);
    Ok(())
}

/// The first value of a header of the request, as bytes that wait for the guest to allocate memory for them:
/// so many.
pub(super) fn get_header(caller: &mut Caller<'_, State>, name: u32, length: u32) -> wasmtime::Result<i32> {
    let value = if may_call(caller, GET_HEADER) { value_of(caller, name, length) } else { None };
    let Some(value) = value else { return Ok(NO_HEADER) };
    match memory::request_allocation(caller, value, None) {
        Ok(length) => Ok(length.cast_signed()),
        // A header that is there must not look as if it were not.
        Err(HostCallError::Status(_)) => Err(wasmtime::Error::new(HostTrap::NoMemory)),
        Err(HostCallError::Trap(error)) => Err(error),
    }
}

/// The value in memory that the guest has allocated: its place in the upper half, its length in the lower.
pub(super) fn pack(caller: &mut Caller<'_, State>, pointer: u32) -> wasmtime::Result<u64> {
    match memory::accept(caller, pointer) {
        Ok((length, _)) => Ok((u64::from(pointer) << 32) | u64::from(length)),
        Err(HostCallError::Status(_)) => Err(wasmtime::Error::new(HostTrap::NoMemory)),
        Err(HostCallError::Trap(error)) => Err(error),
    }
}

fn value_of(caller: &mut Caller<'_, State>, name: u32, length: u32) -> Option<Vec<u8>> {
    let (memory, state) = view(caller).ok()?;
    let name = slice(memory, name, length).ok()?;
    let fields = headers::of_exchange(state.exchange()?, MapKind::RequestHeaders)?;
    fields.get(name).map(|value| text::shown(value).into_owned())
}

/// Sets a header of the response: that which is there, or, of a request's hook, that which will be.
fn set_header(
    caller: &mut Caller<'_, State>,
    name: (u32, u32),
    value: (u32, u32),
) -> Result<(), HostCallError> {
    let name = read(caller, name.0, name.1)?;
    let value = read(caller, value.0, value.1)?;
    let state = caller.data_mut();
    if let Err(cause) = state.usage.affords_header(name.len().saturating_add(value.len()))? {
        maps::fail(state, cause);
        return Ok(());
    }
    let is_request = matches!(state.phase, Phase::RequestHeaders | Phase::RequestBody);
    if !is_request {
        return match maps::apply(state, MapKind::ResponseHeaders, Edit::Replace(&name, &value)) {
            Err(HostCallError::Status(_)) => Ok(()),
            applied => applied,
        };
    }
    let (exchange, interner) = state.exchange_to_write().ok_or(Status::BadArgument)?;
    match keep(exchange, interner, &name, &value) {
        Ok(()) | Err(EditError::Unavailable) => Ok(()),
        Err(EditError::TooMany) => {
            exchange.fail(Cause::StreamBudget { what: "header entries" });
            Ok(())
        }
        Err(EditError::Invalid(cause)) => {
            exchange.fail(cause);
            Ok(())
        }
    }
}

/// Most headers that are kept for a response.
const MAX_KEPT: usize = 256;

/// Keeps a header for the response.
fn keep(
    exchange: &mut Exchange,
    interner: &mut HeaderInterner,
    name: &[u8],
    value: &[u8],
) -> Result<(), EditError> {
    let Some((name, value)) = interner.field(name, value).map_err(EditError::Invalid)? else {
        return Ok(());
    };
    let Some(plugin_state) = exchange.own() else { return Ok(()) };
    let kept = plugin_state.response_headers.get_or_insert_default();
    if kept.len() >= MAX_KEPT && !kept.contains_key(&name) {
        return Err(EditError::TooMany);
    }
    kept.try_insert(name, value).map(drop).map_err(|_| EditError::TooMany)
}

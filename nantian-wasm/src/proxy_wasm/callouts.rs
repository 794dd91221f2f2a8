//! Host calls that reach out of the sandbox: HTTP and gRPC call-outs, foreign functions.
//!
//! Each answers a status its SDKs accept. Without `allow_network` every call-out is an internal failure.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use wasmtime::Caller;

use super::abi::Status;
use super::call_refusal::CallRefusal;
use super::call_request::{Unsendable, fields, request, unsent};
use super::calls::CallKind;
use super::memory::{AllocationSize, HostCallError, hand_over, put_u32, read, scratch, slice, view};
use super::protobuf;
use super::state::State;
use crate::error::Cause;
use crate::host::{
    CallError, ForeignError, GrpcCall, GrpcReplies, GrpcStream, HttpCall, HttpReply, ReplyAddress,
    ReplyRunner, unless_it_panics,
};
use crate::observe;

/// Longest time of a call-out; also that of one without a time limit of its own.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);
/// How long after the end of its time a call-out may still be waited for: the guest is to hear of that end,
/// and its host may have begun later than the guest's callback and be late to tell.
const GRACE: Duration = Duration::from_secs(1);
/// What is answered where an upstream of HTTP is none.
const UNKNOWN_HTTP: Status = Status::BadArgument;
/// Most call-outs of one stream at a time.
const MAX_CONCURRENT: usize = 16;
/// Longest names of upstreams, services, methods and functions, in bytes.
const MAX_NAME: u32 = 4 << 10;

/// Functions that are known and answer one status, whatever their arguments.
///
/// They are linked with the type a module declares: hosts disagree about some of these types.
pub(super) const CONSTANT: &[(&str, Status)] = &[
    ("proxy_redis_init", Status::Unimplemented),
    ("proxy_redis_call", Status::Unimplemented),
    ("proxy_inject_encoded_data_to_filter_chain", Status::Unimplemented),
    ("proxy_inject_encoded_data_to_filter_chain_on_header", Status::Unimplemented),
    ("proxy_get_upstream_hosts", Status::Unimplemented),
    ("proxy_set_upstream_override_host", Status::Unimplemented),
];

/// A pointer and a length, as the guest gives them.
type Span = (u32, u32);

#[expect(clippy::too_many_arguments, reason = "the ABI's parameter list")]
pub(super) fn http_call(
    caller: &mut Caller<'_, State>,
    upstream: u32,
    upstream_size: u32,
    headers: u32,
    headers_size: u32,
    body: u32,
    body_size: u32,
    trailers: u32,
    trailers_size: u32,
    timeout: i32,
    return_id: u32,
) -> Result<(), HostCallError> {
    let upstream = name(caller, (upstream, upstream_size), Status::BadArgument)?;
    let block = read(caller, headers, headers_size)?;
    let body = body_of(caller, (body, body_size), Status::InternalFailure)?;
    let trailer_block = read(caller, trailers, trailers_size)?;
    put_u32(caller, return_id, 0)?;
    let Ok(milliseconds) = u64::try_from(timeout) else { return Err(Status::BadArgument.into()) };
    let interner = &mut caller.data_mut().interner;
    let message = request(interner, &block, &upstream)
        .and_then(|request| Ok((request, fields(interner, &trailer_block)?)));
    let message = match message {
        Ok(message) => Ok(message),
        Err(Unsendable::Untold { name }) => Err(name),
        Err(Unsendable::Told(why)) => return Err(refuse(caller.data(), &upstream, why, UNKNOWN_HTTP)),
    };
    let timeout = limited(milliseconds);
    let head = block.len() + trailer_block.len();
    let (id, address) = begin(caller, CallKind::Http, &upstream, timeout, head)?;
    let Some(body) = counted(caller, body) else {
        return Err(refuse(caller.data(), &upstream, CallRefusal::TooMany, UNKNOWN_HTTP));
    };
    let (state, reply) = (caller.data_mut(), HttpReply::to_guest(address));
    let context = state.caller_context();
    state.calls.insert_http(id, context);
    let sent = match message {
        Ok((request, trailers)) => {
            let call = HttpCall::new(upstream.as_str(), request.map(|()| body), trailers, timeout);
            let plugin = &state.plugin;
            unless_it_panics(|| plugin.host.http_call(&plugin.name, call, reply))
                .unwrap_or(Err(CallError::Unavailable))
        }
        Err(name) => {
            note_refused(state, &upstream, CallRefusal::Malformed);
            reply.send(Ok(unsent(&name)));
            Ok(())
        }
    };
    if let Err(error) = sent {
        state.calls.remove_http(id);
        return Err(refuse(state, &upstream, error.into(), UNKNOWN_HTTP));
    }
    put_u32(caller, return_id, id)
}

#[expect(clippy::too_many_arguments, reason = "the ABI's parameter list")]
pub(super) fn grpc_call(
    caller: &mut Caller<'_, State>,
    upstream: u32,
    upstream_size: u32,
    service: u32,
    service_size: u32,
    method: u32,
    method_size: u32,
    metadata: u32,
    metadata_size: u32,
    message: u32,
    message_size: u32,
    timeout: u32,
    return_id: u32,
) -> Result<(), HostCallError> {
    let names = [(upstream, upstream_size), (service, service_size), (method, method_size)];
    let message = body_of(caller, (message, message_size), Status::InternalFailure)?;
    let unary = Some((message, limited(u64::from(timeout))));
    open_grpc(caller, names, (metadata, metadata_size), unary, return_id)
}

#[expect(clippy::too_many_arguments, reason = "the ABI's parameter list")]
pub(super) fn grpc_stream(
    caller: &mut Caller<'_, State>,
    upstream: u32,
    upstream_size: u32,
    service: u32,
    service_size: u32,
    method: u32,
    method_size: u32,
    metadata: u32,
    metadata_size: u32,
    return_id: u32,
) -> Result<(), HostCallError> {
    let names = [(upstream, upstream_size), (service, service_size), (method, method_size)];
    open_grpc(caller, names, (metadata, metadata_size), None, return_id)
}

fn open_grpc(
    caller: &mut Caller<'_, State>,
    [upstream, service, method]: [Span; 3],
    metadata: Span,
    unary: Option<(Vec<u8>, Duration)>,
    return_id: u32,
) -> Result<(), HostCallError> {
    let target = short(caller, upstream, Status::InternalFailure)?;
    let named = protobuf::upstream(&target);
    // As in Envoy, which takes a name by itself for a message that does not parse.
    let unknown = if named.is_some() { Status::InternalFailure } else { Status::ParseFailure };
    let upstream = named.map_or_else(|| String::from_utf8_lossy(&target).into_owned(), str::to_owned);
    let service = name(caller, service, Status::InternalFailure)?;
    let method = name(caller, method, Status::InternalFailure)?;
    let block = read(caller, metadata.0, metadata.1)?;
    let metadata = fields(&mut caller.data_mut().interner, &block).ok();
    let metadata = metadata.filter(|_| PathAndQuery::try_from(format!("/{service}/{method}")).is_ok());
    let Some(metadata) = metadata else {
        return Err(refuse(caller.data(), &upstream, CallRefusal::Malformed, unknown));
    };
    put_u32(caller, return_id, 0)?;
    let kind = if unary.is_some() { CallKind::GrpcCall } else { CallKind::GrpcStream };
    let (message, timeout) = unary.unzip();
    let (id, address) = begin(caller, kind, &upstream, timeout.unwrap_or(MAX_TIMEOUT), block.len())?;
    let message = message.map(|message| counted(caller, message).ok_or(CallRefusal::TooMany)).transpose();
    let message = message.map_err(|why| refuse(caller.data(), &upstream, why, unknown))?;
    let state = caller.data_mut();
    let context = state.caller_context();
    state.calls.insert_grpc(id, context);
    let call = GrpcCall { metadata, message, timeout, ..GrpcCall::new(upstream.as_str(), service, method) };
    let (plugin, replies) = (&state.plugin, GrpcReplies::to_guest(address));
    let opened = unless_it_panics(|| plugin.host.grpc_call(&plugin.name, call, replies));
    let has_panicked = opened.is_none();
    match opened.unwrap_or(Err(CallError::Unavailable)) {
        Ok(stream) => state.calls.open_grpc(id, stream),
        Err(error) => {
            // The call of a message has begun, and failed: the guest hears of its end besides. Of a host that
            // has panicked it may never hear.
            if has_panicked || unknown == Status::ParseFailure {
                state.calls.remove_grpc(id);
            }
            return Err(refuse(state, &upstream, error.into(), unknown));
        }
    }
    put_u32(caller, return_id, id)
}

pub(super) fn grpc_send(
    caller: &mut Caller<'_, State>,
    id: u32,
    message: u32,
    message_size: u32,
    end_of_stream: u32,
) -> Result<(), HostCallError> {
    let message = body_of(caller, (message, message_size), Status::BadArgument)?;
    if CallKind::of(id) != Some(CallKind::GrpcStream) {
        return Err(Status::BadArgument.into());
    }
    if caller.data_mut().calls.grpc_stream(id).is_none() {
        return Err(Status::NotFound.into());
    }
    // The guest hears of a message that is not sent, in one of the words that its SDK knows.
    let message = counted(caller, message).ok_or(Status::BadArgument)?;
    on_stream(caller, id, Status::BadArgument, |stream| {
        stream.send(message);
        if end_of_stream != 0 {
            stream.close();
        }
    })
}

pub(super) fn grpc_cancel(caller: &mut Caller<'_, State>, id: u32) -> Result<(), HostCallError> {
    known_grpc(id)?;
    if caller.data_mut().calls.remove_grpc(id) { Ok(()) } else { Err(Status::NotFound.into()) }
}

/// Ends the sending half of a stream, and the whole of a unary call.
pub(super) fn grpc_close(caller: &mut Caller<'_, State>, id: u32) -> Result<(), HostCallError> {
    if known_grpc(id)? == CallKind::GrpcCall {
        return grpc_cancel(caller, id);
    }
    on_stream(caller, id, Status::NotFound, |stream| stream.close())
}

/// Has something done by the sending half of a call. One that panics ends the call, of which the guest might
/// never hear more, and is this status.
fn on_stream(
    caller: &mut Caller<'_, State>,
    id: u32,
    panicked: Status,
    act: impl FnOnce(&mut Box<dyn GrpcStream>),
) -> Result<(), HostCallError> {
    let calls = &mut caller.data_mut().calls;
    let stream = calls.grpc_stream(id).ok_or(Status::NotFound)?;
    if unless_it_panics(|| act(stream)).is_none() {
        calls.remove_grpc(id);
        return Err(panicked.into());
    }
    Ok(())
}

/// Does nothing but tell the log: routes are chosen before plugins run.
pub(super) fn clear_route_cache(state: &State) {
    let plugin = &state.plugin;
    plugin.log.kept_route(&plugin.name, plugin.clock.ticks());
}

/// A result the guest has no use for is not handed over.
pub(super) fn call_foreign_function(
    caller: &mut Caller<'_, State>,
    function: u32,
    function_size: u32,
    arguments: u32,
    arguments_size: u32,
    return_pointer: u32,
    return_length: u32,
) -> Result<AllocationSize, HostCallError> {
    let name = name(caller, (function, function_size), Status::BadArgument)?;
    let arguments = read(caller, arguments, arguments_size)?;
    let plugin = &caller.data().plugin;
    let result = match name.as_str() {
        "clear_route_cache" => {
            clear_route_cache(caller.data());
            Some(Ok(Vec::new()))
        }
        // Properties that guests set are bytes, and last as long as their stream, whatever they are declared
        // to be.
        "declare_property" if protobuf::is_message(&arguments) => Some(Ok(Vec::new())),
        "declare_property" => Some(Err(ForeignError::BadArgument)),
        // Higress': for modules whose ABI has no such host call.
        "get_log_level" => Some(Ok(observe::log_level().to_le_bytes().to_vec())),
        name => unless_it_panics(|| plugin.host.foreign_function(&plugin.name, name, &arguments))
            .unwrap_or(Some(Err(ForeignError::Failed))),
    };
    let result = match result {
        Some(Ok(result)) => result,
        Some(Err(ForeignError::BadArgument)) => return Err(Status::BadArgument.into()),
        Some(Err(ForeignError::Unreadable)) => return Err(Status::SerializationFailure.into()),
        Some(Err(ForeignError::Failed)) => return Err(Status::InternalFailure.into()),
        None => return Err(Status::NotFound.into()),
    };
    if return_pointer == 0 || return_length == 0 {
        return Ok(AllocationSize::NOTHING);
    }
    let mut out = scratch(caller);
    out.extend_from_slice(&result);
    hand_over(caller, out, return_pointer, return_length)
}

/// Charges for a call-out with a head of so many bytes, and lets a pause of the stream that it is made for
/// last as long.
fn begin(
    caller: &mut Caller<'_, State>,
    kind: CallKind,
    upstream: &str,
    timeout: Duration,
    head: usize,
) -> Result<(u32, ReplyAddress), HostCallError> {
    let state = caller.data_mut();
    if !state.plugin.allow_network {
        return Err(refuse(state, upstream, CallRefusal::NoNetwork, Status::InternalFailure));
    }
    let of_bodies = state.charged().map_or(0, |exchange| exchange.bytes_come);
    if let Err(cause) = state.usage.affords_call(of_bodies)? {
        // What it does not hear of may be what it lets pass.
        state.fail_charged(cause);
        return Err(Status::InternalFailure.into());
    }
    let is_one_too_many = state.calls.count(state.caller_context()) >= MAX_CONCURRENT;
    let permit = (!is_one_too_many).then(|| state.plugin.shared.callout_limits.begin(head)).flatten();
    let Some(permit) = permit else {
        return Err(refuse(state, upstream, CallRefusal::TooMany, Status::InternalFailure));
    };
    let until = state.now.saturating_add(u64::try_from((timeout + GRACE).as_millis()).unwrap_or(u64::MAX));
    if let Some(plugin_state) = state.caller_exchange().and_then(|exchange| exchange.own()) {
        plugin_state.calls_until = plugin_state.calls_until.max(until);
    }
    let id = state.calls.next_id(kind);
    let runner = if unless_it_panics(|| state.plugin.host.may_run_guests()).unwrap_or(false) {
        ReplyRunner::Bringer
    } else {
        let stream = state.contexts.get(state.caller_context());
        ReplyRunner::Stream(stream.map(|stream| Arc::downgrade(&stream.exchange)).unwrap_or_default())
    };
    Ok((id, ReplyAddress { slot: state.slot.clone(), generation: state.generation, id, permit, runner }))
}

/// What the guest wants to send, if it is no more than may be sent at once; this status otherwise.
fn body_of(
    caller: &mut Caller<'_, State>,
    (pointer, length): Span,
    refused: Status,
) -> Result<Vec<u8>, HostCallError> {
    slice(view(caller)?.0, pointer, length)?;
    let state = caller.data_mut();
    if !state.plugin.budgets.admits_call_body(length) {
        state.fail_charged(Cause::StreamBudget { what: "call-out body" });
        return Err(refused.into());
    }
    read(caller, pointer, length)
}

/// Bytes to be sent; none if the plugin has no room for them.
fn counted(caller: &Caller<'_, State>, bytes: Vec<u8>) -> Option<Bytes> {
    caller.data().plugin.shared.callout_limits.count(bytes)
}

/// Notes a call-out that is not made; what its guest is told.
fn refuse(state: &State, upstream: &str, why: CallRefusal, unknown: Status) -> HostCallError {
    note_refused(state, upstream, why);
    why.status(unknown).into()
}

fn note_refused(state: &State, upstream: &str, why: CallRefusal) {
    let plugin = &state.plugin;
    plugin.shared.counters.refused_call(why);
    plugin.log.refused_call(&plugin.name, upstream, why, state.now);
}

fn known_grpc(id: u32) -> Result<CallKind, Status> {
    match CallKind::of(id) {
        Some(kind @ (CallKind::GrpcCall | CallKind::GrpcStream)) => Ok(kind),
        _ => Err(Status::BadArgument),
    }
}

fn name(caller: &mut Caller<'_, State>, span: Span, refused: Status) -> Result<String, HostCallError> {
    Ok(String::from_utf8_lossy(&short(caller, span, refused)?).into_owned())
}

/// The bytes of a name that is no longer than one may be; this status otherwise.
fn short(
    caller: &mut Caller<'_, State>,
    (pointer, length): Span,
    refused: Status,
) -> Result<Vec<u8>, HostCallError> {
    if length > MAX_NAME {
        return Err(refused.into());
    }
    read(caller, pointer, length)
}

/// Zero asks for no limit and gets the longest.
fn limited(milliseconds: u64) -> Duration {
    match milliseconds {
        0 => MAX_TIMEOUT,
        milliseconds => Duration::from_millis(milliseconds).min(MAX_TIMEOUT),
    }
}

//! Properties: plugin about stream and plugin by path, and values guests leave for one another.

use std::net::SocketAddr;
use std::time::SystemTime;

use http::Version;
use wasmtime::Caller;

use super::abi::{MapKind, Status};
use super::control::unix_nanos;
use super::headers::{self, Fields};
use super::maps;
use super::memory::{AllocationSize, HostCallError, hand_over_found, read, slice};
use super::state::State;
use crate::error::Cause;
use crate::stream::{ClientCertificate, Direction, Exchange, FilterState, UpstreamAddress, grpc_status_of};

/// Longest path accepted, in bytes.
const MAX_PATH: u32 = 4 << 10;

/// Higress': a guest that sets it to `true` asks for another instance in its place.
const REBUILD: &[u8] = b"wasm_need_rebuild";

/// A map without entries.
const NO_ENTRIES: &str = "\0\0\0\0";

/// `listener_direction` of a listener that says none, as they are by default.
const UNSPECIFIED: i64 = 0;

pub(super) fn get(
    caller: &mut Caller<'_, State>,
    path: u32,
    path_length: u32,
    return_pointer: u32,
    return_length: u32,
) -> Result<AllocationSize, HostCallError> {
    if path_length > MAX_PATH {
        return Err(Status::NotFound.into());
    }
    hand_over_found(caller, return_pointer, return_length, |memory, state, value| {
        let path = slice(memory, path, path_length)?;
        state.charge_from_guest(path.len())?;
        Ok(resolve(state, memory.len(), path, value)?)
    })
}

pub(super) fn set(
    caller: &mut Caller<'_, State>,
    path: u32,
    path_length: u32,
    value: u32,
    value_length: u32,
) -> Result<(), HostCallError> {
    let path = read(caller, path, path_length)?;
    let value = read(caller, value, value_length)?;
    let state = caller.data_mut();
    if let Err(cause) = state.usage.affords_property(FilterState::weight(&path, &value))? {
        maps::fail(state, cause);
        return Ok(());
    }
    // A root context has no stream to keep a property for.
    let exchange = state.exchange_mut().ok_or(Status::NotFound)?;
    let limits = limited(&path).zip(std::str::from_utf8(&value).ok().and_then(|most| most.parse().ok()));
    let asks_for_another =
        (path.strip_suffix(b"\0").unwrap_or(&path) == REBUILD).then_some(&value[..] == b"true");
    if !exchange.info.filter_state.get_or_insert_default().set(path, value) {
        exchange.fail(Cause::StreamBudget { what: "property bytes" });
        return Ok(());
    }
    if let Some((direction, most)) = limits
        && let Some(plugin_state) = exchange.own()
    {
        plugin_state.messages.of(direction).most = Some(most);
    }
    if let Some(is_worn) = asks_for_another
        && let Some(slot) = state.slot.upgrade()
    {
        slot.set_worn(is_worn);
    }
    Ok(())
}

/// The message of which a property, one of Higress', says how many bytes of the body the plugin may hold
/// back.
fn limited(path: &[u8]) -> Option<Direction> {
    match path.strip_suffix(b"\0").unwrap_or(path) {
        b"set_decoder_buffer_limit" => Some(Direction::Request),
        b"set_encoder_buffer_limit" => Some(Direction::Response),
        _ => None,
    }
}

/// Puts the value of a NUL-separated path into `out`.
///
/// What guests have set is found under paths of one segment, where it never takes the place of what the host
/// knows, and all of it in `filter_state`, behind `wasm.`: as in Envoy.
fn resolve(state: &State, memory: usize, path: &[u8], out: &mut Vec<u8>) -> Result<(), Status> {
    if path.is_empty() {
        return Err(Status::SerializationFailure);
    }
    let path = path.strip_suffix(b"\0").unwrap_or(path);
    let mut segments = path.split(|byte| *byte == 0);
    let first = segments.next().unwrap_or_default();
    let (second, third) = (segments.next(), segments.next());
    if segments.next().is_some() && first != b"metadata" {
        return Err(Status::NotFound);
    }
    match (first, second) {
        (b"plugin_name", None) => text(out, &state.plugin.name),
        (b"plugin_root_id", None) => text(out, &state.plugin.root_id),
        (b"plugin_vm_id", None) => text(out, &state.plugin.vm_id),
        (b"plugin_vm_memory", None) => int(out, i64::try_from(memory).unwrap_or(i64::MAX)),
        (b"listener_direction", None) => int(out, UNSPECIFIED),
        (b"metadata", None) if state.exchange().is_some() => Ok(()),
        (b"metadata", Some(b"filter_metadata")) if third.is_none() && state.exchange().is_some() => {
            text(out, NO_ENTRIES)
        }
        // What has groups and values cannot be written as one value.
        (b"xds", None) => Err(Status::SerializationFailure),
        _ => {
            let exchange = state.exchange().ok_or(Status::NotFound)?;
            match stream(exchange, first, second, third, out) {
                Err(Status::NotFound) if second.is_none() => left_behind(exchange, first, out),
                result => result,
            }
        }
    }
}

/// What a guest has set of this request.
fn left_behind(exchange: &Exchange, name: &[u8], out: &mut Vec<u8>) -> Result<(), Status> {
    let is_known = exchange.info.filter_state.as_ref().is_some_and(|state| state.get(name, out));
    is_known.then_some(()).ok_or(Status::NotFound)
}

/// Properties of a stream.
fn stream(
    exchange: &Exchange,
    first: &[u8],
    second: Option<&[u8]>,
    third: Option<&[u8]>,
    out: &mut Vec<u8>,
) -> Result<(), Status> {
    let info = &exchange.info;
    let is_map = matches!(second, Some(b"headers" | b"trailers"));
    if third.is_some() && !is_map {
        return Err(Status::NotFound);
    }
    let named = |value: &Option<_>, out: &mut Vec<u8>| {
        text(out, Option::<std::sync::Arc<str>>::as_deref(value).ok_or(Status::NotFound)?)
    };
    match (first, second) {
        (b"request", Some(name)) => request(exchange, name, third, out),
        (b"response", Some(name)) => response(exchange, name, third, out),
        (b"source", Some(name)) => address(info.source, name, out),
        (b"destination", Some(name)) => address(info.destination, name, out),
        (b"upstream", Some(name)) => {
            address(info.upstream.as_ref().and_then(UpstreamAddress::get), name, out)
        }
        (b"connection_id", None) | (b"connection", Some(b"id")) => {
            int(out, size(info.connection_id.ok_or(Status::NotFound)?))
        }
        (b"connection", Some(b"mtls")) => {
            out.push(u8::from(info.client_certificate.is_some()));
            Ok(())
        }
        (b"connection", Some(b"sha256_peer_certificate_digest")) => {
            text(out, &certificate(exchange)?.sha256.to_string())
        }
        (b"connection", Some(b"uri_san_peer_certificate")) => {
            text(out, certificate(exchange)?.uri.as_deref().ok_or(Status::NotFound)?)
        }
        (b"connection", Some(b"dns_san_peer_certificate")) => {
            text(out, certificate(exchange)?.dns.as_deref().ok_or(Status::NotFound)?)
        }
        (b"connection", Some(b"requested_server_name")) => {
            text(out, info.server_name.as_deref().unwrap_or_default())
        }
        (b"connection", Some(b"tls_version")) => named(&info.tls_version, out),
        (b"route_name", None) | (b"xds", Some(b"route_name")) => named(&info.route, out),
        (b"cluster_name", None) | (b"xds", Some(b"cluster_name")) => named(&info.cluster, out),
        (b"xds", Some(b"listener_direction")) => int(out, UNSPECIFIED),
        (b"xds", Some(b"filter_chain_name")) => Ok(()),
        (b"filter_state", Some(name)) => {
            left_behind(exchange, name.strip_prefix(b"wasm.").ok_or(Status::NotFound)?, out)
        }
        (b"upstream_filter_state", None)
            if info.upstream.as_ref().and_then(UpstreamAddress::get).is_none() =>
        {
            Err(Status::NotFound)
        }
        // A whole group cannot be written as one value.
        (
            b"request"
            | b"response"
            | b"source"
            | b"destination"
            | b"connection"
            | b"upstream"
            | b"filter_state"
            | b"upstream_filter_state",
            None,
        ) => Err(Status::SerializationFailure),
        _ => Err(Status::NotFound),
    }
}

fn certificate(exchange: &Exchange) -> Result<&ClientCertificate, Status> {
    exchange.info.client_certificate.as_deref().ok_or(Status::NotFound)
}

fn request(exchange: &Exchange, name: &[u8], key: Option<&[u8]>, out: &mut Vec<u8>) -> Result<(), Status> {
    let field = |name: &[u8], out: &mut Vec<u8>| header(exchange, MapKind::RequestHeaders, name, out);
    let elapsed = || SystemTime::now().duration_since(exchange.started).unwrap_or_default();
    match name {
        b"path" => field(b":path", out),
        b"url_path" | b"query" | b"protocol" if !exchange.has_request => Err(Status::NotFound),
        b"url_path" => text(out, target(exchange).0),
        b"query" => text(out, target(exchange).1),
        b"host" => field(b":authority", out),
        b"scheme" => field(b":scheme", out),
        b"method" => field(b":method", out),
        b"referer" => field(b"referer", out),
        b"useragent" => field(b"user-agent", out),
        b"id" => field(b"x-request-id", out),
        b"protocol" => text(out, protocol(exchange.request.version)),
        b"time" => int(out, i64::try_from(unix_nanos(exchange.started)).unwrap_or(i64::MAX)),
        b"duration" if exchange.is_over => int(out, i64::try_from(elapsed().as_nanos()).unwrap_or(i64::MAX)),
        // What the headers announce is known before a byte has come.
        b"size" => int(out, announced(exchange).unwrap_or(size(exchange.bytes_passed.request))),
        b"total_size" => total(exchange, MapKind::RequestHeaders, exchange.bytes_passed.request, out),
        b"headers_bytes" => total(exchange, MapKind::RequestHeaders, 0, out),
        b"headers" => match key {
            Some(key) => field(key, out),
            None => map(exchange, MapKind::RequestHeaders, out),
        },
        _ => Err(Status::NotFound),
    }
}

fn response(exchange: &Exchange, name: &[u8], key: Option<&[u8]>, out: &mut Vec<u8>) -> Result<(), Status> {
    let status = || Ok(exchange.response.as_ref().ok_or(Status::NotFound)?.status);
    match name {
        b"code" => int(out, i64::from(status()?.as_u16())),
        b"flags" => int(out, exchange.flags.into()),
        b"code_details" => match &exchange.details {
            Some(details) => text(out, details),
            None => status().and_then(|_| text(out, "via_upstream")),
        },
        b"grpc_status" => {
            let of = |kind| headers::of_exchange(exchange, kind)?.get(b"grpc-status");
            let told = of(MapKind::ResponseTrailers).or_else(|| of(MapKind::ResponseHeaders));
            let told = told.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
            int(out, told.map_or_else(|| Ok(grpc_status_of(status()?).into()), Ok)?)
        }
        b"size" => int(out, size(exchange.bytes_passed.response)),
        b"total_size" => {
            let trailers = headers::of_exchange(exchange, MapKind::ResponseTrailers).map_or(0, Fields::size);
            let behind =
                exchange.bytes_passed.response.saturating_add(u64::try_from(trailers).unwrap_or(u64::MAX));
            total(exchange, MapKind::ResponseHeaders, behind, out)
        }
        b"headers_bytes" => total(exchange, MapKind::ResponseHeaders, 0, out),
        b"headers" => match key {
            Some(key) => header(exchange, MapKind::ResponseHeaders, key, out),
            None if exchange.response.is_none() => text(out, NO_ENTRIES),
            None => map(exchange, MapKind::ResponseHeaders, out),
        },
        b"trailers" => match key {
            Some(key) => header(exchange, MapKind::ResponseTrailers, key, out),
            None if exchange.trailers.response.is_none() => text(out, NO_ENTRIES),
            None => map(exchange, MapKind::ResponseTrailers, out),
        },
        _ => Err(Status::NotFound),
    }
}

/// Path and query as `:path` has them now: nothing if a guest has taken it away.
fn target(exchange: &Exchange) -> (&str, &str) {
    let fields = headers::of_exchange(exchange, MapKind::RequestHeaders);
    let path = fields.and_then(|fields| std::str::from_utf8(fields.get(b":path")?).ok());
    let path = path.unwrap_or_default();
    path.split_once('?').unwrap_or((path, ""))
}

fn address(address: Option<SocketAddr>, name: &[u8], out: &mut Vec<u8>) -> Result<(), Status> {
    let address = address.ok_or(Status::NotFound)?;
    match name {
        b"address" => text(out, &address.to_string()),
        b"port" => int(out, i64::from(address.port())),
        _ => Err(Status::NotFound),
    }
}

fn header(exchange: &Exchange, kind: MapKind, name: &[u8], out: &mut Vec<u8>) -> Result<(), Status> {
    let fields = headers::of_exchange(exchange, kind).ok_or(Status::NotFound)?;
    out.extend_from_slice(fields.get(name).ok_or(Status::NotFound)?);
    if name.starts_with(b":") {
        return Ok(());
    }
    for value in fields.others(name) {
        out.push(b',');
        out.extend_from_slice(value);
    }
    Ok(())
}

fn map(exchange: &Exchange, kind: MapKind, out: &mut Vec<u8>) -> Result<(), Status> {
    headers::of_exchange(exchange, kind).ok_or(Status::NotFound)?.encode_joined(out);
    Ok(())
}

fn text(out: &mut Vec<u8>, value: &str) -> Result<(), Status> {
    out.extend_from_slice(value.as_bytes());
    Ok(())
}

fn int(out: &mut Vec<u8>, value: i64) -> Result<(), Status> {
    out.extend_from_slice(&value.to_le_bytes());
    Ok(())
}

fn announced(exchange: &Exchange) -> Option<i64> {
    let length = exchange.request.headers.get(http::header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Bytes of a message so far: its headers, and what is behind them; none before there is one.
fn total(exchange: &Exchange, kind: MapKind, behind: u64, out: &mut Vec<u8>) -> Result<(), Status> {
    let headers = headers::of_exchange(exchange, kind).map_or(0, Fields::size);
    int(out, size(behind.saturating_add(u64::try_from(headers).unwrap_or(u64::MAX))))
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

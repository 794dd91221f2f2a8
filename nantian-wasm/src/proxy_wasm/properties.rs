//! Properties: facts about stream and plugin by path, and values guests leave for one another.

use std::net::SocketAddr;
use std::time::SystemTime;

use bytes::Bytes;
use http::Version;
use wasmtime::Caller;

use super::abi::{MapKind, Status};
use super::control::unix_nanos;
use super::headers::{self, Lookup};
use super::host::Host;
use super::memory::{Stop, hand_over, read, scratch};
use crate::stream::Exchange;

/// Longest path accepted, in bytes.
const MAX_PATH: u32 = 4 << 10;

/// `listener_direction`: traffic comes in.
const INBOUND: i64 = 1;

pub(super) fn get(
    caller: &mut Caller<'_, Host>,
    path: u32,
    path_length: u32,
    return_pointer: u32,
    return_length: u32,
) -> Result<(), Stop> {
    if path_length > MAX_PATH {
        return Err(Status::NotFound.into());
    }
    let path = read(caller, path, path_length)?;
    let mut value = scratch(caller);
    resolve(caller.data(), &path, &mut value)?;
    hand_over(caller, value, return_pointer, return_length)
}

pub(super) fn set(
    caller: &mut Caller<'_, Host>,
    path: u32,
    path_length: u32,
    value: u32,
    value_length: u32,
) -> Result<(), Stop> {
    let path = Bytes::from(read(caller, path, path_length)?);
    let value = Bytes::from(read(caller, value, value_length)?);
    let host = caller.data_mut();
    host.usage.charge_property(path.len().saturating_add(value.len()))?;
    // A root context has no stream to keep a property for.
    let Some(exchange) = host.exchange_mut() else { return Ok(()) };
    match exchange.properties.iter_mut().find(|(known, _)| *known == path) {
        Some((_, old)) => *old = value,
        None => exchange.properties.push((path, value)),
    }
    Ok(())
}

/// Puts the value of a NUL-separated path into `out`.
fn resolve(host: &Host, path: &[u8], out: &mut Vec<u8>) -> Result<(), Status> {
    if let Some(exchange) = host.exchange()
        && let Some((_, value)) = exchange.properties.iter().find(|(known, _)| known == path)
    {
        out.extend_from_slice(value);
        return Ok(());
    }
    let path = path.strip_suffix(b"\0").unwrap_or(path);
    let mut segments = path.split(|byte| *byte == 0);
    let first = segments.next().unwrap_or_default();
    let second = segments.next();
    match (first, second) {
        (b"plugin_name", None) => text(out, &host.facts.name),
        (b"plugin_root_id", None) => text(out, &host.facts.root_id),
        (b"plugin_vm_id", None) => text(out, ""),
        (b"listener_direction", None) => int(out, INBOUND),
        _ => stream(host.exchange().ok_or(Status::NotFound)?, first, second, segments.next(), out),
    }
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
    match (first, second) {
        (b"request", Some(name)) => request(exchange, name, third, out),
        (b"response", Some(name)) => response(exchange, name, third, out),
        (b"source", Some(name)) => address(info.source, name, out),
        (b"destination", Some(name)) => address(info.destination, name, out),
        (b"connection", Some(b"mtls")) => {
            out.push(0);
            Ok(())
        }
        (b"route_name", None) | (b"xds", Some(b"route_name")) => {
            text(out, info.route.as_ref().ok_or(Status::NotFound)?)
        }
        (b"cluster_name", None) | (b"xds", Some(b"cluster_name")) => {
            text(out, info.cluster.as_ref().ok_or(Status::NotFound)?)
        }
        // A whole group cannot be written as one value.
        (b"request" | b"response" | b"source" | b"destination" | b"connection" | b"xds", None) => {
            Err(Status::SerializationFailure)
        }
        _ => Err(Status::NotFound),
    }
}

fn request(exchange: &Exchange, name: &[u8], key: Option<&[u8]>, out: &mut Vec<u8>) -> Result<(), Status> {
    let field = |name: &[u8], out: &mut Vec<u8>| header(exchange, MapKind::RequestHeaders, name, out);
    let elapsed = || SystemTime::now().duration_since(exchange.started).unwrap_or_default();
    match name {
        b"path" => field(b":path", out),
        b"url_path" => text(out, exchange.request.uri.path()),
        b"query" => text(out, exchange.request.uri.query().unwrap_or_default()),
        b"host" => field(b":authority", out),
        b"scheme" => field(b":scheme", out),
        b"method" => field(b":method", out),
        b"referer" => field(b"referer", out),
        b"useragent" => field(b"user-agent", out),
        b"id" => field(b"x-request-id", out),
        b"protocol" => text(out, protocol(exchange.request.version)),
        b"time" => int(out, i64::try_from(unix_nanos(exchange.started)).unwrap_or(i64::MAX)),
        b"duration" => int(out, i64::try_from(elapsed().as_nanos()).unwrap_or(i64::MAX)),
        b"size" => int(out, size(exchange.request_bytes)),
        b"total_size" => {
            int(out, size(exchange.request_bytes.saturating_add(weight(&exchange.request.headers))))
        }
        b"headers" => match key {
            Some(key) => field(key, out),
            None => map(exchange, MapKind::RequestHeaders, out),
        },
        _ => Err(Status::NotFound),
    }
}

fn response(exchange: &Exchange, name: &[u8], key: Option<&[u8]>, out: &mut Vec<u8>) -> Result<(), Status> {
    let response = exchange.response.as_ref().ok_or(Status::NotFound)?;
    match name {
        b"code" => int(out, i64::from(response.status.as_u16())),
        b"flags" => int(out, 0),
        b"grpc_status" => header(exchange, MapKind::ResponseTrailers, b"grpc-status", out)
            .or_else(|_| header(exchange, MapKind::ResponseHeaders, b"grpc-status", out)),
        b"size" => int(out, size(exchange.response_bytes)),
        b"total_size" => int(out, size(exchange.response_bytes.saturating_add(weight(&response.headers)))),
        b"headers" => match key {
            Some(key) => header(exchange, MapKind::ResponseHeaders, key, out),
            None => map(exchange, MapKind::ResponseHeaders, out),
        },
        b"trailers" => match key {
            Some(key) => header(exchange, MapKind::ResponseTrailers, key, out),
            None => map(exchange, MapKind::ResponseTrailers, out),
        },
        _ => Err(Status::NotFound),
    }
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
    match headers::lookup(exchange, kind, name) {
        Lookup::Found(value) => {
            out.extend_from_slice(value);
            Ok(())
        }
        Lookup::Missing | Lookup::Unavailable => Err(Status::NotFound),
    }
}

fn map(exchange: &Exchange, kind: MapKind, out: &mut Vec<u8>) -> Result<(), Status> {
    if headers::encode(exchange, kind, out) { Ok(()) } else { Err(Status::NotFound) }
}

fn text(out: &mut Vec<u8>, value: &str) -> Result<(), Status> {
    out.extend_from_slice(value.as_bytes());
    Ok(())
}

fn int(out: &mut Vec<u8>, value: i64) -> Result<(), Status> {
    out.extend_from_slice(&value.to_le_bytes());
    Ok(())
}

fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Bytes of header names and values.
fn weight(headers: &http::HeaderMap) -> u64 {
    let bytes = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    u64::try_from(bytes).unwrap_or(u64::MAX)
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

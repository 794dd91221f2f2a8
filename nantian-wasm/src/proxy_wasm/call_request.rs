//! What a guest wants to be sent by a call-out.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};

use super::abi::MapKind;
use super::call_refusal::CallRefusal;
use super::edits::excerpt;
use super::header_interner::HeaderInterner;
use super::joined::join;
use super::pairs;
use crate::host::HttpCallResponse;

/// Why something is not sent.
pub(super) enum Unsendable {
    /// The guest is told at once.
    Told(CallRefusal),
    /// A value is no HTTP. As in Envoy the guest hears of it in the place of a response, or it would wait for
    /// one.
    Untold { name: String },
}

/// Bytes for which Envoy does not begin a call-out if a pseudo header has them.
const SPLITTING: [u8; 3] = *b"\r\n\0";

/// A request made of a block that has `:method`, `:path` and `:authority`; the upstream stands in for an
/// authority that is empty.
pub(super) fn request(
    interner: &mut HeaderInterner,
    block: &[u8],
    upstream: &str,
) -> Result<Request<()>, Unsendable> {
    let pairs = pairs::decode(block).unwrap_or_default();
    let find = |wanted: &[u8]| {
        pairs.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| *value)
    };
    let (Some(method), Some(path), Some(authority)) =
        (find(b":method"), find(b":path"), find(b":authority").or_else(|| find(b"host")))
    else {
        return Err(Unsendable::Told(CallRefusal::Incomplete));
    };
    let splits = |part: &&[u8]| part.iter().any(|byte| SPLITTING.contains(byte));
    if [method, path, authority].iter().any(splits) || method == b"CONNECT" {
        return Err(Unsendable::Told(CallRefusal::Malformed));
    }
    // As in Envoy, it comes first and is what the guest has said.
    let header = HeaderValue::from_bytes(authority).map_err(|_| untold(b":authority"))?;
    // Istio's names of upstreams end with the host: `outbound|80||shop.example.com`.
    let host = upstream.rsplit('|').next().unwrap_or(upstream);
    let authority = if authority.is_empty() { host.as_bytes() } else { authority };
    let authority = Authority::try_from(authority).map_err(|_| untold(b":authority"))?;
    let scheme = find(b":scheme").and_then(|scheme| Scheme::try_from(scheme).ok()).unwrap_or(Scheme::HTTP);
    // Written behind an authority, another one could be taken for a part of that.
    let path = PathAndQuery::try_from(path).ok().filter(|path| path.as_str().starts_with('/'));
    let path = path.ok_or_else(|| untold(b":path"))?;
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
    let mut request = Request::new(());
    *request.uri_mut() = uri.map_err(|_| untold(b":path"))?;
    *request.method_mut() = Method::from_bytes(method).map_err(|_| untold(b":method"))?;
    *request.version_mut() = Version::HTTP_11;
    request.headers_mut().insert(HOST, header);
    for (name, value) in &pairs {
        let is_taken = name.starts_with(b":") || name.eq_ignore_ascii_case(b"host");
        // As in Envoy, one without a name is none.
        if !is_taken && !name.is_empty() {
            append(interner, request.headers_mut(), name, value)?;
        }
    }
    join(request.headers_mut(), MapKind::RequestHeaders);
    Ok(request)
}

/// Header fields of a block.
pub(super) fn fields(interner: &mut HeaderInterner, block: &[u8]) -> Result<HeaderMap, Unsendable> {
    let mut map = HeaderMap::new();
    for (name, value) in pairs::decode(block).unwrap_or_default() {
        append(interner, &mut map, name, value)?;
    }
    Ok(map)
}

fn append(
    interner: &mut HeaderInterner,
    map: &mut HeaderMap,
    name: &[u8],
    value: &[u8],
) -> Result<(), Unsendable> {
    match interner.field(name, value) {
        Ok(Some((name, value))) => {
            map.append(name, value);
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(_) if interner.name(name).is_none() => Err(Unsendable::Told(CallRefusal::Malformed)),
        Err(_) => Err(untold(name)),
    }
}

fn untold(name: &[u8]) -> Unsendable {
    Unsendable::Untold { name: excerpt(name) }
}

/// What stands in for the response to a request with a header of which the value is no HTTP.
pub(super) fn unsent(name: &str) -> HttpCallResponse {
    let text = format!("invalid header value for: {name}");
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    *response.body_mut() = text.into();
    HttpCallResponse::new(response, HeaderMap::new())
}

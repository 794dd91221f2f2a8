//! HTTP messages in files.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, Version};

/// Why a text is no message.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidMessage {
    #[error("{0:?} is no request line such as `GET / HTTP/1.1`")]
    RequestLine(String),
    #[error("{0:?} is no status line such as `HTTP/1.1 200 OK`")]
    StatusLine(String),
    #[error("{0:?} is no header such as `name: value`")]
    Header(String),
}

/// A request as HTTP/1.1 has it, whatever version it names; lines may end in LF alone.
pub(super) fn request(bytes: &[u8]) -> Result<Request<Bytes>, InvalidMessage> {
    let (line, headers, body) = split(bytes)?;
    let invalid = || InvalidMessage::RequestLine(line.clone());
    let mut words = line.split_ascii_whitespace();
    let (method, target) = (words.next().ok_or_else(invalid)?, words.next().ok_or_else(invalid)?);
    let mut request = Request::new(body);
    *request.method_mut() = method.parse().map_err(|_| invalid())?;
    *request.uri_mut() = target.parse::<Uri>().map_err(|_| invalid())?;
    *request.version_mut() = match words.next() {
        Some("HTTP/1.0") => Version::HTTP_10,
        Some("HTTP/2" | "HTTP/2.0") => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    *request.headers_mut() = headers;
    Ok(request)
}

/// A response as HTTP/1.1 has it; lines may end in LF alone.
pub(super) fn response(bytes: &[u8]) -> Result<Response<Bytes>, InvalidMessage> {
    let (line, headers, body) = split(bytes)?;
    let status = line.split_ascii_whitespace().nth(1).and_then(|status| status.parse().ok());
    let mut response = Response::new(body);
    *response.status_mut() = status.ok_or_else(|| InvalidMessage::StatusLine(line.clone()))?;
    *response.headers_mut() = headers;
    Ok(response)
}

/// `name: value`.
pub(super) fn header(line: &str) -> Result<(HeaderName, HeaderValue), InvalidMessage> {
    let read = || {
        let (name, value) = line.split_once(':')?;
        Some((name.trim().parse().ok()?, value.trim().parse().ok()?))
    };
    read().ok_or_else(|| InvalidMessage::Header(line.to_owned()))
}

/// First line, headers and body.
fn split(bytes: &[u8]) -> Result<(String, HeaderMap, Bytes), InvalidMessage> {
    let mut rest = bytes;
    let first = next_line(&mut rest).unwrap_or_default();
    let mut headers = HeaderMap::new();
    while let Some(line) = next_line(&mut rest).filter(|line| !line.is_empty()) {
        let (name, value) = header(&line)?;
        headers.append(name, value);
    }
    Ok((first, headers, Bytes::copy_from_slice(rest)))
}

fn next_line(rest: &mut &[u8]) -> Option<String> {
    if rest.is_empty() {
        return None;
    }
    let (line, behind) = match rest.iter().position(|byte| *byte == b'\n') {
        Some(end) => rest.split_at(end + 1),
        None => (*rest, &[][..]),
    };
    *rest = behind;
    Some(String::from_utf8_lossy(line).trim_end_matches(['\r', '\n']).to_owned())
}

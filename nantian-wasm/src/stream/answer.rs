//! What a guest answers by itself.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

/// A response made by a plugin: nothing of it comes from upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalResponse {
    /// Final status, 200 to 999.
    pub status: StatusCode,
    /// Headers, without those that frame a message.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// Why, for logs: `response.code_details`.
    pub details: String,
    /// `grpc-status`, if the guest gave one.
    pub grpc_status: Option<u32>,
}

// === impl LocalResponse ===

impl LocalResponse {
    /// A status and a body, as a plugin would send them.
    pub fn new(status: StatusCode, body: impl Into<Bytes>) -> Self {
        let (headers, body) = (HeaderMap::new(), body.into());
        Self { status, headers, body, details: String::new(), grpc_status: None }
    }

    /// What a responder answers.
    pub(crate) fn of(response: Response<Bytes>) -> Self {
        let (parts, body) = response.into_parts();
        let mut headers = parts.headers;
        headers.remove(CONTENT_LENGTH);
        Self { headers, ..Self::new(parts.status, body) }
    }

    /// The response to a request; a gRPC request gets status 200 and the failure in `grpc-status`, as its
    /// clients expect.
    pub fn into_response(mut self, is_grpc: bool) -> Response<Bytes> {
        if is_grpc {
            return self.into_grpc_response();
        }
        // As Envoy makes them: nothing is said of a body that there is not.
        if self.body.is_empty() {
            self.headers.remove(CONTENT_TYPE);
            self.headers.remove(CONTENT_LENGTH);
        } else {
            self.headers.insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
            self.headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("text/plain"));
        }
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }

    fn into_grpc_response(mut self) -> Response<Bytes> {
        let code = self.grpc_status.unwrap_or_else(|| grpc_status_of(self.status));
        self.headers.remove(CONTENT_LENGTH);
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        self.headers.entry(HeaderName::from_static("grpc-status")).or_insert(HeaderValue::from(code));
        if let Some(message) = grpc_message(&self.body) {
            self.headers.insert(HeaderName::from_static("grpc-message"), message);
        }
        let mut response = Response::new(Bytes::new());
        *response.headers_mut() = self.headers;
        response
    }
}

/// Whether a message is gRPC, by its content type.
pub(crate) fn is_grpc(content_type: &[u8]) -> bool {
    content_type
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"+") || rest.starts_with(b";"))
}

/// HTTP status to gRPC status, as the gRPC protocol maps them for clients; anything else is unknown.
pub(crate) fn grpc_status_of(status: StatusCode) -> u32 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// Percent-encodes a body into `grpc-message`; an empty one gives none.
fn grpc_message(body: &[u8]) -> Option<HeaderValue> {
    let mut message = Vec::with_capacity(body.len());
    for &byte in body {
        if matches!(byte, b' '..b'~') && byte != b'%' {
            message.push(byte);
        } else {
            message.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    HeaderValue::from_bytes(&message).ok().filter(|_| !body.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &'static str) -> LocalResponse {
        LocalResponse::new(StatusCode::from_u16(status).unwrap(), body)
    }

    #[test]
    fn a_body_without_a_type_is_plain_text() {
        let response = answer(418, "short and stout\n").into_response(false);
        assert_eq!(response.status(), 418);
        assert_eq!(response.headers()["content-type"], "text/plain");
        assert_eq!(response.headers()["content-length"], "16");
        assert!(answer(204, "").into_response(false).headers().is_empty());
    }

    #[test]
    fn a_grpc_client_gets_the_refusal_as_grpc_status() {
        let response = answer(403, "no, ~100%\n").into_response(true);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "7");
        assert_eq!(response.headers()["grpc-message"], "no, %7E100%25%0A");
        assert!(response.body().is_empty());
        let mut own = answer(403, "");
        own.headers.insert("grpc-status", HeaderValue::from_static("16"));
        assert_eq!(own.into_response(true).headers()["grpc-status"], "16", "which the plugin gave itself");
    }
}

//! What active checks ask over HTTP and gRPC, and what they make of the answers.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, TE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};

use super::Verdict;

/// A check by an HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpCheck {
    /// The method. Default: GET.
    pub method: Method,
    /// The path and query.
    pub path: Uri,
    /// The `Host`. Default: none, for the embedder to set.
    pub host: Option<HeaderValue>,
    /// The statuses that pass. Default: 200 to 299.
    pub statuses: std::ops::RangeInclusive<u16>,
}

/// A check by the gRPC health protocol (`grpc.health.v1.Health/Check`); over HTTP/2.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GrpcCheck {
    /// The service that is asked after; the empty name is the server as a whole.
    pub service: String,
}

const METHOD: &str = "/grpc.health.v1.Health/Check";
/// The bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Field 1, as text and as a number.
const SERVICE_FIELD: u8 = 0x0a;
const STATUS_FIELD: u8 = 0x08;
const SERVING: u64 = 1;

// === impl HttpCheck ===

impl HttpCheck {
    /// `GET path`, which any 2xx passes.
    #[must_use]
    pub fn new(path: Uri) -> Self {
        Self { method: Method::GET, path, host: None, statuses: 200..=299 }
    }

    /// The request to send to the endpoint. Its URI is the path alone, as on a connection that is there: a
    /// client that makes its own needs the endpoint's address in it.
    #[must_use]
    pub fn request<B: Default>(&self) -> Request<B> {
        let mut request = Request::new(B::default());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.path.clone();
        if let Some(host) = &self.host {
            request.headers_mut().insert(HOST, host.clone());
        }
        request
    }

    /// What the answer says.
    #[must_use]
    pub fn judge<B>(&self, response: &Response<B>) -> Verdict {
        verdict(self.statuses.contains(&response.status().as_u16()))
    }
}

// === impl GrpcCheck ===

impl GrpcCheck {
    /// Asks after `service`.
    pub fn new(service: impl Into<String>) -> Self {
        Self { service: service.into() }
    }

    /// The request to send to the endpoint. Of its URI holds what is said of that of an
    /// [`HttpCheck`](HttpCheck::request).
    #[must_use]
    pub fn request<B: From<Bytes>>(&self) -> Request<B> {
        let mut message = BytesMut::new();
        if !self.service.is_empty() {
            message.put_u8(SERVICE_FIELD);
            put_varint(&mut message, self.service.len() as u64);
            message.put_slice(self.service.as_bytes());
        }
        let mut body = BytesMut::with_capacity(PREFIX + message.len());
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
        body.unsplit(message);
        let mut request = Request::new(B::from(body.freeze()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(METHOD);
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        request
    }

    /// What the answer says: its head, its whole body, and its trailers.
    #[must_use]
    pub fn judge<B>(&self, head: &Response<B>, body: &[u8], trailers: Option<&HeaderMap>) -> Verdict {
        let status = trailers.and_then(|trailers| trailers.get("grpc-status"));
        let status = status.or_else(|| head.headers().get("grpc-status"));
        let is_ok = head.status() == StatusCode::OK && status.is_none_or(|status| status == "0");
        verdict(is_ok && serving_status(body) == Some(SERVING))
    }
}

fn verdict(passes: bool) -> Verdict {
    if passes { Verdict::Passes } else { Verdict::Fails }
}

fn put_varint(to: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        to.put_u8(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    to.put_u8(u8::try_from(number).unwrap_or(0));
}

/// The status in the first message of a body; field 1, which is the only one of the message.
fn serving_status(body: &[u8]) -> Option<u64> {
    let (&[compressed, a, b, c, d], rest) = body.split_first_chunk::<PREFIX>()?;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    let message = rest.get(..length)?;
    if compressed != 0 {
        return None;
    }
    // An absent field is 0: unknown.
    let Some((&field, number)) = message.split_first() else { return Some(0) };
    if field != STATUS_FIELD {
        return None;
    }
    let mut value = 0;
    for (at, &byte) in number.iter().take(9).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_outside_the_range_fails() {
        let mut check = HttpCheck::new(Uri::from_static("/healthz"));
        let response = |status| Response::builder().status(status).body(()).unwrap();
        assert_eq!(check.judge(&response(204)), Verdict::Passes);
        assert_eq!(check.judge(&response(302)), Verdict::Fails);
        check.statuses = 200..=399;
        assert_eq!(check.judge(&response(302)), Verdict::Passes);
    }

    #[test]
    fn the_grpc_request_names_the_service() {
        let request: Request<Bytes> = GrpcCheck::new("shop").request();
        assert_eq!(request.uri().path(), METHOD);
        assert_eq!(&request.body()[..], b"\0\0\0\0\x06\x0a\x04shop");
        let request: Request<Bytes> = GrpcCheck::default().request();
        assert_eq!(&request.body()[..], b"\0\0\0\0\0");
    }

    #[test]
    fn only_serving_passes() {
        let head = Response::new(());
        let judge = |body: &[u8]| GrpcCheck::default().judge(&head, body, None);
        assert_eq!(judge(b"\0\0\0\0\x02\x08\x01"), Verdict::Passes);
        for fails in [
            &b"\0\0\0\0\x02\x08\x02"[..],
            b"\0\0\0\0\0",
            b"\x01\0\0\0\x02\x08\x01",
            b"\0\0\0\0\x02\x08",
            b"\0\0\0\0\x03\x08\xff\xff",
            b"\0\0",
            b"",
        ] {
            assert_eq!(judge(fails), Verdict::Fails, "{fails:?}");
        }
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "12".parse().unwrap())]);
        let unimplemented = GrpcCheck::default().judge(&head, b"\0\0\0\0\x02\x08\x01", Some(&trailers));
        assert_eq!(unimplemented, Verdict::Fails);
    }
}

//! What a refused caller reads.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};

use crate::error::Denied;

/// Writes the response to a refused request.
///
/// The layer adds `Retry-After`, the `RateLimit` fields and `Cache-Control: no-store` to it.
pub trait Responder: Send + Sync {
    /// The response to `request`, which `denied` is about.
    fn refuse(&self, denied: &Denied, request: &Parts) -> Response<Bytes>;
}

/// 429 with a problem document (RFC 9457). The default.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProblemJson;

/// The problem type of draft-ietf-httpapi-ratelimit-headers, section "Problem Types".
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

// === impl ProblemJson ===

impl Responder for ProblemJson {
    fn refuse(&self, denied: &Denied, _request: &Parts) -> Response<Bytes> {
        // Nothing here needs escaping: a limit's name is letters, digits, dots, dashes and underscores.
        let body = format!(
            r#"{{"type":"{QUOTA_EXCEEDED}","title":"Too Many Requests","status":429,"detail":"{denied}","violated-policies":["{}"]}}"#,
            denied.limit().name(),
        );
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        let content_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response
    }
}

impl<F> Responder for F
where
    F: Fn(&Denied, &Parts) -> Response<Bytes> + Send + Sync,
{
    fn refuse(&self, denied: &Denied, request: &Parts) -> Response<Bytes> {
        self(denied, request)
    }
}

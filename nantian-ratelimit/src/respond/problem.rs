//! Problem documents (RFC 9457).

use bytes::Bytes;
use http::Response;
use http::request::Parts;

use super::{Refusal, Responder, response};

/// A problem document (RFC 9457) with the status of the [`Refusal`].
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to say about it")]
pub struct ProblemJson;

/// The problem types of draft-ietf-httpapi-ratelimit-headers, section "Problem Types".
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
const TEMPORARY_REDUCED_CAPACITY: &str =
    "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";

impl Responder for ProblemJson {
    fn respond(&self, refusal: Refusal<'_>, _request: &Parts) -> Response<Bytes> {
        // Nothing here needs escaping: a limit's name is letters, digits, dots, dashes and underscores.
        let (kind, more) = match refusal {
            Refusal::Denied(denied) => {
                (QUOTA_EXCEEDED, format!(r#","violated-policies":["{}"]"#, denied.limit().name()))
            }
            Refusal::Missing(_) => ("about:blank", String::new()),
            Refusal::Unavailable(_) => (TEMPORARY_REDUCED_CAPACITY, String::new()),
        };
        let status = refusal.status();
        let (title, code) = (status.canonical_reason().unwrap_or_default(), status.as_u16());
        let body =
            format!(r#"{{"type":"{kind}","title":"{title}","status":{code},"detail":"{refusal}"{more}}}"#);
        response(status, "application/problem+json", body)
    }
}

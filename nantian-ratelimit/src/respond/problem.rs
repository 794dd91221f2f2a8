//! Problem documents (RFC 9457).

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};

use super::{OUTAGE, Responder, lack, response};
use crate::error::Denied;
use crate::scope::ScopePart;

/// 429 with a problem document (RFC 9457).
#[derive(Debug, Clone, Copy, Default)]
pub struct ProblemJson;

/// The problem types of draft-ietf-httpapi-ratelimit-headers, section "Problem Types".
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
const TEMPORARY_REDUCED_CAPACITY: &str =
    "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";

impl ProblemJson {
    pub(super) fn about_outage(_request: &Parts) -> Response<Bytes> {
        document(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!(
                r#"{{"type":"{TEMPORARY_REDUCED_CAPACITY}","title":"Service Unavailable","status":503,"detail":"{OUTAGE}"}}"#
            ),
        )
    }

    pub(super) fn about_scope(part: &ScopePart, _request: &Parts) -> Response<Bytes> {
        let (status, detail) = lack(part);
        let (title, code) = (status.canonical_reason().unwrap_or_default(), status.as_u16());
        document(
            status,
            &format!(r#"{{"type":"about:blank","title":"{title}","status":{code},"detail":"{detail}"}}"#),
        )
    }
}

impl Responder for ProblemJson {
    fn respond(&self, denied: &Denied, _request: &Parts) -> Response<Bytes> {
        // Nothing here needs escaping: a limit's name is letters, digits, dots, dashes and underscores.
        let limit = denied.limit().name();
        document(
            StatusCode::TOO_MANY_REQUESTS,
            &format!(
                r#"{{"type":"{QUOTA_EXCEEDED}","title":"Too Many Requests","status":429,"detail":"{denied}","violated-policies":["{limit}"]}}"#
            ),
        )
    }
}

fn document(status: StatusCode, body: &str) -> Response<Bytes> {
    response(status, "application/problem+json", body.to_owned())
}

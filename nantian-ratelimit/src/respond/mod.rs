//! What a refused caller reads.

mod dialect;
mod problem;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};

use crate::error::Denied;
use crate::scope::ScopePart;

pub use self::{dialect::DialectResponder, problem::ProblemJson};

/// Writes the responses to refused requests.
///
/// The layer adds `Retry-After`, the `RateLimit` fields and `Cache-Control: no-store` to the first, and
/// `Retry-After` to the second.
pub trait Responder: Send + Sync {
    /// The response to `request`, which `denied` is about.
    fn respond(&self, denied: &Denied, request: &Parts) -> Response<Bytes>;

    /// The response to `request` while the store of the limits is away and nothing passes.
    fn unavailable(&self, request: &Parts) -> Response<Bytes> {
        ProblemJson::about_outage(request)
    }

    /// The response to `request`, which lacks `part` of the scope: see
    /// [`MissingKey::Reject`](crate::MissingKey::Reject).
    fn unknown(&self, part: &ScopePart, request: &Parts) -> Response<Bytes> {
        ProblemJson::about_scope(part, request)
    }
}

impl<F> Responder for F
where
    F: Fn(&Denied, &Parts) -> Response<Bytes> + Send + Sync,
{
    fn respond(&self, denied: &Denied, request: &Parts) -> Response<Bytes> {
        self(denied, request)
    }
}

/// Why nobody may pass.
const OUTAGE: &str = "the rate limits cannot be read at present";

/// What the request lacks, and the status that says so.
fn lack(part: &ScopePart) -> (StatusCode, String) {
    let status = match part {
        ScopePart::ApiKey | ScopePart::User => StatusCode::UNAUTHORIZED,
        _ => StatusCode::BAD_REQUEST,
    };
    (status, format!("the request lacks what its rate limit counts by: {part}"))
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

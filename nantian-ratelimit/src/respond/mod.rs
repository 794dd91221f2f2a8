//! What a refused caller reads.

mod dialect;
mod problem;
mod refusal;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};

pub use self::{dialect::DialectResponder, problem::ProblemJson, refusal::Refusal};

/// Writes the responses to refused requests.
///
/// The layer adds `Cache-Control: no-store`, `Retry-After`, the `RateLimit` fields and, to a 401 that has
/// none, `WWW-Authenticate`, where they apply.
///
/// ```
/// use bytes::Bytes;
/// use http::{Response, request::Parts};
/// use nantian_ratelimit::{Limit, Limiter, Policy, RateLimitLayer, respond::Refusal};
///
/// let policy = Policy::builder().limit(Limit::requests_per_minute(60)).build()?;
/// let layer = RateLimitLayer::new(Limiter::new(policy)).responder(|refusal: Refusal<'_>, _: &Parts| {
///     let mut response = Response::new(Bytes::from(refusal.to_string()));
///     *response.status_mut() = refusal.status();
///     response
/// });
/// # Ok::<_, nantian_ratelimit::InvalidPolicy>(())
/// ```
pub trait Responder: Send + Sync {
    /// The response to `request`, which is refused for `refusal`.
    fn respond(&self, refusal: Refusal<'_>, request: &Parts) -> Response<Bytes>;
}

impl<F> Responder for F
where
    F: Fn(Refusal<'_>, &Parts) -> Response<Bytes> + Send + Sync,
{
    fn respond(&self, refusal: Refusal<'_>, request: &Parts) -> Response<Bytes> {
        self(refusal, request)
    }
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

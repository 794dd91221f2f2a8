//! Whose limit a client has met.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, request::Parts};
use nantian_ratelimit::respond::{DialectResponder, Refusal, Responder};

use crate::{body::Body, respond::LoggedError, upstream::SentTo};

/// Of a response to a request over a limit: `gateway` if it is one of a TokenPolicy, `upstream` if it is one
/// of the backend's or the provider's own.
const LIMIT_SOURCE: HeaderName = HeaderName::from_static("x-nantian-limit-source");
/// The seconds of `Retry-After`, as clients of the first Nantian Gateway look for them.
const RETRY_AFTER_SECONDS: HeaderName = HeaderName::from_static("x-ratelimit-retry-after-seconds");

/// Answers in the words of the client's API, and says that the limit is the gateway's; the access log is told
/// of which TokenPolicy.
#[derive(Debug, Clone)]
pub(super) struct LimitResponder {
    pub(super) policy: Arc<str>,
}

impl Responder for LimitResponder {
    fn respond(&self, refusal: Refusal<'_>, request: &Parts) -> Response<Bytes> {
        let mut response = DialectResponder.respond(refusal, request);
        if let Refusal::Denied(denied) = refusal {
            let headers = response.headers_mut();
            headers.insert(LIMIT_SOURCE, HeaderValue::from_static("gateway"));
            if let Some(wait) = denied.retry_after() {
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                headers.insert(RETRY_AFTER_SECONDS, seconds.max(1).into());
            }
        }
        // The access log wants to know of this request; a flood that is not logged is refused without a text.
        if request.extensions.get::<SentTo>().is_some() {
            let why = format!("TokenPolicy {}: {refusal}", self.policy);
            response.extensions_mut().insert(LoggedError(why.into()));
        }
        response
    }
}

/// Says of a refusal of the upstream's that the limit is its own.
pub(crate) fn mark_upstream(mut response: Response<Body>) -> Response<Body> {
    if response.status() == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(LIMIT_SOURCE, HeaderValue::from_static("upstream"));
    }
    response
}

//! Requests that are refused before they have a route.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::{body::Body, respond};

/// A request that is refused before it has a route; the connection is closed after it.
pub(super) struct Refusal(pub(super) Box<Response<Bytes>>);

impl Refusal {
    pub(super) fn new(status: StatusCode, reason: impl ToString) -> Self {
        Self(Box::new(respond::plain(status, &reason.to_string())))
    }

    pub(super) fn bad_request(reason: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason)
    }
}

/// The methods of a 405 (RFC 9110, section 15.5.6): all but CONNECT may have a route.
const ALLOWED: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE";

/// The response to a request that is refused.
pub(super) fn refuse(refusal: Option<Refusal>) -> Response<Body> {
    let Some(Refusal(response)) = refusal else {
        return Response::default();
    };
    let status = response.status();
    let mut response = (*response).map(Body::full);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(ALLOWED));
    }
    response
}

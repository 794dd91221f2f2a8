//! The form that a request has on a connection.

use http::{HeaderValue, Method, Request, Uri, Version, header, uri::PathAndQuery};
use http_body::Body as _;

use super::{Destination, UpstreamError};
use crate::body::Body;

/// `GET /path` with a Host header, and a framing for content of unknown length, as HTTP/1.1 wants it.
pub(super) fn to_origin_form(request: &mut Request<Body>, destination: &Destination) {
    *request.version_mut() = Version::HTTP_11;
    if !request.headers().contains_key(header::HOST)
        && let Ok(host) = HeaderValue::try_from(authority(request, destination))
    {
        request.headers_mut().insert(header::HOST, host);
    }
    if request.uri().authority().is_some() {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    }
    // hyper would take it that a GET, or a HEAD, of unknown length has no content.
    if !request.body().is_end_stream()
        && request.body().size_hint().exact().is_none()
        && !request.headers().contains_key(header::CONTENT_LENGTH)
    {
        request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    // RFC 9110, section 8.6: methods that usually have content say that they have none; some servers answer
    // 411 without.
    if request.body().is_end_stream()
        && matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH)
        && !request.headers().contains_key(header::CONTENT_LENGTH)
    {
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    }
}

/// A URI with scheme and authority, as HTTP/2 wants it, and no Host header.
///
/// # Errors
/// When the Host header is no authority: clients may not send such a one, but filters and plugins may write
/// it.
pub(super) fn to_absolute_form(
    request: &mut Request<Body>,
    destination: &Destination,
) -> Result<(), UpstreamError> {
    *request.version_mut() = Version::HTTP_2;
    let uri = Uri::builder().scheme(if destination.security.tls().is_some() { "https" } else { "http" });
    // HTTP/1.0 may have an empty one.
    let uri = match request.headers_mut().remove(header::HOST).filter(|host| !host.is_empty()) {
        Some(host) => uri.authority(host.as_bytes()),
        None => uri.authority(authority(request, destination)),
    };
    let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let uri = uri.path_and_query(path).build();
    let uri = uri.map_err(|_| UpstreamError::InvalidHost { destination: destination.to_string() })?;
    *request.uri_mut() = uri;
    Ok(())
}

/// What a request is for that has no Host header: what its URI says, else, for HTTP/1.0 names nothing,
/// `destination`.
fn authority(request: &Request<Body>, destination: &Destination) -> String {
    match request.uri().authority() {
        Some(authority) => authority.to_string(),
        None => destination.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn method_that_usually_has_content_says_that_it_has_none() {
        let authority = "a.example:80".parse().unwrap();
        let destination = Destination::of_url(&authority, false).unwrap();
        for (method, length) in [("POST", Some("0")), ("PUT", Some("0")), ("GET", None), ("DELETE", None)] {
            let request = Request::builder().method(method).uri("/");
            let mut request = request.body(Body::empty()).unwrap();
            to_origin_form(&mut request, &destination);
            let found = request.headers().get(header::CONTENT_LENGTH).map(|length| length.to_str().unwrap());
            assert_eq!(found, length, "{method}");
        }
        let mut full = Request::post("/").body(Body::full("hello")).unwrap();
        to_origin_form(&mut full, &destination);
        assert_eq!(full.headers().get(header::CONTENT_LENGTH), None, "hyper says how long it is");
    }
}

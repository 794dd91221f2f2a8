//! What a gRPC client is told in place of an HTTP error (gRPC over HTTP/2, "Responses").

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version, header};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Whether a request is a call of gRPC; gRPC-Web, which any HTTP carries, is none.
pub(crate) fn is_call(version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_2 && has_grpc_content(headers)
}

/// How long the client of a call waits for it (gRPC over HTTP/2, "Requests"); `None` is for ever, or what
/// cannot be read.
pub(crate) fn timeout<B>(request: &Request<B>) -> Option<Duration> {
    let value = request.headers().get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (unit, digits) = (value.chars().last()?, value.get(..value.len().checked_sub(1)?)?);
    if !has_grpc_content(request.headers())
        || digits.len() > 8
        || !digits.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(count * 3600)),
        'M' => Some(Duration::from_secs(count * 60)),
        'S' => Some(Duration::from_secs(count)),
        'm' => Some(Duration::from_millis(count)),
        'u' => Some(Duration::from_micros(count)),
        'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// Whether the client of a call would not understand `response`.
pub(crate) fn is_foreign<B>(response: &Response<B>) -> bool {
    !response.status().is_success() && !has_grpc_content(response.headers())
}

/// The response that says in gRPC what `response` says in HTTP: a status without content. Other headers stay,
/// such as those of limits.
pub(crate) fn translated<B>(response: Response<B>, empty: B) -> Response<B> {
    let status = response.status();
    let (mut parts, _) = response.into_parts();
    parts.status = StatusCode::OK;
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
        parts.headers.remove(name);
    }
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    parts.headers.insert(GRPC_STATUS, code(status).into());
    let message = status.canonical_reason().unwrap_or("unknown");
    parts.headers.insert(GRPC_MESSAGE, HeaderValue::from_static(message));
    Response::from_parts(parts, empty)
}

fn has_grpc_content(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// The code of gRPC for a status of HTTP. Gateway API wants UNIMPLEMENTED where nothing matches and
/// UNAVAILABLE where there is no valid backend; otherwise as gRPC itself maps them, with limits and time-outs
/// told apart.
fn code(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 | 405 | 501 => 12,
        408 | 504 => 4,
        413 | 429 | 431 => 8,
        500 | 502 | 503 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_by_version_and_content() {
        let cases = [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ];
        for (kind, is_grpc) in cases {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
            assert_eq!(is_call(Version::HTTP_2, &headers), is_grpc, "{kind}");
            assert!(!is_call(Version::HTTP_11, &headers));
        }
        assert!(!is_call(Version::HTTP_2, &HeaderMap::new()));
    }

    #[test]
    fn a_timeout_is_a_number_of_at_most_eight_digits_and_a_unit() {
        let cases = [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("10S", Some(Duration::from_secs(10))),
            ("150m", Some(Duration::from_millis(150))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("5n", Some(Duration::from_nanos(5))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("100000000n", None),
            ("5", None),
            ("m", None),
            ("", None),
            ("-1S", None),
            ("1s", None),
        ];
        for (text, expected) in cases {
            let request = Request::builder().header("content-type", "application/grpc");
            assert_eq!(
                timeout(&request.header("grpc-timeout", text).body(()).unwrap()),
                expected,
                "{text:?}"
            );
        }
        let request = Request::builder().header("grpc-timeout", "1S").body(()).unwrap();
        assert_eq!(timeout(&request), None, "no call");
    }

    #[test]
    fn an_error_of_http_becomes_one_of_grpc() {
        let mut response = Response::new("no route");
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("3"));
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("8"));
        assert!(is_foreign(&response));
        let response = translated(response, "");
        assert_eq!((response.status(), *response.body()), (StatusCode::OK, ""));
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap());
        assert_eq!(header("grpc-status"), Some("8"));
        assert_eq!(header("grpc-message"), Some("Too Many Requests"));
        assert_eq!(header("retry-after"), Some("3"));
        assert_eq!(header("content-length"), None);
        assert!(!is_foreign(&response));
    }
}

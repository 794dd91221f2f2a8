//! What became of a request, as far as it tells something about the endpoint.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, Response, StatusCode};

/// What became of a request, as far as it tells something about the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The endpoint answered, with whatever it had to say to the client.
    Success,
    /// The endpoint answered 5xx, other than the three below, or with the status `UNKNOWN`, `INTERNAL` or
    /// `DATA_LOSS` of gRPC.
    ServerError,
    /// The endpoint answered 502, 503 or 504, or with `UNAVAILABLE` of gRPC: what it needs does not work, or
    /// it is overloaded.
    GatewayError,
    /// There was no answer: no connection, or one that broke, or none in time.
    Unreachable,
    /// The endpoint answered 429: it is well, and wants to be spared for a while.
    Busy {
        /// How long, if it said so in seconds.
        retry_after: Option<Duration>,
    },
}

// === impl Outcome ===

impl Outcome {
    /// What the head of a response tells.
    #[must_use]
    pub fn of<B>(response: &Response<B>) -> Self {
        Self::of_head(response.status(), response.headers())
    }

    /// What status and headers of a response tell, those of a call of gRPC that is answered without a message
    /// included. What the trailers of other calls say is not known yet.
    #[must_use]
    pub fn of_head(status: StatusCode, headers: &HeaderMap) -> Self {
        match status {
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                Self::GatewayError
            }
            StatusCode::TOO_MANY_REQUESTS => Self::Busy { retry_after: retry_after(headers) },
            status if status.is_server_error() => Self::ServerError,
            StatusCode::OK => {
                headers.get(GRPC_STATUS).map_or(Self::Success, |code| Self::of_code(code.as_bytes()))
            }
            _ => Self::Success,
        }
    }

    /// What a status of gRPC tells, as the codes of HTTP that stand for it do; others are of the caller's
    /// making, a deadline and the size of its messages included.
    fn of_code(code: &[u8]) -> Self {
        match code {
            b"14" => Self::GatewayError,
            b"2" | b"13" | b"15" => Self::ServerError,
            _ => Self::Success,
        }
    }
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_answered_without_a_message_is_judged_by_its_status() {
        let outcome = |status: StatusCode, code: &'static str| {
            let headers = HeaderMap::from_iter([(GRPC_STATUS, http::HeaderValue::from_static(code))]);
            Outcome::of_head(status, &headers)
        };
        for (code, expected) in [
            ("14", Outcome::GatewayError),
            ("13", Outcome::ServerError),
            ("2", Outcome::ServerError),
            ("0", Outcome::Success),
            ("4", Outcome::Success),
            ("8", Outcome::Success),
        ] {
            assert_eq!(outcome(StatusCode::OK, code), expected, "{code}");
        }
        assert_eq!(outcome(StatusCode::NOT_FOUND, "14"), Outcome::Success);
        assert_eq!(outcome(StatusCode::SERVICE_UNAVAILABLE, "0"), Outcome::GatewayError);
    }
}

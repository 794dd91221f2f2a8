//! What became of a request, as far as it tells something about the endpoint.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, Response, StatusCode};

/// What became of a request, as far as it tells something about the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The endpoint answered, with whatever it had to say to the client.
    Success,
    /// The endpoint answered 5xx, other than the three below.
    ServerError,
    /// The endpoint answered 502, 503 or 504: what it needs does not work, or it is overloaded.
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

    /// What status and headers of a response tell.
    #[must_use]
    pub fn of_head(status: StatusCode, headers: &HeaderMap) -> Self {
        match status {
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                Self::GatewayError
            }
            StatusCode::TOO_MANY_REQUESTS => Self::Busy { retry_after: retry_after(headers) },
            status if status.is_server_error() => Self::ServerError,
            _ => Self::Success,
        }
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

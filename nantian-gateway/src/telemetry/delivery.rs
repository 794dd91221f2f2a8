//! One request to a collector, and whether it may be repeated (OTLP specification 1.x, "OTLP/HTTP").

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{
    Method, Request, StatusCode,
    header::{
        ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
    },
};
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use super::CollectorEndpoint;
use crate::{
    body::{Body, BoxError},
    ir,
    upstream::Client,
};

/// How long a collector may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often something is told at most.
const ATTEMPTS: u32 = 5;

/// The bound of the pause before the second attempt; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause that a collector may ask for: records that come meanwhile have to wait too.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The most that is read of an answer, in bytes.
const MOST_SAID: usize = 64 * 1024;

/// With it, Langfuse shows a trace at once.
const LANGFUSE_VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-langfuse-ingestion-version"), HeaderValue::from_static("4"));

/// How a collector is reached.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) place: CollectorEndpoint,
    pub(super) kind: ir::CollectorKind,
    pub(super) authorization: Option<ir::Secret>,
}

/// A collector has taken what it was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Accepted {
    /// The spans that it refuses for good.
    pub(super) rejected: u64,
}

/// Why a collector has not taken something.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeliveryError {
    #[error("the collector did not answer within {PATIENCE:?}")]
    Late,
    #[error("the collector cannot be reached")]
    Unreachable(#[source] BoxError),
    #[error("the collector answered with status {}", status.as_u16())]
    Refused {
        status: StatusCode,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    #[error("the authorization is no header value")]
    Authorization,
}

/// What a collector says that takes not all of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Answer {
    partial_success: Option<PartialSuccess>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PartialSuccess {
    /// A number, or text, as 64-bit numbers are written in the JSON of Protobuf.
    rejected_spans: Value,
}

// === impl Delivery ===

impl Delivery {
    /// Who is told, as logs name it.
    pub(super) fn collector(&self) -> &str {
        &self.place.authority
    }

    /// Tells the body of a signal: `traces` or `metrics`.
    pub(super) async fn post(
        &self,
        client: &Client,
        signal: &str,
        body: Bytes,
    ) -> Result<Accepted, DeliveryError> {
        let mut request = Request::new(Body::full(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.place.path(signal).parse().map_err(unreachable)?;
        let headers = request.headers_mut();
        let host = HeaderValue::from_str(&self.place.authority).map_err(unreachable)?;
        headers.insert(HOST, host);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(secret) = &self.authorization {
            let mut value = HeaderValue::from_bytes(&secret.0).map_err(|_| DeliveryError::Authorization)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        if self.kind == ir::CollectorKind::Langfuse {
            let (name, value) = LANGFUSE_VERSION;
            headers.insert(name, value);
        }
        let exchange = async {
            let sent = client.send(self.place.destination.clone(), request).await;
            let (head, body) = sent.map_err(|unsent| unreachable(unsent.error))?.into_parts();
            // Read to its end, the connection can be used again.
            let said = Limited::new(body, MOST_SAID).collect().await;
            if !head.status.is_success() {
                let retry_after = retry_after(&head.headers, SystemTime::now());
                return Err(DeliveryError::Refused { status: head.status, retry_after });
            }
            Ok(said.map_or_else(|_| Accepted::default(), |said| Accepted::read(&said.to_bytes())))
        };
        timeout(PATIENCE, exchange).await.unwrap_or(Err(DeliveryError::Late))
    }
}

// === impl DeliveryError ===

impl DeliveryError {
    /// How long to wait before another attempt; `None` if there is to be none. `attempts` have been made;
    /// `chance` is evenly drawn from `0.0..1.0`.
    pub(super) fn again_after(&self, attempts: u32, chance: f64) -> Option<Duration> {
        let asked = match self {
            Self::Late | Self::Unreachable(_) => Duration::ZERO,
            Self::Refused { status, retry_after } if matches!(status.as_u16(), 429 | 502 | 503 | 504) => {
                retry_after.unwrap_or_default()
            }
            Self::Refused { .. } | Self::Authorization => return None,
        };
        let bound = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1)));
        let wait = bound.mul_f64(chance.clamp(0.0, 1.0)).max(asked);
        (attempts < ATTEMPTS && wait <= LONGEST_PAUSE).then_some(wait)
    }
}

// === impl Accepted ===

impl Accepted {
    fn read(said: &[u8]) -> Self {
        let answer: Answer = serde_json::from_slice(said).unwrap_or_default();
        let rejected = answer.partial_success.map(|partial| partial.rejected_spans).unwrap_or_default();
        let number = |text: &str| text.parse().ok();
        Self { rejected: rejected.as_u64().or_else(|| rejected.as_str().and_then(number)).unwrap_or(0) }
    }
}

fn unreachable(cause: impl Into<BoxError>) -> DeliveryError {
    DeliveryError::Unreachable(cause.into())
}

/// `Retry-After` in seconds or as a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = || value.parse().ok().map(Duration::from_secs);
    let date = || Some(httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default());
    seconds().or_else(date)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, retry_after: Option<u64>) -> DeliveryError {
        let retry_after = retry_after.map(Duration::from_secs);
        DeliveryError::Refused { status: StatusCode::from_u16(status).unwrap(), retry_after }
    }

    #[test]
    fn what_passes_is_told_again_and_nothing_else() {
        for status in [429, 502, 503, 504] {
            assert!(refused(status, None).again_after(1, 0.5).is_some(), "{status}");
        }
        for status in [400, 401, 404, 413, 500, 501] {
            assert!(refused(status, None).again_after(1, 0.5).is_none(), "{status}");
        }
        assert!(unreachable("refused").again_after(1, 0.5).is_some());
        assert!(DeliveryError::Authorization.again_after(1, 0.5).is_none());
    }

    #[test]
    fn pauses_double_up_to_the_last_attempt_and_are_no_shorter_than_asked() {
        let waits: Vec<_> = (1..=5).map(|attempts| DeliveryError::Late.again_after(attempts, 1.0)).collect();
        let expected = [500, 1_000, 2_000, 4_000].map(|wait| Some(Duration::from_millis(wait)));
        assert_eq!(waits[..4], expected);
        assert_eq!(waits[4], None);
        assert_eq!(refused(503, Some(7)).again_after(1, 1.0), Some(Duration::from_secs(7)));
        assert_eq!(refused(429, Some(61)).again_after(1, 1.0), None);
    }

    #[test]
    fn spans_that_are_refused_for_good_are_counted() {
        for (said, rejected) in [
            ("", 0),
            ("{}", 0),
            (r#"{"partialSuccess":{}}"#, 0),
            (r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}}"#, 3),
            (r#"{"partialSuccess":{"rejectedSpans":2}}"#, 2),
        ] {
            assert_eq!(Accepted::read(said.as_bytes()), Accepted { rejected }, "{said}");
        }
    }
}

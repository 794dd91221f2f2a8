//! What a request costs, before the real usage is known.

use http::header::ACCESS_CONTROL_REQUEST_METHOD;
use http::{Method, request::Parts};

use crate::limit::Unit;

/// What a request takes from the limits of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Cost {
    /// Taken from limits that count requests.
    pub requests: u64,
    /// Taken from limits that count tokens; settled with the real usage later.
    pub tokens: u64,
}

/// Guesses the cost of a request before it is served.
///
/// The guess is reserved; [`ReservationHandle::settle`](crate::ReservationHandle::settle) corrects it.
///
/// One that is more than a bucket holds passes when that is full, which others may never leave it: guess half
/// of the bucket there, and settlement charges the rest.
pub trait CostEstimator: Send + Sync {
    /// The cost of `request`. `typical` is what the policy's recent requests used, in tokens: four of five
    /// used no more; 0 as long as nothing was settled.
    fn estimate(&self, request: &Parts, typical: u64) -> Cost;
}

/// One request, and the tokens that an [`EstimatedTokens`] extension says, else what is typical. The default.
///
/// Without an extension the estimate is at least a quarter of `Content-Length`, and at least 1, so that an
/// exhausted bucket admits nothing. Nothing else is estimated for a CORS preflight, which asks for no answer.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to say about it")]
pub struct TypicalCost;

/// A request extension: the tokens that this request is expected to use, prompt plus completion.
///
/// Whoever parses the body before the limiter puts it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "it is one number")]
pub struct EstimatedTokens(pub u64);

// === impl Cost ===

impl Cost {
    /// One request without tokens.
    pub const REQUEST: Self = Self { requests: 1, tokens: 0 };

    /// So many requests and tokens.
    pub const fn new(requests: u64, tokens: u64) -> Self {
        Self { requests, tokens }
    }

    /// One request that uses `tokens`.
    pub const fn tokens(tokens: u64) -> Self {
        Self { requests: 1, tokens }
    }

    #[inline]
    pub(crate) fn of(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Requests => self.requests,
            Unit::Tokens => self.tokens,
        }
    }
}

// === impl TypicalCost ===

impl TypicalCost {
    /// Bytes of an average body for each token.
    pub const BYTES_PER_TOKEN: u64 = 4;
}

impl CostEstimator for TypicalCost {
    fn estimate(&self, request: &Parts, typical: u64) -> Cost {
        if let Some(EstimatedTokens(tokens)) = request.extensions.get() {
            return Cost::tokens(*tokens);
        }
        let length = request
            .headers
            .get(http::header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
            .unwrap_or(0);
        let typical = if is_preflight(request) { 0 } else { typical };
        Cost::tokens(typical.max(length / Self::BYTES_PER_TOKEN).max(1))
    }
}

impl<F> CostEstimator for F
where
    F: Fn(&Parts, u64) -> Cost + Send + Sync,
{
    fn estimate(&self, request: &Parts, typical: u64) -> Cost {
        self(request, typical)
    }
}

/// Whether a browser asks for permission (a CORS preflight): it cannot send credentials, nor handle a
/// refusal.
pub fn is_preflight(request: &Parts) -> bool {
    request.method == Method::OPTIONS && request.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

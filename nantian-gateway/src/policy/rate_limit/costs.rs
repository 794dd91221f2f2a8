//! What a request is charged before its usage is known.

use http::{Method, request::Parts};
use nantian_ai::Surface;
use nantian_ratelimit::{Cost, CostEstimator, Policy, TypicalCost, Unit};

/// Reserves tokens for the operations of models, and for what may be one; all else that passes the same limits uses none.
pub(super) struct Costs {
    /// A `POST` that is no operation of a model here may be one further in.
    pub(super) others_spend: bool,
}

impl Costs {
    /// The costs for `policy`, if it counts tokens and does not deny everything by a limit of 0.
    pub(super) fn of(policy: &Policy, others_spend: bool) -> Option<Self> {
        let mut limits = policy.limits().iter().filter(|limit| limit.unit() == Unit::Tokens).peekable();
        let counts_tokens = limits.peek().is_some();
        (counts_tokens && limits.all(|limit| limit.max() > 0)).then_some(Self { others_spend })
    }

    fn may_spend(&self, request: &Parts) -> bool {
        match Surface::detect_decoded(&request.method, request.uri.path(), &request.headers) {
            Ok(surface) => surface.operation().spends(),
            Err(_) => self.others_spend && request.method == Method::POST,
        }
    }
}

impl CostEstimator for Costs {
    fn estimate(&self, request: &Parts, typical: u64) -> Cost {
        if self.may_spend(request) { TypicalCost.estimate(request, typical) } else { Cost::REQUEST }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use nantian_ratelimit::Limit;

    use super::*;

    fn tokens(others_spend: bool, method: Method, path: &str) -> u64 {
        let (request, ()) = Request::builder().method(method).uri(path).body(()).unwrap().into_parts();
        let cost = Costs { others_spend }.estimate(&request, 1400);
        assert_eq!(cost.requests, 1);
        cost.tokens
    }

    #[test]
    fn only_operations_of_models_are_charged_tokens() {
        for path in ["/v1/chat/completions", "/any/v1/messages/", "/v1/embeddings?x=1", "/api/generate"] {
            assert_eq!(tokens(false, Method::POST, path), 1400, "{path}");
        }
        for (method, path) in [
            (Method::GET, "/"),
            (Method::GET, "/index.html"),
            (Method::POST, "/form"),
            (Method::GET, "/v1/models"),
            (Method::POST, "/v1/messages/count_tokens"),
            (Method::OPTIONS, "/v1/chat/completions"),
        ] {
            assert_eq!(tokens(false, method.clone(), path), 0, "{method} {path}");
        }
    }

    #[test]
    fn a_limit_of_no_tokens_denies_everything() {
        let costs = |limit: Limit| Costs::of(&Policy::builder().limit(limit).build().unwrap(), false);
        assert!(costs(Limit::tokens_per_minute(1)).is_some());
        assert!(costs(Limit::tokens_per_minute(0)).is_none());
        assert!(costs(Limit::requests_per_minute(1)).is_none());
    }

    #[test]
    fn what_may_be_an_operation_further_in_is_charged_like_one() {
        for path in ["/ask", "/v1/audio/speech", "/v1beta/models/gemini-pro:generateContent"] {
            assert_eq!(tokens(true, Method::POST, path), 1400, "{path}");
            assert_eq!(tokens(true, Method::GET, path), 0, "{path}");
            assert_eq!(tokens(false, Method::POST, path), 0, "{path}");
        }
        assert_eq!(tokens(false, Method::POST, "/v1/chat%2Fcompletions"), 1400);
        assert_eq!(tokens(true, Method::POST, "/v1/messages/count_tokens"), 0);
    }
}

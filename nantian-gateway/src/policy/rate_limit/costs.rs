//! What a request is charged before its usage is known.

use std::sync::Arc;

use http::{Method, request::Parts};
use nantian_ai::Surface;
use nantian_ratelimit::{Cost, CostEstimator, EstimatedTokens, Limit, Policy, TypicalCost, Unit};

use super::expected::{Expected, ExpectedCached};
use crate::upstream::Upgrade;

/// Reserves tokens for the operations of models, and for what may be one; all else that passes the same
/// limits uses none.
pub(super) struct Costs {
    /// A `POST`, or a change of protocol, that is no operation of a model here may be one further in.
    others_spend: bool,
    /// What is expected of an answer.
    expected: Arc<Expected>,
    /// What counts how much.
    policy: Policy,
    /// The smallest bucket of its limits of tokens.
    bucket: u64,
}

impl Costs {
    /// The costs for `policy`, unless it denies everything by a limit of 0.
    pub(super) fn of(policy: &Policy, others_spend: bool, expected: Arc<Expected>) -> Option<Self> {
        let limits = policy.limits().iter().filter(|limit| limit.unit() == Unit::Tokens);
        let bucket = limits.map(Limit::capacity).min()?;
        (bucket > 0).then(|| Self { others_spend, expected, policy: policy.clone(), bucket })
    }

    /// What is reserved for a call that may use so much. One larger than the smallest bucket would wait until
    /// that is full, which others never leave it: half of it has to do.
    fn reserved(&self, tokens: u64) -> u64 {
        if tokens > self.bucket { self.bucket.div_ceil(2) } else { tokens.max(1) }
    }
}

impl CostEstimator for Costs {
    fn estimate(&self, request: &Parts, typical: u64) -> Cost {
        match Surface::detect_decoded(&request.method, request.uri.path(), &request.headers) {
            Ok(surface) if !surface.operation().spends() => Cost::REQUEST,
            Err(_) if !self.others_spend || !may_ask(request) => Cost::REQUEST,
            Ok(_) if request.extensions.get::<EstimatedTokens>().is_some() => {
                let tokens = TypicalCost.estimate(request, typical).tokens;
                let cached = request.extensions.get().map_or(0, |ExpectedCached(cached)| *cached);
                Cost::tokens(self.reserved(tokens.saturating_sub(self.policy.discount(cached))))
            }
            // Its body says nothing: it is packed in a way that nobody knows here, or broken, or of an
            // unknown operation.
            Ok(_) | Err(_) => {
                let prompt = TypicalCost.estimate(request, 0).tokens;
                Cost::tokens(self.reserved(typical.max(prompt.saturating_add(self.expected.answer()))))
            }
        }
    }
}

/// Whether a request that is no known operation may ask a model: conversations are held over WebSockets, too.
fn may_ask(request: &Parts) -> bool {
    request.method == Method::POST || request.extensions.get::<Upgrade>().is_some()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn costs(others_spend: bool) -> Costs {
        let policy = Policy::builder().limit(Limit::tokens_per_minute(10_000)).build().unwrap();
        let expected = Expected::new(Vec::new(), Arc::default(), 10_000);
        Costs::of(&policy, others_spend, Arc::new(expected)).unwrap()
    }

    fn tokens(others_spend: bool, method: Method, path: &str) -> u64 {
        tokens_where(others_spend, method, path, 1400)
    }

    fn tokens_where(others_spend: bool, method: Method, path: &str, typical: u64) -> u64 {
        let (request, ()) = Request::builder().method(method).uri(path).body(()).unwrap().into_parts();
        let cost = costs(others_spend).estimate(&request, typical);
        assert_eq!(cost.requests, 1);
        cost.tokens
    }

    #[test]
    fn an_answer_is_reserved_where_the_body_says_nothing() {
        let estimate = |extension: Option<EstimatedTokens>, typical: u64| {
            let request = Request::post("/v1/messages").header("content-length", "4000");
            let (mut request, ()) = request.body(()).unwrap().into_parts();
            if let Some(extension) = extension {
                request.extensions.insert(extension);
            }
            costs(false).estimate(&request, typical).tokens
        };
        assert_eq!(estimate(None, 0), 2024);
        assert_eq!(estimate(None, 3000), 3000);
        assert_eq!(estimate(Some(EstimatedTokens(7)), 3000), 7);
    }

    #[test]
    fn a_call_larger_than_the_smallest_bucket_reserves_half_of_that() {
        let policy = Policy::builder()
            .limit(Limit::tokens_per_hour(100_000))
            .limit(Limit::tokens_per_minute(10_000).with_burst(1.5));
        let expected = Arc::new(Expected::new(Vec::new(), Arc::default(), 7));
        let costs = Costs::of(&policy.build().unwrap(), false, expected).unwrap();
        let reserved = |tokens: u64| {
            let request = Request::post("/v1/messages").extension(EstimatedTokens(tokens));
            let (request, ()) = request.body(()).unwrap().into_parts();
            costs.estimate(&request, 0).tokens
        };
        assert_eq!([0, 7501, 15_000, 15_001, u64::MAX].map(reserved), [1, 7501, 15_000, 7500, 7500]);
    }

    #[test]
    fn what_nobody_can_meter_asks_for_half_of_a_bucket_at_most() {
        for (path, others_spend) in [("/v1/audio/transcriptions", true), ("/v1/chat/completions", false)] {
            let request = Request::post(path).header("content-length", "4000000").body(()).unwrap();
            let cost = costs(others_spend).estimate(&request.into_parts().0, 0);
            assert_eq!(cost.tokens, 5000, "{path}");
        }
    }

    #[test]
    fn what_is_expected_from_a_cache_is_reserved_by_its_weight() {
        let reserved = |weight: f64, cached: u64| {
            let policy =
                Policy::builder().limit(Limit::tokens_per_minute(10_000)).cached_token_weight(weight);
            let expected = Arc::new(Expected::new(Vec::new(), Arc::default(), 10_000));
            let costs = Costs::of(&policy.build().unwrap(), false, expected).unwrap();
            let request = Request::post("/v1/messages").extension(EstimatedTokens(5000));
            let (request, ()) = request.extension(ExpectedCached(cached)).body(()).unwrap().into_parts();
            costs.estimate(&request, 0).tokens
        };
        assert_eq!((reserved(1.0, 4000), reserved(0.5, 4000), reserved(0.0, 4000)), (5000, 3000, 1000));
        assert_eq!(reserved(0.0, 5000), 1, "a call costs something");
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
        let policy = Policy::builder().limit(Limit::tokens_per_minute(0)).build().unwrap();
        let expected = Arc::new(Expected::new(Vec::new(), Arc::default(), 0));
        assert!(Costs::of(&policy, false, expected).is_none());
    }

    #[test]
    fn what_may_be_an_operation_further_in_is_charged_like_one() {
        for path in ["/ask", "/v1/audio/speech", "/v1beta/models/gemini-pro:generateContent"] {
            assert_eq!(tokens(true, Method::POST, path), 1400, "{path}");
            assert_eq!(tokens(true, Method::GET, path), 0, "{path}");
            assert_eq!(tokens(false, Method::POST, path), 0, "{path}");
        }
        for path in ["/completion", "/generate", "/v1/audio/speech"] {
            let tokens = tokens_where(true, Method::POST, path, 0);
            assert_eq!(tokens, 1025, "{path}: an answer is expected though nothing was learnt");
        }
        assert_eq!(tokens(false, Method::POST, "/v1/chat%2Fcompletions"), 1400);
        assert_eq!(tokens(true, Method::POST, "/v1/messages/count_tokens"), 0);
    }
}

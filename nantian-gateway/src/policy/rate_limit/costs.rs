//! What a request is charged before its usage is known.

use std::sync::Arc;

use http::{Method, request::Parts};
use nantian_ai::Surface;
use nantian_ratelimit::{Cost, CostEstimator, EstimatedTokens, HeldBytes, Limit, Policy, TypicalCost, Unit};

use super::expected::{Expected, ExpectedCached};
use crate::upstream::Upgrade;

/// Reserves tokens for the operations of models, and for what may be one; all else that passes the same
/// limits uses none.
pub(super) struct Costs {
    /// What may be an operation of a model further in, though it is none here.
    others: Others,
    /// What is expected of an answer.
    expected: Arc<Expected>,
    /// What counts how much.
    policy: Policy,
    /// The smallest bucket of its limits of tokens.
    bucket: u64,
}

/// What may use tokens besides the operations that do by their paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Others {
    /// Nothing.
    None,
    /// What is no known operation: a Service may know more of them.
    Unknown,
    /// Whatever [may ask](may_ask): filters or plugins may make an operation of it.
    All,
}

impl Costs {
    /// The costs for `policy`, unless it denies everything by a limit of 0.
    pub(super) fn of(policy: &Policy, others: Others, expected: Arc<Expected>) -> Option<Self> {
        let limits = policy.limits().iter().filter(|limit| limit.unit() == Unit::Tokens);
        let bucket = limits.map(Limit::capacity).min()?;
        (bucket > 0).then(|| Self { others, expected, policy: policy.clone(), bucket })
    }

    /// Whether an operation that spends nothing may be made one that does.
    fn may_be_made(&self, request: &Parts) -> bool {
        self.others == Others::All && may_ask(request)
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
            Ok(surface) if !surface.operation().spends() && !self.may_be_made(request) => Cost::REQUEST,
            Err(_) if self.others == Others::None || !may_ask(request) => Cost::REQUEST,
            Ok(_) if request.extensions.get::<EstimatedTokens>().is_some() => {
                let tokens = TypicalCost.estimate(request, typical).tokens;
                let cached = request.extensions.get().map_or(0, |ExpectedCached(cached)| *cached);
                Cost::tokens(self.reserved(tokens.saturating_sub(self.policy.discount(cached))))
            }
            // Its body says nothing: it is packed in a way that nobody knows here, or broken, or of an
            // unknown operation.
            Ok(_) | Err(_) => {
                let held = request.extensions.get().map_or(0, |HeldBytes(bytes)| *bytes);
                let held = held / TypicalCost::BYTES_PER_TOKEN;
                let prompt = TypicalCost.estimate(request, 0).tokens.max(held);
                Cost::tokens(self.reserved(typical.max(prompt.saturating_add(self.expected.answer()))))
            }
        }
    }
}

/// Whether a request that is no known operation may ask a model, by its method: conversations are held over
/// WebSockets, too, and who takes `post` for `POST` is not known.
fn may_ask(request: &Parts) -> bool {
    let is_without_content = matches!(
        request.method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::DELETE
    );
    !is_without_content || request.extensions.get::<Upgrade>().is_some()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn costs(others: Others) -> Costs {
        let policy = Policy::builder().limit(Limit::tokens_per_minute(10_000)).build().unwrap();
        let expected = Expected::new(Vec::new(), Arc::default(), 10_000);
        Costs::of(&policy, others, Arc::new(expected)).unwrap()
    }

    fn tokens(others: Others, method: Method, path: &str) -> u64 {
        tokens_where(others, method, path, 1400)
    }

    fn tokens_where(others: Others, method: Method, path: &str, typical: u64) -> u64 {
        let (request, ()) = Request::builder().method(method).uri(path).body(()).unwrap().into_parts();
        let cost = costs(others).estimate(&request, typical);
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
            costs(Others::None).estimate(&request, typical).tokens
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
        let costs = Costs::of(&policy.build().unwrap(), Others::None, expected).unwrap();
        let reserved = |tokens: u64| {
            let request = Request::post("/v1/messages").extension(EstimatedTokens(tokens));
            let (request, ()) = request.body(()).unwrap().into_parts();
            costs.estimate(&request, 0).tokens
        };
        assert_eq!([0, 7501, 15_000, 15_001, u64::MAX].map(reserved), [1, 7501, 15_000, 7500, 7500]);
    }

    #[test]
    fn what_nobody_can_meter_asks_for_half_of_a_bucket_at_most() {
        for (path, others) in
            [("/v1/audio/transcriptions", Others::Unknown), ("/v1/chat/completions", Others::None)]
        {
            let request = Request::post(path).header("content-length", "4000000").body(()).unwrap();
            let cost = costs(others).estimate(&request.into_parts().0, 0);
            assert_eq!(cost.tokens, 5000, "{path}");
        }
    }

    #[test]
    fn what_is_expected_from_a_cache_is_reserved_by_its_weight() {
        let reserved = |weight: f64, cached: u64| {
            let policy =
                Policy::builder().limit(Limit::tokens_per_minute(10_000)).cached_token_weight(weight);
            let expected = Arc::new(Expected::new(Vec::new(), Arc::default(), 10_000));
            let costs = Costs::of(&policy.build().unwrap(), Others::None, expected).unwrap();
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
            assert_eq!(tokens(Others::None, Method::POST, path), 1400, "{path}");
        }
        for (method, path) in [
            (Method::GET, "/"),
            (Method::GET, "/index.html"),
            (Method::POST, "/form"),
            (Method::GET, "/v1/models"),
            (Method::POST, "/v1/messages/count_tokens"),
            (Method::OPTIONS, "/v1/chat/completions"),
        ] {
            assert_eq!(tokens(Others::None, method.clone(), path), 0, "{method} {path}");
        }
    }

    #[test]
    fn a_limit_of_no_tokens_denies_everything() {
        let policy = Policy::builder().limit(Limit::tokens_per_minute(0)).build().unwrap();
        let expected = Arc::new(Expected::new(Vec::new(), Arc::default(), 0));
        assert!(Costs::of(&policy, Others::None, expected).is_none());
    }

    #[test]
    fn what_may_be_an_operation_further_in_is_charged_like_one() {
        for path in ["/ask", "/v1/audio/speech", "/v1beta/models/gemini-pro:generateContent"] {
            assert_eq!(tokens(Others::Unknown, Method::POST, path), 1400, "{path}");
            assert_eq!(tokens(Others::Unknown, Method::GET, path), 0, "{path}");
            assert_eq!(tokens(Others::None, Method::POST, path), 0, "{path}");
        }
        for path in ["/completion", "/generate", "/v1/audio/speech"] {
            let tokens = tokens_where(Others::Unknown, Method::POST, path, 0);
            assert_eq!(tokens, 1025, "{path}: an answer is expected though nothing was learnt");
        }
        assert_eq!(tokens(Others::None, Method::POST, "/v1/chat%2Fcompletions"), 1400);
        assert_eq!(tokens(Others::Unknown, Method::POST, "/v1/messages/count_tokens"), 0);
    }

    #[test]
    fn an_operation_that_spends_nothing_is_charged_like_one_that_does_where_it_may_be_rewritten() {
        assert_eq!(tokens(Others::All, Method::POST, "/v1/messages/count_tokens"), 1400);
        assert_eq!(tokens(Others::All, Method::GET, "/v1/models"), 0);
    }

    #[test]
    fn no_spelling_of_a_method_is_free() {
        for name in ["post", "Post", "PUT", "PATCH", "QUERY"] {
            let method = Method::from_bytes(name.as_bytes()).unwrap();
            for path in ["/v1/chat/completions", "/v1/rerank"] {
                assert_eq!(tokens(Others::Unknown, method.clone(), path), 1400, "{name} {path}");
            }
        }
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::DELETE] {
            assert_eq!(tokens(Others::Unknown, method.clone(), "/v1/rerank"), 0, "{method}");
        }
    }

    #[test]
    fn what_was_read_of_a_body_counts_where_no_header_tells_its_length() {
        let request = Request::post("/v1/messages").extension(HeldBytes(8000)).body(()).unwrap();
        let reserved = costs(Others::None).estimate(&request.into_parts().0, 0);
        assert_eq!(reserved.tokens, 2000 + 1024);
    }
}

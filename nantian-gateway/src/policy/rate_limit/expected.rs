//! What a request is expected to use, before it is sent.

use std::sync::Arc;

use http::Extensions;
use nantian_ai::{RequestFacts, Surface, Target, estimate_tokens};
use nantian_ratelimit::EstimatedTokens;

use super::lengths::Lengths;

/// The most that an answer is taken to have: models give no longer ones.
const LONGEST: u64 = 128_000;

/// Those who may serve the requests at a place, by which it is estimated what these use.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    models: Vec<Upstream>,
    /// What the answers of Services were like, which say nothing of themselves.
    others: Arc<Lengths>,
    /// The smallest bucket of the limits there.
    bucket: u64,
    /// All that count tokens there only warn.
    is_rehearsal: bool,
}

/// An AIService, and what its answers were like.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    /// How its provider counts.
    pub(crate) target: Arc<Target>,
    /// How long its prompts and answers are.
    pub(crate) lengths: Arc<Lengths>,
}

/// In the extensions of a request: who learns how long the answer was.
#[derive(Debug, Clone)]
pub(crate) struct Learns(pub(crate) Arc<Lengths>);

/// In the extensions of a request: tokens of its prompt that the provider is expected to read from its cache.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExpectedCached(pub(super) u64);

/// In the extensions of a request: tokens of the answer that is expected though nothing can be told of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExpectedAnswer(pub(crate) u64);

/// In the extensions of a request: what it is expected to use was estimated for limits that only warn, and
/// limits that are in force further in estimate it as if those were not there.
#[derive(Debug, Clone, Copy)]
struct Rehearsed;

/// Tokens that a request is expected to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Tokens {
    all: u64,
    /// The part that comes from the provider's cache.
    cached: u64,
}

/// What an answer may have of which nobody will see the end here: one in the background.
pub(crate) fn unseen(facts: &RequestFacts) -> Option<u64> {
    facts.background.then(|| believed(facts).unwrap_or(LONGEST))
}

/// The most that a request allows its answer, as far as models go.
fn believed(facts: &RequestFacts) -> Option<u64> {
    facts.max_tokens.map(|most| most.min(LONGEST))
}

// === impl Expected ===

impl Expected {
    pub(super) fn new(models: Vec<Upstream>, others: Arc<Lengths>, bucket: u64) -> Self {
        Self { models, others, bucket, is_rehearsal: false }
    }

    /// Whether all that count tokens there only warn.
    pub(super) fn of_rehearsal(self, is_rehearsal: bool) -> Self {
        Self { is_rehearsal, ..self }
    }

    /// Leaves in `extensions` what the operation `surface` is expected to use, by its body or the beginning
    /// of that.
    pub(super) fn note(&self, surface: &Surface, body: &[u8], extensions: &mut Extensions) {
        let is_rehearsed = extensions.remove::<Rehearsed>().is_some();
        // Limits further out have looked.
        if extensions.get::<EstimatedTokens>().is_some() && !is_rehearsed {
            return;
        }
        let facts = RequestFacts::read(surface, body).unwrap_or_else(|_| {
            let mut facts = RequestFacts::default();
            facts.input_estimate = estimate_tokens(body);
            facts
        });
        let tokens = self.tokens(surface, &facts);
        extensions.insert(EstimatedTokens(tokens.all.max(1)));
        extensions.insert(ExpectedCached(tokens.cached));
        if self.is_rehearsal {
            extensions.insert(Rehearsed);
        }
        if self.models.is_empty() {
            extensions.insert(Learns(Arc::clone(&self.others)));
            extensions.insert(facts);
        }
    }

    /// Prompt and answer together: of the model that is named, else of the dearest.
    fn tokens(&self, surface: &Surface, facts: &RequestFacts) -> Tokens {
        let of = |upstream: &Upstream| {
            let input = upstream.target.calibration().apply(facts.input_estimate);
            // No translation carries tools that the provider would run.
            let runs_tools = facts.runs_tools && upstream.target.speaks(surface);
            self.both(&upstream.lengths, input, facts, runs_tools)
        };
        let named = facts.model.as_deref();
        let mut called = self.models.iter().filter(|upstream| named.is_some_and(|name| upstream.is(name)));
        // A name that several have is none.
        let tokens = match called.next().filter(|_| called.next().is_none()) {
            Some(upstream) => Some(of(upstream)),
            None => self.models.iter().map(of).max(),
        };
        tokens.unwrap_or_else(|| self.both(&self.others, facts.input_estimate, facts, facts.runs_tools))
    }

    /// The answer of whoever answers longest, to a request of which nothing can be told.
    pub(super) fn answer(&self) -> u64 {
        let of = |lengths: &Lengths| lengths.outputs.expect(None, self.bucket);
        let longest = self.models.iter().map(|upstream| of(&upstream.lengths)).max();
        longest.unwrap_or_else(|| of(&self.others))
    }

    fn both(&self, lengths: &Lengths, input: u64, facts: &RequestFacts, runs_tools: bool) -> Tokens {
        let input = lengths.input(facts, input, runs_tools, self.bucket);
        let all = input.saturating_add(self.output(lengths, facts));
        Tokens { all, cached: lengths.cached.expect(input) }
    }

    fn output(&self, lengths: &Lengths, facts: &RequestFacts) -> u64 {
        let one = lengths.outputs.expect(believed(facts), self.bucket);
        // Half of a bucket at most, or it would never pass beside others: it is charged the rest when it was
        // sent.
        let unseen = unseen(facts).map_or(0, |most| most.min(self.bucket / 2));
        one.max(unseen).saturating_mul(facts.choices.max(1))
    }
}

// === impl Upstream ===

impl Upstream {
    /// Whether it goes by this name.
    fn is(&self, name: &str) -> bool {
        let object = self.target.name();
        name == self.target.model() || name == object.split_once('/').map_or(object, |(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};
    use nantian_ai::TargetConfig;

    use super::*;

    const BUCKET: u64 = 100_000;

    fn upstream(name: &str, model: &str) -> Upstream {
        let config = TargetConfig::new(name, "openai", model).with_credential(nantian_ai::Credential::none());
        Upstream { target: Arc::new(Target::new(config).unwrap()), lengths: Arc::default() }
    }

    fn estimated(expected: &Expected, path: &str, body: &str) -> (Option<u64>, bool) {
        let surface = Surface::detect(&Method::POST, path, &HeaderMap::new()).unwrap();
        let mut extensions = Extensions::new();
        expected.note(&surface, body.as_bytes(), &mut extensions);
        let tokens = extensions.get::<EstimatedTokens>().map(|tokens| tokens.0);
        (tokens, extensions.get::<Learns>().is_some())
    }

    #[test]
    fn prompt_and_answer_are_expected() {
        let expected = Expected::new(Vec::new(), Arc::default(), BUCKET);
        for (path, body, output) in [
            ("/v1/chat/completions", r#"{"messages":[]}"#, 1024),
            ("/v1/chat/completions", r#"{"messages":[],"n":3}"#, 3 * 1024),
            ("/v1/chat/completions", r#"{"messages":[],"max_tokens":100,"n":2}"#, 200),
            ("/v1/messages", r#"{"messages":[],"max_tokens":32000}"#, 4000),
            ("/v1/embeddings", r#"{"input":"a word"}"#, 0),
        ] {
            let (tokens, learns) = estimated(&expected, path, body);
            assert_eq!(tokens, Some(estimate_tokens(body.as_bytes()) + output), "{body}");
            assert!(learns);
        }
    }

    #[test]
    fn as_much_of_a_prompt_is_expected_from_a_cache_as_of_those_before() {
        let lengths = Arc::new(Lengths::default());
        let expected = Expected::new(Vec::new(), Arc::clone(&lengths), BUCKET);
        let body = format!(r#"{{"input":"{}","max_output_tokens":7}}"#, "word ".repeat(2000));
        let cached = || {
            let surface = Surface::detect(&Method::POST, "/v1/responses", &HeaderMap::new()).unwrap();
            let mut extensions = Extensions::new();
            expected.note(&surface, body.as_bytes(), &mut extensions);
            extensions.get().map_or(0, |ExpectedCached(cached)| *cached)
        };
        assert_eq!(cached(), 0, "nothing is known yet");
        (0..200).for_each(|_| lengths.cached.learn(9000, 10_000));
        let prompt = estimate_tokens(body.as_bytes());
        let share = cached() as f64 / prompt as f64;
        assert!((0.89..=0.9).contains(&share), "{share}");
        (0..200).for_each(|_| lengths.cached.learn(0, 10_000));
        assert!(cached() < prompt / 100, "{}", cached());
    }

    #[test]
    fn every_answer_is_expected_to_be_as_long_as_one() {
        let lengths = Arc::new(Lengths::default());
        (0..2000).for_each(|_| lengths.outputs.learn(1000, None));
        let expected = Expected::new(Vec::new(), lengths, BUCKET);
        for (path, body, answers) in [
            ("/v1/chat/completions", r#"{"n":50}"#.to_owned(), 50),
            ("/v1/chat/completions", r#"{"n":50,"max_tokens":1100}"#.to_owned(), 50),
            ("/v1/completions", format!(r#"{{"prompt":[{}""],"max_tokens":5000}}"#, r#""","#.repeat(39)), 40),
        ] {
            let (tokens, _) = estimated(&expected, path, &body);
            assert_eq!(tokens, Some(estimate_tokens(body.as_bytes()) + answers * 1000), "{body}");
        }
    }

    #[test]
    fn an_answer_in_the_background_may_be_as_long_as_it_likes() {
        let lengths = Arc::new(Lengths::default());
        (0..2000).for_each(|_| lengths.outputs.learn(100, None));
        for (bucket, body, output) in [
            (1_000_000, r#"{"background":true,"max_output_tokens":9000}"#, 9000),
            (1_000_000, r#"{"background":true}"#, LONGEST),
            (1_000_000, r#"{"background":true,"max_output_tokens":1000000000000}"#, LONGEST),
            (100_000, r#"{"background":true}"#, 50_000),
            (1000, r#"{"background":true,"max_output_tokens":90}"#, 90),
        ] {
            let expected = Expected::new(Vec::new(), Arc::clone(&lengths), bucket);
            let (tokens, _) = estimated(&expected, "/v1/responses", body);
            assert_eq!(tokens, Some(estimate_tokens(body.as_bytes()) + output), "{body}");
        }
    }

    #[test]
    fn what_is_only_referred_to_is_expected_as_it_was_lately() {
        const BODY: &str = r#"{"previous_response_id":"resp_1","max_output_tokens":7}"#;
        let lengths = Arc::new(Lengths::default());
        let input = |body: &str, bucket: u64| {
            let expected = Expected::new(Vec::new(), Arc::clone(&lengths), bucket);
            estimated(&expected, "/v1/responses", body).0.unwrap() - 7
        };
        assert_eq!((input(BODY, BUCKET), input(BODY, 1000)), (1024, 250));
        (0..2000).for_each(|_| lengths.inputs.learn(20_000, None));
        assert_eq!(input(BODY, BUCKET), 20_000);
        let whole = format!(r#"{{"input":"{}","max_output_tokens":7}}"#, "word ".repeat(500));
        assert_eq!(input(&whole, BUCKET), estimate_tokens(whole.as_bytes()));
    }

    #[test]
    fn what_tools_find_that_the_provider_runs_is_expected_as_it_was_lately() {
        let lengths = Arc::new(Lengths::default());
        let input = |body: &str| {
            let expected = Expected::new(Vec::new(), Arc::clone(&lengths), BUCKET);
            estimated(&expected, "/v1/responses", body).0.unwrap() - 7 - estimate_tokens(body.as_bytes())
        };
        let [searches, calls] = ["web_search", "function"]
            .map(|kind| format!(r#"{{"input":"Hi","max_output_tokens":7,"tools":[{{"type":"{kind}"}}]}}"#));
        assert_eq!((input(&searches), input(&calls)), (1024, 0));
        (0..2000).for_each(|_| lengths.found.learn(20_000, None));
        assert_eq!((input(&searches), input(&calls)), (20_000, 0));
    }

    #[test]
    fn tools_of_a_provider_that_no_translation_carries_find_nothing() {
        const BODY: &str = r#"{"max_tokens":7,"tools":[{"type":"web_search"}]}"#;
        let expected = Expected::new(vec![upstream("demo/gpt", "gpt")], Arc::default(), BUCKET);
        for (path, found) in [("/v1/chat/completions", 1024), ("/v1/messages", 0)] {
            let (tokens, _) = estimated(&expected, path, BODY);
            assert_eq!(tokens, Some(estimate_tokens(BODY.as_bytes()) + 7 + found), "{path}");
        }
    }

    #[test]
    fn the_beginning_of_a_body_tells_its_picture_apart_from_text() {
        let expected = Expected::new(Vec::new(), Arc::default(), BUCKET);
        let picture = format!(r#"{{"url":"data:image/png;base64,{}"#, "iVBORw0KGgo".repeat(90_000));
        let (tokens, _) = estimated(&expected, "/v1/chat/completions", &picture);
        assert!((2000..2100).contains(&tokens.unwrap()), "{tokens:?}");
    }

    #[test]
    fn each_model_is_estimated_by_what_is_known_of_it() {
        let models = vec![upstream("demo/small", "mini"), upstream("demo/large", "maxi")];
        for _ in 0..2000 {
            models[0].lengths.outputs.learn(500, None);
            models[1].lengths.outputs.learn(9000, None);
        }
        let expected = Expected::new(models, Arc::default(), BUCKET);
        let of = |name: &str| {
            let (tokens, learns) =
                estimated(&expected, "/v1/chat/completions", &format!(r#"{{"model":"{name}"}}"#));
            assert!(!learns, "an AIService learns for itself");
            tokens.unwrap()
        };
        assert!((500..510).contains(&of("small")) && (500..510).contains(&of("mini")));
        assert!((9000..9020).contains(&of("maxi")) && (9000..9020).contains(&of("any other")));
    }
}

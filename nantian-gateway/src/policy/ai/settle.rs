//! What a metered call used, for whoever reserved it, and what is learnt of it.

use std::sync::Arc;

use http::Extensions;
use nantian_ai::{
    RequestFacts,
    usage::{Outcome, UsageReport, UsageSink},
};
use nantian_ratelimit::{ReservationHandle, Settlement};

use crate::policy::rate_limit::{Learns, Lengths, unseen};

/// The observer of Services: whoever reserved is told what was used.
pub(super) fn settle(extensions: &Extensions, facts: &RequestFacts) -> Settle {
    Settle::new(extensions, facts, extensions.get::<Learns>().map(|Learns(lengths)| Arc::clone(lengths)))
}

/// Settles a reservation by a usage report.
#[derive(Debug)]
pub(super) struct Settle {
    reservation: Option<ReservationHandle>,
    /// What is known of whoever is asked.
    lengths: Option<Arc<Lengths>>,
    asked: Answers,
    /// What the answer may have, if nobody will see its end.
    unseen: Option<u64>,
    /// All of the prompt was read, so that estimates of the usage count it.
    is_read: bool,
}

/// The answers that a request asks for.
#[derive(Debug, Clone, Copy)]
struct Answers {
    /// How many, at least 1.
    count: u64,
    /// The most tokens that each may have.
    most: Option<u64>,
    /// The prompt refers to what is stored elsewhere.
    refers: bool,
    /// What the prompt has besides what tools find that the provider runs, if it runs any.
    before_tools: Option<u64>,
}

// === impl Settle ===

impl Settle {
    /// `lengths` learns from the answer.
    pub(super) fn new(extensions: &Extensions, facts: &RequestFacts, lengths: Option<Arc<Lengths>>) -> Self {
        Self {
            reservation: extensions.get::<ReservationHandle>().cloned(),
            lengths,
            asked: Answers::of(facts),
            unseen: unseen(facts),
            is_read: facts.operation.is_some() && !facts.refers && !facts.runs_tools,
        }
    }

    /// Settles what was reserved for an AIService that failed where another one is asked.
    pub(super) fn attempt(self, report: &UsageReport) {
        let settlement = self.learn(report);
        if let Some(reservation) = self.reservation {
            reservation.settle_attempt(settlement.with_cached(report.usage.cached));
        }
    }

    /// Learns from the answer; what the request has used.
    fn learn(&self, report: &UsageReport) -> Settlement {
        if let Some(lengths) = &self.lengths {
            self.asked.teach(lengths, report);
        }
        if let Some(most) = self.unseen.filter(|_| report.usage.estimated) {
            return Settlement::AtLeast(report.usage.input.saturating_add(most));
        }
        let hides = self.lengths.as_ref().is_some_and(|lengths| lengths.outputs.hides());
        settlement(report, self.is_read && !hides)
    }
}

impl UsageSink for Settle {
    fn finish(self, report: UsageReport) {
        let settlement = self.learn(&report);
        if let Some(reservation) = self.reservation {
            reservation.settle(settlement.with_cached(report.usage.cached));
        }
    }
}

/// What a request has used; `is_seen` if all of it is, the prompt and, as far as it has come, the answer.
fn settlement(report: &UsageReport, is_seen: bool) -> Settlement {
    let usage = &report.usage;
    match report.outcome {
        // Also of an answer that nobody can read: the provider has counted it.
        Outcome::Completed | Outcome::Truncated if !usage.estimated => Settlement::Used(usage.total),
        Outcome::NotServed => Settlement::NotServed,
        // The prompt as it was estimated and what was seen of the answer: who leaves a stream early pays what
        // was generated.
        Outcome::Aborted if is_seen && report.call.stream && !report.call.unseen => {
            Settlement::Used(usage.total)
        }
        // An estimate of less may raise the charge and never lowers it: of a whole answer it lacks the
        // reasoning that nobody saw, and prompts would be free where usage is not told.
        _ => Settlement::AtLeast(usage.total),
    }
}

// === impl Answers ===

impl Answers {
    fn of(facts: &RequestFacts) -> Self {
        let before_tools = (facts.runs_tools && !facts.refers).then_some(facts.input_estimate);
        let (count, most) = (facts.choices.max(1), facts.max_tokens);
        Self { count, most, refers: facts.refers, before_tools }
    }

    /// Learns from whole answers how long each was, and, where their provider has counted them, whether all
    /// of it could be seen. Of a stream that tells no usage what was seen has to do, unless answers are known
    /// to have more.
    fn teach(self, lengths: &Lengths, report: &UsageReport) {
        if report.outcome != Outcome::Completed {
            return;
        }
        let Lengths { outputs, inputs, found, cached } = lengths;
        let output = report.usage.output.div_ceil(self.count);
        if report.usage.estimated {
            if report.call.stream && !report.call.unseen && !outputs.hides() {
                // An estimate does not tell whether a limit was obeyed.
                outputs.learn(self.most.map_or(output, |most| output.min(most)), self.most);
            }
            return;
        }
        cached.learn(report.usage.cached, report.usage.input);
        if self.refers {
            inputs.learn(report.usage.input, None);
        }
        if let Some(before_tools) = self.before_tools {
            // That nothing was looked for counts, too; zero would not.
            found.learn(report.usage.input.saturating_sub(before_tools).max(1), None);
        }
        outputs.learn(output, self.most);
        if report.usage.reasoning > 0 {
            outputs.learn_hidden();
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, StatusCode, header::CONTENT_TYPE};
    use nantian_ai::{
        Surface,
        usage::{End, Meter},
    };

    use super::*;

    const COUNTED: &str = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":9000}}"#;
    const WORD: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word\"}}]}\n\n";
    const LAST: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";

    fn report(request: &str, content_type: &str, reply: &str, end: End) -> (RequestFacts, UsageReport) {
        report_of("/v1/chat/completions", request, content_type, reply, end)
    }

    fn report_of(
        path: &str,
        request: &str,
        content_type: &str,
        reply: &str,
        end: End,
    ) -> (RequestFacts, UsageReport) {
        let surface = Surface::detect(&Method::POST, path, &HeaderMap::new()).unwrap();
        let facts = RequestFacts::read(&surface, request.as_bytes()).unwrap();
        let mut meter = Meter::new(&surface, &facts);
        let mut headers = HeaderMap::new();
        headers.insert("content-type", content_type.parse().unwrap());
        meter.begin(StatusCode::OK, &headers);
        meter.push(reply.as_bytes());
        (facts, meter.report(end))
    }

    /// What is reported of a stream of Claude's.
    fn claudes(stream: &str, end: End) -> UsageReport {
        let surface = Surface::detect(&Method::POST, "/v1/messages", &HeaderMap::new()).unwrap();
        let facts = RequestFacts::read(&surface, b"{}").unwrap();
        let mut meter = Meter::new(&surface, &facts);
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, "text/event-stream".parse().unwrap())]);
        meter.begin(StatusCode::OK, &headers);
        meter.push(stream.as_bytes());
        meter.report(end)
    }

    #[test]
    fn an_answer_that_fails_costs_what_its_provider_has_counted() {
        const FAILED: &str = "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":9}}}\n\n\
            data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":900}}\n\n\
            data: {\"type\":\"error\",\"error\":{}}\n\n";
        let report = claudes(FAILED, End::Finished);
        assert_eq!((report.outcome, settlement(&report, true)), (Outcome::Truncated, Settlement::Used(909)));
    }

    #[test]
    fn an_estimate_lowers_the_charge_of_streams_alone_that_are_left_before_their_end() {
        let stream = "text/event-stream";
        let whole = format!("{WORD}{LAST}");
        for (content_type, reply, end, lowers) in [
            (stream, WORD, End::Dropped, true),
            (stream, WORD, End::Failed, false),
            (stream, &*whole, End::Dropped, false),
            (stream, &*whole, End::Finished, false),
            ("application/json", &COUNTED[..20], End::Dropped, false),
            ("text/plain", "words", End::Finished, false),
        ] {
            let (_, report) = report("{}", content_type, reply, end);
            let settled = settlement(&report, true);
            let is_lowering = matches!(settled, Settlement::Used(1..));
            let expected = lowers || matches!(settled, Settlement::AtLeast(1..));
            assert!(is_lowering == lowers && expected, "{content_type} {end:?} {reply}: {settled:?}");
            assert!(matches!(settlement(&report, false), Settlement::AtLeast(_)), "nobody read the prompt");
        }
        let (_, report) = report("{}", "application/json", COUNTED, End::Finished);
        assert_eq!(settlement(&report, false), Settlement::Used(9009));
    }

    #[test]
    fn whoever_leaves_a_stream_pays_what_was_reserved_for_a_prompt_that_is_not_all_in_the_body() {
        const TEXT: &str = "data: {\"type\":\"response.output_text.delta\",\"delta\":\"four score\"}\n\n";
        for (request, is_refunded) in [
            (r#"{"input":"Hi","tools":[{"type":"function"}]}"#, true),
            (r#"{"input":"Hi","previous_response_id":"resp_1"}"#, false),
            (r#"{"input":[{"content":[{"type":"input_image","image_url":"https://x/y.png"}]}]}"#, false),
            (r#"{"input":"Hi","tools":[{"type":"web_search"}]}"#, false),
        ] {
            let (facts, report) =
                report_of("/v1/responses", request, "text/event-stream", TEXT, End::Dropped);
            let settled = Settle::new(&Extensions::new(), &facts, None).learn(&report);
            assert_eq!(matches!(settled, Settlement::Used(_)), is_refunded, "{request}: {settled:?}");
        }
    }

    #[test]
    fn whoever_leaves_a_stream_that_has_shown_nothing_of_what_it_costs_pays_what_was_reserved() {
        const START: &str = "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}}\n\n\
            data: {\"type\":\"ping\"}\n\n";
        const BEGUN: &str = "data: {\"type\":\"content_block_start\",\"content_block\":{\"type\":\"thinking\",\"thinking\":\"\"}}\n\n";
        const SHOWN: &str = "data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"Hm\"}}\n\n";
        const TEXT: &str = "data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"four score\"}}\n\n";
        for (stream, is_seen) in [
            (START.to_owned(), false),
            (format!("{START}{BEGUN}"), false),
            (format!("{START}{TEXT}"), true),
            (format!("{START}{BEGUN}{SHOWN}{TEXT}"), true),
            // Nothing of the reasoning was shown, or of the first piece of two.
            (format!("{START}{BEGUN}{TEXT}"), false),
            (format!("{START}{BEGUN}{BEGUN}{SHOWN}{TEXT}"), false),
        ] {
            let settled = settlement(&claudes(&stream, End::Dropped), true);
            assert_eq!(matches!(settled, Settlement::Used(_)), is_seen, "{stream}: {settled:?}");
        }
    }

    #[test]
    fn an_answer_in_the_background_is_paid_in_advance_unless_its_usage_is_told() {
        const QUEUED: &str = r#"{"id":"resp_1","status":"queued","output":[],"usage":null}"#;
        const CREATED: &str = "data: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"status\":\"queued\"}}\n\n";
        const COUNTED: &str =
            r#"{"status":"completed","usage":{"input_tokens":9,"output_tokens":7,"total_tokens":16}}"#;
        let settled = |request: &str, content_type: &str, reply: &str, end: End| {
            let (facts, report) = report_of("/v1/responses", request, content_type, reply, end);
            Settle::new(&Extensions::new(), &facts, None).learn(&report)
        };
        let (json, stream) = ("application/json", "text/event-stream");
        let limited = r#"{"background":true,"max_output_tokens":9000}"#;
        let prompt = nantian_ai::estimate_tokens(limited.as_bytes());
        for (content_type, reply, end) in [(json, QUEUED, End::Finished), (stream, CREATED, End::Dropped)] {
            assert_eq!(settled(limited, content_type, reply, end), Settlement::AtLeast(prompt + 9000));
        }
        let unlimited = settled(r#"{"background":true}"#, json, QUEUED, End::Finished);
        assert!(matches!(unlimited, Settlement::AtLeast(128_000..)), "{unlimited:?}");
        assert_eq!(settled(limited, json, COUNTED, End::Finished), Settlement::Used(16));
    }

    #[test]
    fn several_answers_teach_how_long_one_is() {
        let lengths = Lengths::default();
        for _ in 0..200 {
            let (facts, report) = report(r#"{"n":3}"#, "application/json", COUNTED, End::Finished);
            Answers::of(&facts).teach(&lengths, &report);
        }
        assert_eq!(lengths.outputs.expect(None, 100_000), 3000);
        assert_eq!(lengths.inputs.expect(None, 100_000), 1024, "nothing was stored elsewhere");
    }

    #[test]
    fn whoever_leaves_a_stream_pays_what_was_reserved_where_reasoning_is_known_to_be_hidden() {
        const REASONED: &str = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":900,
            "completion_tokens_details":{"reasoning_tokens":800}}}"#;
        let lengths = Arc::new(Lengths::default());
        let settled = |content_type: &str, reply: &str, end: End| {
            let (facts, report) = report("{}", content_type, reply, end);
            Settle::new(&Extensions::new(), &facts, Some(Arc::clone(&lengths))).learn(&report)
        };
        let leaves = || settled("text/event-stream", WORD, End::Dropped);
        assert!(matches!(leaves(), Settlement::Used(1..)));
        assert_eq!(settled("application/json", COUNTED, End::Finished), Settlement::Used(9009));
        assert!(matches!(leaves(), Settlement::Used(1..)), "nothing was hidden");
        assert_eq!(settled("application/json", REASONED, End::Finished), Settlement::Used(909));
        assert!(matches!(leaves(), Settlement::AtLeast(1..)));
    }

    #[test]
    fn whole_streams_that_tell_no_usage_teach_how_long_answers_are_unless_some_of_them_is_hidden() {
        let expected = |content_type: &str, reply: &str, end: End, hides: bool| {
            let lengths = Lengths::default();
            if hides {
                lengths.outputs.learn_hidden();
            }
            for _ in 0..2000 {
                let (facts, report) = report("{}", content_type, reply, end);
                Answers::of(&facts).teach(&lengths, &report);
            }
            lengths.outputs.expect(None, 10_000)
        };
        let (stream, whole) = ("text/event-stream", format!("{}{LAST}", WORD.repeat(150)));
        let seen = expected(stream, &whole, End::Finished, false);
        assert!((128..200).contains(&seen), "{seen}: nothing is left of the 1024 of an unknown model");
        assert_eq!(expected(stream, &whole, End::Finished, true), 1024);
        assert_eq!(expected(stream, WORD, End::Dropped, false), 1024, "it may have been longer");
        assert_eq!(expected("text/plain", "words", End::Finished, false), 1024);
    }
}

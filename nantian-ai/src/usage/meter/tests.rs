use http::{HeaderValue, Method};
use proptest::prelude::*;

use super::*;
use crate::wire::EVENT_LIMIT;

const OPENAI: &str = "\
data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n\
data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello, \"},\"finish_reason\":null}]}\n\n\
: keep-alive\n\n\
data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"wörld\"},\"finish_reason\":null}]}\r\n\r\n\
data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":4,\"total_tokens\":30,\"prompt_tokens_details\":{\"cached_tokens\":16}}}\n\n\
data: [DONE]\n\n";

const ANTHROPIC: &str = "\
event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":3,\"cache_read_input_tokens\":10,\"cache_creation_input_tokens\":7,\"output_tokens\":1}}}\n\n\
event: ping\ndata: {\"type\":\"ping\"}\n\n\
event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n\
event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello, world\"}}\n\n\
event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n\
event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":12}}\n\n\
event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

const OLLAMA: &str = "\
{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"Hello, \"},\"done\":false}\n\
{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"world\"},\"done\":false}\n\
{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"prompt_eval_count\":26,\"eval_count\":5}\n";

const SSE: &str = "text/event-stream; charset=utf-8";
const NDJSON: &str = "application/x-ndjson";
const JSON: &str = "application/json";

/// The input estimate of every request here.
const ESTIMATE: u64 = 100;

fn meter(path: &str, content_type: &'static str) -> Meter {
    let surface = Surface::detect(&Method::POST, path, &HeaderMap::new()).unwrap();
    let facts = RequestFacts { input_estimate: ESTIMATE, ..RequestFacts::default() };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    let mut meter = Meter::new(&surface, &facts);
    meter.begin(StatusCode::OK, &headers);
    meter
}

fn read(path: &str, content_type: &'static str, body: &str, end: End) -> UsageReport {
    let mut meter = meter(path, content_type);
    meter.push(body.as_bytes());
    meter.report(end)
}

fn reported(input: u64, output: u64, cached: u64, total: u64) -> Usage {
    Usage { input, output, cached, total, ..Usage::default() }
}

#[test]
fn each_dialect_reports_at_the_end_of_its_stream() {
    for (path, content_type, body, usage) in [
        ("/v1/chat/completions", SSE, OPENAI, reported(20, 4, 16, 30)),
        ("/v1/messages", SSE, ANTHROPIC, reported(20, 12, 10, 32)),
        ("/api/chat", NDJSON, OLLAMA, reported(26, 5, 0, 31)),
    ] {
        let report = read(path, content_type, body, End::Finished);
        assert_eq!(Usage { cache_written: 0, ..report.usage }, usage, "{path}");
        assert_eq!(report.outcome, Outcome::Completed, "{path}");
    }
}

#[test]
fn what_is_written_into_a_cache_and_what_is_reasoning_is_told_apart() {
    for (path, body, written, reasoning) in [
        (
            "/v1/chat/completions",
            r#"{"usage":{"prompt_tokens":9,"completion_tokens":12,"prompt_tokens_details":{"cache_write_tokens":3},"completion_tokens_details":{"reasoning_tokens":7}}}"#,
            3,
            7,
        ),
        (
            "/v1/responses",
            r#"{"usage":{"input_tokens":9,"output_tokens":12,"input_tokens_details":{"cache_write_tokens":3},"output_tokens_details":{"reasoning_tokens":7}}}"#,
            3,
            7,
        ),
        (
            "/v1/messages",
            r#"{"usage":{"input_tokens":4,"cache_creation_input_tokens":6,"output_tokens":9,"output_tokens_details":{"thinking_tokens":5}}}"#,
            6,
            5,
        ),
        ("/api/chat", r#"{"done":true,"prompt_eval_count":3,"eval_count":4}"#, 0, 0),
    ] {
        let usage = read(path, JSON, body, End::Finished).usage;
        assert_eq!((usage.cache_written, usage.reasoning), (written, reasoning), "{path}");
    }
    assert_eq!(read("/v1/messages", SSE, ANTHROPIC, End::Finished).usage.cache_written, 7);
}

#[test]
fn each_dialect_reports_in_a_buffered_reply() {
    for (path, body, usage) in [
        (
            "/v1/chat/completions",
            r#"{"choices":[{"message":{"content":"{\"usage\":{}}"}}],"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}}"#,
            reported(9, 12, 0, 21),
        ),
        (
            "/v1/responses",
            r#"{"usage":{"input_tokens":9,"output_tokens":12,"input_tokens_details":{"cached_tokens":8}}}"#,
            reported(9, 12, 8, 21),
        ),
        (
            "/v1/embeddings",
            r#"{"data":[{"embedding":[0.1,-2e-3]}],"usage":{"prompt_tokens":8,"total_tokens":8}}"#,
            reported(8, 0, 0, 8),
        ),
        (
            "/v1/messages",
            r#"{"content":[],"usage":{"input_tokens":4,"cache_read_input_tokens":6,"output_tokens":2}}"#,
            reported(10, 2, 6, 12),
        ),
        (
            "/api/chat",
            r#"{"message":{"content":"x"},"done":true,"prompt_eval_count":3,"eval_count":4}"#,
            reported(3, 4, 0, 7),
        ),
    ] {
        let report = read(path, JSON, body, End::Finished);
        assert_eq!(report.usage, usage, "{path}");
        assert_eq!(report.outcome, Outcome::Completed, "{path}");
    }
}

#[test]
fn a_stream_without_usage_is_estimated_and_says_so() {
    let body = OPENAI.replace("\"usage\"", "\"ignored\"");
    let report = read("/v1/chat/completions", SSE, &body, End::Finished);
    assert_eq!(report.outcome, Outcome::Completed);
    assert!(report.usage.estimated);
    assert_eq!(report.usage.input, ESTIMATE);
    // "Hello, wörld" are eleven ASCII characters and one of two bytes.
    assert_eq!(report.usage.output, 4);
}

#[test]
fn a_prompt_that_ollama_had_in_its_cache_is_estimated() {
    for missing in ["", "\"prompt_eval_count\":0,"] {
        let body = format!(r#"{{"done":true,{missing}"eval_count":4}}"#);
        let report = read("/api/chat", NDJSON, &body, End::Finished);
        assert_eq!(report.usage.input, ESTIMATE);
        assert_eq!(report.usage.output, 4);
        assert!(report.usage.estimated);
    }
}

#[test]
fn a_stream_that_is_cut_counts_what_came() {
    let half = &ANTHROPIC[..ANTHROPIC.find("event: content_block_stop").unwrap()];
    for (end, outcome) in [
        (End::Dropped, Outcome::Aborted),
        (End::Failed, Outcome::Truncated),
        (End::Finished, Outcome::Truncated),
    ] {
        let report = read("/v1/messages", SSE, half, end);
        assert_eq!(report.outcome, outcome);
        assert_eq!(report.usage.input, 20);
        assert_eq!(report.usage.output, 3);
        assert!(report.usage.estimated);
    }
}

#[test]
fn a_client_that_leaves_after_the_last_event_has_had_its_answer() {
    let whole = OPENAI.trim_end_matches("data: [DONE]\n\n");
    let report = read("/v1/chat/completions", SSE, whole, End::Dropped);
    assert_eq!(report.outcome, Outcome::Completed);
    assert_eq!(report.usage, reported(20, 4, 16, 30));
}

#[test]
fn usage_on_every_chunk_counts_once() {
    let body = "\
data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":1}}\n\n\
data: {\"choices\":[{\"delta\":{\"content\":\"b\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\n\
data: [DONE]\n\n";
    let report = read("/v1/chat/completions", SSE, body, End::Finished);
    assert_eq!(report.usage, reported(5, 2, 0, 7));
}

#[test]
fn an_error_inside_a_stream_truncates_it() {
    let body = "data: {\"error\":{\"message\":\"overloaded\"}}\n\n";
    let report = read("/v1/chat/completions", SSE, body, End::Finished);
    assert_eq!(report.outcome, Outcome::Truncated);
}

#[test]
fn a_count_that_no_model_can_mean_is_not_told() {
    for absurd in ["18446744073709551615", "4294967296", "1e12", "-1"] {
        let body = format!(
            r#"{{"usage":{{"prompt_tokens":{absurd},"completion_tokens":{absurd},"total_tokens":{absurd}}}}}"#
        );
        let usage = read("/v1/chat/completions", JSON, &body, End::Finished).usage;
        assert!(usage.estimated, "{absurd}: {usage:?}");
        assert_eq!(usage.input, ESTIMATE, "{absurd}");
        assert!((1..100).contains(&usage.output) && usage.total == usage.input + usage.output, "{usage:?}");
    }
}

#[test]
fn a_refusal_uses_nothing() {
    let mut meter = meter("/v1/messages", JSON);
    meter.begin(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new());
    meter.push(br#"{"type":"error","usage":{"input_tokens":9}}"#);
    let report = meter.report(End::Finished);
    assert_eq!(report.outcome, Outcome::NotServed);
    assert_eq!(report.usage, Usage::default());
}

#[test]
fn a_refusal_of_what_the_model_has_written_was_not_free() {
    let written = "x".repeat(100_000);
    for (error, outcome) in [
        (format!(r#"{{"code":"json_validate_failed","failed_generation":"{written}"}}"#), Outcome::Refused),
        (r#"{"message":"no such model \"tool_use_failed\"","code":"x"}"#.to_owned(), Outcome::NotServed),
    ] {
        let body = format!(r#"{{"error":{error}}}"#);
        for size in [7, body.len()] {
            let mut meter = meter("/v1/chat/completions", JSON);
            meter.begin(StatusCode::BAD_REQUEST, &HeaderMap::new());
            body.as_bytes().chunks(size).for_each(|chunk| meter.push(chunk));
            assert_eq!(meter.report(End::Finished).outcome, outcome, "{size}");
        }
    }
}

#[test]
fn a_compressed_reply_is_estimated_by_its_size() {
    let mut meter = meter("/v1/messages", SSE);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(SSE));
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    meter.begin(StatusCode::OK, &headers);
    meter.push(&[0x1F; 400]);
    assert!(meter.is_stream() && !meter.reads_events() && meter.has_token());
    let report = meter.report(End::Finished);
    assert_eq!(report.outcome, Outcome::Completed);
    assert_eq!(report.usage.output, 100);
    assert!(report.usage.estimated);
}

#[test]
fn counting_and_listing_use_nothing() {
    let report = read("/v1/messages/count_tokens", JSON, r#"{"input_tokens":9}"#, End::Finished);
    assert_eq!(report.usage, Usage::default());
    assert_eq!(report.outcome, Outcome::Completed);
}

#[test]
fn what_follows_an_answer_breaks_it_in_any_chunks() {
    let body = br#"{"usage":{"input_tokens":9,"output_tokens":3}} }"#;
    for size in [1, 2, body.len()] {
        let mut meter = meter("/v1/messages", JSON);
        body.chunks(size).for_each(|chunk| meter.push(chunk));
        assert_eq!(meter.report(End::Finished).outcome, Outcome::Truncated, "{size}");
    }
}

#[test]
fn memory_is_bounded_whatever_the_stream() {
    let mut meter = meter("/v1/chat/completions", SSE);
    for _ in 0..=EVENT_LIMIT / (64 * 1024) {
        meter.push(&[b'x'; 64 * 1024]);
    }
    meter.push(b"\n\n");
    assert!(meter.has_end());
    meter.push(OPENAI.as_bytes());
    assert_eq!(meter.report(End::Finished).usage, reported(20, 4, 16, 30));
}

#[test]
fn a_picture_in_the_last_event_ends_a_stream_like_any_other() {
    let picture = |size| {
        let picture = "A".repeat(size);
        format!(
            "data: {{\"type\":\"response.completed\",\"response\":{{\"output\":[{{\"type\":\"image_generation_call\",\"result\":\"{picture}\"}}],\"usage\":{{\"input_tokens\":9,\"output_tokens\":3}}}}}}\n\n"
        )
    };
    let report = read("/v1/responses", SSE, &picture(3 << 20), End::Finished);
    assert_eq!((report.outcome, report.usage), (Outcome::Completed, reported(9, 3, 0, 12)));
    // One that is not read may have been the last as well: nobody must be told that the stream broke off.
    let mut meter = meter("/v1/responses", SSE);
    meter.push(picture(EVENT_LIMIT).as_bytes());
    assert!(meter.has_end());
    let report = meter.report(End::Finished);
    assert_eq!((report.outcome, report.usage.estimated), (Outcome::Completed, true));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_chunking_gives_the_same_report(cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        for (path, content_type, body) in [
            ("/v1/chat/completions", SSE, OPENAI),
            ("/v1/messages", SSE, ANTHROPIC),
            ("/api/chat", NDJSON, OLLAMA),
        ] {
            let body = body.as_bytes();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(body.len())).collect();
            cuts.push(body.len());
            cuts.sort_unstable();
            let mut meter = meter(path, content_type);
            let mut from = 0;
            for cut in cuts {
                meter.push(&body[from..cut]);
                from = cut;
            }
            let whole = read(path, content_type, std::str::from_utf8(body).unwrap(), End::Finished);
            prop_assert_eq!(meter.report(End::Finished), whole);
        }
    }
}

//! Whatever a provider does wrong, the client of each dialect gets a well-formed answer of its own dialect.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use nantian_ai::usage::Outcome;
use nantian_ai::{ClientDialect, Dialect, Error, TargetConfig, Timeouts, retry::RetryPolicy};
use serde_json::Value;

use crate::frames::frames;
use crate::support::{Body, Reports, Upstream, events, html, json, layer, post, send};

pub(crate) fn target(dialect: Dialect) -> TargetConfig {
    TargetConfig::new("demo/x", "acme", "m")
        .with_format(dialect)
        .with_endpoint("http://provider")
        .with_timeouts(Timeouts::uniform(Duration::from_secs(5)))
}

pub(crate) fn path(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Anthropic => "/v1/messages",
        Dialect::Ollama => "/api/chat",
        Dialect::Responses => "/v1/responses",
        _ => "/v1/chat/completions",
    }
}

pub(crate) fn content_type(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Bedrock => "application/vnd.amazon.eventstream",
        Dialect::Ollama => "application/x-ndjson",
        _ => "text/event-stream",
    }
}

/// A first token, as a provider of the dialect streams it.
pub(crate) fn token(dialect: Dialect) -> Bytes {
    Bytes::from(match dialect {
        Dialect::Bedrock => {
            let delta = r#"{"contentBlockIndex":0,"delta":{"text":"a"}}"#;
            return frames([("messageStart", r#"{"role":"assistant"}"#), ("contentBlockDelta", delta)])
                .into();
        }
        Dialect::Anthropic => {
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\"}}\n\n\
             event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n\
             event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\n"
        }
        Dialect::Gemini => "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}}]}\n\n",
        Dialect::Ollama => "{\"message\":{\"role\":\"assistant\",\"content\":\"a\"},\"done\":false}\n",
        Dialect::Responses => {
            "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"r\",\"status\":\"in_progress\"}}\n\n\
             event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"output_index\":0,\"content_index\":0,\"delta\":\"a\"}\n\n"
        }
        _ => "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n",
    })
}

fn overloaded(dialect: Dialect) -> Bytes {
    Bytes::from(match dialect {
        Dialect::Bedrock => {
            return frames([("!serviceUnavailableException", r#"{"message":"later"}"#)]).into();
        }
        Dialect::Anthropic => {
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"later\"}}\n\n"
        }
        Dialect::Gemini => {
            "data: {\"error\":{\"code\":503,\"message\":\"later\",\"status\":\"UNAVAILABLE\"}}\n\n"
        }
        Dialect::Ollama => "{\"error\":\"later\"}\n",
        Dialect::Responses => {
            "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"status\":\"failed\",\"error\":{\"code\":\"server_is_overloaded\",\"message\":\"later\"}}}\n\n"
        }
        _ => "data: {\"error\":{\"message\":\"later\",\"type\":\"server_error\",\"code\":503}}\n\n",
    })
}

/// The message of an error, if the body is one of the dialect.
pub(crate) fn message(dialect: Dialect, body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{dialect}: {body}"));
    let message = match dialect {
        Dialect::Anthropic => {
            assert_eq!(body["type"], "error");
            assert!(body["error"]["type"].is_string());
            &body["error"]["message"]
        }
        Dialect::Ollama => &body["error"],
        // The two events that end a stream.
        Dialect::Responses if body["type"] == "error" => {
            assert!(body["sequence_number"].is_u64(), "{body}");
            // By it OpenAI's SDK for Python knows that a stream has failed.
            assert_eq!(body["error"]["message"], body["message"]);
            &body["message"]
        }
        Dialect::Responses if body["type"] == "response.failed" => {
            assert_eq!(body["response"]["status"], "failed");
            &body["response"]["error"]["message"]
        }
        _ => {
            assert!(body["error"]["type"].is_string());
            &body["error"]["message"]
        }
    };
    message.as_str().unwrap_or_else(|| panic!("{dialect}: {body}")).to_owned()
}

/// The last event of a stream.
pub(crate) fn last_event(body: &str) -> &str {
    let last = body.trim_end().rsplit('\n').next().unwrap();
    last.strip_prefix("data: ").unwrap_or(last)
}

struct Seen {
    client: Dialect,
    upstream: Dialect,
    head: http::response::Parts,
    body: String,
    reports: Reports,
}

/// A chat, as clients of a dialect ask for it.
pub(crate) fn request(client: Dialect, stream: bool) -> Request<Full<Bytes>> {
    let conversation = if client == Dialect::Responses { "input" } else { "messages" };
    let body =
        format!(r#"{{"model":"any","stream":{stream},"{conversation}":[{{"role":"user","content":"Hi"}}]}}"#);
    post(path(client), &body)
}

/// Asks a provider of each dialect as a client of each.
async fn each_pair(stream: bool, answer: impl Fn(Dialect) -> Upstream, check: impl Fn(&Seen)) {
    for client in ClientDialect::ALL.map(Dialect::from) {
        for upstream in Dialect::ALL {
            let reports = Reports::default();
            let service = layer(target(upstream)).observer(reports.clone());
            let (head, body) = send(service, &answer(upstream), request(client, stream)).await;
            check(&Seen { client, upstream, head, body, reports });
        }
    }
}

#[tokio::test]
async fn an_error_in_the_first_frame_of_a_200_is_answered_with_a_status() {
    let answer = |dialect| {
        let error = [(Duration::ZERO, Some(overloaded(dialect)))];
        Upstream::new().replies(events(content_type(dialect), error))
    };
    each_pair(true, answer, |seen| {
        let status = match (seen.client, seen.upstream) {
            // Ollama does not say what kind of error it is.
            (_, Dialect::Ollama) => 502,
            (Dialect::Anthropic, _) => 529,
            _ => 503,
        };
        assert_eq!(seen.head.status, status, "{} to {}", seen.client, seen.upstream);
        assert_eq!(message(seen.client, &seen.body), "later");
        assert!(seen.head.extensions.get::<Arc<Error>>().unwrap().may_fail_over());
        assert_eq!(seen.reports.only().outcome, Outcome::NotServed);
    })
    .await;
}

#[tokio::test]
async fn too_many_requests_and_when_to_come_back_are_passed_on() {
    let answer = |_| {
        let mut limited = json(429, r#"{"error":{"message":"slow down","type":"rate_limit_error"}}"#);
        limited.headers_mut().insert("retry-after", "7".parse().unwrap());
        Upstream::new().replies(limited)
    };
    each_pair(false, answer, |seen| {
        assert_eq!(seen.head.status, 429);
        assert_eq!(seen.head.headers["retry-after"], "7");
        assert!(seen.head.extensions.get::<Arc<Error>>().unwrap().may_fail_over());
        if seen.client != seen.upstream {
            assert_eq!(message(seen.client, &seen.body), "slow down");
        }
    })
    .await;
}

#[tokio::test]
async fn overload_is_what_each_client_knows_as_overload() {
    let answer = |_| {
        Upstream::new()
            .replies(json(529, r#"{"type":"error","error":{"type":"overloaded_error","message":"later"}}"#))
    };
    each_pair(false, answer, |seen| {
        let same = seen.client == seen.upstream;
        let status = if same || seen.client == Dialect::Anthropic { 529 } else { 503 };
        assert_eq!(seen.head.status, status);
        if !same {
            assert_eq!(message(seen.client, &seen.body), "later");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stalled_first_token_is_504() {
    let answer = |dialect| {
        let late = [(Duration::from_secs(99), Some(token(dialect)))];
        Upstream::new().replies(events(content_type(dialect), late))
    };
    each_pair(true, answer, |seen| {
        assert_eq!(seen.head.status, 504);
        assert!(message(seen.client, &seen.body).contains("sent no token within 5s"));
        assert_eq!(seen.reports.only().outcome, Outcome::Truncated);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_cut_or_fails_midway_ends_with_an_error() {
    let now = Duration::ZERO;
    type Rest = fn(Dialect) -> Option<Bytes>;
    let cases: [(Rest, Duration, &str); 4] = [
        (|_| None, now, "broke off"),
        (|_| Some(Bytes::new()), now, "broke off"),
        (|dialect| Some(overloaded(dialect)), now, "later"),
        (|_| Some(Bytes::new()), Duration::from_secs(99), "no further chunk within 5s"),
    ];
    for (rest, after, expected) in cases {
        let answer = |dialect| {
            let chunks = [(now, Some(token(dialect))), (after, rest(dialect))];
            Upstream::new().replies(events(content_type(dialect), chunks))
        };
        each_pair(true, answer, |seen| {
            let pair = format!("{} to {}: {}", seen.client, seen.upstream, seen.body);
            assert_eq!(seen.head.status, 200, "{pair}");
            assert_eq!(seen.head.headers["content-type"], content_type(seen.client), "{pair}");
            assert!(message(seen.client, last_event(&seen.body)).contains(expected), "{pair}");
            for end in ["[DONE]", "message_stop", "response.completed"] {
                assert!(!seen.body.contains(end), "{pair}");
            }
            let is_error = |event: &str| event.contains("\"error\"");
            let events = seen.body.lines().filter(|line| line.starts_with("data: ") || line.starts_with('{'));
            let errors = events.filter(|event| is_error(&event.replace("\"error\":null", ""))).count();
            // A stream of Responses says it twice, as OpenAI's do, but for the provider's own words.
            let is_passed = seen.upstream == Dialect::Responses && expected == "later";
            let says_twice = seen.client == Dialect::Responses && !is_passed;
            assert_eq!(errors, 1 + usize::from(says_twice), "{pair}");
            assert_eq!(seen.reports.only().outcome, Outcome::Truncated, "{pair}");
        })
        .await;
    }
}

const PAGE: &str = "<html><body>secret internals</body></html>";

#[tokio::test]
async fn a_page_instead_of_an_error_says_nothing_of_itself() {
    each_pair(
        false,
        |_| Upstream::new().replies(html(502, PAGE)),
        |seen| {
            assert_eq!(seen.head.status, 502);
            assert_eq!(seen.head.headers["content-type"], "application/json");
            assert_eq!(message(seen.client, &seen.body), "the provider answered with status 502");
        },
    )
    .await;
}

#[tokio::test]
async fn what_is_no_answer_of_the_dialect_is_502() {
    let answers: [fn() -> Response<Body>; 3] = [
        || html(200, PAGE),
        || json(200, "{\"odd\":1}"),
        || {
            let mut packed = json(200, "\u{1f}");
            packed.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
            packed
        },
    ];
    for answer in answers {
        each_pair(
            false,
            |_| Upstream::new().replies(answer()),
            |seen| {
                if seen.client != seen.upstream {
                    assert_eq!(seen.head.status, 502, "{}", seen.body);
                    assert!(message(seen.client, &seen.body).contains("answer"), "{}", seen.body);
                    assert!(!seen.head.headers.contains_key("content-encoding"));
                }
            },
        )
        .await;
    }
}

/// An event that is none of the dialect.
fn unreadable(dialect: Dialect) -> Bytes {
    match dialect {
        Dialect::Bedrock => frames([("contentBlockDelta", "{")]).into(),
        Dialect::Ollama => "no json\n".into(),
        _ => "data: no json\n\n".into(),
    }
}

#[tokio::test]
async fn a_stream_whose_first_event_cannot_be_read_is_asked_for_again() {
    for client in ClientDialect::ALL.map(Dialect::from) {
        for provider in Dialect::ALL {
            let now = |event| events(content_type(provider), [(Duration::ZERO, Some(event))]);
            let upstream = Upstream::new().replies(now(unreadable(provider))).replies(now(token(provider)));
            let config = target(provider).with_retry(RetryPolicy::new(1, Duration::ZERO));
            let (head, body) = send(layer(config), &upstream, request(client, true)).await;
            let pair = format!("{client} to {provider}: {body}");
            // Where bytes pass, the client may read what nobody here can.
            let passes = client == provider;
            assert_eq!((head.status.as_u16(), upstream.requests()), (200, 2 - usize::from(passes)), "{pair}");
        }
    }
    let answer = |dialect| {
        let events = events(content_type(dialect), [(Duration::ZERO, Some(unreadable(dialect)))]);
        Upstream::new().replies(events)
    };
    each_pair(true, answer, |seen| {
        if seen.client != seen.upstream {
            assert_eq!(seen.head.status, 502, "{} to {}", seen.client, seen.upstream);
            assert!(message(seen.client, &seen.body).contains("cannot be read"));
            assert!(seen.head.extensions.get::<Arc<Error>>().unwrap().may_fail_over());
            assert_eq!(seen.reports.only().outcome, Outcome::Truncated);
        }
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_cannot_be_said_anew_was_not_free() {
    let odd = |dialect| match dialect {
        Dialect::Anthropic => r#"{"type":"odd","usage":{"input_tokens":900,"output_tokens":70}}"#,
        Dialect::Bedrock => r#"{"output":7,"usage":{"inputTokens":900,"outputTokens":70}}"#,
        Dialect::Gemini => {
            r#"{"candidates":[],"usageMetadata":{"promptTokenCount":900,"candidatesTokenCount":70}}"#
        }
        Dialect::Ollama => r#"{"message":7,"prompt_eval_count":900,"eval_count":70,"done":true}"#,
        Dialect::Responses => r#"{"status":"odd","usage":{"input_tokens":900,"output_tokens":70}}"#,
        _ => r#"{"choices":[],"usage":{"prompt_tokens":900,"completion_tokens":70}}"#,
    };
    each_pair(
        false,
        |dialect| Upstream::new().replies(json(200, odd(dialect))),
        |seen| {
            if seen.client != seen.upstream && seen.head.status != 200 {
                let report = seen.reports.only();
                let pair = format!("{} to {}: {report:?}", seen.client, seen.upstream);
                assert_eq!((seen.head.status.as_u16(), report.outcome), (502, Outcome::Truncated), "{pair}");
                assert_eq!((report.usage.input, report.usage.output), (900, 70), "{pair}");
                assert!(!report.usage.estimated, "{pair}");
            }
        },
    )
    .await;
    let error = |_| Upstream::new().replies(json(200, r#"{"error":{"message":"later"}}"#));
    each_pair(false, error, |seen| {
        if seen.client != seen.upstream && seen.upstream != Dialect::Bedrock {
            let outcome = seen.reports.only().outcome;
            assert_eq!((seen.head.status.as_u16(), outcome), (502, Outcome::NotServed), "{}", seen.upstream);
        }
    })
    .await;
}

#[tokio::test]
async fn a_stream_of_lines_that_breaks_off_holds_no_line_that_is_empty() {
    const LINE: &str = "{\"message\":{\"role\":\"assistant\",\"content\":\"a\"},\"done\":false}\n";
    for (last, whole) in [(LINE, 2), (&LINE[..20], 1)] {
        for end in [vec![], vec![(Duration::ZERO, None)]] {
            let chunks = [LINE, last].map(|chunk| (Duration::ZERO, Some(chunk))).into_iter().chain(end);
            let upstream = Upstream::new().replies(events("application/x-ndjson", chunks));
            let request = post("/api/chat", r#"{"model":"m","messages":[]}"#);
            let (_, body) = send(layer(target(Dialect::Ollama)), &upstream, request).await;
            let lines: Vec<_> = body.lines().collect();
            assert!(lines[..whole].iter().all(|line| *line == LINE.trim_end()), "{body}");
            let error: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
            assert!(error["error"].as_str().unwrap().contains("broke off"), "{body}");
            assert_eq!(lines.len(), 3, "{body}");
        }
    }
}

//! What is kept of streams is bounded, of each and of all together.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt as _;
use nantian_ai::body::RequestBody;
use nantian_ai::codec::StreamDecoder;
use nantian_ai::ir::Event;
use nantian_ai::retry::RetryPolicy;
use nantian_ai::translate::Translation;
use nantian_ai::usage::{Outcome, UsageLayer};
use nantian_ai::{BodyMemory, Dialect, Surface, Target, TargetConfig};
use serde_json::json;
use tower::{Layer as _, ServiceExt as _};

use crate::frames::frames;
use crate::support::{Reports, Upstream, events, layer, openai, post, send};

/// What each chunk of a stream without an end says.
const CHUNK: usize = 64 << 10;

const RESPONSES: (&str, &str) = ("/v1/responses", r#"{"model":"m","input":"Hi","stream":true}"#);
const OLLAMA: (&str, &str) = ("/api/chat", r#"{"model":"m","messages":[{"role":"user","content":"Hi"}]}"#);
const CHAT: (&str, &str) = (
    "/v1/chat/completions",
    r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"Hi"}]}"#,
);
const MESSAGES: (&str, &str) = (
    "/v1/messages",
    r#"{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"Hi"}]}"#,
);

/// A chunk of a chat that says this.
fn said(mut choice: serde_json::Value) -> String {
    choice["index"] = 0.into();
    format!("data: {}\n\n", json!({"choices": [choice]}))
}

#[test]
fn a_stream_without_an_end_fails_in_the_dialect_of_a_client_that_is_told_things_again() {
    let much = "x".repeat(CHUNK);
    let arguments = json!({"index": 0, "id": "c", "function": {"name": "f", "arguments": much}});
    let token = json!({"token": much, "logprob": 0, "bytes": null, "top_logprobs": []});
    let text = said(json!({"delta": {"content": much}}));
    let by_turns = said(json!({"delta": {"reasoning_content": "a", "content": much}}));
    let calls = said(json!({"delta": {"tool_calls": [arguments]}}));
    let silent = said(json!({"delta": {"content": ""}, "logprobs": {"content": [token]}}));
    let begun = "data: {\"type\":\"message_start\",\"message\":{}}\n\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"thinking\",\"thinking\":\"\"}}\n\n";
    let thought = json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": much}});
    let thought = format!("data: {thought}\n\n");
    let responses = "\nevent: response.failed\ndata: {\"type\":\"response.failed\"";
    for (provider, (path, body), begun, chunk, end) in [
        ("groq", RESPONSES, "", &text, responses),
        ("groq", RESPONSES, "", &by_turns, responses),
        ("groq", RESPONSES, "", &calls, responses),
        ("groq", RESPONSES, "", &silent, responses),
        ("groq", OLLAMA, "", &calls, "{\"error\":\"the provider's answer is too large to be translated\"}\n"),
        (
            "anthropic",
            CHAT,
            begun,
            &thought,
            "\ndata: {\"error\":{\"message\":\"the provider's answer is too large",
        ),
    ] {
        let target = Target::new(TargetConfig::new("demo/m", provider, "m")).unwrap();
        let surface = Surface::detect(&Method::POST, path, &HeaderMap::new()).unwrap();
        let (translation, _) = Translation::begin(&target, &surface, body.as_bytes(), false).unwrap();
        let mut translator = translation.translator();
        let mut out = vec![translator.push(begun.as_bytes())];
        let most = (16 << 20) / CHUNK;
        while !translator.is_ended() && out.len() < most {
            out.push(translator.push(chunk.as_bytes()));
        }
        assert!(translator.has_failed() && out.len() > 64, "{path}: {}", out.len());
        let last = String::from_utf8(out.concat()).unwrap();
        assert_eq!(last.matches(end).count(), 1, "{path}");
        // It has one end, whatever comes.
        assert_eq!((translator.push(chunk.as_bytes()), translator.finish()), (Bytes::new(), Bytes::new()));
    }
}

/// How many chunks a reader takes, of the same kind and each of its own number, until too much waits.
fn taken(dialect: Dialect, begun: &[u8], chunk: impl Fn(usize) -> Vec<u8>) -> usize {
    let mut decoder = StreamDecoder::new(dialect, 7);
    let mut events = VecDeque::new();
    decoder.push(begun, &mut events);
    let count = (1..=(16 << 20) / CHUNK).find(|at| {
        decoder.push(&chunk(*at), &mut events);
        decoder.is_ended()
    });
    let Some(Event::Failed(fault)) = events.back() else { panic!("{dialect}: {:?}", events.back()) };
    assert_eq!(fault.to_string(), "the provider's answer is too large to be translated", "{dialect}");
    count.unwrap()
}

#[test]
fn what_waits_for_its_turn_is_bounded_in_any_dialect() {
    let much = "x".repeat(CHUNK);
    let call = |index: usize, arguments: &str| {
        let function = json!({"name": "f", "arguments": arguments});
        said(
            json!({"delta": {"tool_calls": [{"index": index, "id": format!("c{index}"), "function": function}]}}),
        )
    };
    let item = |kind: &str, index: usize| {
        let item = json!({"type": kind, "delta": much, "output_index": index, "item": {"type": "message"}});
        format!("data: {item}\n\n")
    };
    let added = "response.output_item.added";
    let encrypted = json!({"contentBlockIndex": 0, "delta": {"reasoningContent": {"redactedContent": "A".repeat(CHUNK / 3 * 4)}}});
    let encrypted = frames([("contentBlockDelta", &*encrypted.to_string())]);
    for count in [
        taken(Dialect::OpenAi, call(0, "{").as_bytes(), |_| call(1, &much).into()),
        taken(Dialect::Responses, [item(added, 0), item(added, 1)].concat().as_bytes(), |_| {
            item("response.output_text.delta", 1).into()
        }),
        taken(Dialect::Bedrock, &[], |_| encrypted.clone()),
        taken(Dialect::OpenAi, &[], |at| {
            let call = json!({"index": at, "id": format!("c{at}"), "function": {"name": much}});
            said(json!({"delta": {"tool_calls": [call]}})).into()
        }),
        taken(Dialect::Responses, &[], |at| {
            let call = json!({"type": "function_call", "call_id": format!("c{at}"), "name": much});
            format!("data: {}\n\n", json!({"type": added, "output_index": at, "item": call})).into()
        }),
        taken(Dialect::OpenAi, &[], |at| {
            let detail = json!({"type": "reasoning.encrypted", "data": much, "index": at});
            said(json!({"delta": {"reasoning_details": [detail]}})).into()
        }),
    ] {
        assert!((120..=129).contains(&count), "{count}");
    }
}

#[test]
fn an_id_and_a_model_that_are_too_long_are_not_said_with_each_event() {
    let target = Target::new(TargetConfig::new("demo/m", "anthropic", "m")).unwrap();
    let surface = Surface::detect(&Method::POST, CHAT.0, &HeaderMap::new()).unwrap();
    let (translation, _) = Translation::begin(&target, &surface, CHAT.1.as_bytes(), false).unwrap();
    let long = "x".repeat(2_048);
    let begun = json!({"type": "message_start", "message": {"id": long, "model": long}});
    let said = translation.translator().push(format!("data: {begun}\n\n").as_bytes());
    assert!(!said.is_empty() && said.len() < 1_024, "{said:?}");
}

#[test]
fn of_signed_reasoning_that_comes_in_pieces_little_more_than_its_text_is_kept() {
    let detail = json!({"type": "reasoning.text", "text": "a", "format": "anthropic-claude-v1", "index": 0, "id": "x".repeat(CHUNK)});
    let chunk = said(json!({"delta": {"reasoning_details": [detail]}}));
    let mut decoder = StreamDecoder::new(Dialect::OpenAi, 7);
    let mut events = VecDeque::new();
    (0..300).for_each(|_| decoder.push(chunk.as_bytes(), &mut events));
    assert!(!decoder.is_ended());
}

#[test]
fn what_is_said_only_once_may_be_as_long_as_it_likes() {
    let text = said(json!({"delta": {"content": "x".repeat(CHUNK)}}));
    for (path, body) in [MESSAGES, OLLAMA] {
        let target = Target::new(TargetConfig::new("demo/m", "groq", "m")).unwrap();
        let surface = Surface::detect(&Method::POST, path, &HeaderMap::new()).unwrap();
        let (translation, _) = Translation::begin(&target, &surface, body.as_bytes(), false).unwrap();
        let mut translator = translation.translator();
        (0..300).for_each(|_| assert!(translator.push(text.as_bytes()).len() > CHUNK));
        assert!(!translator.is_ended());
    }
}

/// A stream with an event of two mebibytes, in four pieces.
fn with_a_large_event() -> Vec<String> {
    let half = "x".repeat(1 << 20);
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}"#;
    vec![
        said(json!({"delta": {"content": "a"}})),
        format!("data: {{\"choices\":[],\"obfuscation\":\"{half}"),
        half,
        format!(
            "\"}}\n\n{}data: {usage}\n\ndata: [DONE]\n\n",
            said(json!({"delta": {}, "finish_reason": "stop"}))
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn an_event_that_has_not_ended_counts_until_it_has() {
    let memory = BodyMemory::new(64 << 20);
    let chunks = with_a_large_event().into_iter().map(|chunk| (Duration::from_millis(1), Some(chunk)));
    let upstream = Upstream::new().replies(events("text/event-stream", chunks));
    let service = layer(openai()).memory(memory.clone()).layer(upstream);
    let mut answer = service.oneshot(post(CHAT.0, CHAT.1)).await.unwrap();
    let mut held = Vec::new();
    while let Some(frame) = answer.frame().await {
        if !frame.unwrap().into_data().unwrap().is_empty() {
            held.push(memory.held() >> 20);
        }
    }
    assert_eq!(held, [0, 1, 2, 0]);
}

#[tokio::test(start_paused = true)]
async fn an_event_of_a_service_that_is_only_metered_counts_as_well() {
    let memory = BodyMemory::new(64 << 20);
    let chunks = with_a_large_event().into_iter().map(|chunk| (Duration::from_millis(1), Some(chunk)));
    let upstream = Upstream::new().replies(events("text/event-stream", chunks));
    let service = UsageLayer::new(()).memory(memory.clone()).layer(upstream);
    let request = Request::post(CHAT.0).body(RequestBody::default()).unwrap();
    let mut answer = service.oneshot(request).await.unwrap();
    let mut held = Vec::new();
    while let Some(frame) = answer.frame().await {
        if frame.unwrap().is_data() {
            held.push(memory.held() >> 20);
        }
    }
    assert_eq!(held, [0, 1, 2, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_its_turn_counts_until_it_has_come() {
    let half = "x".repeat(1 << 20);
    let call = |index: u64, arguments: &str| {
        let call = json!({"index": index, "id": format!("call_{index}"), "function": {"name": "f", "arguments": arguments}});
        format!("{}: ping\n\n", said(json!({"delta": {"tool_calls": [call]}})))
    };
    let chunks = [
        said(json!({"delta": {"content": "a"}})),
        call(0, "{"),
        call(1, &half),
        call(1, &half),
        said(json!({"delta": {}, "finish_reason": "tool_calls"})),
        "data: [DONE]\n\n".to_owned(),
    ];
    let memory = BodyMemory::new(64 << 20);
    let chunks = chunks.into_iter().map(|chunk| (Duration::from_millis(1), Some(chunk)));
    let upstream = Upstream::new().replies(events("text/event-stream", chunks));
    let service = layer(openai()).memory(memory.clone()).layer(upstream);
    let mut answer = service.oneshot(post(MESSAGES.0, MESSAGES.1)).await.unwrap();
    let mut held = Vec::new();
    while let Some(frame) = answer.frame().await {
        if frame.unwrap().is_data() {
            held.push(memory.held() >> 20);
        }
    }
    assert_eq!(held[..5], [0, 0, 1, 2, 0]);
}

#[tokio::test(start_paused = true)]
async fn the_ids_of_a_long_conversation_count_as_long_as_its_stream_and_take_little() {
    let ids: Vec<_> = (0..8_000).map(|at| format!("call_{at:050}")).collect();
    let call = |id: &String| json!({"type": "tool_use", "id": id, "name": "f", "input": {}});
    let result = |id: &String| json!({"type": "tool_result", "tool_use_id": id, "content": "a"});
    let (calls, results): (Vec<_>, Vec<_>) = ids.iter().map(|id| (call(id), result(id))).unzip();
    let mut body: serde_json::Value = serde_json::from_str(MESSAGES.1).unwrap();
    body["messages"] = json!([
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": calls},
        {"role": "user", "content": results},
    ]);
    let chunks = [said(json!({"delta": {"content": "a"}})), "data: [DONE]\n\n".to_owned()];
    let chunks = chunks.map(|chunk| (Duration::from_millis(10), Some(chunk)));
    let upstream = Upstream::new().replies(events("text/event-stream", chunks));
    let memory = BodyMemory::new(64 << 20);
    let service = layer(openai()).memory(memory.clone()).layer(upstream);
    let mut answer = service.oneshot(post(MESSAGES.0, &body.to_string())).await.unwrap();
    answer.frame().await.unwrap().unwrap();
    assert!((64_000..256_000).contains(&memory.held()), "{}", memory.held());
    drop(answer);
    assert_eq!(memory.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_part_begins_with_and_is_signed_with_counts() {
    let long = "x".repeat(1 << 20);
    let begun = |block: serde_json::Value| {
        let event = json!({"type": "content_block_start", "index": 0, "content_block": block});
        format!("data: {event}\n\n")
    };
    let delta = |delta: serde_json::Value| {
        format!("data: {}\n\n", json!({"type": "content_block_delta", "index": 0, "delta": delta}))
    };
    let text = [
        "data: {\"type\":\"message_start\",\"message\":{}}\n\n".to_owned(),
        begun(json!({"type": "text", "text": ""})),
        delta(json!({"type": "text_delta", "text": "a"})),
    ];
    let signed = [
        begun(json!({"type": "thinking", "thinking": ""})),
        delta(json!({"type": "thinking_delta", "thinking": "a"})),
        delta(json!({"type": "signature_delta", "signature": long})),
    ];
    for second in [
        begun(json!({"type": "tool_use", "id": "a", "name": long, "input": {}})),
        begun(json!({"type": "redacted_thinking", "data": long})),
        signed.concat(),
    ] {
        for (path, body) in [CHAT, RESPONSES] {
            let chunks =
                [text.concat(), second.clone()].map(|chunk| (Duration::from_millis(10), Some(chunk)));
            let upstream = Upstream::new().replies(events("text/event-stream", chunks));
            let memory = BodyMemory::new(64 << 20);
            let service = layer(TargetConfig::new("demo/m", "anthropic", "m")).memory(memory.clone());
            let mut answer = service.layer(upstream).oneshot(post(path, body)).await.unwrap();
            let mut held = Vec::new();
            for _ in 0..2 {
                answer.frame().await.unwrap().unwrap();
                held.push(memory.held() >> 20);
            }
            assert_eq!(held, [0, 1], "{path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_stream_needs_of_its_request_counts_beside_what_is_kept_of_the_answer() {
    let with = |body: &str, name: &str, value: serde_json::Value| {
        let mut body: serde_json::Value = serde_json::from_str(body).unwrap();
        body[name] = value;
        body.to_string()
    };
    // More than may be kept of an answer.
    let named = json!([{"name": "x".repeat(9 << 20), "input_schema": {"type": "object"}}]);
    let noted = json!({"note": "x".repeat(1 << 20)});
    let groq = TargetConfig::new("demo/m", "groq", "m");
    for (config, path, body, mebibytes, end) in [
        (openai(), MESSAGES.0, with(MESSAGES.1, "tools", named), 9, "message_stop"),
        (groq, RESPONSES.0, with(RESPONSES.1, "metadata", noted), 1, "response.completed"),
    ] {
        let chunks = [
            said(json!({"delta": {"content": "a"}})),
            said(json!({"delta": {}, "finish_reason": "stop"})),
            "data: [DONE]\n\n".to_owned(),
        ];
        let chunks = chunks.map(|chunk| (Duration::from_millis(10), Some(chunk)));
        let upstream = Upstream::new().replies(events("text/event-stream", chunks));
        let memory = BodyMemory::new(64 << 20);
        let service = layer(config).memory(memory.clone()).layer(upstream);
        let mut answer = service.oneshot(post(path, &body)).await.unwrap();
        answer.frame().await.unwrap().unwrap();
        assert_eq!(memory.held() >> 20, mebibytes, "{path}");
        let rest = answer.collect().await.unwrap().to_bytes();
        let rest = std::str::from_utf8(&rest).unwrap();
        assert!(rest.contains(end), "{path}");
        assert_eq!(memory.held(), 0, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_before_the_first_token_counts() {
    let comment = format!(": {}\n\n", "x".repeat(CHUNK));
    let text = said(json!({"delta": {"content": "a"}}));
    let stream = || {
        let chunks = [comment.clone(), comment.clone(), text.clone(), "data: [DONE]\n\n".to_owned()];
        events("text/event-stream", chunks.map(|chunk| (Duration::from_millis(10), Some(chunk))))
    };
    let memory = BodyMemory::new(4 << 20);
    let service = || layer(openai()).memory(memory.clone());

    let answer = service().layer(Upstream::new().replies(stream())).oneshot(post(CHAT.0, CHAT.1));
    let mut answer = Box::pin(answer);
    assert!(tokio::time::timeout(Duration::from_millis(25), &mut answer).await.is_err());
    assert_eq!(memory.held() >> 16, 2);
    answer.await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(memory.held(), 0);

    let (long, short) = (memory.begin(), memory.begin());
    long.hold(3 << 20).unwrap();
    short.hold((1 << 20) - CHUNK as u64).unwrap();
    let (head, body) = send(service(), &Upstream::new().replies(stream()), post(CHAT.0, CHAT.1)).await;
    assert_eq!(head.status, 503, "{body}");
}

#[tokio::test(start_paused = true)]
async fn an_event_for_which_there_is_no_room_is_not_metered_and_a_translated_stream_ends() {
    let stream = || {
        let chunks = with_a_large_event().into_iter().map(|chunk| (Duration::from_millis(1), Some(chunk)));
        events("text/event-stream", chunks)
    };
    let (memory, reports) = (BodyMemory::new(4 << 20), Reports::default());
    let others = memory.begin();
    others.hold(2 << 20).unwrap();
    let service = || layer(openai()).memory(memory.clone()).observer(reports.clone());

    let (_, body) = send(service(), &Upstream::new().replies(stream()), post(CHAT.0, CHAT.1)).await;
    assert_eq!(body, with_a_large_event().concat());
    let report = reports.only();
    assert_eq!((report.outcome, report.usage.total), (Outcome::Completed, 7));

    let (_, body) = send(service(), &Upstream::new().replies(stream()), post(MESSAGES.0, MESSAGES.1)).await;
    assert!(body.ends_with("\n\n") && body.contains("event: error\n"), "{body}");
    assert!(body.contains("there is no memory for the body"), "{body}");
    assert_eq!(reports.all().last().unwrap().outcome, Outcome::Truncated);
    assert_eq!(memory.held(), 2 << 20);
    assert!(memory.refused() >= 2);
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_room_of_which_nothing_has_been_told_is_a_503_and_not_asked_for_again() {
    let begun = format!("data: {{\"choices\":[],\"obfuscation\":\"{}", "x".repeat(2 << 20));
    let upstream =
        Upstream::new().replies(events("text/event-stream", [(Duration::from_millis(1), Some(begun))]));
    let (memory, reports) = (BodyMemory::new(4 << 20), Reports::default());
    let others = memory.begin();
    others.hold(2 << 20).unwrap();
    let config = openai().with_retry(RetryPolicy::new(1, Duration::ZERO));
    let service = layer(config).memory(memory.clone()).observer(reports.clone());
    let (head, body) = send(service, &upstream, post(MESSAGES.0, MESSAGES.1)).await;
    assert_eq!((head.status.as_u16(), upstream.requests()), (503, 1), "{body}");
    assert_eq!(head.headers["retry-after"], "1");
    assert_eq!(reports.only().outcome, Outcome::Truncated, "it was not free");
}

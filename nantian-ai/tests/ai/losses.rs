//! What is lost on the way into another dialect.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use http_body_util::BodyExt as _;
use nantian_ai::codec::{Defaults, Echo, StreamDecoder, StreamEncoder};
use nantian_ai::ir::{Losses, ToolNames, pieces};
use nantian_ai::{ClientDialect, Dialect, TargetConfig};
use tower::{Layer as _, ServiceExt as _};

use crate::support::{Reports, Upstream, chat, claude, events, json, layer, openai, post, send, stream_chat};

const CITED: [&str; 3] = [
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\"}}\n\n\
     data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"server_tool_use\",\"id\":\"s\",\"name\":\"web_search\",\"input\":{}}}\n\n\
     data: {\"type\":\"content_block_stop\",\"index\":0}\n\n\
     data: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n\
     data: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hi\"}}\n\n",
    "data: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"citations_delta\",\"citation\":{\"url\":\"u\"}}}\n\n\
     data: {\"type\":\"content_block_stop\",\"index\":1}\n\n",
    "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":3}}\n\n\
     data: {\"type\":\"message_stop\"}\n\n",
];

const TOKENS: [&str; 2] = [
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"Hi\"},\"logprobs\":{\"content\":[{\"token\":\"Hi\",\"logprob\":-0.5}]}}]}\n\n",
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"content_filter\"}]}\n\ndata: [DONE]\n\n",
];

const SIGNED_ALONE: [&str; 2] = [
    "data: {\"id\":\"c\",\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"extra_content\":{\"google\":{\"thought_signature\":\"s\"}}}]}}]}\n\n",
    "data: {\"id\":\"c\",\"choices\":[{\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
];

fn script(chunks: &'static [&'static str]) -> http::Response<crate::support::Body> {
    let chunks = chunks.iter().map(|chunk| (Duration::ZERO, Some(*chunk)));
    events("text/event-stream", chunks)
}

#[tokio::test]
async fn what_a_stream_loses_is_named_in_its_trailer_and_told_to_the_observer() {
    const ASKED: &str = r#"{"messages":[{"role":"user","content":"Hi"}]}"#;
    for (config, request, chunks, lost) in [
        (claude(), stream_chat(), &CITED[..], Some("content.server_tool_use,citations")),
        (
            openai(),
            post("/v1/messages", r#"{"max_tokens":9,"stream":true,"messages":[]}"#),
            &TOKENS[..],
            Some("logprobs"),
        ),
        (openai(), post("/api/chat", ASKED), &TOKENS[..], Some("logprobs,stop")),
        (openai(), post("/api/chat", ASKED), &SIGNED_ALONE[..], Some("tool_calls.extra_content")),
        (openai(), post("/api/chat", ASKED), &["data: {}\n\n", "data: [DONE]\n\n"], None),
    ] {
        let reports = Reports::default();
        let upstream = Upstream::new().replies(script(chunks));
        let service = layer(config).observer(reports.clone()).layer(upstream);
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.headers()["trailer"], "x-nantian-dropped, x-nantian-usage");
        assert!(!response.headers().contains_key("x-nantian-dropped"), "of the request nothing is lost");
        let body = response.into_body().collect().await.unwrap();
        let named = body.trailers().and_then(|trailers| trailers.get("x-nantian-dropped"));
        let named = named.map(|named| named.to_str().unwrap());
        assert_eq!(named, lost);
        let told = reports.only().call.dropped;
        assert_eq!((!told.is_empty()).then(|| told.to_string()).as_deref(), lost);
    }
}

#[tokio::test]
async fn a_stream_that_is_collected_names_what_it_loses_in_the_head() {
    let upstream = Upstream::new().replies(script(&CITED));
    let (head, _) = send(layer(claude()), &upstream, chat()).await;
    assert_eq!(head.headers["x-nantian-dropped"], "content.server_tool_use,citations");
    assert!(!head.headers.contains_key("trailer"));
}

#[tokio::test]
async fn reasoning_of_another_family_does_not_reach_the_provider_and_is_named() {
    const CONVERSATION: &str = r#"{"model":"any","max_tokens":9,"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"ntn1.none"},{"type":"text","text":"b"}]},{"role":"user","content":"c"}]}"#;
    let upstream = Upstream::new().replies(json(200, r#"{"content":[]}"#));
    let reports = Reports::default();
    let (head, _) =
        send(layer(claude()).observer(reports.clone()), &upstream, post("/v1/messages", CONVERSATION)).await;
    assert_eq!(head.headers["x-nantian-dropped"], "messages.reasoning");
    assert_eq!(reports.only().call.dropped.to_string(), "messages.reasoning");
    let (_, seen) = upstream.request();
    let expected = CONVERSATION
        .replace(r#""any""#, r#""claude-sonnet-4-5""#)
        .replace(r#"{"type":"thinking","thinking":"hm","signature":"ntn1.none"},"#, "");
    assert_eq!(seen, expected);

    let mut strict = post("/v1/messages", CONVERSATION);
    strict.headers_mut().insert("x-nantian-strict", http::HeaderValue::from_static("true"));
    let (head, _) = send(layer(claude()), &Upstream::new(), strict).await;
    assert_eq!(head.status, 400);
}

#[tokio::test]
async fn reasoning_comes_back_in_a_chat_but_to_providers_that_refuse_it() {
    const CHAT: &str =
        r#"{"model":"any","messages":[{"role":"assistant","reasoning_content":"hm","content":"a"}]}"#;
    let own_host = openai().with_endpoint("http://localhost:8000/v1");
    let deepseek = TargetConfig::new("demo/deep", "deepseek", "deepseek-v4-pro");
    for (config, is_lost) in [(openai(), true), (own_host, false), (deepseek, false)] {
        let upstream = Upstream::new().replies(json(200, r#"{"choices":[]}"#));
        let (head, _) = send(layer(config), &upstream, post("/v1/chat/completions", CHAT)).await;
        let (_, seen) = upstream.request();
        let seen: serde_json::Value = serde_json::from_slice(&seen).unwrap();
        let message = &seen["messages"][0];
        assert_eq!(
            (message["content"].as_str(), message["reasoning_content"].is_null()),
            (Some("a"), is_lost)
        );
        assert_eq!(head.headers.contains_key("x-nantian-dropped"), is_lost);
    }
}

/// The names of what is lost of an answer as a whole and as a stream, each a chunk.
fn lost(dialect: Dialect, whole: &str, chunk: &str) -> [String; 2] {
    let (_, of_whole) = dialect.decode_reply(whole.as_bytes(), 7).unwrap();
    let mut decoder = StreamDecoder::new(dialect, 7);
    decoder.push(format!("data: {chunk}\n\n").as_bytes(), &mut VecDeque::new());
    [of_whole.to_string(), decoder.losses().to_string()]
}

#[test]
fn what_an_answer_says_beyond_the_dialect_is_named_wherever_it_stands() {
    for (dialect, whole, chunk, names) in [
        (
            Dialect::OpenAi,
            r#"{"id":"c","object":"chat.completion","created":1,"model":"m","system_fingerprint":"f","service_tier":"default","citations":["u"],"choices":[{"index":0,"message":{"role":"assistant","content":"Hi","annotations":[{}],"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}","x":1},"extra_content":{"google":{"x":1}}}]},"finish_reason":"stop","odd":1}],"usage":{"prompt_tokens":1}}"#,
            r#"{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","obfuscation":"o","citations":["u"],"choices":[{"index":0,"delta":{"role":"assistant","content":"Hi","annotations":[{}],"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":"{}","x":1},"extra_content":{"google":{"x":1}}}]},"odd":1}]}"#,
            ["annotations", "citations", "odd", "tool_calls.extra_content.x", "tool_calls.function.x"]
                .as_slice(),
        ),
        (
            Dialect::Gemini,
            r#"{"responseId":"r","modelVersion":"m","createTime":"t","usageMetadata":{},"odd":1,"candidates":[{"index":0,"finishReason":"STOP","safetyRatings":[{}],"groundingMetadata":{"a":1},"content":{"role":"model","parts":[{"text":"Hi","videoMetadata":{"a":1}},{"functionCall":{"name":"f","args":{},"willContinue":true}},{"inlineData":{"data":"AA=="}}]}}]}"#,
            r#"{"responseId":"r","modelVersion":"m","createTime":"t","usageMetadata":{},"odd":1,"candidates":[{"index":0,"finishReason":"STOP","safetyRatings":[{}],"groundingMetadata":{"a":1},"content":{"role":"model","parts":[{"text":"Hi","videoMetadata":{"a":1}},{"functionCall":{"name":"f","args":{},"willContinue":true}},{"inlineData":{"data":"AA=="}}]}}]}"#,
            &[
                "content.parts.functionCall.willContinue",
                "content.parts.inlineData",
                "content.parts.videoMetadata",
                "groundingMetadata",
                "odd",
            ],
        ),
    ] {
        for lost in lost(dialect, whole, chunk) {
            let mut named: Vec<_> = lost.split(',').collect();
            named.sort_unstable();
            assert_eq!(named, names, "{dialect}");
        }
    }
}

#[test]
fn what_an_item_says_beyond_the_dialect_is_named() {
    let body = r#"{"model":"m","input":[{"role":"user","content":"a","odd":1},{"type":"reasoning","id":"rs","summary":[],"encrypted_content":"g","status":"completed"},{"type":"function_call","id":"fc","call_id":"c","name":"f","arguments":"{}","status":"completed","namespace":"n"},{"type":"function_call_output","call_id":"c","output":"b"},{"type":"web_search_call","id":"w","action":{"a":1}}]}"#;
    let (_, lost) = ClientDialect::Responses.decode_request(body.as_bytes()).unwrap();
    assert_eq!(lost.to_string(), "input.odd,input.web_search_call");
}

#[test]
fn a_negative_limit_is_none() {
    for (client, said) in [
        (ClientDialect::OpenAi, r#""messages":[],"top_k":-1,"max_tokens":-1,"max_completion_tokens":-1.0"#),
        (ClientDialect::OpenAi, r#""input":"Hi","max_tokens":-1"#),
        (ClientDialect::Ollama, r#""messages":[],"options":{"top_k":-1,"num_predict":-2}"#),
    ] {
        let (request, lost) = client.decode_request(format!(r#"{{"model":"m",{said}}}"#).as_bytes()).unwrap();
        assert_eq!((request.max_output, request.top_k, lost.is_empty()), (None, None, true), "{said}");
    }
    ClientDialect::OpenAi.decode_request(br#"{"messages":[],"max_tokens":"9"}"#).unwrap_err();
}

fn defaults() -> Defaults {
    Defaults {
        id: "id".to_owned(),
        model: "m".to_owned(),
        created: SystemTime::UNIX_EPOCH,
        took: Duration::ZERO,
        stream_usage: true,
        input_estimate: 1,
        echo: Echo::default(),
    }
}

#[test]
fn the_sequence_that_an_answer_stopped_at_is_named_where_it_has_no_place() {
    let body =
        br#"{"content":[{"type":"text","text":"a"}],"stop_reason":"stop_sequence","stop_sequence":"X"}"#;
    let (reply, _) = Dialect::Anthropic.decode_reply(body, 7).unwrap();
    for (to, lost) in [
        (ClientDialect::Anthropic, ""),
        (ClientDialect::Ollama, "stop_sequence"),
        (ClientDialect::OpenAi, "stop_sequence"),
        (ClientDialect::Responses, "stop_sequence"),
    ] {
        assert_eq!(to.encode_reply(reply.clone(), &defaults()).1.to_string(), lost, "{to}");
        let mut encoder = StreamEncoder::new(to, defaults(), ToolNames::default());
        pieces(reply.clone()).into_iter().for_each(|event| encoder.push(event, &mut Vec::new()));
        assert_eq!(encoder.losses().map(Losses::to_string).unwrap_or_default(), lost, "stream to {to}");
    }
}

/// What a client hears of the tier by which an answer was served, of a whole one and of a stream.
fn heard_tiers(from: Dialect, tier: &str, to: ClientDialect) -> [Option<String>; 2] {
    let (whole, chunks) = match from {
        Dialect::Anthropic => {
            let whole = format!(r#"{{"content":[],"usage":{{"service_tier":"{tier}"}}}}"#);
            let start = format!(r#"{{"type":"message_start","message":{whole}}}"#);
            (whole, [start, r#"{"type":"message_stop"}"#.to_owned()])
        }
        Dialect::Responses => {
            let whole = format!(r#"{{"service_tier":"{tier}","status":"completed","output":[]}}"#);
            let start = r#"{"type":"response.created","response":{"service_tier":"auto"}}"#.to_owned();
            let end = format!(r#"{{"type":"response.completed","response":{whole}}}"#);
            (whole, [start, end])
        }
        _ => {
            let whole = format!(r#"{{"service_tier":"{tier}","choices":[{{"message":{{}}}}]}}"#);
            (whole.clone(), [whole, "[DONE]".to_owned()])
        }
    };
    let (reply, _) = from.decode_reply(whole.as_bytes(), 7).unwrap();
    let (whole, _) = to.encode_reply(reply, &defaults());
    let (mut decoder, mut events, mut stream) = (StreamDecoder::new(from, 7), VecDeque::new(), Vec::new());
    for chunk in chunks {
        decoder.push(format!("data: {chunk}\n\n").as_bytes(), &mut events);
    }
    let mut encoder = StreamEncoder::new(to, defaults(), ToolNames::default());
    events.into_iter().for_each(|event| encoder.push(event, &mut stream));
    [whole.to_vec(), stream].map(|said| {
        let said = String::from_utf8(said).unwrap();
        let (_, name) = said.split_once(r#""service_tier":""#)?;
        name.split('"').next().map(str::to_owned)
    })
}

#[test]
fn by_which_tier_an_answer_was_served_is_told_where_there_is_a_word_for_it() {
    let (standard, priority) = (Some("standard"), Some("priority"));
    for (from, tier, to, whole, stream) in [
        (Dialect::OpenAi, "default", ClientDialect::Anthropic, standard, standard),
        (Dialect::OpenAi, "priority", ClientDialect::Anthropic, priority, priority),
        (Dialect::OpenAi, "flex", ClientDialect::Anthropic, None, None),
        (Dialect::OpenAi, "flex", ClientDialect::Responses, Some("flex"), Some("flex")),
        (Dialect::OpenAi, "auto", ClientDialect::Responses, None, None),
        (Dialect::OpenAi, "on_demand", ClientDialect::Responses, None, None),
        (Dialect::Responses, "ultrafast", ClientDialect::OpenAi, Some("ultrafast"), Some("ultrafast")),
        // The end of such a stream tells it, and those of Messages have begun then.
        (Dialect::Responses, "priority", ClientDialect::Anthropic, priority, None),
        (Dialect::Anthropic, "standard", ClientDialect::OpenAi, Some("default"), Some("default")),
        (Dialect::Anthropic, "priority", ClientDialect::Responses, priority, priority),
        (Dialect::Anthropic, "batch", ClientDialect::Responses, None, None),
        (Dialect::Anthropic, "standard", ClientDialect::Ollama, None, None),
    ] {
        let heard = heard_tiers(from, tier, to);
        assert_eq!(heard.each_ref().map(Option::as_deref), [whole, stream], "{tier} of {from} to {to}");
    }
}

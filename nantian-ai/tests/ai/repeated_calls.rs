//! Providers that count their calls anew in each answer.

use std::time::Duration;

use nantian_ai::TargetConfig;
use serde_json::{Value, json};

use crate::support::{Upstream, events, json as reply, layer, openai, post, send};

/// What a client of Messages asks after a call of this id.
fn after_a_call(id: &str, stream: bool) -> Value {
    json!({"model": "m", "max_tokens": 9, "stream": stream, "messages": [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": [{"type": "tool_use", "id": id, "name": "read", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": "1"}]},
    ]})
}

/// The ids of the calls of an answer in Messages, whole or as a stream.
fn told(body: &str) -> Vec<String> {
    let events = body.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
    let events = events.filter_map(|event| serde_json::from_str::<Value>(event).ok());
    let blocks = events.flat_map(|event| {
        let whole = event["content"].as_array().cloned();
        whole.unwrap_or_else(|| vec![event["content_block"].clone()])
    });
    blocks.filter_map(|block| Some(block["id"].as_str()?.to_owned())).collect()
}

#[tokio::test]
async fn a_call_has_no_id_that_the_client_knows_for_another_one() {
    let kimi = || TargetConfig::new("demo/kimi", "moonshot", "kimi-k2");
    for (config, before, said, expected) in [
        (openai(), "call_0", ["call_0", "call_1"], ["call_1", "call_2"]),
        (openai(), "call_7", ["call_0", "call_1"], ["call_0", "call_1"]),
        (openai(), "tool_0_read", ["tool_0_read", "tool_1_read"], ["tool_0_read_1", "tool_1_read"]),
        (
            kimi(),
            "ntn_functions-2eread-3a0",
            ["functions.read:0", "functions.read:1"],
            ["ntn_functions-2eread-3a1", "ntn_functions-2eread-3a2"],
        ),
    ] {
        let call = |(at, id): (usize, &str)| json!({"index": at, "id": id, "type": "function", "function": {"name": "read", "arguments": "{}"}});
        let calls: Vec<_> = said.into_iter().enumerate().map(call).collect();
        for stream in [false, true] {
            let name = if stream { "delta" } else { "message" };
            let answer = json!({"choices": [{"index": 0, name: {"tool_calls": calls}, "finish_reason": "tool_calls"}]});
            let answer = match stream {
                false => reply(200, &answer.to_string()),
                true => {
                    let chunk = format!("data: {answer}\n\ndata: [DONE]\n\n");
                    events("text/event-stream", [(Duration::ZERO, Some(chunk))])
                }
            };
            let upstream = Upstream::new().replies(answer);
            let request = post("/v1/messages", &after_a_call(before, stream).to_string());
            let (_, body) = send(layer(config.clone()), &upstream, request).await;
            assert_eq!(told(&body), expected, "{body}");
        }
    }
}

/// A chat in which two turns have called by one id.
fn repeated() -> Value {
    let call = json!({"id": "call_0", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let turn = |result: &str| {
        [
            json!({"role": "assistant", "content": null, "tool_calls": [call]}),
            json!({"role": "tool", "tool_call_id": "call_0", "content": result}),
        ]
    };
    let begun = json!({"role": "user", "content": "Look."});
    let messages: Vec<_> = [begun].into_iter().chain(turn("1")).chain(turn("2")).collect();
    json!({"model": "m", "messages": messages})
}

#[tokio::test]
async fn of_calls_that_have_one_id_already_the_later_one_gets_another_where_they_are_said_anew() {
    let upstream = Upstream::new().replies(reply(200, "{}"));
    let claude = TargetConfig::new("demo/claude", "anthropic", "claude-sonnet-4-5");
    send(layer(claude), &upstream, post("/v1/chat/completions", &repeated().to_string())).await;
    let sent: Value = serde_json::from_slice(&upstream.request().1).unwrap();
    let block = |at: usize| &sent["messages"][at]["content"][0];
    assert_eq!((&block(1)["id"], &block(2)["tool_use_id"]), (&json!("call_0"), &json!("call_0")));
    assert_eq!((&block(3)["id"], &block(4)["tool_use_id"]), (&json!("call_1"), &json!("call_1")));
    assert_eq!(block(4)["content"], json!([{"type": "text", "text": "2"}]));
}

#[tokio::test]
async fn a_chat_that_passes_keeps_the_ids_that_it_has() {
    let upstream = Upstream::new().replies(reply(200, "{}"));
    let asked = repeated().to_string();
    send(layer(openai()), &upstream, post("/v1/chat/completions", &asked)).await;
    let sent = String::from_utf8(upstream.request().1.to_vec()).unwrap();
    assert_eq!(sent.matches("call_0").count(), 4, "{sent}");
}

#[tokio::test]
async fn what_openrouter_has_encrypted_is_of_the_call_that_it_was_of() {
    let detail = |id: &str| json!({"type": "reasoning.encrypted", "data": "AY89", "id": id, "index": 0});
    let told = format!("openrouter.details.{}", detail("tool_0_read"));
    let thought = json!({"type": "redacted_thinking", "data": told});
    let mut asked = after_a_call("tool_0_read_1", false);
    asked["messages"][1]["content"].as_array_mut().unwrap().push(thought);
    let upstream = Upstream::new().replies(reply(200, "{}"));
    let gemini = TargetConfig::new("demo/router", "openrouter", "google/gemini-3-pro");
    send(layer(gemini), &upstream, post("/v1/messages", &asked.to_string())).await;
    let sent: Value = serde_json::from_slice(&upstream.request().1).unwrap();
    let said = sent["messages"].as_array().unwrap().iter().find(|said| said["role"] == "assistant").unwrap();
    assert_eq!(said["tool_calls"][0]["id"], "tool_0_read_1");
    assert_eq!(said["reasoning_details"], json!([detail("tool_0_read_1")]));
}

/// What OpenRouter is given back of a turn that has called by `calls` and told pieces of these ids.
async fn given_back(model: &str, calls: &[&str], pieces: &[&str]) -> Vec<String> {
    let thoughts = pieces.iter().map(|id| {
        let detail = json!({"type": "reasoning.encrypted", "data": id, "id": id, "index": 0});
        json!({"type": "redacted_thinking", "data": format!("openrouter.details.{detail}")})
    });
    let called = calls.iter().map(|id| json!({"type": "tool_use", "id": id, "name": "read", "input": {}}));
    let mut asked = after_a_call("call_0", false);
    let turn = json!({"role": "assistant", "content": called.chain(thoughts).collect::<Vec<_>>()});
    let result = |id: &&str| json!({"type": "tool_result", "tool_use_id": id, "content": "1"});
    let results: Vec<_> = calls.iter().map(result).collect();
    asked["messages"].as_array_mut().unwrap().extend([turn, json!({"role": "user", "content": results})]);
    let upstream = Upstream::new().replies(reply(200, "{}"));
    let router = TargetConfig::new("demo/router", "openrouter", model);
    send(layer(router), &upstream, post("/v1/messages", &asked.to_string())).await;
    let sent: Value = serde_json::from_slice(&upstream.request().1).unwrap();
    let told =
        sent["messages"].as_array().unwrap().iter().find_map(|said| said["reasoning_details"].as_array());
    told.unwrap().iter().map(|piece| piece["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn each_piece_is_of_its_own_call_after_several_have_got_other_ids() {
    for (calls, pieces, expected) in [
        (&["call_1", "call_2"][..], &["call_0", "call_1"][..], &["call_1", "call_2"][..]),
        (&["call_1", "call_2"][..], &["call_0", "call_0", "call_1"][..], &["call_1", "call_1", "call_2"][..]),
        (&["call_7", "call_1"][..], &["call_7", "call_0"][..], &["call_7", "call_1"][..]),
        (&["call_1", "call_2"][..], &["call_2"][..], &["call_2"][..]),
    ] {
        assert_eq!(given_back("google/gemini-3-pro", calls, pieces).await, expected, "{pieces:?}");
    }
}

#[tokio::test]
async fn the_id_of_reasoning_that_is_of_no_call_stays() {
    for (model, id) in [("openai/gpt-5.2", "rs_68af01"), ("anthropic/claude-opus-4.6", "reasoning-text-1")] {
        assert_eq!(given_back(model, &["call_1"], &[id]).await, [id]);
        assert_eq!(given_back(model, &["call_1"], &[id, "call_0"]).await, [id, "call_1"]);
    }
}

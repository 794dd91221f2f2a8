//! Cursor, which asks for Chat Completions in the form of Responses, or with tools in that form.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Upstream, claude, events, json as reply, layer, openai, post, send};
use crate::taught::strict;

const PATCH: &str = "*** Begin Patch\n*** End Patch";

fn tools() -> Value {
    json!([
        {"type": "function", "name": "Read", "parameters": {"type": "object", "properties": {"path": {"type": "string"}}}},
        {"type": "custom", "name": "ApplyPatch", "description": "Edits files.",
            "format": {"type": "grammar", "syntax": "lark", "definition": "start: begin"}},
    ])
}

/// What it asks for in the form of Responses, after a patch of which it says what it was told.
fn in_the_form_of_responses(stream: bool) -> Value {
    json!({
        "model": "any",
        "stream": stream,
        "stream_options": {"include_usage": true},
        "store": false,
        "previous_response_id": null,
        "max_output_tokens": 900,
        "include": ["reasoning.encrypted_content"],
        "tools": tools(),
        "tool_choice": "auto",
        "input": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "input_text", "text": "Mend it."}]},
            {"type": "function_call", "call_id": "a", "name": "ApplyPatch", "arguments": PATCH},
            {"type": "function_call_output", "call_id": "a", "output": "Done"},
            {"role": "user", "content": "And that."},
        ],
    })
}

/// The same in that of Chat Completions, but for its tools.
fn with_flat_tools(stream: bool) -> Value {
    json!({
        "model": "any",
        "stream": stream,
        "stream_options": {"include_usage": true},
        "max_tokens": 900,
        "tools": tools(),
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Mend it."},
            {"role": "assistant", "content": [], "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "ApplyPatch", "arguments": PATCH}},
            ]},
            {"role": "tool", "tool_call_id": "a", "content": "Done"},
            {"role": "user", "content": "And that."},
        ],
    })
}

#[tokio::test]
async fn either_form_is_asked_of_a_provider_of_chats_and_answered_as_a_chat() {
    let answer = json!({"id": "x", "model": "gpt-4o", "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
        "role": "assistant", "content": null, "tool_calls": [
            {"id": "b", "type": "function", "function": {"name": "ApplyPatch", "arguments": json!({"input": PATCH}).to_string()}},
            {"id": "c", "type": "function", "function": {"name": "Read", "arguments": "{\"path\":\"a.rs\"}"}},
        ]}}], "usage": {"prompt_tokens": 3, "completion_tokens": 4}});
    for body in [in_the_form_of_responses(false), with_flat_tools(false)] {
        let upstream = Upstream::new().replies(reply(200, &answer.to_string()));
        let (head, said) =
            send(layer(openai()), &upstream, post("/v1/chat/completions", &body.to_string())).await;
        assert_eq!(head.status, 200, "{said}");
        assert_eq!(head.headers["x-nantian-dropped"], "tools.format");
        let (asked, seen) = upstream.request();
        assert_eq!(asked.uri.path(), "/v1/chat/completions");
        let seen: Value = serde_json::from_slice(&seen).unwrap();
        assert_eq!(seen["max_tokens"].as_u64().or(seen["max_completion_tokens"].as_u64()), Some(900));
        let names: Vec<_> =
            seen["tools"].as_array().unwrap().iter().map(|it| &it["function"]["name"]).collect();
        assert_eq!(names, ["Read", "ApplyPatch"]);
        let roles: Vec<_> = seen["messages"].as_array().unwrap().iter().map(|it| &it["role"]).collect();
        assert_eq!(roles, ["system", "user", "assistant", "tool", "user"]);
        let patched = &seen["messages"][2]["tool_calls"][0]["function"];
        assert_eq!(patched["arguments"], json!({"input": PATCH}).to_string());

        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["object"], "chat.completion");
        let calls = &said["choices"][0]["message"]["tool_calls"];
        assert_eq!(calls[0]["function"], json!({"name": "ApplyPatch", "arguments": PATCH}));
        assert_eq!(calls[1]["function"], json!({"name": "Read", "arguments": "{\"path\":\"a.rs\"}"}));
    }
}

#[tokio::test]
async fn a_stream_of_another_dialect_comes_as_chunks_of_a_chat() {
    let input = json!({"input": PATCH}).to_string();
    let (one, other) = input.split_at(9);
    let piece = |part: &str| json!({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": part}});
    let told = [
        json!({"type": "message_start", "message": {"id": "m", "model": "claude", "usage": {"input_tokens": 3, "output_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "b", "name": "ApplyPatch", "input": {}}}),
        piece(one),
        piece(other),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 7}}),
        json!({"type": "message_stop"}),
    ];
    for body in [in_the_form_of_responses(true), with_flat_tools(true)] {
        let chunks: Vec<_> = told
            .iter()
            .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()))
            .map(|event| (Duration::ZERO, Some(event)))
            .collect();
        let upstream = Upstream::new().replies(events("text/event-stream", chunks));
        let (head, said) =
            send(layer(claude()), &upstream, post("/v1/chat/completions", &body.to_string())).await;
        assert_eq!(head.status, 200, "{said}");
        let seen: Value = serde_json::from_slice(&upstream.request().1).unwrap();
        assert_eq!(seen["messages"][1]["content"][0]["input"], json!({"input": PATCH}));
        let chunks: Vec<Value> = said
            .split("\n\n")
            .filter_map(|event| serde_json::from_str(event.strip_prefix("data: ")?).ok())
            .collect();
        let calls = chunks.iter().filter_map(|it| it.pointer("/choices/0/delta/tool_calls/0/function"));
        let calls: Vec<_> = calls.cloned().collect();
        assert_eq!(calls, [json!({"name": "ApplyPatch", "arguments": ""}), json!({"arguments": PATCH})]);
        assert_eq!(chunks.last().unwrap()["usage"]["completion_tokens"], 7);
        assert!(said.ends_with("data: [DONE]\n\n"), "{said}");
    }
}

#[tokio::test]
async fn the_largest_limit_is_asked_for_whatever_its_name() {
    for (name, sent) in [("max_tokens", 1000), ("max_completion_tokens", 1000), ("n_predict", 1)] {
        let mut body = in_the_form_of_responses(false);
        body[name] = json!(sent);
        let upstream = Upstream::new().replies(reply(200, r#"{"choices":[]}"#));
        send(layer(openai()), &upstream, post("/v1/chat/completions", &body.to_string())).await;
        let seen: Value = serde_json::from_slice(&upstream.request().1).unwrap();
        let asked = seen["max_tokens"].as_u64().or(seen["max_completion_tokens"].as_u64());
        assert_eq!(asked, Some(sent.max(900)), "{name}");
    }
}

#[tokio::test]
async fn what_is_in_the_form_of_chats_passes_as_it_is() {
    const NESTED: &str = r#"{"model":"gpt-4o","input":"x","tools":[{"type":"custom","custom":{"name":"a"}}],"messages":[{"role":"user","content":"\"custom\""}]}"#;
    let upstream = Upstream::new().replies(reply(200, r#"{"choices":[]}"#));
    let (head, _) = send(layer(openai()), &upstream, post("/v1/chat/completions", NESTED)).await;
    assert_eq!((head.status.as_u16(), &*upstream.request().1), (200, NESTED.as_bytes()));

    let (head, said) = send(layer(claude()), &Upstream::new(), post("/v1/chat/completions", "{}")).await;
    assert!(head.status == 400 && said.contains("messages"), "{said}");
}

#[tokio::test]
async fn what_may_lose_nothing_passes_as_it_is() {
    for body in [in_the_form_of_responses(false), with_flat_tools(false)] {
        let body = body.to_string();
        let upstream = Upstream::new().replies(reply(200, r#"{"choices":[]}"#));
        let request = strict(post("/v1/chat/completions", &body));
        let (head, said) = send(layer(openai()), &upstream, request).await;
        assert_eq!(head.status, 200, "{said}");
        let (_, seen) = upstream.request();
        assert_eq!(String::from_utf8_lossy(&seen), body.replace("\"any\"", "\"gpt-4o\""));
    }
}

#[tokio::test]
async fn functions_alone_are_said_as_chats_have_them() {
    let mut body = with_flat_tools(false);
    body["tools"].as_array_mut().unwrap().pop();
    body["tool_choice"] = json!({"type": "function", "name": "Read"});
    let upstream = Upstream::new().replies(reply(200, r#"{"choices":[]}"#));
    let _ = send(layer(openai()), &upstream, post("/v1/chat/completions", &body.to_string())).await;
    let seen: Value = serde_json::from_slice(&upstream.request().1).unwrap();
    let function = json!({"name": "Read", "parameters": tools()[0]["parameters"]});
    assert_eq!(seen["tools"], json!([{"type": "function", "function": function}]));
    assert_eq!(seen["tool_choice"], json!({"type": "function", "function": {"name": "Read"}}));
}

#[tokio::test]
async fn a_choice_of_tools_is_read_in_their_form() {
    let of = |kind: &str, name: &str| json!({"type": kind, "name": name});
    for (choice, names, chosen) in [
        (
            of("custom", "ApplyPatch"),
            vec!["Read", "ApplyPatch"],
            json!({"type": "tool", "name": "ApplyPatch"}),
        ),
        (
            json!({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [of("custom", "ApplyPatch")]}}),
            vec!["ApplyPatch"],
            json!({"type": "any"}),
        ),
        (
            json!({"type": "allowed_tools", "mode": "required", "tools": [of("function", "Read")]}),
            vec!["Read"],
            json!({"type": "any"}),
        ),
    ] {
        let mut body = with_flat_tools(false);
        body["tool_choice"] = choice;
        let upstream = Upstream::new().replies(reply(200, r#"{"content":[]}"#));
        let request = post("/v1/chat/completions", &body.to_string());
        let (head, _) = send(layer(claude()), &upstream, request).await;
        assert_eq!(head.headers["x-nantian-dropped"], "tools.format");
        let seen: Value = serde_json::from_slice(&upstream.request().1).unwrap();
        let told: Vec<_> = seen["tools"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
        assert_eq!(told, names);
        assert_eq!(seen["tool_choice"], chosen);
    }
}

#[tokio::test]
async fn a_patch_that_is_no_json_comes_as_the_model_has_written_it() {
    for written in [PATCH, ""] {
        let call = json!({"index": 0, "id": "b", "type": "function", "function": {"name": "ApplyPatch", "arguments": written}});
        let choice = json!({"index": 0, "finish_reason": "tool_calls"});
        let mut whole = choice.clone();
        whole["message"] = json!({"role": "assistant", "content": null, "tool_calls": [call]});
        let upstream = Upstream::new().replies(reply(200, &json!({"choices": [whole]}).to_string()));
        let request = post("/v1/chat/completions", &with_flat_tools(false).to_string());
        let (_, said) = send(layer(openai()), &upstream, request).await;
        let said: Value = serde_json::from_str(&said).unwrap();
        let function = &said["choices"][0]["message"]["tool_calls"][0]["function"];
        assert_eq!(function, &json!({"name": "ApplyPatch", "arguments": written}));

        let mut last = choice;
        last["delta"] = json!({"tool_calls": [call]});
        let chunks = [json!({"choices": [last]}).to_string(), "[DONE]".to_owned()];
        let chunks = chunks.map(|data| (Duration::ZERO, Some(format!("data: {data}\n\n"))));
        let upstream = Upstream::new().replies(events("text/event-stream", chunks.to_vec()));
        let request = post("/v1/chat/completions", &with_flat_tools(true).to_string());
        let (_, said) = send(layer(openai()), &upstream, request).await;
        let deltas = said.split("\n\n").filter_map(|event| {
            let chunk: Value = serde_json::from_str(event.strip_prefix("data: ")?).ok()?;
            let text = chunk.pointer("/choices/0/delta/tool_calls/0/function/arguments")?.as_str();
            text.map(str::to_owned)
        });
        assert_eq!(deltas.collect::<String>(), written, "{said}");
    }
}

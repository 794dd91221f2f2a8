//! Tools that Codex does not tell at once: the model looks for them, and the client finds them.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::support::{Upstream, claude, events, json as reply, layer, post, send};

/// What is said before a search, or with what it has found.
fn request(found: Option<&Value>, stream: bool) -> Request<Full<Bytes>> {
    let mut input = vec![json!({"role": "user", "content": "List the files."})];
    if let Some(tools) = found {
        input.push(json!({"type": "tool_search_call", "call_id": "c", "execution": "client", "arguments": {"query": "files"}}));
        input.push(json!({"type": "tool_search_output", "call_id": "c", "execution": "client", "status": "completed", "tools": tools}));
    }
    let query = json!({"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]});
    let search = json!({"type": "tool_search", "execution": "client", "description": "Searches tools.", "parameters": query});
    let body = json!({"model": "any", "stream": stream, "store": false, "tools": [search], "input": input});
    post("/v1/responses", &body.to_string())
}

fn said(name: &str, input: &Value) -> String {
    let call = json!({"type": "tool_use", "id": "c", "name": name, "input": input});
    json!({"id": "m", "model": "claude", "stop_reason": "tool_use", "content": [call]}).to_string()
}

#[tokio::test]
async fn a_model_looks_for_tools_that_the_client_has_and_calls_what_it_has_found() {
    let upstream = Upstream::new().replies(reply(200, &said("tool_search", &json!({"query": "files"}))));
    let (head, body) = send(layer(claude()), &upstream, request(None, false)).await;
    assert!(head.status == 200 && !head.headers.contains_key("x-nantian-dropped"), "{body}");
    let seen: Value = serde_json::from_slice(&upstream.request().1).unwrap();
    assert_eq!(seen["tools"][0]["name"], "tool_search");
    assert_eq!(seen["tools"][0]["input_schema"]["required"], json!(["query"]));
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["tools"][0]["type"], "tool_search");
    let item = &body["output"][0];
    assert_eq!((&item["type"], &item["execution"]), (&json!("tool_search_call"), &json!("client")));
    assert_eq!((&item["call_id"], &item["arguments"]), (&json!("c"), &json!({"query": "files"})));
    assert!(item["name"].is_null() && item["id"].as_str().unwrap().starts_with("tsc_"), "{item}");

    let tool = json!({"type": "function", "name": "list", "defer_loading": true, "parameters": {"type": "object", "properties": {}}});
    let found = json!([{"type": "namespace", "name": "mcp__files", "tools": [tool]}]);
    let upstream = Upstream::new().replies(reply(200, &said("mcp__files__list", &json!({}))));
    let (head, body) = send(layer(claude()), &upstream, request(Some(&found), false)).await;
    assert!(!head.headers.contains_key("x-nantian-dropped"), "{body}");
    let seen: Value = serde_json::from_slice(&upstream.request().1).unwrap();
    assert_eq!(seen["tools"][1]["name"], "mcp__files__list");
    assert_eq!(seen["messages"][1]["content"][0]["input"], json!({"query": "files"}));
    let result = &seen["messages"][2]["content"][0];
    assert_eq!(result["tool_use_id"], "c");
    assert!(result["content"].to_string().contains("mcp__files__list"), "{result}");
    let body: Value = serde_json::from_str(&body).unwrap();
    let item = &body["output"][0];
    assert_eq!((&item["type"], &item["name"]), (&json!("function_call"), &json!("list")));
    assert_eq!(item["namespace"], "mcp__files");
}

#[tokio::test]
async fn a_search_is_streamed_whole() {
    const CHUNK: &str = "data: {\"type\":\"message_start\",\"message\":{\"id\":\"m\"}}\n\n\
         data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"tool_use\",\"id\":\"c\",\"name\":\"tool_search\",\"input\":{}}}\n\n\
         data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\n\\\"query\\\":\"}}\n\n\
         data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"\\\"files\\\"}\"}}\n\n\
         data: {\"type\":\"content_block_stop\",\"index\":0}\n\n\
         data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\"},\"usage\":{\"output_tokens\":3}}\n\n\
         data: {\"type\":\"message_stop\"}\n\n";
    let script = events("text/event-stream", [(Duration::ZERO, Some(CHUNK))]);
    let (_, body) = send(layer(claude()), &Upstream::new().replies(script), request(None, true)).await;
    let told: Vec<Value> = body
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let kinds: Vec<_> = told.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let begun = &told[2]["item"];
    assert_eq!((&begun["type"], &begun["arguments"]), (&json!("tool_search_call"), &json!({})));
    let done = &told[3]["item"];
    assert_eq!((&done["arguments"], &done["execution"]), (&json!({"query": "files"}), &json!("client")));
    assert_eq!((done, &done["id"]), (&told[4]["response"]["output"][0], &begun["id"]));
}

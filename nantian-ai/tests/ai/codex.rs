//! The tools of Codex, which the client runs: some take any text, some are in namespaces, and they are told
//! in an item of the input.

use std::time::Duration;

use nantian_ai::{Dialect, TargetConfig};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _};

use crate::support::{Upstream, claude, events, json as reply, layer, post, send};

fn request(stream: bool) -> Value {
    let wait = json!({"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]});
    json!({
        "model": "any",
        "stream": stream,
        "store": false,
        "tool_choice": "auto",
        "tools": [{"type": "web_search"}, {"type": "custom", "name": "apply_patch", "description": "Edits files.",
            "format": {"type": "grammar", "syntax": "lark", "definition": "start: begin"}}],
        "input": [
            {"type": "additional_tools", "role": "developer", "tools": [
                {"type": "namespace", "name": "functions", "tools": [
                    {"type": "custom", "name": "exec", "description": "Runs JavaScript.", "format": {"type": "text"}},
                    {"type": "function", "name": "wait", "strict": false, "parameters": wait},
                ]},
                {"type": "namespace", "name": "mcp__files", "description": "About files.", "tools": [
                    {"type": "function", "name": "list", "description": "Lists.", "parameters": {"type": "object", "properties": {}}},
                ]},
            ]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Where am I?"}]},
            {"type": "custom_tool_call", "call_id": "a", "name": "exec", "input": "pwd \"x\"", "status": "completed"},
            {"type": "function_call", "call_id": "b", "name": "list", "namespace": "mcp__files", "arguments": "{}"},
            {"type": "custom_tool_call_output", "call_id": "a", "output": "/work"},
            {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "a.rs"}]},
        ],
    })
}

#[tokio::test]
async fn tools_and_calls_of_the_client_reach_any_provider_and_come_back_as_the_client_knows_them() {
    let answer = json!({"id": "m", "model": "claude", "stop_reason": "tool_use", "content": [
        {"type": "tool_use", "id": "c", "name": "exec", "input": {"input": "ls\n"}},
        {"type": "tool_use", "id": "d", "name": "mcp__files__list", "input": {"at": 1}},
        {"type": "tool_use", "id": "e", "name": "wait", "input": {"id": "c"}},
        {"type": "tool_use", "id": "f", "name": "exec", "input": {"cmd": "ls"}},
    ]});
    let upstream = Upstream::new().replies(reply(200, &answer.to_string()));
    let (head, body) =
        send(layer(claude()), &upstream, post("/v1/responses", &request(false).to_string())).await;
    assert_eq!(head.status, 200);
    assert_eq!(head.headers["x-nantian-dropped"], "tools.web_search,tools.format");

    let (_, seen) = upstream.request();
    let seen: Value = serde_json::from_slice(&seen).unwrap();
    let tools: Vec<_> = seen["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| (tool["name"].as_str().unwrap(), tool["description"].as_str().unwrap_or_default()))
        .collect();
    let patch = "Edits files.\n\nThe input must fit this grammar (lark):\nstart: begin";
    assert_eq!(
        tools,
        [
            ("apply_patch", patch),
            ("exec", "Runs JavaScript."),
            ("wait", ""),
            ("mcp__files__list", "About files.\n\nLists."),
        ]
    );
    assert_eq!(seen["tools"][1]["input_schema"]["required"], json!(["input"]));
    let calls = &seen["messages"][1]["content"];
    assert_eq!((&calls[0]["name"], &calls[0]["input"]), (&json!("exec"), &json!({"input": "pwd \"x\""})));
    assert_eq!(calls[1]["name"], "mcp__files__list");
    let results = &seen["messages"][2]["content"];
    assert_eq!(results[0]["content"][0]["text"], "/work");
    assert_eq!(results[1]["content"][0]["text"], "a.rs");

    let body: Value = serde_json::from_str(&body).unwrap();
    let item = |at: usize, members: &[&str]| {
        let item = &body["output"][at];
        Value::Array(members.iter().map(|&name| item[name].clone()).collect())
    };
    let custom = ["type", "call_id", "name", "input", "namespace"];
    assert_eq!(item(0, &custom), json!(["custom_tool_call", "c", "exec", "ls\n", null]));
    let function = ["type", "call_id", "name", "arguments", "namespace"];
    assert_eq!(item(1, &function), json!(["function_call", "d", "list", "{\"at\":1}", "mcp__files"]));
    assert_eq!(item(2, &function), json!(["function_call", "e", "wait", "{\"id\":\"c\"}", null]));
    // What the model has written instead of a text is the text.
    assert_eq!(item(3, &custom), json!(["custom_tool_call", "f", "exec", "{\"cmd\":\"ls\"}", null]));
    let repeated: Vec<_> =
        body["tools"].as_array().unwrap().iter().map(|tool| tool["type"].as_str().unwrap()).collect();
    assert_eq!(repeated, ["custom"]);
}

#[tokio::test]
async fn calls_are_streamed_as_the_client_knows_them() {
    const CHUNKS: [&str; 4] = [
        "data: {\"type\":\"message_start\",\"message\":{\"id\":\"m\"}}\n\n\
         data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"tool_use\",\"id\":\"c\",\"name\":\"exec\",\"input\":{}}}\n\n\
         data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"input\\\":\\\"l\"}}\n\n",
        "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"s\\\"}\"}}\n\n\
         data: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
        "data: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"tool_use\",\"id\":\"d\",\"name\":\"mcp__files__list\",\"input\":{}}}\n\n\
         data: {\"type\":\"content_block_stop\",\"index\":1}\n\n",
        "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\"},\"usage\":{\"output_tokens\":3}}\n\n\
         data: {\"type\":\"message_stop\"}\n\n",
    ];
    let script = events("text/event-stream", CHUNKS.map(|chunk| (Duration::ZERO, Some(chunk))));
    let service = layer(claude()).layer(Upstream::new().replies(script));
    let response = service.oneshot(post("/v1/responses", &request(true).to_string())).await.unwrap();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    let body = std::str::from_utf8(&body).unwrap();
    let told: Vec<Value> = body
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let of = |kind: &str| told.iter().filter(|event| event["type"] == kind).collect::<Vec<_>>();

    let added = of("response.output_item.added");
    assert_eq!(
        (&added[0]["item"]["type"], &added[0]["item"]["input"]),
        (&json!("custom_tool_call"), &json!(""))
    );
    assert_eq!(
        (&added[1]["item"]["name"], &added[1]["item"]["namespace"]),
        (&json!("list"), &json!("mcp__files"))
    );
    let deltas: String = of("response.custom_tool_call_input.delta")
        .iter()
        .map(|event| event["delta"].as_str().unwrap())
        .collect();
    assert_eq!(deltas, "ls");
    assert_eq!(of("response.custom_tool_call_input.done")[0]["input"], "ls");
    assert_eq!(of("response.function_call_arguments.done")[0]["name"], "list");
    let done = of("response.output_item.done");
    assert_eq!(done[0]["item"], of("response.completed")[0]["response"]["output"][0]);
    assert_eq!((&done[0]["item"]["name"], &done[0]["item"]["input"]), (&json!("exec"), &json!("ls")));
    assert_eq!(done[0]["item"]["id"], added[0]["item"]["id"]);
    assert!(added.len() == 2 && done.len() == 2);
}

#[tokio::test]
async fn what_xai_refuses_of_codex_is_said_anew_and_all_else_passes() {
    const ANSWER: &str = r#"{"choices":[{"message":{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"exec","arguments":"{\"input\":\"ls\"}"}}]},"finish_reason":"tool_calls"}]}"#;
    let grok = || TargetConfig::new("demo/grok", "xai", "grok-4.5");
    let upstream = Upstream::new().replies(reply(200, ANSWER));
    let (head, body) =
        send(layer(grok()), &upstream, post("/v1/responses", &request(false).to_string())).await;
    assert_eq!(head.headers["x-nantian-dropped"], "tools.web_search,tools.format");
    let (seen, sent) = upstream.request();
    assert_eq!(seen.uri.path(), "/v1/chat/completions");
    let sent: Value = serde_json::from_slice(&sent).unwrap();
    assert_eq!(sent["tools"][3]["function"]["name"], "mcp__files__list");
    let body: Value = serde_json::from_str(&body).unwrap();
    let item = &body["output"][0];
    assert_eq!((&item["type"], &item["input"]), (&json!("custom_tool_call"), &json!("ls")));

    const REPLY: &str =
        r#"{"id":"r","status":"completed","output":[{"type":"message","role":"assistant","content":[]}]}"#;
    let upstream = Upstream::new().replies(reply(200, REPLY));
    let config = grok().with_format(Dialect::Responses);
    send(layer(config), &upstream, post("/v1/responses", &request(false).to_string())).await;
    let (seen, sent) = upstream.request();
    let sent: Value = serde_json::from_slice(&sent).unwrap();
    assert_eq!((seen.uri.path(), &sent["tools"][3]["name"]), ("/v1/responses", &json!("mcp__files__list")));

    let plain = json!({"model": "grok-4.5", "input": [{"type": "reasoning", "summary": [], "encrypted_content": "x"}],
        "tools": [{"type": "function", "name": "f", "parameters": {}}, {"type": "web_search"}]})
    .to_string();
    let upstream = Upstream::new().replies(reply(200, "{}"));
    send(layer(grok()), &upstream, post("/v1/responses", &plain)).await;
    let (seen, sent) = upstream.request();
    assert_eq!((seen.uri.path(), &sent[..]), ("/v1/responses", plain.as_bytes()));
}

//! What Claude's newer models refuse is not sent to them.

use nantian_ai::{ClientDialect, Dialect, TargetConfig};
use serde_json::{Value, json};

use crate::support::{Upstream, json as reply, layer, post, send};

/// What a model is sent of a chat, and what is lost.
fn sent(to: Dialect, model: &str, more: Value) -> (Value, String) {
    let mut body = json!({"model": "any", "messages": [{"role": "user", "content": "Hi"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (mut request, _) = ClientDialect::OpenAi.decode_request(body.to_string().as_bytes()).unwrap();
    model.clone_into(&mut request.model);
    let (body, losses) = to.encode_request(&request, to.name()).unwrap();
    (serde_json::from_slice(&body).unwrap(), losses.to_string())
}

fn tool(name: &str) -> Value {
    let parameters = json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]});
    json!({"type": "function", "function": {"name": name, "strict": true, "parameters": parameters}})
}

#[test]
fn a_model_that_always_thinks_is_told_to_think_little() {
    for (model, thinking, effort, lost) in [
        ("claude-opus-5", json!({"type": "disabled"}), Value::Null, ""),
        ("claude-haiku-5-5", json!({"type": "disabled"}), Value::Null, ""),
        ("claude-sonnet-5-5", json!({"type": "between_tools"}), Value::Null, "thinking"),
        ("claude-opus-5-5", Value::Null, json!("low"), "thinking"),
        ("claude-fable-5", Value::Null, json!("low"), "thinking"),
    ] {
        let off = json!({"reasoning_effort": "none"});
        let (body, losses) = sent(Dialect::Anthropic, model, off.clone());
        let told = (&body["thinking"], &body["output_config"]["effort"], losses.as_str());
        assert_eq!(told, (&thinking, &effort, lost), "{model}");
        let (body, losses) = sent(Dialect::Bedrock, &format!("us.anthropic.{model}"), off);
        let own = &body["additionalModelRequestFields"];
        let told = (&own["thinking"], &own["output_config"]["effort"], losses.as_str());
        assert_eq!(told, (&thinking, &effort, lost), "{model} at Bedrock");
    }
}

#[test]
fn a_model_that_cannot_be_forced_is_left_the_choice() {
    let forced = json!({"tools": [tool("f")], "tool_choice": "required", "reasoning_effort": "xhigh"});
    for (model, choice, effort, lost) in [
        ("claude-opus-4-6", "any", Value::Null, "thinking"),
        ("claude-opus-5-5", "auto", json!("xhigh"), "tool_choice"),
        ("claude-sonnet-5-5", "auto", json!("xhigh"), "tool_choice"),
    ] {
        let (body, losses) = sent(Dialect::Anthropic, model, forced.clone());
        let told = (&body["tool_choice"]["type"], &body["output_config"]["effort"], losses.as_str());
        assert_eq!(told, (&json!(choice), &effort, lost), "{model}");
        let (body, losses) = sent(Dialect::Bedrock, &format!("us.anthropic.{model}"), forced.clone());
        let is_forced = body["toolConfig"]["toolChoice"].get("any").is_some();
        assert_eq!((is_forced, losses.as_str()), (choice == "any", lost), "{model} at Bedrock");
    }
    let (body, _) = sent(Dialect::Anthropic, "claude-opus-4-6", json!({"reasoning_effort": "xhigh"}));
    assert_eq!(body["output_config"]["effort"], "high");
}

#[test]
fn a_request_has_no_more_strict_tools_than_claude_takes() {
    let tools: Vec<_> = (0..22).map(|at| tool(&format!("f{at}"))).collect();
    let (body, losses) = sent(Dialect::Anthropic, "claude-sonnet-4-5", json!({"tools": tools}));
    let tools = body["tools"].as_array().unwrap();
    assert_eq!(tools.iter().filter(|tool| tool["strict"] == true).count(), 20);
    assert_eq!(tools[0]["input_schema"]["additionalProperties"], false);
    assert_eq!(losses, "tools.strict");
    let (body, losses) = sent(Dialect::Anthropic, "claude-3-7-sonnet-latest", json!({"tools": [tool("f")]}));
    assert_eq!((body["tools"][0].get("strict"), losses.as_str()), (None, "tools.strict"));
}

#[test]
fn a_schema_that_cannot_be_enforced_is_said_by_the_system() {
    let any_keys = json!({"type": "object", "additionalProperties": {"type": "integer"}});
    let closed = json!({"type": "object", "properties": {}});
    for (model, schema, is_enforced) in [
        ("claude-sonnet-4-5", &any_keys, false),
        ("claude-sonnet-4-5", &closed, true),
        ("claude-3-7-sonnet-latest", &closed, false),
    ] {
        let format = json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}});
        let (body, losses) = sent(Dialect::Anthropic, model, format.clone());
        assert_eq!(body.get("output_config").is_some(), is_enforced, "{model}");
        let said = body["system"][0]["text"].as_str().unwrap_or_default().contains(&schema.to_string());
        assert_eq!((said, losses.is_empty()), (!is_enforced, is_enforced), "{model}");
        let (body, losses) = sent(Dialect::Bedrock, &format!("us.anthropic.{model}"), format);
        assert_eq!(body.get("outputConfig").is_some(), is_enforced, "{model}");
        assert_eq!((body.get("system").is_none(), losses.is_empty()), (is_enforced, is_enforced), "{model}");
    }
}

#[tokio::test]
async fn what_an_anthropic_client_says_to_a_newer_model_is_said_to_an_older_one_as_it_takes_it() {
    const ANSWER: &str = r#"{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-4-5-20250929","content":[{"type":"thinking","thinking":"hm","signature":"EqoB"},{"type":"text","text":"Hi"}],"stop_reason":"end_turn","usage":{"input_tokens":9,"output_tokens":3}}"#;
    let body = json!({
        "model": "claude-opus-4-8", "max_tokens": 32_000,
        "thinking": {"type": "adaptive"}, "output_config": {"effort": "high"},
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]},
            {"role": "system", "content": "Be brief."},
        ],
    });
    let body = body.to_string();
    let ask = async |model: &str| {
        let upstream = Upstream::new().replies(reply(200, ANSWER));
        let config = TargetConfig::new("demo/claude", "anthropic", model);
        let (head, answer) = send(layer(config), &upstream, post("/v1/messages?beta=true", &body)).await;
        let (sent, asked) = upstream.request();
        assert_eq!((head.status.as_u16(), sent.uri.path()), (200, "/v1/messages"));
        (asked, serde_json::from_str::<Value>(&answer).unwrap())
    };
    let (asked, answer) = ask("claude-sonnet-4-5").await;
    let asked: Value = serde_json::from_slice(&asked).unwrap();
    assert_eq!(asked["thinking"], json!({"type": "enabled", "budget_tokens": 16_384}));
    assert_eq!(asked["output_config"], Value::Null);
    let messages = asked["messages"].as_array().unwrap();
    assert!(messages.iter().all(|message| message["role"] == "user"), "{asked}");
    assert_eq!(messages[0]["content"][0]["cache_control"], json!({"type": "ephemeral"}));
    assert_eq!(answer["model"], "claude-opus-4-8");
    assert_eq!(answer["content"][0], json!({"type": "thinking", "thinking": "hm", "signature": "EqoB"}));
    // One of the same generation gets the bytes.
    let (asked, answer) = ask("claude-opus-4-9").await;
    assert_eq!(asked, body.replace("claude-opus-4-8", "claude-opus-4-9"));
    assert_eq!(answer["model"], "claude-opus-4-8");
}

#[tokio::test]
async fn an_answer_is_as_long_as_this_claude_gives_it_whatever_another_one_does() {
    const ANSWER: &str = r#"{"id":"msg_1","content":[{"type":"text","text":"Hi"}],"usage":{"input_tokens":9,"output_tokens":3}}"#;
    const ASKED: &str = r#"{"model": "claude-opus-4-8","max_tokens": 128000,"tools":[{"type":"web_search_20250305"}],"messages":[]}"#;
    let ask = async |config| {
        let upstream = Upstream::new().replies(reply(200, ANSWER));
        let (head, _) = send(layer(config), &upstream, post("/v1/messages", ASKED)).await;
        let dropped = head.headers.get("x-nantian-dropped").map(|names| names.to_str().unwrap().to_owned());
        (head.status.as_u16(), dropped, upstream)
    };
    let config = |model| TargetConfig::new("demo/claude", "anthropic", model);
    let (status, dropped, upstream) = ask(config("claude-sonnet-4-5")).await;
    assert_eq!((status, dropped.as_deref()), (200, Some("max_tokens")));
    let lowered = ASKED.replace("claude-opus-4-8", "claude-sonnet-4-5").replace("128000", "64000");
    assert_eq!(upstream.request().1, lowered);
    let (status, dropped, upstream) = ask(config("claude-opus-4-6")).await;
    assert_eq!((status, dropped), (200, None));
    assert_eq!(upstream.request().1, ASKED.replace("claude-opus-4-8", "claude-opus-4-6"));
    let (status, _, upstream) = ask(config("claude-sonnet-4-5").with_strict(true)).await;
    assert_eq!((status, upstream.requests()), (400, 0));
}

#[tokio::test]
async fn tokens_of_what_is_said_to_another_claude_are_counted_as_this_one_takes_it() {
    let body = json!({
        "model": "claude-opus-4-8", "thinking": {"type": "adaptive"}, "system": "Be brief.",
        "messages": [{"role": "user", "content": "Hi"}],
        "tools": [{"name": "now", "input_schema": {"type": "object"}}],
    });
    let ask = async |answer| {
        let upstream = Upstream::new().replies(answer);
        let config = TargetConfig::new("demo/claude", "anthropic", "claude-sonnet-4-5");
        let request = post("/v1/messages/count_tokens?beta=true", &body.to_string());
        let (head, answer) = send(layer(config), &upstream, request).await;
        let (sent, asked) = upstream.request();
        assert_eq!((head.status.as_u16(), sent.uri.path()), (200, "/v1/messages/count_tokens"));
        (serde_json::from_slice::<Value>(&asked).unwrap(), serde_json::from_str::<Value>(&answer).unwrap())
    };
    let (asked, answer) = ask(reply(200, r#"{"input_tokens":42}"#)).await;
    assert_eq!(answer, json!({"input_tokens": 42}));
    let mut names: Vec<_> = asked.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["messages", "model", "system", "thinking", "tools"]);
    assert_eq!(
        (&asked["model"], &asked["thinking"]["type"]),
        (&json!("claude-sonnet-4-5"), &json!("enabled"))
    );
    let (_, answer) = ask(reply(529, "{}")).await;
    assert!(answer["input_tokens"].is_u64(), "an estimate: {answer}");
}

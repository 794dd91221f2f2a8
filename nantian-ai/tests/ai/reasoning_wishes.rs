//! Reasoning that not every provider takes back or gives: it is asked for, and left out once it is refused.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use nantian_ai::{ClientDialect, Dialect, TargetConfig};
use serde_json::{Value, json};

use crate::{
    support::{Upstream, json as reply, layer, post, send},
    taught::{asked, refused, strict, taught},
};

const OF_CHAT: &str =
    r#"{"choices":[{"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}"#;
const OF_RESPONSES: &str = r#"{"id":"resp_1","object":"response","status":"completed","output":[{"type":"message","role":"assistant","content":[{"type":"output_text","text":"Hi"}]}]}"#;
const ENCRYPTED: &str = "reasoning.encrypted_content";

/// A provider that nobody knows, with chats.
fn acme() -> TargetConfig {
    TargetConfig::new("demo/smart", "acme", "smart")
        .with_format(Dialect::OpenAi)
        .with_endpoint("http://provider")
}

fn responses(provider: &str, model: &str) -> TargetConfig {
    TargetConfig::new("demo/target", provider, model)
        .with_format(Dialect::Responses)
        .with_endpoint("http://provider")
}

/// A conversation of Messages in which the model has thought.
fn thoughtful(reasoning: &Value) -> Request<Full<Bytes>> {
    let called = json!({"type": "tool_use", "id": "b", "name": "f", "input": {}});
    let body = json!({"model": "any", "max_tokens": 9, "messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [reasoning, called]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "b", "content": "1"}]},
    ]});
    post("/v1/messages", &body.to_string())
}

/// A question of Messages with more members.
fn messages(more: &str) -> Request<Full<Bytes>> {
    let body =
        format!(r#"{{"model":"any","max_tokens":99,"messages":[{{"role":"user","content":"Hi"}}]{more}}}"#);
    post("/v1/messages", &body)
}

#[tokio::test]
async fn a_provider_that_nobody_knows_gets_reasoning_back_until_it_refuses_it() {
    let text = json!({"type": "thinking", "thinking": "Hm.", "signature": ""});
    let signed = json!({"type": "thinking", "thinking": "", "signature": "google.s"});
    let signature = "/messages/1/tool_calls/0/extra_content/google/thought_signature";
    for (reasoning, path, told, refusal) in [
        (
            &text,
            "/messages/1/reasoning_content",
            "Hm.",
            "messages.1.assistant.reasoning_content: property 'messages.1.assistant.reasoning_content' is unsupported",
        ),
        (
            &text,
            "/messages/1/reasoning_content",
            "Hm.",
            "'messages.1' : for 'role:assistant' the following must be satisfied[('messages.1' : property 'reasoning_content' is unsupported)]",
        ),
        (&signed, signature, "s", "Unknown parameter: 'messages[1].tool_calls[0].extra_content'."),
    ] {
        let upstream = Upstream::new().replies(refused(refusal)).replies(reply(200, OF_CHAT));
        let (head, body) = send(layer(acme()), &upstream, thoughtful(reasoning)).await;
        assert_eq!(head.status, 200, "{body}");
        assert_eq!(head.headers["x-nantian-dropped"], "messages.reasoning");
        assert_eq!(asked(&upstream, path), [json!(told), Value::Null], "{refusal}");
        let upstream = Upstream::new().replies(refused(refusal));
        assert_eq!(send(layer(acme()), &upstream, strict(thoughtful(reasoning))).await.0.status, 400);
    }
}

#[tokio::test]
async fn reasoning_is_left_out_however_a_provider_or_who_is_behind_it_refuses_it() {
    let text = json!({"type": "thinking", "thinking": "Hm.", "signature": ""});
    let listed = json!({"detail": [{"type": "extra_forbidden", "loc": ["body", "messages", 1, "assistant", "reasoning_content"], "msg": "Extra inputs are not permitted", "input": "Hm."}]});
    let quoted = format!("litellm.BadRequestError: MistralException - {listed}");
    for refusal in [
        refused(&quoted),
        reply(422, &format!("{listed:#}")),
        refused(
            "[{'type': 'extra_forbidden', 'loc': ('body', 'messages', 1, 'reasoning_content'), 'msg': 'Extra inputs are not permitted'}]",
        ),
        refused("Unrecognized request argument supplied: reasoning_content"),
        refused("Additional properties are not allowed ('reasoning_content' was unexpected)"),
    ] {
        let upstream = Upstream::new().replies(refusal).replies(reply(200, OF_CHAT));
        let (head, body) = send(layer(acme()), &upstream, thoughtful(&text)).await;
        assert_eq!(
            (head.status.as_u16(), asked(&upstream, "/messages/1/reasoning_content")),
            (200, vec![json!("Hm."), Value::Null]),
            "{body}"
        );
    }
    // This client has it from elsewhere.
    let chat = r#"{"model":"any","messages":[{"role":"assistant","reasoning":"Hm.","content":"a"}]}"#;
    for refusal in [
        "Extra inputs are not permitted, field: 'messages[0].reasoning', value: 'Hm.'",
        "'messages.0' : for 'role:assistant' the following must be satisfied[('messages.0' : property 'reasoning' is unsupported)]",
    ] {
        let upstream = Upstream::new().replies(refused(refusal)).replies(reply(200, OF_CHAT));
        let (head, body) = send(layer(acme()), &upstream, post("/v1/chat/completions", chat)).await;
        assert_eq!(
            (head.status.as_u16(), asked(&upstream, "/messages/0/reasoning")),
            (200, vec![json!("Hm."), Value::Null]),
            "{body}"
        );
    }
}

#[tokio::test]
async fn what_a_model_of_mistral_has_thought_goes_where_it_is_read() {
    let thought = json!({"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}], "closed": true});
    let chat = json!({"model": "any", "messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [thought, {"type": "text", "text": "b"}]},
        {"role": "user", "content": "c"},
    ]});
    let ask = async |config, upstream: &Upstream| {
        let request = post("/v1/chat/completions", &chat.to_string());
        let (head, body) = send(layer(config), upstream, request).await;
        assert_eq!(head.status, 200, "{body}");
        let dropped = head.headers.get("x-nantian-dropped").map_or("", |it| it.to_str().unwrap());
        (asked(upstream, "/messages/1/content"), dropped.to_owned())
    };
    let (whole, said) = (chat["messages"][1]["content"].clone(), json!([{"type": "text", "text": "b"}]));
    for (provider, told, named) in
        [("mistral", &whole, ""), ("vllm", &whole, ""), ("groq", &said, "messages.reasoning")]
    {
        let upstream = Upstream::new().replies(reply(200, OF_CHAT));
        let seen = ask(TargetConfig::new("demo/llm", provider, "m"), &upstream).await;
        assert_eq!(seen, (vec![told.clone()], named.to_owned()), "{provider}");
    }
    let refusal = "Invalid value: 'thinking'. Supported values are: 'text' and 'refusal'.";
    let upstream = Upstream::new().replies(refused(refusal)).replies(reply(200, OF_CHAT));
    assert_eq!(ask(acme(), &upstream).await.0, [whole, said]);

    let message = r#"{"content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn"}"#;
    let upstream = Upstream::new().replies(reply(200, message));
    let (told, named) = ask(TargetConfig::new("demo/llm", "anthropic", "claude-sonnet-4-5"), &upstream).await;
    assert!(!told[0].to_string().contains("Hm."), "nobody has signed it: {told:?}");
    assert_eq!(named, "messages.reasoning");
}

#[tokio::test]
async fn a_model_that_cannot_but_think_is_told_not_to_once() {
    let config = TargetConfig::new("demo/router", "openrouter", "google/gemini-3-pro");
    let refusal = "Reasoning is mandatory for this endpoint and cannot be disabled.";
    let (upstream, named) =
        taught(config, refusal, OF_CHAT, || messages(r#","thinking":{"type":"disabled"}"#)).await;
    assert_eq!(named, "thinking");
    assert_eq!(asked(&upstream, "/reasoning"), [json!({"enabled": false}), Value::Null, Value::Null]);
}

#[test]
fn claude_at_openrouter_is_asked_to_think_where_it_can() {
    let called = json!({"type": "tool_use", "id": "b", "name": "f", "input": {}});
    let signed = json!({"type": "redacted_thinking", "data": r#"openrouter.details.{"type":"reasoning.text","text":"hm","signature":"EqoB","index":0}"#});
    let own = json!({"type": "thinking", "thinking": "hm", "signature": "EqoB"});
    let turn = |content: &Value| {
        json!([
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": content},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "b", "content": "1"}]},
        ])
    };
    let asked_anew = json!([{"role": "user", "content": "a"}]);
    let (effort, budget) = (json!({"effort": "medium"}), json!({"max_tokens": 9_000}));
    for (model, messages, must_call, told) in [
        ("claude-sonnet-4.5", &asked_anew, false, &budget),
        ("claude-sonnet-4.5", &turn(&json!([called, signed])), false, &budget),
        // A turn that has begun elsewhere.
        ("claude-sonnet-4.5", &turn(&json!([own, called])), false, &Value::Null),
        ("claude-opus-4.6", &turn(&json!([own, called])), false, &effort),
        ("claude-sonnet-4.5", &asked_anew, true, &Value::Null),
        ("claude-sonnet-5.5", &asked_anew, true, &effort),
    ] {
        let choice = if must_call { "any" } else { "auto" };
        let body = json!({"model": "any", "max_tokens": 20_000, "messages": messages, "temperature": 0.5,
            "thinking": {"type": "enabled", "budget_tokens": 9_000}, "tool_choice": {"type": choice},
            "tools": [{"name": "f", "input_schema": {"type": "object"}}]});
        let (mut request, _) = ClientDialect::Anthropic.decode_request(body.to_string().as_bytes()).unwrap();
        request.model = format!("anthropic/{model}");
        let (body, losses) = Dialect::OpenAi.encode_request(&request, "openrouter").unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let lost = losses.to_string();
        assert_eq!(body.get("reasoning").unwrap_or(&Value::Null), told, "{model} {messages} {lost}");
        assert_eq!(lost.split(',').any(|it| it == "thinking"), told.is_null(), "{model} {messages} {lost}");
        // While it thinks, nobody has a say in how tokens are drawn.
        assert_eq!(body.get("temperature").is_some(), told.is_null(), "{model} {messages} {lost}");
    }
}

#[test]
fn a_budget_at_openrouter_leaves_room_for_the_answer() {
    for (model, most, told) in [
        ("anthropic/claude-sonnet-4.5", 20_000, json!({"max_tokens": 9_000})),
        ("anthropic/claude-sonnet-4.5", 5_000, json!({"effort": "medium"})),
        ("google/gemini-2.5-pro", 9_001, json!({"max_tokens": 9_000})),
        ("google/gemini-2.5-pro", 9_000, json!({"effort": "medium"})),
        ("google/gemini-3-pro", 20_000, json!({"effort": "medium"})),
    ] {
        let body = json!({"model": "any", "max_tokens": most, "messages": [{"role": "user", "content": "a"}],
            "thinking": {"type": "enabled", "budget_tokens": 9_000}});
        let (mut request, _) = ClientDialect::Anthropic.decode_request(body.to_string().as_bytes()).unwrap();
        request.model = model.to_owned();
        let (body, _) = Dialect::OpenAi.encode_request(&request, "openrouter").unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&body["reasoning"], &body["max_tokens"]), (&told, &json!(most)), "{model} {most}");
    }
}

#[tokio::test]
async fn a_model_that_misses_reasoning_keeps_what_there_is() {
    let body = json!({"model": "any", "max_tokens": 9, "messages": [
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": ""}, {"type": "text", "text": "a"}]},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": "d"},
    ]});
    let wants = "The `reasoning_content` in the thinking mode must be passed back to the API.";
    let upstream = Upstream::new().replies(refused(wants)).replies(reply(200, OF_CHAT));
    let (head, answer) = send(layer(acme()), &upstream, post("/v1/messages", &body.to_string())).await;
    assert_eq!(head.status, 200, "{answer}");
    let told =
        ["/messages/0/reasoning_content", "/messages/2/reasoning_content"].map(|at| asked(&upstream, at));
    assert_eq!(told, [[json!("Hm."), json!("Hm.")], [Value::Null, json!(" ")]]);
}

#[tokio::test]
async fn what_stands_for_a_signature_goes_where_it_is_refused_and_nothing_is_lost() {
    let text = json!({"type": "thinking", "thinking": "Hm.", "signature": ""});
    let mut config = acme();
    config.model = "google/gemini-3-pro".to_owned();
    let refusal = "Unknown parameter: 'messages[1].tool_calls[0].extra_content'.";
    for request in [thoughtful(&text), strict(thoughtful(&text))] {
        let upstream = Upstream::new().replies(refused(refusal)).replies(reply(200, OF_CHAT));
        let (head, body) = send(layer(config.clone()), &upstream, request).await;
        assert_eq!((head.status.as_u16(), head.headers.get("x-nantian-dropped")), (200, None), "{body}");
        let signatures = asked(&upstream, "/messages/1/tool_calls/0/extra_content/google/thought_signature");
        assert_eq!(signatures, [json!("skip_thought_signature_validator"), Value::Null]);
        assert_eq!(asked(&upstream, "/messages/1/reasoning_content"), [json!("Hm."), json!("Hm.")]);
    }
    let signed = json!({"type": "thinking", "thinking": "", "signature": "google.s"});
    let upstream = Upstream::new().replies(refused(refusal));
    assert_eq!(send(layer(config), &upstream, strict(thoughtful(&signed))).await.0.status, 400);
}

#[tokio::test]
async fn a_model_that_is_known_to_want_its_reasoning_gets_it_wherever_it_runs() {
    let text = json!({"type": "thinking", "thinking": "Hm.", "signature": ""});
    let config =
        || TargetConfig::new("demo/deep", "azure-openai", "prod-deepseek").with_endpoint("http://provider");
    let wants = "The `reasoning_content` in the thinking mode must be passed back to the API.";
    let layer = layer(config());
    let upstream =
        Upstream::new().replies(refused(wants)).replies(reply(200, OF_CHAT)).replies(reply(200, OF_CHAT));
    for lost in [Some("messages.reasoning"), None] {
        let (head, body) = send(layer.clone(), &upstream, thoughtful(&text)).await;
        assert_eq!(head.status, 200, "{body}");
        assert_eq!(head.headers.get("x-nantian-dropped").map(|it| it.to_str().unwrap()), lost);
    }
    assert_eq!(asked(&upstream, "/messages/1/reasoning_content"), [Value::Null, json!(" "), json!("Hm.")]);
}

#[tokio::test]
async fn models_of_responses_are_told_how_much_to_think_whoever_has_made_them() {
    let thinking = r#","thinking":{"type":"enabled","budget_tokens":20000}"#;
    for (provider, model, effort, included, lost) in [
        ("openai", "gpt-5", json!("high"), json!([ENCRYPTED]), ""),
        ("vllm", "openai/gpt-oss-120b", json!("high"), Value::Null, ""),
        ("xai", "grok-4.3", json!("high"), json!([ENCRYPTED]), ""),
        ("xai", "grok-4-fast", Value::Null, json!([ENCRYPTED]), "thinking"),
        ("azure-openai", "prod-reasoner", Value::Null, json!([ENCRYPTED]), "thinking"),
        ("acme", "smart", Value::Null, Value::Null, "thinking"),
    ] {
        let upstream = Upstream::new().replies(reply(200, OF_RESPONSES));
        let (head, body) = send(layer(responses(provider, model)), &upstream, messages(thinking)).await;
        assert_eq!(head.status, 200, "{body}");
        let told = (asked(&upstream, "/reasoning/effort"), asked(&upstream, "/include"));
        assert_eq!(told, (vec![effort], vec![included]), "{provider} {model}");
        let named = head.headers.get("x-nantian-dropped").map_or("", |it| it.to_str().unwrap());
        assert_eq!(named, lost, "{provider} {model}");
    }
}

#[tokio::test]
async fn a_deployment_that_does_not_think_is_asked_for_no_encrypted_reasoning_any_more() {
    let refusal = "Encrypted content is not supported with this model.";
    let config = responses("azure-openai", "prod");
    let (upstream, named) = taught(config, refusal, OF_RESPONSES, || strict(messages(""))).await;
    assert_eq!(asked(&upstream, "/include"), [json!([ENCRYPTED]), Value::Null, Value::Null]);
    assert_eq!(named, "");
}

#[tokio::test]
async fn reasoning_that_a_limit_has_cut_is_left_out_of_responses_for_nothing_comes_after_it() {
    let thought =
        |id: &str| json!({"type": "thinking", "thinking": "", "signature": format!("openai.{id}.x")});
    let body = json!({"model": "any", "max_tokens": 99, "messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [thought("rs_1"), {"type": "text", "text": "b"}, thought("rs_2")]},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": [thought("rs_3"), {"type": "text", "text": ""}]},
        {"role": "user", "content": "d"},
    ]});
    let upstream = Upstream::new().replies(reply(200, OF_RESPONSES));
    let request = post("/v1/messages", &body.to_string());
    let (head, answer) = send(layer(responses("openai", "gpt-5")), &upstream, request).await;
    assert_eq!(head.status, 200, "{answer}");
    assert_eq!(head.headers["x-nantian-dropped"], "messages.reasoning");
    let input = asked(&upstream, "/input").remove(0);
    let ids: Vec<_> = input.as_array().unwrap().iter().map(|item| item["id"].as_str()).collect();
    assert_eq!(ids, [None, Some("rs_1"), None, None, None]);
}

#[tokio::test]
async fn reasoning_stays_where_the_next_message_of_the_model_goes_on() {
    let thought =
        |id: &str| json!({"type": "thinking", "thinking": "", "signature": format!("openai.{id}.x")});
    let body = json!({"model": "any", "max_tokens": 99, "messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [thought("rs_1")]},
        {"role": "assistant", "content": [thought("rs_2")]},
        {"role": "assistant", "content": [{"type": "text", "text": "b"}, thought("rs_3")]},
        {"role": "user", "content": "c"},
    ]});
    let upstream = Upstream::new().replies(reply(200, OF_RESPONSES));
    let request = post("/v1/messages", &body.to_string());
    let (head, answer) = send(layer(responses("openai", "gpt-5")), &upstream, request).await;
    assert_eq!(head.status, 200, "{answer}");
    assert_eq!(head.headers["x-nantian-dropped"], "messages.reasoning", "of the last one");
    let input = asked(&upstream, "/input").remove(0);
    let ids: Vec<_> = input.as_array().unwrap().iter().map(|item| item["id"].as_str()).collect();
    assert_eq!(ids, [None, Some("rs_1"), Some("rs_2"), None, None]);
}

#[tokio::test]
async fn some_input_is_left_where_the_model_has_only_thought() {
    let thought = json!({"type": "thinking", "thinking": "", "signature": "openai.rs_1.x"});
    let messages = json!([{"role": "assistant", "content": [thought]}]);
    for (system, input) in [
        (json!("Answer."), json!({"role": "system", "content": "Answer."})),
        (json!([]), json!({"role": "user", "content": "Begin."})),
    ] {
        let body = json!({"model": "any", "max_tokens": 99, "system": system, "messages": messages});
        let upstream = Upstream::new().replies(reply(200, OF_RESPONSES));
        let request = post("/v1/messages", &body.to_string());
        let (head, answer) = send(layer(responses("openai", "gpt-5")), &upstream, request).await;
        assert_eq!(head.status, 200, "{answer}");
        assert_eq!(asked(&upstream, "/input"), [json!([input])]);
        assert_eq!(asked(&upstream, "/instructions"), [Value::Null]);
    }
}

/// What OpenAI is asked in turn for a body that passes, after refusals with these words.
async fn passed(input: &Value, refusals: &[&str]) -> (u16, Vec<Value>) {
    let mut upstream = Upstream::new();
    for refusal in refusals {
        upstream = upstream.replies(refused(refusal));
    }
    let upstream = upstream.replies(reply(200, OF_RESPONSES));
    let request = post("/v1/responses", &json!({"model": "any", "input": input}).to_string());
    let config = TargetConfig::new("demo/gpt", "openai", "gpt-5");
    let (head, _) = send(layer(config), &upstream, request).await;
    let named = head.headers.get("x-nantian-dropped").map(|it| it.to_str().unwrap());
    assert_eq!(named, (head.status == 200).then_some("messages.reasoning"));
    (head.status.as_u16(), asked(&upstream, "/input"))
}

const ALONE: &str = "Item 'rs_2' of type 'reasoning' was provided without its required following item.";

#[tokio::test]
async fn reasoning_that_openai_finds_alone_is_left_out_where_it_passes_and_no_other() {
    let thought = |id: &str| json!({"type": "reasoning", "id": id, "summary": [], "encrypted_content": "x"});
    let [first, alone] = ["rs_1", "rs_2"].map(thought);
    let called =
        json!({"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"});
    let result = json!({"type": "function_call_output", "call_id": "c", "output": "1"});
    let user = json!({"role": "user", "content": "a"});
    let input = json!([user, first, called, alone, result, alone, user, alone]);
    let left = json!([user, first, called, result, user]);
    assert_eq!(passed(&input, &[ALONE]).await, (200, vec![input.clone(), left.clone()]));

    // The account has changed as well.
    let foreign = "The encrypted content x could not be verified.";
    let mut unnamed = called.clone();
    unnamed.as_object_mut().unwrap().remove("id");
    let none = json!([user, unnamed, result, user]);
    assert_eq!(passed(&input, &[ALONE, foreign]).await, (200, vec![input.clone(), left, none]));

    // What it came with is not what comes after it.
    let input = json!([user, first, called, result]);
    assert_eq!(passed(&input, &[ALONE]).await, (200, vec![input.clone(), json!([user, unnamed, result])]));
}

#[tokio::test]
async fn no_input_is_emptied_of_reasoning_that_passes() {
    let thought = json!({"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "x"});
    for refusal in [ALONE, "The encrypted content x could not be verified."] {
        let input = json!([thought]);
        assert_eq!(passed(&input, &[refusal]).await, (400, vec![input]));
    }
}

//! What some models refuse of conversations that others take: they are asked without, and it is named.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use nantian_ai::{Dialect, TargetConfig, retry::Attempts};
use serde_json::{Value, json};

use crate::{
    support::{Upstream, json as reply, layer, post, send},
    taught::{asked, refused, strict, taught},
};

const OF_ANTHROPIC: &str = r#"{"id":"m","type":"message","role":"assistant","content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn","usage":{"input_tokens":3,"output_tokens":4}}"#;
const OF_BEDROCK: &str = r#"{"output":{"message":{"role":"assistant","content":[{"text":"Hi"}]}},"stopReason":"end_turn","usage":{"inputTokens":3,"outputTokens":4}}"#;
const OF_GEMINI: &str =
    r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"Hi"}]},"finishReason":"STOP"}]}"#;
const OF_OPENAI: &str =
    r#"{"choices":[{"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}"#;
const OF_RESPONSES: &str = r#"{"id":"resp_1","object":"response","status":"completed","output":[{"type":"message","role":"assistant","content":[{"type":"output_text","text":"Hi"}]}]}"#;

const NO_PREFILL: &str =
    "This model does not support assistant message prefill. The conversation must end with a user message.";

fn bedrock(model: &str) -> TargetConfig {
    TargetConfig::new("demo/claude", "bedrock", model)
        .with_endpoint("https://bedrock-runtime.eu-central-1.amazonaws.com")
}

/// A chat that ends so.
fn chat(more: &Value) -> Request<Full<Bytes>> {
    let mut body = json!({"model": "any", "messages": [{"role": "user", "content": "Hi"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    post("/v1/chat/completions", &body.to_string())
}

fn ends_with_the_model() -> Value {
    json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "So far, "}]})
}

#[tokio::test]
async fn a_model_at_bedrock_that_enforces_no_schema_is_told_it_by_the_system() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": false});
    let format =
        json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}});
    for (model, refusal) in [
        (
            "us.anthropic.claude-sonnet-5",
            "The model returned the following errors: output_config.format: Extra inputs are not permitted",
        ),
        (
            "amazon.nova-lite-v1:0",
            "This model doesn't support the outputConfig field. Remove outputConfig and try again.",
        ),
    ] {
        let (upstream, named) = taught(bedrock(model), refusal, OF_BEDROCK, || chat(&format)).await;
        let is_enforced: Vec<_> =
            asked(&upstream, "/outputConfig").iter().map(|config| !config.is_null()).collect();
        assert_eq!(is_enforced, [true, false, false], "{model}");
        let said = asked(&upstream, "/system/0/text");
        assert!(said[0].is_null() && said[1].as_str().unwrap().ends_with(&schema.to_string()), "{said:?}");
        assert_eq!((&said[1], &*named), (&said[2], "response_format.json_schema"));

        let upstream = Upstream::new().replies(refused(refusal));
        assert_eq!(send(layer(bedrock(model)), &upstream, strict(chat(&format))).await.0.status, 400);
    }
}

#[tokio::test]
async fn a_model_at_bedrock_that_knows_no_strict_tools_keeps_the_schema_of_its_answer() {
    const REFUSED: &str =
        "The model returned the following errors: tools.0.custom.strict: Extra inputs are not permitted";
    let schema = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let more = json!({
        "tools": [{"type": "function", "function": {"name": "f", "strict": true, "parameters": schema}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
    });
    let config = bedrock("us.anthropic.claude-opus-4-8");
    let (upstream, named) = taught(config, REFUSED, OF_BEDROCK, || chat(&more)).await;
    let strict = asked(&upstream, "/toolConfig/tools/0/toolSpec/strict");
    assert_eq!((strict, &*named), (vec![json!(true), Value::Null, Value::Null], "tools.strict"));
    assert!(asked(&upstream, "/outputConfig").iter().all(Value::is_object));
}

#[tokio::test]
async fn a_model_at_bedrock_that_cannot_be_made_to_call_a_tool_is_left_to_it() {
    let choose = |choice: Value| {
        let tools = json!([{"type": "function", "function": {"name": "f"}}]);
        chat(&json!({"tools": tools, "tool_choice": choice}))
    };
    let named = || choose(json!({"type": "function", "function": {"name": "f"}}));
    let refusal = |kind: &str| {
        let field = format!("toolConfig.toolChoice.{kind}");
        refused(&format!("This model doesn't support the {field} field. Remove {field} and try again."))
    };
    let config = || bedrock("mistral.mistral-large-2407-v1:0");
    let upstream = Upstream::new()
        .replies(refusal("tool"))
        .replies(reply(200, OF_BEDROCK))
        .replies(reply(200, OF_BEDROCK));
    let layer_of_all = layer(config());
    let (head, body) = send(layer_of_all.clone(), &upstream, named()).await;
    assert_eq!(head.status, 200, "{body}");
    assert_eq!(head.headers["x-nantian-dropped"], "tool_choice");
    // Nothing is said of that by which another client's tool is called.
    send(layer_of_all, &upstream, choose(json!("required"))).await;
    let tool = json!({"tool": {"name": "f"}});
    assert_eq!(asked(&upstream, "/toolConfig/toolChoice"), [tool, Value::Null, json!({"any": {}})]);
    assert!(asked(&upstream, "/toolConfig/tools").iter().all(Value::is_array));
    let upstream = Upstream::new().replies(refusal("tool"));
    assert_eq!(send(layer(config()), &upstream, strict(named())).await.0.status, 400);
}

#[tokio::test]
async fn a_model_that_does_not_go_on_with_what_it_has_said_is_asked_to_by_a_user() {
    let claude = TargetConfig::new("demo/claude", "anthropic", "claude-opus-4-8");
    let gemini = TargetConfig::new("demo/gemini", "gemini", "gemini-3.6-flash");
    let at_bedrock = format!("The model returned the following errors: {NO_PREFILL}");
    for (config, refusal, answer, last) in [
        (claude, NO_PREFILL, OF_ANTHROPIC, "/messages/2"),
        (bedrock("us.anthropic.claude-opus-4-8"), &*at_bedrock, OF_BEDROCK, "/messages/2"),
        (gemini, "Requests ending with a model turn are not supported.", OF_GEMINI, "/contents/2"),
    ] {
        // Whether it is to think changes nothing.
        for thinks in [false, true] {
            let mut body = ends_with_the_model();
            if thinks {
                body["reasoning_effort"] = json!("low");
            }
            let (upstream, named) = taught(config.clone(), refusal, answer, || chat(&body)).await;
            let said = asked(&upstream, last);
            assert!(said[0].is_null() && said[1].to_string().contains("Continue."), "{said:?}");
            assert_eq!((&said[1]["role"], &said[1], &*named), (&json!("user"), &said[2], "messages.prefill"));
        }
    }
}

#[tokio::test]
async fn who_wants_reasoning_omitted_asks_for_no_summary_of_it() {
    for (display, summary) in [
        ("", json!("auto")),
        (r#","display":"summarized""#, json!("auto")),
        (r#","display":"omitted""#, Value::Null),
    ] {
        let config = TargetConfig::new("demo/gpt", "openai", "gpt-5.4").with_format(Dialect::Responses);
        let upstream = Upstream::new().replies(refused("no"));
        let body = format!(
            r#"{{"model":"any","max_tokens":9,"thinking":{{"type":"adaptive"{display}}},"output_config":{{"effort":"high"}},"messages":[{{"role":"user","content":"Hi"}}]}}"#
        );
        send(layer(config), &upstream, post("/v1/messages", &body)).await;
        assert_eq!(
            asked(&upstream, "/reasoning"),
            [match summary {
                Value::Null => json!({"effort": "high"}),
                summary => json!({"effort": "high", "summary": summary}),
            }]
        );
    }
}

#[tokio::test]
async fn an_organisation_that_is_not_verified_asks_for_no_summaries_of_reasoning() {
    const REFUSED: &str = "Your organization must be verified to generate reasoning summaries. Please go to: https://platform.openai.com/settings/organization/general and click on Verify Organization.";
    let config = || TargetConfig::new("demo/gpt", "openai", "gpt-5.4").with_format(Dialect::Responses);
    let request = || {
        let body = r#"{"model":"any","max_tokens":9000,"thinking":{"type":"enabled","budget_tokens":8000},"messages":[{"role":"user","content":"Hi"}]}"#;
        post("/v1/messages", body)
    };
    let (upstream, named) = taught(config(), REFUSED, OF_RESPONSES, request).await;
    assert_eq!(asked(&upstream, "/reasoning/summary"), [json!("auto"), Value::Null, Value::Null]);
    assert_eq!(asked(&upstream, "/reasoning/effort"), ["low", "low", "low"]);
    assert_eq!(named, "thinking.display");
    let upstream = Upstream::new().replies(refused(REFUSED));
    assert_eq!(send(layer(config()), &upstream, strict(request())).await.0.status, 400);
}

#[tokio::test]
async fn a_model_of_responses_that_takes_no_say_in_how_tokens_are_drawn_is_told_nothing_of_it() {
    let refusal = "Unsupported parameter: 'temperature' is not supported with this model.";
    let config = TargetConfig::new("demo/gpt", "azure-openai", "prod")
        .with_format(Dialect::Responses)
        .with_endpoint("http://provider");
    let drawn = || chat(&json!({"temperature": 0.2, "top_p": 1}));
    let (upstream, named) = taught(config, refusal, OF_RESPONSES, drawn).await;
    assert_eq!(asked(&upstream, "/temperature"), [json!(0.2), Value::Null, Value::Null]);
    assert_eq!(asked(&upstream, "/top_p")[1..], [Value::Null, Value::Null]);
    assert_eq!(named, "temperature");
}

#[tokio::test]
async fn a_template_that_has_the_model_think_first_gets_a_user_after_what_the_model_has_said() {
    let llama = TargetConfig::new("demo/llama", "llamacpp", "qwen3").with_endpoint("http://provider");
    let refusal = "Assistant response prefill is incompatible with enable_thinking.";
    let mut said = ends_with_the_model();
    said["max_tokens"] = json!(9);
    let request = || post("/v1/messages", &said.to_string());
    let (upstream, named) = taught(llama, refusal, OF_OPENAI, request).await;
    let last = asked(&upstream, "/messages/2");
    assert_eq!((&last[0], &last[1]["role"], &last[1]), (&Value::Null, &json!("user"), &last[2]));
    assert_eq!(named, "messages.prefill");
}

#[tokio::test]
async fn who_wants_a_template_to_think_tells_nothing_of_those_who_do_not() {
    let llama = layer(TargetConfig::new("demo/llama", "llamacpp", "qwen3").with_endpoint("http://provider"));
    let refusal = "Assistant response prefill is incompatible with enable_thinking.";
    let request = |thinking: Value| {
        let mut said = ends_with_the_model();
        said["max_tokens"] = json!(9000);
        said["thinking"] = thinking;
        post("/v1/messages", &said.to_string())
    };
    let answer = || reply(200, OF_OPENAI);
    // Older versions of llama.cpp say it so.
    let mut refused = refused(refusal);
    *refused.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
    let upstream = Upstream::new().replies(refused).replies(answer()).replies(answer());
    let thinks = request(json!({"type": "enabled", "budget_tokens": 8000}));
    assert_eq!(send(llama.clone(), &upstream, thinks).await.0.status, 200);
    send(llama, &upstream, request(json!({"type": "disabled"}))).await;
    let last = asked(&upstream, "/messages/2");
    assert_eq!((&last[1]["role"], &last[2]), (&json!("user"), &Value::Null));
}

#[tokio::test]
async fn space_at_the_end_of_what_the_model_goes_on_with_is_left_out() {
    for (config, answer) in [
        (TargetConfig::new("demo/claude", "anthropic", "claude-sonnet-4-5"), OF_ANTHROPIC),
        (bedrock("us.anthropic.claude-sonnet-4-5-20250929-v1:0"), OF_BEDROCK),
    ] {
        let upstream = Upstream::new().replies(reply(200, answer));
        let (head, _) = send(layer(config), &upstream, chat(&ends_with_the_model())).await;
        assert!(!head.headers.contains_key("x-nantian-dropped"));
        assert_eq!(asked(&upstream, "/messages/1/content/0/text"), ["So far,"]);
    }
}

#[tokio::test]
async fn a_client_of_anthropic_that_goes_on_for_another_model_is_told_that_this_one_does_not() {
    let body = |model: &str| {
        format!(
            r#"{{"model":"{model}","max_tokens":9,"messages":[{{"role":"user","content":"Hi"}}, {{"role":"assistant","content":"{{"}} ]}}"#
        )
    };
    let config = || TargetConfig::new("demo/claude", "anthropic", "claude-opus-4-8");
    let older = || post("/v1/messages", &body("claude-sonnet-4-5"));
    let (upstream, named) = taught(config(), NO_PREFILL, OF_ANTHROPIC, older).await;
    let gone_on = body("claude-opus-4-8").replace("} ]", r#"},{"role":"user","content":"Continue."} ]"#);
    let sent: Vec<_> = upstream.all().into_iter().map(|(_, body)| body).collect();
    assert_eq!(sent, [&*body("claude-opus-4-8"), &gone_on, &gone_on]);
    assert_eq!(named, "messages.prefill");
    // Who names the model itself knows what it takes.
    let upstream = Upstream::new().replies(refused(NO_PREFILL));
    let (head, said) = send(layer(config()), &upstream, post("/v1/messages", &body("claude-opus-4-8"))).await;
    assert!(head.status == 400 && said.contains(NO_PREFILL), "{said}");
}

#[tokio::test]
async fn a_model_that_takes_no_penalties_is_told_none() {
    let body = r#"{"model":"any","stream":false,"messages":[{"role":"user","content":"Hi"}],"options":{"frequency_penalty":0.5,"presence_penalty":0,"seed":3}}"#;
    let gemini = TargetConfig::new("demo/gemini", "gemini", "gemini-2.5-flash");
    let grok = TargetConfig::new("demo/grok", "xai", "grok-4.20-0309-non-reasoning");
    let of_grok = "Model grok-4.20-0309-non-reasoning does not support parameter presencePenalty.";
    for (config, refusal, answer, path, name) in [
        (
            gemini,
            "Penalty is not enabled for this model",
            OF_GEMINI,
            "/generationConfig",
            ["frequencyPenalty", "presencePenalty"],
        ),
        (grok, of_grok, OF_OPENAI, "", ["frequency_penalty", "presence_penalty"]),
    ] {
        let (upstream, named) = taught(config, refusal, answer, || post("/api/chat", body)).await;
        let has: Vec<_> = asked(&upstream, path)
            .iter()
            .map(|config| (name.map(|name| config.get(name).is_some()), config["seed"] == 3))
            .collect();
        let without = ([false, false], true);
        assert_eq!((has, &*named), (vec![([true, true], true), without, without], "frequency_penalty"));
    }
}

#[tokio::test]
async fn reasoning_that_another_account_has_encrypted_is_left_out_and_named() {
    let body = |reasoning: &str| {
        format!(
            r#"{{"model":"gpt-5","store":false,"include":["reasoning.encrypted_content"],"input":[{{"role":"user","content":"Hi"}}{reasoning},{{"type":"function_call","call_id":"c","name":"f","arguments":"{{}}"}},{{"type":"function_call_output","call_id":"c","output":"1"}}]}}"#
        )
    };
    let encrypted = body(r#",{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"gAAA"}"#);
    let own = TargetConfig::new("demo/gpt", "openai", "gpt-5");
    let azure = TargetConfig::new("demo/gpt", "azure-openai", "gpt-5")
        .with_endpoint("https://demo.openai.azure.com/openai/v1")
        .with_format(Dialect::Responses);
    for config in [own, azure] {
        for refusal in [
            r#"{"error":{"message":"The encrypted content gAAA...5IEt could not be verified.","type":"invalid_request_error","param":null,"code":"invalid_encrypted_content"}}"#,
            r#"{"error":{"message":"The encrypted content for item rs_1 could not be verified.","code":null}}"#,
        ] {
            let layer = layer(config.clone());
            let upstream = Upstream::new()
                .replies(reply(400, refusal))
                .replies(reply(200, OF_RESPONSES))
                .replies(reply(200, OF_RESPONSES));
            let (head, said) = send(layer.clone(), &upstream, post("/v1/responses", &encrypted)).await;
            assert_eq!((head.status.as_u16(), head.extensions.get()), (200, Some(&Attempts(2))), "{said}");
            assert_eq!(head.headers["x-nantian-dropped"], "messages.reasoning");
            // What this account has encrypted itself it takes.
            let (head, _) = send(layer, &upstream, post("/v1/responses", &encrypted)).await;
            assert!(!head.headers.contains_key("x-nantian-dropped"));
            let kinds = asked(&upstream, "/input/1/type");
            assert_eq!(kinds, ["reasoning", "function_call", "reasoning"]);
        }
        let upstream =
            Upstream::new().replies(refused("The encrypted content gAAA...5IEt could not be verified."));
        let (head, _) = send(layer(config), &upstream, strict(post("/v1/responses", &encrypted))).await;
        assert_eq!((head.status.as_u16(), upstream.requests()), (400, 1));
    }
}

#[tokio::test]
async fn what_only_some_models_at_bedrock_take_of_how_to_answer_is_left_out() {
    let more = json!({"stop": ["END"], "temperature": 0.5, "max_tokens": 9});
    for (field, refusal, lost) in [
        (
            "/stopSequences",
            "This model doesn't support the stopSequences field. Remove stopSequences and try again.",
            "stop",
        ),
        (
            "/temperature",
            "This model doesn't support the temperature field. Remove temperature and try again.",
            "temperature",
        ),
    ] {
        let config = || bedrock("openai.gpt-oss-120b-1:0");
        let (upstream, named) = taught(config(), refusal, OF_BEDROCK, || chat(&more)).await;
        let said = asked(&upstream, &format!("/inferenceConfig{field}"));
        assert!(!said[0].is_null() && said[1].is_null() && said[2].is_null(), "{said:?}");
        assert_eq!(asked(&upstream, "/inferenceConfig/maxTokens"), [9, 9, 9]);
        assert_eq!(named, lost);

        let upstream = Upstream::new().replies(refused(refusal));
        assert_eq!(send(layer(config()), &upstream, strict(chat(&more))).await.0.status, 400);
    }
}

#[tokio::test]
async fn a_model_that_calls_no_tools_in_a_stream_is_asked_for_its_answer_whole() {
    let more = json!({
        "stream": true,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
    });
    let refusal = "This model doesn't support tool use in streaming mode.";
    let called = r#"{"output":{"message":{"role":"assistant","content":[{"toolUse":{"toolUseId":"t","name":"f","input":{}}}]}},"stopReason":"tool_use","usage":{"inputTokens":3,"outputTokens":4}}"#;
    let layer = layer(bedrock("us.meta.llama3-3-70b-instruct-v1:0"));
    let upstream =
        Upstream::new().replies(refused(refusal)).replies(reply(200, called)).replies(reply(200, called));
    for _ in 0..2 {
        let (head, body) = send(layer.clone(), &upstream, strict(chat(&more))).await;
        assert_eq!(
            (head.status.as_u16(), &head.headers["content-type"]),
            (200, &"text/event-stream".parse().unwrap())
        );
        assert!(body.contains(r#""name":"f""#) && body.ends_with("data: [DONE]\n\n"), "{body}");
    }
    let (asked, accepted): (Vec<_>, Vec<_>) = upstream
        .all()
        .iter()
        .map(|(head, _)| {
            let operation = head.uri.path().rsplit('/').next().unwrap().to_owned();
            (operation, head.headers["accept"].to_str().unwrap().to_owned())
        })
        .unzip();
    assert_eq!(asked, ["converse-stream", "converse", "converse"]);
    assert_eq!(accepted[1..], ["application/json", "application/json"]);
}

#[tokio::test]
async fn nova_at_its_highest_level_is_told_neither_a_limit_nor_how_to_draw() {
    let nova = || bedrock("us.amazon.nova-2-lite-v1:0");
    let level = "/additionalModelRequestFields/reasoningConfig/maxReasoningEffort";
    for (more, effort, config, lost) in [
        (json!({"reasoning_effort": "high", "temperature": 0.5}), "high", Value::Null, Some("temperature")),
        (
            json!({"reasoning_effort": "high", "max_tokens": 9}),
            "medium",
            json!({"maxTokens": 9}),
            Some("thinking"),
        ),
        (json!({"reasoning_effort": "low", "max_tokens": 9}), "low", json!({"maxTokens": 9}), None),
    ] {
        let upstream = Upstream::new().replies(reply(200, OF_BEDROCK));
        let (head, _) = send(layer(nova()), &upstream, chat(&more)).await;
        assert_eq!(asked(&upstream, level), [effort]);
        assert_eq!(asked(&upstream, "/inferenceConfig"), [config]);
        let named = head.headers.get("x-nantian-dropped").map(|it| it.to_str().unwrap());
        assert_eq!(named, lost, "{more}");
    }
}

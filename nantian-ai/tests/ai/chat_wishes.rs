//! What providers of Chat Completions refuse of requests that were made here: they are asked without, and
//! from then on, and it is named.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use nantian_ai::{Dialect, TargetConfig, retry::Attempts};
use serde_json::{Value, json};

use crate::{
    support::{Upstream, json as reply, layer, post, send},
    taught::{self, asked, refused, strict},
};

const ANSWER: &str = r#"{"choices":[{"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#;
const TOOLS: &str = r#","tools":[{"name":"f","input_schema":{"type":"object","properties":{}}}]"#;
const NO_EFFORT: &str = "Function tools with reasoning_effort are not supported for gpt-5.6-terra in /v1/chat/completions. To use function tools, use /v1/responses or set reasoning_effort to 'none'.";
const NO_FORCE: &str = "tool_choice 'required' is incompatible with thinking enabled";

fn target(provider: &str, model: &str) -> TargetConfig {
    TargetConfig::new("demo/target", provider, model)
}

/// A conversation of Messages with more members.
fn messages(more: &str) -> Request<Full<Bytes>> {
    let body =
        format!(r#"{{"model":"any","max_tokens":9,"messages":[{{"role":"user","content":"Hi"}}]{more}}}"#);
    post("/v1/messages", &body)
}

/// As [`taught::taught`], by a provider that answers then.
async fn taught(
    config: TargetConfig,
    refusal: &str,
    request: impl Fn() -> Request<Full<Bytes>>,
) -> (Upstream, String) {
    taught::taught(config, refusal, ANSWER, request).await
}

#[tokio::test]
async fn a_model_of_openai_that_thinks_unless_told_otherwise_is_told_not_to_beside_its_tools() {
    for (thinking, effort, lost) in [
        ("", Value::Null, ""),
        (r#","thinking":{"type":"adaptive"}"#, Value::Null, "thinking"),
        (r#","thinking":{"type":"enabled","budget_tokens":20000}"#, json!("high"), "thinking"),
    ] {
        let request = || messages(&format!("{TOOLS}{thinking}"));
        let (upstream, named) = taught(target("openai", "gpt-5.6-terra"), NO_EFFORT, request).await;
        assert_eq!(asked(&upstream, "/reasoning_effort"), [effort, json!("none"), json!("none")]);
        assert_eq!(named, lost, "{thinking}");
    }
}

#[tokio::test]
async fn where_nothing_may_be_lost_a_model_is_told_not_to_think_if_the_client_has_not_asked_it_to() {
    let upstream = Upstream::new().replies(refused(NO_EFFORT)).replies(reply(200, ANSWER));
    let (head, _) = send(layer(target("openai", "gpt-5.6")), &upstream, strict(messages(TOOLS))).await;
    assert_eq!(head.status, 200);
    let thinking = format!(r#"{TOOLS},"thinking":{{"type":"adaptive"}}"#);
    let upstream = Upstream::new().replies(refused(NO_EFFORT));
    let (head, body) = send(layer(target("openai", "gpt-5.6")), &upstream, strict(messages(&thinking))).await;
    assert!(head.status == 400 && body.contains("use /v1/responses"), "{body}");
}

#[tokio::test]
async fn a_model_that_cannot_but_think_is_not_asked_again() {
    let upstream = Upstream::new().replies(refused(NO_EFFORT));
    let (head, body) = send(layer(target("openai", "gpt-6-astra")), &upstream, messages(TOOLS)).await;
    assert_eq!((head.status.as_u16(), upstream.requests()), (400, 1));
    assert!(body.contains("use /v1/responses"), "{body}");
}

#[tokio::test]
async fn a_deployment_whose_name_does_not_tell_that_it_cannot_but_think_is_passed_over() {
    let cannot = "Unsupported value: 'reasoning_effort' does not support 'none' with this model.";
    let upstream = Upstream::new().replies(refused(NO_EFFORT)).replies(refused(cannot));
    let config = target("azure-openai", "prod").with_endpoint("http://provider");
    let (head, _) = send(layer(config), &upstream, messages(TOOLS)).await;
    assert_eq!((head.status.as_u16(), upstream.requests()), (400, 2));
}

#[tokio::test]
async fn what_was_learnt_of_a_deployment_is_doubted_when_it_is_refused() {
    let cannot = "Unsupported value: 'reasoning_effort' does not support 'none' with this model.";
    let config = target("azure-openai", "prod").with_endpoint("http://provider");
    let layer = layer(config);
    let upstream = Upstream::new()
        .replies(refused(NO_EFFORT))
        .replies(reply(200, ANSWER))
        .replies(refused(cannot))
        .replies(reply(200, ANSWER));
    for status in [200, 400, 200] {
        let (head, body) = send(layer.clone(), &upstream, messages(TOOLS)).await;
        assert_eq!(head.status, status, "{body}");
    }
    assert_eq!(
        asked(&upstream, "/reasoning_effort"),
        [Value::Null, json!("none"), json!("none"), Value::Null]
    );
}

#[tokio::test]
async fn signatures_of_gemini_reach_a_model_of_any_name_behind_an_endpoint_that_takes_them() {
    let signed = r#"{"model":"any","messages":[{"role":"assistant","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"},"extra_content":{"google":{"thought_signature":"s"}}}]}]}"#;
    let path = "/messages/0/tool_calls/0/extra_content/google/thought_signature";
    let config = || target("litellm", "smart").with_format(Dialect::OpenAi).with_endpoint("http://provider");
    let unknown = "Unknown parameter: 'messages[0].tool_calls[0].extra_content'.";
    let upstream = Upstream::new().replies(reply(200, ANSWER));
    let (head, _) = send(layer(config()), &upstream, post("/v1/chat/completions", signed)).await;
    assert!(head.status == 200 && !head.headers.contains_key("x-nantian-dropped"));
    assert_eq!(asked(&upstream, path), ["s"]);
    let upstream = Upstream::new().replies(refused(unknown)).replies(reply(200, ANSWER));
    let (head, _) = send(layer(config()), &upstream, post("/v1/chat/completions", signed)).await;
    assert_eq!(
        (head.status.as_u16(), head.headers["x-nantian-dropped"].to_str().unwrap()),
        (200, "messages.reasoning")
    );
    assert_eq!(asked(&upstream, path), [json!("s"), Value::Null]);
    // Where nothing may be lost the refusal is the answer.
    let upstream = Upstream::new().replies(refused(unknown));
    let request = strict(post("/v1/chat/completions", signed));
    assert_eq!(send(layer(config()), &upstream, request).await.0.status, 400);
}

#[tokio::test]
async fn a_model_that_must_call_a_tool_does_not_think_where_it_cannot_do_both() {
    for (provider, model, refusal) in [
        ("deepseek", "deepseek-v4-pro", "Thinking mode does not support this tool_choice"),
        ("moonshot", "kimi-k2.6", NO_FORCE),
    ] {
        for (thinking, lost) in [("", ""), (r#","thinking":{"type":"adaptive"}"#, "thinking")] {
            let request = || messages(&format!(r#"{TOOLS},"tool_choice":{{"type":"any"}}{thinking}"#));
            let (upstream, named) = taught(target(provider, model), refusal, request).await;
            assert_eq!(asked(&upstream, "/thinking/type")[1..], ["disabled", "disabled"], "{model}");
            assert_eq!(asked(&upstream, "/tool_choice"), ["required", "required", "required"]);
            assert_eq!(named, lost, "{model}");
        }
    }
}

#[tokio::test]
async fn a_model_that_cannot_but_think_is_left_to_call_the_tool_or_not() {
    let upstream = Upstream::new()
        .replies(refused(NO_FORCE))
        .replies(refused("invalid thinking: only type=enabled is allowed for this model"))
        .replies(reply(200, ANSWER))
        .replies(reply(200, ANSWER));
    let layer = layer(target("moonshot", "kimi-k2.7-code"));
    for attempts in [Some(Attempts(3)), None] {
        let request = messages(&format!(r#"{TOOLS},"tool_choice":{{"type":"tool","name":"f"}}"#));
        let (head, _) = send(layer.clone(), &upstream, request).await;
        assert_eq!((head.status.as_u16(), head.extensions.get().copied()), (200, attempts));
        assert_eq!(head.headers["x-nantian-dropped"], "tool_choice");
    }
    let named = json!({"type": "function", "function": {"name": "f"}});
    assert_eq!(asked(&upstream, "/tool_choice"), [named.clone(), named, json!("auto"), json!("auto")]);
    let disabled = json!({"type": "disabled"});
    assert_eq!(asked(&upstream, "/thinking"), [Value::Null, disabled, Value::Null, Value::Null]);
}

#[tokio::test]
async fn a_client_that_wants_no_thoughts_hears_that_there_are_some() {
    let upstream = Upstream::new()
        .replies(refused(NO_FORCE))
        .replies(refused("invalid thinking: only type=enabled is allowed for this model"))
        .replies(reply(200, ANSWER));
    let layer = layer(target("moonshot", "kimi-k2.7-code"));
    let request =
        messages(&format!(r#"{TOOLS},"tool_choice":{{"type":"any"}},"thinking":{{"type":"disabled"}}"#));
    let (head, body) = send(layer, &upstream, request).await;
    assert_eq!(head.status, 200, "{body}");
    assert_eq!(head.headers["x-nantian-dropped"], "thinking,tool_choice");
}

#[tokio::test]
async fn a_model_that_takes_no_say_in_how_tokens_are_drawn_is_told_nothing_of_it() {
    for (provider, model, refusal) in [
        ("moonshot", "kimi-k2.6", "invalid temperature: only 1 is allowed for this model"),
        ("moonshot", "kimi-k2.5", "invalid top_p: only 0.95 is allowed for this model"),
        ("acme", "thinker", "Unsupported parameter: 'top_p' is not supported with this model."),
        (
            "acme",
            "thinker",
            "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.",
        ),
    ] {
        let config = target(provider, model).with_format(Dialect::OpenAi).with_endpoint("http://provider");
        let request = || messages(r#","temperature":0,"top_p":0.5"#);
        let (upstream, named) = taught(config, refusal, request).await;
        assert_eq!(asked(&upstream, "/temperature"), [json!(0.0), Value::Null, Value::Null]);
        assert_eq!(asked(&upstream, "/top_p"), [json!(0.5), Value::Null, Value::Null]);
        assert_eq!(named, "temperature,top_p");
    }
}

#[tokio::test]
async fn a_model_of_mistral_behind_its_own_tokenizer_is_not_told_how_to_think() {
    let refusal = "chat_template is not supported for Mistral tokenizers.";
    for (thinking, lost) in [
        (r#","thinking":{"type":"enabled","budget_tokens":9000}"#, "thinking"),
        (r#","thinking":{"type":"disabled"}"#, ""),
    ] {
        let request = || messages(thinking);
        let (upstream, named) = taught(target("vllm", "mistralai/Devstral-Small"), refusal, request).await;
        let told = asked(&upstream, "/chat_template_kwargs");
        assert!(told[0].is_object() && told[1..] == [Value::Null, Value::Null], "{told:?}");
        assert_eq!(asked(&upstream, "/reasoning_effort")[1..], [Value::Null, Value::Null]);
        assert_eq!(named, lost);
    }
}

#[tokio::test]
async fn a_client_that_thinks_teaches_nothing_about_how_tokens_are_drawn_for_those_that_do_not() {
    let refusal = "Unsupported parameter: 'temperature' is not supported with this model.";
    let layer = layer(target("azure-openai", "prod").with_endpoint("http://provider"));
    let upstream = Upstream::new()
        .replies(refused(refusal))
        .replies(reply(200, ANSWER))
        .replies(reply(200, ANSWER))
        .replies(refused(refusal))
        .replies(reply(200, ANSWER));
    let thinking = r#","temperature":0,"thinking":{"type":"enabled","budget_tokens":20000}"#;
    for more in [thinking, r#","temperature":0"#, thinking] {
        let (head, body) = send(layer.clone(), &upstream, messages(more)).await;
        assert_eq!(head.status, 200, "{body}");
    }
    let drawn = json!(0.0);
    assert_eq!(
        asked(&upstream, "/temperature"),
        [drawn.clone(), Value::Null, drawn.clone(), drawn, Value::Null]
    );
}

#[tokio::test]
async fn what_a_model_takes_anyway_is_not_named_as_lost() {
    let refusal = "Unsupported parameter: 'temperature' is not supported with this model.";
    let config = target("acme", "thinker").with_format(Dialect::OpenAi).with_endpoint("http://provider");
    let (upstream, named) = taught(config, refusal, || messages(r#","temperature":1"#)).await;
    assert_eq!(asked(&upstream, "/temperature").last(), Some(&Value::Null));
    assert_eq!(named, "");
}

#[tokio::test]
async fn blanks_stand_for_reasoning_that_is_cut_from_what_passes() {
    const ECHOED: &str = r#"{"model":"any","messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b","reasoning_content":"c"},{"role":"user","content":"d"}]}"#;
    let refusal = "The `reasoning_content` in the thinking mode must be passed back to the API.";
    let config = target("azure-openai", "deepseek-v4-pro").with_endpoint("http://provider");
    let (upstream, named) = taught(config, refusal, || post("/v1/chat/completions", ECHOED)).await;
    assert_eq!(asked(&upstream, "/messages/1/reasoning_content"), [Value::Null, json!(" "), json!(" ")]);
    assert_eq!(named, "messages.reasoning");
}

#[tokio::test]
async fn a_model_that_wants_reasoning_in_what_it_has_said_gets_a_blank_where_there_is_none() {
    const CALLED: &str = r#"{"model":"any","messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}]}"#;
    for (provider, model, refusal) in [
        (
            "moonshot",
            "kimi-k2.6",
            "thinking is enabled but reasoning_content is missing in assistant tool call message at index 1",
        ),
        (
            "deepseek",
            "deepseek-v4-pro",
            "The `reasoning_content` in the thinking mode must be passed back to the API.",
        ),
    ] {
        for path in ["/v1/chat/completions", "/v1/messages"] {
            let request = || post(path, CALLED);
            let (upstream, named) = taught(target(provider, model), refusal, request).await;
            let blank = json!(" ");
            assert_eq!(
                asked(&upstream, "/messages/1/reasoning_content"),
                [Value::Null, blank.clone(), blank]
            );
            assert_eq!(
                asked(&upstream, "/messages/0/reasoning_content"),
                [Value::Null, Value::Null, Value::Null]
            );
            assert_eq!(named, "");
        }
    }
}

#[tokio::test]
async fn mimo_gets_its_reasoning_back_and_a_blank_for_what_another_model_has_said() {
    const REFUSED: &str = r#"data:{"error":{"code":"400","message":"Param Incorrect","param":"The reasoning_content in the thinking mode must be passed back to the API.","type":""}}"#;
    let called = |id: &str| json!({"type": "tool_use", "id": id, "name": "f", "input": {}});
    let heard = |id: &str| json!([{"type": "tool_result", "tool_use_id": id, "content": "1"}]);
    let body = json!({"model": "any", "max_tokens": 9, "messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [called("b")]},
        {"role": "user", "content": heard("b")},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": ""}, called("c")]},
        {"role": "user", "content": heard("c")},
    ]});
    let config =
        target("xiaomi", "mimo-v2.5-pro").with_format(Dialect::OpenAi).with_endpoint("http://provider");
    let upstream = Upstream::new().replies(reply(400, REFUSED)).replies(reply(200, ANSWER));
    let (head, said) = send(layer(config), &upstream, post("/v1/messages", &body.to_string())).await;
    assert!(head.status == 200 && !head.headers.contains_key("x-nantian-dropped"), "{said}");
    assert_eq!(asked(&upstream, "/messages/1/reasoning_content"), [Value::Null, json!(" ")]);
    assert_eq!(asked(&upstream, "/messages/3/reasoning_content"), ["Hm.", "Hm."]);
}

#[tokio::test]
async fn a_model_that_answers_by_no_schema_is_told_it_by_the_system_and_answers_in_json() {
    let schema = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let body = json!({"model": "any", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}],
        "output_config": {"format": {"type": "json_schema", "schema": schema}}});
    let request = || post("/v1/messages", &body.to_string());
    for (provider, model, refusal, lost) in [
        (
            "groq",
            "llama-3.3",
            "This model does not support response format `json_schema`. See supported models.",
            "response_format.strict,response_format.json_schema",
        ),
        (
            "openai",
            "gpt-4-turbo",
            "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",
            "response_format.json_schema",
        ),
    ] {
        let (upstream, named) = taught(target(provider, model), refusal, request).await;
        assert_eq!(asked(&upstream, "/response_format/type"), ["json_schema", "json_object", "json_object"]);
        let said = asked(&upstream, "/messages/0/content");
        assert!(said[0] == "Hi" && said[1].as_str().unwrap().ends_with(&schema.to_string()), "{said:?}");
        assert_eq!(asked(&upstream, "/messages/1/content"), [Value::Null, json!("Hi"), json!("Hi")]);
        assert_eq!((&said[1], &*named), (&said[2], lost));
        let upstream = Upstream::new().replies(refused(refusal));
        assert_eq!(send(layer(target(provider, model)), &upstream, strict(request())).await.0.status, 400);
    }
}

#[tokio::test]
async fn what_a_client_says_in_the_providers_own_words_is_refused_as_it_is() {
    let body = r#"{"model":"any","temperature":0,"tool_choice":"required","tools":[],"messages":[]}"#;
    for refusal in [NO_FORCE, "invalid temperature: only 1 is allowed for this model"] {
        let upstream = Upstream::new().replies(refused(refusal));
        let request = post("/v1/chat/completions", body);
        let (head, said) = send(layer(target("moonshot", "kimi-k2.6")), &upstream, request).await;
        assert_eq!((head.status.as_u16(), upstream.requests()), (400, 1));
        assert!(said.contains(refusal), "{said}");
    }
}

#[tokio::test]
async fn a_refusal_that_quotes_a_client_teaches_nothing() {
    let quoted = format!(
        "1 validation error: temperature 5 is too high, messages: \"{NO_FORCE}: invalid temperature: only 1\""
    );
    let layer = layer(target("vllm", "qwen"));
    let request = || messages(&format!(r#"{TOOLS},"tool_choice":{{"type":"any"}},"temperature":1"#));
    let upstream = Upstream::new().replies(refused(&quoted)).replies(reply(200, ANSWER));
    assert_eq!(send(layer.clone(), &upstream, request()).await.0.status, 400);
    let (head, _) = send(layer, &upstream, request()).await;
    assert!(head.status == 200 && !head.headers.contains_key("x-nantian-dropped"));
    assert_eq!(asked(&upstream, "/tool_choice"), ["required", "required"]);
}

#[tokio::test]
async fn what_is_to_be_kept_is_not_said_to_who_refuses_it() {
    const MARKED: &str = r#"{"model":"any","prompt_cache_key":"k","messages":[{"role":"developer","content":[{"type":"text","text":"Hi","cache_control":{"type":"ephemeral"}}]}]}"#;
    const MARK: &str = "/messages/0/content/0/cache_control";
    const KEY: &str = "/prompt_cache_key";
    let request = || post("/v1/chat/completions", MARKED);
    for (provider, refusal, at, name) in [
        ("openai", "Unknown parameter: 'messages[0].content[0].cache_control'.", MARK, "cache_control"),
        ("cerebras", "property 'body.prompt_cache_key' is unsupported", KEY, "prompt_cache_key"),
    ] {
        let upstream = Upstream::new().replies(refused(refusal)).replies(reply(200, ANSWER));
        let (head, body) = send(layer(target(provider, "m")), &upstream, request()).await;
        assert_eq!(head.status, 200, "{body}");
        assert_eq!(head.headers["x-nantian-dropped"], name);
        let (first, second) = (asked(&upstream, at), asked(&upstream, if at == KEY { MARK } else { KEY }));
        assert!(!first[0].is_null() && first[1].is_null() && !second[1].is_null(), "{provider}");
        let upstream = Upstream::new().replies(refused(refusal));
        let (head, _) = send(layer(target(provider, "m")), &upstream, strict(request())).await;
        assert_eq!((head.status.as_u16(), upstream.requests()), (400, 1));
    }
    // What the client has said wrongly it has to say otherwise.
    for (provider, wrong) in [
        ("openrouter", "A maximum of 4 blocks with cache_control may be provided. Found 5."),
        ("openai", "Invalid 'prompt_cache_key': string too long. Expected a string with maximum length 64."),
    ] {
        let upstream = Upstream::new().replies(refused(wrong));
        let (head, _) = send(layer(target(provider, "m")), &upstream, request()).await;
        assert_eq!((head.status.as_u16(), upstream.requests()), (400, 1));
    }
    // These are known to.
    for (config, keeps_mark, keeps_key) in [
        (target("groq", "m"), false, false),
        (target("fireworks", "m"), false, true),
        (target("groq", "m").with_endpoint("http://provider"), true, true),
    ] {
        let upstream = Upstream::new().replies(reply(200, ANSWER));
        let (head, body) = send(layer(config), &upstream, request()).await;
        assert_eq!(head.status, 200, "{body}");
        let told = (!asked(&upstream, MARK)[0].is_null(), !asked(&upstream, KEY)[0].is_null());
        assert_eq!(told, (keeps_mark, keeps_key));
    }
}

#[tokio::test]
async fn a_limit_that_is_refused_under_one_name_gets_the_other_one() {
    const OLDER: &str = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
    const NEWER: &str = "Unrecognized request argument supplied: max_completion_tokens";
    let passing = |name: &str| {
        let body = format!(r#"{{"model":"any","{name}":9,"messages":[]}}"#);
        move || post("/v1/chat/completions", &body)
    };
    let proxy = || target("acme", "smart").with_format(Dialect::OpenAi).with_endpoint("http://provider");
    let azure = || target("azure-openai", "prod").with_endpoint("http://provider");
    let (older, newer) = ("/max_tokens", "/max_completion_tokens");
    for (from, to, (upstream, named)) in [
        (older, newer, taught(proxy(), OLDER, passing("max_tokens")).await),
        (older, newer, taught(proxy(), OLDER, || messages("")).await),
        (newer, older, taught(proxy(), NEWER, passing("max_completion_tokens")).await),
        (newer, older, taught(azure(), NEWER, || messages("")).await),
    ] {
        assert_eq!(asked(&upstream, from), [json!(9), Value::Null, Value::Null], "{from}");
        assert_eq!(asked(&upstream, to), [Value::Null, json!(9), json!(9)], "{to}");
        assert_eq!(named, "");
    }
}

#[tokio::test]
async fn a_limit_gets_its_first_name_again_where_the_model_has_changed() {
    let layer = layer(target("acme", "smart").with_format(Dialect::OpenAi).with_endpoint("http://provider"));
    let upstream = Upstream::new()
        .replies(refused("Unsupported parameter: 'max_tokens' is not supported with this model."))
        .replies(reply(200, ANSWER))
        .replies(refused("Unrecognized request argument supplied: max_completion_tokens"))
        .replies(reply(200, ANSWER))
        .replies(reply(200, ANSWER));
    for _ in 0..3 {
        let (head, body) = send(layer.clone(), &upstream, messages("")).await;
        assert_eq!(head.status, 200, "{body}");
    }
    let limit = json!(9);
    assert_eq!(
        asked(&upstream, "/max_tokens"),
        [limit.clone(), Value::Null, Value::Null, limit.clone(), limit]
    );
}

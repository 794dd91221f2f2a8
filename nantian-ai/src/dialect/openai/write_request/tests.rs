use serde_json::{Value, json};

use super::*;
use crate::ir::{Block, Document, Image, Json, Message, Reasoning, Source, ToolCall, ToolResult};

fn encode(request: &Request, provider: &str) -> Result<(Vec<u8>, Losses), Invalid> {
    super::encode(request, provider, false)
}

#[test]
fn mistral_is_told_what_it_knows_under_its_names() {
    let call = ToolCall { id: "toolu_01".to_owned(), name: "f".to_owned(), arguments: Json::empty_object() };
    let result = ToolResult { id: "toolu_01".to_owned(), content: Vec::new(), is_error: false };
    let request = Request {
        messages: vec![
            Message::new(Role::Assistant, vec![Block::ToolCall(call)]),
            Message::new(Role::User, vec![Block::ToolResult(result)]),
        ],
        seed: Some(7),
        user: Some("u".to_owned()),
        stream: true,
        ..Request::default()
    };
    let (body, losses) = encode(&request, "Mistral").unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let id = body["messages"][1]["tool_call_id"].as_str().unwrap();
    assert_eq!(id.len(), 9);
    assert_eq!(body["messages"][0]["tool_calls"][0]["id"], id);
    assert_eq!((&body["random_seed"], &body["seed"], &body["user"]), (&json!(7), &Value::Null, &Value::Null));
    assert_eq!(body["stream_options"], Value::Null);
    assert_eq!(losses.to_string(), "user");
}

#[test]
fn mistral_reads_documents_by_their_urls() {
    const PDF: &str = "data:application/pdf;base64,JVBERg==";
    const AT: &str = "https://example.com/a.pdf";
    let document = |title: Option<&str>, url: &str| {
        let source = Source::of_url(url).unwrap();
        Block::Document(Document { title: title.map(str::to_owned), source })
    };
    let content = vec![document(Some("a.pdf"), PDF), document(None, AT)];
    let request = Request { messages: vec![Message::new(Role::User, content)], ..Request::default() };
    let (body, losses) = encode(&request, "mistral").unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let expected = json!([
        {"type": "document_url", "document_url": PDF, "document_name": "a.pdf"},
        {"type": "document_url", "document_url": AT},
    ]);
    assert_eq!((&body["messages"][0]["content"], losses.is_empty()), (&expected, true));
    assert!(encode(&request, "openai").is_err());
}

fn tool(name: &str) -> Tool {
    Tool {
        name: name.to_owned(),
        description: None,
        schema: Json::empty_object(),
        strict: None,
        cached: None,
    }
}

/// What is sent, and what is lost of it.
fn sent(request: &Request, provider: &str) -> (Value, String) {
    let (body, losses) = encode(request, provider).unwrap();
    (serde_json::from_slice(&body).unwrap(), losses.to_string())
}

#[test]
fn groq_is_told_in_words_how_to_answer_where_there_are_tools() {
    let schema = Json::parse(r#"{"type":"object"}"#).unwrap();
    let schema = Output::Schema { name: None, description: None, schema, strict: None };
    for (output, tools, format, words, lost) in [
        (&schema, vec![tool("f")], Value::Null, r#": {"type":"object"}"#, "response_format"),
        (&Output::Json, vec![tool("f")], Value::Null, "JSON object and nothing else.", "response_format"),
        (&Output::Json, vec![], json!("json_object"), "JSON object and nothing else.", ""),
        (&schema, vec![], json!("json_schema"), "", ""),
    ] {
        let request = Request { output: Some(output.clone()), tools, ..Request::default() };
        let (body, named) = sent(&request, "groq");
        let said = body["messages"][0]["content"].as_str().unwrap_or_default();
        assert_eq!((body["response_format"]["type"].clone(), &*named), (format, lost));
        assert!(said.ends_with(words) && said.is_empty() == words.is_empty(), "{said}");
        let (body, named) = sent(&request, "openai");
        assert_eq!((body["response_format"].is_object(), &*named), (true, ""));
    }
}

#[test]
fn who_answers_in_json_reads_the_word_once() {
    for (said, added) in [("Who?", 1), ("Who? As Json.", 0)] {
        let messages = vec![Message::new(Role::User, vec![Block::Text(said.to_owned())])];
        let request = Request { messages, output: Some(Output::Json), ..Request::default() };
        let (body, named) = sent(&request, "openai");
        assert_eq!((body["messages"].as_array().unwrap().len(), &*named), (1 + added, ""), "{said}");
        assert_eq!(body["response_format"], json!({"type": "json_object"}));
        let any = json!({"name": "response", "schema": {"type": "object"}});
        let (body, named) = sent(&request, "lmstudio");
        assert_eq!(body["response_format"], json!({"type": "json_schema", "json_schema": any}));
        assert_eq!(named, "");
    }
}

#[test]
fn models_that_do_not_know_of_parallel_calls_are_told_nothing_of_them() {
    for (model, told, lost) in [
        ("o4-mini", Value::Null, "parallel_tool_calls"),
        ("o3-mini", Value::Null, "parallel_tool_calls"),
        ("gpt-5", json!(false), ""),
    ] {
        let request = Request {
            model: model.to_owned(),
            tools: vec![tool("f")],
            parallel_tools: Some(false),
            ..Request::default()
        };
        let (body, named) = sent(&request, "openai");
        assert_eq!((&body["parallel_tool_calls"], &*named), (&told, lost), "{model}");
    }
}

#[test]
fn a_tool_that_leaves_something_open_is_strict_nowhere() {
    let schema = |required: &str| {
        let properties = r#"{"a":{"type":"string"},"b":{"type":"string"}}"#;
        Json::parse(&format!(
            r#"{{"type":"object","properties":{properties},"required":[{required}],"additionalProperties":false}}"#
        ))
        .unwrap()
    };
    let strict = |required: &str| Tool { strict: Some(true), schema: schema(required), ..tool("f") };
    let tools = vec![strict(r#""a""#), strict(r#""a","b""#)];
    for (provider, told) in [
        ("openai", [json!(false), json!(true)]),
        ("deepseek", [json!(false), json!(true)]),
        ("vllm", [json!(false), json!(true)]),
        ("cerebras", [Value::Null, Value::Null]),
    ] {
        let (body, named) = sent(&Request { tools: tools.clone(), ..Request::default() }, provider);
        let strict = [0, 1].map(|at| body["tools"][at]["function"]["strict"].clone());
        assert_eq!((strict, &*named), (told, "tools.strict"), "{provider}");
    }
}

#[test]
fn tools_are_strict_together_or_not_at_all_at_cerebras() {
    for (provider, asked, told, lost) in [
        ("cerebras", [Some(true), None], [Value::Null, Value::Null], "tools.strict"),
        ("cerebras", [Some(true), Some(false)], [Value::Null, Value::Null], "tools.strict"),
        ("cerebras", [Some(true), Some(true)], [json!(true), json!(true)], ""),
        ("cerebras", [Some(false), None], [Value::Null, Value::Null], ""),
        ("groq", [Some(true), None], [json!(true), Value::Null], ""),
    ] {
        let schema = Json::parse(r#"{"type":"object","additionalProperties":false}"#).unwrap();
        let tools = asked.map(|strict| Tool { strict, schema: schema.clone(), ..tool("f") }).into();
        let (body, named) = sent(&Request { tools, ..Request::default() }, provider);
        let strict = [0, 1].map(|at| body["tools"][at]["function"]["strict"].clone());
        assert_eq!((strict, &*named), (told, lost), "{asked:?}");
    }
}

#[test]
fn the_tool_that_lm_studio_must_call_is_the_only_one() {
    let request = |tools: &[&str]| Request {
        tools: tools.iter().map(|name| tool(name)).collect(),
        tool_choice: Some(ToolChoice::Tool("json".to_owned())),
        ..Request::default()
    };
    for (provider, tools, offered, lost) in [
        ("lmstudio", &["f", "json"][..], &["json"][..], "tools"),
        ("lmstudio", &["json"], &["json"], ""),
        ("vllm", &["f", "json"], &["f", "json"], ""),
    ] {
        let (body, losses) = encode(&request(tools), provider).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let names =
            body["tools"].as_array().unwrap().iter().map(|tool| tool["function"]["name"].as_str().unwrap());
        assert_eq!(names.collect::<Vec<_>>(), offered, "{provider}");
        assert_eq!(
            (body["tool_choice"] == "required", losses.to_string().as_str()),
            (provider == "lmstudio", lost)
        );
    }
}

#[test]
fn whose_turn_it_is_at_mistral() {
    let said = |role, text: &str| Message::new(role, vec![Block::Text(text.to_owned())]);
    let call = ToolCall { id: "c".to_owned(), name: "f".to_owned(), arguments: Json::empty_object() };
    let result = ToolResult { id: "c".to_owned(), content: Vec::new(), is_error: false };
    let heard = vec![Block::ToolResult(result), Block::Text("Hurry.".to_owned())];
    let request = |model: &str| Request {
        model: model.to_owned(),
        messages: vec![
            said(Role::System, "Be brief."),
            said(Role::Assistant, "Hello."),
            said(Role::User, "Hi."),
            Message::new(Role::Assistant, vec![Block::ToolCall(call.clone())]),
            Message::new(Role::User, heard.clone()),
            said(Role::System, "One minute left."),
            said(Role::Assistant, "{"),
        ],
        ..Request::default()
    };
    let roles = |provider, model| {
        let (body, _) = encode(&request(model), provider).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let messages = body["messages"].as_array().unwrap().iter();
        messages.map(|message| message["role"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let in_turns =
        ["system", "assistant", "user", "assistant", "tool", "assistant", "user", "assistant", "user"];
    for (provider, model) in
        [("mistral", "any"), ("openrouter", "mistralai/devstral-medium"), ("vllm", "mistralai/Mistral-Small")]
    {
        assert_eq!(roles(provider, model), in_turns, "{provider} {model}");
    }
    let as_said = ["system", "assistant", "user", "assistant", "tool", "user", "system", "assistant"];
    assert_eq!(roles("openai", "gpt-4o"), as_said);
}

#[test]
fn deepseek_is_told_the_schema_that_it_cannot_be_given() {
    let schema = Json::parse(r#"{"type":"object"}"#).unwrap();
    let request = Request {
        model: "deepseek-v4-pro".to_owned(),
        output: Some(Output::Schema { name: None, description: None, schema, strict: None }),
        thinking: Some(Thinking::Off),
        max_output: Some(9),
        seed: Some(7),
        ..Request::default()
    };
    let (body, losses) = encode(&request, "deepseek").unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["messages"][0]["role"], "system");
    assert!(body["messages"][0]["content"].as_str().unwrap().ends_with(r#": {"type":"object"}"#));
    assert_eq!(body["response_format"], json!({"type": "json_object"}));
    assert_eq!(body["thinking"], json!({"type": "disabled"}));
    assert_eq!((&body["max_tokens"], &body["seed"]), (&json!(9), &Value::Null));
    assert_eq!(losses.to_string(), "seed,response_format.json_schema");
}

#[test]
fn a_template_and_groq_are_told_to_think_in_their_own_words() {
    let mut request = Request { thinking: Some(Thinking::Off), ..Request::default() };
    for (provider, model, expected) in [
        (
            "vllm",
            "Qwen/Qwen3-8B",
            json!({"chat_template_kwargs": {"enable_thinking": false, "thinking": false}}),
        ),
        ("groq", "qwen/qwen3-32b", json!({"reasoning_format": "parsed", "reasoning_effort": "none"})),
        ("xai", "grok-4.3", json!({"reasoning_effort": "none"})),
    ] {
        model.clone_into(&mut request.model);
        let (body, losses) = encode(&request, provider).unwrap();
        let mut body: Value = serde_json::from_slice(&body).unwrap();
        let fields = body.as_object_mut().unwrap();
        fields.remove("model");
        fields.remove("messages");
        assert_eq!((body, losses.is_empty()), (expected, true), "{provider}");
    }
}

#[test]
fn openrouter_gets_back_what_it_has_told_of_reasoning_and_nobody_else_does() {
    const DETAIL: &str = r#"{"type":"reasoning.encrypted","id":"c","data":"AY8="}"#;
    const SIGNED: &str = r#"{"type":"reasoning.text","text":"hm","signature":"EqoB","index":0}"#;
    let call = ToolCall { id: "c".to_owned(), name: "f".to_owned(), arguments: Json::empty_object() };
    let said = |data: &str| {
        vec![Block::ToolCall(call.clone()), Block::RedactedReasoning(format!("openrouter.details.{data}"))]
    };
    for (provider, data, told, lost) in [
        ("openrouter", DETAIL, json!([serde_json::from_str::<Value>(DETAIL).unwrap()]), ""),
        ("openrouter", SIGNED, json!([serde_json::from_str::<Value>(SIGNED).unwrap()]), ""),
        ("openrouter", r#"{}],"model":["#, Value::Null, ""),
        ("vllm", DETAIL, Value::Null, "messages.reasoning"),
    ] {
        let messages = vec![Message::new(Role::Assistant, said(data)), Message::new(Role::User, Vec::new())];
        let request = Request { messages, ..Request::default() };
        let (body, losses) = encode(&request, provider).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&body["messages"][0]["reasoning_details"], losses.to_string()), (&told, lost.to_owned()));
    }
}

#[test]
fn an_answer_is_held_to_its_schema_where_it_can_be() {
    const OPEN: &str = r#"{"type":"object","properties":{"a":{"type":"string"}}}"#;
    const CLOSED: &str = r#"{"type":"object","properties":{"a":{"type":"string"}},"required":["a"],"additionalProperties":false}"#;
    let request = |schema: &str, strict, model: &str| Request {
        model: model.to_owned(),
        output: Some(Output::Schema {
            name: None,
            description: None,
            schema: Json::parse(schema).unwrap(),
            strict,
        }),
        ..Request::default()
    };
    for (provider, model, schema, strict, told, lost) in [
        ("openai", "gpt-5", CLOSED, Some(true), json!(true), ""),
        ("openai", "gpt-5", OPEN, Some(true), json!(false), "response_format.strict"),
        ("openai", "gpt-5", OPEN, Some(false), json!(false), ""),
        ("openai", "gpt-5", CLOSED, None, Value::Null, ""),
        ("vllm", "Qwen/Qwen3-8B", OPEN, Some(true), json!(true), ""),
        ("groq", "openai/gpt-oss-120b", CLOSED, Some(true), json!(true), ""),
        ("groq", "moonshotai/kimi-k2", CLOSED, Some(true), json!(false), "response_format.strict"),
    ] {
        let (body, named) = sent(&request(schema, strict, model), provider);
        let seen = body["response_format"]["json_schema"]["strict"].clone();
        assert_eq!((seen, &*named), (told, lost), "{provider} {model} {strict:?}");
    }
}

#[test]
fn models_that_know_it_are_told_how_long_an_answer_is_to_be() {
    for (provider, model, told, lost) in [
        ("openai", "gpt-5", json!("low"), ""),
        ("azure-openai", "gpt-5.2", json!("low"), ""),
        ("azure-openai", "gpt-5.2-chat-latest", Value::Null, "verbosity"),
        ("openai", "gpt-4.1", Value::Null, "verbosity"),
        ("openai", "gpt-5.1-codex-max", Value::Null, "verbosity"),
        ("openai", "o3", Value::Null, "verbosity"),
        ("groq", "openai/gpt-oss-120b", Value::Null, "verbosity"),
    ] {
        let verbosity = Some(Verbosity::Low);
        let request = Request { model: model.to_owned(), verbosity, ..Request::default() };
        let (body, named) = sent(&request, provider);
        assert_eq!((body["verbosity"].clone(), &*named), (told, lost), "{provider} {model}");
    }
}

#[test]
fn a_picture_is_looked_at_as_closely_as_there_are_words_for() {
    for (detail, told, lost) in [
        (None, Value::Null, ""),
        (Some(Detail::Low), json!("low"), ""),
        (Some(Detail::Original), json!("high"), "messages.content.image.detail"),
    ] {
        let source = Source::of_url("https://example.com/a.png").unwrap();
        let content = vec![Block::Image(Image { source, detail })];
        let messages = vec![Message::new(Role::User, content)];
        let (body, named) = sent(&Request { messages, ..Request::default() }, "openai");
        let seen = body["messages"][0]["content"][0]["image_url"]["detail"].clone();
        assert_eq!((seen, &*named), (told, lost), "{detail:?}");
    }
}

#[test]
fn signatures_of_gemini_come_back_where_its_models_may_be() {
    const STAND_IN: &str = "skip_thought_signature_validator";
    let call =
        |id: &str| ToolCall { id: id.to_owned(), name: "f".to_owned(), arguments: Json::empty_object() };
    let signed = Reasoning { text: String::new(), signature: Some("google.s".to_owned()) };
    let signed = vec![Block::Reasoning(signed), Block::ToolCall(call("a")), Block::ToolCall(call("b"))];
    let unsigned = vec![Block::ToolCall(call("c")), Block::ToolCall(call("d"))];
    for (provider, model, told) in [
        ("gemini", "gemini-3-pro", [json!("s"), json!(STAND_IN)]),
        ("gemini", "gemini-2.5-flash", [json!("s"), Value::Null]),
        ("acme", "google/gemini-3.6-flash", [json!("s"), json!(STAND_IN)]),
        ("acme", "smart", [json!("s"), Value::Null]),
        ("openrouter", "google/gemini-3-pro", [Value::Null, Value::Null]),
        ("deepseek", "deepseek-v4-pro", [Value::Null, Value::Null]),
    ] {
        let said = [&signed, &unsigned].map(|said| Message::new(Role::Assistant, said.clone()));
        let messages = said.into_iter().chain([Message::new(Role::User, Vec::new())]).collect();
        let request = Request { model: model.to_owned(), messages, ..Request::default() };
        let (body, named) = sent(&request, provider);
        let signature = |message: usize, call: usize| {
            let call = &body["messages"][message]["tool_calls"][call];
            call["extra_content"]["google"]["thought_signature"].clone()
        };
        assert_eq!(([signature(0, 0), signature(1, 0)], &*named), (told, ""), "{provider} {model}");
        assert_eq!([signature(0, 1), signature(1, 1)], [Value::Null, Value::Null], "{provider} {model}");
    }
}

#[test]
fn reasoning_comes_back_where_it_is_taken_or_nobody_knows() {
    let thought = Block::Reasoning(Reasoning { text: "Hm.".to_owned(), signature: None });
    let said = Message::new(Role::Assistant, vec![thought, Block::Text("Hi.".to_owned())]);
    let text = json!("Hm.");
    for (provider, older, newer, lost) in [
        ("zai", &text, &Value::Null, ""),
        ("moonshot", &text, &Value::Null, ""),
        ("vllm", &text, &text, ""),
        ("openrouter", &Value::Null, &text, ""),
        ("cerebras", &Value::Null, &Value::Null, "messages.reasoning"),
        ("openai", &Value::Null, &Value::Null, "messages.reasoning"),
    ] {
        let messages = vec![said.clone(), Message::new(Role::User, Vec::new())];
        let (body, named) = sent(&Request { messages, ..Request::default() }, provider);
        let told = &body["messages"][0];
        let seen = (&told["reasoning_content"], &told["reasoning"], &*named);
        assert_eq!(seen, (older, newer, lost), "{provider}");
    }
}

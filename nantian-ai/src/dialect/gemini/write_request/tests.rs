use serde_json::Value;

use super::*;
use crate::ir::Tool;

/// What follows the two calls of one function, as a model is told it: the ids and outputs of results, and
/// texts.
fn told(model: &str, after: &[&[(&str, &str)]]) -> Vec<Vec<String>> {
    let call = |id: &str| {
        let (id, name) = (id.to_owned(), "get_weather".to_owned());
        Block::ToolCall(ToolCall { id, name, arguments: Json::empty_object() })
    };
    let block = |&(id, said): &(&str, &str)| {
        let text = Block::Text(said.to_owned());
        match id {
            "" => text,
            id => Block::ToolResult(ToolResult { id: id.to_owned(), content: vec![text], is_error: false }),
        }
    };
    let asked = Message::new(Role::User, vec![Block::Text("How is the weather?".to_owned())]);
    let mut messages = vec![asked, Message::new(Role::Assistant, vec![call("paris"), call("london")])];
    let users = after.iter().map(|said| said.iter().map(block).collect());
    messages.extend(users.map(|content| Message::new(Role::User, content)));
    let (body, _) = encode(&Request { model: model.to_owned(), messages, ..Request::default() }).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let said = |part: &Value| match &part["functionResponse"] {
        Value::Null => part["text"].as_str().unwrap().to_owned(),
        response => {
            let id = response.get("id").map_or("-", |id| id.as_str().unwrap());
            format!("{id}:{}", response["response"]["output"].as_str().unwrap())
        }
    };
    let contents = body["contents"].as_array().unwrap()[2..].iter();
    contents.map(|content| content["parts"].as_array().unwrap().iter().map(said).collect()).collect()
}

#[test]
fn results_are_told_in_the_order_of_their_calls() {
    let swapped: &[&[(&str, &str)]] = &[&[("london", "rain"), ("paris", "sun")]];
    assert_eq!(told("gemini-2.5-pro", swapped), [["-:sun", "-:rain"]]);
    assert_eq!(told("gemini-3-pro", swapped), [["paris:sun", "london:rain"]]);
}

#[test]
fn results_of_several_messages_are_one_content_before_what_the_user_says() {
    let apart: &[&[(&str, &str)]] =
        &[&[("london", "rain"), ("", "Wait.")], &[("paris", "sun"), ("", "Well?")]];
    assert_eq!(told("gemini-3-pro", apart), [["paris:sun", "london:rain"], ["Wait.", "Well?"]]);
}

#[test]
fn models_that_draw_tokens_as_they_like_are_not_told_how_to() {
    for (model, told) in [
        ("gemini-2.5-flash-lite", true),
        ("gemini-3.1-pro-preview", true),
        ("gemini-3.1-flash-lite", true),
        ("gemini-3.5-flash", true),
        ("gemini-3.5-flash-lite", false),
        ("gemini-3.6-flash", false),
        ("gemini-3.8-flash", false),
        ("gemini-flash-latest", false),
    ] {
        let (temperature, top_p, top_k) = (Some(0.2), Some(1.0), Some(40));
        let request = Request {
            model: model.to_owned(),
            temperature,
            top_p,
            top_k,
            seed: Some(7),
            ..Request::default()
        };
        let (body, losses) = encode(&request).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let config = body["generationConfig"].as_object().unwrap();
        let seen = ["temperature", "topP", "topK"].map(|name| config.contains_key(name));
        let named = if told { "" } else { "temperature,top_k" };
        assert_eq!((seen, &*losses.to_string()), ([told; 3], named), "{model}");
        assert_eq!(config["seed"], 7);
    }
}

#[test]
fn newer_models_see_pictures_within_the_results_of_tools() {
    let png = |media_type: &str| {
        Source::Inline(Media { media_type: media_type.to_owned(), base64: "AAAA".to_owned() })
    };
    let call = ToolCall { id: "a".to_owned(), name: "look".to_owned(), arguments: Json::empty_object() };
    for (model, media_type, within, beside) in [
        ("gemini-3-pro", "image/png", true, false),
        ("gemini-3-pro", "image/heic", false, true),
        ("gemini-2.5-pro", "image/png", false, true),
    ] {
        let content = vec![Block::Text("seen".to_owned()), Block::Image(png(media_type).into())];
        let result = ToolResult { id: "a".to_owned(), content, is_error: false };
        let messages = vec![
            Message::new(Role::User, vec![Block::Text("Look.".to_owned())]),
            Message::new(Role::Assistant, vec![Block::ToolCall(call.clone())]),
            Message::new(Role::User, vec![Block::ToolResult(result)]),
        ];
        let (body, _) = encode(&Request { model: model.to_owned(), messages, ..Request::default() }).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let data = serde_json::json!([{"inlineData": {"mimeType": media_type, "data": "AAAA"}}]);
        let response = &body["contents"][2]["parts"][0]["functionResponse"];
        assert_eq!(response["response"]["output"], "seen");
        assert_eq!(response["parts"] == data, within, "{model} {media_type}");
        assert_eq!(body["contents"][3]["parts"][1] == data[0], beside, "{model} {media_type}");
    }
}

#[test]
fn what_stands_beside_a_reference_in_the_schema_of_an_answer_is_named() {
    for (beside, lost) in [(r#","description":"d""#, "response_format.schema"), ("", "")] {
        let schema =
            format!(r##"{{"properties":{{"a":{{"$ref":"#/$defs/a"{beside}}}}},"$defs":{{"a":{{}}}}}}"##);
        let schema = Json::parse(&schema).unwrap();
        let output = Some(Output::Schema { name: None, description: None, schema, strict: None });
        let (body, losses) = encode(&Request { output, ..Request::default() }).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let told = &body["generationConfig"]["responseJsonSchema"]["properties"]["a"];
        assert_eq!((told, &*losses.to_string()), (&serde_json::json!({"$ref": "#/$defs/a"}), lost));
    }
}

#[test]
fn what_a_tool_says_beside_a_reference_is_left_out_unless_it_is_taken() {
    let schema = r##"{"properties":{"a":{"$ref":"#/$defs/a","description":"d","default":1,"title":"t"}},"$defs":{"a":{}}}"##;
    let tool = Tool {
        name: "f".to_owned(),
        description: None,
        schema: Json::parse(schema).unwrap(),
        strict: None,
        cached: None,
    };
    let (body, losses) = encode(&Request { tools: vec![tool], ..Request::default() }).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let told = &body["tools"][0]["functionDeclarations"][0]["parametersJsonSchema"]["properties"]["a"];
    assert_eq!(told, &serde_json::json!({"$ref": "#/$defs/a", "description": "d", "default": 1}));
    assert_eq!(losses.to_string(), "tools.parameters");
}

#[test]
fn a_result_with_references_is_told_as_a_text() {
    let schema = r##"{"properties":{"a":{"$ref":"#/$defs/a"}}}"##;
    for (said, response) in
        [(schema, serde_json::json!({"output": schema})), (r#"{"ref":"a"}"#, serde_json::json!({"ref": "a"}))]
    {
        let call = ToolCall { id: "a".to_owned(), name: "f".to_owned(), arguments: Json::empty_object() };
        let content = vec![Block::Text(said.to_owned())];
        let result = ToolResult { id: "a".to_owned(), content, is_error: false };
        let messages = vec![
            Message::new(Role::Assistant, vec![Block::ToolCall(call)]),
            Message::new(Role::User, vec![Block::ToolResult(result)]),
        ];
        let (body, _) = encode(&Request { messages, ..Request::default() }).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["contents"][2]["parts"][0]["functionResponse"]["response"], response);
    }
}

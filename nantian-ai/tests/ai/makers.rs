//! Models of several makers run at Bedrock, and a conversation goes from one to the other.

use nantian_ai::retry::Attempts;
use nantian_ai::{ClientDialect, Dialect, TargetConfig};
use serde_json::{Value, json};

use crate::support::{Upstream, json as reply, layer, post, send};
use crate::taught::{asked, strict};

const CLAUDE: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
const GPT: &str = "us.openai.gpt-5.6-sol";
const ANSWER: &str = r#"{"output":{"message":{"role":"assistant","content":[{"text":"Hi"}]}},"stopReason":"end_turn","usage":{"inputTokens":3,"outputTokens":4}}"#;

/// What a model gets of a conversation in Messages, and what is lost.
fn sent(model: &str, messages: &Value) -> (Value, String) {
    let body = json!({"model": "any", "max_tokens": 9, "messages": messages});
    let (mut request, _) = ClientDialect::Anthropic.decode_request(body.to_string().as_bytes()).unwrap();
    model.clone_into(&mut request.model);
    let (body, losses) = Dialect::Bedrock.encode_request(&request, "bedrock").unwrap();
    (serde_json::from_slice(&body).unwrap(), losses.to_string())
}

/// A turn with a call, which begins so.
fn begun(thought: &Value) -> Value {
    json!([
        {"role": "user", "content": "Look"},
        {"role": "assistant", "content": [thought, {"type": "tool_use", "id": "c", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "1"}]},
    ])
}

fn encrypted() -> Value {
    json!({"type": "redacted_thinking", "data": "aws.gAAA"})
}

#[test]
fn reasoning_goes_to_models_that_can_read_it() {
    let signed = begun(&json!({"type": "thinking", "thinking": "hm", "signature": "EqoB"}));
    let own = "arn:aws:bedrock:us-east-1:1:application-inference-profile/x";
    for (model, takes_signed, takes_encrypted) in [
        (CLAUDE, true, true),
        (own, true, true),
        (GPT, false, true),
        ("moonshotai.kimi-k2.5", false, true),
        ("arn:aws:bedrock:us-east-1::foundation-model/zai.glm-4.7", false, true),
        ("amazon.nova-pro-v1:0", false, false),
        ("us.meta.llama3-3-70b-instruct-v1:0", false, false),
    ] {
        for (messages, takes) in [(&signed, takes_signed), (&begun(&encrypted()), takes_encrypted)] {
            let (body, lost) = sent(model, messages);
            let has = body["messages"][1]["content"][0].get("reasoningContent").is_some();
            let expected = if takes { "" } else { "messages.reasoning" };
            assert_eq!((has, &*lost), (takes, expected), "{model}");
        }
    }
}

#[test]
fn a_turn_in_which_the_model_has_only_thought_is_no_beginning_of_its_answer() {
    let thought = json!({"type": "thinking", "thinking": "hm", "signature": "EqoB"});
    let messages = json!([
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [thought]},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": [thought, {"type": "text", "text": "c"}]},
        {"role": "user", "content": "d"},
        {"role": "assistant", "content": [thought]},
    ]);
    let (body, lost) = sent(CLAUDE, &messages);
    let roles: Vec<_> = body["messages"].as_array().unwrap().iter().map(|it| it["role"].as_str()).collect();
    assert_eq!((roles, &*lost), (["user", "assistant", "user"].map(Some).to_vec(), "messages.reasoning"));
    assert_eq!(body["messages"][0]["content"], json!([{"text": "a"}, {"text": "b"}]));
    assert!(body["messages"][1]["content"][0].get("reasoningContent").is_some());
}

#[test]
fn what_a_tool_shows_stands_beside_its_result_where_a_model_does_not_see_into_it() {
    let picture =
        json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}});
    let pdf = json!({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AA=="}});
    let calls = ["a", "b"].map(|id| json!({"type": "tool_use", "id": id, "name": "f", "input": {}}));
    let result =
        |id: &str, content: Value| json!({"type": "tool_result", "tool_use_id": id, "content": content});
    let messages = json!([
        {"role": "user", "content": "Look"},
        {"role": "assistant", "content": calls},
        {"role": "user", "content": [
            result("a", json!([{"type": "text", "text": "Done"}, picture])),
            result("b", json!([pdf])),
            {"type": "text", "text": "Well?"},
        ]},
    ]);
    for model in [CLAUDE, "us.amazon.nova-2-lite-v1:0"] {
        let (body, _) = sent(model, &messages);
        let content = &body["messages"][2]["content"];
        assert!(content[0]["toolResult"]["content"][1].get("image").is_some(), "{content}");
        assert!(content[1]["toolResult"]["content"][0].get("document").is_some(), "{content}");
    }
    let image = json!({"image": {"format": "png", "source": {"bytes": "AA=="}}});
    let document = json!({"document": {"format": "pdf", "name": "Document", "source": {"bytes": "AA=="}}});
    let result = |id: &str, said: &str| json!({"toolResult": {"toolUseId": id, "content": [{"text": said}]}});
    let expected = json!([
        result("a", "Done"),
        result("b", "(see the attachment)"),
        {"text": "Attached to the result of a:"},
        image,
        {"text": "Attached to the result of b:"},
        document,
        {"text": "Well?"},
    ]);
    for model in [GPT, "mistral.pixtral-large-2502-v1:0", "us.meta.llama4-maverick-17b-instruct-v1:0"] {
        let (body, lost) = sent(model, &messages);
        assert_eq!((&body["messages"][2]["content"], &*lost), (&expected, ""), "{model}");
    }
}

#[test]
fn models_of_openai_are_told_how_much_to_think() {
    for (model, effort, told, lost) in [
        (GPT, "max", "max", ""),
        (GPT, "none", "none", ""),
        ("global.openai.gpt-6-astra", "minimal", "low", ""),
        ("global.openai.gpt-6-astra", "none", "low", "thinking"),
    ] {
        let body = json!({"model": "any", "reasoning_effort": effort, "messages": [{"role": "user", "content": "a"}]});
        let (mut request, _) = ClientDialect::OpenAi.decode_request(body.to_string().as_bytes()).unwrap();
        model.clone_into(&mut request.model);
        let (body, losses) = Dialect::Bedrock.encode_request(&request, "bedrock").unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let own = json!({"reasoning": {"effort": told}});
        assert_eq!((&body["additionalModelRequestFields"], &*losses.to_string()), (&own, lost), "{model}");
    }
}

#[tokio::test]
async fn reasoning_that_a_model_at_bedrock_cannot_read_is_left_out_and_named() {
    const OTHER_REGION: &str = r#"The model returned the following errors: {"error":{"code":"validation_error","message":"Encrypted content cannot be used in a different region from the one that created it.","param":null,"type":"invalid_request_error"}}"#;
    const NOT_ITS_OWN: &str = "The model returned the following errors: messages.1.content.0: Invalid `data` in `redacted_thinking` block";
    let request = || {
        let body = json!({
            "model": "any", "max_tokens": 9000, "messages": begun(&encrypted()),
            "thinking": {"type": "enabled", "budget_tokens": 2000},
            "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}],
        });
        post("/v1/messages", &body.to_string())
    };
    for (model, refusal, dropped, thinking) in [
        (GPT, OTHER_REGION, "messages.reasoning", [Value::Null, Value::Null]),
        (CLAUDE, NOT_ITS_OWN, "messages.reasoning,thinking", [json!("enabled"), json!("disabled")]),
    ] {
        let config = TargetConfig::new("demo/any", "bedrock", model)
            .with_endpoint("https://bedrock-runtime.eu-central-1.amazonaws.com");
        let refused = || reply(400, &json!({"message": refusal}).to_string());
        let upstream = Upstream::new().replies(refused()).replies(reply(200, ANSWER));
        let (head, said) = send(layer(config.clone()), &upstream, request()).await;
        assert_eq!((head.status.as_u16(), head.extensions.get()), (200, Some(&Attempts(2))), "{said}");
        assert_eq!(head.headers["x-nantian-dropped"], dropped);
        let has: Vec<_> = asked(&upstream, "/messages/1/content")
            .iter()
            .map(|content| (content.as_array().unwrap().len(), content[0].get("reasoningContent").is_some()))
            .collect();
        assert_eq!(has, [(2, true), (1, false)], "{model}");
        // It does not think in a turn of which the beginning is gone.
        assert_eq!(asked(&upstream, "/additionalModelRequestFields/thinking/type"), thinking);

        let upstream = Upstream::new().replies(refused());
        let (head, _) = send(layer(config), &upstream, strict(request())).await;
        assert_eq!((head.status.as_u16(), upstream.requests()), (400, 1));
    }
}

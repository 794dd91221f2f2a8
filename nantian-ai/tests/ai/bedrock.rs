//! A provider that speaks Converse, in frames and signed.

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, Full};
use nantian_ai::usage::Outcome;
use nantian_ai::{Credential, InvalidTarget, Target, TargetConfig};
use serde_json::{Value, json};

use crate::frames::frames;
use crate::support::{Body, Reports, Upstream, json as reply, layer, post, send};

const MODEL: &str = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0";

fn bedrock() -> TargetConfig {
    TargetConfig::new("demo/claude", "bedrock", MODEL).with_region("eu-central-1")
}

fn streamed(frames: Vec<u8>) -> Response<Body> {
    Response::builder()
        .header("content-type", "application/vnd.amazon.eventstream")
        .header("x-amzn-requestid", "r-1")
        .body(Full::from(Bytes::from(frames)).map_err(|never| match never {}).boxed_unsync())
        .unwrap()
}

#[tokio::test]
async fn the_model_is_in_the_path_and_the_key_is_a_bearer_where_the_operator_says_so() {
    let answer = json!({
        "output": {"message": {"role": "assistant", "content": [{"text": "Hi"}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 3, "outputTokens": 4, "totalTokens": 17, "cacheReadInputTokens": 10},
    });
    let upstream = Upstream::new().replies(reply(200, &answer.to_string()));
    let reports = Reports::default();
    let service =
        layer(bedrock().with_credential(Credential::bearer("bedrock-key"))).observer(reports.clone());
    let request =
        post("/v1/chat/completions", r#"{"model":"any","messages":[{"role":"user","content":"Hi"}]}"#);
    let (head, body) = send(service, &upstream, request).await;
    assert_eq!(head.status, 200);
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["model"], MODEL);
    assert_eq!(body["choices"][0]["message"]["content"], "Hi");
    assert_eq!(body["usage"]["prompt_tokens"], 13);

    let (head, body) = upstream.request();
    let path = "/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse";
    assert_eq!(head.uri, format!("https://bedrock-runtime.eu-central-1.amazonaws.com{path}").as_str());
    assert_eq!(head.headers["authorization"], "Bearer bedrock-key");
    assert_eq!(head.headers["accept"], "application/json");
    assert_eq!(body, r#"{"messages":[{"role":"user","content":[{"text":"Hi"}]}]}"#);
    let report = reports.only();
    assert_eq!((report.usage.input, report.usage.cached, report.usage.output), (13, 10, 4));
    assert_eq!(report.call.finish_reason.as_deref(), Some("end_turn"));
    assert!(!report.usage.estimated);
}

#[tokio::test]
async fn frames_become_events_of_the_client_and_their_usage_is_metered() {
    let upstream = Upstream::new().replies(streamed(frames([
        ("messageStart", r#"{"role":"assistant"}"#),
        ("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"text":"Hi"}}"#),
        ("contentBlockStop", r#"{"contentBlockIndex":0}"#),
        ("messageStop", r#"{"stopReason":"end_turn"}"#),
        ("metadata", r#"{"usage":{"inputTokens":3,"outputTokens":4,"totalTokens":7}}"#),
    ])));
    let reports = Reports::default();
    let service = layer(bedrock()).observer(reports.clone());
    let body = r#"{"model":"any","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;
    let (head, body) = send(service, &upstream, post("/v1/messages", body)).await;
    assert_eq!(head.headers["content-type"], "text/event-stream");
    assert_eq!(head.headers["x-amzn-requestid"], "r-1");
    assert!(body.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"), "{body}");
    let (head, _) = upstream.request();
    assert!(head.uri.path().ends_with("/converse-stream"));
    assert_eq!(head.headers["accept"], "application/vnd.amazon.eventstream");
    let report = reports.only();
    assert_eq!((report.outcome, report.usage.input, report.usage.output), (Outcome::Completed, 3, 4));
    assert!(report.call.stream && !report.usage.estimated);
}

#[test]
fn a_region_is_named_or_told_by_the_host() {
    let nowhere = TargetConfig::new("demo/claude", "bedrock", MODEL);
    assert!(matches!(Target::new(nowhere.clone()), Err(InvalidTarget::RegionRequired { .. })));
    for region in ["", "EU", "eu/../x", "eu.example.com#"] {
        assert!(matches!(
            Target::new(nowhere.clone().with_region(region)),
            Err(InvalidTarget::Region { .. })
        ));
    }
    Target::new(nowhere.with_endpoint("https://bedrock-runtime.us-east-1.amazonaws.com")).unwrap();
}

#[cfg(feature = "aws")]
#[tokio::test]
async fn each_attempt_is_signed_anew_and_the_keys_of_an_account_take_turns() {
    let upstream = Upstream::new()
        .replies(reply(503, r#"{"message":"later"}"#))
        .replies(reply(200, r#"{"output":{"message":{"content":[{"text":"Hi"}]}},"stopReason":"end_turn"}"#));
    let keys = Credential::aws("AKIDONE:secret-1").or("AKIDTWO:secret-2:token-2");
    let retry = nantian_ai::retry::RetryPolicy::new(1, std::time::Duration::ZERO);
    let service = layer(bedrock().with_credential(keys).with_retry(retry));
    let request =
        post("/v1/chat/completions", r#"{"model":"any","messages":[{"role":"user","content":"Hi"}]}"#);
    let (head, _) = send(service, &upstream, request).await;
    assert_eq!(head.status, 200);
    let mut seen: Vec<_> = upstream
        .all()
        .iter()
        .map(|(head, _)| {
            let signed = head.headers["authorization"].to_str().unwrap().to_owned();
            assert!(signed.contains("/eu-central-1/bedrock/aws4_request"), "{signed}");
            assert!(head.headers.contains_key("x-amz-date"));
            let token = head.headers.get("x-amz-security-token").map(|it| it.to_str().unwrap().to_owned());
            assert_eq!(token.is_some(), signed.contains("AKIDTWO"));
            signed.split('/').next().unwrap().to_owned()
        })
        .collect();
    seen.sort();
    let start = "AWS4-HMAC-SHA256 Credential=";
    assert_eq!(seen, [format!("{start}AKIDONE"), format!("{start}AKIDTWO")]);
}

#[tokio::test]
async fn tokens_are_counted_by_bedrock_or_estimated_where_it_does_not() {
    let asked = r#"{"model":"any","messages":[{"role":"user","content":"How far is the moon?"}]}"#;
    let refusal = r#"{"message":"The provided model doesn't support counting tokens"}"#;
    for (path, answer, counted) in [
        ("/v1/messages/count_tokens", reply(200, r#"{"inputTokens":42}"#), Some(42)),
        ("/v1/messages/count_tokens", reply(400, refusal), None),
        ("/v1/messages/count_tokens", reply(403, "{}"), None),
    ] {
        let upstream = Upstream::new().replies(answer);
        let reports = Reports::default();
        let service = layer(bedrock()).observer(reports.clone());
        let (head, body) = send(service, &upstream, post(path, asked)).await;
        assert_eq!(head.status, 200, "{body}");
        assert_eq!(head.headers.contains_key("x-nantian-usage"), counted.is_none());
        let count = serde_json::from_str::<Value>(&body).unwrap()["input_tokens"].as_u64().unwrap();
        assert!(counted.map_or((5..40).contains(&count), |counted| counted == count), "{count}");
        let (head, body) = upstream.request();
        let path = "/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/count-tokens";
        assert_eq!(head.uri.path(), path);
        let body: Value = serde_json::from_slice(&body).unwrap();
        let said = json!({"converse": {"messages": [{"role": "user", "content": [{"text": "How far is the moon?"}]}]}});
        assert_eq!(body, json!({ "input": said }));
        assert_eq!(reports.only().usage.total, 0);
    }
    // Of other models nothing is asked.
    let nova = TargetConfig::new("demo/nova", "bedrock", "amazon.nova-pro-v1:0").with_region("eu-central-1");
    let (head, _) = send(layer(nova), &Upstream::new(), post("/v1/messages/count_tokens", asked)).await;
    assert_eq!(head.status, 200);
}

#[tokio::test]
async fn a_cache_point_that_no_place_is_left_for_is_named() {
    let document = json!({
        "type": "document", "cache_control": {"type": "ephemeral"},
        "source": {"type": "text", "media_type": "text/plain", "data": "It rained."},
    });
    let question = json!({"type": "text", "text": "Summarise."});
    for (content, named) in [([&document, &question], Some("cache_control")), ([&question, &document], None)]
    {
        let body =
            json!({"model": "any", "max_tokens": 9, "messages": [{"role": "user", "content": content}]});
        let answer = r#"{"output":{"message":{"role":"assistant","content":[{"text":"Hi"}]}},"stopReason":"end_turn"}"#;
        let upstream = Upstream::new().replies(reply(200, answer));
        let (head, _) = send(layer(bedrock()), &upstream, post("/v1/messages", &body.to_string())).await;
        let dropped = head.headers.get("x-nantian-dropped").map(|it| it.to_str().unwrap());
        assert_eq!((head.status.as_u16(), dropped), (200, named));
    }
}

#[tokio::test]
async fn no_cache_point_comes_right_behind_what_the_model_has_thought() {
    let said = json!([
        {"type": "thinking", "thinking": "Hm", "signature": "c2ln"},
        {"type": "text", "text": " ", "cache_control": {"type": "ephemeral"}},
        {"type": "tool_use", "id": "t", "name": "look", "input": {}},
    ]);
    let result = json!([{"type": "tool_result", "tool_use_id": "t", "content": "Nothing."}]);
    let body = json!({"model": "any", "max_tokens": 9, "messages": [
        {"role": "user", "content": "Look."}, {"role": "assistant", "content": said}, {"role": "user", "content": result},
    ]});
    let upstream = Upstream::new().replies(reply(200, ANSWER));
    send(layer(bedrock()), &upstream, post("/v1/messages", &body.to_string())).await;
    let asked: Value = serde_json::from_slice(&upstream.request().1).unwrap();
    let said = asked["messages"][1]["content"].as_array().unwrap();
    assert!(said.len() == 2 && said[0].get("reasoningContent").is_some(), "{said:?}");
    assert!(said[1].get("toolUse").is_some(), "{said:?}");
}

#[cfg(feature = "aws")]
#[test]
fn keys_that_are_none_and_a_header_for_a_signature_are_refused() {
    for credential in [Credential::aws("AKID"), Credential::aws("AKID:secret").in_header("x-key")] {
        let error = Target::new(bedrock().with_credential(credential)).unwrap_err();
        assert!(matches!(error, InvalidTarget::Credential(_)), "{error}");
        assert!(!error.to_string().contains("secret-"), "{error}");
    }
    let elsewhere =
        bedrock().with_endpoint("http://127.0.0.1:1").with_credential(Credential::aws("AKID:secret"));
    Target::new(elsewhere).unwrap();
}

const ANSWER: &str = r#"{"output":{"message":{"role":"assistant","content":[{"text":"Hi"}]}},"stopReason":"end_turn","usage":{"inputTokens":3,"outputTokens":4}}"#;
const KEEPING: &str = r#"{"model":"any","max_tokens":9,"system":[{"type":"text","text":"Be brief.","cache_control":{"type":"ephemeral"}}],"messages":[{"role":"user","content":"Hi"}]}"#;
const KEEPS_NOTHING: &str = r#"{"message":"You invoked an unsupported model or your request did not allow prompt caching. See the documentation for more information."}"#;

/// An inference profile of one's own, whose name says nothing of its model.
fn profile() -> TargetConfig {
    let own = "arn:aws:bedrock:eu-central-1:1:application-inference-profile/x";
    TargetConfig::new("demo/own", "bedrock", own).with_region("eu-central-1")
}

#[tokio::test]
async fn a_profile_whose_name_says_nothing_keeps_what_it_is_told_until_it_refuses() {
    let layer = layer(profile());
    let upstream = Upstream::new().replies(reply(200, ANSWER));
    let (head, _) = send(layer.clone(), &upstream, post("/v1/messages", KEEPING)).await;
    assert_eq!((head.status.as_u16(), head.headers.get("x-nantian-dropped")), (200, None));
    let parsed = |body: &Bytes| serde_json::from_slice::<Value>(body).unwrap();
    let system = |body: &Bytes| parsed(body)["system"].clone();
    let said = json!({"text": "Be brief."});
    let kept = json!([said, {"cachePoint": {"type": "default"}}]);
    assert_eq!(system(&upstream.request().1), kept);

    let upstream = Upstream::new().replies(reply(403, KEEPS_NOTHING)).replies(reply(200, ANSWER));
    let (head, body) = send(layer.clone(), &upstream, post("/v1/messages", KEEPING)).await;
    assert_eq!(head.status, 200, "{body}");
    assert_eq!(head.headers["x-nantian-dropped"], "cache_control");
    assert_eq!(system(&upstream.all()[1].1), json!([said]));
    let upstream = Upstream::new().replies(reply(200, ANSWER));
    let (head, _) = send(layer, &upstream, post("/v1/messages", KEEPING)).await;
    assert_eq!(head.headers["x-nantian-dropped"], "cache_control");
    assert_eq!(system(&upstream.request().1), json!([said]));
}

#[tokio::test]
async fn a_strict_client_is_told_that_a_profile_keeps_nothing() {
    let upstream = Upstream::new().replies(reply(403, KEEPS_NOTHING));
    let layer = layer(profile().with_strict(true));
    let (head, body) = send(layer, &upstream, post("/v1/messages", KEEPING)).await;
    assert_eq!(head.status, 400, "{body}");
    assert!(body.contains("did not allow prompt caching"), "{body}");
}

#[tokio::test]
async fn a_key_under_which_a_profile_keeps_nothing_is_named_as_lost() {
    let upstream = Upstream::new().replies(reply(403, KEEPS_NOTHING)).replies(reply(200, ANSWER));
    let asked = r#"{"model":"any","prompt_cache_key":"k","messages":[{"role":"user","content":"Hi"}]}"#;
    let (head, body) = send(layer(profile()), &upstream, post("/v1/chat/completions", asked)).await;
    assert_eq!(head.status, 200, "{body}");
    assert_eq!(head.headers["x-nantian-dropped"], "prompt_cache_key");
    assert!(!String::from_utf8_lossy(&upstream.all()[1].1).contains("cachePoint"));
}

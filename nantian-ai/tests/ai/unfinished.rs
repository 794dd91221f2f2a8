//! Answers for which there is too little room: coding agents ask for one token to learn whether a model is
//! there.

use nantian_ai::retry::Attempts;
use nantian_ai::usage::Outcome;
use nantian_ai::{Dialect, TargetConfig};
use serde_json::{Value, json};

use crate::support::{Reports, Upstream, json as reply, layer, openai, post, send};
use crate::taught::asked;

const NOTHING_LEFT: &str = r#"{"error":{"message":"Could not finish the message because max_tokens or model output limit was reached. Please try again with higher max_tokens.","type":"invalid_request_error","param":null,"code":null}}"#;
const TOO_FEW: &str = r#"{"error":{"message":"Invalid 'max_completion_tokens': integer below minimum value. Expected a value >= 16, but got 1 instead.","type":"invalid_request_error","param":"max_completion_tokens","code":"integer_below_min_value"}}"#;
const ANSWER: &str = r#"{"choices":[{"message":{"role":"assistant","content":"Hi"},"finish_reason":"length"}],"usage":{"prompt_tokens":3,"completion_tokens":16}}"#;
const PROBE: &str = r#"{"model":"any","max_tokens":1,"messages":[{"role":"user","content":"quota"}]}"#;

/// Of a provider that is known by nothing but its dialect.
fn own() -> TargetConfig {
    TargetConfig::new("demo/own", "own", "gpt-5.2")
        .with_format(Dialect::OpenAi)
        .with_endpoint("http://own/v1")
}

#[tokio::test]
async fn a_model_that_has_thought_for_as_long_as_it_may_answer_has_said_nothing() {
    for (path, body, end, why) in [
        ("/v1/messages", PROBE, "/stop_reason", "max_tokens"),
        (
            "/v1/responses",
            r#"{"model":"any","max_output_tokens":16,"input":"Hi"}"#,
            "/incomplete_details/reason",
            "max_output_tokens",
        ),
        (
            "/api/chat",
            r#"{"model":"any","stream":false,"options":{"num_predict":1},"messages":[{"role":"user","content":"Hi"}]}"#,
            "/done_reason",
            "length",
        ),
    ] {
        let (upstream, reports) = (Upstream::new().replies(reply(400, NOTHING_LEFT)), Reports::default());
        let layer = layer(own()).observer(reports.clone());
        let (head, body) = send(layer, &upstream, post(path, body)).await;
        assert_eq!(head.status, 200, "{path}: {body}");
        assert_eq!(head.headers["x-nantian-usage"], "estimated");
        assert_eq!(head.headers["content-type"], "application/json");
        assert!(!head.headers.contains_key("x-nantian-dropped"), "{path}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer.pointer(end), Some(&json!(why)), "{path}: {body}");
        // The thoughts are paid for.
        let report = reports.only();
        let output = if path == "/v1/responses" { 16 } else { 1 };
        assert_eq!((report.outcome, report.call.error), (Outcome::Completed, None), "{path}");
        assert!(report.usage.estimated && report.usage.input > 0, "{path}");
        assert_eq!(report.usage.output, output, "{path}");
    }
}

#[tokio::test]
async fn who_asks_for_a_stream_gets_one_in_which_nothing_is_said() {
    let probe = PROBE.replace(r#""max_tokens""#, r#""stream":true,"max_tokens""#);
    let upstream = Upstream::new().replies(reply(400, NOTHING_LEFT));
    let (head, body) = send(layer(own()), &upstream, post("/v1/messages", &probe)).await;
    assert_eq!(
        (head.status.as_u16(), &head.headers["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    assert!(body.contains(r#""stop_reason":"max_tokens""#), "{body}");
    assert!(body.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"), "{body}");
}

#[tokio::test]
async fn a_limit_below_the_least_that_a_provider_takes_is_raised_to_it_and_named() {
    let upstream = Upstream::new().replies(reply(400, TOO_FEW)).replies(reply(200, ANSWER));
    let (head, body) = send(layer(own()), &upstream, post("/v1/messages", PROBE)).await;
    assert_eq!((head.status.as_u16(), head.extensions.get()), (200, Some(&Attempts(2))), "{body}");
    assert_eq!(head.headers["x-nantian-dropped"], "max_tokens");
    assert_eq!(asked(&upstream, "/max_completion_tokens"), [json!(1), json!(16)]);

    let mut strict = post("/v1/messages", PROBE);
    strict.headers_mut().insert("x-nantian-strict", "true".parse().unwrap());
    let upstream = Upstream::new().replies(reply(400, TOO_FEW));
    let (head, body) = send(layer(own()), &upstream, strict).await;
    assert!(head.status == 400 && body.contains("Expected a value >= 16"), "{body}");
}

#[tokio::test]
async fn who_thinks_for_as_long_as_a_raised_limit_lets_it_is_paid_for_all_of_that() {
    let upstream = Upstream::new().replies(reply(400, TOO_FEW)).replies(reply(400, NOTHING_LEFT));
    let reports = Reports::default();
    let layer = layer(own()).observer(reports.clone());
    let (head, body) = send(layer, &upstream, post("/v1/messages", PROBE)).await;
    assert_eq!(head.status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["usage"]["output_tokens"], 16, "{body}");
    assert_eq!(reports.only().usage.output, 16);
}

#[tokio::test]
async fn a_refusal_that_quotes_the_conversation_is_told() {
    let quoting = NOTHING_LEFT.replace("Could not", "Invalid value: 'Could not");
    let (upstream, reports) = (Upstream::new().replies(reply(400, &quoting)), Reports::default());
    let layer = layer(own()).observer(reports.clone());
    let (head, body) = send(layer, &upstream, post("/v1/messages", PROBE)).await;
    assert!(head.status == 400 && body.contains("Invalid value"), "{body}");
    let report = reports.only();
    assert_eq!((report.outcome, report.usage.output), (Outcome::NotServed, 0));
}

#[tokio::test]
async fn the_refusal_is_told_where_the_client_speaks_as_the_provider_or_has_named_no_limit() {
    let upstream = Upstream::new().replies(reply(400, NOTHING_LEFT));
    let (head, body) = send(layer(openai()), &upstream, post("/v1/chat/completions", PROBE)).await;
    assert_eq!((head.status.as_u16(), &*body), (400, NOTHING_LEFT));

    // Cursor asks so for Chat Completions, which is said anew.
    let upstream = Upstream::new().replies(reply(400, NOTHING_LEFT));
    let cursor = r#"{"model":"any","max_output_tokens":16,"input":"Hi"}"#;
    let (head, body) = send(layer(own()), &upstream, post("/v1/chat/completions", cursor)).await;
    assert!(head.status == 400 && body.contains("Could not finish"), "{body}");

    let upstream = Upstream::new().replies(reply(400, NOTHING_LEFT));
    let unlimited = post("/v1/responses", r#"{"model":"any","input":"Hi"}"#);
    let (head, body) = send(layer(own()), &upstream, unlimited).await;
    assert!(head.status == 400 && body.contains("Could not finish"), "{body}");
}

#[tokio::test]
async fn a_refusal_that_is_told_is_paid_for_if_the_model_has_thought() {
    for (path, body) in [
        ("/v1/chat/completions", PROBE),
        ("/v1/chat/completions", r#"{"model":"any","max_output_tokens":16,"input":"Hi"}"#),
        ("/v1/responses", r#"{"model":"any","input":"Hi"}"#),
    ] {
        let (upstream, reports) = (Upstream::new().replies(reply(400, NOTHING_LEFT)), Reports::default());
        let (head, _) = send(layer(own()).observer(reports.clone()), &upstream, post(path, body)).await;
        assert_eq!(head.status, 400, "{path}");
        let report = reports.only();
        assert_eq!(report.outcome, Outcome::Refused, "{path}");
        assert!(report.usage.estimated && report.usage.input > 0, "{path}");
    }
}

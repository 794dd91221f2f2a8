//! Answers that a provider has stored, and what is done with them.

use http::{Method, Request};
use http_body_util::Full;
use nantian_ai::TargetConfig;
use nantian_ai::usage::Outcome;
use serde_json::{Value, json};

use crate::support::{Reports, Upstream, json as reply, layer, openai, post, send};

fn ask(method: Method, path: &str) -> Request<Full<bytes::Bytes>> {
    let request = Request::builder().method(method).uri(path).header("authorization", "Bearer theirs");
    request.body(Full::default()).unwrap()
}

#[tokio::test]
async fn a_provider_that_stores_answers_is_asked_for_them_as_they_are() {
    const STORED: &str = r#"{"id":"resp_1","object":"response", "status":"completed","usage":{"input_tokens":9,"output_tokens":3}}"#;
    for (method, path) in [
        (Method::GET, "/v1/responses/resp_1?include%5B%5D=x"),
        (Method::DELETE, "/v1/responses/resp_1"),
        (Method::POST, "/v1/responses/resp_1/cancel"),
        (Method::GET, "/v1/responses/resp_1/input_items?limit=2"),
    ] {
        let reports = Reports::default();
        let upstream = Upstream::new().replies(reply(200, STORED));
        let request = ask(method.clone(), path);
        let (head, body) = send(layer(openai()).observer(reports.clone()), &upstream, request).await;
        assert_eq!((head.status.as_u16(), body.as_str()), (200, STORED));
        let (sent, seen) = upstream.request();
        assert_eq!((sent.method, sent.uri.to_string()), (method, format!("https://api.openai.com{path}")));
        assert_eq!(sent.headers["authorization"], "Bearer sk-ours");
        assert!(seen.is_empty());
        assert_eq!(reports.only().usage.total, 0, "it has been paid for when it was made");
    }
}

#[tokio::test]
async fn a_conversation_is_made_shorter_by_the_configured_model_and_paid_for() {
    let answer = r#"{"id":"c","object":"response.compaction","output":[],"usage":{"input_tokens":9,"output_tokens":3}}"#;
    let reports = Reports::default();
    let upstream = Upstream::new().replies(reply(200, answer));
    let request = post("/v1/responses/compact", r#"{"model":"any","input":"Hi"}"#);
    let (_, body) = send(layer(openai()).observer(reports.clone()), &upstream, request).await;
    assert_eq!(body, answer);
    let (sent, seen) = upstream.request();
    assert_eq!(sent.uri, "https://api.openai.com/v1/responses/compact");
    assert_eq!(seen, r#"{"model":"gpt-4o","input":"Hi"}"#);
    let report = reports.only();
    assert_eq!((report.outcome, report.usage.total), (Outcome::Completed, 12));
}

#[tokio::test]
async fn where_nothing_is_stored_that_is_said() {
    let claude = TargetConfig::new("demo/claude", "anthropic", "claude-sonnet-4-5");
    for (request, what) in [
        (ask(Method::GET, "/v1/responses/resp_1"), "a stored answer"),
        (post("/v1/responses/compact", "{}"), "the compaction of a conversation"),
    ] {
        let upstream = Upstream::new();
        let (head, body) = send(layer(claude.clone()), &upstream, request).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        let message = format!(
            "{what} of the openai-responses dialect cannot be asked of a provider that speaks anthropic"
        );
        assert_eq!((head.status.as_u16(), &body["error"]["message"]), (400, &json!(message)));
        assert_eq!((&body["error"]["code"], upstream.requests()), (&json!("unsupported_dialect"), 0));
    }
}

#[tokio::test]
async fn a_thread_is_refused_where_it_is_not_stored_as_clients_of_anthropic_know_it() {
    const BEGUN: &str = r#""thread":{"type":"create"},"#;
    const GOES_ON: &str = r#""thread":{"type":"continue","previous_message_id":"msg_1"},"#;
    const NEWER: &str = r#""thread":{"type":"create"},"thinking":{"type":"adaptive"},"#;
    let claude = || TargetConfig::new("demo/claude", "anthropic", "claude-sonnet-4-5");
    let ask = async |config, more: &str| {
        let upstream = Upstream::new().replies(reply(200, r#"{"id":"msg_2","content":[]}"#));
        let body = format!(
            r#"{{"model":"claude-opus-4-8","max_tokens":9,{more}"messages":[{{"role":"user","content":"Who?"}}]}}"#
        );
        let (head, answer) = send(layer(config), &upstream, post("/v1/messages", &body)).await;
        (head.status.as_u16(), serde_json::from_str::<Value>(&answer).unwrap(), upstream)
    };
    for (config, more) in [(openai(), BEGUN), (openai(), GOES_ON), (claude(), NEWER)] {
        let (status, answer, upstream) = ask(config, more).await;
        assert_eq!((status, upstream.requests()), (400, 0), "{more}");
        let details = json!({"error_code": "thread_unsupported_request", "unsupported": ["thread"]});
        assert_eq!(answer["error"]["details"], details, "{more}");
        assert_eq!(answer["error"]["type"], "invalid_request_error");
    }
    let (status, _, upstream) = ask(claude(), GOES_ON).await;
    let (_, asked) = upstream.request();
    assert!(status == 200 && std::str::from_utf8(&asked).unwrap().contains(GOES_ON));
}

//! Log probabilities of streams.

use std::time::Duration;

use nantian_ai::TargetConfig;
use serde_json::{Value, json};

use crate::support::{Reports, Upstream, events, layer, post, send};

/// What a client of Responses gets of a stream of vLLM with these deltas, each with the log probabilities of
/// its one token.
async fn said(deltas: &[Value], token: &Value) -> (Vec<Value>, Reports) {
    let reports = Reports::default();
    let chunk = |delta: &Value| {
        let choice = json!({"index": 0, "delta": delta, "logprobs": {"content": [token]}});
        (Duration::ZERO, Some(format!("data: {}\n\n", json!({"choices": [choice]}))))
    };
    let done = (Duration::ZERO, Some("data: [DONE]\n\n".to_owned()));
    let chunks: Vec<_> = deltas.iter().map(chunk).chain([done]).collect();
    let upstream = Upstream::new().replies(events("text/event-stream", chunks));
    let config = TargetConfig::new("demo/vllm", "vllm", "m").with_endpoint("http://vllm:8000");
    let asked = r#"{"model":"any","input":"Hi","stream":true,"top_logprobs":20,"include":["message.output_text.logprobs"]}"#;
    let layer = layer(config).observer(reports.clone());
    let (_, body) = send(layer, &upstream, post("/v1/responses", asked)).await;
    let data = body.lines().filter_map(|line| line.strip_prefix("data: "));
    (data.map(|data| serde_json::from_str(data).unwrap()).collect(), reports)
}

fn of<'e>(events: &'e [Value], kind: &'e str) -> impl Iterator<Item = &'e Value> {
    events.iter().filter(move |event| event["type"] == kind)
}

#[tokio::test]
async fn they_are_of_text_alone() {
    let call =
        json!({"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "f", "arguments": "{}"}}]});
    let deltas = [
        json!({"reasoning_content": "Hm."}),
        json!({"content": "So"}),
        // Half a letter, whose other half comes with the next.
        json!({"content": ""}),
        json!({"content": "é"}),
        call,
    ];
    let (events, reports) = said(&deltas, &json!({"token": "t", "logprob": -0.5})).await;
    let told: Vec<_> = of(&events, "response.output_text.delta")
        .map(|event| (event["delta"].as_str().unwrap(), event["logprobs"].as_array().unwrap().len()))
        .collect();
    assert_eq!(told, [("So", 1), ("é", 2)]);
    assert_eq!(reports.only().call.dropped.to_string(), "logprobs");
}

#[tokio::test]
async fn many_are_told_by_deltas_alone() {
    let token = json!({"token": "t", "logprob": -0.5, "bytes": vec![255; 3_000]});
    for (tokens, repeated) in [(10, 10), (100, 0)] {
        let (events, _) = said(&vec![json!({"content": "t"}); tokens], &token).await;
        let deltas = of(&events, "response.output_text.delta");
        assert!(deltas.map(|event| &event["logprobs"]).all(|told| told == &json!([token])));
        let done = of(&events, "response.output_text.done").next().unwrap();
        assert_eq!(done["logprobs"].as_array().unwrap().len(), repeated);
        let whole = of(&events, "response.completed").next().unwrap();
        let text = &whole["response"]["output"][0]["content"][0];
        assert_eq!(text["text"].as_str().unwrap().len(), tokens);
        assert_eq!(text["logprobs"].as_array().unwrap().len(), repeated);
    }
}

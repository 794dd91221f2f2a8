//! AIService: Azure OpenAI behind the gateway.

use crate::support::{Backend, Running, World, limits::post, rule, to_ai};

const REPLY: &str = r#"{"id":"x","object":"chat.completion","model":"gpt-4o-2024-11-20","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop","content_filter_results":{"hate":{"filtered":false,"severity":"safe"}}}],"prompt_filter_results":[{"prompt_index":0}],"usage":{"prompt_tokens":9,"completion_tokens":91,"total_tokens":100}}"#;

/// The first chunk holds no answer, only what was found of the prompt.
const STREAM: &str = "data: {\"choices\":[],\"created\":0,\"id\":\"\",\"model\":\"\",\"object\":\"\",\"prompt_filter_results\":[{\"prompt_index\":0}]}\n\n\
    data: {\"id\":\"x\",\"model\":\"gpt-4o\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"},\"content_filter_results\":{}}]}\n\n\
    data: {\"id\":\"x\",\"model\":\"gpt-4o\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
    data: [DONE]\n\n";

async fn provider() -> Backend {
    Backend::answering(|request| {
        let (kind, body) = match request.json()["stream"] == true {
            true => ("text/event-stream", STREAM),
            false => ("application/json", REPLY),
        };
        format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    })
    .await
}

async fn gateway(provider: &Backend, auth: &str, rest: &str) -> Running {
    let service = format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: key, namespace: demo}}
stringData: {{key: azure-key}}
---
apiVersion: gateway.nantian.dev/v1alpha1
kind: AIService
metadata: {{name: gpt, namespace: demo}}
spec: {{provider: azure-openai, model: my-gpt, endpoint: \"http://{}\", auth: {{secret: key{auth}}}{rest}}}
",
        provider.address
    );
    World::new().manifest("service", &service).route("llm", &[rule("/", &to_ai("gpt"))]).start().await
}

fn ask(path: &str, stream: bool) -> String {
    let body = format!(
        r#"{{"model":"any","max_tokens":9,"stream":{stream},"messages":[{{"role":"user","content":"Hi"}}]}}"#
    );
    post(path, "api-key: of-the-client\r\n", &body)
}

#[tokio::test]
async fn a_dated_version_asks_a_deployment_and_what_the_filters_say_is_kept() {
    let provider = provider().await;
    let gateway = gateway(&provider, "", ", apiVersion: \"2024-10-21\"").await;
    let reply =
        gateway.ask(ask("/openai/deployments/any/chat/completions?api-version=2023-05-15", false)).await;
    assert_eq!(reply.text(), REPLY);
    let seen = provider.last();
    let path = "/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21";
    assert_eq!(seen.start, format!("POST {path} HTTP/1.1"));
    assert_eq!(seen.all("api-key"), ["azure-key"]);
    assert_eq!(seen.all("authorization"), [""; 0]);
}

#[tokio::test]
async fn the_api_without_date_is_asked_for_the_model_and_other_clients_are_answered() {
    let provider = provider().await;
    let gateway = gateway(&provider, ", type: bearer", "").await;
    let reply = gateway.ask(ask("/v1/messages", false)).await;
    assert_eq!(reply.status(), 200, "{}", reply.text());
    assert_eq!(reply.header("x-nantian-dropped"), Some("content_filter_results"));
    let seen = provider.last();
    assert_eq!(seen.start, "POST /openai/v1/chat/completions HTTP/1.1");
    assert_eq!(seen.all("authorization"), ["Bearer azure-key"]);
    assert_eq!(seen.json()["model"], "my-gpt");
    assert_eq!(seen.json()["max_completion_tokens"], 9);

    let reply = gateway.ask(ask("/v1/messages", true)).await;
    assert!(reply.text().contains(r#"{"type":"text_delta","text":"hi"}"#), "{}", reply.text());
    assert!(reply.text().contains("event: message_stop"), "{}", reply.text());
}

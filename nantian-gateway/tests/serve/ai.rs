//! AIService: an OpenAI-type provider behind the gateway.

use crate::support::{Backend, Message, Port, Running, World, chat, rule, to_ai};

const BUFFERED: &str = r#"{"id":"x","object":"chat.completion","model":"fake-large","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":91,"total_tokens":100},"odd":  1}"#;

/// A stream with what a parser may not like: comments, odd spacing, an event that spans chunks.
const STREAM: &str = ": hello\n\ndata: {\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"h\u{e9}\"}}]}\n\n\
    data:{\"id\":\"x\", \"choices\":[{\"index\":0,\"delta\":{\"content\":\"llo\"},\"finish_reason\":\"stop\"}]}\r\n\r\n\
    data: {\"id\":\"x\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":91,\"total_tokens\":100}}\n\n\
    data: [DONE]\n\n";

/// A provider that streams if it is asked to.
async fn provider() -> Backend {
    Backend::answering(|request| {
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        if body["stream"] != true {
            let length = BUFFERED.len();
            return format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{BUFFERED}"
            )
            .into_bytes();
        }
        let mut reply =
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for part in STREAM.as_bytes().chunks(7) {
            reply.extend(format!("{:x}\r\n", part.len()).bytes());
            reply.extend(part);
            reply.extend(b"\r\n");
        }
        reply.extend(b"0\r\n\r\n");
        reply
    })
    .await
}

/// The AIService `llm` at `provider`, its Secret, and the route to it; `limits` is the spec of a TokenPolicy.
async fn gateway(provider: &Backend, limits: Option<&str>) -> Running {
    let service = format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: key, namespace: demo}}
stringData: {{token: sk-provider}}
---
apiVersion: gateway.nantian.dev/v1alpha1
kind: AIService
metadata: {{name: llm, namespace: demo}}
spec:
  provider: openai
  model: fake-large
  endpoint: http://{}/v1
  auth: {{type: bearer, secret: key, key: token}}
",
        provider.address
    );
    let world = World::new().manifest("service", &service).route("llm", &[rule("/v1", &to_ai("llm"))]);
    let world = match limits {
        None => world,
        Some(limits) => world.manifest(
            "limits",
            &format!(
                "
apiVersion: gateway.nantian.dev/v1alpha1
kind: TokenPolicy
metadata: {{name: limits, namespace: demo}}
spec: {{targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: llm}}], {limits}}}
"
            ),
        ),
    };
    world.start().await
}

async fn ask(gateway: &Running, stream: bool) -> Message {
    gateway.ask(chat("llm.example", stream)).await
}

#[tokio::test]
async fn the_provider_sees_its_own_credential_and_model_and_the_client_its_bytes() {
    let provider = provider().await;
    let gateway = gateway(&provider, None).await;

    let reply = ask(&gateway, false).await;
    assert_eq!((reply.status(), reply.text().as_str()), (200, BUFFERED));
    let seen = provider.last();
    assert_eq!(seen.start, "POST /v1/chat/completions HTTP/1.1");
    assert_eq!(seen.all("authorization"), ["Bearer sk-provider"]);
    assert_eq!(seen.all("host"), [provider.address.to_string()]);
    assert_eq!(seen.json()["model"], "fake-large");
    assert!(seen.text().ends_with(r#""seed":  7}"#), "the rest of the request is untouched");
    assert!(seen.headers.iter().all(|(_, value)| !value.contains("sk-client")));

    let reply = ask(&gateway, true).await;
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    assert_eq!(reply.text(), STREAM);
}

#[tokio::test]
async fn the_usage_of_replies_counts_against_a_limit_on_tokens() {
    let provider = provider().await;
    let gateway = gateway(&provider, Some("tokensPerMinute: 250")).await;
    for stream in [false, true] {
        assert_eq!(ask(&gateway, stream).await.status(), 200);
    }
    let refused = ask(&gateway, false).await;
    assert_eq!(refused.status(), 429, "50 tokens are left, and a reply takes 100");
    assert_eq!(refused.header("x-ratelimit-remaining-tokens"), Some("50"));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(provider.seen().len(), 2);
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_is_answered_for() {
    let nobody = Port::reserve();
    let gateway = gateway(&Backend::at(nobody.address()), None).await;
    let reply = ask(&gateway, false).await;
    assert!(matches!(reply.status(), 502 | 503), "{reply:?}");
    assert!(!reply.text().contains("sk-provider"));
}

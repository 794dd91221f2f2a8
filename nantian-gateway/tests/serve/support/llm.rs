//! Providers of LLMs, AIServices in front of them, and what clients send.

use super::{Backend, World, rule};

/// A response of a provider or of a collector.
pub(crate) fn said(content_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// An OpenAI-type provider with one answer, which it streams in small pieces if it is asked to.
pub(crate) async fn provider(whole: &'static str, stream: &'static str) -> Backend {
    Backend::answering(move |request| {
        if request.json()["stream"] != true {
            return said("application/json", whole);
        }
        let mut reply =
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                .to_vec();
        for part in stream.as_bytes().chunks(7) {
            reply.extend(format!("{:x}\r\n", part.len()).bytes());
            reply.extend(part);
            reply.extend(b"\r\n");
        }
        reply.extend(b"0\r\n\r\n");
        reply
    })
    .await
}

/// An OpenAI-type provider whose stream has `Hel` and never ends.
pub(crate) async fn unending_provider() -> Backend {
    Backend::raw(|mut wire| async move {
        let Ok(_) = wire.message().await else { return };
        let token = r#"data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}"#;
        let head = "content-type: text/event-stream\r\ntransfer-encoding: chunked";
        let length = token.len() + 2;
        wire.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{length:x}\r\n{token}\n\n\r\n")).await;
        std::future::pending::<()>().await;
    })
    .await
}

/// The AIService `llm` for `fake-large` at an OpenAI-type provider, with more of its spec, and the route to
/// it.
pub(crate) fn llm(provider: &Backend, spec: &str) -> World {
    World::new().manifest("llm", &llm_service(provider, spec)).route("llm", &[rule("/", &to_ai("llm"))])
}

/// That AIService alone.
pub(crate) fn llm_service(provider: &Backend, spec: &str) -> String {
    format!(
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
  {spec}
",
        provider.address
    )
}

/// A chat completion, asked for with a credential of the client's own.
pub(crate) fn chat(host: &str, stream: bool) -> String {
    let body = format!(
        r#"{{"model":"any","stream":{stream},"messages":[{{"role":"user","content":"hi"}}],"seed":  7}}"#
    );
    let length = body.len();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer sk-client\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// The field that sends a rule to an AIService.
pub(crate) fn to_ai(service: &str) -> String {
    format!("backendRefs: [{{group: gateway.nantian.dev, kind: AIService, name: {service}}}]")
}

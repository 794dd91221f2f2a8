//! TokenPolicies, and what they are tried with.

use super::{Backend, Running};

/// The TokenPolicy `name` on `target`.
pub(crate) fn limits(name: &str, target: &str, spec: &str) -> String {
    let group = match target {
        target if target.contains("kind: Service") => "''",
        target if target.contains("kind: AIService") => "gateway.nantian.dev",
        _ => "gateway.networking.k8s.io",
    };
    format!(
        "
apiVersion: gateway.nantian.dev/v1alpha1
kind: TokenPolicy
metadata: {{name: {name}, namespace: demo}}
spec: {{targetRefs: [{{group: {group}, {target}}}], {spec}}}
"
    )
}

pub(crate) fn on_route(spec: &str) -> String {
    limits("limits", "kind: HTTPRoute, name: web", spec)
}

/// An AIService `name` for `model` of `provider`.
pub(crate) fn ai_service(name: &str, model: &str, provider: &Backend) -> String {
    format!(
        "
apiVersion: gateway.nantian.dev/v1alpha1
kind: AIService
metadata: {{name: {name}, namespace: demo}}
spec: {{provider: openai, model: {model}, endpoint: 'http://{}/v1', auth: {{type: none}}}}
",
        provider.address
    )
}

/// A reply that used so many tokens.
pub(crate) fn completion(tokens: u64) -> String {
    let body = format!(
        r#"{{"id":"x","object":"chat.completion","model":"m","choices":[],"usage":{{"prompt_tokens":1,"completion_tokens":{},"total_tokens":{tokens}}}}}"#,
        tokens - 1
    );
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
}

pub(crate) fn post(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
}

pub(crate) async fn statuses(gateway: &Running, path: &str, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(gateway.get(path).await.status());
    }
    statuses
}

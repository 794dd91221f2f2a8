//! What clients of an LLM send.

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

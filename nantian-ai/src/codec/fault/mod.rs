//! Errors of providers, read from any of the shapes they come in and written in each dialect.

use http::StatusCode;
use memchr::memmem;

use super::{Fields, Object, Value};
use crate::dialect::{ClientDialect, gemini};
use crate::ir::{Fault, FaultKind};

/// What the status for a bad request stands for as well, where it is named: that the conversation is too
/// long, the model gone, or that the model has failed.
const OF_OTHERS: [FaultKind; 3] = [FaultKind::ContextLength, FaultKind::NotFound, FaultKind::Unreadable];

/// Groq's names for refusals of what the model has written.
const OF_AN_ANSWER: [&str; 3] = ["json_validate_failed", "output_parse_failed", "tool_use_failed"];

/// What OpenRouter says for what a provider behind it has said, which stands beside it.
const OF_ANOTHER: &str = "Provider returned error";

/// What Xiaomi says where `param` has what is wrong.
const OF_A_PARAMETER: &str = "Param Incorrect";

/// The error that a refusal stands for. A body that is no error of a dialect, such as a page of a proxy, says
/// nothing that a client should see.
pub(crate) fn read(status: StatusCode, body: &[u8]) -> Fault {
    // Xiaomi refuses streams by such a line.
    let json = body.strip_prefix(b"data:").unwrap_or(body);
    let Ok(body) = serde_json::from_slice(json).map(gemini::unlisted) else {
        return Fault::of_status(status, None);
    };
    // Some say it with a status that speaks of the request.
    if body.get("error").is_some_and(is_of_credential) {
        return refused_credential();
    }
    let (message, kind) = said(body);
    let fault = Fault::of_status(status, message);
    match kind {
        Some(kind) if fault.kind == FaultKind::Invalid && OF_OTHERS.contains(&kind) => {
            Fault { kind, ..fault }
        }
        _ => fault,
    }
}

/// An error inside a reply or a stream, where no status says what it is: the value of `error`.
pub(crate) fn of_error(error: Value) -> Fault {
    if is_of_credential(&error) {
        return refused_credential();
    }
    let code = error.get("code").and_then(|code| u16::try_from(code.as_number()?.as_u64()?).ok());
    let (message, kind) = said(error);
    let message = message.unwrap_or_else(|| "the provider reports an error".to_owned());
    let status = code.and_then(|code| StatusCode::from_u16(code).ok()).filter(|it| it.as_u16() >= 400);
    match (kind, status) {
        // A status says more than that something went wrong.
        (None | Some(FaultKind::Upstream), Some(status)) => Fault::of_status(status, Some(message)),
        (kind, _) => Fault::said(kind.unwrap_or(FaultKind::Upstream), message),
    }
}

/// An error that is an event of its own, as streams of Responses have it.
pub(crate) fn of_event(event: &mut Fields) -> Fault {
    let members = ["code", "message"].map(|name| (name.to_owned(), event.take(name).unwrap_or_default()));
    of_error(Value::Object(members.into()))
}

/// Whether an error, as far as it is here, names a refusal of what the model has written, which was not free.
pub(crate) fn is_of_an_answer(error: &[u8]) -> bool {
    OF_AN_ANSWER.iter().any(|name| memmem::find(error, format!("\"{name}\"").as_bytes()).is_some())
}

/// The operator's: a client would blame its own, and need not see what the provider says of it.
pub(crate) fn refused_credential() -> Fault {
    Fault::new(FaultKind::Upstream, "the provider refused the configured credential")
}

/// Whether it is the refusal of the operator's credential.
pub(crate) fn is_refused_credential(fault: &Fault) -> bool {
    *fault == refused_credential()
}

/// Whether a status says so, whatever is said besides. 402: there is no credit behind it.
pub(crate) fn refuses_credential(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 402 | 407)
}

/// Names by which providers refuse a credential, or what is left on its account.
const OF_CREDENTIAL: [&str; 7] = [
    "authentication_error",
    "billing_error",
    "billing_hard_limit_reached",
    "billing_not_active",
    "insufficient_quota",
    "invalid_api_key",
    "UNAUTHENTICATED",
];

/// Anthropic's words for the same, which it has no name for: also of what the organisation or its workspace
/// allows itself.
const NO_CREDIT: [&str; 3] = [
    "This organization has been disabled",
    "You have reached your specified ",
    "Your credit balance is too low",
];

fn is_of_credential(error: &Value) -> bool {
    let mut names = ["type", "code", "status"].into_iter().filter_map(|name| error.get(name)?.as_str());
    let is_of_credit = |said: &str| NO_CREDIT.iter().any(|words| said.starts_with(words));
    let named = names.any(|name| OF_CREDENTIAL.contains(&name))
        || error.get("message").and_then(Value::as_str).is_some_and(is_of_credit);
    let reason = |detail: &Value| detail.get("reason").and_then(Value::as_str) == Some("API_KEY_INVALID");
    named
        || error.get("code").and_then(|code| code.as_number()?.as_u64()) == Some(401)
        || error.get("details").is_some_and(|details| details.as_list().iter().any(reason))
}

/// The message, and the kind if it is named.
fn said(value: Value) -> (Option<String>, Option<FaultKind>) {
    if let Value::String(message) = value {
        // Ollama hands on what the server behind it has said.
        let within = Some(&message).filter(|message| message.starts_with('{'));
        return match within.and_then(|within| serde_json::from_str::<Value>(within).ok()) {
            Some(within) => {
                let (said, kind) = said(within);
                (said.or(Some(message)), kind)
            }
            None => (Some(message), None),
        };
    }
    let mut fields = Fields::lenient(value);
    if let Some(error) = fields.take("error") {
        return said(error);
    }
    let kind = fields.any_text("type");
    let code = fields.any_text("code");
    let status = fields.any_text("status");
    // A code says more than a type.
    let kind = [code, kind, status].into_iter().flatten().find_map(|name| kind_of(&name));
    let mut message = fields.some_text("message");
    if message.as_deref() == Some(OF_A_PARAMETER) {
        message = fields.some_text("param").or(message);
    }
    if message.as_deref() == Some(OF_ANOTHER)
        && let Some((said, named)) = said_by_another(&mut fields)
    {
        return (Some(said), named.or(kind));
    }
    (message.or_else(|| fields.some_text("detail")), kind)
}

/// The same of a provider behind the one that is asked, but for what it says of a credential.
fn said_by_another(error: &mut Fields) -> Option<(String, Option<FaultKind>)> {
    let raw = error.any_object("metadata").some_text("raw")?;
    let Ok(value) = serde_json::from_str::<Value>(&raw) else { return Some((raw, None)) };
    if is_of_credential(&value) || value.get("error").is_some_and(is_of_credential) {
        return None;
    }
    let (said, kind) = said(value);
    Some((said.unwrap_or(raw), kind))
}

fn kind_of(name: &str) -> Option<FaultKind> {
    Some(match name.to_ascii_lowercase().as_str() {
        "context_length_exceeded" | "exceed_context_size_error" => FaultKind::ContextLength,
        "invalid_request_error" | "invalid_argument" | "invalid_prompt" => FaultKind::Invalid,
        "permission_error" | "permission_denied" => FaultKind::Permission,
        "not_found_error" | "not_found" | "model_not_found" | "model_decommissioned" | "invalid_model" => {
            FaultKind::NotFound
        }
        name if OF_AN_ANSWER.contains(&name) => FaultKind::Unreadable,
        "request_too_large" => FaultKind::TooLarge,
        "rate_limit_error" | "rate_limit_exceeded" | "resource_exhausted" => FaultKind::RateLimit,
        "overloaded_error" | "overloaded" | "server_is_overloaded" | "slow_down" | "unavailable" => {
            FaultKind::Overloaded
        }
        "timeout_error" | "timeout" | "deadline_exceeded" => FaultKind::Timeout,
        "api_error" | "server_error" | "internal_error" | "internal" => FaultKind::Upstream,
        _ => return None,
    })
}

/// The status for a client of a dialect. 529 is what Anthropic's clients know as overload.
pub(crate) fn status(kind: FaultKind, dialect: ClientDialect) -> StatusCode {
    match (kind, dialect) {
        (FaultKind::Overloaded, ClientDialect::Anthropic) => {
            StatusCode::from_u16(529).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
        }
        _ => kind.status(),
    }
}

/// The body of an error.
pub(crate) fn write(body: &mut Object<'_>, fault: &Fault, dialect: ClientDialect) {
    match dialect {
        ClientDialect::Anthropic => write_anthropic(body, fault),
        ClientDialect::Ollama => body.text("error", &fault.message),
        ClientDialect::OpenAi | ClientDialect::Responses => write_openai(body, fault),
    }
}

pub(crate) fn write_openai(body: &mut Object<'_>, fault: &Fault) {
    let (kind, code) = openai_names(fault);
    body.object("error", |error| {
        error.text("message", &fault.message);
        error.text("type", kind);
        error.null("param");
        error.text("code", code);
    });
}

pub(crate) fn write_anthropic(body: &mut Object<'_>, fault: &Fault) {
    /// By these words clients know that they have to shorten a conversation: there is no type for it.
    const TOO_LONG: &str = "prompt is too long";
    let message = &fault.message;
    let is_unnamed = fault.kind == FaultKind::ContextLength && !message.contains(TOO_LONG);
    body.text("type", "error");
    body.object("error", |error| {
        error.text("type", anthropic_name(fault.kind));
        error.text("message", &if is_unnamed { format!("{TOO_LONG}: {message}") } else { message.clone() });
    });
}

/// OpenAI's `type` and `code`.
pub(crate) fn openai_names(fault: &Fault) -> (&'static str, &'static str) {
    match fault.kind {
        _ if is_refused_credential(fault) => ("upstream_auth_error", "upstream_auth"),
        FaultKind::ContextLength => ("invalid_request_error", "context_length_exceeded"),
        FaultKind::Invalid | FaultKind::Unsupported => ("invalid_request_error", "invalid_request"),
        FaultKind::Permission => ("invalid_request_error", "permission_denied"),
        FaultKind::NotFound => ("invalid_request_error", "model_not_found"),
        FaultKind::TooLarge => ("invalid_request_error", "request_too_large"),
        FaultKind::RateLimit => ("requests", "rate_limit_exceeded"),
        // Not OpenAI's `server_is_overloaded`: at that word Codex gives the turn up, and else asks again.
        FaultKind::Overloaded => ("server_error", "overloaded"),
        FaultKind::Timeout => ("timeout", "timeout"),
        FaultKind::Truncated => ("server_error", "upstream_truncated"),
        FaultKind::Unreadable | FaultKind::Upstream => ("server_error", "upstream_error"),
    }
}

pub(crate) fn anthropic_name(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::ContextLength | FaultKind::Invalid | FaultKind::Unsupported => "invalid_request_error",
        FaultKind::Permission => "permission_error",
        FaultKind::NotFound => "not_found_error",
        FaultKind::TooLarge => "request_too_large",
        FaultKind::RateLimit => "rate_limit_error",
        FaultKind::Overloaded => "overloaded_error",
        FaultKind::Timeout => "timeout_error",
        FaultKind::Truncated | FaultKind::Unreadable | FaultKind::Upstream => "api_error",
    }
}

#[cfg(test)]
mod tests;

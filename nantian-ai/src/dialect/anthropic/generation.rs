//! Requests that were made for a Claude of another generation than the one that gets them.

use memchr::memmem;

use super::Traits;
use super::traits::Off;
use crate::edit::Object;
use crate::outbound::foreign::{Message, items};

/// Whether a request that names another model says what this one refuses, so that it has to be said anew.
pub(crate) fn is_for_another(object: &Object<'_>, model: &str) -> bool {
    let traits = Traits::of(model);
    if !traits.is_claude || object.text("model").is_none_or(|asked| asked == model) {
        return false;
    }
    let thinking = member(object, "thinking", |config| config.text("type"));
    let has_effort = member(object, "output_config", |config| config.value("effort")).is_some();
    let thinks_otherwise = match thinking.as_deref() {
        Some("adaptive") => traits.takes_budget,
        Some("disabled") => traits.off != Off::Disabled,
        // Budgets went with sampling: 4.6 takes both beside an effort.
        Some("enabled") => !traits.takes_budget && !traits.takes_sampling,
        _ => false,
    };
    let draws = ["temperature", "top_p", "top_k"].iter().any(|name| {
        // 1 is what they take anyway.
        object.value(name).is_some_and(|value| !matches!(value, b"1" | b"1.0" | b"null"))
    });
    thinks_otherwise
        || has_effort && !traits.takes_effort
        || draws && !traits.takes_sampling
        || !traits.takes_later_system && has_system_message(object)
}

/// Whether the system speaks among the messages. What they hold may be any JSON, such as a tool's input.
fn has_system_message(object: &Object<'_>) -> bool {
    let Some(json) = object.value("messages").filter(|json| memmem::find(json, b"\"system\"").is_some())
    else {
        return false;
    };
    let messages = std::str::from_utf8(json).ok().and_then(|list| items(json, list)).unwrap_or_default();
    messages.iter().any(|message| Message::of(message.json).role == "system")
}

fn member<'a, T>(object: &Object<'a>, name: &str, read: impl FnOnce(&Object<'a>) -> Option<T>) -> Option<T> {
    read(&Object::parse(object.value(name)?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_model_refuses_has_to_be_said_anew() {
        const OLD: &str = "claude-sonnet-4-5";
        const NEW: &str = "claude-opus-4-8";
        for (model, more, is) in [
            (OLD, r#""thinking":{"type":"adaptive"}"#, true),
            (OLD, r#""output_config":{"effort":"high"}"#, true),
            (OLD, r#""messages":[{"role":"user","content":"a"},{"role": "system","content":"b"}]"#, true),
            (OLD, r#""messages":[{"role":"user","content":"\"role\":\"system\""}]"#, false),
            (OLD, r#""thinking":{"type":"enabled","budget_tokens":2000},"temperature":0.5"#, false),
            (NEW, r#""thinking":{"type":"enabled","budget_tokens":2000}"#, true),
            (NEW, r#""temperature":0.5"#, true),
            (NEW, r#""temperature":1,"thinking":{"type":"adaptive"}"#, false),
            (NEW, r#""output_config":{"effort":"high"}"#, false),
            // It takes both, and one at least an effort beside its budget.
            ("claude-opus-4-6", r#""thinking":{"type":"enabled","budget_tokens":2000}"#, false),
            (
                "claude-sonnet-4-6",
                r#""thinking":{"type":"adaptive"},"output_config":{"effort":"high"}"#,
                false,
            ),
            ("claude-opus-4-5-20251101", r#""output_config":{"effort":"high"}"#, false),
            ("claude-opus-4-5-20251101", r#""thinking":{"type":"adaptive"}"#, true),
            (
                OLD,
                r#""messages":[{"role":"assistant","content":[{"type":"tool_use","input":{"messages":[{"role":"system"}]}}]}]"#,
                false,
            ),
            ("glm-4.6", r#""thinking":{"type":"adaptive"}"#, false),
        ] {
            let body = format!(r#"{{"model":"claude-x",{more}}}"#);
            let object = Object::parse(body.as_bytes()).unwrap();
            assert_eq!(is_for_another(&object, model), is, "{model} {more}");
            assert!(!is_for_another(&object, "claude-x"), "{more}");
        }
    }
}

//! Requests that were made for a Claude of another generation than the one that gets them.

use std::ops::Range;

use memchr::memmem;

use super::Traits;
use super::traits::Off;
use crate::edit::Object;
use crate::outbound::foreign::{Message, items};

/// Whether a request that names another model says what this one refuses, so that it has to be said anew.
pub(crate) fn is_for_another(object: &Object<'_>, model: &str) -> bool {
    let Some(traits) = of_another(object, model) else { return false };
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

/// Where a request that names another model asks for a longer answer than this one gives, and the longest.
/// Without room for its thinking there it stays as it is.
pub(crate) fn lowered_limit(object: &Object<'_>, model: &str) -> Option<(Range<usize>, String)> {
    let most = of_another(object, model).filter(|traits| traits.knows_most)?.most_output;
    let (at, limit) = object.place("max_tokens").filter(|_| object.number("max_tokens") > Some(most))?;
    let budget = member(object, "thinking", |config| config.number("budget_tokens"));
    budget.is_none_or(|budget| budget < most).then(|| (at..at + limit.len(), most.to_string()))
}

/// What the model takes, if it is a Claude and the request names another one.
fn of_another(object: &Object<'_>, model: &str) -> Option<Traits> {
    let asks_another = object.text("model").is_some_and(|asked| asked != model);
    Some(Traits::of(model)).filter(|traits| traits.is_claude && asks_another)
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

    #[test]
    fn a_limit_that_another_model_has_is_lowered_to_what_this_one_has() {
        for (model, more, lowered) in [
            ("claude-sonnet-4-5", r#""max_tokens":128000"#, Some("64000")),
            ("claude-sonnet-4-5", r#""max_tokens":64000"#, None),
            ("claude-3-haiku-20240307", r#""max_tokens": 8192 "#, Some("4096")),
            ("claude-opus-4-8", r#""max_tokens":128000"#, None),
            ("claude-next", r#""max_tokens":128000"#, None),
            ("glm-4.6", r#""max_tokens":128000"#, None),
            ("claude-sonnet-4-5", r#""max_tokens":"128000""#, None),
            (
                "claude-sonnet-4-5",
                r#""max_tokens":128000,"thinking":{"type":"enabled","budget_tokens":100000}"#,
                None,
            ),
        ] {
            let body = format!(r#"{{"model":"claude-x",{more}}}"#);
            let object = Object::parse(body.as_bytes()).unwrap();
            let (range, limit) = lowered_limit(&object, model).unzip();
            assert_eq!(limit.as_deref(), lowered, "{model} {more}");
            assert_eq!(
                range.map(|range| &body[range]),
                lowered.and(object.value("max_tokens")).map(|it| std::str::from_utf8(it).unwrap())
            );
            assert_eq!(lowered_limit(&object, "claude-x"), None, "{more}");
        }
    }
}

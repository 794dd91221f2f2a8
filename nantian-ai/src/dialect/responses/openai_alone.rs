//! Requests that only OpenAI takes, of those who speak Responses.

use crate::edit::Object;
use crate::foreign::items;

/// The kinds of tools, and of items, that xAI does not know. Codex sends them.
const TOOLS: [&str; 3] = ["custom", "namespace", "tool_search"];
const ITEMS: [&str; 6] = [
    "additional_tools",
    "agent_message",
    "custom_tool_call",
    "custom_tool_call_output",
    "tool_search_call",
    "tool_search_output",
];

/// Whether a request holds what xAI refuses, so that it has to be said otherwise.
pub(crate) fn is_for_openai_alone(object: &Object<'_>) -> bool {
    holds(object, "tools", |kind, _| TOOLS.contains(&kind))
        || holds(object, "input", |kind, item| {
            ITEMS.contains(&kind) || (kind == "reasoning" && item.value("content") == Some(b"null"))
        })
}

fn holds(object: &Object<'_>, name: &str, is_it: impl Fn(&str, &Object<'_>) -> bool) -> bool {
    let json = object.value(name).unwrap_or_default();
    let list = std::str::from_utf8(json).ok().and_then(|list| items(json, list)).unwrap_or_default();
    list.iter().any(|item| {
        let item = Object::parse(item.json.as_bytes());
        item.is_ok_and(|item| item.text("type").is_some_and(|kind| is_it(&kind, &item)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_openai_knows_is_found_wherever_it_may_stand() {
        for (body, is) in [
            (r#"{"tools":[{"type":"function"},{"type":"namespace","tools":[]}]}"#, true),
            (r#"{"tools":[{"type":"custom"}]}"#, true),
            (r#"{"input":[{"role":"user"},{"type":"custom_tool_call"}]}"#, true),
            (r#"{"input":[{"type":"reasoning","summary":[],"content": null}]}"#, true),
            (r#"{"input":[{"type":"reasoning","summary":[]}],"tools":[{"type":"web_search"}]}"#, false),
            (r#"{"input":[{"type":"function_call_output","output":"{\"type\":\"custom\"}"}]}"#, false),
            (r#"{"input":"custom_tool_call","tools":null}"#, false),
        ] {
            assert_eq!(is_for_openai_alone(&Object::parse(body.as_bytes()).unwrap()), is, "{body}");
        }
    }
}

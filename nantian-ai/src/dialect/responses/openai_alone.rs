//! Requests that only OpenAI takes, of those who speak Responses.

use crate::edit::Object;
use crate::edit::cut::{Edit, cut_out};
use crate::outbound::foreign::items;

/// The kinds of tools, and of items, that xAI does not know. Codex sends them.
const TOOLS: [&str; 3] = ["custom", "namespace", "tool_search"];
const ITEMS: [&str; 7] = [
    "additional_tools",
    "agent_message",
    "compaction_trigger",
    "custom_tool_call",
    "custom_tool_call_output",
    "tool_search_call",
    "tool_search_output",
];

/// Whether a request holds what xAI refuses, so that it has to be said otherwise.
pub(crate) fn is_for_openai_alone(object: &Object<'_>) -> bool {
    holds(object, "tools", &TOOLS) || holds(object, "input", &ITEMS)
}

/// Cuts out what reasoning that comes back has for its text if there is none, which OpenAI's own client
/// writes, and xAI refuses.
pub(crate) fn without_null_contents(object: &Object<'_>) -> Vec<Edit> {
    let mut cuts = Vec::new();
    each_item(object, "input", |at, kind, item| {
        if kind == "reasoning" && item.value("content") == Some(b"null") {
            cut_out(item.members().map(|(name, range)| (range, name == b"content")), at, &mut cuts);
        }
    });
    cuts
}

fn holds(object: &Object<'_>, name: &str, kinds: &[&str]) -> bool {
    let mut found = false;
    each_item(object, name, |_, kind, _| found |= kinds.contains(&kind));
    found
}

/// Looks at each item of a list, where it is and what kind.
fn each_item(object: &Object<'_>, name: &str, mut look: impl FnMut(usize, &str, &Object<'_>)) {
    let Some((at, json)) = object.place(name) else { return };
    let list = std::str::from_utf8(json).ok().and_then(|list| items(json, list)).unwrap_or_default();
    for item in list {
        if let Ok(fields) = Object::parse(item.json.as_bytes())
            && let Some(kind) = fields.text("type")
        {
            look(at + item.range.start, &kind, &fields);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_only_openai_knows_is_found_wherever_it_may_stand() {
        for (body, is) in [
            (r#"{"tools":[{"type":"function"},{"type":"namespace","tools":[]}]}"#, true),
            (r#"{"tools":[{"type":"custom"}]}"#, true),
            (r#"{"input":[{"role":"user"},{"type":"custom_tool_call"}]}"#, true),
            (r#"{"input":[{"role":"user"},{"type":"compaction_trigger"}]}"#, true),
            (r#"{"input":[{"type":"reasoning","summary":[],"content": null}]}"#, false),
            (r#"{"input":[{"type":"reasoning","summary":[]}],"tools":[{"type":"web_search"}]}"#, false),
            (r#"{"input":[{"type":"function_call_output","output":"{\"type\":\"custom\"}"}]}"#, false),
            (r#"{"input":"custom_tool_call","tools":null}"#, false),
        ] {
            assert_eq!(is_for_openai_alone(&Object::parse(body.as_bytes()).unwrap()), is, "{body}");
        }
    }

    #[test]
    fn a_text_that_reasoning_does_not_have_is_cut_out_alone() {
        let body = Bytes::from(
            r#"{"input":[{"role":"user","content":null},{"type":"reasoning", "content":null,"encrypted_content":"e"},{"type":"reasoning","content":[]}]}"#,
        );
        let object = Object::parse(&body).unwrap();
        let sent = object.set_and(&body, &[], without_null_contents(&object)).concat();
        let expected = r#"{"input":[{"role":"user","content":null},{"type":"reasoning","encrypted_content":"e"},{"type":"reasoning","content":[]}]}"#;
        assert_eq!(String::from_utf8(sent).unwrap(), expected);
    }
}

//! What the model is given that is not in the body: what the request only refers to (a conversation or a file
//! that the provider has stored, what lies behind a URL), and what tools find that the provider runs.

use std::sync::LazyLock;

use memchr::memmem::{self, Finder};

use crate::dialect::ClientDialect;
use crate::edit::Object;
use crate::outbound::foreign::items;

/// Members of Responses that stand for what came before.
const STORED: [&str; 3] = ["previous_response_id", "conversation", "prompt"];

/// What is in every body that refers to anything but by those; in most there is neither.
static MARKS: LazyLock<[Finder<'static>; 2]> = LazyLock::new(|| ["\"file_id\"", "url\""].map(Finder::new));

/// Members that let the provider run tools which no list names: searches of OpenAI, xAI and Qwen, plugins of
/// OpenRouter, servers of MCP at Anthropic.
const OF_PROVIDER: [&str; 5] =
    ["enable_search", "mcp_servers", "plugins", "search_parameters", "web_search_options"];

/// How the kinds of tools begin that clients run. All others are searches, code, pictures or servers of MCP.
const OF_CLIENTS: [&str; 9] = [
    "apply_patch",
    "bash_",
    "computer",
    "custom",
    "function",
    "local_shell",
    "memory_",
    "namespace",
    "text_editor_",
];

/// An item of a Responses conversation that brings tools.
const BRINGS_TOOLS: &[u8] = b"\"additional_tools\"";

/// How far from the name of a picture its URL begins at most.
const NEAR: usize = 256;

/// Whether the model is given more than the body says, of which no estimate of the body knows.
pub(crate) fn refers(dialect: ClientDialect, object: &Object<'_>, body: &[u8]) -> bool {
    let is_stored = |name: &&str| object.value(name).is_some_and(|value| value != b"null");
    if dialect == ClientDialect::Responses && STORED.iter().any(is_stored) {
        return true;
    }
    if MARKS.iter().all(|mark| mark.find(body).is_none()) {
        return false;
    }
    values(body, b"\"file_id\"").any(is_text)
        || values(body, b"\"file_url\"").any(is_text)
        || values(body, b"\"type\"").any(|value| value.starts_with(b"\"url\""))
        || values(body, b"\"image_url\"").any(is_far)
}

/// Whether the provider runs tools, whose results count as a part of the prompt.
pub(crate) fn has_tools_of_provider(object: &Object<'_>) -> bool {
    let is_said =
        |name: &&str| object.value(name).is_some_and(|value| !matches!(value, b"null" | b"false" | b"[]"));
    let brings = |input: &&[u8]| memmem::find(input, BRINGS_TOOLS).is_some();
    OF_PROVIDER.iter().any(is_said)
        || names_one(object)
        || object.value("input").filter(brings).is_some_and(|input| any(input, names_one))
}

/// Whether one of the tools in a list of them is the provider's.
fn names_one(object: &Object<'_>) -> bool {
    object.value("tools").is_some_and(|tools| any(tools, |tool| !is_run_by_client(tool)))
}

fn is_run_by_client(tool: &Object<'_>) -> bool {
    tool.text("type").is_none_or(|kind| match &*kind {
        "tool_search" => tool.text("execution").as_deref() == Some("client"),
        // At the provider it runs only where a container is named.
        "shell" => tool
            .value("environment")
            .and_then(|place| Object::parse(place).ok()?.text("type"))
            .is_none_or(|kind| kind == "local"),
        kind => OF_CLIENTS.iter().any(|known| kind.starts_with(known)),
    })
}

/// Whether anything in a list is such an object.
fn any(list: &[u8], is: impl Fn(&Object<'_>) -> bool) -> bool {
    let items = std::str::from_utf8(list).ok().and_then(|text| items(list, text)).unwrap_or_default();
    items.iter().any(|item| Object::parse(item.json.as_bytes()).is_ok_and(|item| is(&item)))
}

/// What follows each member of a name, at any depth. Quotes within texts are escaped, so that no text looks
/// like one.
fn values<'a>(body: &'a [u8], name: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
    memmem::find_iter(body, name).filter_map(move |at| {
        let rest = body.get(at + name.len()..)?.trim_ascii_start();
        Some(rest.strip_prefix(b":")?.trim_ascii_start())
    })
}

/// It is no schema of a tool, which may have a property of that name.
fn is_text(value: &[u8]) -> bool {
    value.starts_with(b"\"")
}

/// A picture that is not in the body itself.
fn is_far(value: &[u8]) -> bool {
    let near = value.get(..NEAR).unwrap_or(value);
    let end = memmem::find(near, b"\"data:").unwrap_or(near.len());
    near.get(..end).is_some_and(|near| memmem::find(near, b"\"http").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_the_body_is_told_apart() {
        let refers =
            |dialect, body: &str| refers(dialect, &Object::parse(body.as_bytes()).unwrap(), body.as_bytes());
        for (dialect, body) in [
            (ClientDialect::Responses, r#"{"previous_response_id":"resp_1"}"#),
            (ClientDialect::Responses, r#"{"conversation":{"id":"conv_1"}}"#),
            (ClientDialect::Responses, r#"{"prompt":{"id":"pmpt_1"}}"#),
            (
                ClientDialect::Responses,
                r#"{"input":[{"content":[{"type":"input_file","file_id" : "file_1"}]}]}"#,
            ),
            (ClientDialect::Responses, r#"{"input":[{"content":[{"image_url":"https://x/y.png"}]}]}"#),
            (
                ClientDialect::OpenAi,
                r#"{"messages":[{"content":[{"image_url":{"detail":"low","url":"https://x"}}]}]}"#,
            ),
            (
                ClientDialect::Anthropic,
                r#"{"messages":[{"content":[{"source":{"type": "url","url":"https://x"}}]}]}"#,
            ),
        ] {
            assert!(refers(dialect, body), "{body}");
        }
        for (dialect, body) in [
            (ClientDialect::Responses, r#"{"previous_response_id":null,"conversation":null}"#),
            (ClientDialect::OpenAi, r#"{"prompt":"a"}"#),
            (
                ClientDialect::OpenAi,
                r#"{"messages":[{"content":"a \"file_id\":\"b\", see \"type\":\"url\""}]}"#,
            ),
            (
                ClientDialect::OpenAi,
                r#"{"tools":[{"properties":{"file_id":{"type":"string"},"url":{"type":"string"}}}]}"#,
            ),
            (
                ClientDialect::OpenAi,
                r#"{"messages":[{"image_url":{"url":"data:image/png;base64,x"}},{"x":"http"}]}"#,
            ),
            (
                ClientDialect::Anthropic,
                r#"{"messages":[{"content":[{"type":"tool_use","input":{"url":"https://x"}}]}]}"#,
            ),
        ] {
            assert!(!refers(dialect, body), "{body}");
        }
    }

    #[test]
    fn tools_that_the_provider_runs_are_told_apart() {
        let runs = |body: &str| has_tools_of_provider(&Object::parse(body.as_bytes()).unwrap());
        for body in [
            r#"{"tools":[{"type":"function","name":"f"},{"type":"web_search"}]}"#,
            r#"{"tools":[{"type":"mcp","server_url":"https://x"}]}"#,
            r#"{"tools":[{"type":"tool_search"}]}"#,
            r#"{"tools":[{"type":"shell","environment":{"type":"container_auto"}}]}"#,
            r#"{"tools":[{"name":"web_search","type":"web_search_20250305"}]}"#,
            r#"{"tools":[{"name":"run","type":"code_execution_20250825"}]}"#,
            r#"{"mcp_servers":[{"type":"url","url":"https://x"}]}"#,
            r#"{"web_search_options":{}}"#,
            r#"{"input":[{"type":"additional_tools","tools":[{"type":"file_search"}]}]}"#,
        ] {
            assert!(runs(body), "{body}");
        }
        for body in [
            r#"{"tools":[{"type":"function","parameters":{"type":"web_search"}},{"name":"f","input_schema":{}}]}"#,
            r#"{"tools":[{"type":"custom"},{"type":"namespace","tools":[]},{"type":"local_shell"}]}"#,
            r#"{"tools":[{"type":"shell","environment":{"type":"local"}},{"type":"shell"}]}"#,
            r#"{"tools":[{"type":"tool_search","execution":"client"}],"input":[{"type":"web_search_call"}]}"#,
            r#"{"tools":[{"type":"bash_20250124"},{"type":"text_editor_20250728"},{"type":"memory_20250818"}]}"#,
            r#"{"tools":[{"type":"computer_use_preview"}],"mcp_servers":[],"web_search_options":null}"#,
            r#"{"tools":"web_search","input":"\"additional_tools\""}"#,
        ] {
            assert!(!runs(body), "{body}");
        }
    }
}

//! What a request only refers to: a conversation or a file that the provider has stored, or what lies behind
//! a URL.

use std::sync::LazyLock;

use memchr::memmem::{self, Finder};

use crate::dialect::ClientDialect;
use crate::edit::Object;

/// Members of Responses that stand for what came before.
const STORED: [&str; 3] = ["previous_response_id", "conversation", "prompt"];

/// What is in every body that refers to anything but by those; in most there is neither.
static MARKS: LazyLock<[Finder<'static>; 2]> = LazyLock::new(|| ["\"file_id\"", "url\""].map(Finder::new));

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
}

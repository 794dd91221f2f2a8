//! The names of a conversation as a provider knows them, the newer ones or the older ones: in place, every
//! other byte stays.

use std::ops::Range;

use super::profile::{knows_newer_names, wants_newer_limit};
use crate::edit::Object;

/// What the limit of an answer is called, once and by now.
const OLDER: &str = "max_tokens";
const NEWER: &str = "max_completion_tokens";

/// What has to change in the body of a chat for a provider and its model. `refuses_older` is under which
/// name, if any, it is known to refuse a limit.
pub(crate) fn known_names(
    provider: &str,
    model: &str,
    refuses_older: Option<bool>,
    object: &Object<'_>,
) -> Vec<(Range<usize>, &'static str)> {
    let knows_newer = knows_newer_names(provider);
    let mut edits = if refuses_older.unwrap_or_else(|| wants_newer_limit(provider, model)) {
        limit_renamed(object, true)
    } else if refuses_older.is_some() || !knows_newer {
        limit_renamed(object, false)
    } else {
        Vec::new()
    };
    if !knows_newer && let Some((at, messages)) = object.place("messages") {
        let developers = said_by(messages, "\"developer\"");
        edits.extend(developers.map(|role| (at + role.start..at + role.end, "\"system\"")));
    }
    edits
}

/// What has to change for the limit of an answer to have its other name; nothing where it has both.
pub(crate) fn limit_renamed(object: &Object<'_>, is_older: bool) -> Vec<(Range<usize>, &'static str)> {
    let (from, to) = if is_older { (OLDER, NEWER) } else { (NEWER, OLDER) };
    match object.value(to) {
        None => object.keys(from).map(|key| (key, to)).collect(),
        Some(_) => Vec::new(),
    }
}

/// Where a message is of a role, in its quotes. In a text quotes are escaped, so that `"role"` can be found
/// there only after a backslash.
fn said_by<'m>(messages: &'m [u8], role: &'static str) -> impl Iterator<Item = Range<usize>> + use<'m> {
    const NAME: &[u8] = b"\"role\"";
    let is_escaped = |at: usize| at.checked_sub(1).and_then(|at| messages.get(at)) == Some(&b'\\');
    memchr::memmem::find_iter(messages, NAME).filter(move |at| !is_escaped(*at)).filter_map(|at| {
        let after = messages.get(at + NAME.len()..)?;
        let value = after.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        let start = messages.len() - value.len();
        value.starts_with(role.as_bytes()).then_some(start..start + role.len())
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn adapted(provider: &str, body: &'static str) -> String {
        adapted_to(provider, "any", body)
    }

    fn adapted_to(provider: &str, model: &str, body: &'static str) -> String {
        let body = Bytes::from_static(body.as_bytes());
        let object = Object::parse(&body).unwrap();
        let edits = known_names(provider, model, None, &object);
        String::from_utf8(object.set_and(&body, &[("model", "\"m\"")], edits).concat()).unwrap()
    }

    #[test]
    fn only_names_that_are_not_known_change() {
        let body = r#"{"max_completion_tokens" : 9,"messages":[ {"role" : "developer","content":"\"role\":\"developer\""},{"role":"user","content":"developer","a\"role":"developer"}],"model":"x","tools":[{"role":"developer"}]}"#;
        let older = r#"{"max_tokens" : 9,"messages":[ {"role" : "system","content":"\"role\":\"developer\""},{"role":"user","content":"developer","a\"role":"developer"}],"model":"m","tools":[{"role":"developer"}]}"#;
        assert_eq!(adapted("DeepSeek", body), older);
        assert_eq!(adapted("mistral", body), older);
        assert_eq!(adapted("openai", body), body.replace(r#""model":"x""#, r#""model":"m""#));
    }

    #[test]
    fn models_of_openai_that_think_get_their_limit_under_the_newer_name() {
        let body = r#"{"model":"m","max_tokens" :9,"a":{"max_tokens":1}}"#;
        let newer = r#"{"model":"m","max_completion_tokens" :9,"a":{"max_tokens":1}}"#;
        assert_eq!(adapted_to("OpenAI", "gpt-5.2", body), newer);
        assert_eq!(adapted_to("azure-openai", "o3", body), newer);
        for (provider, model) in
            [("openai", "gpt-4o"), ("openrouter", "openai/gpt-5.2"), ("deepseek", "gpt-5")]
        {
            assert_eq!(adapted_to(provider, model, body), body, "{provider} {model}");
        }
        let both = r#"{"max_completion_tokens":9,"max_tokens":8,"model":"m"}"#;
        assert_eq!(adapted_to("openai", "gpt-5.2", both), both);
    }

    #[test]
    fn a_limit_under_the_older_name_stays_the_limit() {
        let body = r#"{"max_completion_tokens":9,"max_tokens":8,"messages":[],"model":"m"}"#;
        assert_eq!(adapted("deepseek", body), body);
    }
}

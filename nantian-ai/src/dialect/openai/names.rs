//! The newer names of a conversation under the older ones, for providers that know only those: in place, every other byte stays.

use std::ops::Range;

use super::profile::knows_newer_names;
use crate::edit::Object;

/// What has to change in the body of a chat for a provider.
pub(crate) fn older_names(provider: &str, object: &Object<'_>) -> Vec<(Range<usize>, &'static str)> {
    if knows_newer_names(provider) {
        return Vec::new();
    }
    let mut edits = Vec::new();
    if object.value("max_tokens").is_none() {
        edits.extend(object.keys("max_completion_tokens").map(|key| (key, "max_tokens")));
    }
    if let Some((at, messages)) = object.place("messages") {
        edits.extend(developers(messages).map(|role| (at + role.start..at + role.end, "\"system\"")));
    }
    edits
}

/// Where a message is a developer's. In a text quotes are escaped, so that `"role"` can be found there only after a backslash.
fn developers(messages: &[u8]) -> impl Iterator<Item = Range<usize>> {
    const NAME: &[u8] = b"\"role\"";
    const DEVELOPER: &[u8] = b"\"developer\"";
    let is_escaped = |at: usize| at.checked_sub(1).and_then(|at| messages.get(at)) == Some(&b'\\');
    memchr::memmem::find_iter(messages, NAME).filter(move |at| !is_escaped(*at)).filter_map(|at| {
        let after = messages.get(at + NAME.len()..)?;
        let value = after.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        let start = messages.len() - value.len();
        value.starts_with(DEVELOPER).then_some(start..start + DEVELOPER.len())
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn adapted(provider: &str, body: &'static str) -> String {
        let body = Bytes::from_static(body.as_bytes());
        let object = Object::parse(&body).unwrap();
        let edits = older_names(provider, &object);
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
    fn a_limit_under_the_older_name_stays_the_limit() {
        let body = r#"{"max_completion_tokens":9,"max_tokens":8,"messages":[],"model":"m"}"#;
        assert_eq!(adapted("deepseek", body), body);
    }
}

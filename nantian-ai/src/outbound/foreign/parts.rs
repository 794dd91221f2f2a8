//! What models of Mistral have thought, which stands among the parts of what they have said.

use memchr::memmem;

use super::chats::each_message;
use super::{Item, REASONING, items};
use crate::edit::Object;
use crate::edit::cut::{Edit, cut_out};
use crate::ir::Losses;

/// Cuts it out, for a provider that knows no such parts. Where nothing else has been said an empty text
/// stands.
pub(crate) fn without_thought_parts(object: &Object<'_>, losses: &mut Losses) -> Vec<Edit> {
    let mut edits = Vec::new();
    let is_there = |json: &[u8]| memmem::find(json, b"\"thinking\"").is_some();
    each_message(object, is_there, |at, message| {
        let Some((within, content)) = message.place("content").filter(|(_, json)| is_there(json)) else {
            return;
        };
        let list = std::str::from_utf8(content).ok().and_then(|list| items(content, list));
        let mut parts = list.unwrap_or_default();
        parts.iter_mut().for_each(|part| part.is_cut = is_thought(part.json));
        if !parts.is_empty() && parts.iter().all(|part| part.is_cut) {
            edits.push((at + within..at + within + content.len(), "\"\""));
        } else {
            cut_out(parts.into_iter().map(Item::place), at + within, &mut edits);
        }
    });
    if !edits.is_empty() {
        losses.add(REASONING);
    }
    edits
}

/// Whether a part is a thought as Mistral tells it, in a list.
fn is_thought(part: &str) -> bool {
    let is_list = |json: &[u8]| json.starts_with(b"[");
    Object::parse(part.as_bytes()).is_ok_and(|part| {
        part.text("type").as_deref() == Some("thinking") && part.value("thinking").is_some_and(is_list)
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn thoughts_are_cut_out_of_what_has_been_said() {
        const THOUGHT: &str = r#"{"type": "thinking", "thinking": [{"type":"text","text":"hm"}]}"#;
        const SAID: &str = r#"{"type":"text","text":"\"thinking\""}"#;
        const OF_CLAUDE: &str = r#"{"type":"thinking","thinking":"hm","signature":"EqoB"}"#;
        let body = |content: &str| {
            Bytes::from(format!(
                r#"{{"messages":[{{"role":"user","content":"thinking"}},{{"role":"assistant", "content": {content} ,"tool_calls":[]}}]}}"#
            ))
        };
        let list = |parts: &[&str]| format!("[{}]", parts.join(" , "));
        for (content, left) in [
            (list(&[THOUGHT, SAID]), list(&[SAID])),
            (list(&[SAID, THOUGHT, SAID]), list(&[SAID, SAID])),
            (list(&[THOUGHT, THOUGHT]), r#""""#.to_owned()),
            (list(&[OF_CLAUDE, SAID]), list(&[OF_CLAUDE, SAID])),
            (r#""\"thinking\"""#.to_owned(), r#""\"thinking\"""#.to_owned()),
            ("[]".to_owned(), "[]".to_owned()),
        ] {
            let (before, mut losses) = (body(&content), Losses::default());
            let object = Object::parse(&before).unwrap();
            let after = object.set_and(&before, &[], without_thought_parts(&object, &mut losses)).concat();
            assert_eq!(after, body(&left), "{content}");
            assert_eq!(losses.is_empty(), content == left, "{content}");
        }
    }
}

//! Reasoning that comes back in a chat.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memmem;

use super::items;
use crate::dialect::gemini;
use crate::dialect::openai::ACKNOWLEDGED;
use crate::edit::Object;
use crate::edit::cut::{Edit, cut_out};
use crate::ir::{Losses, brief_id, short_id};

/// What stands for what the model thought, where it says nothing of it: Moonshot takes an empty text for
/// none.
const BLANK: &str = r#"" ""#;
const WITH_BLANK: &str = r#""reasoning_content":" ","#;

/// Cuts the members of these names out of the messages and the calls in them, for a provider that is known
/// not to take reasoning back.
pub(crate) fn without(object: &Object<'_>, names: &[&str], losses: &mut Losses) -> Vec<Edit> {
    let mut cuts = Vec::new();
    let is_cut = |name: &[u8]| names.iter().any(|cut| cut.as_bytes() == name);
    let is_there =
        |json: &[u8]| names.iter().any(|name| memmem::find(json, format!("\"{name}\"").as_bytes()).is_some());
    each_message(object, is_there, |at, message| {
        let mut cut_of = |at: usize, object: &Object<'_>| {
            cut_out(object.members().map(|(name, range)| (range, is_cut(name))), at, &mut cuts);
        };
        cut_of(at, message);
        each_call(message, |within, call| cut_of(at + within, call));
    });
    if !cuts.is_empty() {
        losses.add("messages.reasoning");
    }
    cuts
}

/// Cuts out what stands in calls for signatures of Gemini: nobody has made it, so that nothing is lost.
pub(crate) fn without_stand_ins(object: &Object<'_>) -> Vec<Edit> {
    let mut cuts = Vec::new();
    let is_there = |json: &[u8]| memmem::find(json, gemini::UNSIGNED.as_bytes()).is_some();
    each_message(object, is_there, |at, message| {
        each_call(message, |within, call| {
            let is_cut = call.value("extra_content").is_some_and(is_there);
            let members = call.members().map(|(name, range)| (range, is_cut && name == b"extra_content"));
            cut_out(members, at + within, &mut cuts);
        });
    });
    cuts
}

/// Puts blank reasoning into what the model has said without any, for a provider that wants some in each of
/// its messages.
pub(crate) fn filled(object: &Object<'_>) -> Vec<Edit> {
    let mut edits = Vec::new();
    let thinks =
        object.value("thinking").is_none_or(|config| memmem::find(config, b"\"disabled\"").is_none());
    let is_there = |json: &[u8]| thinks && memmem::find(json, b"assistant").is_some();
    each_message(object, is_there, |at, message| {
        let said = message.text("role").as_deref() == Some("assistant");
        match message.place("reasoning_content") {
            _ if !said => {}
            None => edits.push((at + 1..at + 1, WITH_BLANK)),
            Some((start, json @ (b"\"\"" | b"null"))) => {
                edits.push((at + start..at + start + json.len(), BLANK));
            }
            Some(_) => {}
        }
    });
    edits
}

/// Leaves out the pictures of a conversation in Chat Completions or at Bedrock, where a text stands for each,
/// or with Ollama.
pub(crate) fn without_pictures(object: &Object<'_>) -> Vec<Edit> {
    const OMITTED: &str = "[image omitted]";
    const BELOW: &str = r"\n[image omitted]";
    const TEXT: &str = r#""text":"[image omitted]""#;
    const INSTEAD: [(&[u8], &str); 2] = [(b"type", r#""type":"text""#), (b"image_url", TEXT)];
    let mut edits = Vec::new();
    let names = ["\"image_url\"", "\"images\"", "\"image\""];
    let is_there = |json: &[u8]| names.iter().any(|name| memmem::find(json, name.as_bytes()).is_some());
    each_message(object, is_there, |at, message| {
        let before = edits.len();
        cut_out(message.members().map(|(name, range)| (range, name == b"images")), at, &mut edits);
        let Some((within, content)) = message.place("content") else { return };
        // Ollama has them beside the text.
        if edits.len() > before && content.ends_with(b"\"") {
            let end = at + within + content.len() - 1;
            edits.push((end..end, if content == b"\"\"" { OMITTED } else { BELOW }));
        }
        each_object(at + within, content, |at, part| {
            if part.text("type").as_deref() != Some("image_url") {
                return each_picture_of_bedrock(at, part, &mut |picture| edits.push((picture, TEXT)));
            }
            for (name, range) in part.members() {
                let instead = INSTEAD.into_iter().find(|(known, _)| *known == name);
                edits.extend(instead.map(|(_, instead)| (at + range.start..at + range.end, instead)));
            }
        });
    });
    edits
}

/// Looks where a block at Bedrock has a picture, or those that a tool shows have some.
fn each_picture_of_bedrock(at: usize, block: &Object<'_>, look: &mut dyn FnMut(Range<usize>)) {
    for (_, range) in block.members().filter(|(name, _)| *name == b"image") {
        look(at + range.start..at + range.end);
    }
    if let Some((start, result)) = block.place("toolResult")
        && let Ok(result) = Object::parse(result)
        && let Some((within, shown)) = result.place("content")
    {
        each_object(at + start + within, shown, |at, block| each_picture_of_bedrock(at, block, look));
    }
}

/// What models of Mistral refuse of a conversation with tools, which is a user who speaks right after a tool,
/// and, with `is_mistral`, what Mistral itself does wherever it is: ids that another provider, or the client,
/// has made, and files that are not named by URLs.
pub(crate) fn for_mistral(object: &Object<'_>, is_mistral: bool) -> Vec<(Range<usize>, String)> {
    let mut edits = Vec::new();
    let is_there = |json: &[u8]| {
        let has = |name: &str| memmem::find(json, name.as_bytes()).is_some();
        has("\"tool_call") || is_mistral && has("\"file_data\"")
    };
    let mut is_after_tool = false;
    each_message(object, is_there, |at, message| {
        let role = message.text("role").unwrap_or_default();
        if is_after_tool && role == "user" {
            let said = format!(r#"{{"role":"assistant","content":"{ACKNOWLEDGED}"}},"#);
            edits.push((at..at, said));
        }
        is_after_tool = role == "tool";
        if !is_mistral {
            return;
        }
        shorten(short_id, at, message, &mut edits);
        if let Some((within, content)) = message.place("content") {
            each_object(at + within, content, |at, part| name_by_url(at, part, &mut edits));
        }
    });
    edits
}

/// Says of a file what `document_url` says: the data stay where they are, and are not copied.
fn name_by_url(at: usize, part: &Object<'_>, edits: &mut Vec<(Range<usize>, String)>) {
    let file = part.place("file").filter(|_| part.text("type").as_deref() == Some("file"));
    let Some((start, Ok(file))) = file.map(|(start, json)| (start, Object::parse(json))) else { return };
    let Some((within, data)) = file.place("file_data").filter(|(_, data)| data.starts_with(b"\"")) else {
        return;
    };
    let name = file.text("filename").and_then(|name| serde_json::to_string(&name).ok());
    let data = start + within..start + within + data.len();
    for (key, member) in part.members() {
        if key == b"type" {
            edits.push((at + member.start..at + member.end, r#""type":"document_url""#.to_owned()));
        } else if member.contains(&data.start) {
            let after = name.as_ref().map_or_else(String::new, |name| format!(r#","document_name":{name}"#));
            edits.push((at + member.start..at + data.start, r#""document_url":"#.to_owned()));
            edits.push((at + data.end..at + member.end, after));
        }
    }
}

/// What OpenAI's models refuse of a conversation with tools: longer ids, which another provider has made.
pub(crate) fn for_openai(object: &Object<'_>) -> Vec<(Range<usize>, String)> {
    let mut edits = Vec::new();
    let is_there = |json: &[u8]| memmem::find(json, b"\"tool_call").is_some();
    each_message(object, is_there, |at, message| shorten(brief_id, at, message, &mut edits));
    edits
}

/// Shortens the ids of calls in a message.
fn shorten(
    short: fn(&str) -> Cow<'_, str>,
    at: usize,
    message: &Object<'_>,
    edits: &mut Vec<(Range<usize>, String)>,
) {
    let mut shorten = |name: &str, at: usize, object: &Object<'_>| {
        let (Some((start, json)), Some(id)) = (object.place(name), object.text(name)) else { return };
        let short = short(&id);
        if short != id {
            edits.push((at + start..at + start + json.len(), format!("\"{short}\"")));
        }
    };
    shorten("tool_call_id", at, message);
    each_call(message, |within, call| shorten("id", at + within, call));
}

/// Looks at each message, and where it is, of a conversation in which something is.
pub(super) fn each_message(
    object: &Object<'_>,
    is_there: impl Fn(&[u8]) -> bool,
    look: impl FnMut(usize, &Object<'_>),
) {
    if let Some((at, json)) = object.place("messages").filter(|(_, json)| is_there(json)) {
        each_object(at, json, look);
    }
}

/// Looks at each call of a message, and where in it that is.
pub(super) fn each_call(message: &Object<'_>, look: impl FnMut(usize, &Object<'_>)) {
    if let Some((at, json)) = message.place("tool_calls") {
        each_object(at, json, look);
    }
}

/// Looks at each object of a list.
pub(super) fn each_object(at: usize, json: &[u8], mut look: impl FnMut(usize, &Object<'_>)) {
    let list = std::str::from_utf8(json).ok().and_then(|list| items(json, list)).unwrap_or_default();
    for item in list {
        if let Ok(object) = Object::parse(item.json.as_bytes()) {
            look(at + item.range.start, &object);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::dialect::openai;

    /// A message as it is sent, and what is lost of it.
    fn sent(provider: &str, message: &str) -> (String, String) {
        sent_to(provider, "m", None, message)
    }

    /// The same for a model, behind an endpoint of the operator's own if it is named.
    fn sent_to(provider: &str, model: &str, endpoint: Option<&str>, message: &str) -> (String, String) {
        let body = Bytes::from(format!(r#"{{"messages":[{message}], "n":1}}"#));
        let object = Object::parse(&body).unwrap();
        let mut losses = Losses::default();
        let edits = without(&object, openai::refused_reasoning(provider, model, endpoint), &mut losses);
        let sent = String::from_utf8(object.set_and(&body, &[], edits).concat()).unwrap();
        let sent = sent.strip_prefix(r#"{"messages":["#).unwrap().strip_suffix(r#"], "n":1}"#).unwrap();
        (sent.to_owned(), losses.to_string())
    }

    #[test]
    fn reasoning_that_comes_back_is_cut_out_in_place() {
        let cut = "messages.reasoning";
        for (message, kept, lost) in [
            (r#"{"role":"assistant", "content":"a"}"#, r#"{"role":"assistant", "content":"a"}"#, ""),
            (
                r#"{"role":"assistant", "reasoning_content":"b" ,"content":"a"}"#,
                r#"{"role":"assistant" ,"content":"a"}"#,
                cut,
            ),
            (
                r#"{"thinking_blocks":[{}], "reasoning_content":"b", "content":"a"}"#,
                r#"{"content":"a"}"#,
                cut,
            ),
            (r#"{"content":"a","thinking_blocks":[{"a":1}]}"#, r#"{"content":"a"}"#, cut),
            (r#"{"content":"a","reasoning":"b","reasoning_details":[{}]}"#, r#"{"content":"a"}"#, cut),
            (r#"{"thinking_blocks":[]}"#, "{}", cut),
            (r#"{"content":"\"thinking_blocks\":1"}"#, r#"{"content":"\"thinking_blocks\":1"}"#, ""),
            (r#"{"content":[{"reasoning":1}]}"#, r#"{"content":[{"reasoning":1}]}"#, ""),
            (
                r#"{"tool_calls":[{"id":"abcdefgh9","extra_content":{"google":{"thought_signature":"s"}},"type":"function"},{"id":"abcdefgh8"}],"reasoning":"b"}"#,
                r#"{"tool_calls":[{"id":"abcdefgh9","type":"function"},{"id":"abcdefgh8"}]}"#,
                cut,
            ),
            ("1", "1", ""),
        ] {
            assert_eq!(sent("mistral", message), (kept.to_owned(), lost.to_owned()), "{message}");
        }
    }

    #[test]
    fn only_who_reads_signatures_of_gemini_gets_them() {
        let message = |more: &str| format!(r#"{{"tool_calls":[{{"id":"abcdefgh9"{more}}}]}}"#);
        let signed = message(r#","extra_content":{"google":{"thought_signature":"s"}}"#);
        let own = Some("http://10.0.0.7:8000/v1");
        for (provider, model, endpoint) in [
            ("azure-openai", "m", own),
            ("cerebras", "m", None),
            ("fireworks", "m", None),
            ("groq", "m", None),
            ("mistral", "m", None),
            ("openai", "gemini-3-pro", None),
            ("openrouter", "anthropic/claude-sonnet-4-5", None),
            ("vllm", "m", None),
        ] {
            assert_eq!(sent_to(provider, model, endpoint, &signed).0, message(""), "{provider} {model}");
        }
        let google = Some("https://aiplatform.googleapis.com/v1/projects/p/endpoints/openapi");
        for (provider, model, endpoint) in [
            ("gemini", "fast", own),
            ("in-house", "m", own),
            ("in-house", "google/gemini-3-pro", own),
            ("openai", "Gemini-3-Flash", own),
            ("openai", "smart", own),
            ("openai", "fast", google),
            ("openrouter", "google/gemini-3-pro", None),
        ] {
            assert_eq!(sent_to(provider, model, endpoint, &signed).0, signed, "{provider} {model}");
        }
    }

    #[test]
    fn what_a_provider_tells_it_takes_back() {
        let message = r#"{"reasoning":"b","reasoning_content":"b"}"#;
        for (provider, kept) in
            [("groq", r#"{"reasoning":"b"}"#), ("OpenAI", "{}"), ("azure-openai", "{}"), ("vllm", message)]
        {
            assert_eq!(sent(provider, message).0, kept, "{provider}");
        }
    }

    fn as_mistral_gets_it(body: &Bytes) -> String {
        as_it_is_sent(body, true)
    }

    fn as_it_is_sent(body: &Bytes, is_mistral: bool) -> String {
        let object = Object::parse(body).unwrap();
        let adapted = for_mistral(&object, is_mistral);
        let edits = adapted.iter().map(|(place, instead)| (place.clone(), instead.as_str())).collect();
        String::from_utf8(object.set_and(body, &[], edits).concat()).unwrap()
    }

    #[test]
    fn ids_of_calls_are_shortened_where_they_stand_alike_in_calls_and_in_results() {
        let said = |one: &str, other: &str| {
            format!(
                r#"{{"messages":[{{"role":"assistant", "tool_calls":[ {{"id" : "{one}","type":"function","function":{{"name":"f","arguments":"{{\"id\":1}}"}}}},{{"id":"{other}"}}]}},{{"role":"tool","tool_call_id":"{one}","content":"\"tool_call_id\":\"call_1\""}},{{"role":"tool","tool_call_id": "{other}"}}],"id":"call_1"}}"#
            )
        };
        let body = Bytes::from(said("call_PTLP8xhu3uwZk4l3nlnrrJha", "abcdefgh9"));
        assert_eq!(as_mistral_gets_it(&body), said(&short_id("call_PTLP8xhu3uwZk4l3nlnrrJha"), "abcdefgh9"));
        // Other servers of its models make other ids.
        assert_eq!(as_it_is_sent(&body, false), body);
    }

    #[test]
    fn nobody_speaks_right_after_a_tool_at_mistral() {
        const TOOL: &str = r#"{"role":"tool","tool_call_id":"abcdefgh9","content":"1"}"#;
        const USER: &str = r#"{"role":"user","content":"And?"}"#;
        const MODEL: &str = r#"{"role":"assistant","content":"Understood."}"#;
        let body = |messages: &[&str]| format!(r#"{{"messages":[{}]}}"#, messages.join(","));
        for (messages, expected) in [
            (&[USER, TOOL, TOOL, USER, USER][..], &[USER, TOOL, TOOL, MODEL, USER, USER][..]),
            (&[USER, TOOL, MODEL, USER], &[USER, TOOL, MODEL, USER]),
            (&[USER, USER, TOOL], &[USER, USER, TOOL]),
        ] {
            assert_eq!(as_mistral_gets_it(&Bytes::from(body(messages))), body(expected));
        }
    }

    #[test]
    fn mistral_reads_files_by_their_urls() {
        const DATA: &str = "data:application/pdf;base64,JVBERi0xLjQK";
        const PICTURE: &str = r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,AA"}}"#;
        let body =
            |part: &str| format!(r#"{{"messages":[{{"role":"user", "content":[{PICTURE}, {part}]}}]}}"#);
        let file = |file: &str| format!(r#"{{"type": "file", "file":{{{file}}}}}"#);
        let both = format!(r#" "filename":"a\"b.pdf", "file_data" : "{DATA}" "#);
        for (part, expected) in [
            (
                file(&both),
                format!(r#"{{"type":"document_url", "document_url":"{DATA}","document_name":"a\"b.pdf"}}"#),
            ),
            (
                r#"{"file":{"file_data":"https://example.com/a.pdf"},"type":"file"}"#.to_owned(),
                r#"{"document_url":"https://example.com/a.pdf","type":"document_url"}"#.to_owned(),
            ),
            (file(r#""file_id":"f","file_data":null"#), file(r#""file_id":"f","file_data":null"#)),
        ] {
            let sent = Bytes::from(body(&part));
            assert_eq!(as_mistral_gets_it(&sent), body(&expected));
            // Other servers of its models read files.
            assert_eq!(as_it_is_sent(&sent, false), sent);
        }
    }

    #[test]
    fn what_the_model_has_said_without_reasoning_gets_a_blank_one() {
        let said = r#"{"role":"user","content":"assistant"}, { "role":"assistant","content":"a"},{"role":"assistant","reasoning_content":"b"},{"role":"assistant","reasoning_content":""}"#;
        let filled_in = r#"{"role":"user","content":"assistant"}, {"reasoning_content":" ", "role":"assistant","content":"a"},{"role":"assistant","reasoning_content":"b"},{"role":"assistant","reasoning_content":" "}"#;
        for (rest, expected) in [
            ("", filled_in),
            (r#","thinking":{"type":"enabled"}"#, filled_in),
            (r#","thinking":{"type": "disabled"}"#, said),
        ] {
            let body = Bytes::from(format!(r#"{{"messages":[{said}]{rest}}}"#));
            let object = Object::parse(&body).unwrap();
            let sent = object.set_and(&body, &[], filled(&object)).concat();
            assert_eq!(String::from_utf8(sent).unwrap(), format!(r#"{{"messages":[{expected}]{rest}}}"#));
        }
    }
}

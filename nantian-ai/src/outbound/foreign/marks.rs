//! What a client of chats says of what is to be kept, which some providers refuse.

use memchr::memmem;

use super::chats::{each_call, each_message, each_object};
use crate::edit::Object;
use crate::edit::cut::{Edit, cut_out};
use crate::ir::Losses;

/// Cuts the members of these names out of a request, its messages, their parts and calls, and its tools. They
/// are named.
pub(crate) fn without_marks(object: &Object<'_>, names: &[&'static str], losses: &mut Losses) -> Vec<Edit> {
    let mut cuts = Vec::new();
    let mut cut_of = |at: usize, object: &Object<'_>| {
        let members = object.members().map(|(name, range)| {
            let mark = names.iter().find(|mark| mark.as_bytes() == name);
            mark.into_iter().for_each(|mark| losses.add(*mark));
            (range, mark.is_some())
        });
        cut_out(members, at, &mut cuts);
    };
    let is_there = |json: &[u8]| names.iter().any(|name| memmem::find(json, name.as_bytes()).is_some());
    cut_of(0, object);
    each_message(object, is_there, |at, message| {
        cut_of(at, message);
        each_call(message, |within, call| cut_of(at + within, call));
        if let Some((within, content)) = message.place("content") {
            each_object(at + within, content, &mut cut_of);
        }
    });
    if let Some((at, tools)) = object.place("tools").filter(|(_, json)| is_there(json)) {
        each_object(at, tools, |at, tool| {
            cut_of(at, tool);
            if let Some((within, json)) = tool.place("function")
                && let Ok(function) = Object::parse(json)
            {
                cut_of(at + within, &function);
            }
        });
    }
    cuts
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn marks_are_cut_out_wherever_clients_put_them_and_nothing_else() {
        let body = |mark: &str, key: &str| {
            let text = r#""cache_control":1 is said here"#.replace('"', "\\\"");
            Bytes::from(format!(
                r#"{{"model":"m"{key}, "messages":[{{"role":"system","content":"{text}"{mark}}}, {{"role":"user","content":[{{"type":"text","text":"a"{mark}}},{{"type":"text","text":"b"}}]}},{{"role":"assistant","content":null,"tool_calls":[{{"id":"c","function":{{"name":"f","arguments":"{{}}"}}{mark}}}]}}],"tools":[{{"type":"function","function":{{"name":"f","parameters":{{"properties":{{"cache_control":{{}}}}}}{mark}}}{mark}}}]{mark}}}"#
            ))
        };
        let mark = r#" , "cache_control":{"type":"ephemeral"}"#;
        let key = r#","prompt_cache_key":"k""#;
        for (names, left, lost) in [
            (&["cache_control", "prompt_cache_key"][..], body("", ""), "prompt_cache_key,cache_control"),
            (&["cache_control"], body("", key), "cache_control"),
            (&["prompt_cache_key"], body(mark, ""), "prompt_cache_key"),
            (&[], body(mark, key), ""),
        ] {
            let (before, mut losses) = (body(mark, key), Losses::default());
            let object = Object::parse(&before).unwrap();
            let after = object.set_and(&before, &[], without_marks(&object, names, &mut losses)).concat();
            assert_eq!((Bytes::from(after), losses.to_string().as_str()), (left, lost));
        }
    }
}

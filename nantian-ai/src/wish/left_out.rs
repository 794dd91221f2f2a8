//! Bodies of requests without what is refused of them.

use bytes::Bytes;
use memchr::memmem;

use crate::dialect::openai::OF_SCHEMA;
use crate::dialect::responses::ENCRYPTED;
use crate::edit::Object;
use crate::edit::cut::{Edit, cut_out};
use crate::ir::Losses;
use crate::outbound::foreign::{Message, items};

/// Where Gemini and Bedrock are told how to answer, and Bedrock in what form.
const CONFIGS: [&str; 2] = ["generationConfig", "inferenceConfig"];
const OUTPUT: &str = "outputConfig";

/// Up to where Bedrock is to keep a list.
const POINT: &str = "cachePoint";

/// How penalties are named: by OpenAI and others, and by Gemini.
const PENALTIES: [(&str, &str); 4] = [
    ("frequency_penalty", "frequency_penalty"),
    ("presence_penalty", "presence_penalty"),
    ("frequencyPenalty", "frequency_penalty"),
    ("presencePenalty", "presence_penalty"),
];

/// What a user says to have a model go on, as Anthropic, Bedrock and Gemini have it.
const OF_ANTHROPIC: &str = r#",{"role":"user","content":"Continue."}"#;
const OF_BEDROCK: &str = r#",{"role":"user","content":[{"text":"Continue."}]}"#;
const OF_GEMINI: &str = r#",{"role":"user","parts":[{"text":"Continue."}]}"#;

/// A body that does not say how to answer by some members, of which those are named that say something;
/// `None` if it has none of them.
pub(super) fn without_members(
    body: &Bytes,
    names: &[(&str, &'static str)],
    says: fn(&[u8]) -> bool,
    losses: &mut Losses,
) -> Option<Bytes> {
    let object = Object::parse(body).ok()?;
    let config = CONFIGS.iter().find_map(|name| Some((*name, object.value(name)?)));
    let Some((name, config)) = config else { return without(body, names, says, losses) };
    let left = without(&Bytes::copy_from_slice(config), names, says, losses)?;
    Some(object.set(body, &[(name, std::str::from_utf8(&left).ok()?)]).concat().into())
}

fn without(
    object: &Bytes,
    names: &[(&str, &'static str)],
    says: fn(&[u8]) -> bool,
    losses: &mut Losses,
) -> Option<Bytes> {
    let mut left = object.clone();
    for (name, loss) in names {
        let object = Object::parse(&left).ok()?;
        let Some(value) = object.value(name) else { continue };
        if says(value) {
            losses.add(*loss);
        }
        left = Bytes::from(object.without(name).concat());
    }
    (left.len() < object.len()).then_some(left)
}

/// A body without a member of one of its members.
pub(super) fn without_inner(body: &Bytes, outer: &str, inner: &str) -> Option<Bytes> {
    let object = Object::parse(body).ok()?;
    let member = Object::parse(object.value(outer)?).ok()?;
    member.value(inner)?;
    let left = member.without(inner).concat();
    Some(object.set(body, &[(outer, std::str::from_utf8(&left).ok()?)]).concat().into())
}

/// A body that does not ask for encrypted reasoning.
pub(super) fn without_encryption(body: &Bytes) -> Option<Bytes> {
    let object = Object::parse(body).ok()?;
    let mut included: Vec<String> = serde_json::from_slice(object.value("include")?).ok()?;
    let place = included.iter().position(|what| what == ENCRYPTED)?;
    included.remove(place);
    let left = match included.as_slice() {
        [] => object.without("include").concat(),
        others => object.set(body, &[("include", &serde_json::json!(others).to_string())]).concat(),
    };
    Some(left.into())
}

/// A body without penalties.
pub(super) fn without_penalties(body: &Bytes, losses: &mut Losses) -> Option<Bytes> {
    let penalises = |penalty: &[u8]| !matches!(penalty, b"0" | b"0.0");
    without_members(body, &PENALTIES, penalises, losses)
}

/// A body for Bedrock or Chat Completions that has the system say by what schema to answer.
pub(super) fn with_schema_said(body: &Bytes) -> Option<Bytes> {
    if Object::parse(body).ok()?.value("response_format").is_some() {
        return with_schema_said_in_a_chat(body);
    }
    let config = [OUTPUT, "textFormat", "structure", "jsonSchema"]
        .iter()
        .try_fold(&body[..], |json, name| Object::parse(json).ok()?.value(name))?;
    let schema = Object::parse(config).ok()?.text("schema")?;
    let said = serde_json::json!({"text": format!("{OF_SCHEMA}{schema}")}).to_string();
    let left = Bytes::from(Object::parse(body).ok()?.without(OUTPUT).concat());
    let object = Object::parse(&left).ok()?;
    let system = match object.value("system") {
        Some(list) => format!("{},{said}]", std::str::from_utf8(list.strip_suffix(b"]")?).ok()?),
        None => format!("[{said}]"),
    };
    Some(object.set(&left, &[("system", &system)]).concat().into())
}

/// The same for Chat Completions, where the answer is JSON still.
fn with_schema_said_in_a_chat(body: &Bytes) -> Option<Bytes> {
    const ANY_JSON: &str = r#"{"type":"json_object"}"#;
    let schema = ["response_format", "json_schema", "schema"]
        .iter()
        .try_fold(&body[..], |json, name| Object::parse(json).ok()?.value(name))?;
    let said = format!("{OF_SCHEMA}{}", std::str::from_utf8(schema).ok()?);
    let said = serde_json::json!({"role": "system", "content": said});
    let object = Object::parse(body).ok()?;
    let others = std::str::from_utf8(object.value("messages")?.strip_prefix(b"[")?).ok()?;
    let comma = if others == "]" { "" } else { "," };
    let messages = format!("[{said}{comma}{others}");
    Some(object.set(body, &[("messages", &messages), ("response_format", ANY_JSON)]).concat().into())
}

/// A body for Bedrock of which no tool is strict.
pub(super) fn without_strict_tools(body: &Bytes) -> Option<Bytes> {
    let object = Object::parse(body).ok()?;
    let (start, config) = object.place("toolConfig")?;
    let (at, tools) = Object::parse(config).ok()?.place("tools")?;
    let mut cuts = Vec::new();
    for item in items(tools, std::str::from_utf8(tools).ok()?)? {
        let Ok(tool) = Object::parse(item.json.as_bytes()) else { continue };
        let Some((within, spec)) = tool.place("toolSpec") else { continue };
        let spec = Object::parse(spec).ok()?;
        let members = spec.members().map(|(name, range)| (range, name == b"strict"));
        cut_out(members, start + at + item.range.start + within, &mut cuts);
    }
    (!cuts.is_empty()).then(|| object.set_and(body, &[], cuts).concat().into())
}

/// A body for Bedrock of which nothing is to be kept.
pub(super) fn without_cache_points(body: &Bytes) -> Option<Bytes> {
    let object = Object::parse(body).ok()?;
    let mut cuts = Vec::new();
    let mut cut_from = |at: usize, list: &[u8]| {
        let items = std::str::from_utf8(list).ok().and_then(|text| items(list, text)).unwrap_or_default();
        let is_point = |json: &str| Object::parse(json.as_bytes()).is_ok_and(|it| it.value(POINT).is_some());
        cut_out(items.into_iter().map(|item| (item.range, is_point(item.json))), at, &mut cuts);
    };
    if let Some((at, system)) = object.place("system") {
        cut_from(at, system);
    }
    if let Some((at, config)) = object.place("toolConfig")
        && let Some((within, tools)) = Object::parse(config).ok()?.place("tools")
    {
        cut_from(at + within, tools);
    }
    let (at, messages) = object.place("messages")?;
    for item in items(messages, std::str::from_utf8(messages).ok()?)? {
        if let Some((within, content)) = Object::parse(item.json.as_bytes()).ok()?.place("content") {
            cut_from(at + item.range.start + within, content);
        }
    }
    (!cuts.is_empty()).then(|| object.set_and(body, &[], cuts).concat().into())
}

/// What has to change for a conversation to end with a user who has the model go on; `None` if it ends with a
/// user, or with a call.
pub(crate) fn continued(object: &Object<'_>) -> Option<Edit> {
    let (name, role, word) = match object.value("contents") {
        Some(_) => ("contents", "model", OF_GEMINI),
        None if object.value("model").is_some() => ("messages", "assistant", OF_ANTHROPIC),
        None => ("messages", "assistant", OF_BEDROCK),
    };
    let (at, json) = object.place(name)?;
    let last = items(json, std::str::from_utf8(json).ok()?)?.pop()?;
    let calls = ["\"tool_use\"", "\"toolUse\"", "\"functionCall\""];
    let is_call = calls.iter().any(|kind| memmem::find(last.json.as_bytes(), kind.as_bytes()).is_some());
    let end = at + last.range.end;
    (Message::of(last.json).role == role && !is_call).then_some((end..end, word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_that_ends_with_the_model_is_gone_on_with_in_place() {
        for (body, left) in [
            (
                r#"{"model":"m","messages":[{"role":"assistant","content":"a"} ],"n":1}"#,
                Some(
                    r#"{"model":"m","messages":[{"role":"assistant","content":"a"},{"role":"user","content":"Continue."} ],"n":1}"#,
                ),
            ),
            (
                r#"{"messages":[{"role":"assistant","content":[{"text":"a"}]}]}"#,
                Some(
                    r#"{"messages":[{"role":"assistant","content":[{"text":"a"}]},{"role":"user","content":[{"text":"Continue."}]}]}"#,
                ),
            ),
            (
                r#"{"contents":[{"role":"model","parts":[{"text":"\"functionCall\""}]}]}"#,
                Some(
                    r#"{"contents":[{"role":"model","parts":[{"text":"\"functionCall\""}]},{"role":"user","parts":[{"text":"Continue."}]}]}"#,
                ),
            ),
            (r#"{"contents":[{"role":"model","parts":[{"functionCall":{"name":"f"}}]}]}"#, None),
            (r#"{"model":"m","messages":[{"role":"assistant","content":[{"type":"tool_use"}]}]}"#, None),
            (r#"{"model":"m","messages":[{"role":"assistant"},{"role":"user","content":"a"}]}"#, None),
            (r#"{"model":"m","messages":[]}"#, None),
            (r#"{"model":"m","messages":"a"}"#, None),
        ] {
            let body = Bytes::from_static(body.as_bytes());
            let object = Object::parse(&body).unwrap();
            let seen = continued(&object).map(|edit| object.set_and(&body, &[], vec![edit]).concat());
            assert_eq!(seen.as_deref(), left.map(str::as_bytes), "{body:?}");
        }
    }

    #[test]
    fn penalties_are_left_out_and_named_where_they_say_something() {
        for (body, left, lost) in [
            (r#"{"a":1,"presence_penalty":0.5,"frequency_penalty":0.0}"#, r#"{"a":1}"#, "presence_penalty"),
            (
                r#"{"generationConfig":{"topK":1,"frequencyPenalty":-1.0,"presencePenalty":2.0}}"#,
                r#"{"generationConfig":{"topK":1}}"#,
                "frequency_penalty,presence_penalty",
            ),
        ] {
            let mut losses = Losses::default();
            let seen = without_penalties(&Bytes::from_static(body.as_bytes()), &mut losses).unwrap();
            assert_eq!((&seen[..], losses.to_string().as_str()), (left.as_bytes(), lost));
        }
        for body in ["{}", r#"{"generationConfig":{"topK":1}}"#] {
            let body = Bytes::from_static(body.as_bytes());
            assert_eq!(without_penalties(&body, &mut Losses::default()), None);
        }
    }

    #[test]
    fn a_schema_is_said_by_the_system_after_what_it_says_already() {
        const OUTPUT: &str = r#""outputConfig":{"textFormat":{"type":"json_schema","structure":{"jsonSchema":{"schema":"{\"type\":\"object\"}"}}}}"#;
        let said = serde_json::json!({"text": format!(r#"{OF_SCHEMA}{{"type":"object"}}"#)}).to_string();
        for (system, expected) in [
            (String::new(), format!(r#"{{"system":[{said}],"messages":[]}}"#)),
            (
                r#""system":[{"text":"a]"}],"#.to_owned(),
                format!(r#"{{"system":[{{"text":"a]"}},{said}],"messages":[]}}"#),
            ),
        ] {
            let body = Bytes::from(format!(r#"{{{system}"messages":[],{OUTPUT}}}"#));
            assert_eq!(with_schema_said(&body).unwrap(), expected);
        }
        assert_eq!(with_schema_said(&Bytes::from_static(b"{}")), None);
    }

    #[test]
    fn nothing_is_kept_any_more() {
        let body = |point: &str| {
            format!(
                r#"{{"system":[{{"text":"a"}}{point}],"messages":[{{"role":"user","content":[{{"text":"\"cachePoint\""}}{point},{{"text":"b"}}{point}]}}],"toolConfig":{{"tools":[{{"toolSpec":{{}}}}{point}]}}}}"#
            )
        };
        let keeping = Bytes::from(body(r#",{"cachePoint":{"type":"default"}}"#));
        assert_eq!(without_cache_points(&keeping).unwrap(), body(""));
        assert_eq!(without_cache_points(&Bytes::from(body(""))), None);
    }

    #[test]
    fn tools_are_not_strict_any_more() {
        let body = |strict: &str| {
            format!(
                r#"{{"toolConfig":{{"tools":[{{"toolSpec":{{"name":"f","inputSchema":{{"json":{{"strict":true}}}}{strict}}}}},{{"cachePoint":{{"type":"default"}}}},{{"toolSpec":{{"name":"g"{strict}}}}}]}}}}"#
            )
        };
        let strict = Bytes::from(body(r#","strict":true"#));
        assert_eq!(without_strict_tools(&strict).unwrap(), body(""));
        assert_eq!(without_strict_tools(&Bytes::from(body(""))), None);
    }
}

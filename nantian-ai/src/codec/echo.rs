//! What an answer repeats of its request.

use std::collections::HashMap;
use std::sync::Arc;

use memchr::memmem;
use serde_json::value::RawValue;

use super::{Fields, Object};
use crate::dialect::openai;
use crate::dialect::responses::{Called, OwnName, Tools, is_run_by_client, text_of};
use crate::edit;
use crate::ir::{Json, Losses, ToolCall};

/// The kinds of items in which a client tells tools in the midst of a conversation.
const TELLING: [&str; 2] = ["additional_tools", "tool_search_output"];

/// The members of a Responses request that its answer repeats, in alphabetical order.
const REPEATED: [&str; 13] = [
    "instructions",
    "max_output_tokens",
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_p",
    "user",
];

/// What an answer of Responses repeats of its request: what was asked for and has been passed on.
///
/// It calls tools as the client does, and so does one of Chat Completions. Other dialects repeat nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Echo(Arc<Repeated>);

#[derive(Debug, Default, Eq, PartialEq)]
struct Repeated {
    members: Vec<(&'static str, Json)>,
    /// What the client calls tools whose names are other ones elsewhere.
    own_names: HashMap<String, OwnName>,
}

// === impl Echo ===

impl Echo {
    /// Reads the body of a Responses request, of which `losses` have not been passed on.
    pub fn of_responses(body: &[u8], losses: &Losses) -> Self {
        let Ok(request) = edit::Object::parse(body) else { return Self::default() };
        let members = REPEATED.iter().filter_map(|name| {
            let json = Json::parse(std::str::from_utf8(request.value(name)?).ok()?)?;
            let json = match *name {
                _ if json.as_str() == "null" => return None,
                // It is a note of the client to itself.
                "metadata" => json,
                "tools" => functions(&json)?,
                name if losses.iter().any(|lost| is_below(lost, name)) => return None,
                _ => json,
            };
            Some((*name, json))
        });
        Self(Arc::new(Repeated { members: members.collect(), own_names: own_names(&request) }))
    }

    /// Reads the body of a request for a chat, whose answer repeats nothing but calls tools as Cursor does.
    pub(crate) fn of_chat(body: &[u8]) -> Self {
        let may_tell_some = memmem::find(body, b"\"custom\"").is_some();
        match edit::Object::parse(body) {
            Ok(request) if may_tell_some => {
                Self(Arc::new(Repeated { members: Vec::new(), own_names: openai::own_names(&request) }))
            }
            _ => Self::default(),
        }
    }

    /// What the client calls a tool of this name, where that is more than the name.
    pub(crate) fn own_name(&self, name: &str) -> Option<&OwnName> {
        self.0.own_names.get(name)
    }

    /// As what the client knows calls of a tool of this name.
    pub(crate) fn called(&self, name: &str) -> Called {
        self.own_name(name).map_or(Called::Function, |own| own.called)
    }

    /// The text of a call, where the tool takes any text instead of arguments.
    pub(crate) fn text_of(&self, call: &ToolCall) -> Option<String> {
        (self.called(&call.name) == Called::Custom).then(|| text_of(&call.arguments))
    }

    /// Writes a member as it was asked for, else what stands for it.
    pub(crate) fn write(
        &self,
        body: &mut Object<'_>,
        name: &'static str,
        otherwise: impl FnOnce(&mut Object<'_>),
    ) {
        match self.get(name) {
            Some(json) => body.json(name, json),
            None => otherwise(body),
        }
    }

    /// The memory that it takes, in bytes.
    pub(super) fn weight(&self) -> usize {
        let Repeated { members, own_names } = &*self.0;
        let members: usize = members.iter().map(|(_, json)| json.as_str().len()).sum();
        let names = own_names.iter().map(|(name, own)| {
            let namespace = own.namespace.as_ref().map_or(0, String::len);
            size_of::<(String, OwnName)>() + name.len() + namespace + own.name.len()
        });
        members + names.sum::<usize>()
    }

    fn get(&self, name: &str) -> Option<&Json> {
        self.0.members.iter().find(|(known, _)| *known == name).map(|(_, json)| json)
    }
}

/// Whether a path is that of a member or of something in it.
fn is_below(path: &str, member: &str) -> bool {
    path.strip_prefix(member).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The tools that are passed on: those that the client runs.
fn functions(tools: &Json) -> Option<Json> {
    let tools: Vec<&RawValue> = serde_json::from_str(tools.as_str()).ok()?;
    let is_passed_on = |tool: &&str| Fields::parse(tool.as_bytes()).is_ok_and(|tool| is_run_by_client(&tool));
    let tools: Vec<_> = tools.into_iter().map(RawValue::get).filter(is_passed_on).collect();
    Json::parse(&format!("[{}]", tools.join(",")))
}

/// What the client calls its tools, wherever in the request they are.
fn own_names(request: &edit::Object<'_>) -> HashMap<String, OwnName> {
    let mut tools = Tools::default();
    let list = request.value("tools").and_then(|json| serde_json::from_slice(json).ok());
    let items: Option<Vec<&RawValue>> = request
        .value("input")
        .filter(|json| TELLING.iter().any(|kind| memmem::find(json, kind.as_bytes()).is_some()))
        .and_then(|json| serde_json::from_slice(json).ok());
    let items = items.unwrap_or_default().into_iter().map(RawValue::get);
    let may_tell = |item: &&str| TELLING.iter().any(|kind| item.contains(kind));
    let more = items.filter(may_tell).filter_map(|item| {
        let mut item = Fields::parse(item.as_bytes()).ok()?;
        let tells = item.peek("type").is_some_and(|kind| TELLING.contains(&kind));
        tells.then(|| item.any_list("tools"))
    });
    for list in list.into_iter().chain(more) {
        // Those of a request that is refused have no names.
        if tools.read(list, &mut Losses::default()).is_err() {
            return HashMap::new();
        }
    }
    tools.into_own_names()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::object;

    #[test]
    fn what_has_been_passed_on_is_repeated_and_nothing_else() {
        let mut losses = Losses::default();
        losses.add("text.verbosity");
        losses.add("tools.web_search");
        let echo = Echo::of_responses(
            br#"{"input":"Hi","temperature": 0.70,"text":{"verbosity":"low"},"top_p":null,
                "tools":[{"type":"web_search"},{"type":"function","name":"f","parameters":{"maximum":1.10}}],"metadata":{"a":"b"}}"#,
            &losses,
        );
        let body = object(|body| {
            for name in ["temperature", "text", "top_p", "tools", "metadata", "user"] {
                echo.write(body, name, |body| body.text(name, "default"));
            }
        });
        assert_eq!(
            String::from_utf8(body).unwrap(),
            r#"{"temperature":0.70,"text":"default","top_p":"default","tools":[{"type":"function","name":"f","parameters":{"maximum":1.10}}],"metadata":{"a":"b"},"user":"default"}"#
        );
        assert_eq!(Echo::of_responses(b"[]", &losses), Echo::default());
    }
}

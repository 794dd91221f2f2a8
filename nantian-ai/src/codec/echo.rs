//! What an answer repeats of its request.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::{Fields, Object};
use crate::edit;
use crate::ir::{Json, Losses};

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
/// Other dialects repeat nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Echo(Arc<[(&'static str, Json)]>);

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
        Self(members.collect())
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

    fn get(&self, name: &str) -> Option<&Json> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, json)| json)
    }
}

/// Whether a path is that of a member or of something in it.
fn is_below(path: &str, member: &str) -> bool {
    path.strip_prefix(member).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The tools that are passed on: those that the client runs.
fn functions(tools: &Json) -> Option<Json> {
    let tools: Vec<&RawValue> = serde_json::from_str(tools.as_str()).ok()?;
    let is_function = |tool: &&str| {
        let kind = Fields::parse(tool.as_bytes()).ok().and_then(|mut tool| tool.any_text("type"));
        kind.as_deref() == Some("function")
    };
    let tools: Vec<_> = tools.into_iter().map(RawValue::get).filter(is_function).collect();
    Json::parse(&format!("[{}]", tools.join(",")))
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

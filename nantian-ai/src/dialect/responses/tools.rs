//! The tools that clients of Responses run: functions, those that take any text, both in namespaces, and one
//! that finds more of them, as Codex has them.
//!
//! Elsewhere there are functions alone, so a namespace becomes the beginning of their names, and a text the
//! one argument of a function.

use std::collections::HashMap;

use crate::codec::{Fields, Invalid, Value};
use crate::ir::{Json, Losses, RAW, Tool};

/// The tool that finds others, which the client or the provider runs.
pub(super) const SEARCH: &str = "tool_search";

/// The namespace that tools are in which name none.
const USUAL: &str = "functions";

/// The argument that is the text of a tool which takes any.
const TEXT: &str = "input";

/// The schema of its arguments.
const OF_TEXT: &str = r#"{"type":"object","properties":{"input":{"type":"string"}},"required":["input"],"additionalProperties":false}"#;

/// What a client calls a tool, where that is more than a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct OwnName {
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) called: Called,
}

/// As what the client knows calls of a tool.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Called {
    Function,
    /// It takes any text instead of arguments.
    Custom,
    Search,
}

/// The tools of a request, each once: of several of one name the last counts.
#[derive(Debug, Default)]
pub(crate) struct Tools {
    read: Vec<Tool>,
    places: HashMap<String, usize>,
    own_names: HashMap<String, OwnName>,
}

/// The name by which other dialects know a tool.
pub(super) fn flat_name(namespace: Option<&str>, name: &str) -> String {
    match namespace.filter(|namespace| !matches!(*namespace, "" | USUAL)) {
        Some(namespace) => format!("{namespace}__{name}"),
        None => name.to_owned(),
    }
}

/// The arguments of a call of a tool that takes any text.
pub(crate) fn arguments_of(text: &str) -> Json {
    Json::of(&serde_json::json!({ TEXT: text }))
}

/// The text of such a call; what the model has written, where it has written something else.
pub(crate) fn text_of(arguments: &Json) -> String {
    let Ok(mut fields) = Fields::parse(arguments.as_str().as_bytes()) else { return arguments.to_string() };
    if fields.is_empty() {
        return String::new();
    }
    let text = fields.any_text(TEXT).or_else(|| fields.any_text(RAW).filter(|_| fields.is_empty()));
    text.unwrap_or_else(|| arguments.to_string())
}

/// Whether the client runs a tool.
pub(crate) fn is_run_by_client(tool: &Fields) -> bool {
    match tool.peek("type") {
        Some(SEARCH) => tool.peek("execution") == Some("client"),
        kind => matches!(kind, Some("custom" | "function" | "namespace")),
    }
}

// === impl Called ===

impl Called {
    /// The kind of item that a call is.
    pub(super) fn item(self) -> &'static str {
        match self {
            Self::Function => "function_call",
            Self::Custom => "custom_tool_call",
            Self::Search => "tool_search_call",
        }
    }

    /// What its id begins with.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Function => "fc",
            Self::Custom => "ctc",
            Self::Search => "tsc",
        }
    }
}

// === impl Tools ===

impl Tools {
    /// Reads tools, and tells their names; those that the provider would run are named as lost.
    pub(crate) fn read(&mut self, tools: Vec<Value>, losses: &mut Losses) -> Result<Vec<String>, Invalid> {
        let mut names = Vec::new();
        for tool in tools {
            let mut tool = Fields::of(tool, "tools")?;
            if tool.peek("type") != Some("namespace") {
                names.extend(self.read_one(tool, None, losses)?);
                continue;
            }
            tool.ignore(&["type"]);
            let namespace = tool.required_text("name")?;
            // It is about all of them, and is said with the first.
            let mut about = tool.text("description")?.filter(|text| !text.trim().is_empty());
            for tool in tool.list("tools")?.unwrap_or_default() {
                let before = self.read.len();
                names.extend(self.read_one(Fields::of(tool, "tools")?, Some(&namespace), losses)?);
                if let Some(first) = self.read.get_mut(before)
                    && let Some(text) = about.take()
                {
                    first.description = Some(join(text, first.description.take()));
                }
            }
            if about.is_some() {
                losses.add("tools.description");
            }
            tool.rest(losses);
        }
        Ok(names)
    }

    fn read_one(
        &mut self,
        mut tool: Fields,
        namespace: Option<&str>,
        losses: &mut Losses,
    ) -> Result<Option<String>, Invalid> {
        let is_run = is_run_by_client(&tool);
        let kind = tool.required_text("type")?;
        let (called, name) = match kind.as_str() {
            "function" => (Called::Function, tool.required_text("name")?),
            "custom" => (Called::Custom, tool.required_text("name")?),
            SEARCH if is_run => (Called::Search, SEARCH.to_owned()),
            kind => {
                losses.add_below("tools", kind);
                return Ok(None);
            }
        };
        // What is told need not be found.
        tool.ignore(&["defer_loading", "execution"]);
        let mut description = tool.text("description")?;
        let schema = if called == Called::Custom {
            if let Some(grammar) = read_grammar(tool.object("format", "tools.format")?, losses)? {
                description = Some(join(description.unwrap_or_default(), Some(grammar)));
            }
            Json::parse(OF_TEXT)
        } else {
            tool.json("parameters")
        };
        let strict = tool.flag("strict")?;
        tool.rest(losses);
        let flat = flat_name(namespace, &name);
        let read = Tool {
            name: flat.clone(),
            description,
            schema: schema.unwrap_or_else(Json::empty_object),
            strict,
            cached: None,
        };
        self.own_names.remove(&flat);
        if called != Called::Function || flat != name {
            let namespace = namespace.filter(|_| flat != name).map(str::to_owned);
            self.own_names.insert(flat.clone(), OwnName { namespace, name, called });
        }
        let at = *self.places.entry(flat.clone()).or_insert(self.read.len());
        match self.read.get_mut(at) {
            Some(before) => *before = read,
            None => self.read.push(read),
        }
        Ok(Some(flat))
    }

    /// Whether a tool takes any text instead of arguments.
    pub(crate) fn takes_text(&self, name: &str) -> bool {
        self.own_names.get(name).is_some_and(|own| own.called == Called::Custom)
    }

    pub(crate) fn into_tools(self) -> Vec<Tool> {
        self.read
    }

    /// What the client calls them, by their names elsewhere.
    pub(crate) fn into_own_names(self) -> HashMap<String, OwnName> {
        self.own_names
    }
}

/// What a text has to look like, in words: nobody else can enforce it.
fn read_grammar(format: Option<Fields>, losses: &mut Losses) -> Result<Option<String>, Invalid> {
    let Some(mut format) = format else { return Ok(None) };
    let kind = format.text("type")?.unwrap_or_default();
    let syntax = format.text("syntax")?.unwrap_or_default();
    let definition = format.text("definition")?;
    format.rest(losses);
    if kind == "text" {
        return Ok(None);
    }
    losses.add("tools.format");
    Ok(definition.map(|definition| format!("The input must fit this grammar ({syntax}):\n{definition}")))
}

fn join(first: String, then: Option<String>) -> String {
    match then.filter(|then| !then.is_empty()) {
        Some(then) if first.is_empty() => then,
        Some(then) => format!("{first}\n\n{then}"),
        None => first,
    }
}

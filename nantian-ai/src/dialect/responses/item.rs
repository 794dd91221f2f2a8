//! The items of an `input`, which are also those of an `output`.

use super::read_request::read_content;
use super::signature::{self, Encrypted};
use super::tools::{SEARCH, Tools, arguments_of, flat_name};
use crate::codec::{Fields, Invalid, Value};
use crate::ir::{Block, Losses, Message, Reasoning, Role, ToolCall, ToolResult, given_arguments};

/// What an item says.
pub(super) enum Item {
    Message(Message),
    /// A part of what the model says.
    Said(Block),
    Result(ToolResult),
    /// Tools that the client runs.
    Tools(Vec<Value>),
    /// Those that a call of this id has found.
    Found(String, Vec<Value>),
    /// What says nothing.
    Blank,
    /// Nothing that has a counterpart; it has been named.
    Nothing,
}

/// What an item is known by that has no place.
#[derive(Clone, Debug, Default)]
pub(super) struct Identity {
    /// Its `type`, if that is known yet.
    pub(super) kind: String,
    pub(super) id: Option<String>,
}

/// Between the parts of a summary.
pub(super) const BETWEEN_PARTS: &str = "\n\n";

/// What all begins with that OpenAI encrypts (Fernet).
const SECRET: &str = "gAAAA";

// === impl Identity ===

impl Identity {
    pub(super) fn of(item: &Fields) -> Self {
        let text = |name| item.peek(name).filter(|text| !text.is_empty()).map(str::to_owned);
        Self { kind: text("type").unwrap_or_default(), id: text("call_id").or_else(|| text("id")) }
    }

    /// How much is kept of it, in bytes.
    pub(super) fn kept(&self) -> usize {
        self.kind.len() + self.id.as_ref().map_or(0, String::len)
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        match (&self.id, &other.id) {
            (Some(one), Some(other)) => one == other,
            _ => self.kind.is_empty() || self.kind == other.kind,
        }
    }
}

/// Reads an item of an `input`, in which these tools can be called.
pub(super) fn read_item(fields: &mut Fields, tools: &Tools, losses: &mut Losses) -> Result<Item, Invalid> {
    let kind = fields.text("type")?;
    let id = fields.text("id")?.unwrap_or_default();
    // How far its provider had come with it.
    fields.ignore(&["status"]);
    Ok(match kind.as_deref() {
        None | Some("message") => {
            let message = read_message(fields, losses)?;
            fields.ignore(&["phase"]);
            Item::Message(message)
        }
        Some("agent_message") => {
            fields.ignore(&["author", "recipient"]);
            Item::Message(read_agent_message(fields, losses)?)
        }
        Some("function_call") => Item::Said(Block::ToolCall(read_call(fields, tools, losses)?)),
        Some("custom_tool_call") => Item::Said(Block::ToolCall(ToolCall {
            id: fields.required_text("call_id")?,
            name: read_name(fields)?,
            arguments: arguments_of(&fields.required_text("input")?),
        })),
        Some("tool_search_call") if is_run_by_client(fields)? => Item::Said(Block::ToolCall(ToolCall {
            id: fields.required_text("call_id")?,
            name: SEARCH.to_owned(),
            arguments: fields.given_arguments("arguments", "input.arguments", losses),
        })),
        Some("tool_search_output") if is_run_by_client(fields)? => {
            Item::Found(fields.required_text("call_id")?, fields.list("tools")?.unwrap_or_default())
        }
        Some("additional_tools") => {
            fields.ignore(&["role"]);
            Item::Tools(fields.list("tools")?.unwrap_or_default())
        }
        Some("function_call_output" | "custom_tool_call_output") => Item::Result(ToolResult {
            id: fields.required_text("call_id")?,
            content: read_content(fields.take("output"), losses)?,
            is_error: false,
        }),
        Some("reasoning") => read_reasoning(fields, &id, losses).map_or(Item::Blank, Item::Said),
        // Clients may leave out what its provider could have kept; answers go on without.
        Some("item_reference") if is_reasoning_of_here(&id) => {
            losses.add("input.item_reference");
            Item::Nothing
        }
        Some("item_reference") => {
            return Err(Invalid::new(
                "input.item_reference",
                "names an item that is stored nowhere, for translated answers are not kept; with `store: false` (in Vercel's AI SDK `providerOptions.openai.store`) clients send items whole",
            ));
        }
        // It stands for all that was said before: an answer without it would be one to another question.
        Some(kind @ ("compaction" | "compaction_summary" | "context_compaction")) => {
            let problem = "holds a conversation that only its own provider can read";
            return Err(Invalid::new(format!("input.{kind}"), problem));
        }
        // What comes of it stands for the conversation from then on; an answer would not.
        Some(kind @ "compaction_trigger") => {
            let problem = "asks for a shorter form of the conversation that only its own provider makes; Codex makes one itself where `name` of its provider is not `OpenAI`";
            return Err(Invalid::new(format!("input.{kind}"), problem));
        }
        // Tools that the provider runs itself, and whatever is added.
        Some(kind) => {
            losses.add_below("input", kind);
            Item::Nothing
        }
    })
}

/// Whether it is the client that finds tools.
fn is_run_by_client(fields: &mut Fields) -> Result<bool, Invalid> {
    Ok(fields.text("execution")?.as_deref() == Some("client"))
}

/// Whether an id is of reasoning in an answer that was translated here: a number follows the kind.
fn is_reasoning_of_here(id: &str) -> bool {
    let number = id.strip_prefix("rs_").and_then(|rest| rest.split_once('_'));
    number.is_some_and(|(number, _)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn read_message(fields: &mut Fields, losses: &mut Losses) -> Result<Message, Invalid> {
    let role = fields.required_text("role")?;
    let role = match role.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        _ => return Err(Invalid::new("input.role", format!("`{role}` is not known"))),
    };
    Ok(Message::new(role, read_content(fields.take("content"), losses)?))
}

/// Reads what one agent of the client says to another one. Only models of OpenAI make a secret of it, and it
/// begins as all of theirs do.
fn read_agent_message(fields: &mut Fields, losses: &mut Losses) -> Result<Message, Invalid> {
    let mut text = String::new();
    for part in fields.list("content")?.unwrap_or_default() {
        let mut part = Fields::of(part, "input.content")?;
        part.ignore(&["type"]);
        text.push_str(&part.text("text")?.unwrap_or_default());
        let payload = part.text("encrypted_content")?.unwrap_or_default();
        if payload.starts_with(SECRET) {
            let problem = "holds what only its own provider can read";
            return Err(Invalid::new("input.agent_message", problem));
        }
        text.push_str(&payload);
        part.rest(losses);
    }
    let content = Some(text).filter(|text| !text.is_empty()).map(Block::Text);
    Ok(Message::new(Role::User, content.into_iter().collect()))
}

fn read_call(fields: &mut Fields, tools: &Tools, losses: &mut Losses) -> Result<ToolCall, Invalid> {
    let id = fields.required_text("call_id")?;
    let name = read_name(fields)?;
    let text = fields.text("arguments")?.unwrap_or_default();
    let arguments = match tools.takes_text(&name) {
        true => arguments_of(&text),
        false => given_arguments(&text, "input.arguments", losses),
    };
    Ok(ToolCall { id, name, arguments })
}

/// The name of a tool as it is known elsewhere.
pub(super) fn read_name(fields: &mut Fields) -> Result<String, Invalid> {
    let namespace = fields.text("namespace")?;
    Ok(flat_name(namespace.as_deref(), &fields.required_text("name")?))
}

/// Reads a reasoning item; `None` for one that says nothing.
pub(super) fn read_reasoning(fields: &mut Fields, id: &str, losses: &mut Losses) -> Option<Block> {
    let summary = fields.any_list("summary");
    let content = fields.any_list("content");
    let texts = summary.into_iter().chain(content).filter_map(|part| text_of(part, losses));
    let text = texts.collect::<Vec<_>>().join(BETWEEN_PARTS);
    let signature = match fields.some_text("encrypted_content") {
        Some(encrypted) => match signature::read(id, &encrypted) {
            Encrypted::Redacted(data) => return Some(Block::RedactedReasoning(data)),
            Encrypted::Signature(signature) => Some(signature),
            Encrypted::Unsigned => None,
        },
        None => None,
    };
    let says = !text.is_empty() || signature.is_some();
    says.then_some(Block::Reasoning(Reasoning { text, signature }))
}

fn text_of(part: Value, losses: &mut Losses) -> Option<String> {
    let mut part = Fields::lenient(part);
    let text = part.some_text("text");
    part.ignore(&["type"]);
    part.rest_below("reasoning", losses);
    text
}

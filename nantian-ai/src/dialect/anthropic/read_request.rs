//! A Messages request into the common form.

use super::THREAD;
use super::midway::Changes;
use super::read_content::{read_content, take_cache_control};
use crate::codec::{Fields, Invalid, Value};
use crate::dialect::GUARDRAIL;
use crate::dialect::openai::read_stop;
use crate::ir::{
    Effort, Json, Losses, Message, OpenAiOptions, Output, Request, Role, Thinking, Tool, ToolChoice,
};

pub(crate) fn decode(body: &[u8]) -> Result<(Request, Losses), Invalid> {
    let mut fields = Fields::parse(body)?;
    let mut losses = Losses::default();
    // Of a thread that goes on only what is new is said.
    if fields.take(THREAD).is_some() {
        return Err(Invalid::new(THREAD, "is of conversations that only their own provider stores"));
    }
    let mut messages = Vec::new();
    let system = read_content(Role::System, fields.take("system"), &mut losses)?;
    if !system.content.is_empty() {
        messages.push(system);
    }
    let (mut changes, said) = (Changes::default(), fields.required_list("messages")?);
    let is_of_user = |message: &Value| message.get("role").and_then(Value::as_str) == Some("user");
    let last_of_user = said.iter().rposition(is_of_user);
    for (at, message) in said.into_iter().enumerate() {
        messages.extend(read_message(message, Some(at) < last_of_user, &mut changes, &mut losses)?);
    }
    // Of the whole request it is meant at its end.
    let life = take_cache_control(&mut fields, &mut losses);
    if let (Some(life), Some(last)) = (life, messages.last_mut()) {
        last.keep(life);
    }
    let mut config = fields.object("output_config", "output_config")?;
    let (tool_choice, parallel_tools) = read_tool_choice(&mut fields, &mut losses)?;
    let output = match &mut config {
        Some(config) => read_output(config.object("format", "output_config.format")?, &mut losses)?,
        None => None,
    };
    let former_output = read_output(fields.object("output_format", "output_format")?, &mut losses)?;
    let effort = match &mut config {
        Some(config) => config.text("effort")?,
        None => None,
    };
    let effort = changes.effort().or(effort.as_deref());
    let (thinking, shows_thinking) = read_thinking(&mut fields, effort, &mut losses)?;
    let user = match fields.object("metadata", "metadata")? {
        Some(mut metadata) => {
            let user = metadata.text("user_id")?;
            metadata.rest(&mut losses);
            user
        }
        None => None,
    };
    let request = Request {
        model: fields.text("model")?.unwrap_or_default(),
        messages,
        tools: changes.tools(read_tools(fields.list("tools")?.unwrap_or_default(), &mut losses)?),
        tool_choice,
        parallel_tools,
        output: output.or(former_output),
        verbosity: None,
        thinking,
        shows_thinking,
        max_output: fields.count("max_tokens")?,
        temperature: fields.number("temperature")?,
        top_p: fields.number("top_p")?,
        top_k: fields.count("top_k")?,
        frequency_penalty: None,
        presence_penalty: None,
        seed: None,
        stop: read_stop(&mut fields, "stop_sequences")?,
        user,
        safety_identifier: None,
        logprobs: None,
        openai: OpenAiOptions::default(),
        cache_key: None,
        guardrail: fields.json(GUARDRAIL),
        stream: fields.flag("stream")?.unwrap_or(false),
        betas: Vec::new(),
        stream_usage: true,
    };
    if let Some(config) = config {
        config.rest(&mut losses);
    }
    fields.rest(&mut losses);
    Ok((request, losses))
}

/// Reads a message; `None` if it says nothing, or nothing any more: `is_past` tells that the user has spoken
/// since.
fn read_message(
    message: Value,
    is_past: bool,
    changes: &mut Changes,
    losses: &mut Losses,
) -> Result<Option<Message>, Invalid> {
    let mut fields = Fields::of(message, "messages")?;
    let role = match fields.required_text("role")?.as_str() {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "system" => Role::System,
        _ => return Err(Invalid::new("messages.role", "is neither user nor assistant")),
    };
    let is_of_system = role == Role::System;
    let said = if is_of_system { changes.read(&mut fields, losses)? } else { fields.take("content") };
    let message = read_content(role, said, losses)?;
    changes.heard(&message);
    let is_cleared = is_of_system
        && match fields.text("clear_at")?.as_deref() {
            None | Some("never") => false,
            Some("next_user_message") => is_past,
            Some(_) => {
                losses.add("messages.clear_at");
                false
            }
        };
    fields.rest(losses);
    Ok(Some(message).filter(|message| !(is_cleared || is_of_system && message.content.is_empty())))
}

pub(super) fn read_tools(tools: Vec<Value>, losses: &mut Losses) -> Result<Vec<Tool>, Invalid> {
    let mut read = Vec::with_capacity(tools.len());
    for tool in tools {
        let mut tool = Fields::of(tool, "tools")?;
        if let Some(kind) = tool.text("type")?.filter(|kind| kind != "custom") {
            losses.add_below("tools", &kind);
            continue;
        }
        let cached = take_cache_control(&mut tool, losses);
        // How arguments are streamed; every tool's are.
        tool.ignore(&["eager_input_streaming"]);
        read.push(Tool {
            name: tool.required_text("name")?,
            description: tool.text("description")?,
            schema: tool.json("input_schema").unwrap_or_else(Json::empty_object),
            strict: tool.flag("strict")?,
            cached,
        });
        tool.rest(losses);
    }
    Ok(read)
}

fn read_tool_choice(
    fields: &mut Fields,
    losses: &mut Losses,
) -> Result<(Option<ToolChoice>, Option<bool>), Invalid> {
    let Some(mut choice) = fields.object("tool_choice", "tool_choice")? else { return Ok((None, None)) };
    let parallel = choice.flag("disable_parallel_tool_use")?.map(|disabled| !disabled);
    let read = match choice.required_text("type")?.as_str() {
        "auto" => Some(ToolChoice::Auto),
        "any" => Some(ToolChoice::Any),
        "none" => Some(ToolChoice::Never),
        "tool" => Some(ToolChoice::Tool(choice.required_text("name")?)),
        _ => {
            losses.add("tool_choice");
            None
        }
    };
    choice.rest(losses);
    Ok((read, parallel))
}

fn read_output(format: Option<Fields>, losses: &mut Losses) -> Result<Option<Output>, Invalid> {
    let Some(mut format) = format else { return Ok(None) };
    if format.required_text("type")? != "json_schema" {
        losses.add("output_config.format");
        return Ok(None);
    }
    let schema = format.json("schema").unwrap_or_else(Json::empty_object);
    format.rest(losses);
    Ok(Some(Output::Schema { name: None, description: None, schema, strict: Some(true) }))
}

/// How much to think, and whether what is thought is to be seen.
fn read_thinking(
    fields: &mut Fields,
    effort: Option<&str>,
    losses: &mut Losses,
) -> Result<(Option<Thinking>, bool), Invalid> {
    let level = effort.and_then(Effort::parse);
    if effort.is_some() && level.is_none() {
        losses.add("output_config.effort");
    }
    let by_level = level.map(Thinking::Effort);
    let Some(mut thinking) = fields.object("thinking", "thinking")? else { return Ok((by_level, false)) };
    let kind = thinking.required_text("type")?;
    let read = match kind.as_str() {
        "disabled" => Some(Thinking::Off),
        "adaptive" => by_level.or(Some(Thinking::Adaptive)),
        "enabled" => {
            let budget = thinking.count("budget_tokens")?.map(Thinking::Budget);
            by_level.or(budget).or(Some(Thinking::Adaptive))
        }
        _ => {
            losses.add("thinking.type");
            by_level
        }
    };
    thinking.ignore(&["budget_tokens"]);
    // Reasoning is asked for in words, whatever a model's default is.
    let display = thinking.text("display")?;
    if display.as_deref().is_some_and(|display| display != "summarized") {
        losses.add("thinking.display");
    }
    thinking.rest(losses);
    Ok((read, kind != "disabled" && display.as_deref() != Some("omitted")))
}

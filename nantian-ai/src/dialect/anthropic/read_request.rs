//! A Messages request into the common form.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::midway::Changes;
use super::{SIGNED_HERE, THREAD};
use crate::codec::{Fields, Invalid, Value, joined_text};
use crate::dialect::GUARDRAIL;
use crate::dialect::openai::read_stop;
use crate::ir::{
    Block, CacheLife, CachePoint, Document, Effort, Json, Losses, Message, OpenAiOptions, Output, Reasoning,
    Request, Role, Source, Thinking, Tool, ToolCall, ToolChoice, ToolResult,
};

pub(crate) fn decode(body: &[u8]) -> Result<(Request, Losses), Invalid> {
    let mut fields = Fields::parse(body)?;
    let mut losses = Losses::default();
    // Of a thread that goes on only what is new is said.
    if fields.take(THREAD).is_some() {
        return Err(Invalid::new(THREAD, "is of conversations that only their own provider stores"));
    }
    let mut messages = Vec::new();
    let system = content(Role::System, fields.take("system"), &mut losses)?;
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
    let life = take_cache_control(&mut fields, &mut losses)?;
    if let (Some(life), Some(last)) = (life, messages.last_mut()) {
        last.cache_points.extend(last.content.len().checked_sub(1).map(|block| CachePoint { block, life }));
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
    let message = content(role, said, losses)?;
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

fn content(role: Role, content: Option<Value>, losses: &mut Losses) -> Result<Message, Invalid> {
    let mut message = Message::new(role, Vec::new());
    match content {
        None => {}
        Some(Value::String(text)) if text.is_empty() => {}
        Some(Value::String(text)) => message.content.push(Block::Text(text)),
        Some(Value::Array(blocks)) => {
            for block in blocks {
                let mut fields = Fields::of(block, "messages.content")?;
                let kind = fields.required_text("type")?;
                let mut cached = None;
                match read_block(&kind, &mut fields, &mut cached, losses)? {
                    Some(block) => {
                        if role != Role::System || !is_billing(&block) {
                            message.push(block, cached);
                        }
                        fields.rest(losses);
                    }
                    // Blocks of tools that the provider runs itself.
                    None => losses.add_below("messages.content", &kind),
                }
            }
        }
        Some(_) => return Err(Invalid::new("messages.content", "is neither a string nor a list")),
    }
    Ok(message)
}

/// Whether a block of a system prompt is Claude Code's note about the request, which is for Anthropic alone,
/// and which would change the beginning of every conversation each time.
fn is_billing(block: &Block) -> bool {
    matches!(block, Block::Text(text) if text.starts_with("x-anthropic-billing-header:"))
}

/// Reads how long a beginning is to be kept that ends here.
pub(crate) fn take_cache_control(
    fields: &mut Fields,
    losses: &mut Losses,
) -> Result<Option<CacheLife>, Invalid> {
    let Some(mut control) = fields.object("cache_control", "cache_control")? else { return Ok(None) };
    let is_known = control.text("type")?.as_deref() == Some("ephemeral");
    let life = match control.text("ttl")?.as_deref() {
        None | Some("5m") => CacheLife::Usual,
        Some("1h") => CacheLife::Hour,
        Some(_) => {
            losses.add("cache_control.ttl");
            CacheLife::Usual
        }
    };
    control.rest(losses);
    if !is_known {
        losses.add("cache_control");
    }
    Ok(is_known.then_some(life))
}

/// Reads a block of a kind, and whether a beginning that is to be kept ends there; `None` for one that has no
/// counterpart.
pub(crate) fn read_block(
    kind: &str,
    fields: &mut Fields,
    cached: &mut Option<CacheLife>,
    losses: &mut Losses,
) -> Result<Option<Block>, Invalid> {
    *cached = take_cache_control(fields, losses)?;
    Ok(Some(match kind {
        "text" => Block::Text(fields.required_text("text")?),
        "image" => Block::Image(image(fields, losses)?.into()),
        "document" => document(fields, losses)?,
        "search_result" => search_result(fields, losses)?,
        // All tools are told, whether they are loaded or not.
        "tool_reference" => Block::Text(format!("Tool {} is loaded", fields.required_text("tool_name")?)),
        // What stands for all that was said before.
        "compaction" => match fields.text("content")? {
            Some(summary) => Block::Text(format!("{summary}\n\n")),
            None => return Ok(None),
        },
        "thinking" => Block::Reasoning(Reasoning {
            text: fields.text("thinking")?.unwrap_or_default(),
            signature: fields.text("signature")?.and_then(own_signature),
        }),
        "redacted_thinking" => Block::RedactedReasoning(fields.required_text("data")?),
        "tool_use" => {
            fields.ignore(&["caller"]);
            Block::ToolCall(ToolCall {
                id: fields.required_text("id")?,
                name: fields.required_text("name")?,
                arguments: fields.given_arguments("input", "messages.content.input", losses),
            })
        }
        "tool_result" => {
            let said = content(Role::User, fields.take("content"), losses)?;
            // Within a result nothing else can end there.
            *cached = cached.or_else(|| said.cache_points.last().map(|point| point.life));
            Block::ToolResult(ToolResult {
                id: fields.required_text("tool_use_id")?,
                content: said.content,
                is_error: fields.flag("is_error")?.unwrap_or(false),
            })
        }
        _ => return Ok(None),
    }))
}

fn image(fields: &mut Fields, losses: &mut Losses) -> Result<Source, Invalid> {
    read_source(fields, losses, |_, _, _| Err(stored()))
}

/// Where an image or a document is; `other` reads the kinds that only one of them has.
fn read_source(
    fields: &mut Fields,
    losses: &mut Losses,
    other: impl FnOnce(&str, &mut Fields, &mut Losses) -> Result<Source, Invalid>,
) -> Result<Source, Invalid> {
    const AT: &str = "messages.content.source";
    let mut source = fields.object("source", AT)?.ok_or_else(|| Invalid::new(AT, "is missing"))?;
    let read = match source.required_text("type")?.as_str() {
        "base64" => Source::inline(&source.required_text("media_type")?, source.required_text("data")?),
        "url" => Source::Url(source.required_text("url")?),
        kind => other(kind, &mut source, losses)?,
    };
    source.rest(losses);
    Ok(read)
}

fn document(fields: &mut Fields, losses: &mut Losses) -> Result<Block, Invalid> {
    let title = fields.text("title")?;
    let source = read_source(fields, losses, |kind, source, losses| {
        let text = match kind {
            "text" => {
                source.ignore(&["media_type"]);
                source.required_text("data")?
            }
            "content" => texts(source, "messages.content.source", losses)?,
            _ => return Err(stored()),
        };
        Ok(Source::inline("text/plain", STANDARD.encode(text)))
    })?;
    Ok(Block::Document(Document { title, source }))
}

/// What was found by a search, with where it was found.
fn search_result(fields: &mut Fields, losses: &mut Losses) -> Result<Block, Invalid> {
    let (title, source) = (fields.required_text("title")?, fields.required_text("source")?);
    let found = texts(fields, "messages.content.search_result", losses)?;
    Ok(Block::Text(format!("{title}\n{source}\n\n{found}")))
}

/// The texts of a `content` that holds little else.
fn texts(fields: &mut Fields, at: &'static str, losses: &mut Losses) -> Result<String, Invalid> {
    let said = content(Role::User, fields.take("content"), losses)?.content;
    if said.iter().any(|block| !matches!(block, Block::Text(_))) {
        losses.add(at);
    }
    Ok(joined_text(&said, "\n\n"))
}

fn stored() -> Invalid {
    Invalid::new("messages.content.source.type", "names what only its own provider has")
}

pub(super) fn read_tools(tools: Vec<Value>, losses: &mut Losses) -> Result<Vec<Tool>, Invalid> {
    let mut read = Vec::with_capacity(tools.len());
    for tool in tools {
        let mut tool = Fields::of(tool, "tools")?;
        if let Some(kind) = tool.text("type")?.filter(|kind| kind != "custom") {
            losses.add_below("tools", &kind);
            continue;
        }
        let cached = take_cache_control(&mut tool, losses)?;
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

/// A block of reasoning that a client of another dialect gives back.
pub(crate) fn read_thinking_block(block: Value, losses: &mut Losses) -> Option<Block> {
    let mut fields = Fields::lenient(block);
    let read = match fields.any_text("type").as_deref() {
        Some("redacted_thinking") => fields.any_text("data").map(Block::RedactedReasoning),
        Some("thinking") => Some(Block::Reasoning(Reasoning {
            text: fields.any_text("thinking").unwrap_or_default(),
            signature: fields.any_text("signature").and_then(own_signature),
        })),
        _ => None,
    };
    if read.is_none() {
        losses.add("thinking_blocks");
    }
    fields.ignore(&["cache_control"]);
    fields.rest_below("thinking_blocks", losses);
    read
}

/// A signature that a provider has given.
pub(super) fn own_signature(signature: String) -> Option<String> {
    let stand_in = signature.is_empty() || signature.starts_with(SIGNED_HERE);
    (!stand_in).then_some(signature)
}

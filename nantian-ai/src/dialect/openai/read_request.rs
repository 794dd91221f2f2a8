//! A Chat Completions request into the common form.

use std::collections::HashSet;

use super::read_calls::{Thoughts, read_calls};
use super::read_parts::read_content;
use super::{cursor, options, read_allowed};
use crate::codec::{Fields, Invalid, Value};
use crate::dialect::{GUARDRAIL, anthropic};
use crate::ir::{
    Block, Detail, Effort, Json, Losses, Message, OpenAiOptions, Output, Reasoning, Request, Role, Thinking,
    Tool, ToolChoice, ToolResult, Verbosity,
};

/// How many beginnings Anthropic and Bedrock take to be kept of one request.
const MOST_CACHE_POINTS: usize = 4;

pub(crate) fn decode(body: &[u8]) -> Result<(Request, Losses), Invalid> {
    let mut fields = Fields::parse(body)?;
    let mut losses = Losses::default();
    for old in ["functions", "function_call"] {
        if fields.take(old).is_some() {
            return Err(Invalid::new(old, "is not translated; use tools"));
        }
    }
    if fields.count("n")?.is_some_and(|answers| answers != 1) {
        return Err(Invalid::new("n", "asks for several answers, which is not translated"));
    }
    let Some(messages) = fields.list("messages")? else { return cursor::decode(fields) };
    let newer_limit = fields.limit("max_completion_tokens")?;
    let older_limit = fields.limit("max_tokens")?;
    let logprobs = match fields.flag("logprobs")? {
        Some(true) => Some(fields.count("top_logprobs")?.unwrap_or(0)),
        _ => None,
    };
    let tools = fields.list("tools")?.unwrap_or_default();
    let text_tools = cursor::text_names(&tools);
    let mut tools = read_tools(tools, &mut losses)?;
    let tool_choice = read_tool_choice(&mut fields, &mut tools, &mut losses)?;
    let mut request = Request {
        model: fields.text("model")?.unwrap_or_default(),
        messages: read_messages(messages, &text_tools, &mut losses)?,
        tools,
        tool_choice,
        parallel_tools: fields.flag("parallel_tool_calls")?,
        output: read_output(&mut fields, &mut losses)?,
        verbosity: read_verbosity(&mut fields, "verbosity", &mut losses)?,
        thinking: read_thinking(&mut fields, &mut losses)?,
        shows_thinking: false,
        max_output: newer_limit.or(older_limit),
        temperature: fields.number("temperature")?,
        top_p: fields.number("top_p")?,
        top_k: fields.limit("top_k")?,
        frequency_penalty: fields.number("frequency_penalty")?,
        presence_penalty: fields.number("presence_penalty")?,
        seed: fields.integer("seed")?,
        stop: read_stop(&mut fields, "stop")?,
        user: fields.text("user")?,
        safety_identifier: fields.text("safety_identifier")?,
        logprobs,
        openai: OpenAiOptions { store: fields.flag("store")?, ..options::read(&mut fields)? },
        cache_key: fields.text("prompt_cache_key")?,
        guardrail: fields.json(GUARDRAIL),
        stream: fields.flag("stream")?.unwrap_or(false),
        betas: Vec::new(),
        stream_usage: false,
    };
    if let Some(mut options) = fields.object("stream_options", "stream_options")? {
        request.stream_usage = options.flag("include_usage")?.unwrap_or(false);
        options.ignore(&["include_obfuscation"]);
        options.rest(&mut losses);
    }
    bound_cache_points(&mut request, &mut losses);
    fields.rest(&mut losses);
    Ok((request, losses))
}

/// Leaves out what is to be kept beyond as much as is taken: clients of chats count on a proxy to do so. The
/// first go of each: of the conversation but for its last two, then of the tools but for the last one, which
/// keeps those before it, and then of the system with which it begins.
fn bound_cache_points(request: &mut Request, losses: &mut Losses) {
    let begins = request.messages.iter().take_while(|message| message.role == Role::System).count();
    let (system, conversation) = request.messages.split_at_mut(begins);
    let count =
        |messages: &[Message]| messages.iter().map(|message| message.cache_points.len()).sum::<usize>();
    let of_conversation = count(conversation);
    let of_tools = request.tools.iter().filter(|tool| tool.cached.is_some()).count();
    let surplus = (of_tools + count(system) + of_conversation).saturating_sub(MOST_CACHE_POINTS);
    if surplus > 0 {
        losses.add("cache_control");
    }
    let gone = surplus.min(of_conversation.saturating_sub(2));
    drop_cache_points(conversation, gone);
    let surplus = surplus - gone;
    let gone = surplus.min(of_tools.saturating_sub(1));
    let kept = request.tools.iter_mut().filter(|tool| tool.cached.is_some());
    kept.take(gone).for_each(|tool| tool.cached = None);
    drop_cache_points(system, surplus - gone);
}

/// Leaves out the first ones.
fn drop_cache_points(messages: &mut [Message], mut surplus: usize) {
    for message in messages {
        let gone = surplus.min(message.cache_points.len());
        message.cache_points.drain(..gone);
        surplus -= gone;
    }
}

/// One stop sequence or several.
pub(crate) fn read_stop(fields: &mut Fields, name: &'static str) -> Result<Vec<String>, Invalid> {
    let text = |value| match value {
        Value::String(text) => Ok(text),
        _ => Err(Invalid::new(name, "holds what is not a string")),
    };
    match fields.take(name) {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => list.into_iter().map(text).collect(),
        Some(value) => Ok(vec![text(value)?]),
    }
}

/// How closely a picture is looked at; what is not known is named.
pub(crate) fn read_detail(
    fields: &mut Fields,
    at: &'static str,
    losses: &mut Losses,
) -> Result<Option<Detail>, Invalid> {
    let Some(named) = fields.text("detail")?.filter(|detail| detail != "auto") else { return Ok(None) };
    let known = Detail::parse(&named);
    if known.is_none() {
        losses.add(at);
    }
    Ok(known)
}

/// How long an answer is to be; what is not known is named.
pub(crate) fn read_verbosity(
    fields: &mut Fields,
    at: &'static str,
    losses: &mut Losses,
) -> Result<Option<Verbosity>, Invalid> {
    let Some(named) = fields.text("verbosity")?.filter(|named| named != "medium") else { return Ok(None) };
    let known = Verbosity::parse(&named);
    if known.is_none() {
        losses.add(at);
    }
    Ok(known)
}

/// Tools, as OpenAI and Ollama write them.
pub(crate) fn read_tools(tools: Vec<Value>, losses: &mut Losses) -> Result<Vec<Tool>, Invalid> {
    let mut read = Vec::with_capacity(tools.len());
    for tool in tools {
        if cursor::is_flat(&tool) {
            read.extend(cursor::read_tool(tool, losses)?);
            continue;
        }
        let mut tool = Fields::of(tool, "tools")?;
        let kind = tool.text("type")?;
        if let Some(kind) = kind.filter(|kind| kind != "function") {
            losses.add_below("tools", &kind);
            continue;
        }
        let mut function = tool
            .object("function", "tools.function")?
            .ok_or_else(|| Invalid::new("tools.function", "is missing"))?;
        read.push(Tool {
            name: function.required_text("name")?,
            description: function.text("description")?,
            schema: function.json("parameters").unwrap_or_else(Json::empty_object),
            strict: function.flag("strict")?,
            cached: anthropic::take_cache_control(&mut tool, losses)
                .or(anthropic::take_cache_control(&mut function, losses)),
        });
        function.rest(losses);
        tool.rest(losses);
    }
    Ok(read)
}

fn read_tool_choice(
    fields: &mut Fields,
    tools: &mut Vec<Tool>,
    losses: &mut Losses,
) -> Result<Option<ToolChoice>, Invalid> {
    let Some(choice) = fields.take("tool_choice") else { return Ok(None) };
    Ok(match choice {
        Value::String(word) => match word.as_str() {
            "auto" => Some(ToolChoice::Auto),
            "none" => Some(ToolChoice::Never),
            "required" | "any" => Some(ToolChoice::Any),
            _ => {
                losses.add("tool_choice");
                None
            }
        },
        choice => {
            let mut choice = Fields::of(choice, "tool_choice")?;
            let allowed = choice.object("allowed_tools", "tool_choice.allowed_tools")?;
            // In the form of Responses they stand beside the type.
            let is_flat = allowed.is_none() && choice.peek("type") == Some("allowed_tools");
            if is_flat || allowed.is_some() {
                choice.ignore(&["type"]);
                let allowed = match allowed {
                    None => choice,
                    Some(allowed) => {
                        choice.rest(losses);
                        allowed
                    }
                };
                return read_allowed(allowed, tools, losses, |tool, losses| {
                    read_chosen(tool, "tool_choice.tools", losses)
                });
            }
            let Some(name) = read_chosen(&mut choice, "tool_choice.function", losses)? else {
                losses.add("tool_choice");
                return Ok(None);
            };
            choice.ignore(&["type"]);
            choice.rest(losses);
            Some(ToolChoice::Tool(name))
        }
    })
}

/// The name of a tool that may be called, which stands where the tool has its own.
fn read_chosen(tool: &mut Fields, at: &'static str, losses: &mut Losses) -> Result<Option<String>, Invalid> {
    let Some(mut function) = tool.object("function", at)? else {
        let is_flat = matches!(tool.peek("type"), Some("custom" | "function"));
        return if is_flat { tool.text("name") } else { Ok(None) };
    };
    let name = function.required_text("name")?;
    function.rest(losses);
    Ok(Some(name))
}

fn read_output(fields: &mut Fields, losses: &mut Losses) -> Result<Option<Output>, Invalid> {
    let Some(mut format) = fields.object("response_format", "response_format")? else { return Ok(None) };
    let output = match format.text("type")?.as_deref() {
        None | Some("text") => None,
        Some("json_object") => Some(Output::Json),
        Some("json_schema") => {
            let mut schema = format
                .object("json_schema", "response_format.json_schema")?
                .ok_or_else(|| Invalid::new("response_format.json_schema", "is missing"))?;
            let output = Output::Schema {
                name: schema.text("name")?,
                description: schema.text("description")?,
                schema: schema.json("schema").unwrap_or_else(Json::empty_object),
                strict: schema.flag("strict")?,
            };
            schema.rest(losses);
            Some(output)
        }
        Some(_) => {
            losses.add("response_format");
            return Ok(None);
        }
    };
    format.rest(losses);
    Ok(output)
}

fn read_thinking(fields: &mut Fields, losses: &mut Losses) -> Result<Option<Thinking>, Invalid> {
    let Some(effort) = fields.text("reasoning_effort")? else { return Ok(None) };
    if effort == "none" {
        return Ok(Some(Thinking::Off));
    }
    let known = Effort::parse(&effort).map(Thinking::Effort);
    if known.is_none() {
        losses.add("reasoning_effort");
    }
    Ok(known)
}

fn read_messages(
    messages: Vec<Value>,
    text_tools: &HashSet<String>,
    losses: &mut Losses,
) -> Result<Vec<Message>, Invalid> {
    let mut read: Vec<Message> = Vec::with_capacity(messages.len());
    let mut after_result = false;
    for message in messages {
        let mut fields = Fields::of(message, "messages")?;
        let role = fields.required_text("role")?;
        let is_result = role == "tool";
        // Where the content is one text, clients have no other place for it.
        let life = anthropic::take_cache_control(&mut fields, losses);
        match role.as_str() {
            "system" | "developer" => read.push(plain(Role::System, &mut fields, losses)?),
            "user" => read.push(plain(Role::User, &mut fields, losses)?),
            "assistant" => read.push(assistant(&mut fields, text_tools, losses)?),
            "tool" => {
                let said = plain(Role::User, &mut fields, losses)?;
                let cached = said.cache_points.last().map(|point| point.life);
                let result = Block::ToolResult(ToolResult {
                    id: fields.required_text("tool_call_id")?,
                    content: said.content,
                    is_error: false,
                });
                // The results of one turn are one message.
                if !after_result {
                    read.push(Message::new(Role::User, Vec::new()));
                }
                if let Some(last) = read.last_mut() {
                    last.push(result, cached);
                }
            }
            _ => return Err(Invalid::new("messages.role", format!("`{role}` is not known"))),
        }
        if let (Some(life), Some(last)) = (life, read.last_mut()) {
            last.keep(life);
        }
        after_result = is_result;
        fields.rest(losses);
    }
    Ok(read)
}

fn plain(role: Role, fields: &mut Fields, losses: &mut Losses) -> Result<Message, Invalid> {
    let mut message = Message::new(role, Vec::new());
    read_content(fields.take("content"), &mut message, losses)?;
    Ok(message)
}

fn assistant(
    fields: &mut Fields,
    text_tools: &HashSet<String>,
    losses: &mut Losses,
) -> Result<Message, Invalid> {
    let mut thoughts = Thoughts::of(read_reasoning(fields, losses));
    let calls = fields.list("tool_calls")?.unwrap_or_default();
    let calls = read_calls(calls, text_tools, &mut thoughts, losses)?;
    let mut message = Message::new(Role::Assistant, thoughts.into_blocks());
    read_content(fields.take("content"), &mut message, losses)?;
    let refusal = fields.text("refusal")?.filter(|text| !text.is_empty());
    message.content.extend(refusal.map(Block::Refusal));
    calls.into_iter().for_each(|(call, cached)| message.push(call, cached));
    fields.ignore(&["annotations"]);
    Ok(message)
}

/// Reasoning beside a message: with its signatures in `thinking_blocks`, else as plain text.
pub(super) fn read_reasoning(fields: &mut Fields, losses: &mut Losses) -> Vec<Block> {
    let thinking = fields.any_list("thinking_blocks").into_iter();
    let plain = fields.some_text("reasoning_content");
    let other = fields.some_text("reasoning");
    let mut blocks: Vec<_> =
        thinking.filter_map(|block| anthropic::read_thinking_block(block, losses)).collect();
    if blocks.is_empty() {
        let text = plain.or(other);
        blocks.extend(text.map(|text| Block::Reasoning(Reasoning { text, signature: None })));
    }
    blocks
}

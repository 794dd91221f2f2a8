//! The common form into a Messages request.

use std::borrow::Cow;

use super::{Plan, Traits};
use crate::codec::{Invalid, List, Object, object, text_of};
use crate::dialect::{bedrock, gemini, responses};
use crate::ir::{
    Block, CacheLife, Document, Json, Losses, Message, Output, Request, Role, Source, ToolChoice, safe_id,
};

/// The most tokens of an answer where the client names no limit; Anthropic wants one.
const DEFAULT_MAX_TOKENS: u64 = 4_096;

/// Stands for `response_format: json_object`, which has no counterpart without a schema.
pub(crate) const ONLY_JSON: &str = "Answer with one JSON object and nothing else.";

pub(crate) fn encode(request: &Request) -> Result<(Vec<u8>, Losses), Invalid> {
    let mut losses = Losses::default();
    let (system, turns) = turns(request, &mut losses)?;
    let plan = Plan::of(request, Traits::of(&request.model), is_trusted, &mut losses);
    let stops: Vec<_> = request.stop.iter().filter(|stop| !stop.trim().is_empty()).collect();
    if stops.len() < request.stop.len() {
        losses.add("stop");
    }
    name_the_unknown(request, &mut losses);
    let body = object(|body| {
        body.text("model", &request.model);
        body.count("max_tokens", plan.limit(request.max_output.unwrap_or(DEFAULT_MAX_TOKENS)));
        if !system.is_empty() {
            body.list("system", |list| system.iter().for_each(|said| said.write(list)));
        }
        body.list("messages", |list| turns.iter().for_each(|turn| turn.write(list)));
        write_tools(body, request);
        plan.write_thinking(body);
        write_config(body, request, plan.effort());
        body.some_number("temperature", plan.temperature);
        body.some_number("top_p", plan.top_p);
        body.some_count("top_k", plan.top_k);
        if !stops.is_empty() {
            body.list("stop_sequences", |list| stops.iter().for_each(|stop| list.text(stop)));
        }
        if let Some(user) = &request.user {
            body.object("metadata", |metadata| metadata.text("user_id", user));
        }
        if request.stream {
            body.flag("stream", true);
        }
    });
    Ok((body, losses))
}

fn name_the_unknown(request: &Request, losses: &mut Losses) {
    for (given, name) in [
        (request.frequency_penalty.is_some_and(|penalty| penalty != 0.0), "frequency_penalty"),
        (request.presence_penalty.is_some_and(|penalty| penalty != 0.0), "presence_penalty"),
        (request.seed.is_some(), "seed"),
        (matches!(request.output, Some(Output::Json)), "response_format"),
    ] {
        if given {
            losses.add(name);
        }
    }
    if let Some(Output::Schema { description: Some(_), .. }) = &request.output {
        losses.add("response_format.description");
    }
}

/// The system prompt, and the turns: neighbours of one role are one turn, and results come first in theirs.
fn turns<'r>(request: &'r Request, losses: &mut Losses) -> Result<(Vec<Said<'r>>, Vec<Turn<'r>>), Invalid> {
    let mut system = Turn { role: Role::System, said: Vec::new() };
    let mut turns: Vec<Turn<'_>> = Vec::new();
    for message in &request.messages {
        if message.role == Role::System {
            if !turns.is_empty() {
                losses.add("messages.system");
            }
            system.take(message, losses)?;
            continue;
        }
        if turns.last().is_none_or(|last| last.role != message.role) {
            turns.push(Turn { role: message.role, said: Vec::new() });
        }
        if let Some(turn) = turns.last_mut() {
            turn.take(message, losses)?;
        }
    }
    if matches!(request.output, Some(Output::Json)) {
        let only_json = Cow::Owned(Block::Text(ONLY_JSON.to_owned()));
        system.said.push(Said { block: only_json, cached: None });
    }
    turns.retain_mut(|turn| {
        turn.said.sort_by_key(|said| !matches!(*said.block, Block::ToolResult(_)));
        !turn.said.is_empty()
    });
    Ok((system.said, turns))
}

fn write_config(body: &mut Object<'_>, request: &Request, effort: Option<&'static str>) {
    let schema = match &request.output {
        Some(Output::Schema { schema, .. }) => Some(schema),
        _ => None,
    };
    if effort.is_none() && schema.is_none() {
        return;
    }
    body.object("output_config", |config| {
        config.some_text("effort", effort);
        if let Some(schema) = schema {
            config.object("format", |format| {
                format.text("type", "json_schema");
                format.json("schema", schema);
            });
        }
    });
}

fn write_tools(body: &mut Object<'_>, request: &Request) {
    if request.tools.is_empty() {
        return;
    }
    let any_object = Json::parse(r#"{"type":"object","properties":{}}"#);
    body.list("tools", |list| {
        for tool in &request.tools {
            list.object(|item| {
                item.text("name", &tool.name);
                item.some_text("description", tool.description.as_deref());
                match (&any_object, tool.schema.as_str()) {
                    (Some(any_object), "{}") => item.json("input_schema", any_object),
                    _ => item.json("input_schema", &tool.schema),
                }
                item.some_flag("strict", tool.strict);
                write_cache_control(item, tool.cached);
            });
        }
    });
    let alone = request.parallel_tools.map(|parallel| !parallel);
    let choice = request.tool_choice.as_ref().or_else(|| alone.map(|_| &ToolChoice::Auto));
    let Some(choice) = choice else { return };
    body.object("tool_choice", |item| {
        match choice {
            ToolChoice::Auto => item.text("type", "auto"),
            ToolChoice::Any => item.text("type", "any"),
            ToolChoice::Never => item.text("type", "none"),
            ToolChoice::Tool(name) => {
                item.text("type", "tool");
                item.text("name", name);
            }
        }
        if *choice != ToolChoice::Never {
            item.some_flag("disable_parallel_tool_use", alone);
        }
    });
}

/// A turn that Anthropic can read.
struct Turn<'r> {
    role: Role,
    said: Vec<Said<'r>>,
}

/// A block, and whether a beginning that is to be kept ends there.
struct Said<'r> {
    block: Cow<'r, Block>,
    cached: Option<CacheLife>,
}

// === impl Turn ===

impl<'r> Turn<'r> {
    fn take(&mut self, message: &'r Message, losses: &mut Losses) -> Result<(), Invalid> {
        let is_system = self.role == Role::System;
        for (at, block) in message.content.iter().enumerate() {
            let cached = message.cached_up_to(at);
            match block {
                block if block.is_blank() || (is_system && !matches!(block, Block::Text(_))) => {
                    // What is kept ends with what is said before.
                    if let (Some(life), Some(last)) = (cached, self.said.last_mut()) {
                        last.cached = Some(life);
                    }
                    continue;
                }
                Block::Reasoning(_) | Block::RedactedReasoning(_) if !is_trusted(block) => {
                    losses.add("messages.reasoning");
                    continue;
                }
                Block::Document(document) => check(document)?,
                _ => {}
            }
            self.said.push(Said { block: Cow::Borrowed(block), cached });
        }
        Ok(())
    }

    fn write(&self, list: &mut List<'_>) {
        list.object(|message| {
            message.text("role", if self.role == Role::Assistant { "assistant" } else { "user" });
            message.list("content", |list| self.said.iter().for_each(|said| said.write(list)));
        });
    }
}

/// Whether reasoning is of this family: it takes back only what it has signed or encrypted.
fn is_trusted(block: &Block) -> bool {
    match block {
        Block::Reasoning(reasoning) => reasoning.signature.as_deref().is_some_and(|signature| {
            !responses::is_of_responses(signature) && !gemini::is_of_gemini(signature)
        }),
        Block::RedactedReasoning(data) => !bedrock::is_of_bedrock(data),
        _ => false,
    }
}

// === impl Said ===

impl Said<'_> {
    fn write(&self, list: &mut List<'_>) {
        list.object(|item| {
            write_members(item, &self.block);
            // Reasoning is kept with what follows it.
            if !matches!(*self.block, Block::Reasoning(_) | Block::RedactedReasoning(_)) {
                write_cache_control(item, self.cached);
            }
        });
    }
}

fn write_cache_control(item: &mut Object<'_>, cached: Option<CacheLife>) {
    let Some(life) = cached else { return };
    item.object("cache_control", |control| {
        control.text("type", "ephemeral");
        if life == CacheLife::Hour {
            control.text("ttl", "1h");
        }
    });
}

fn check(document: &Document) -> Result<(), Invalid> {
    match &document.source {
        Source::Inline(media) if media.media_type != "application/pdf" && text_of(document).is_none() => {
            Err(Invalid::new("messages.content.document", "is neither PDF nor text"))
        }
        _ => Ok(()),
    }
}

pub(super) fn write_block(list: &mut List<'_>, block: &Block) {
    list.object(|item| write_members(item, block));
}

fn write_members(item: &mut Object<'_>, block: &Block) {
    match block {
        Block::Text(text) | Block::Refusal(text) => {
            item.text("type", "text");
            item.text("text", text);
        }
        Block::Image(source) => {
            item.text("type", "image");
            write_source(item, source);
        }
        Block::Document(document) => {
            item.text("type", "document");
            match text_of(document) {
                Some(text) => item.object("source", |source| {
                    source.text("type", "text");
                    source.text("media_type", "text/plain");
                    source.text("data", &text);
                }),
                None => write_source(item, &document.source),
            }
            item.some_text("title", document.title.as_deref());
        }
        Block::Reasoning(reasoning) => {
            item.text("type", "thinking");
            item.text("thinking", &reasoning.text);
            item.text("signature", &super::signature(reasoning.signature.as_deref()));
        }
        Block::RedactedReasoning(data) => {
            item.text("type", "redacted_thinking");
            item.text("data", data);
        }
        Block::ToolCall(call) => {
            item.text("type", "tool_use");
            item.text("id", &safe_id(&call.id));
            item.text("name", &call.name);
            item.json("input", &call.arguments);
        }
        Block::ToolResult(result) => {
            item.text("type", "tool_result");
            item.text("tool_use_id", &safe_id(&result.id));
            let said: Vec<_> = result.content.iter().filter(|block| !block.is_blank()).collect();
            if !said.is_empty() {
                item.list("content", |list| said.iter().for_each(|block| write_block(list, block)));
            }
            if result.is_error {
                item.flag("is_error", true);
            }
        }
    }
}

fn write_source(item: &mut Object<'_>, source: &Source) {
    item.object("source", |body| match source {
        Source::Inline(media) => {
            body.text("type", "base64");
            body.text("media_type", &media.media_type);
            body.text("data", &media.base64);
        }
        Source::Url(url) => {
            body.text("type", "url");
            body.text("url", url);
        }
    });
}

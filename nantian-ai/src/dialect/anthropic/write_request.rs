//! The common form into a Messages request.

use std::borrow::Cow;

use super::{Plan, Traits};
use crate::codec::{Invalid, List, Object, object, text_of};
use crate::dialect::{bedrock, gemini, responses};
use crate::ir::{Block, Document, Json, Losses, Message, Output, Request, Role, Source, ToolChoice, safe_id};

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
            body.list("system", |list| system.iter().for_each(|text| write_text(list, text)));
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
fn turns<'r>(
    request: &'r Request,
    losses: &mut Losses,
) -> Result<(Vec<Cow<'r, str>>, Vec<Turn<'r>>), Invalid> {
    let mut system = Vec::new();
    let mut turns: Vec<Turn<'_>> = Vec::new();
    for Message { role, content } in &request.messages {
        if *role == Role::System {
            if !turns.is_empty() {
                losses.add("messages.system");
            }
            system.extend(content.iter().filter(|block| !block.is_blank()).filter_map(|block| match block {
                Block::Text(text) => Some(Cow::from(text.as_str())),
                _ => None,
            }));
            continue;
        }
        if turns.last().is_none_or(|last| last.role != *role) {
            turns.push(Turn { role: *role, blocks: Vec::new() });
        }
        if let Some(turn) = turns.last_mut() {
            turn.take(content, losses)?;
        }
    }
    if matches!(request.output, Some(Output::Json)) {
        system.push(ONLY_JSON.into());
    }
    turns.retain_mut(|turn| {
        turn.blocks.sort_by_key(|block| !matches!(block, Block::ToolResult(_)));
        !turn.blocks.is_empty()
    });
    Ok((system, turns))
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
    blocks: Vec<&'r Block>,
}

// === impl Turn ===

impl<'r> Turn<'r> {
    fn take(&mut self, content: &'r [Block], losses: &mut Losses) -> Result<(), Invalid> {
        for block in content.iter().filter(|block| !block.is_blank()) {
            match block {
                Block::Reasoning(_) | Block::RedactedReasoning(_) if !is_trusted(block) => {
                    losses.add("messages.reasoning");
                    continue;
                }
                Block::Document(document) => check(document)?,
                _ => {}
            }
            self.blocks.push(block);
        }
        Ok(())
    }

    fn write(&self, list: &mut List<'_>) {
        list.object(|message| {
            message.text("role", if self.role == Role::Assistant { "assistant" } else { "user" });
            message.list("content", |list| self.blocks.iter().for_each(|block| write_block(list, block)));
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

fn check(document: &Document) -> Result<(), Invalid> {
    match &document.source {
        Source::Inline(media) if media.media_type != "application/pdf" && text_of(document).is_none() => {
            Err(Invalid::new("messages.content.document", "is neither PDF nor text"))
        }
        _ => Ok(()),
    }
}

fn write_text(list: &mut List<'_>, text: &str) {
    list.object(|block| {
        block.text("type", "text");
        block.text("text", text);
    });
}

pub(super) fn write_block(list: &mut List<'_>, block: &Block) {
    list.object(|item| match block {
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
    });
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

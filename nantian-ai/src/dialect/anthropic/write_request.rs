//! The common form into a Messages request.

use super::turns::{Turns, is_trusted};
use super::{Enforcement, Plan, Traits};
use crate::codec::{Invalid, List, Object, object, text_of};
use crate::ir::{Block, CacheLife, Json, Losses, Output, Request, Source, ToolChoice, safe_id, safe_user};

/// Stands for `response_format: json_object`, which has no counterpart without a schema.
pub(crate) const ONLY_JSON: &str = "Answer with one JSON object and nothing else.";

pub(crate) fn encode(request: &Request) -> Result<(Vec<u8>, Losses), Invalid> {
    written(request, true)
}

/// The same for a count of its tokens, which is asked for without how an answer is to be made.
pub(crate) fn encode_count(request: &Request) -> Result<(Vec<u8>, Losses), Invalid> {
    written(request, false)
}

fn written(request: &Request, asks: bool) -> Result<(Vec<u8>, Losses), Invalid> {
    let mut losses = Losses::default();
    let traits = Traits::of(&request.model);
    let enforcement = Enforcement::of(request, traits, &mut losses);
    let Turns { system, turns, .. } = Turns::of(request, traits, enforcement.said.as_deref(), &mut losses)?;
    let plan = Plan::of(request, traits, is_trusted, &mut losses);
    let stops: Vec<_> = request.stop.iter().filter(|stop| !stop.trim().is_empty()).collect();
    if stops.len() < request.stop.len() {
        losses.add("stop");
    }
    name_the_unknown(request, &mut losses);
    let choice = choice(request, traits, &mut losses);
    let body = object(|body| {
        body.text("model", &request.model);
        if asks {
            // Anthropic wants a limit also where the client names none.
            body.count("max_tokens", plan.limit(request.max_output.unwrap_or(traits.most_output)));
        }
        if !system.is_empty() {
            body.list("system", |list| system.iter().for_each(|said| said.write(list)));
        }
        body.list("messages", |list| turns.iter().for_each(|turn| turn.write(list)));
        write_tools(body, request, choice, &enforcement);
        plan.write_thinking(body);
        write_config(body, enforcement.output.as_deref(), plan.effort());
        if !asks {
            return;
        }
        body.some_number("temperature", plan.temperature);
        body.some_number("top_p", plan.top_p);
        body.some_count("top_k", plan.top_k);
        if !stops.is_empty() {
            body.list("stop_sequences", |list| stops.iter().for_each(|stop| list.text(stop)));
        }
        if let Some(user) = request.end_user() {
            body.object("metadata", |metadata| metadata.text("user_id", &safe_user(user)));
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

fn write_config(body: &mut Object<'_>, schema: Option<&Json>, effort: Option<&'static str>) {
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

/// Which tool is to be called, if the model can be told.
fn choice<'r>(request: &'r Request, traits: Traits, losses: &mut Losses) -> Option<&'r ToolChoice> {
    let choice = request.tool_choice.as_ref().filter(|_| !request.tools.is_empty())?;
    if matches!(choice, ToolChoice::Any | ToolChoice::Tool(_)) && !traits.takes_forced_tools {
        losses.add("tool_choice");
        return Some(&ToolChoice::Auto);
    }
    Some(choice)
}

fn write_tools(
    body: &mut Object<'_>,
    request: &Request,
    choice: Option<&ToolChoice>,
    enforcement: &Enforcement<'_>,
) {
    if request.tools.is_empty() {
        return;
    }
    body.list("tools", |list| {
        for (tool, strict) in enforcement.tools(request) {
            list.object(|item| {
                item.text("name", &tool.name);
                item.some_text("description", tool.description.as_deref());
                item.schema("input_schema", strict.unwrap_or(&tool.schema));
                item.some_flag("strict", strict.map(|_| true).or(tool.strict.filter(|strict| !strict)));
                write_cache_control(item, tool.cached);
            });
        }
    });
    let alone = request.parallel_tools.map(|parallel| !parallel);
    let choice = choice.or_else(|| alone.map(|_| &ToolChoice::Auto));
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

pub(super) fn write_cache_control(item: &mut Object<'_>, cached: Option<CacheLife>) {
    let Some(life) = cached else { return };
    item.object("cache_control", |control| {
        control.text("type", "ephemeral");
        if life == CacheLife::Hour {
            control.text("ttl", "1h");
        }
    });
}

pub(super) fn write_block(list: &mut List<'_>, block: &Block) {
    list.object(|item| write_members(item, block));
}

pub(super) fn write_members(item: &mut Object<'_>, block: &Block) {
    match block {
        Block::Text(text) | Block::Refusal(text) => {
            item.text("type", "text");
            item.text("text", text);
        }
        Block::Image(image) => {
            item.text("type", "image");
            write_source(item, &image.source);
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
        // Nothing that can be heard comes so far.
        Block::Audio(_) => {}
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

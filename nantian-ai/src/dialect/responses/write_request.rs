//! The common form into a Responses request.

use super::turn::Turn;
use super::{LOGPROBS, signature};
use crate::codec::{BEGINNING, Invalid, List, Object, joined_text, object, says_json, titled_text_of};
use crate::dialect::anthropic::ONLY_JSON;
use crate::dialect::openai::{
    FAILED, Thinker, ThinkingBy, holds_answers, is_strict, loses_strictness, options, result_text,
};
use crate::ir::{
    Block, Detail, Losses, Message, Output, Request, Role, Source, Thinking, ToolChoice, ToolResult,
    Verbosity, safe_id,
};
use crate::target::azure;

/// The lowest limit of an answer that is taken.
const LEAST_OUTPUT: u64 = 16;

/// Has the model's reasoning come back encrypted, so that it can be given back where nothing is stored.
pub(crate) const ENCRYPTED: &str = "reasoning.encrypted_content";

pub(crate) fn encode(request: &Request, provider: &str) -> Result<(Vec<u8>, Losses), Invalid> {
    write(request, provider, false)
}

/// What is counted: the request without what only an answer needs.
pub(crate) fn encode_count(request: &Request, provider: &str) -> Result<(Vec<u8>, Losses), Invalid> {
    write(request, provider, true)
}

fn write(request: &Request, provider: &str, counted: bool) -> Result<(Vec<u8>, Losses), Invalid> {
    let mut losses = Losses::default();
    let thinker = Thinker::of(&request.model);
    let turns = Turn::all(&request.messages);
    for (message, turn) in request.messages.iter().zip(&turns) {
        check(message, turn, &mut losses)?;
    }
    // Some input there must be.
    let (instructions, turns) = match turns.split_first() {
        Some((first, rest)) if first.role == Role::System && rest.iter().any(Turn::says) => {
            (Some(joined_text(first.content, "\n\n")), rest)
        }
        _ => (None, turns.as_slice()),
    };
    let is_silent = !turns.iter().any(Turn::says);
    // A deployment of Azure may be named anything, and xAI tells few of its models how much to think.
    let is_azure = provider.eq_ignore_ascii_case(azure::NAME);
    let may_think = thinker.is_some() || is_azure || provider.eq_ignore_ascii_case("xai");
    let reasoning = Wish::of(request, is_azure, &mut losses);
    let verbosity = request.verbosity.filter(|_| thinker.is_some_and(|thinker| thinker.takes_verbosity));
    let sampled = thinker.is_none_or(|thinker| thinker.takes_sampling(reasoning.effort));
    name_the_unknown(request, sampled, &mut losses);
    if !sampled {
        options::lose_logprobs(request, &mut losses);
    }
    if request.verbosity != verbosity {
        losses.add("verbosity");
    }
    // OpenAI refuses to answer in JSON if nobody has said the word; instructions do not count.
    let must_say_json = matches!(request.output, Some(Output::Json))
        && !says_json(turns.iter().flat_map(|turn| turn.content));
    let body = object(|body| {
        body.text("model", &request.model);
        body.some_text("instructions", instructions.as_deref());
        body.list("input", |list| {
            if must_say_json {
                write_system(list, ONLY_JSON);
            }
            turns.iter().for_each(|turn| write_turn(list, turn));
            if is_silent {
                write_user(list, &[Block::Text(BEGINNING.to_owned())]);
            }
        });
        write_tools(body, request);
        write_output(body, request.output.as_ref(), verbosity);
        reasoning.write(body);
        if counted {
            return;
        }
        body.some_count("max_output_tokens", request.max_output.map(|most| most.max(LEAST_OUTPUT)));
        body.some_number("temperature", request.temperature.filter(|_| sampled));
        body.some_number("top_p", request.top_p.filter(|_| sampled));
        options::write(body, request);
        if let Some(metadata) = &request.openai.metadata {
            body.json("metadata", metadata);
        }
        // The client has the conversation; unless it says so, it asks nobody to keep it.
        body.flag("store", request.openai.store.unwrap_or(false));
        let logprobs = request.logprobs.filter(|_| sampled);
        body.some_count("top_logprobs", logprobs.filter(|likelier| *likelier > 0));
        let wishes = [(may_think, ENCRYPTED), (logprobs.is_some(), LOGPROBS)];
        if wishes.iter().any(|(is_wished, _)| *is_wished) {
            body.list("include", |list| {
                wishes.iter().filter(|(is_wished, _)| *is_wished).for_each(|(_, wish)| list.text(wish));
            });
        }
        if request.stream {
            body.flag("stream", true);
        }
    });
    Ok((body, losses))
}

fn name_the_unknown(request: &Request, sampled: bool, losses: &mut Losses) {
    // 1 is what they take anyway.
    let draws = |share: Option<f64>| !sampled && share.is_some_and(|share| share != 1.0);
    let is_loose = matches!(
        &request.output,
        Some(Output::Schema { schema, strict: Some(true), .. }) if !holds_answers(schema)
    );
    for (given, name) in [
        (draws(request.temperature), "temperature"),
        (draws(request.top_p), "top_p"),
        (request.top_k.is_some(), "top_k"),
        (request.tools.iter().any(loses_strictness), "tools.strict"),
        (is_loose, "response_format.strict"),
        (request.max_output.is_some_and(|most| most < LEAST_OUTPUT), "max_tokens"),
        (request.frequency_penalty.is_some_and(|penalty| penalty != 0.0), "frequency_penalty"),
        (request.presence_penalty.is_some_and(|penalty| penalty != 0.0), "presence_penalty"),
        (request.seed.is_some(), "seed"),
        (!request.stop.is_empty(), "stop"),
        (request.messages.last().is_some_and(|last| last.role == Role::Assistant), "messages.prefill"),
    ] {
        if given {
            losses.add(name);
        }
    }
}

/// Refuses what no item can carry, and names what is left out.
fn check(message: &Message, turn: &Turn<'_>, losses: &mut Losses) -> Result<(), Invalid> {
    for (at, block) in message.content.iter().enumerate() {
        match (message.role, block) {
            (Role::Assistant, Block::Reasoning(reasoning)) => {
                let is_lost = match reasoning.signature.as_deref().and_then(signature::own) {
                    Some(_) => at >= turn.content.len(),
                    None => !reasoning.text.is_empty(),
                };
                if is_lost {
                    losses.add("messages.reasoning");
                }
            }
            (Role::Assistant, Block::RedactedReasoning(_)) => losses.add("messages.reasoning"),
            (Role::User, Block::ToolCall(_) | Block::Reasoning(_) | Block::RedactedReasoning(_)) => {
                return Err(Invalid::new("messages.content", "holds what a user cannot say"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// How much the model shall think, and whether it shall tell what.
#[derive(Default)]
struct Wish {
    effort: Option<&'static str>,
    summary: bool,
}

// === impl Wish ===

impl Wish {
    /// `may_think` is whether the model may think though its name does not tell.
    fn of(request: &Request, may_think: bool, losses: &mut Losses) -> Self {
        let by = ThinkingBy::by_effort(&request.model);
        let told = by.wish(request.thinking);
        if told.is_lost {
            losses.add("thinking");
        }
        let thinks = request.thinking.is_some_and(|thinking| thinking != Thinking::Off);
        let tells = may_think || by != ThinkingBy::Nothing;
        Self { effort: told.effort, summary: request.shows_thinking && thinks && tells }
    }

    fn write(&self, body: &mut Object<'_>) {
        if self.effort.is_none() && !self.summary {
            return;
        }
        body.object("reasoning", |reasoning| {
            reasoning.some_text("effort", self.effort);
            reasoning.some_text("summary", self.summary.then_some("auto"));
        });
    }
}

fn write_tools(body: &mut Object<'_>, request: &Request) {
    if request.tools.is_empty() {
        return;
    }
    body.list("tools", |list| {
        for tool in &request.tools {
            list.object(|item| {
                item.text("type", "function");
                item.text("name", &tool.name);
                item.some_text("description", tool.description.as_deref());
                item.schema("parameters", &tool.schema);
                // Unlike elsewhere, schemas are strict here unless told otherwise.
                item.flag("strict", is_strict(tool));
            });
        }
    });
    match &request.tool_choice {
        None => {}
        Some(ToolChoice::Auto) => body.text("tool_choice", "auto"),
        Some(ToolChoice::Never) => body.text("tool_choice", "none"),
        Some(ToolChoice::Any) => body.text("tool_choice", "required"),
        Some(ToolChoice::Tool(name)) => body.object("tool_choice", |choice| {
            choice.text("type", "function");
            choice.text("name", name);
        }),
    }
    body.some_flag("parallel_tool_calls", request.parallel_tools);
}

fn write_output(body: &mut Object<'_>, output: Option<&Output>, verbosity: Option<Verbosity>) {
    if output.is_none() && verbosity.is_none() {
        return;
    }
    body.object("text", |text| {
        if let Some(output) = output {
            text.object("format", |format| write_format(format, output));
        }
        text.some_text("verbosity", verbosity.map(Verbosity::name));
    });
}

fn write_format(format: &mut Object<'_>, output: &Output) {
    match output {
        Output::Json => format.text("type", "json_object"),
        Output::Schema { name, description, schema, strict } => {
            format.text("type", "json_schema");
            format.text("name", name.as_deref().unwrap_or("response"));
            format.some_text("description", description.as_deref());
            format.json("schema", schema);
            format.some_flag("strict", strict.map(|strict| strict && holds_answers(schema)));
        }
    }
}

fn write_turn(list: &mut List<'_>, turn: &Turn<'_>) {
    match turn.role {
        Role::System => write_system(list, &joined_text(turn.content, "\n\n")),
        Role::User => write_user(list, turn.content),
        Role::Assistant => turn.content.iter().for_each(|block| write_said(list, block)),
    }
}

fn write_system(list: &mut List<'_>, text: &str) {
    list.object(|item| {
        item.text("role", "system");
        item.text("content", text);
    });
}

/// Results come first, as the calls before them want it.
fn write_user(list: &mut List<'_>, content: &[Block]) {
    let mut parts = Vec::new();
    for block in content {
        match block {
            Block::ToolResult(result) => write_result(list, result),
            block => parts.push(block),
        }
    }
    match parts.as_slice() {
        [] => {}
        [Block::Text(text)] => list.object(|item| {
            item.text("role", "user");
            item.text("content", text);
        }),
        parts => list.object(|item| {
            item.text("role", "user");
            item.list("content", |list| parts.iter().for_each(|part| write_part(list, part)));
        }),
    }
}

fn write_result(list: &mut List<'_>, result: &ToolResult) {
    let is_text = result.content.iter().all(|block| matches!(block, Block::Text(_)));
    list.object(|item| {
        item.text("type", "function_call_output");
        item.text("call_id", &safe_id(&result.id));
        if is_text {
            item.text("output", &result_text(result));
            return;
        }
        item.list("output", |list| {
            if result.is_error {
                write_part(list, &Block::Text(FAILED.trim_end().to_owned()));
            }
            result.content.iter().for_each(|block| write_part(list, block));
        });
    });
}

/// What a user or a tool says.
fn write_part(list: &mut List<'_>, block: &Block) {
    match block {
        Block::Text(text) | Block::Refusal(text) => list.object(|part| {
            part.text("type", "input_text");
            part.text("text", text);
        }),
        Block::Image(image) => list.object(|part| {
            part.text("type", "input_image");
            part.text("image_url", &image.source.to_url());
            part.some_text("detail", image.detail.map(Detail::name));
        }),
        Block::Document(document) => list.object(|part| match (titled_text_of(document), &document.source) {
            (Some(text), _) => {
                part.text("type", "input_text");
                part.text("text", &text);
            }
            (None, Source::Inline(_)) => {
                part.text("type", "input_file");
                part.text("filename", document.title.as_deref().unwrap_or("document.pdf"));
                part.text("file_data", &document.source.to_url());
            }
            (None, Source::Url(url)) => {
                part.text("type", "input_file");
                part.text("file_url", url);
            }
        }),
        // Refused before, or written as items of their own.
        Block::Audio(_)
        | Block::Reasoning(_)
        | Block::RedactedReasoning(_)
        | Block::ToolCall(_)
        | Block::ToolResult(_) => {}
    }
}

/// What the model said: each block an item.
fn write_said(list: &mut List<'_>, block: &Block) {
    match block {
        Block::Text(text) if !text.is_empty() => write_answer(list, "output_text", "text", text),
        Block::Refusal(text) if !text.is_empty() => write_answer(list, "refusal", "refusal", text),
        Block::Reasoning(reasoning) => {
            let Some((id, encrypted)) = reasoning.signature.as_deref().and_then(signature::own) else {
                return;
            };
            list.object(|item| {
                item.text("type", "reasoning");
                item.some_text("id", Some(id).filter(|id| !id.is_empty()));
                item.list("summary", |list| {
                    if !reasoning.text.is_empty() {
                        list.object(|part| {
                            part.text("type", "summary_text");
                            part.text("text", &reasoning.text);
                        });
                    }
                });
                item.text("encrypted_content", encrypted);
            });
        }
        Block::ToolCall(call) => list.object(|item| {
            item.text("type", "function_call");
            item.text("call_id", &safe_id(&call.id));
            item.text("name", &call.name);
            item.text("arguments", call.arguments.as_str());
        }),
        _ => {}
    }
}

fn write_answer(list: &mut List<'_>, kind: &str, name: &'static str, text: &str) {
    list.object(|item| {
        item.text("type", "message");
        item.text("role", "assistant");
        item.list("content", |list| {
            list.object(|part| {
                part.text("type", kind);
                part.text(name, text);
            });
        });
    });
}

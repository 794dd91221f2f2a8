//! The common form into a `generateContent` request.

mod config;
mod schema;
mod tools;

use std::borrow::Cow;
use std::collections::HashMap;

use super::thoughts::Thoughts;
use super::traits::Traits;
use super::{UNSIGNED, own};
use crate::codec::{
    BEGINNING, Invalid, List, Object, joined_text, object, said_by_user, text_of, titled_text_of,
};
use crate::ir::{Block, Json, Losses, Media, Message, Output, Request, Role, Source, ToolCall, ToolResult};

/// The most stop sequences that Gemini takes.
const MOST_STOPS: usize = 5;

pub(crate) fn encode(request: &Request) -> Result<(Vec<u8>, Losses), Invalid> {
    let traits = Traits::of(&request.model);
    let mut losses = Losses::default();
    let (system, contents) = contents(request, traits, &mut losses)?;
    name_the_unknown(request, traits, &mut losses);
    let output = request.output.as_ref().filter(|_| request.tools.is_empty() || traits.json_beside_tools);
    if output.is_none() && request.output.is_some() {
        losses.add("response_format");
    }
    let thinking = Thoughts::of(request.thinking, traits, &mut losses);
    let body = object(|body| {
        if !system.is_empty() {
            body.object("systemInstruction", |instruction| {
                instruction.list("parts", |list| {
                    system.iter().for_each(|text| list.object(|part| part.text("text", text)));
                });
            });
        }
        body.list("contents", |list| contents.iter().for_each(|content| content.write(list, traits)));
        tools::write(body, request, &mut losses);
        config::write(body, request, output, &thinking, traits, &mut losses);
    });
    Ok((body, losses))
}

fn name_the_unknown(request: &Request, traits: Traits, losses: &mut Losses) {
    // 1 is what they take anyway.
    let draws = |share: Option<f64>| traits.ignores_sampling && share.is_some_and(|share| share != 1.0);
    for (given, name) in [
        (draws(request.temperature), "temperature"),
        (draws(request.top_p), "top_p"),
        (traits.ignores_sampling && request.top_k.is_some(), "top_k"),
        (request.end_user().is_some(), "user"),
        (request.parallel_tools == Some(false) && !request.tools.is_empty(), "parallel_tool_calls"),
        (request.tools.iter().any(|tool| tool.strict == Some(true)), "tools.strict"),
        (request.stop.len() > MOST_STOPS, "stop"),
        (request.messages.last().is_some_and(|last| last.role == Role::Assistant), "messages.prefill"),
        (
            matches!(request.output, Some(Output::Schema { description: Some(_), .. })),
            "response_format.description",
        ),
    ] {
        if given {
            losses.add(name);
        }
    }
}

/// What one side says until the other does. Results stand alone.
struct Content<'r> {
    role: &'static str,
    parts: Vec<Part<'r>>,
}

enum Part<'r> {
    Text(Cow<'r, str>),
    Inline(&'r Media),
    File(&'r str),
    Thought(&'r str),
    /// The signature of what comes next.
    Signature(&'r str),
    Call(&'r ToolCall),
    Result {
        /// Which call it answers, counted over the conversation.
        call: usize,
        name: &'r str,
        result: &'r ToolResult,
        /// What stands in it beside the text.
        shown: Vec<&'r Media>,
    },
}

/// The calls of a conversation by their ids: which it is of all, and its tool.
#[derive(Default)]
struct Calls<'r> {
    known: HashMap<&'r str, (usize, &'r str)>,
    count: usize,
}

/// The system prompt, and the conversation.
fn contents<'r>(
    request: &'r Request,
    traits: Traits,
    losses: &mut Losses,
) -> Result<(Vec<Cow<'r, str>>, Vec<Content<'r>>), Invalid> {
    let mut system = Vec::new();
    let mut contents: Vec<Content<'_>> = Vec::new();
    let mut calls = Calls::default();
    for message in &request.messages {
        match message.role {
            Role::System if contents.is_empty() => {
                system.extend(texts(message).map(Cow::from));
            }
            Role::System => {
                let said: Vec<_> = texts(message).map(|text| Part::Text(said_by_user(text).into())).collect();
                if !said.is_empty() {
                    losses.add("messages.system");
                }
                add(&mut contents, "user", said);
            }
            Role::Assistant => add(&mut contents, "model", said(message, &mut calls, losses)),
            Role::User => {
                let (results, others) = heard(message, &calls, traits)?;
                answer(&mut contents, results);
                add(&mut contents, "user", others);
            }
        }
    }
    // Calls of one function are told apart by their order.
    let place = |part: &Part<'_>| match part {
        Part::Result { call, .. } => *call,
        _ => 0,
    };
    contents.iter_mut().filter(|it| it.is_of_results()).for_each(|it| it.parts.sort_by_key(place));
    if contents.first().is_none_or(|first| first.role != "user") {
        contents.insert(0, Content { role: "user", parts: vec![Part::Text(BEGINNING.into())] });
    }
    Ok((system, contents))
}

/// What the system says.
fn texts(message: &Message) -> impl Iterator<Item = &str> {
    message.content.iter().filter(|block| !block.is_blank()).filter_map(|block| match block {
        Block::Text(text) => Some(text.as_str()),
        _ => None,
    })
}

/// Adds results to those of the same turn.
fn answer<'r>(contents: &mut Vec<Content<'r>>, results: Vec<Part<'r>>) {
    if results.is_empty() {
        return;
    }
    let turn = contents.iter().rposition(|content| content.role == "model").map_or(0, |at| at + 1);
    match contents.iter_mut().skip(turn).find(|content| content.is_of_results()) {
        Some(open) => open.parts.extend(results),
        None => contents.insert(turn, Content { role: "user", parts: results }),
    }
}

/// Adds parts to the last content if it is of the same side and no results.
fn add<'r>(contents: &mut Vec<Content<'r>>, role: &'static str, parts: Vec<Part<'r>>) {
    if parts.is_empty() {
        return;
    }
    let is_open = |content: &&mut Content<'_>| content.role == role && !content.is_of_results();
    match contents.last_mut().filter(is_open) {
        Some(last) => last.parts.extend(parts),
        None => contents.push(Content { role, parts }),
    }
}

/// What the model said, and the calls in it.
fn said<'r>(message: &'r Message, calls: &mut Calls<'r>, losses: &mut Losses) -> Vec<Part<'r>> {
    let mut parts = Vec::new();
    for block in &message.content {
        match block {
            Block::Text(text) | Block::Refusal(text) if !text.is_empty() => {
                parts.push(Part::Text(text.as_str().into()));
            }
            Block::Reasoning(reasoning) => match reasoning.signature.as_deref().and_then(own) {
                Some(signature) => {
                    if !reasoning.text.is_empty() {
                        parts.push(Part::Thought(&reasoning.text));
                    }
                    parts.push(Part::Signature(signature));
                }
                None if reasoning.text.is_empty() => {}
                None => losses.add("messages.reasoning"),
            },
            Block::RedactedReasoning(_) => losses.add("messages.reasoning"),
            Block::ToolCall(call) => {
                calls.known.insert(&call.id, (calls.count, &call.name));
                calls.count += 1;
                parts.push(Part::Call(call));
            }
            _ => {}
        }
    }
    parts
}

/// The results in what a user says, and the rest.
fn heard<'r>(
    message: &'r Message,
    calls: &Calls<'r>,
    traits: Traits,
) -> Result<(Vec<Part<'r>>, Vec<Part<'r>>), Invalid> {
    let (mut results, mut others) = (Vec::new(), Vec::new());
    for block in &message.content {
        match block {
            Block::ToolResult(result) => {
                let (call, name) = calls.known.get(result.id.as_str()).copied().ok_or_else(|| {
                    Invalid::new("messages.content.tool_result", format!("`{}` answers no call", result.id))
                })?;
                let mut shown = Vec::new();
                for attached in result.content.iter().filter(|block| !matches!(block, Block::Text(_))) {
                    match part(attached)? {
                        Part::Inline(media) if traits.sees_results && is_seen(media) => shown.push(media),
                        part => {
                            others.push(Part::Text(format!("Attached to the result of {name}:").into()));
                            others.push(part);
                        }
                    }
                }
                results.push(Part::Result { call, name, result, shown });
            }
            block if block.is_blank() => {}
            block => others.push(part(block)?),
        }
    }
    Ok((results, others))
}

/// Whether it is of the types that may stand in a result.
fn is_seen(media: &Media) -> bool {
    matches!(&*media.media_type, "application/pdf" | "image/jpeg" | "image/png" | "image/webp")
}

/// The type of what is at a URL, as far as its path tells.
fn type_of(url: &str) -> Option<&'static str> {
    let path = url.split(['?', '#']).next()?;
    let (_, end) = path.rsplit_once('/')?.1.rsplit_once('.')?;
    Some(match end.to_ascii_lowercase().as_str() {
        "jpeg" | "jpg" => "image/jpeg",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "webp" => "image/webp",
        _ => return None,
    })
}

fn part(block: &Block) -> Result<Part<'_>, Invalid> {
    let (source, text) = match block {
        Block::Text(text) | Block::Refusal(text) => return Ok(Part::Text(text.as_str().into())),
        Block::Image(image) => (&image.source, None),
        Block::Document(document) if text_of(document).is_some() => {
            (&document.source, titled_text_of(document))
        }
        Block::Document(document) => (&document.source, None),
        Block::Audio(media) => return Ok(Part::Inline(media)),
        _ => return Err(Invalid::new("messages.content", "holds what a user cannot say")),
    };
    match (source, text) {
        (_, Some(text)) => Ok(Part::Text(text.into())),
        (Source::Inline(media), None) => Ok(Part::Inline(media)),
        (Source::Url(url), None) if type_of(url).is_some() => Ok(Part::File(url)),
        (Source::Url(_), None) => {
            let problem =
                "holds a URL whose end does not tell what is there, which this provider wants to know";
            Err(Invalid::new("messages.content", problem))
        }
    }
}

// === impl Content ===

impl Content<'_> {
    fn is_of_results(&self) -> bool {
        matches!(self.parts.first(), Some(Part::Result { .. }))
    }

    fn write(&self, list: &mut List<'_>, traits: Traits) {
        list.object(|content| {
            content.text("role", self.role);
            content.list("parts", |list| {
                let mut signature = None;
                let mut is_first_call = true;
                for part in &self.parts {
                    if let Part::Signature(next) = part {
                        signature = Some(*next);
                        continue;
                    }
                    let is_call = matches!(part, Part::Call(_));
                    let stand_in = is_call && is_first_call && traits.wants_signatures;
                    is_first_call &= !is_call;
                    // Thoughts carry none.
                    let own = if matches!(part, Part::Thought(_)) { None } else { signature.take() };
                    let signed = own.or(stand_in.then_some(UNSIGNED));
                    list.object(|item| part.write(item, signed, traits));
                }
                if let Some(signature) = signature {
                    list.object(|item| Part::Text("".into()).write(item, Some(signature), traits));
                }
            });
        });
    }
}

// === impl Part ===

impl Part<'_> {
    fn write(&self, item: &mut Object<'_>, signature: Option<&str>, traits: Traits) {
        match self {
            Self::Text(text) => item.text("text", text),
            Self::Thought(text) => {
                item.text("text", text);
                item.flag("thought", true);
            }
            Self::Inline(media) => write_inline(item, media),
            Self::File(url) => item.object("fileData", |data| {
                data.some_text("mimeType", type_of(url));
                data.text("fileUri", url);
            }),
            Self::Call(call) => item.object("functionCall", |item| {
                item.some_text("id", Some(&*call.id).filter(|_| traits.takes_ids));
                item.text("name", &call.name);
                item.json("args", &call.arguments);
            }),
            Self::Result { name, result, shown, .. } => item.object("functionResponse", |response| {
                response.some_text("id", Some(&*result.id).filter(|_| traits.takes_ids));
                response.text("name", name);
                write_response(response, result);
                if !shown.is_empty() {
                    response.list("parts", |list| {
                        shown.iter().for_each(|media| list.object(|part| write_inline(part, media)));
                    });
                }
            }),
            Self::Signature(_) => {}
        }
        item.some_text("thoughtSignature", signature);
    }
}

fn write_inline(part: &mut Object<'_>, media: &Media) {
    part.object("inlineData", |data| {
        data.text("mimeType", &media.media_type);
        data.text("data", &media.base64);
    });
}

/// What a tool says, which must be an object. One with references, such as a schema, is told as a text:
/// Gemini takes them for names of what the tool shows, and refuses those that it does not know.
fn write_response(response: &mut Object<'_>, result: &ToolResult) {
    let text = joined_text(&result.content, "\n");
    let is_taken = |json: &Json| json.is_object() && !schema::refers(json) && !result.is_error;
    match Json::parse(&text).filter(is_taken) {
        Some(json) => response.json("response", &json),
        None => response.object("response", |body| {
            body.text(if result.is_error { "error" } else { "output" }, &text);
        }),
    }
}

#[cfg(test)]
mod tests;

//! A Responses request into the common form.

use super::LOGPROBS;
use super::item::{Item, read_item, read_name};
use super::tools::Tools;
use crate::codec::{Fields, Invalid, Value};
use crate::dialect::GUARDRAIL;
use crate::dialect::openai::{options, read_allowed, read_detail, read_verbosity};
use crate::ir::{
    Block, Document, Effort, Image, Json, Losses, Message, Output, Request, Role, Source, Thinking, Tool,
    ToolChoice, ToolResult, Verbosity,
};

pub(crate) fn decode(body: &[u8]) -> Result<(Request, Losses), Invalid> {
    decode_fields(Fields::parse(body)?)
}

pub(crate) fn decode_fields(mut fields: Fields) -> Result<(Request, Losses), Invalid> {
    let mut losses = Losses::default();
    // An answer without the conversation that they stand for would be one to another question.
    for stored in ["previous_response_id", "conversation", "prompt"] {
        if fields.take(stored).is_some() {
            return Err(Invalid::new(stored, "names what only its own provider has stored"));
        }
    }
    let mut messages = Vec::new();
    if let Some(text) = fields.text("instructions")?.filter(|text| !text.is_empty()) {
        messages.push(Message::new(Role::System, vec![Block::Text(text)]));
    }
    let mut tools = Tools::default();
    tools.read(fields.list("tools")?.unwrap_or_default(), &mut losses)?;
    read_input(fields.take("input"), &mut messages, &mut tools, &mut losses)?;
    let logprobs = read_include(&mut fields, &mut losses)?;
    let (output, verbosity) = read_output(&mut fields, &mut losses)?;
    let (thinking, shows_thinking) = read_thinking(&mut fields, &mut losses)?;
    let mut tools = tools.into_tools();
    let tool_choice = read_tool_choice(&mut fields, &mut tools, &mut losses)?;
    let request = Request {
        model: fields.text("model")?.unwrap_or_default(),
        messages,
        tools,
        tool_choice,
        parallel_tools: fields.flag("parallel_tool_calls")?,
        output,
        verbosity,
        thinking,
        shows_thinking,
        max_output: fields.count("max_output_tokens")?,
        temperature: fields.number("temperature")?,
        top_p: fields.number("top_p")?,
        user: fields.text("user")?,
        safety_identifier: fields.text("safety_identifier")?,
        logprobs,
        openai: options::read(&mut fields)?,
        cache_key: fields.text("prompt_cache_key")?,
        guardrail: fields.json(GUARDRAIL),
        stream: fields.flag("stream")?.unwrap_or(false),
        betas: Vec::new(),
        stream_usage: true,
        ..Request::default()
    };
    // How events are padded, and what happens when the conversation is too long: as by default.
    fields.ignore(&["stream_options"]);
    if fields.text("truncation")?.is_some_and(|truncation| truncation != "disabled") {
        losses.add("truncation");
    }
    fields.rest(&mut losses);
    Ok((request, losses))
}

/// What is to be told beside the answer: of the tokens of its text, how many likelier ones each.
fn read_include(fields: &mut Fields, losses: &mut Losses) -> Result<Option<u64>, Invalid> {
    let mut logprobs = None;
    for wish in fields.list("include")?.unwrap_or_default() {
        match wish.as_str() {
            // It is given wherever there is some.
            Some("reasoning.encrypted_content") => {}
            Some(LOGPROBS) => logprobs = Some(fields.count("top_logprobs")?.unwrap_or(0)),
            _ => losses.add("include"),
        }
    }
    Ok(logprobs)
}

/// Items of the model that follow one another are one message, and so are results of tools.
fn read_input(
    input: Option<Value>,
    messages: &mut Vec<Message>,
    tools: &mut Tools,
    losses: &mut Losses,
) -> Result<(), Invalid> {
    let items = match input {
        None => Vec::new(),
        Some(Value::String(text)) => {
            messages.push(Message::new(Role::User, vec![Block::Text(text)]));
            Vec::new()
        }
        Some(Value::Array(items)) => items,
        Some(_) => return Err(Invalid::new("input", "is neither a string nor a list")),
    };
    let mut open = None;
    for item in items {
        let mut fields = Fields::of(item, "input")?;
        let (role, content, joins) = match read_item(&mut fields, tools, losses)? {
            Item::Message(Message { role, content, .. }) => (role, content, role == Role::Assistant),
            Item::Said(block) => (Role::Assistant, vec![block], true),
            Item::Result(result) => (Role::User, vec![Block::ToolResult(result)], true),
            Item::Tools(more) => {
                tools.read(more, losses)?;
                fields.rest(losses);
                continue;
            }
            Item::Found(id, found) => {
                let text = match tools.read(found, losses)? {
                    names if names.is_empty() => "No tools found.".to_owned(),
                    names => format!("These tools can be called now: {}", names.join(", ")),
                };
                let result = ToolResult { id, content: vec![Block::Text(text)], is_error: false };
                (Role::User, vec![Block::ToolResult(result)], true)
            }
            Item::Blank => {
                fields.rest(losses);
                continue;
            }
            Item::Nothing => continue,
        };
        fields.rest(losses);
        match messages.last_mut().filter(|_| joins && open == Some(role)) {
            Some(last) => last.content.extend(content),
            None => messages.push(Message::new(role, content)),
        }
        open = joins.then_some(role);
    }
    Ok(())
}

fn read_tool_choice(
    fields: &mut Fields,
    tools: &mut Vec<Tool>,
    losses: &mut Losses,
) -> Result<Option<ToolChoice>, Invalid> {
    let Some(choice) = fields.take("tool_choice") else { return Ok(None) };
    let read = match choice {
        Value::String(word) => match word.as_str() {
            "auto" => Some(ToolChoice::Auto),
            "none" => Some(ToolChoice::Never),
            "required" => Some(ToolChoice::Any),
            _ => None,
        },
        choice => {
            let mut choice = Fields::of(choice, "tool_choice")?;
            match choice.text("type")?.as_deref() {
                Some("custom" | "function") => {
                    let name = read_name(&mut choice)?;
                    choice.rest(losses);
                    Some(ToolChoice::Tool(name))
                }
                Some("allowed_tools") => {
                    return read_allowed(choice, tools, losses, |tool, _| match tool.peek("type") {
                        Some("custom" | "function") => read_name(tool).map(Some),
                        _ => Ok(None),
                    });
                }
                None => None,
                Some(kind) => {
                    let problem = format!("names `{kind}`, which is no tool that the client runs");
                    return Err(Invalid::new("tool_choice", problem));
                }
            }
        }
    };
    if read.is_none() {
        losses.add("tool_choice");
    }
    Ok(read)
}

/// The form of the answer, and how long it is to be.
fn read_output(
    fields: &mut Fields,
    losses: &mut Losses,
) -> Result<(Option<Output>, Option<Verbosity>), Invalid> {
    let Some(mut text) = fields.object("text", "text")? else { return Ok((None, None)) };
    let verbosity = read_verbosity(&mut text, "text.verbosity", losses)?;
    let format = text.object("format", "text.format")?;
    text.rest(losses);
    let output = match format {
        Some(format) => read_format(format, losses)?,
        None => None,
    };
    Ok((output, verbosity))
}

fn read_format(mut format: Fields, losses: &mut Losses) -> Result<Option<Output>, Invalid> {
    let output = match format.text("type")?.as_deref() {
        None | Some("text") => None,
        Some("json_object") => Some(Output::Json),
        Some("json_schema") => Some(Output::Schema {
            name: format.text("name")?,
            description: format.text("description")?,
            schema: format.json("schema").unwrap_or_else(Json::empty_object),
            strict: format.flag("strict")?,
        }),
        Some(_) => {
            losses.add("text.format");
            return Ok(None);
        }
    };
    format.rest(losses);
    Ok(output)
}

/// How much to think, and whether what is thought is to be seen.
fn read_thinking(fields: &mut Fields, losses: &mut Losses) -> Result<(Option<Thinking>, bool), Invalid> {
    let Some(mut reasoning) = fields.object("reasoning", "reasoning")? else { return Ok((None, false)) };
    let effort = reasoning.text("effort")?;
    let shown = reasoning.text("summary")?.or(reasoning.text("generate_summary")?).is_some();
    reasoning.rest(losses);
    let thinking = match effort.as_deref() {
        None => shown.then_some(Thinking::Adaptive),
        Some("none") => Some(Thinking::Off),
        Some(effort) => {
            let known = Effort::parse(effort).map(Thinking::Effort);
            if known.is_none() {
                losses.add("reasoning.effort");
            }
            known
        }
    };
    Ok((thinking, shown))
}

/// The content of a message, or what a tool says.
pub(super) fn read_content(content: Option<Value>, losses: &mut Losses) -> Result<Vec<Block>, Invalid> {
    match content {
        None => Ok(Vec::new()),
        Some(Value::String(text)) if text.is_empty() => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![Block::Text(text)]),
        Some(Value::Array(parts)) => parts.into_iter().map(|part| read_part(part, losses)).collect(),
        Some(_) => Err(Invalid::new("input.content", "is neither a string nor a list")),
    }
}

fn read_part(part: Value, losses: &mut Losses) -> Result<Block, Invalid> {
    let mut fields = Fields::of(part, "input.content")?;
    let kind = fields.required_text("type")?;
    let block = match kind.as_str() {
        "input_text" | "output_text" | "text" => Block::Text(fields.required_text("text")?),
        "refusal" => Block::Refusal(fields.required_text("refusal")?),
        "input_image" => read_image(&mut fields, losses)?,
        "input_file" => read_file(&mut fields)?,
        _ => return Err(Invalid::new("input.content.type", format!("`{kind}` is not translated"))),
    };
    // What the model once said about its answer.
    fields.ignore(&["annotations", "logprobs"]);
    fields.rest(losses);
    Ok(block)
}

fn read_image(fields: &mut Fields, losses: &mut Losses) -> Result<Block, Invalid> {
    const AT: &str = "input.content.image_url";
    let detail = read_detail(fields, "input.content.detail", losses)?;
    let url = fields
        .text("image_url")?
        .ok_or_else(|| Invalid::new(AT, "is missing; files that only their own provider has are not read"))?;
    let source = Source::of_url(&url)
        .ok_or_else(|| Invalid::new(AT, "is neither an http URL nor a data URL in base64"))?;
    Ok(Block::Image(Image { source, detail }))
}

fn read_file(fields: &mut Fields) -> Result<Block, Invalid> {
    const AT: &str = "input.content.file_data";
    let title = fields.text("filename")?;
    let url = fields.text("file_url")?;
    fields.ignore(&["detail"]);
    let source = match fields.text("file_data")? {
        Some(data) => Source::of_url(&data)
            .filter(|source| matches!(source, Source::Inline(_)))
            .ok_or_else(|| Invalid::new(AT, "is not a data URL in base64"))?,
        None => url.as_deref().and_then(Source::of_url).ok_or_else(|| {
            Invalid::new(AT, "is missing; files that only their own provider has are not read")
        })?,
    };
    Ok(Block::Document(Document { title, source }))
}

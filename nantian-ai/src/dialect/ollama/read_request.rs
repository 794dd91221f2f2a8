//! A request of Ollama's `/api/chat` into the common form.

use crate::codec::{Fields, Invalid, Value};
use crate::dialect::openai::{read_stop, read_tools};
use crate::ir::{
    Block, Effort, Json, Losses, Media, Message, Output, Reasoning, Request, Role, Source, Thinking,
    ToolCall, ToolResult,
};

pub(crate) fn decode(body: &[u8]) -> Result<(Request, Losses), Invalid> {
    let mut fields = Fields::parse(body)?;
    let mut losses = Losses::default();
    let mut request = Request {
        model: fields.text("model")?.unwrap_or_default(),
        messages: read_messages(fields.list("messages")?.unwrap_or_default(), &mut losses)?,
        tools: read_tools(fields.list("tools")?.unwrap_or_default(), &mut losses)?,
        output: read_output(&mut fields)?,
        thinking: read_thinking(&mut fields, &mut losses)?,
        stream: fields.flag("stream")?.unwrap_or(true),
        betas: Vec::new(),
        stream_usage: true,
        ..Request::default()
    };
    request.shows_thinking = request.thinking.is_some_and(|thinking| thinking != Thinking::Off);
    if let Some(mut options) = fields.object("options", "options")? {
        request.max_output = options.limit("num_predict")?;
        request.temperature = options.number("temperature")?;
        request.top_p = options.number("top_p")?;
        request.top_k = options.limit("top_k")?;
        request.frequency_penalty = options.number("frequency_penalty")?;
        request.presence_penalty = options.number("presence_penalty")?;
        request.seed = options.integer("seed")?;
        request.stop = read_stop(&mut options, "stop")?;
        options.rest(&mut losses);
    }
    // Nobody else leaves out what was said first.
    for name in ["truncate", "shift"] {
        if fields.flag(name)? == Some(true) {
            losses.add(name);
        }
    }
    fields.rest(&mut losses);
    Ok((request, losses))
}

fn read_output(fields: &mut Fields) -> Result<Option<Output>, Invalid> {
    match fields.take("format") {
        None => Ok(None),
        Some(Value::String(word)) if word.is_empty() => Ok(None),
        Some(Value::String(word)) if word == "json" => Ok(Some(Output::Json)),
        Some(Value::Carried(schema)) => {
            Ok(Some(Output::Schema { name: None, description: None, schema, strict: Some(true) }))
        }
        Some(_) => Err(Invalid::new("format", "is neither `json` nor a schema")),
    }
}

fn read_thinking(fields: &mut Fields, losses: &mut Losses) -> Result<Option<Thinking>, Invalid> {
    Ok(match fields.take("think") {
        None => None,
        Some(Value::Bool(false)) => Some(Thinking::Off),
        Some(Value::Bool(true)) => Some(Thinking::Adaptive),
        Some(Value::String(level)) => {
            let known = Effort::parse(&level).map(Thinking::Effort);
            if known.is_none() {
                losses.add("think");
            }
            known
        }
        Some(_) => return Err(Invalid::new("think", "is neither a flag nor a level")),
    })
}

/// Calls of one message, at most: each result is looked for among them.
const MOST_OPEN: usize = 1_024;

/// Gives calls without an id one, and results the id of the call that they answer.
#[derive(Default)]
struct Calls {
    count: usize,
    /// Name and id of the calls without a result.
    open: Vec<(String, String)>,
}

fn read_messages(messages: Vec<Value>, losses: &mut Losses) -> Result<Vec<Message>, Invalid> {
    let mut read: Vec<Message> = Vec::with_capacity(messages.len());
    let mut calls = Calls::default();
    let mut after_result = false;
    for message in messages {
        let mut fields = Fields::of(message, "messages")?;
        let role = fields.required_text("role")?;
        let is_result = role == "tool";
        match role.as_str() {
            "system" => read.push(Message::new(Role::System, said(&mut fields)?)),
            "user" => read.push(Message::new(Role::User, said(&mut fields)?)),
            "assistant" => {
                let content = assistant(&mut fields, &mut calls, losses)?;
                read.push(Message::new(Role::Assistant, content));
            }
            "tool" => {
                let name = fields.text("tool_name")?.or(fields.text("name")?);
                let id = fields.text("tool_call_id")?;
                let id = calls.answered(id, name.as_deref())?;
                let result = ToolResult { id, content: said(&mut fields)?, is_error: false };
                // The results of one turn are one message.
                match read.last_mut().filter(|_| after_result) {
                    Some(last) => last.content.push(Block::ToolResult(result)),
                    None => {
                        read.push(Message::new(Role::User, vec![Block::ToolResult(result)]));
                    }
                }
            }
            _ => return Err(Invalid::new("messages.role", format!("`{role}` is not known"))),
        }
        after_result = is_result;
        fields.rest(losses);
    }
    Ok(read)
}

fn said(fields: &mut Fields) -> Result<Vec<Block>, Invalid> {
    let text = fields.text("content")?.filter(|text| !text.is_empty());
    let mut blocks: Vec<_> = text.map(Block::Text).into_iter().collect();
    for image in fields.list("images")?.unwrap_or_default() {
        let Value::String(image) = image else {
            return Err(Invalid::new("messages.images", "holds what is not a string"));
        };
        blocks.push(Block::Image(read_image(image)?.into()));
    }
    Ok(blocks)
}

/// An image in plain base64: its first bytes tell what it is.
fn read_image(base64: String) -> Result<Source, Invalid> {
    if let Some(source @ Source::Inline(_)) = Source::of_url(&base64) {
        return Ok(source);
    }
    let starts = [
        ("/9j/", "image/jpeg"),
        ("iVBORw0KGgo", "image/png"),
        ("R0lGOD", "image/gif"),
        ("UklGR", "image/webp"),
        ("Qk", "image/bmp"),
    ];
    let known = starts.iter().find(|(start, _)| base64.starts_with(start));
    let (_, media_type) = known
        .ok_or_else(|| Invalid::new("messages.images", "holds no JPEG, PNG, GIF, WebP or BMP in base64"))?;
    Ok(Source::Inline(Media { media_type: (*media_type).to_owned(), base64 }))
}

fn assistant(fields: &mut Fields, calls: &mut Calls, losses: &mut Losses) -> Result<Vec<Block>, Invalid> {
    let thinking = fields.text("thinking")?.filter(|text| !text.is_empty());
    let reasoning = |text| Block::Reasoning(Reasoning { text, signature: None });
    let mut blocks: Vec<_> = thinking.map(reasoning).into_iter().collect();
    blocks.extend(said(fields)?);
    // Calls that stayed without a result are answered no more.
    calls.open.clear();
    for call in fields.list("tool_calls")?.unwrap_or_default() {
        let mut call = Fields::of(call, "messages.tool_calls")?;
        let mut function = call
            .object("function", "messages.tool_calls.function")?
            .ok_or_else(|| Invalid::new("messages.tool_calls.function", "is missing"))?;
        let name = function.required_text("name")?;
        let arguments = match function.take("arguments") {
            None => Json::empty_object(),
            Some(Value::Carried(arguments)) => arguments,
            Some(_) => {
                let problem = format!("of call to `{name}` is not an object");
                return Err(Invalid::new("messages.tool_calls.function.arguments", problem));
            }
        };
        if calls.open.len() == MOST_OPEN {
            return Err(Invalid::new("messages.tool_calls", "holds too many calls"));
        }
        let id = calls.called(call.text("id")?, &name);
        blocks.push(Block::ToolCall(ToolCall { id, name, arguments }));
        function.ignore(&["index"]);
        function.rest(losses);
        call.ignore(&["type"]);
        call.rest(losses);
    }
    Ok(blocks)
}

// === impl Calls ===

impl Calls {
    fn called(&mut self, id: Option<String>, name: &str) -> String {
        let id = id.filter(|id| !id.is_empty()).unwrap_or_else(|| format!("call_{}", self.count));
        self.count += 1;
        self.open.push((name.to_owned(), id.clone()));
        id
    }

    /// The call that a result answers: by id, else the first open one of that name, else the first open one.
    fn answered(&mut self, id: Option<String>, name: Option<&str>) -> Result<String, Invalid> {
        let by_id = id.as_ref().and_then(|id| self.open.iter().position(|(_, open)| open == id));
        let by_name = || name.and_then(|name| self.open.iter().position(|(open, _)| open == name));
        let first = || (name.is_none() && !self.open.is_empty()).then_some(0);
        match (by_id.or_else(by_name).or_else(first), id) {
            (Some(at), _) => Ok(self.open.remove(at).1),
            (None, Some(id)) => Ok(id),
            (None, None) => Err(Invalid::new("messages.tool_name", "names no tool that was called before")),
        }
    }
}

//! A `generateContent` request into the common form.

use serde_json::Value;

use super::tagged;
use crate::codec::{Fields, Invalid};
use crate::ir::{
    Block, Document, Effort, Json, Losses, Media, Message, Output, Reasoning, Request, Role, Source,
    Thinking, Tool, ToolCall, ToolChoice, ToolResult,
};

pub(crate) fn decode(body: &[u8]) -> Result<(Request, Losses), Invalid> {
    let mut fields = Fields::parse(body)?;
    let mut losses = Losses::default();
    let mut reader = Reader::default();
    let mut messages = Vec::new();
    if let Some(mut system) = fields.object("systemInstruction", "systemInstruction")? {
        let parts = system.list("parts")?.unwrap_or_default();
        messages.push(Message { role: Role::System, content: reader.parts(parts, &mut losses)? });
    }
    for content in fields.list("contents")?.unwrap_or_default() {
        let mut content = Fields::of(content, "contents")?;
        let role = match content.text("role")?.as_deref() {
            Some("model") => Role::Assistant,
            None | Some("user" | "function") => Role::User,
            Some(role) => return Err(Invalid::new("contents.role", format!("`{role}` is not known"))),
        };
        let parts = content.list("parts")?.unwrap_or_default();
        messages.push(Message { role, content: reader.parts(parts, &mut losses)? });
        content.rest(&mut losses);
    }
    let mut request = Request { messages, stream_usage: true, ..Request::default() };
    request.tools = read_tools(fields.list("tools")?.unwrap_or_default(), &mut losses)?;
    request.tool_choice = read_choice(&mut fields, &mut losses)?;
    if let Some(config) = fields.object("generationConfig", "generationConfig")? {
        read_config(config, &mut request, &mut losses)?;
    }
    fields.ignore(&["model"]);
    fields.rest(&mut losses);
    Ok((request, losses))
}

/// Calls have no ids there: a result belongs to the first call of its name that has none yet.
#[derive(Default)]
struct Reader {
    calls: u64,
    open: Vec<(String, String)>,
}

// === impl Reader ===

impl Reader {
    fn parts(&mut self, parts: Vec<Value>, losses: &mut Losses) -> Result<Vec<Block>, Invalid> {
        let mut blocks = Vec::with_capacity(parts.len());
        for part in parts {
            let mut part = Fields::of(part, "contents.parts")?;
            let signature = part.text("thoughtSignature")?.map(|signature| tagged(&signature));
            if part.flag("thought")?.unwrap_or(false) {
                let text = part.text("text")?.unwrap_or_default();
                blocks.push(Block::Reasoning(Reasoning { text, signature }));
                continue;
            }
            if let Some(signature) = signature {
                sign(&mut blocks, signature);
            }
            blocks.extend(self.part(&mut part)?);
            part.rest(losses);
        }
        Ok(blocks)
    }

    fn part(&mut self, part: &mut Fields) -> Result<Option<Block>, Invalid> {
        if let Some(text) = part.text("text")? {
            return Ok((!text.is_empty()).then_some(Block::Text(text)));
        }
        if let Some(mut data) = part.object("inlineData", "contents.parts.inlineData")? {
            let media =
                Media { media_type: data.required_text("mimeType")?, base64: data.required_text("data")? };
            let is_image = media.media_type.starts_with("image/");
            let source = Source::Inline(media);
            return Ok(Some(match is_image {
                true => Block::Image(source),
                false => Block::Document(Document { title: None, source }),
            }));
        }
        if let Some(mut call) = part.object("functionCall", "contents.parts.functionCall")? {
            let name = call.required_text("name")?;
            let id = format!("call_{}", self.calls);
            self.calls += 1;
            self.open.push((name.clone(), id.clone()));
            let arguments = call.take("args").as_ref().map_or_else(Json::empty_object, Json::of);
            return Ok(Some(Block::ToolCall(ToolCall { id, name, arguments })));
        }
        if let Some(mut result) = part.object("functionResponse", "contents.parts.functionResponse")? {
            let name = result.required_text("name")?;
            let Some(at) = self.open.iter().position(|(open, _)| *open == name) else {
                return Err(Invalid::new(
                    "contents.parts.functionResponse",
                    format!("of `{name}` answers no call"),
                ));
            };
            let (_, id) = self.open.remove(at);
            let (text, is_error) = said(result.take("response").unwrap_or_default());
            return Ok(Some(Block::ToolResult(ToolResult {
                id,
                content: vec![Block::Text(text)],
                is_error,
            })));
        }
        if part.take("fileData").is_some() {
            return Err(Invalid::new("contents.parts.fileData", "names what only its own provider has"));
        }
        Ok(None)
    }
}

/// Signs the reasoning before a part.
pub(super) fn sign(blocks: &mut Vec<Block>, signature: String) {
    match blocks.last_mut() {
        Some(Block::Reasoning(reasoning)) if reasoning.signature.is_none() => {
            reasoning.signature = Some(signature);
        }
        _ => {
            let signature = Some(signature);
            blocks.push(Block::Reasoning(Reasoning { text: String::new(), signature }));
        }
    }
}

/// What a tool says, and whether it failed.
fn said(response: Value) -> (String, bool) {
    if let Value::Object(map) = &response
        && map.len() == 1
        && let Some((name, Value::String(text))) = map.iter().next()
        && matches!(name.as_str(), "output" | "error")
    {
        return (text.clone(), name == "error");
    }
    (response.to_string(), false)
}

fn read_tools(tools: Vec<Value>, losses: &mut Losses) -> Result<Vec<Tool>, Invalid> {
    let mut read = Vec::new();
    for tool in tools {
        let mut tool = Fields::of(tool, "tools")?;
        for function in tool.list("functionDeclarations")?.unwrap_or_default() {
            let mut function = Fields::of(function, "tools.functionDeclarations")?;
            let schema = function.take("parametersJsonSchema");
            if schema.is_none() && function.take("parameters").is_some() {
                losses.add("tools.functionDeclarations.parameters");
            }
            read.push(Tool {
                name: function.required_text("name")?,
                description: function.text("description")?,
                schema: schema.as_ref().map_or_else(Json::empty_object, Json::of),
                strict: None,
            });
            function.rest(losses);
        }
        // Tools that the provider runs itself.
        tool.rest(losses);
    }
    Ok(read)
}

fn read_choice(fields: &mut Fields, losses: &mut Losses) -> Result<Option<ToolChoice>, Invalid> {
    let Some(mut config) = fields.object("toolConfig", "toolConfig")? else { return Ok(None) };
    let calling = config.object("functionCallingConfig", "toolConfig.functionCallingConfig")?;
    config.rest(losses);
    let Some(mut calling) = calling else { return Ok(None) };
    let mut names = calling.list("allowedFunctionNames")?.unwrap_or_default();
    let mode = calling.text("mode")?;
    Ok(match (mode.as_deref(), names.len()) {
        (Some("AUTO"), 0) => Some(ToolChoice::Auto),
        (Some("NONE"), 0) => Some(ToolChoice::Never),
        (Some("ANY"), 0) => Some(ToolChoice::Any),
        (Some("ANY"), 1) => match names.pop() {
            Some(Value::String(name)) => Some(ToolChoice::Tool(name)),
            _ => Some(ToolChoice::Any),
        },
        _ => {
            losses.add("toolConfig");
            None
        }
    })
}

fn read_config(mut config: Fields, request: &mut Request, losses: &mut Losses) -> Result<(), Invalid> {
    request.max_output = config.count("maxOutputTokens")?;
    request.temperature = config.number("temperature")?;
    request.top_p = config.number("topP")?;
    request.top_k = config.count("topK")?;
    request.frequency_penalty = config.number("frequencyPenalty")?;
    request.presence_penalty = config.number("presencePenalty")?;
    request.seed = config.integer("seed")?;
    request.stop = crate::dialect::openai::read_stop(&mut config, "stopSequences")?;
    let is_json = config.text("responseMimeType")?.as_deref() == Some("application/json");
    request.output = match config.take("responseJsonSchema") {
        Some(schema) => {
            Some(Output::Schema { name: None, description: None, schema: Json::of(&schema), strict: None })
        }
        None => is_json.then_some(Output::Json),
    };
    if let Some(mut thinking) = config.object("thinkingConfig", "generationConfig.thinkingConfig")? {
        let level =
            thinking.text("thinkingLevel")?.and_then(|level| Effort::parse(&level.to_ascii_lowercase()));
        let budget = thinking.integer("thinkingBudget")?;
        let shown = thinking.flag("includeThoughts")?.unwrap_or(false);
        request.thinking = match (level, budget) {
            (Some(level), _) => Some(Thinking::Effort(level)),
            (None, Some(0)) => Some(Thinking::Off),
            (None, Some(budget)) => Some(u64::try_from(budget).map_or(Thinking::Adaptive, Thinking::Budget)),
            (None, None) => shown.then_some(Thinking::Adaptive),
        };
        thinking.rest(losses);
    }
    if config.count("candidateCount")?.is_some_and(|answers| answers != 1) {
        return Err(Invalid::new("generationConfig.candidateCount", "asks for several answers"));
    }
    config.rest(losses);
    Ok(())
}

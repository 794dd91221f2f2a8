//! The common form into a Chat Completions request.

use crate::azure;
use crate::codec::{Invalid, List, Object, joined_text, object, titled_text_of};
use crate::ir::{
    Block, Losses, Message, Output, Request, Role, Source, Thinking, Tool, ToolChoice, ToolResult, safe_id,
    short_id,
};
use crate::provider::Provider;

/// The most stop sequences that OpenAI takes.
const MOST_STOPS: usize = 4;

/// How a message says that its tool failed: there is no field for it.
pub(crate) const FAILED: &str = "[tool error] ";

/// What the providers of this dialect differ in.
#[derive(Clone, Copy, Debug)]
struct Traits {
    /// Takes back the reasoning of earlier turns as `reasoning_content`.
    echoes_reasoning: bool,
    /// Knows `top_k`.
    takes_top_k: bool,
    /// Knows `reasoning_effort` for this model.
    takes_effort: bool,
    /// Knows only `max_completion_tokens` for this model.
    newer_limit: bool,
    /// Tells the usage of a stream only if it is asked to, by a field that others refuse.
    asks_for_usage: bool,
    /// Is Mistral: other names, shorter ids, and nothing that it does not know.
    mistral: bool,
}

pub(crate) fn encode(request: &Request, provider: &str) -> Result<(Vec<u8>, Losses), Invalid> {
    let traits = Traits::of(provider, &request.model);
    let mut losses = Losses::default();
    let messages = Turns::of(request, traits, &mut losses)?;
    let effort = effort(request, traits, &mut losses);
    if request.top_k.is_some() && !traits.takes_top_k {
        losses.add("top_k");
    }
    if request.user.is_some() && traits.mistral {
        losses.add("user");
    }
    if request.stop.len() > MOST_STOPS {
        losses.add("stop");
    }
    let continues = request.messages.last().is_some_and(|last| last.role == Role::Assistant);
    if continues {
        losses.add("messages.prefill");
    }
    let body = object(|body| {
        body.text("model", &request.model);
        body.list("messages", |list| messages.0.iter().for_each(|turn| turn.write(list, traits)));
        write_tools(body, &request.tools);
        if !request.tools.is_empty() {
            write_choice(body, request);
        }
        write_output(body, request.output.as_ref());
        body.some_text("reasoning_effort", effort);
        let limit = if traits.newer_limit { "max_completion_tokens" } else { "max_tokens" };
        body.some_count(limit, request.max_output);
        body.some_number("temperature", request.temperature);
        body.some_number("top_p", request.top_p);
        body.some_count("top_k", request.top_k.filter(|_| traits.takes_top_k));
        body.some_number("frequency_penalty", request.frequency_penalty);
        body.some_number("presence_penalty", request.presence_penalty);
        body.some_integer(if traits.mistral { "random_seed" } else { "seed" }, request.seed);
        if !request.stop.is_empty() {
            body.list("stop", |list| request.stop.iter().take(MOST_STOPS).for_each(|stop| list.text(stop)));
        }
        body.some_text("user", request.user.as_deref().filter(|_| !traits.mistral));
        if request.stream {
            body.flag("stream", true);
            if traits.asks_for_usage {
                body.object("stream_options", |options| options.flag("include_usage", true));
            }
        }
    });
    Ok((body, losses))
}

/// Tools, as OpenAI and Ollama write them.
pub(crate) fn write_tools(body: &mut Object<'_>, tools: &[Tool]) {
    if tools.is_empty() {
        return;
    }
    body.list("tools", |list| {
        for tool in tools {
            list.object(|item| {
                item.text("type", "function");
                item.object("function", |function| {
                    function.text("name", &tool.name);
                    function.some_text("description", tool.description.as_deref());
                    function.json("parameters", &tool.schema);
                    function.some_flag("strict", tool.strict);
                });
            });
        }
    });
}

fn write_choice(body: &mut Object<'_>, request: &Request) {
    match &request.tool_choice {
        None => {}
        Some(ToolChoice::Auto) => body.text("tool_choice", "auto"),
        Some(ToolChoice::Never) => body.text("tool_choice", "none"),
        Some(ToolChoice::Any) => body.text("tool_choice", "required"),
        Some(ToolChoice::Tool(name)) => body.object("tool_choice", |choice| {
            choice.text("type", "function");
            choice.object("function", |function| function.text("name", name));
        }),
    }
    body.some_flag("parallel_tool_calls", request.parallel_tools);
}

fn write_output(body: &mut Object<'_>, output: Option<&Output>) {
    match output {
        None => {}
        Some(Output::Json) => body.object("response_format", |format| format.text("type", "json_object")),
        Some(Output::Schema { name, description, schema, strict }) => {
            body.object("response_format", |format| {
                format.text("type", "json_schema");
                format.object("json_schema", |body| {
                    body.text("name", name.as_deref().unwrap_or("response"));
                    body.some_text("description", description.as_deref());
                    body.json("schema", schema);
                    body.some_flag("strict", *strict);
                });
            });
        }
    }
}

fn effort(request: &Request, traits: Traits, losses: &mut Losses) -> Option<&'static str> {
    let effort = match request.thinking? {
        // A model that does not think need not be told so.
        Thinking::Off if !traits.takes_effort => return None,
        Thinking::Off => "none",
        Thinking::Adaptive => return None,
        Thinking::Effort(effort) => effort.name(),
        Thinking::Budget(tokens) => crate::ir::Effort::of_budget(tokens).name(),
    };
    if !traits.takes_effort {
        losses.add("thinking");
        return None;
    }
    Some(effort)
}

/// Whether a model of OpenAI thinks before it answers.
pub(crate) fn thinks(model: &str) -> bool {
    begins(model, &["o1", "o3", "o4", "gpt-5", "gpt-6"])
}

fn begins(model: &str, starts: &[&str]) -> bool {
    let bare = model.rsplit('/').next().unwrap_or(model);
    starts.iter().any(|start| bare.starts_with(start))
}

// === impl Traits ===

impl Traits {
    fn of(provider: &str, model: &str) -> Self {
        let is = |names: &[&str]| names.iter().any(|name| name.eq_ignore_ascii_case(provider));
        let thinks = thinks(model);
        Self {
            echoes_reasoning: is(&["deepseek", "llamacpp", "lmstudio", "moonshot", "vllm"]),
            takes_top_k: is(&["fireworks", "llamacpp", "lmstudio", "openrouter", "together", "vllm"]),
            takes_effort: thinks || begins(model, &["gpt-oss", "grok-3-mini"]),
            // A deployment of Azure may be named anything.
            newer_limit: thinks || is(&[azure::NAME]),
            asks_for_usage: Provider::find(provider).is_none_or(|provider| provider.asks_for_usage),
            mistral: is(&["mistral"]),
        }
    }
}

/// The messages as OpenAI has them: the results of tools are messages of their own.
struct Turns<'r>(Vec<Turn<'r>>);

enum Turn<'r> {
    System(String),
    User(Vec<UserPart<'r>>),
    Assistant(&'r Message),
    Result { id: &'r str, content: String },
}

enum UserPart<'r> {
    Text(std::borrow::Cow<'r, str>),
    Image(&'r Source),
    File { name: Option<&'r str>, data: String },
}

// === impl Turns ===

impl<'r> Turns<'r> {
    fn of(request: &'r Request, traits: Traits, losses: &mut Losses) -> Result<Self, Invalid> {
        let mut turns = Vec::with_capacity(request.messages.len());
        for message in &request.messages {
            match message.role {
                Role::System => turns.push(Turn::System(joined_text(&message.content, "\n\n"))),
                Role::User => Self::user(message, &mut turns)?,
                Role::Assistant => {
                    let echoes_reasoning = traits.echoes_reasoning;
                    let lost = message.content.iter().any(|block| match block {
                        Block::Reasoning(reasoning) => !echoes_reasoning && !reasoning.text.is_empty(),
                        block => matches!(block, Block::RedactedReasoning(_)),
                    });
                    if lost {
                        losses.add("messages.reasoning");
                    }
                    let says = |block: &Block| {
                        let is_reasoning = matches!(block, Block::Reasoning(_) | Block::RedactedReasoning(_));
                        !block.is_blank() && (!is_reasoning || echoes_reasoning)
                    };
                    if message.content.iter().any(says) {
                        turns.push(Turn::Assistant(message));
                    }
                }
            }
        }
        Ok(Self(turns))
    }

    /// Results come first, as the calls before them want it.
    fn user(message: &'r Message, turns: &mut Vec<Turn<'r>>) -> Result<(), Invalid> {
        let mut parts = Vec::new();
        for block in &message.content {
            if let Block::ToolResult(result) = block {
                turns.push(Turn::Result { id: &result.id, content: result_text(result) });
                for attached in result.content.iter().filter(|block| !matches!(block, Block::Text(_))) {
                    parts.push(UserPart::Text(format!("Attached to the result of {}:", result.id).into()));
                    parts.push(UserPart::of(attached)?);
                }
            }
        }
        for block in &message.content {
            if !matches!(block, Block::ToolResult(_)) {
                parts.push(UserPart::of(block)?);
            }
        }
        if !parts.is_empty() {
            turns.push(Turn::User(parts));
        }
        Ok(())
    }
}

/// What a tool says, as the one text that there is room for.
pub(crate) fn result_text(result: &ToolResult) -> String {
    let mut text = if result.is_error { FAILED.to_owned() } else { String::new() };
    text.push_str(&joined_text(&result.content, "\n"));
    if result.content.iter().any(|block| !matches!(block, Block::Text(_))) {
        text.push_str(if text.is_empty() { "(see the attachment)" } else { "\n(see the attachment)" });
    }
    text
}

// === impl UserPart ===

impl<'r> UserPart<'r> {
    fn of(block: &'r Block) -> Result<Self, Invalid> {
        Ok(match block {
            Block::Text(text) | Block::Refusal(text) => Self::Text(text.as_str().into()),
            Block::Image(source) => Self::Image(source),
            Block::Document(document) => match (titled_text_of(document), &document.source) {
                (Some(text), _) => Self::Text(text.into()),
                (None, Source::Inline(_)) => {
                    Self::File { name: document.title.as_deref(), data: document.source.to_url() }
                }
                (None, Source::Url(_)) => {
                    let problem = "is at a URL, from which this provider reads no documents";
                    return Err(Invalid::new("messages.content.document", problem));
                }
            },
            _ => return Err(Invalid::new("messages.content", "holds what a user cannot say")),
        })
    }
}

// === impl Turn ===

impl Turn<'_> {
    fn write(&self, list: &mut List<'_>, traits: Traits) {
        let id_of = if traits.mistral { short_id } else { safe_id };
        list.object(|message| match self {
            Self::System(text) => {
                message.text("role", "system");
                message.text("content", text);
            }
            Self::Result { id, content } => {
                message.text("role", "tool");
                message.text("tool_call_id", &id_of(id));
                message.text("content", content);
            }
            Self::User(parts) => {
                message.text("role", "user");
                match parts.as_slice() {
                    [UserPart::Text(text)] => message.text("content", text),
                    parts => message.list("content", |list| parts.iter().for_each(|part| part.write(list))),
                }
            }
            Self::Assistant(said) => {
                message.text("role", "assistant");
                write_assistant(message, &said.content, traits.echoes_reasoning);
                super::write_reply::write_calls(message, &said.content, id_of);
            }
        });
    }
}

impl UserPart<'_> {
    fn write(&self, list: &mut List<'_>) {
        list.object(|part| match self {
            Self::Text(text) => {
                part.text("type", "text");
                part.text("text", text);
            }
            Self::Image(source) => {
                part.text("type", "image_url");
                part.object("image_url", |image| image.text("url", &source.to_url()));
            }
            Self::File { name, data } => {
                part.text("type", "file");
                part.object("file", |file| {
                    file.text("filename", name.unwrap_or("document.pdf"));
                    file.text("file_data", data);
                });
            }
        });
    }
}

/// What the model said, in the fields of its message.
fn write_assistant(message: &mut Object<'_>, content: &[Block], echoes_reasoning: bool) {
    let of = |pick: fn(&Block) -> Option<&str>| content.iter().filter_map(pick).collect::<Vec<_>>();
    let reasoning = of(|block| match block {
        Block::Reasoning(reasoning) => Some(&reasoning.text),
        _ => None,
    });
    let text = of(|block| match block {
        Block::Text(text) => Some(text),
        _ => None,
    });
    let refusal = of(|block| match block {
        Block::Refusal(text) => Some(text),
        _ => None,
    });
    if echoes_reasoning && !reasoning.is_empty() {
        message.text("reasoning_content", &reasoning.concat());
    }
    if text.is_empty() {
        message.null("content");
    } else {
        message.text("content", &text.concat());
    }
    if !refusal.is_empty() {
        message.text("refusal", &refusal.concat());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::ir::{Json, ToolCall};

    #[test]
    fn mistral_is_told_what_it_knows_under_its_names() {
        let call =
            ToolCall { id: "toolu_01".to_owned(), name: "f".to_owned(), arguments: Json::empty_object() };
        let result = ToolResult { id: "toolu_01".to_owned(), content: Vec::new(), is_error: false };
        let request = Request {
            messages: vec![
                Message { role: Role::Assistant, content: vec![Block::ToolCall(call)] },
                Message { role: Role::User, content: vec![Block::ToolResult(result)] },
            ],
            seed: Some(7),
            user: Some("u".to_owned()),
            stream: true,
            ..Request::default()
        };
        let (body, losses) = encode(&request, "Mistral").unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let id = body["messages"][1]["tool_call_id"].as_str().unwrap();
        assert_eq!(id.len(), 9);
        assert_eq!(body["messages"][0]["tool_calls"][0]["id"], id);
        assert_eq!(
            (&body["random_seed"], &body["seed"], &body["user"]),
            (&json!(7), &Value::Null, &Value::Null)
        );
        assert_eq!(body["stream_options"], Value::Null);
        assert_eq!(losses.to_string(), "user");
    }
}

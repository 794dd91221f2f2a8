//! The common form into a request of Ollama's `/api/chat`.

use std::collections::HashMap;

use crate::codec::{Invalid, List, Object, joined_text, object, said_by_user, titled_text_of};
use crate::dialect::openai::{result_text, write_tools};
use crate::ir::{
    Block, Effort, Losses, Message, Output, Request, Role, Source, Thinking, ToolCall, ToolChoice,
};

/// Between two texts of one message, for which there is one field.
const SEPARATOR: &str = "\n\n";

pub(crate) fn encode(request: &Request) -> Result<(Vec<u8>, Losses), Invalid> {
    let mut losses = Losses::default();
    let turns = Turns::of(request, &mut losses)?;
    name_the_unknown(request, &mut losses);
    // There is no way to forbid a call but to offer no tool.
    let offered = request.tool_choice != Some(ToolChoice::Never);
    let levels = request.model.contains("gpt-oss");
    let body = object(|body| {
        body.text("model", &request.model);
        body.list("messages", |list| turns.0.iter().for_each(|turn| turn.write(list)));
        if offered {
            write_tools(body, &request.tools, |tool| tool.strict);
        }
        match &request.output {
            None => {}
            Some(Output::Json) => body.text("format", "json"),
            Some(Output::Schema { schema, .. }) => body.json("format", schema),
        }
        match request.thinking {
            None => {}
            Some(Thinking::Off) => body.flag("think", false),
            Some(Thinking::Effort(effort)) if levels => body.text("think", level(effort)),
            Some(Thinking::Budget(tokens)) if levels => body.text("think", level(Effort::of_budget(tokens))),
            Some(_) => body.flag("think", true),
        }
        write_options(body, request);
        // Else the oldest messages of a conversation that is too long would be left out without a word. That
        // an answer may push them out (`shift`) is not forbidden: who says otherwise than others do has the
        // model loaded anew.
        body.flag("truncate", false);
        body.flag("stream", request.stream);
    });
    Ok((body, losses))
}

fn name_the_unknown(request: &Request, losses: &mut Losses) {
    let levels = request.model.contains("gpt-oss");
    let forced = matches!(request.tool_choice, Some(ToolChoice::Any | ToolChoice::Tool(_)));
    let described = matches!(request.output, Some(Output::Schema { description: Some(_), .. }));
    for (given, name) in [
        (forced, "tool_choice"),
        (request.parallel_tools == Some(false) && !request.tools.is_empty(), "parallel_tool_calls"),
        (request.end_user().is_some(), "user"),
        (described, "response_format.description"),
        (!levels && matches!(request.thinking, Some(Thinking::Effort(_) | Thinking::Budget(_))), "thinking"),
    ] {
        if given {
            losses.add(name);
        }
    }
}

fn level(effort: Effort) -> &'static str {
    match effort {
        Effort::Minimal | Effort::Low => "low",
        Effort::Medium => "medium",
        Effort::High | Effort::XHigh | Effort::Max => "high",
    }
}

fn write_options(body: &mut Object<'_>, request: &Request) {
    let numbers = [
        ("temperature", request.temperature),
        ("top_p", request.top_p),
        ("frequency_penalty", request.frequency_penalty),
        ("presence_penalty", request.presence_penalty),
    ];
    let counts = [("num_predict", request.max_output), ("top_k", request.top_k)];
    let given = numbers.iter().any(|(_, number)| number.is_some())
        || counts.iter().any(|(_, count)| count.is_some())
        || request.seed.is_some()
        || !request.stop.is_empty();
    if !given {
        return;
    }
    body.object("options", |options| {
        for (name, count) in counts {
            options.some_count(name, count);
        }
        for (name, number) in numbers {
            options.some_number(name, number);
        }
        options.some_integer("seed", request.seed);
        if !request.stop.is_empty() {
            options.list("stop", |list| request.stop.iter().for_each(|stop| list.text(stop)));
        }
    });
}

/// The messages as Ollama has them: one text and some images each, results on their own.
struct Turns<'r>(Vec<Turn<'r>>);

struct Turn<'r> {
    role: &'static str,
    text: String,
    images: Vec<&'r str>,
    thinking: String,
    calls: Vec<&'r ToolCall>,
    /// Name and id of the call that a result answers.
    answers: Option<(Option<&'r str>, &'r str)>,
}

// === impl Turns ===

impl<'r> Turns<'r> {
    fn of(request: &'r Request, losses: &mut Losses) -> Result<Self, Invalid> {
        let mut turns = Vec::with_capacity(request.messages.len());
        let mut names: HashMap<&str, &str> = HashMap::new();
        // What the system has said since the model has. Models' templates let it at the beginning alone, so a
        // user says it.
        let mut later = Vec::new();
        for message in &request.messages {
            match message.role {
                Role::System => {
                    let text = joined_text(&message.content, SEPARATOR);
                    match turns.last_mut() {
                        None => turns.push(Turn { text, ..Turn::new("system") }),
                        Some(first) if first.role == "system" => first.add(&text),
                        Some(_) if text.trim().is_empty() => {}
                        Some(_) => {
                            losses.add("messages.system");
                            later.push(said_by_user(&text));
                        }
                    }
                }
                Role::User => Self::user(message, &names, &mut turns)?,
                Role::Assistant => {
                    Self::end_turn(&mut later, &mut turns);
                    let turn = Self::assistant(message, losses);
                    names.extend(turn.calls.iter().map(|call| (call.id.as_str(), call.name.as_str())));
                    turns.push(turn);
                }
            }
        }
        Self::end_turn(&mut later, &mut turns);
        Ok(Self(turns))
    }

    /// Lets the user say more before the model speaks, and nobody between calls and their results.
    fn end_turn(later: &mut Vec<String>, turns: &mut Vec<Turn<'r>>) {
        let said = turns.iter().rposition(|turn| turn.role == "assistant");
        let since = said.and_then(|at| turns.get_mut(at + 1..)).unwrap_or_default();
        since.sort_by_key(|turn| turn.answers.is_none());
        if later.is_empty() {
            return;
        }
        let open = turns.pop_if(|last| last.role == "user");
        let mut said = open.unwrap_or_else(|| Turn::new("user"));
        later.drain(..).for_each(|text| said.add(&text));
        turns.push(said);
    }

    fn assistant(message: &'r Message, losses: &mut Losses) -> Turn<'r> {
        let mut turn = Turn { text: joined_text(&message.content, SEPARATOR), ..Turn::new("assistant") };
        for block in &message.content {
            match block {
                Block::Reasoning(reasoning) => turn.thinking.push_str(&reasoning.text),
                Block::RedactedReasoning(_) => losses.add("messages.reasoning"),
                Block::ToolCall(call) => turn.calls.push(call),
                _ => {}
            }
        }
        turn
    }

    /// Results come first, as the calls before them want it; what they show comes with what the user says.
    fn user(
        message: &'r Message,
        names: &HashMap<&'r str, &'r str>,
        turns: &mut Vec<Turn<'r>>,
    ) -> Result<(), Invalid> {
        let mut said = Turn::new("user");
        for block in &message.content {
            if let Block::ToolResult(result) = block {
                let name = names.get(result.id.as_str()).copied();
                let answers = Some((name, result.id.as_str()));
                turns.push(Turn { text: result_text(result), answers, ..Turn::new("tool") });
                for shown in result.content.iter().filter(|block| !matches!(block, Block::Text(_))) {
                    said.add(&format!("Attached to the result of {}:", name.unwrap_or(&result.id)));
                    said.take(shown)?;
                }
            }
        }
        for block in &message.content {
            if !matches!(block, Block::ToolResult(_)) {
                said.take(block)?;
            }
        }
        if !said.text.is_empty() || !said.images.is_empty() {
            turns.push(said);
        }
        Ok(())
    }
}

// === impl Turn ===

impl<'r> Turn<'r> {
    fn new(role: &'static str) -> Self {
        Self {
            role,
            text: String::new(),
            images: Vec::new(),
            thinking: String::new(),
            calls: Vec::new(),
            answers: None,
        }
    }

    fn add(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push_str(SEPARATOR);
        }
        self.text.push_str(text);
    }

    fn take(&mut self, block: &'r Block) -> Result<(), Invalid> {
        match block {
            Block::Text(text) | Block::Refusal(text) => self.add(text),
            Block::Image(image) => match &image.source {
                Source::Inline(media) => self.images.push(&media.base64),
                Source::Url(_) => {
                    return Err(Invalid::new(
                        "messages.content.image",
                        "is at a URL, and Ollama fetches none",
                    ));
                }
            },
            Block::Document(document) => match titled_text_of(document) {
                Some(text) => self.add(&text),
                None => {
                    return Err(Invalid::new(
                        "messages.content.document",
                        "is not text, which is all that Ollama reads",
                    ));
                }
            },
            _ => return Err(Invalid::new("messages.content", "holds what a user cannot say")),
        }
        Ok(())
    }

    fn write(&self, list: &mut List<'_>) {
        list.object(|message| {
            message.text("role", self.role);
            message.text("content", &self.text);
            if !self.thinking.is_empty() {
                message.text("thinking", &self.thinking);
            }
            if !self.images.is_empty() {
                message.list("images", |list| self.images.iter().for_each(|image| list.text(image)));
            }
            if !self.calls.is_empty() {
                message.list("tool_calls", |list| self.calls.iter().for_each(|call| write_call(list, call)));
            }
            if let Some((name, id)) = self.answers {
                message.some_text("tool_name", name);
                message.text("tool_call_id", id);
            }
        });
    }
}

pub(super) fn write_call(list: &mut List<'_>, call: &ToolCall) {
    list.object(|item| {
        item.text("id", &call.id);
        item.object("function", |function| {
            function.text("name", &call.name);
            function.json("arguments", &call.arguments);
        });
    });
}

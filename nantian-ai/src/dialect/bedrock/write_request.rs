//! The common form into a Converse request.

use std::collections::HashSet;

use super::content::{Names, Piece, write_cache_point};
use super::extra::{Wishes, features};
use super::family::Family;
use super::is_of_bedrock;
use crate::codec::{BEGINNING, Invalid, List, Object, object, said_by_user};
use crate::dialect::anthropic::{Enforcement, ONLY_JSON};
use crate::dialect::{GUARDRAIL, gemini, responses};
use crate::ir::{Block, CacheLife, Json, Losses, Output, Reasoning, Request, Role, ToolChoice};
use crate::outbound::ANTHROPIC_BETA;

/// Stands beside documents where the client says nothing: Bedrock takes none alone.
const BESIDE_DOCUMENTS: &str = "See the documents.";

pub(crate) fn encode(request: &Request) -> Result<(Vec<u8>, Losses), Invalid> {
    conversation(request, true)
}

/// Whether features of Claude are asked for by their names.
pub(crate) fn names_features(request: &Request) -> bool {
    matches!(Family::of(&request.model), Family::Claude(_)) && features(request).next().is_some()
}

/// What has been said and may be called, and unless it is only counted, what shall come of it.
pub(super) fn conversation(request: &Request, to_be_answered: bool) -> Result<(Vec<u8>, Losses), Invalid> {
    let mut losses = Losses::default();
    let family = Family::of(&request.model);
    let enforcement = Enforcement::of(request, family.traits(), &mut losses);
    let (mut system, turns) = turns(request, family, &mut losses)?;
    let only_json = matches!(request.output, Some(Output::Json)).then_some(ONLY_JSON);
    system.extend(enforcement.said.as_deref().or(only_json).map(|text| Piece::Text(text.into())));
    let stops: Vec<_> = request.stop.iter().filter(|stop| !stop.trim().is_empty()).collect();
    let wishes = Wishes::of(request, family, |block| !is_distrusted(block, family), &mut losses);
    let tools = Tools::of(request, family, &mut losses);
    name_the_unknown(request, family, stops.len(), &mut losses);
    let body = object(|body| {
        if !system.is_empty() {
            body.list("system", |list| system.iter().for_each(|piece| piece.write(list)));
        }
        body.list("messages", |list| turns.iter().for_each(|turn| turn.write(list)));
        if to_be_answered {
            wishes.write(body, &stops);
        }
        wishes.write_own(body);
        tools.write(body, &enforcement);
        if to_be_answered {
            write_output(body, request.output.as_ref(), enforcement.output.as_deref());
            if let Some(guardrail) = &request.guardrail {
                body.json(GUARDRAIL, guardrail);
            }
        }
    });
    Ok((body, losses))
}

fn name_the_unknown(request: &Request, family: Family, stops: usize, losses: &mut Losses) {
    let passed = if matches!(family, Family::Claude(_)) { features(request).count() } else { 0 };
    for (given, name) in [
        (request.frequency_penalty.is_some_and(|penalty| penalty != 0.0), "frequency_penalty"),
        (request.presence_penalty.is_some_and(|penalty| penalty != 0.0), "presence_penalty"),
        (request.seed.is_some(), "seed"),
        (passed < request.betas.len(), ANTHROPIC_BETA),
        (request.end_user().is_some(), "user"),
        (stops < request.stop.len(), "stop"),
        (matches!(request.output, Some(Output::Json)), "response_format"),
        (request.parallel_tools == Some(false) && !request.tools.is_empty(), "parallel_tool_calls"),
    ] {
        if given {
            losses.add(name);
        }
    }
}

/// What one side says until the other does; results come first.
struct Turn<'r> {
    role: Role,
    pieces: Vec<Piece<'r>>,
}

/// The system prompt, and the turns.
fn turns<'r>(
    request: &'r Request,
    family: Family,
    losses: &mut Losses,
) -> Result<(Vec<Piece<'r>>, Vec<Turn<'r>>), Invalid> {
    let mut system = Vec::new();
    let mut turns: Vec<Turn<'_>> = Vec::new();
    let mut names = Names::default();
    for message in &request.messages {
        let is_later = message.role == Role::System && !turns.is_empty();
        let pieces = match message.role {
            Role::System if !is_later => &mut system,
            // No model there takes it where it stands.
            Role::System | Role::User => said_by(Role::User, &mut turns, losses),
            Role::Assistant => said_by(Role::Assistant, &mut turns, losses),
        };
        for (at, block) in message.content.iter().enumerate() {
            match block {
                Block::Text(text) if is_later && !block.is_blank() => {
                    losses.add("messages.system");
                    pieces.push(Piece::Text(said_by_user(text).into()));
                }
                block if message.role == Role::System && !matches!(block, Block::Text(_)) => {}
                block if is_distrusted(block, family) => losses.add("messages.reasoning"),
                block => {
                    let mut piece = Piece::of(block, &mut names)?;
                    let shown = piece.as_mut().filter(|_| !family.sees_results()).map(Piece::detached);
                    pieces.extend(piece);
                    pieces.extend(shown.unwrap_or_default());
                }
            }
            keep(pieces, message.cached_up_to(at), family, losses);
        }
    }
    end_silence(&mut turns, losses);
    turns.retain_mut(|turn| {
        turn.pieces.sort_by_key(|piece| !piece.is_result());
        if turn.pieces.iter().any(Piece::is_document) && !turn.pieces.iter().any(Piece::is_text) {
            turn.pieces.push(Piece::Text(BESIDE_DOCUMENTS.into()));
        }
        !turn.pieces.is_empty()
    });
    // The model goes on with what it has said last, which must not end with space.
    if let Some(Turn { role: Role::Assistant, pieces }) = turns.last_mut()
        && let Some(Piece::Text(text)) =
            pieces.iter_mut().rfind(|piece| !matches!(piece, Piece::CachePoint(_)))
    {
        *text = text.trim_end().to_owned().into();
    }
    if request.keeps_all() && !family.keeps_conversations() {
        losses.add("prompt_cache_key");
    } else if request.keeps_all() {
        keep(&mut system, Some(CacheLife::Usual), family, losses);
        if let Some(last) = turns.last_mut() {
            keep(&mut last.pieces, Some(CacheLife::Usual), family, losses);
        }
    }
    // Bots greet, and a window may slide to what the model has said.
    if turns.first().is_none_or(|first| first.role != Role::User) {
        turns.insert(0, Turn { role: Role::User, pieces: vec![Piece::Text(BEGINNING.into())] });
    }
    Ok((system, turns))
}

/// What this side says until the other does.
fn said_by<'t, 'r>(role: Role, turns: &'t mut Vec<Turn<'r>>, losses: &mut Losses) -> &'t mut Vec<Piece<'r>> {
    // Who has said nothing has had no turn.
    turns.pop_if(|last| last.pieces.is_empty());
    if role != Role::Assistant {
        end_silence(turns, losses);
    }
    let open = turns.pop_if(|last| last.role == role);
    &mut turns.push_mut(open.unwrap_or(Turn { role, pieces: Vec::new() })).pieces
}

/// Leaves out a turn in which the model has only thought, as one does that its limit cuts: newer ones of
/// Claude take it for the beginning of their answer, which they refuse, whatever a user has said since.
fn end_silence(turns: &mut Vec<Turn<'_>>, losses: &mut Losses) {
    let is_silent = |last: &mut Turn<'_>| {
        last.role == Role::Assistant && !last.pieces.is_empty() && !last.pieces.iter().any(Piece::is_said)
    };
    if turns.pop_if(is_silent).is_some() {
        losses.add("messages.reasoning");
    }
}

/// Has the model keep what it has been told so far, if it can.
fn keep(pieces: &mut Vec<Piece<'_>>, life: Option<CacheLife>, family: Family, losses: &mut Losses) {
    let Some(mut life) = life else { return };
    if !family.keeps_conversations() {
        return losses.add("cache_control");
    }
    if life == CacheLife::Hour && !family.keeps_more() {
        losses.add("cache_control.ttl");
        life = CacheLife::Usual;
    }
    match pieces.last_mut() {
        // There is nothing before it.
        None => {}
        // Reasoning is kept with what follows it; right behind it a point is refused.
        Some(Piece::Reasoning(_) | Piece::Encrypted(_)) => {}
        Some(Piece::CachePoint(last)) => *last = life,
        // Right behind a document that is no PDF it is refused.
        Some(Piece::Document { format, .. }) if *format != "pdf" => {
            let before = pieces.len() - 1;
            if before == 0 {
                losses.add("cache_control");
            } else if !matches!(pieces.get(before - 1), Some(Piece::CachePoint(_))) {
                pieces.insert(before, Piece::CachePoint(life));
            }
        }
        Some(_) => pieces.push(Piece::CachePoint(life)),
    }
}

/// Whether a block is reasoning that the model does not take: of another family, or that nobody has signed.
fn is_distrusted(block: &Block, family: Family) -> bool {
    match block {
        Block::Reasoning(Reasoning { signature, .. }) => {
            let of_another =
                |signature: &str| responses::is_of_responses(signature) || gemini::is_of_gemini(signature);
            !family.takes_signed() || signature.as_deref().is_none_or(of_another)
        }
        Block::RedactedReasoning(data) => !family.takes_encrypted() || !is_of_bedrock(data),
        _ => false,
    }
}

// === impl Turn ===

impl Turn<'_> {
    fn write(&self, list: &mut List<'_>) {
        list.object(|message| {
            message.text("role", if self.role == Role::Assistant { "assistant" } else { "user" });
            message.list("content", |list| self.pieces.iter().for_each(|piece| piece.write(list)));
        });
    }
}

/// The tools, which Bedrock wants to know also where they have only been called before.
struct Tools<'r> {
    request: &'r Request,
    /// Called before, and not offered any more.
    called: Vec<&'r str>,
    choice: Option<&'r ToolChoice>,
    /// Whether the model keeps them where it is asked to.
    keeps: bool,
}

// === impl Tools ===

impl<'r> Tools<'r> {
    fn of(request: &'r Request, family: Family, losses: &mut Losses) -> Self {
        let mut known: HashSet<&str> = request.tools.iter().map(|tool| tool.name.as_str()).collect();
        let mut called = Vec::new();
        for block in request.messages.iter().flat_map(|message| &message.content) {
            if let Block::ToolCall(call) = block
                && known.insert(&call.name)
            {
                called.push(call.name.as_str());
            }
        }
        let choice = request.tool_choice.as_ref().filter(|_| !request.tools.is_empty());
        let demands = matches!(choice, Some(ToolChoice::Any | ToolChoice::Tool(_)));
        if demands && !family.takes_tool_choice() {
            losses.add("tool_choice");
        }
        let choice = choice.filter(|choice| family.takes_tool_choice() || **choice == ToolChoice::Never);
        let keeps = family.keeps_more();
        if !keeps && request.tools.iter().any(|tool| tool.cached.is_some()) {
            losses.add("cache_control");
        }
        let mut tools = Self { request, called, choice, keeps };
        if choice == Some(&ToolChoice::Never) && tools.are_known() {
            losses.add("tool_choice");
            tools.choice = None;
        }
        tools
    }

    /// Whether the conversation speaks of tools, so that they cannot be left out.
    fn are_known(&self) -> bool {
        let blocks = self.request.messages.iter().flat_map(|message| &message.content);
        blocks.into_iter().any(|block| matches!(block, Block::ToolCall(_) | Block::ToolResult(_)))
    }

    fn write(&self, body: &mut Object<'_>, enforcement: &Enforcement<'r>) {
        // A model that must call nothing is offered nothing.
        let is_offered = self.choice != Some(&ToolChoice::Never);
        if !is_offered || (self.request.tools.is_empty() && self.called.is_empty()) {
            return;
        }
        body.object("toolConfig", |config| {
            config.list("tools", |list| {
                for (tool, strict) in enforcement.tools(self.request) {
                    let schema = strict.unwrap_or(&tool.schema);
                    let description = tool.description.as_deref();
                    write_tool(list, &tool.name, description, schema, strict.is_some());
                    if let Some(life) = tool.cached.filter(|_| self.keeps) {
                        list.object(|item| write_cache_point(item, life));
                    }
                }
                for name in &self.called {
                    write_tool(list, name, None, &Json::empty_object(), false);
                }
            });
            match self.choice {
                None | Some(ToolChoice::Never) => {}
                Some(ToolChoice::Auto) => config.object("toolChoice", |choice| choice.object("auto", |_| {})),
                Some(ToolChoice::Any) => config.object("toolChoice", |choice| choice.object("any", |_| {})),
                Some(ToolChoice::Tool(name)) => config.object("toolChoice", |choice| {
                    choice.object("tool", |tool| tool.text("name", name));
                }),
            }
        });
    }
}

fn write_tool(list: &mut List<'_>, name: &str, description: Option<&str>, schema: &Json, strict: bool) {
    list.object(|item| {
        item.object("toolSpec", |tool| {
            tool.text("name", name);
            tool.some_text("description", description.filter(|text| !text.trim().is_empty()));
            tool.object("inputSchema", |input| input.schema("json", schema));
            if strict {
                tool.flag("strict", true);
            }
        });
    });
}

/// The form of the answer; the schema stands there as a text.
fn write_output(body: &mut Object<'_>, output: Option<&Output>, schema: Option<&Json>) {
    let (Some(Output::Schema { name, description, .. }), Some(schema)) = (output, schema) else { return };
    body.object("outputConfig", |config| {
        config.object("textFormat", |format| {
            format.text("type", "json_schema");
            format.object("structure", |structure| {
                structure.object("jsonSchema", |item| {
                    item.text("schema", schema.as_str());
                    item.some_text("name", name.as_deref());
                    item.some_text("description", description.as_deref());
                });
            });
        });
    });
}

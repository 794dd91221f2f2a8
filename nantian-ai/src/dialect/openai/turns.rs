//! A conversation as Chat Completions has it.

use super::details;
use super::profile::Profile;
use super::signatures::Signature;
use super::write_reply::write_calls;
use super::write_request::enforced;
use crate::codec::{Invalid, List, Object, joined_text, said_by_user, says_json, titled_text_of};
use crate::dialect::anthropic::ONLY_JSON;
use crate::ir::{
    Block, Detail, Image, Losses, Media, Message, Output, Request, Role, Source, ToolCall, ToolResult,
};

/// How a message says that its tool failed: there is no field for it.
pub(crate) const FAILED: &str = "[tool error] ";

/// What the model says before a user does after its tools, where nobody may speak in between.
pub(crate) const ACKNOWLEDGED: &str = "Understood.";

/// Stands for the schema of an answer where a provider takes none; DeepSeek wants to read the word JSON, too.
pub(crate) const OF_SCHEMA: &str = "Answer with one JSON object that fits this JSON Schema: ";

/// The messages as OpenAI has them: the results of tools are messages of their own.
pub(super) struct Turns<'r>(Vec<Turn<'r>>);

enum Turn<'r> {
    System(String),
    User(Vec<UserPart<'r>>),
    Assistant(&'r Message),
    /// Stands for what the model has not said.
    Acknowledged,
    Result {
        id: &'r str,
        content: String,
    },
}

enum UserPart<'r> {
    Text(std::borrow::Cow<'r, str>),
    Image(&'r Image),
    Audio(&'r Media),
    File { name: Option<&'r str>, data: String },
}

// === impl Turns ===

impl<'r> Turns<'r> {
    pub(super) fn of(request: &'r Request, profile: Profile, losses: &mut Losses) -> Result<Self, Invalid> {
        let mut turns = Vec::with_capacity(request.messages.len() + 1);
        let said = request.messages.iter().flat_map(|message| &message.content);
        let is_enforced = profile.takes_schema && enforced(request, profile).is_some();
        match &request.output {
            Some(Output::Schema { schema, .. }) if !is_enforced => {
                turns.push(Turn::System(format!("{OF_SCHEMA}{schema}")));
            }
            // Many refuse to answer in JSON if nobody has said the word.
            Some(Output::Json) if !says_json(said) => {
                turns.push(Turn::System(ONLY_JSON.to_owned()));
            }
            _ => {}
        }
        // What the system has said since the model has, where a user has to say it.
        let mut later = Vec::new();
        for message in &request.messages {
            match message.role {
                Role::System => {
                    let text = joined_text(&message.content, "\n\n");
                    match turns.last_mut() {
                        Some(Turn::System(before)) if !profile.takes_later_system => {
                            before.push_str("\n\n");
                            before.push_str(&text);
                        }
                        Some(_) if !profile.takes_later_system && text.trim().is_empty() => {}
                        Some(_) if !profile.takes_later_system => {
                            losses.add("messages.system");
                            later.push(UserPart::Text(said_by_user(&text).into()));
                        }
                        _ => turns.push(Turn::System(text)),
                    }
                }
                Role::User => Self::user(message, profile, &mut turns)?,
                Role::Assistant => {
                    let echoes_reasoning = !profile.echoes_as.is_empty();
                    let lost = message.content.iter().any(|block| match block {
                        Block::Reasoning(reasoning) => !echoes_reasoning && !reasoning.text.is_empty(),
                        Block::RedactedReasoning(data) => {
                            !profile.takes_details || !details::is_of_openrouter(data)
                        }
                        _ => false,
                    });
                    if lost {
                        losses.add("messages.reasoning");
                    }
                    let says = |block: &Block| {
                        let is_reasoning = matches!(block, Block::Reasoning(_) | Block::RedactedReasoning(_));
                        !block.is_blank() && (!is_reasoning || echoes_reasoning)
                    };
                    if message.content.iter().any(says) {
                        Self::end_turn(&mut later, &mut turns);
                        turns.push(Turn::Assistant(message));
                    }
                }
            }
        }
        Self::end_turn(&mut later, &mut turns);
        if profile.takes_turns {
            Self::take_turns(&mut turns);
        }
        Ok(Self(turns))
    }

    /// Lets the model speak before a user does after its tools, and a user last.
    fn take_turns(turns: &mut Vec<Turn<'r>>) {
        let mut after_result = false;
        for turn in std::mem::take(turns) {
            if after_result && matches!(turn, Turn::User(_)) {
                turns.push(Turn::Acknowledged);
            }
            after_result = matches!(turn, Turn::Result { .. });
            turns.push(turn);
        }
        if let Some(Turn::Assistant(_)) = turns.last() {
            turns.push(Turn::User(vec![UserPart::Text("Continue.".into())]));
        }
    }

    pub(super) fn write(&self, list: &mut List<'_>, profile: Profile) {
        self.0.iter().for_each(|turn| turn.write(list, profile));
    }

    /// Lets the user say more before the model speaks, and nobody between calls and their results.
    fn end_turn(later: &mut Vec<UserPart<'r>>, turns: &mut Vec<Turn<'r>>) {
        let said = turns.iter().rposition(|turn| matches!(turn, Turn::Assistant(_)));
        let since = said.and_then(|at| turns.get_mut(at + 1..)).unwrap_or_default();
        since.sort_by_key(|turn| !matches!(turn, Turn::Result { .. }));
        match turns.last_mut() {
            _ if later.is_empty() => {}
            Some(Turn::User(parts)) => parts.append(later),
            _ => turns.push(Turn::User(std::mem::take(later))),
        }
    }

    /// Results come first, as the calls before them want it.
    fn user(message: &'r Message, profile: Profile, turns: &mut Vec<Turn<'r>>) -> Result<(), Invalid> {
        let id_of = profile.id_of();
        let mut parts = Vec::new();
        for block in &message.content {
            if let Block::ToolResult(result) = block {
                turns.push(Turn::Result { id: &result.id, content: result_text(result) });
                for attached in result.content.iter().filter(|block| !matches!(block, Block::Text(_))) {
                    parts.push(UserPart::Text(
                        format!("Attached to the result of {}:", id_of(&result.id)).into(),
                    ));
                    parts.push(UserPart::of(attached, profile)?);
                }
            }
        }
        for block in &message.content {
            if !matches!(block, Block::ToolResult(_)) {
                parts.push(UserPart::of(block, profile)?);
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
    fn of(block: &'r Block, profile: Profile) -> Result<Self, Invalid> {
        Ok(match block {
            Block::Text(text) | Block::Refusal(text) => Self::Text(text.as_str().into()),
            Block::Image(image) => Self::Image(image),
            Block::Audio(media) => Self::Audio(media),
            Block::Document(document) => match (titled_text_of(document), &document.source) {
                (Some(text), _) => Self::Text(text.into()),
                (None, Source::Url(_)) if !profile.documents_by_url => {
                    let problem = "is at a URL, from which this provider reads no documents";
                    return Err(Invalid::new("messages.content.document", problem));
                }
                (None, source) => Self::File { name: document.title.as_deref(), data: source.to_url() },
            },
            _ => return Err(Invalid::new("messages.content", "holds what a user cannot say")),
        })
    }
}

// === impl Turn ===

impl Turn<'_> {
    fn write(&self, list: &mut List<'_>, profile: Profile) {
        let id_of = profile.id_of();
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
                    parts => message
                        .list("content", |list| parts.iter().for_each(|part| part.write(list, profile))),
                }
            }
            Self::Acknowledged => {
                message.text("role", "assistant");
                message.text("content", ACKNOWLEDGED);
            }
            Self::Assistant(said) => {
                message.text("role", "assistant");
                write_assistant(message, &said.content, profile);
                if profile.takes_details {
                    details::write(message, &said.content, id_of);
                }
                let is_call = |block: &Block| matches!(block, Block::ToolCall(_));
                let first = said.content.iter().position(is_call);
                let arguments_of = |call: &ToolCall| call.arguments.to_string();
                write_calls(message, &said.content, id_of, arguments_of, |at| {
                    let own = Signature::before(&said.content, at).filter(|_| profile.takes_signatures);
                    let is_missed = profile.wants_signatures && Some(at) == first;
                    own.or(is_missed.then_some(Signature::STAND_IN))
                });
            }
        });
    }
}

impl UserPart<'_> {
    fn write(&self, list: &mut List<'_>, profile: Profile) {
        list.object(|part| match self {
            Self::Text(text) => {
                part.text("type", "text");
                part.text("text", text);
            }
            Self::Image(image) => {
                part.text("type", "image_url");
                part.object("image_url", |url| {
                    url.text("url", &image.source.to_url());
                    url.some_text("detail", image.detail.map(detail));
                });
            }
            Self::Audio(media) => {
                part.text("type", "input_audio");
                part.object("input_audio", |audio| {
                    audio.text("data", &media.base64);
                    audio
                        .text("format", media.media_type.strip_prefix("audio/").unwrap_or(&media.media_type));
                });
            }
            Self::File { name, data } if profile.documents_by_url => {
                part.text("type", "document_url");
                part.text("document_url", data);
                part.some_text("document_name", *name);
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

/// The nearest that there is a word for.
fn detail(detail: Detail) -> &'static str {
    match detail {
        Detail::Low => "low",
        Detail::High | Detail::Original => "high",
    }
}

/// What the model said, in the fields of its message.
fn write_assistant(message: &mut Object<'_>, content: &[Block], profile: Profile) {
    let of = |pick: fn(&Block) -> Option<&str>| content.iter().filter_map(pick).collect::<Vec<_>>();
    let reasoning = of(|block| match block {
        Block::Reasoning(reasoning) => Some(&reasoning.text),
        _ => None,
    })
    .concat();
    let text = of(|block| match block {
        Block::Text(text) => Some(text),
        _ => None,
    });
    let refusal = of(|block| match block {
        Block::Refusal(text) => Some(text),
        _ => None,
    });
    for name in profile.echoes_as.iter().filter(|_| !reasoning.is_empty()) {
        message.text(name, &reasoning);
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

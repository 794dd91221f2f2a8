//! Reasoning of another family in a conversation that passes as it is.
//!
//! Clients give back what they got, whoever has answered: after a change of providers a conversation holds
//! signatures that were made here, or by another family. A provider refuses them, and with them the
//! conversation, so they are cut out in place.

mod chats;
mod indices;
mod marks;
mod parts;

pub(crate) use self::chats::{filled, for_mistral, for_openai, without, without_pictures, without_stand_ins};
pub(crate) use self::indices::without_indices;
pub(crate) use self::marks::without_marks;
pub(crate) use self::parts::without_thought_parts;

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::dialect::{ClientDialect, Few, Operation, Surface, anthropic, bedrock, responses};
use crate::edit::Object;
use crate::edit::cut::{Edit, cut_out};
use crate::ir::Losses;

/// What is lost.
const REASONING: &str = "messages.reasoning";

/// What tells Claude not to think.
const OFF: &str = r#"{"type":"disabled"}"#;

/// What Anthropic is to clear out of a conversation.
const CONTEXT: &str = "context_management";

/// Who has said what.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Message<'a> {
    #[serde(borrow)]
    pub(crate) role: Cow<'a, str>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

/// Which reasoning is cut out.
#[derive(Clone, Copy)]
enum Cut {
    All,
    Foreign,
}

/// One of a list.
pub(crate) struct Item<'a> {
    pub(crate) range: Range<usize>,
    pub(crate) json: &'a str,
    is_cut: bool,
}

/// A block of a message, an item of an `input`, or the configuration of thinking.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Block<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    signature: Cow<'a, str>,
    #[serde(borrow)]
    data: Cow<'a, str>,
    #[serde(borrow)]
    role: Option<Cow<'a, str>>,
    #[serde(borrow)]
    encrypted_content: Option<Cow<'a, str>>,
}

/// What has to change in a conversation for a model of the dialect's own family; what is left out is named.
pub(crate) fn edits(surface: &Surface, object: &Object<'_>, model: &str, losses: &mut Losses) -> Vec<Edit> {
    if !has_conversation(surface) {
        return Vec::new();
    }
    let edits = match surface.dialect() {
        ClientDialect::Anthropic => of_messages(object, model, Cut::Foreign, losses),
        ClientDialect::Responses => of_input(object, Cut::Foreign, losses),
        _ => None,
    };
    edits.unwrap_or_default()
}

/// Whether the model gets reasoning back that it may not take: signatures of its own family tell nothing else
/// of who has made them.
pub(super) fn has_thoughts(surface: &Surface, object: &Object<'_>) -> bool {
    let (name, kinds): (_, &[&str]) = match surface.dialect() {
        ClientDialect::Anthropic => ("messages", &["\"thinking\"", "\"redacted_thinking\""]),
        ClientDialect::Responses => ("input", &["\"encrypted_content\""]),
        _ => return false,
    };
    let is_in = |json: &[u8]| kinds.iter().any(|kind| memmem::find(json, kind.as_bytes()).is_some());
    has_conversation(surface) && object.value(name).is_some_and(is_in)
}

fn has_conversation(surface: &Surface) -> bool {
    matches!(surface.operation(), Operation::Chat | Operation::Compact | Operation::CountTokens)
}

/// A body without any reasoning, and for Chat Completions without Gemini's signatures; `None` if there is
/// none in it. What is left out is named.
pub(crate) fn without_thoughts(body: &Bytes, losses: &mut Losses) -> Option<Bytes> {
    let object = Object::parse(body).ok()?;
    let mut of_a_chat = without(&object, &["extra_content", "reasoning_content", "reasoning"], losses);
    of_a_chat.extend(without_thought_parts(&object, losses));
    let edits = match object.value("input") {
        _ if !of_a_chat.is_empty() => of_a_chat,
        Some(_) => of_input(&object, Cut::All, losses)?,
        None => match object.text("model") {
            Some(model) => of_messages(&object, &model, Cut::All, losses)?,
            None => of_converse(&object, losses)?,
        },
    };
    (!edits.is_empty()).then(|| object.set_and(body, &[], edits).concat().into())
}

/// The blocks of a conversation with Anthropic, without some. A model that wants a budget does not think in a
/// turn that has lost some, and Claude refuses to in one that has begun without: another provider may have
/// begun it that tells nothing of its reasoning.
fn of_messages(object: &Object<'_>, model: &str, cut: Cut, losses: &mut Losses) -> Option<Vec<Edit>> {
    let (at, json) = object.place("messages")?;
    let traits = anthropic::Traits::of(model);
    let thinking = object
        .place("thinking")
        .filter(|(_, config)| traits.takes_budget && Block::read(config).kind == "enabled");
    let must_begin = thinking.is_some() && traits.is_claude;
    let may_have_begun = must_begin && memmem::find(json, b"tool_result").is_some();
    if !may_have_begun && !cut.may_be_in(json) {
        return None;
    }
    let mut cuts = Vec::new();
    // Whether the turn has lost reasoning, and whether it has begun.
    let (mut has_lost, mut has_begun) = (false, false);
    let mut messages = items(json, std::str::from_utf8(json).ok()?)?;
    for item in &mut messages {
        let Ok(message) = serde_json::from_str::<Message<'_>>(item.json) else { continue };
        let mut blocks = message.content.and_then(|content| items(json, content.get())).unwrap_or_default();
        if message.role != "assistant" {
            let goes_on = blocks.iter().any(|block| Block::of(block.json).kind == "tool_result");
            (has_lost, has_begun) = (has_lost && goes_on, has_begun && goes_on);
            continue;
        }
        blocks.iter_mut().for_each(|block| block.is_cut = cut.takes(&Block::of(block.json)));
        has_lost |= blocks.iter().any(|block| block.is_cut);
        let begins_thinking = blocks.first().is_some_and(|block| Block::of(block.json).is_thought());
        has_lost |= must_begin && !has_begun && !begins_thinking;
        has_begun = true;
        // A message without content would be refused, too.
        item.is_cut = !blocks.is_empty() && blocks.iter().all(|block| block.is_cut);
        if !item.is_cut {
            cut_out(blocks.into_iter().map(Item::place), at, &mut cuts);
        }
    }
    cut_out(messages.into_iter().map(Item::place), at, &mut cuts);
    if !cuts.is_empty() {
        losses.add(REASONING);
    }
    if let Some((at, config)) = thinking.filter(|_| has_lost) {
        losses.add("thinking");
        cuts.push((at..at + config.len(), OFF));
        // Which thoughts are to be cleared must not be said where there shall be none.
        if object.value(CONTEXT).is_some_and(|edits| memmem::find(edits, b"clear_thinking").is_some()) {
            losses.add(CONTEXT);
            cut_out(object.members().map(|(name, range)| (range, name == CONTEXT.as_bytes())), 0, &mut cuts);
        }
    }
    Some(cuts)
}

/// The blocks of a conversation at Bedrock, without reasoning; no message has nothing else. Claude with a
/// budget refuses to think in a turn that has lost some.
fn of_converse(object: &Object<'_>, losses: &mut Losses) -> Option<Vec<Edit>> {
    let (at, json) = object.place("messages")?;
    let messages = items(json, std::str::from_utf8(json).ok()?)?;
    let mut cuts = Vec::new();
    for message in &messages {
        let Ok(fields) = Object::parse(message.json.as_bytes()) else { continue };
        let Some((within, content)) = fields.place("content") else { continue };
        let mut blocks = items(content, std::str::from_utf8(content).ok()?)?;
        for block in &mut blocks {
            let fields = Object::parse(block.json.as_bytes());
            block.is_cut = fields.is_ok_and(|fields| fields.value("reasoningContent").is_some());
        }
        cut_out(blocks.into_iter().map(Item::place), at + message.range.start + within, &mut cuts);
    }
    let goes_on = messages.last().is_some_and(|last| last.json.contains("\"toolResult\""));
    if let Some((at, own)) = object.place(bedrock::OWN).filter(|_| goes_on && !cuts.is_empty())
        && let Some((within, config)) = Object::parse(own).ok()?.place("thinking")
        && Block::read(config).kind == "enabled"
    {
        losses.add("thinking");
        cuts.push((at + within..at + within + config.len(), OFF));
    }
    Some(cuts)
}

/// The items of a conversation with Responses, without some. One with an id is refused without the reasoning
/// that it came with, and needs none where it is all there.
///
/// What Responses itself has encrypted may be marked, too, for in a stream its item has got another id. It is
/// left, without either.
fn of_input(object: &Object<'_>, cut: Cut, losses: &mut Losses) -> Option<Vec<Edit>> {
    let (at, json) = object.place("input")?;
    if matches!(cut, Cut::Foreign) && !begins_a_text(json, responses::MADE_HERE) {
        return None;
    }
    let mut input = items(json, std::str::from_utf8(json).ok()?)?;
    input.iter_mut().for_each(|item| item.is_cut = cut.takes_item(&Block::of(item.json)));
    let mut cuts = Vec::new();
    for item in &mut input {
        let may_lose_id = match cut {
            Cut::All => Block::of(item.json).needs_no_id(),
            Cut::Foreign => item.is_cut,
        };
        if !may_lose_id {
            continue;
        }
        let Ok(object) = Object::parse(item.json.as_bytes()) else { continue };
        let start = at + item.range.start;
        if matches!(cut, Cut::Foreign) {
            let Some(mark) = mark_of_own(&object) else { continue };
            item.is_cut = false;
            cuts.push((start + mark.start..start + mark.end, ""));
        }
        cut_out(object.members().map(|(name, range)| (range, name == b"id")), start, &mut cuts);
    }
    let has_lost = cut_items(input, at, &mut cuts).is_some();
    if has_lost {
        losses.add(REASONING);
    }
    (has_lost || matches!(cut, Cut::Foreign)).then_some(cuts)
}

/// Where the mark is of what Responses itself has encrypted.
fn mark_of_own(item: &Object<'_>) -> Option<Range<usize>> {
    let (at, json) = item.place("encrypted_content")?;
    let said = std::str::from_utf8(json.strip_prefix(b"\"")?).ok()?;
    Some(at + 1..at + 1 + responses::mark_of_own(said)?)
}

/// A body for Responses without the reasoning after which nothing comes, as where a limit has cut a turn;
/// `None` if there is none, or nothing else.
pub(crate) fn without_afterthoughts(body: &Bytes) -> Option<Bytes> {
    let object = Object::parse(body).ok()?;
    let (at, json) = object.place("input")?;
    let mut input = items(json, std::str::from_utf8(json).ok()?)?;
    let mut goes_on = false;
    for item in input.iter_mut().rev() {
        let block = Block::of(item.json);
        match &*block.kind {
            "reasoning" => item.is_cut = !goes_on,
            _ => goes_on = block.is_of_the_model(),
        }
    }
    let mut cuts = Vec::new();
    cut_items(input, at, &mut cuts)?;
    Some(object.set_and(body, &[], cuts).concat().into())
}

/// Cuts items out of an `input`; `None` if nothing is to go, or nothing would stay, which is refused, too.
fn cut_items(input: Vec<Item<'_>>, at: usize, cuts: &mut Vec<Edit>) -> Option<()> {
    let gone = input.iter().filter(|item| item.is_cut).count();
    (0 < gone && gone < input.len()).then(|| cut_out(input.into_iter().map(Item::place), at, cuts))
}

/// Whether a text begins so. Within one its quote would be escaped.
fn begins_a_text(json: &[u8], mark: &str) -> bool {
    let quote_before = |at: usize| at.checked_sub(1).and_then(|at| json.get(at)) == Some(&b'"');
    memmem::find_iter(json, mark).any(quote_before)
}

/// The items of a list that is in `whole`; `None` if it is no list, or a longer one than any conversation is.
pub(crate) fn items<'a>(whole: &[u8], list: &'a str) -> Option<Vec<Item<'a>>> {
    let Few::<&RawValue>(items) = serde_json::from_str(list).ok()?;
    let place = |item: &'a RawValue| {
        let json = item.get();
        let start = json.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
        Some(Item { range: start..start + json.len(), json, is_cut: false })
    };
    items.into_iter().map(place).collect()
}

// === impl Message ===

impl<'a> Message<'a> {
    /// What is none, or of another shape, says nothing.
    pub(crate) fn of(json: &'a str) -> Self {
        serde_json::from_str(json).unwrap_or_default()
    }
}

// === impl Cut ===

impl Cut {
    fn may_be_in(self, json: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Foreign => anthropic::FOREIGN.iter().any(|mark| begins_a_text(json, mark)),
        }
    }

    fn takes(self, block: &Block<'_>) -> bool {
        match self {
            Self::All => block.is_thought(),
            Self::Foreign => block.is_foreign_block(),
        }
    }

    fn takes_item(self, item: &Block<'_>) -> bool {
        let is_foreign =
            || item.encrypted_content.as_deref().is_some_and(|said| said.starts_with(responses::MADE_HERE));
        item.kind == "reasoning" && (matches!(self, Self::All) || is_foreign())
    }
}

// === impl Item ===

impl Item<'_> {
    /// Where it is, and whether it is left out.
    fn place(self) -> (Range<usize>, bool) {
        (self.range, self.is_cut)
    }
}

// === impl Block ===

impl<'a> Block<'a> {
    fn of(json: &'a str) -> Self {
        Self::read(json.as_bytes())
    }

    /// What is none, or of another shape, is left as it is.
    fn read(json: &'a [u8]) -> Self {
        serde_json::from_slice(json).unwrap_or_default()
    }

    fn is_thought(&self) -> bool {
        matches!(&*self.kind, "thinking" | "redacted_thinking")
    }

    fn is_foreign_block(&self) -> bool {
        let said = match &*self.kind {
            "thinking" => &self.signature,
            "redacted_thinking" => &self.data,
            _ => return false,
        };
        anthropic::FOREIGN.iter().any(|mark| said.starts_with(mark))
    }

    /// Whether an item is something that the model has said or done. One without a type is a message, or a
    /// reference to an item.
    fn is_of_the_model(&self) -> bool {
        match (&*self.kind, self.role.as_deref()) {
            ("", None) => true,
            ("" | "message", role) => role == Some("assistant"),
            ("additional_tools" | "agent_message" | "mcp_approval_response", _) => false,
            (kind, _) => !kind.ends_with("_output"),
        }
    }

    /// Whether an item may be given back without its id. A message need not say that it is one, nor a
    /// reference to an item, which is nothing but an id.
    fn needs_no_id(&self) -> bool {
        match &*self.kind {
            "" => self.role.is_some(),
            kind => matches!(kind, "message" | "function_call" | "custom_tool_call"),
        }
    }
}

#[cfg(test)]
mod tests;

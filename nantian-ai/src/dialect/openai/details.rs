//! What OpenRouter tells of reasoning that the model's maker has encrypted or signed, and wants back: Gemini
//! and Claude refuse their own calls without.
//!
//! Each piece is carried whole, as encrypted reasoning of a family of its own, which clients of other
//! dialects give back. It names the call that it belongs to, or its place, so that it may stand anywhere:
//! after the calls it is not taken for the answer.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};

use super::profile::IdOf;
use crate::codec::{Fields, Object, Value};
use crate::edit;
use crate::ir::{Block, Json, Losses, Message, Role, stem_of_call};

/// What it begins with in the common form. OpenRouter's own answers to Messages have texts that begin with
/// `openrouter.reasoning:`, which pass.
pub(in crate::dialect) const OF_OPENROUTER: &str = "openrouter.details.";

/// Where it stands.
pub(super) const NAME: &str = "reasoning_details";

/// What the format of a text begins with that its maker signs, in a stream in the end.
const OF_CLAUDE: &str = "anthropic";

/// The pieces of an answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Details {
    pieces: Vec<Piece>,
    /// How much they take, in bytes.
    kept: usize,
}

/// One that is encrypted, or a text with its signature.
#[derive(Clone, Debug)]
struct Piece(Vec<(String, Value)>);

/// A piece of a conversation, and the id of the call that it belongs to.
struct Detail {
    json: Json,
    call: Option<String>,
}

/// Whether reasoning was told so.
pub(in crate::dialect) fn is_of_openrouter(data: &str) -> bool {
    data.starts_with(OF_OPENROUTER)
}

/// Whether a turn of the model goes on, after results of its calls, that has begun without any of it.
pub(super) fn are_missed(messages: &[Message]) -> bool {
    let has = |message: &Message, is_so: fn(&Block) -> bool| message.content.iter().any(is_so);
    let is_result = |block: &Block| matches!(block, Block::ToolResult(_));
    let said = messages.iter().rev().filter(|message| message.role != Role::System);
    let turn = said.take_while(|message| message.role == Role::Assistant || has(message, is_result));
    let begun = turn.filter(|message| message.role == Role::Assistant).last();
    begun.is_some_and(|begun| !has(begun, |block| Detail::of(block).is_some()))
}

/// Writes what a message has of it, each piece with the id that its call has now.
pub(super) fn write(message: &mut Object<'_>, content: &[Block], id_of: IdOf) {
    let own: Vec<_> = content.iter().filter_map(Detail::of).collect();
    if own.is_empty() {
        return;
    }
    let calls = content.iter().filter_map(|block| match block {
        Block::ToolCall(call) => Some(id_of(&call.id)),
        _ => None,
    });
    let calls: Vec<_> = calls.collect();
    let named: Vec<&str> = own.iter().filter_map(|detail| detail.call.as_deref()).collect();
    let renamed = renamed(&named, &calls);
    message.list(NAME, |list| {
        for detail in &own {
            match detail.call.as_deref().and_then(|call| renamed.get(call)) {
                Some(id) => list.raw(&detail.of_call(id)),
                None => list.raw(detail.json.as_str().as_bytes()),
            }
        }
    });
}

/// The ids that calls have got in place of those that pieces name, because earlier calls had the same. Where
/// one has, all that begin alike are given out in their order: another call may have got the id that a piece
/// names. Ids that are not of calls, such as OpenAI's of its reasoning, stay.
fn renamed<'a>(named: &[&'a str], calls: &'a [Cow<'_, str>]) -> HashMap<&'a str, &'a str> {
    let known: HashSet<&str> = calls.iter().map(|id| &**id).collect();
    let lost = named.iter().filter(|id| !known.contains(**id));
    let lost: HashSet<String> = lost.map(|id| stem_of_call(id)).collect();
    let mut alike: HashMap<String, VecDeque<&'a str>> = HashMap::new();
    for call in calls {
        alike.entry(stem_of_call(call)).or_default().push_back(call);
    }
    let mut renamed = HashMap::new();
    for id in named {
        let stem = stem_of_call(id);
        if let Entry::Vacant(place) = renamed.entry(*id)
            && lost.contains(&stem)
            && let Some(call) = alike.get_mut(&stem).and_then(VecDeque::pop_front)
        {
            place.insert(call);
        }
    }
    renamed
}

// === impl Detail ===

impl Detail {
    /// What OpenRouter has told, unless the client has made something else of it.
    fn of(block: &Block) -> Option<Self> {
        let Block::RedactedReasoning(data) = block else { return None };
        let json = Json::parse(data.strip_prefix(OF_OPENROUTER)?)?;
        let call = edit::Object::parse(json.as_str().as_bytes()).ok()?.text("id").map(Cow::into_owned);
        Some(Self { json, call })
    }

    /// The same of another call.
    fn of_call(&self, id: &str) -> Vec<u8> {
        let json = self.json.as_str().as_bytes();
        let place = edit::Object::parse(json)
            .ok()
            .and_then(|object| object.place("id").map(|(at, id)| (at, id.len())));
        let Some((at, length)) = place else { return json.to_vec() };
        let (before, after) = (json.get(..at), json.get(at + length..));
        let id = serde_json::Value::from(id).to_string();
        [before.unwrap_or_default(), id.as_bytes(), after.unwrap_or_default()].concat()
    }
}

// === impl Details ===

impl Details {
    /// Takes what a message or a chunk has of it. The rest, most of which is told in plain words, too, is
    /// named.
    pub(super) fn take(&mut self, message: &mut Fields, losses: &mut Losses) {
        for detail in message.any_list(NAME) {
            let Some(piece) = Piece::of(detail) else {
                losses.add(NAME);
                continue;
            };
            match self.pieces.last_mut().filter(|last| last.goes_on_with(&piece)) {
                Some(last) => {
                    self.kept -= last.weight();
                    last.join(piece, losses);
                    self.kept += last.weight();
                }
                None => {
                    self.kept += piece.weight();
                    self.pieces.push(piece);
                }
            }
        }
    }

    /// How much is kept, in bytes.
    pub(super) fn kept(&self) -> usize {
        self.kept
    }

    /// All of it, as the common form has it. A text that nobody has signed is told in plain words alone.
    pub(super) fn told(self, losses: &mut Losses) -> Vec<String> {
        let (told, others): (Vec<_>, Vec<_>) = self.pieces.into_iter().partition(Piece::is_whole);
        if !others.is_empty() {
            losses.add(NAME);
        }
        told.into_iter().map(|Piece(members)| format!("{OF_OPENROUTER}{}", Value::Object(members))).collect()
    }
}

// === impl Piece ===

impl Piece {
    /// A piece of an answer, if it may be wanted back.
    fn of(detail: Value) -> Option<Self> {
        let Value::Object(members) = detail else { return None };
        let piece = Self(members);
        let may_be_signed = piece.text("format").starts_with(OF_CLAUDE);
        (piece.is_whole() || piece.is_text() && may_be_signed).then_some(piece)
    }

    /// The memory that it takes, in bytes.
    fn weight(&self) -> usize {
        Value::weight_of(&self.0)
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    fn text(&self, name: &str) -> &str {
        self.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn is_text(&self) -> bool {
        self.text("type") == "reasoning.text"
    }

    fn is_signed(&self) -> bool {
        !self.text("signature").is_empty()
    }

    fn is_whole(&self) -> bool {
        self.text("type") == "reasoning.encrypted" || self.is_text() && self.is_signed()
    }

    /// Whether what comes in a stream is more of this text, or its signature.
    fn goes_on_with(&self, more: &Self) -> bool {
        let place = self.get("index");
        self.is_text() && !self.is_signed() && more.is_text() && place.is_some() && place == more.get("index")
    }

    /// Takes more of this text. What else is said of it has been said at its beginning.
    fn join(&mut self, more: Self, losses: &mut Losses) {
        for (name, value) in more.0 {
            let known = self.0.iter_mut().find(|(known, _)| *known == name).map(|(_, value)| value);
            match (known, value) {
                (Some(Value::String(text)), Value::String(more)) if name == "text" => text.push_str(&more),
                (_, Value::Null) => {}
                (Some(known), value) if known.is_null() || name == "signature" => *known = value,
                (None, value) if matches!(name.as_str(), "text" | "signature") => self.0.push((name, value)),
                (Some(_), _) => {}
                (None, _) => losses.add(NAME),
            }
        }
    }
}

//! What OpenRouter tells of reasoning that the model's maker has encrypted, and wants back: Gemini refuses
//! its own calls without.
//!
//! Each piece is carried whole, as encrypted reasoning of a family of its own, which clients of other
//! dialects give back. It names the call that it belongs to, so that it may stand anywhere: after the calls
//! it is not taken for the answer.

use crate::codec::{Fields, Object, Value};
use crate::ir::{Block, Json, Losses};

/// What it begins with in the common form. OpenRouter's own answers to Messages have texts that begin with
/// `openrouter.reasoning:`, which pass.
pub(in crate::dialect) const OF_OPENROUTER: &str = "openrouter.details.";

/// Where it stands.
pub(super) const NAME: &str = "reasoning_details";

/// Whether reasoning was told so.
pub(in crate::dialect) fn is_of_openrouter(data: &str) -> bool {
    data.starts_with(OF_OPENROUTER)
}

/// Takes what is encrypted, as the common form has it. The rest, most of which is told in plain words, too,
/// is named.
pub(super) fn take(message: &mut Fields, losses: &mut Losses) -> Vec<String> {
    let is_encrypted =
        |detail: &Value| detail.get("type").and_then(Value::as_str) == Some("reasoning.encrypted");
    let (encrypted, others): (Vec<_>, Vec<_>) = message.any_list(NAME).into_iter().partition(is_encrypted);
    if !others.is_empty() {
        losses.add(NAME);
    }
    encrypted.iter().map(|detail| format!("{OF_OPENROUTER}{detail}")).collect()
}

/// Writes what a message has of it.
pub(super) fn write(message: &mut Object<'_>, content: &[Block]) {
    let own: Vec<_> = content.iter().filter_map(own).collect();
    if !own.is_empty() {
        message.list(NAME, |list| own.iter().for_each(|detail| list.raw(detail.as_str().as_bytes())));
    }
}

/// What OpenRouter has told, unless the client has made something else of it.
fn own(block: &Block) -> Option<Json> {
    match block {
        Block::RedactedReasoning(data) => {
            Json::parse(data.strip_prefix(OF_OPENROUTER)?).filter(Json::is_object)
        }
        _ => None,
    }
}

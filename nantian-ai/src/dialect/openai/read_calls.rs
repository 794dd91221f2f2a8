//! The calls that a client gives back, each with its signature where it is one of Gemini's.

use std::collections::{HashMap, HashSet};

use super::signatures;
use crate::codec::{Fields, Invalid, Value};
use crate::dialect::anthropic;
use crate::dialect::responses::arguments_of;
use crate::ir::{Block, CacheLife, Losses, Reasoning, ToolCall, given_arguments};

/// What a model has thought before it calls. A signature that stands at a call is taken from here, where the
/// client has given it back, too.
pub(super) struct Thoughts {
    blocks: Vec<Option<Block>>,
    by_signature: HashMap<String, usize>,
}

/// Reads calls, and which of them a beginning ends with that is to be kept; those of `text_tools` have any
/// text for their arguments.
pub(super) fn read_calls(
    calls: Vec<Value>,
    text_tools: &HashSet<String>,
    thoughts: &mut Thoughts,
    losses: &mut Losses,
) -> Result<Vec<(Block, Option<CacheLife>)>, Invalid> {
    let mut read = Vec::with_capacity(calls.len());
    for call in calls {
        let mut call = Fields::of(call, "messages.tool_calls")?;
        let id = call.required_text("id")?;
        if call.text("type")?.is_some_and(|kind| kind != "function") {
            return Err(Invalid::new("messages.tool_calls.type", "is not `function`"));
        }
        let mut function = call
            .object("function", "messages.tool_calls.function")?
            .ok_or_else(|| Invalid::new("messages.tool_calls.function", "is missing"))?;
        let name = function.required_text("name")?;
        let text = function.text("arguments")?.unwrap_or_default();
        let arguments = match text_tools.contains(&name) {
            true => arguments_of(&text),
            false => given_arguments(&text, "messages.tool_calls.function.arguments", losses),
        };
        let signature = signatures::take(&mut call, "messages.tool_calls.extra_content", losses);
        read.extend(signature.map(|signature| (thoughts.signed(signature), None)));
        let cached = anthropic::take_cache_control(&mut call, losses);
        read.push((Block::ToolCall(ToolCall { id, name, arguments }), cached));
        function.rest(losses);
        // Of an answer that was streamed.
        call.ignore(&["index"]);
        call.rest(losses);
    }
    Ok(read)
}

// === impl Thoughts ===

impl Thoughts {
    pub(super) fn of(blocks: Vec<Block>) -> Self {
        let signed = blocks.iter().enumerate().rev().filter_map(|(at, block)| match block {
            Block::Reasoning(reasoning) => Some((reasoning.signature.clone()?, at)),
            _ => None,
        });
        Self { by_signature: signed.collect(), blocks: blocks.into_iter().map(Some).collect() }
    }

    /// What has been signed so and is told here no more, or a signature alone.
    fn signed(&mut self, signature: String) -> Block {
        let told = self.by_signature.remove(&signature).and_then(|at| self.blocks.get_mut(at)?.take());
        told.unwrap_or(Block::Reasoning(Reasoning { text: String::new(), signature: Some(signature) }))
    }

    /// What no call has taken.
    pub(super) fn into_blocks(self) -> Vec<Block> {
        self.blocks.into_iter().flatten().collect()
    }
}

//! A Messages reply into the common form.

use super::read_content::read_block;
use crate::codec::{Fields, Value};
use crate::ir::{Fault, Losses, Reply, Stop, Tier, Tokens};

/// What a reply says that changes nothing about it.
pub(super) const ABOUT_ITSELF: [&str; 2] = ["role", "type"];

pub(crate) fn decode(body: &[u8]) -> Result<(Reply, Losses), Fault> {
    let mut fields = Fields::parse_unless_error(body)?;
    let mut losses = Losses::default();
    let Some(Value::Array(blocks)) = fields.take("content") else {
        return Err(Fault::unreadable());
    };
    let mut content = Vec::with_capacity(blocks.len());
    for block in blocks {
        let mut block = Fields::lenient(block);
        let kind = block.any_text("type").unwrap_or_default();
        match read_block(&kind, &mut block, &mut None, &mut losses) {
            Ok(Some(read)) => {
                block.rest(&mut losses);
                content.push(read);
            }
            // Blocks of tools that the provider has run itself, and whatever it adds.
            Ok(None) | Err(_) => losses.add_below("content", &kind),
        }
    }
    let mut usage = Counts::default();
    usage.merge(&mut fields.any_object("usage"));
    let sequence = fields.any_text("stop_sequence");
    let reply = Reply {
        id: fields.some_text("id"),
        model: fields.some_text("model"),
        content,
        logprobs: Vec::new(),
        stop: read_stop(fields.any_text("stop_reason").as_deref(), sequence),
        tokens: usage.tokens(),
    };
    fields.ignore(&ABOUT_ITSELF);
    fields.rest(&mut losses);
    Ok((reply, losses))
}

pub(super) fn read_stop(reason: Option<&str>, sequence: Option<String>) -> Stop {
    match reason {
        Some("max_tokens" | "model_context_window_exceeded") => Stop::Length,
        Some("stop_sequence") => Stop::Sequence(sequence),
        Some("tool_use") => Stop::ToolCalls,
        Some("refusal") => Stop::Refused,
        _ => Stop::End,
    }
}

/// The counts as Anthropic has them: what comes from or goes into a cache is not part of the input.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    input: Option<u64>,
    read: Option<u64>,
    written: Option<u64>,
    output: Option<u64>,
    reasoning: Option<u64>,
    tier: Option<Tier>,
}

// === impl Counts ===

impl Counts {
    /// Takes over what is there; a stream tells some counts early and some late.
    pub(super) fn merge(&mut self, usage: &mut Fields) {
        let mut details = usage.any_object("output_tokens_details");
        self.input = usage.any_count("input_tokens").or(self.input);
        self.read = usage.any_count("cache_read_input_tokens").or(self.read);
        self.written = usage.any_count("cache_creation_input_tokens").or(self.written);
        self.output = usage.any_count("output_tokens").or(self.output);
        self.reasoning = details.any_count("thinking_tokens").or(self.reasoning);
        self.tier = match usage.any_text("service_tier").as_deref() {
            Some("standard") => Some(Tier::Default),
            Some("priority") => Some(Tier::Priority),
            _ => self.tier,
        };
    }

    pub(super) fn tokens(&self) -> Tokens {
        let cached = self.read.unwrap_or(0).saturating_add(self.written.unwrap_or(0));
        Tokens {
            input: self.input.map(|input| input.saturating_add(cached)),
            cache_read: self.read,
            cache_write: self.written,
            output: self.output,
            reasoning: self.reasoning,
            tier: self.tier,
        }
    }
}

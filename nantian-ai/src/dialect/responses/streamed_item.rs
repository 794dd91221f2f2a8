//! What has come of an item in a stream.

use std::collections::VecDeque;

use super::item::Identity;
use crate::ir::{Block, Json, Part};

#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Its place, if it is told any.
    pub(super) index: Option<u64>,
    pub(super) identity: Identity,
    /// Of a tool call: the part that it becomes.
    pub(super) call: Option<Part>,
    /// What has come and has not been told.
    pub(super) waiting: VecDeque<Piece>,
    /// The part of its summary that came last.
    pub(super) part: Option<u64>,
    /// How many parts of its content have been announced. Their places do not tell: vLLM counts on with each
    /// piece of one.
    pub(super) parts: u64,
    pub(super) said: bool,
    pub(super) done: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Piece {
    Say(Kind, String),
    Logprobs(Vec<Json>),
    Signature(String),
    Redacted(String),
}

/// What is being said: texts and refusals by their part of the item.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Text(u64),
    Refusal(u64),
    Reasoning,
    Call,
}

// === impl Item ===

impl Item {
    /// How much it takes beside what waits, in bytes.
    pub(super) fn named(&self) -> usize {
        let call = match &self.call {
            Some(Part::ToolCall { id, name }) => id.len() + name.len(),
            _ => 0,
        };
        self.identity.kept() + call
    }

    /// How much waits behind so many pieces, in bytes.
    pub(super) fn weight_after(&self, pieces: usize) -> usize {
        self.waiting.iter().skip(pieces).map(Piece::weight).sum()
    }

    /// Keeps the log probabilities of what comes next, if there are any.
    pub(super) fn weigh(&mut self, logprobs: Vec<Json>) {
        if !logprobs.is_empty() {
            self.waiting.push_back(Piece::Logprobs(logprobs));
        }
    }

    /// Takes what the complete item says beyond its pieces.
    pub(super) fn take(&mut self, at: u64, block: Block, is_call: bool) {
        match block {
            Block::Reasoning(reasoning) => {
                if !self.said && !reasoning.text.is_empty() {
                    self.waiting.push_back(Piece::Say(Kind::Reasoning, reasoning.text));
                }
                self.waiting.extend(reasoning.signature.map(Piece::Signature));
            }
            Block::RedactedReasoning(data) => self.waiting.push_back(Piece::Redacted(data)),
            _ if self.said => {}
            Block::Text(text) => self.waiting.push_back(Piece::Say(Kind::Text(at), text)),
            Block::Refusal(text) => self.waiting.push_back(Piece::Say(Kind::Refusal(at), text)),
            Block::ToolCall(call) => {
                if !is_call {
                    self.call = Some(Part::ToolCall { id: call.id, name: call.name });
                }
                self.waiting.push_back(Piece::Say(Kind::Call, call.arguments.to_string()));
            }
            _ => {}
        }
    }
}

// === impl Piece ===

impl Piece {
    /// The memory that it takes, in bytes.
    pub(super) fn weight(&self) -> usize {
        let beside = match self {
            Self::Say(_, text) | Self::Signature(text) | Self::Redacted(text) => text.len(),
            Self::Logprobs(logprobs) => Json::weight(logprobs),
        };
        size_of::<Self>() + beside
    }
}

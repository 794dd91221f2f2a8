//! What is written of a conversation.

use crate::ir::{Block, Message, Role};

/// What is written of a message.
pub(super) struct Turn<'a> {
    pub(super) role: Role,
    pub(super) content: &'a [Block],
}

// === impl Turn ===

impl<'a> Turn<'a> {
    /// All of a conversation but what the model has only thought, as it has where its limit cuts a turn:
    /// reasoning is refused with nothing after it. What comes after it may be in the next message.
    pub(super) fn all(messages: &'a [Message]) -> Vec<Self> {
        let mut goes_on = false;
        let turns = messages.iter().rev().map(|message| {
            let (role, content) = (message.role, message.content.as_slice());
            let until = match role {
                Role::Assistant if !goes_on => content.iter().rposition(is_said).map_or(0, |last| last + 1),
                _ => content.len(),
            };
            // Of a user who says nothing there is no item.
            goes_on = match role {
                Role::Assistant => goes_on || until > 0,
                Role::User => goes_on && content.is_empty(),
                Role::System => false,
            };
            Self { role, content: content.get(..until).unwrap_or_default() }
        });
        let mut turns: Vec<_> = turns.collect();
        turns.reverse();
        turns
    }

    /// Whether somebody says something in it.
    pub(super) fn says(&self) -> bool {
        match self.role {
            Role::System => true,
            Role::User => !self.content.is_empty(),
            Role::Assistant => self.content.iter().any(is_said),
        }
    }
}

/// Whether a block is more than what the model has thought.
fn is_said(block: &Block) -> bool {
    match block {
        Block::Text(text) | Block::Refusal(text) => !text.is_empty(),
        block => matches!(block, Block::ToolCall(_)),
    }
}

//! A conversation as Messages has it.

use std::borrow::Cow;

use super::Traits;
use super::write_request::{ONLY_JSON, write_cache_control, write_members};
use crate::codec::{BEGINNING, Invalid, List, said_by_user, text_of};
use crate::dialect::{bedrock, gemini, openai, responses};
use crate::ir::{Block, CacheLife, Document, Losses, Message, Output, Request, Role, Source};

/// The system prompt, and the turns: neighbours of one role are one turn, and results come first in theirs.
///
/// What the system says later keeps its place, for beginnings are what providers keep of conversations, and
/// the newest of these models trust their own reasoning only after the beginning that it had. It stands
/// between what a user and what the model says.
pub(super) struct Turns<'r> {
    pub(super) system: Vec<Said<'r>>,
    pub(super) turns: Vec<Turn<'r>>,
    /// What the system has said since the model has.
    later: Vec<Said<'r>>,
}

/// A turn that Anthropic can read.
pub(super) struct Turn<'r> {
    role: Role,
    said: Vec<Said<'r>>,
}

/// A block, and whether a beginning that is to be kept ends there.
pub(super) struct Said<'r> {
    block: Cow<'r, Block>,
    cached: Option<CacheLife>,
}

/// Whether reasoning is of this family: it takes back only what it has signed or encrypted.
pub(super) fn is_trusted(block: &Block) -> bool {
    match block {
        Block::Reasoning(reasoning) => reasoning.signature.as_deref().is_some_and(|signature| {
            !responses::is_of_responses(signature) && !gemini::is_of_gemini(signature)
        }),
        Block::RedactedReasoning(data) => !bedrock::is_of_bedrock(data) && !openai::is_of_openrouter(data),
        _ => false,
    }
}

// === impl Turns ===

impl<'r> Turns<'r> {
    /// The conversation of a request; `schema` is what the system says of the answer.
    pub(super) fn of(
        request: &'r Request,
        traits: Traits,
        schema: Option<&str>,
        losses: &mut Losses,
    ) -> Result<Self, Invalid> {
        let mut turns = Self { system: Vec::new(), turns: Vec::new(), later: Vec::new() };
        for message in &request.messages {
            let said = turns.read(message, losses)?;
            match message.role {
                _ if said.is_empty() => {}
                Role::System if turns.turns.is_empty() => turns.system.extend(said),
                Role::System if traits.takes_later_system => turns.later.extend(said),
                Role::System => turns.add(Role::User, as_user(said, losses)),
                Role::User => turns.add(Role::User, said),
                Role::Assistant => {
                    turns.place_later(losses);
                    turns.add(Role::Assistant, said);
                }
            }
        }
        turns.place_later(losses);
        // A system prompt alone is no conversation there.
        if turns.turns.is_empty() {
            turns.add(Role::User, vec![Said::new(Block::Text(BEGINNING.to_owned()), None)]);
        }
        let only_json = matches!(request.output, Some(Output::Json)).then_some(ONLY_JSON);
        let of_the_answer = schema.or(only_json).map(|text| Said::new(Block::Text(text.to_owned()), None));
        turns.system.extend(of_the_answer);
        for turn in &mut turns.turns {
            turn.said.sort_by_key(|said| !matches!(*said.block, Block::ToolResult(_)));
        }
        // The model goes on with what it has said last, which must not end with space.
        if let Some(Turn { role: Role::Assistant, said }) = turns.turns.last_mut()
            && let Some(said) = said.last_mut()
            && let Block::Text(text) = &*said.block
        {
            said.block = Cow::Owned(Block::Text(text.trim_end().to_owned()));
        }
        if request.keeps_all() {
            // The system prompt on its own, for conversations that go on otherwise.
            let last = turns.turns.last_mut().and_then(|turn| turn.said.last_mut());
            let ends = [turns.system.last_mut(), last].into_iter().flatten();
            ends.for_each(|said| said.cached = Some(CacheLife::Usual));
        }
        Ok(turns)
    }

    /// What a message says that Anthropic can read.
    fn read(&mut self, message: &'r Message, losses: &mut Losses) -> Result<Vec<Said<'r>>, Invalid> {
        let is_system = message.role == Role::System;
        let mut read: Vec<Said<'_>> = Vec::new();
        for (at, block) in message.content.iter().enumerate() {
            let cached = message.cached_up_to(at);
            match block {
                block if block.is_blank() || (is_system && !matches!(block, Block::Text(_))) => {
                    // What is kept ends with what is said before.
                    let before = self.turns.last_mut().and_then(|turn| turn.said.last_mut());
                    if let (Some(life), Some(last)) = (cached, read.last_mut().or(before)) {
                        last.cached = Some(life);
                    }
                    continue;
                }
                Block::Reasoning(_) | Block::RedactedReasoning(_) if !is_trusted(block) => {
                    losses.add("messages.reasoning");
                    continue;
                }
                Block::Document(document) => check(document)?,
                _ => {}
            }
            read.push(Said { block: Cow::Borrowed(block), cached });
        }
        Ok(read)
    }

    fn add(&mut self, role: Role, said: Vec<Said<'r>>) {
        match self.turns.last_mut().filter(|last| last.role == role) {
            Some(last) => last.said.extend(said),
            None => self.turns.push(Turn { role, said }),
        }
    }

    /// Places what the system has said: Anthropic takes it after a user's turn alone.
    fn place_later(&mut self, losses: &mut Losses) {
        let said = std::mem::take(&mut self.later);
        if said.is_empty() {
            return;
        }
        if self.turns.last().is_some_and(|last| last.role == Role::User) {
            self.add(Role::System, said);
        } else {
            self.add(Role::User, as_user(said, losses));
        }
    }
}

/// What the system says, where only a user can say it.
fn as_user<'r>(said: Vec<Said<'r>>, losses: &mut Losses) -> Vec<Said<'r>> {
    losses.add("messages.system");
    let marked = |said: Said<'r>| match &*said.block {
        Block::Text(text) => Said::new(Block::Text(said_by_user(text)), said.cached),
        _ => said,
    };
    said.into_iter().map(marked).collect()
}

fn check(document: &Document) -> Result<(), Invalid> {
    match &document.source {
        Source::Inline(media) if media.media_type != "application/pdf" && text_of(document).is_none() => {
            Err(Invalid::new("messages.content.document", "is neither PDF nor text"))
        }
        _ => Ok(()),
    }
}

// === impl Turn ===

impl Turn<'_> {
    pub(super) fn write(&self, list: &mut List<'_>) {
        list.object(|message| {
            message.text(
                "role",
                match self.role {
                    Role::Assistant => "assistant",
                    Role::System => "system",
                    Role::User => "user",
                },
            );
            message.list("content", |list| self.said.iter().for_each(|said| said.write(list)));
        });
    }
}

// === impl Said ===

impl Said<'_> {
    fn new(block: Block, cached: Option<CacheLife>) -> Self {
        Self { block: Cow::Owned(block), cached }
    }

    pub(super) fn write(&self, list: &mut List<'_>) {
        list.object(|item| {
            write_members(item, &self.block);
            // Reasoning is kept with what follows it.
            if !matches!(*self.block, Block::Reasoning(_) | Block::RedactedReasoning(_)) {
                write_cache_control(item, self.cached);
            }
        });
    }
}

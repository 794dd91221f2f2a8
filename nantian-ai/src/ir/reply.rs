//! An answer as a whole.

use super::{Block, Json};

/// An answer.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "codecs build it field by field")]
pub struct Reply {
    /// The id that the provider gave it.
    pub id: Option<String>,
    /// The model that the provider says has written it.
    pub model: Option<String>,
    /// What it says.
    pub content: Vec<Block>,
    /// The log probabilities of the tokens of its text, as OpenAI writes them, if they were asked for.
    pub logprobs: Vec<Json>,
    /// Why it ended.
    pub stop: Stop,
    /// What it took.
    pub tokens: Tokens,
}

/// Why an answer ended.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Stop {
    /// It is complete. Reasons that are not known count as this one.
    #[default]
    End,
    /// It is as long as was allowed, or as the model can.
    Length,
    /// By a stop sequence, if the provider says which.
    Sequence(Option<String>),
    /// For the results of tools.
    ToolCalls,
    /// The provider or the model refuses to go on.
    Refused,
}

/// Token counts, as far as a provider tells them. Later ones replace earlier ones field by field.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "codecs build it field by field")]
pub struct Tokens {
    /// What went in, from and into caches included.
    pub input: Option<u64>,
    /// The part of `input` that came from a cache.
    pub cache_read: Option<u64>,
    /// The part of `input` that went into a cache.
    pub cache_write: Option<u64>,
    /// What came out, reasoning included.
    pub output: Option<u64>,
    /// The part of `output` that is reasoning.
    pub reasoning: Option<u64>,
    /// How fast, and at which price, they were served.
    pub tier: Option<Tier>,
}

/// What providers call a service tier, in OpenAI's words.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Tier {
    /// As usual.
    Default,
    /// Slower.
    Flex,
    /// By capacity that is paid for ahead.
    Scale,
    /// Before others.
    Priority,
    /// `fast`
    Fast,
    /// `ultrafast`
    Ultrafast,
}

// === impl Stop ===

impl Stop {
    /// The reason for an answer that calls tools: some providers say only that it is complete.
    pub(crate) fn with_calls(self, calls: bool) -> Self {
        if calls && self == Self::End { Self::ToolCalls } else { self }
    }

    /// The reason for an answer in which the model declines to give one, which to OpenAI is complete.
    pub(crate) fn with_refusal(self, refuses: bool) -> Self {
        if refuses && self == Self::End { Self::Refused } else { self }
    }
}

// === impl Tokens ===

impl Tokens {
    /// Takes over what `later` tells.
    pub fn merge(&mut self, later: Self) {
        self.input = later.input.or(self.input);
        self.cache_read = later.cache_read.or(self.cache_read);
        self.cache_write = later.cache_write.or(self.cache_write);
        self.output = later.output.or(self.output);
        self.reasoning = later.reasoning.or(self.reasoning);
        self.tier = later.tier.or(self.tier);
    }

    /// The part of `input` that neither came from a cache nor went into one.
    pub(crate) fn uncached(&self) -> Option<u64> {
        let cached = self.cache_read.unwrap_or(0).saturating_add(self.cache_write.unwrap_or(0));
        self.input.map(|input| input.saturating_sub(cached))
    }
}

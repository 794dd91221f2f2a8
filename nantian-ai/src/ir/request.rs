//! A conversation that is to be continued, and how.

use super::{Block, Detail, Image, Json};

/// A request.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "codecs build it field by field; a new field must not be forgotten"
)]
pub struct Request {
    /// The model.
    pub model: String,
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// What the model may call.
    pub tools: Vec<Tool>,
    /// Whether it must.
    pub tool_choice: Option<ToolChoice>,
    /// Whether it may call several at once.
    pub parallel_tools: Option<bool>,
    /// The form of the answer.
    pub output: Option<Output>,
    /// How long the answer is to be; `None` is as usual.
    pub verbosity: Option<Verbosity>,
    /// How much to think before answering.
    pub thinking: Option<Thinking>,
    /// Whether the client wants to see what is thought.
    pub shows_thinking: bool,
    /// The most tokens of the answer, reasoning included.
    pub max_output: Option<u64>,
    /// The temperature, 0 to 2.
    pub temperature: Option<f64>,
    /// The share of probability that tokens are drawn from.
    pub top_p: Option<f64>,
    /// How many tokens are drawn from.
    pub top_k: Option<u64>,
    /// How much to avoid what was said often.
    pub frequency_penalty: Option<f64>,
    /// How much to avoid what was said at all.
    pub presence_penalty: Option<f64>,
    /// Makes the answer repeatable where the provider can.
    pub seed: Option<i64>,
    /// What ends the answer.
    pub stop: Vec<String>,
    /// Who asks, as an opaque id.
    pub user: Option<String>,
    /// The same by OpenAI's newer name (`safety_identifier`), which may be said beside the older.
    pub safety_identifier: Option<String>,
    /// That the log probability of each token be told, and of how many likelier ones beside it.
    pub logprobs: Option<u64>,
    /// What only OpenAI knows.
    pub openai: OpenAiOptions,
    /// What beginnings of conversations are kept under, in the words of OpenAI (`prompt_cache_key`): that
    /// they shall be.
    pub cache_key: Option<String>,
    /// What the provider checks of what is said, in the words of Bedrock's `guardrailConfig`: only it has
    /// them.
    pub guardrail: Option<Json>,
    /// Features of Claude that are asked for by their names, beside the body where Anthropic is asked
    /// (`anthropic-beta`).
    pub betas: Vec<String>,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Whether a stream tells its usage.
    pub stream_usage: bool,
}

/// What is asked of OpenAI alone, in the words that its two dialects share.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "codecs build it field by field")]
pub struct OpenAiOptions {
    /// What the stored answer is to be found by (`metadata`).
    pub metadata: Option<Json>,
    /// How fast, and for how much (`service_tier`); `None` is as usual.
    pub service_tier: Option<String>,
    /// How long beginnings are kept (`prompt_cache_retention`).
    pub cache_retention: Option<String>,
    /// Whether the answer is kept for its operator, if a client of Chat Completions says so (`store`).
    pub store: Option<bool>,
}

/// A message.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "codecs build it field by field")]
pub struct Message {
    /// Who said it.
    pub role: Role,
    /// What was said. The results of tools are what a user says.
    pub content: Vec<Block>,
    /// Up to where it is to be kept by the provider, in ascending order.
    pub cache_points: Vec<CachePoint>,
}

/// Up to here a conversation is to be kept, so that another one with the same beginning costs less.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "a place and a time are all there is")]
pub struct CachePoint {
    /// The index of the last block that is kept.
    pub block: usize,
    /// How long.
    pub life: CacheLife,
}

/// How long a beginning is kept since it was last used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "codecs must know each")]
pub enum CacheLife {
    /// As long as is usual, about five minutes.
    Usual,
    /// An hour.
    Hour,
}

/// Who said something.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "there are no others")]
pub enum Role {
    /// The operator of the application.
    System,
    /// The user, and the tools.
    User,
    /// The model.
    Assistant,
}

/// A tool.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "codecs build it field by field")]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// The JSON Schema of its arguments.
    pub schema: Json,
    /// Whether arguments are guaranteed to fit the schema.
    pub strict: Option<bool>,
    /// Whether the tools up to this one are to be kept by the provider, and how long.
    pub cached: Option<CacheLife>,
}

/// Whether the model must call a tool.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "codecs must know each")]
pub enum ToolChoice {
    /// It may.
    Auto,
    /// It must not.
    Never,
    /// It must call one.
    Any,
    /// It must call this one.
    Tool(String),
}

/// The form of an answer.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "codecs must know each")]
pub enum Output {
    /// Any JSON.
    Json,
    /// JSON of a schema.
    Schema {
        /// A label.
        name: Option<String>,
        /// What it is, for the model.
        description: Option<String>,
        /// The JSON Schema.
        schema: Json,
        /// Whether the answer is guaranteed to fit.
        strict: Option<bool>,
    },
}

/// How long an answer is to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "codecs must know each")]
pub enum Verbosity {
    /// `low`
    Low,
    /// `high`
    High,
}

/// How much a model thinks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "codecs must know each")]
pub enum Thinking {
    /// Not at all.
    Off,
    /// As much as it likes.
    Adaptive,
    /// By a level.
    Effort(Effort),
    /// At most so many tokens.
    Budget(u64),
}

/// A level of thinking.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "codecs must know each")]
pub enum Effort {
    /// `minimal`
    Minimal,
    /// `low`
    Low,
    /// `medium`
    Medium,
    /// `high`
    High,
    /// `xhigh`
    XHigh,
    /// `max`
    Max,
}

// === impl Verbosity ===

impl Verbosity {
    /// Reads a level's name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::Low, Self::High].into_iter().find(|verbosity| verbosity.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::High => "high",
        }
    }
}

// === impl Effort ===

impl Effort {
    /// Reads a level's name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "minimal" => Self::Minimal,
            "low" => Self::Low,
            "medium" => Self::Medium,
            "high" => Self::High,
            "xhigh" => Self::XHigh,
            "max" => Self::Max,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::XHigh => "xhigh",
            Self::Max => "max",
        }
    }

    /// The tokens that a level stands for, where a provider wants a number.
    pub(crate) fn budget(self) -> u64 {
        match self {
            Self::Minimal => 1_024,
            Self::Low => 2_048,
            Self::Medium => 8_192,
            Self::High => 16_384,
            Self::XHigh => 32_768,
            Self::Max => 60_000,
        }
    }

    /// The level that a number of tokens stands for: the highest one that does not want more.
    pub(crate) fn of_budget(tokens: u64) -> Self {
        [Self::XHigh, Self::High, Self::Medium, Self::Low]
            .into_iter()
            .find(|effort| effort.budget() <= tokens)
            .unwrap_or(Self::Minimal)
    }
}

// === impl Message ===

impl Message {
    /// A message of which nothing is to be kept.
    pub fn new(role: Role, content: Vec<Block>) -> Self {
        Self { role, content, cache_points: Vec::new() }
    }

    /// Adds a block, which is to be kept with all before it for so long.
    pub(crate) fn push(&mut self, block: Block, cached: Option<CacheLife>) {
        let at = self.content.len();
        self.cache_points.extend(cached.map(|life| CachePoint { block: at, life }));
        self.content.push(block);
    }

    /// Has all of it kept for so long, if it says anything, and its last block does not say for how long.
    pub(crate) fn keep(&mut self, life: CacheLife) {
        if let Some(block) = self.content.len().checked_sub(1)
            && self.cached_up_to(block).is_none()
        {
            self.cache_points.push(CachePoint { block, life });
        }
    }

    /// How long the message is to be kept up to the block of this index.
    pub(crate) fn cached_up_to(&self, block: usize) -> Option<CacheLife> {
        let at = self.cache_points.partition_point(|point| point.block < block);
        self.cache_points.get(at).filter(|point| point.block == block).map(|point| point.life)
    }
}

// === impl Request ===

impl Request {
    pub(crate) fn blocks_mut(&mut self) -> impl Iterator<Item = &mut Block> {
        self.messages.iter_mut().flat_map(|message| message.content.iter_mut())
    }

    /// Whether the model is given reasoning back.
    pub(crate) fn has_reasoning(&self) -> bool {
        self.messages.iter().any(|message| message.content.iter().any(Block::is_reasoning))
    }

    /// Whether there are pictures in the conversation.
    pub(crate) fn has_pictures(&self) -> bool {
        self.pictures().next().is_some()
    }

    /// Whether the client says of a picture how closely it is to be looked at, in words that a dialect lacks.
    pub(crate) fn has_detail(&self, is_lacking: impl Fn(Detail) -> bool) -> bool {
        self.pictures().filter_map(|picture| picture.detail).any(is_lacking)
    }

    /// Whether one of these says something that is to be heard.
    pub(crate) fn has_audio_of(&self, is_asked_for: impl Fn(Role) -> bool) -> bool {
        let mut messages = self.messages.iter().filter(|message| is_asked_for(message.role));
        messages.any(|message| shown(&message.content).any(|block| matches!(block, Block::Audio(_))))
    }

    fn pictures(&self) -> impl Iterator<Item = &Image> {
        let shown = self.messages.iter().flat_map(|message| shown(&message.content));
        shown.filter_map(|block| match block {
            Block::Image(image) => Some(image),
            _ => None,
        })
    }

    /// Who asks, by whichever name.
    pub(crate) fn end_user(&self) -> Option<&str> {
        self.user.as_deref().or(self.safety_identifier.as_deref())
    }

    /// Whether the model must call a tool.
    pub(crate) fn must_call(&self) -> bool {
        !self.tools.is_empty() && matches!(self.tool_choice, Some(ToolChoice::Any | ToolChoice::Tool(_)))
    }

    /// Whether what is said so far is to be kept, and the client has not said up to where.
    pub(crate) fn keeps_all(&self) -> bool {
        self.cache_key.is_some() && !self.is_to_be_cached()
    }

    /// Whether a beginning of the conversation is to be kept.
    pub(crate) fn is_to_be_cached(&self) -> bool {
        self.tools.iter().any(|tool| tool.cached.is_some())
            || self.messages.iter().any(|message| !message.cache_points.is_empty())
    }
}

/// What is said, and in the place of results of tools what is in them.
fn shown(content: &[Block]) -> impl Iterator<Item = &Block> {
    content.iter().flat_map(|block| match block {
        Block::ToolResult(result) => result.content.as_slice(),
        block => std::slice::from_ref(block),
    })
}

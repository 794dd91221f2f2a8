//! An answer in pieces.

use super::{Fault, Json, Stop, Tokens};

/// One step of a streamed answer.
///
/// A stream is `Start`, then any number of parts, each `Open`, its deltas, `Close`, one after the other; then
/// `Stop`, and `End`. `Tokens` and `Ping` may come at any time. `Failed` may come instead of anything.
/// Nothing comes after `End` or `Failed`, and every stream has exactly one of them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The answer begins.
    Start {
        /// The id that the provider gave it.
        id: Option<String>,
        /// The model that the provider says is writing it.
        model: Option<String>,
    },
    /// A part begins.
    Open(Part),
    /// More of the part: text, reasoning, or arguments as they are written.
    Delta(String),
    /// The log probabilities of the tokens of the text that comes next, as OpenAI writes them.
    Logprobs(Vec<Json>),
    /// The signature of the reasoning that is open.
    Signature(String),
    /// The part is complete.
    Close,
    /// The provider is at work, and has nothing to say yet.
    Ping,
    /// Token counts.
    Tokens(Tokens),
    /// Why the answer ends.
    Stop(Stop),
    /// The answer is complete.
    End,
    /// There will be no complete answer.
    Failed(Fault),
}

/// What kind of block a part becomes.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Part {
    /// Text.
    Text,
    /// Text in which the model declines to answer.
    Refusal,
    /// Reasoning.
    Reasoning,
    /// Reasoning that only its provider can read. It has no deltas.
    RedactedReasoning(String),
    /// A tool call; its deltas are the JSON of its arguments.
    ToolCall {
        /// The id by which the result refers to it.
        id: String,
        /// The tool.
        name: String,
    },
}

// === impl Event ===

impl Event {
    /// Whether nothing can come after it.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::End | Self::Failed(_))
    }
}

// === impl Part ===

impl Part {
    /// How long it is beside its deltas, in bytes.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::RedactedReasoning(data) => data.len(),
            Self::ToolCall { id, name } => id.len() + name.len(),
            Self::Text | Self::Refusal | Self::Reasoning => 0,
        }
    }
}

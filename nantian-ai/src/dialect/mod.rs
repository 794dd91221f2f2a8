//! The dialects that clients and providers speak: one module each, all of them without IO.

use std::fmt;
use std::str::FromStr;

pub(crate) mod anthropic;
pub(crate) mod bedrock;
mod client;
pub(crate) mod gemini;
mod lenient;
pub(crate) mod ollama;
pub(crate) mod openai;
pub(crate) mod responses;
pub(crate) mod signal;
mod surface;

pub use self::client::{ClientDialect, ProvidersOnly};
pub(crate) use self::lenient::Few;
pub use self::surface::{Operation, Surface};

/// A family of HTTP APIs for language models.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Dialect {
    /// Anthropic: Messages.
    Anthropic,
    /// AWS Bedrock: Converse. Only providers speak it.
    Bedrock,
    /// Google's Gemini: `generateContent`. Only providers speak it.
    Gemini,
    /// Ollama's own API under `/api`.
    Ollama,
    /// OpenAI and what is compatible with it: Chat Completions, Completions, Embeddings.
    OpenAi,
    /// OpenAI Responses. Everything but a conversation is asked for as in [`OpenAi`](Self::OpenAi).
    Responses,
}

/// A dialect's name that is not known.
#[derive(Clone, Debug, thiserror::Error)]
#[error("unknown format `{name}`, expected openai, openai-responses, anthropic, bedrock, gemini or ollama")]
#[non_exhaustive]
pub struct UnknownDialect {
    /// The name as given.
    pub name: String,
}

/// How closely a picture is looked at, as it is named where a dialect has no words for it.
pub(crate) const DETAIL: &str = "messages.content.image.detail";

/// The member of a request that asks Bedrock for a guardrail, whatever the dialect: none but Bedrock's has a
/// word for it.
pub(crate) const GUARDRAIL: &str = "guardrailConfig";

/// A name as one segment of a path, whatever is in it.
pub(crate) fn segment(name: &str) -> String {
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            segment.push(byte.into());
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}

// === impl Dialect ===

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Anthropic, Self::Bedrock, Self::Gemini, Self::Ollama, Self::OpenAi, Self::Responses];

    /// The name, as configuration and errors have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::Bedrock => "bedrock",
            Self::Gemini => "gemini",
            Self::Ollama => "ollama",
            Self::OpenAi => "openai",
            Self::Responses => "openai-responses",
        }
    }

    /// The path under which the dialect's operations customarily are.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Anthropic | Self::OpenAi | Self::Responses => "/v1",
            Self::Bedrock => "",
            Self::Gemini => "/v1beta",
            Self::Ollama => "/api",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dialect {
    type Err = UnknownDialect;

    /// Reads a dialect's name in any case; `openai-compat` and `openai-compatible` are `openai`.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name.to_ascii_lowercase().as_str() {
            "anthropic" => Ok(Self::Anthropic),
            "bedrock" => Ok(Self::Bedrock),
            "gemini" => Ok(Self::Gemini),
            "ollama" => Ok(Self::Ollama),
            "openai" | "openai-compat" | "openai-compatible" => Ok(Self::OpenAi),
            "openai-responses" => Ok(Self::Responses),
            _ => Err(UnknownDialect { name: name.to_owned() }),
        }
    }
}

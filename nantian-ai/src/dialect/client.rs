//! The dialects that clients speak.

use super::Dialect;

/// A dialect that clients speak, so that requests are read and answers are written in it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ClientDialect {
    /// Anthropic: Messages.
    Anthropic,
    /// Ollama's own API.
    Ollama,
    /// OpenAI and what is compatible with it.
    OpenAi,
    /// OpenAI Responses.
    Responses,
}

/// A dialect that only providers speak.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("only providers speak {dialect}")]
#[non_exhaustive]
pub struct ProvidersOnly {
    /// The dialect.
    pub dialect: Dialect,
}

// === impl ClientDialect ===

impl ClientDialect {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Anthropic, Self::Ollama, Self::OpenAi, Self::Responses];
}

impl From<ClientDialect> for Dialect {
    fn from(dialect: ClientDialect) -> Self {
        match dialect {
            ClientDialect::Anthropic => Self::Anthropic,
            ClientDialect::Ollama => Self::Ollama,
            ClientDialect::OpenAi => Self::OpenAi,
            ClientDialect::Responses => Self::Responses,
        }
    }
}

impl TryFrom<Dialect> for ClientDialect {
    type Error = ProvidersOnly;

    /// # Errors
    /// [`ProvidersOnly`] for Bedrock and Gemini.
    fn try_from(dialect: Dialect) -> Result<Self, ProvidersOnly> {
        match dialect {
            Dialect::Anthropic => Ok(Self::Anthropic),
            Dialect::Ollama => Ok(Self::Ollama),
            Dialect::OpenAi => Ok(Self::OpenAi),
            Dialect::Responses => Ok(Self::Responses),
            Dialect::Bedrock | Dialect::Gemini => Err(ProvidersOnly { dialect }),
        }
    }
}

impl std::fmt::Display for ClientDialect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(Dialect::from(*self).name())
    }
}

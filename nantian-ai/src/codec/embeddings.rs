//! Vectors of texts: OpenAI's `/embeddings`, Ollama's `/api/embed` and `/api/embeddings`, Gemini's
//! `batchEmbedContents`, and Bedrock's `InvokeModel` in the forms of Titan, Nova and Cohere.

use bytes::Bytes;

use super::{Defaults, Invalid, Value};
use crate::dialect::{ClientDialect, Dialect, bedrock, gemini, ollama, openai};
use crate::ir::{EmbedRequest, Embeddings, Fault, Losses, VectorForm};

/// Where the texts are in every dialect that clients speak.
const INPUT: &str = "input";

// === impl Dialect ===

/// Embeddings.
impl Dialect {
    /// Whether providers of this dialect make vectors of texts.
    pub fn embeds(self) -> bool {
        matches!(self, Self::Bedrock | Self::Gemini | Self::Ollama | Self::OpenAi | Self::Responses)
    }

    /// Writes a request for vectors. What the dialect cannot say is named.
    ///
    /// # Errors
    /// [`Invalid`] in a dialect that has none, and of what a model cannot be asked.
    pub fn encode_embed_request(self, request: &EmbedRequest) -> Result<(Bytes, Losses), Invalid> {
        let (body, losses) = match self {
            Self::OpenAi | Self::Responses => openai::embeddings::encode_request(request),
            Self::Ollama => ollama::embeddings::encode_request(request),
            Self::Gemini => gemini::embeddings::encode_request(request)?,
            Self::Bedrock => bedrock::embeddings::encode_request(request)?,
            Self::Anthropic => return Err(unknown(self)),
        };
        Ok((Bytes::from(body), losses))
    }

    /// Reads vectors.
    ///
    /// # Errors
    /// What the provider reports instead, or that these are none.
    pub fn decode_embeddings(self, body: &[u8]) -> Result<Embeddings, Fault> {
        match self {
            Self::OpenAi | Self::Responses => openai::embeddings::decode_reply(body),
            Self::Ollama => ollama::embeddings::decode_reply(body),
            Self::Gemini => gemini::embeddings::decode_reply(body),
            Self::Bedrock => bedrock::embeddings::decode_reply(body),
            Self::Anthropic => Err(Fault::unreadable()),
        }
    }
}

// === impl ClientDialect ===

/// Embeddings.
impl ClientDialect {
    /// Reads a request for vectors. What the common form cannot hold is named.
    ///
    /// # Errors
    /// [`Invalid`] names a field that breaks the dialect's rules, or that no other dialect can stand for; and
    /// every request in Anthropic's, which has none.
    pub fn decode_embed_request(self, body: &[u8]) -> Result<(EmbedRequest, Losses), Invalid> {
        match self {
            Self::OpenAi | Self::Responses => openai::embeddings::decode_request(body),
            Self::Ollama => ollama::embeddings::decode_request(body),
            Self::Anthropic => Err(unknown(self.into())),
        }
    }

    /// Writes vectors as a client of this dialect has asked for them.
    pub fn encode_embeddings(self, reply: &Embeddings, form: VectorForm, defaults: &Defaults) -> Bytes {
        Bytes::from(match self {
            Self::Ollama => ollama::embeddings::encode_reply(reply, form, defaults),
            _ => openai::embeddings::encode_reply(reply, form, defaults),
        })
    }
}

fn unknown(dialect: Dialect) -> Invalid {
    Invalid::new("body", format!("asks for embeddings, which the {dialect} dialect does not have"))
}

/// The texts of a request. Token numbers are of one provider's vocabulary.
pub(crate) fn read_input(input: Option<Value>) -> Result<Vec<String>, Invalid> {
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        Value::Number(_) | Value::Array(_) => {
            Err(Invalid::new(INPUT, "is made of token numbers, which only their own provider can read"))
        }
        _ => Err(Invalid::new(INPUT, "is neither a string nor a list of strings")),
    };
    match input {
        None => Err(Invalid::new(INPUT, "is missing")),
        Some(Value::Array(list)) if list.is_empty() => Err(Invalid::new(INPUT, "is empty")),
        Some(Value::Array(list)) => list.into_iter().map(text).collect(),
        Some(Value::Number(_)) => Err(Invalid::new(INPUT, "is neither a string nor a list of strings")),
        Some(one) => Ok(vec![text(one)?]),
    }
}

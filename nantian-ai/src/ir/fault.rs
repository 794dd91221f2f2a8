//! What a provider says when it does not answer.

use http::StatusCode;

/// The longest message that is passed on, in bytes.
const LONGEST: usize = 1_024;

/// Words by which providers say that a conversation is too long.
const TOO_LONG: [&str; 16] = [
    // OpenAI and most of those like it, Ollama.
    "context length",
    "context window",
    "input tokens exceed",
    // Anthropic: the prompt alone, and with the answer it asks for.
    "prompt is too long",
    "context limit",
    // Bedrock.
    "input is too long",
    // Gemini.
    "exceeds the maximum number of tokens",
    // vLLM, llama.cpp, xAI, Groq, Moonshot, Alibaba, Poolside, SiliconFlow, Z.ai.
    "maximum model length",
    "context size",
    "maximum prompt length",
    "reduce the length of the messages",
    "model token limit",
    "range of input length should be",
    "maximum allowed input length",
    "exceeded max_prompt_tokens",
    "prompt exceeds max length",
];

/// OpenAI's words for a model that does there what it is asked to at another address alone, such as calling
/// tools.
const ELSEWHERE: &str = "in /v1/chat/completions";

/// What begins a refusal of DeepSeek, Mistral and Bedrock that there is no model of this name, in small
/// letters.
const NO_MODEL: [&str; 4] = [
    "model not exist",
    "invalid model: ",
    "the provided model identifier is invalid",
    "invocation of model id ",
];

/// What begins one of what others may do, in small letters: of Ollama, Bedrock and vLLM that the model sees
/// no pictures, of vLLM and Azure that it calls no tools or does not chat, of Gemini that it cannot read what
/// is at a URL, or does not serve where this is, and of OpenAI, Groq and xAI that there are more tools than
/// they take.
const UNSUPPORTED: [&str; 12] = [
    "this model does not support image input",
    "this model doesn't support the image",
    "cannot fetch content from the provided url",
    "invalid or unsupported file uri",
    "unsupported mime type: ",
    "user location is not supported",
    "at most 0 image(s)",
    "\"auto\" tool choice requires",
    "the chatcompletion operation does not work with the specified model",
    "invalid 'tools': array too long",
    "'tools' : maximum number of items is ",
    "maximum tools limit reached",
];

/// OpenRouter's words for the first, behind a model's name, and Ollama's for the second.
const NO_MODEL_ID: &str = " is not a valid model id";
const NO_TOOLS: &str = " does not support tools";

/// How the servers of DeepSeek and others refuse a picture where they know texts alone, and vLLM does.
const NO_PICTURES: [&str; 2] = ["unknown variant `image_url`, expected `text`", " is not a multimodal model"];

/// An error of a provider, whatever its dialect.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct Fault {
    /// What kind of error it is.
    pub kind: FaultKind,
    /// What the provider says about it, at most 1024 bytes.
    pub message: String,
}

/// A kind of error that clients of every dialect can act on.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum FaultKind {
    /// The conversation is longer than the model can read. 400.
    ContextLength,
    /// The request cannot be served as it is. 400.
    Invalid,
    /// What is asked for needs a permission or a payment. 403.
    Permission,
    /// There is no such model. 404.
    NotFound,
    /// This model or its provider cannot do what is asked, and others may. 400.
    Unsupported,
    /// The request is too large. 413.
    TooLarge,
    /// Too many requests or tokens. 429.
    RateLimit,
    /// The provider is overloaded. 503, or 529 for Anthropic clients.
    Overloaded,
    /// The provider took too long. 504.
    Timeout,
    /// The answer broke off. 502.
    Truncated,
    /// There is an answer, and it cannot be read. 502.
    Unreadable,
    /// Anything else on the provider's side. 502.
    Upstream,
}

// === impl Fault ===

impl Fault {
    /// An error with a message, which is cut where it is too long.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        let mut message: String = message.into();
        if message.len() > LONGEST {
            let end = (0..=LONGEST).rev().find(|&at| message.is_char_boundary(at)).unwrap_or(0);
            message.truncate(end);
        }
        Self { kind, message }
    }

    /// What a provider says. That a conversation is too long is told by its words alone at most of them, and
    /// that another model may do what this one does not.
    pub(crate) fn said(kind: FaultKind, message: impl Into<String>) -> Self {
        let mut fault = Self::new(kind, message);
        if kind == FaultKind::Invalid {
            let words = fault.message.to_ascii_lowercase();
            if TOO_LONG.iter().any(|known| words.contains(known)) {
                fault.kind = FaultKind::ContextLength;
            } else if let Some(kind) = of_the_model(&words) {
                fault.kind = kind;
            }
        }
        fault
    }

    /// The stream ended before the answer did.
    pub fn truncated() -> Self {
        Self::new(FaultKind::Truncated, "the provider's answer broke off")
    }

    /// The stream holds what cannot be read.
    pub(crate) fn unreadable() -> Self {
        Self::new(FaultKind::Unreadable, "the provider's answer cannot be read")
    }

    /// There is more of the answer than can be said in another dialect.
    pub(crate) fn too_large() -> Self {
        Self::new(FaultKind::Unreadable, "the provider's answer is too large to be translated")
    }

    /// The error that a response with this status stands for. `said` is what the provider says about it, if
    /// it says it in its dialect.
    pub(crate) fn of_status(status: StatusCode, said: Option<String>) -> Self {
        let message = said
            .filter(|said| !said.trim().is_empty())
            .unwrap_or_else(|| format!("the provider answered with status {}", status.as_u16()));
        Self::said(FaultKind::of_status(status), message)
    }
}

/// What a refusal, in small letters, is that says of the model that it is not there or cannot do what others
/// can.
fn of_the_model(words: &str) -> Option<FaultKind> {
    let begins = |known: &[&str]| known.iter().any(|known| words.starts_with(known));
    if begins(&NO_MODEL) || words.ends_with(NO_MODEL_ID) {
        return Some(FaultKind::NotFound);
    }
    let is_unsupported = begins(&UNSUPPORTED)
        || words.ends_with(NO_TOOLS)
        || words.contains(ELSEWHERE)
        || NO_PICTURES.iter().any(|known| words.contains(known));
    is_unsupported.then_some(FaultKind::Unsupported)
}

// === impl FaultKind ===

impl FaultKind {
    fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            402 | 403 => Self::Permission,
            404 => Self::NotFound,
            408 | 504 => Self::Timeout,
            413 => Self::TooLarge,
            429 => Self::RateLimit,
            // 425: it is asked too early. 498: Groq has no room for what is to be cheap.
            425 | 498 | 503 | 529 => Self::Overloaded,
            400..500 => Self::Invalid,
            _ => Self::Upstream,
        }
    }

    /// Whether it is about this provider or its model, and not about the request alone, so that another one
    /// may serve it.
    pub(crate) fn is_of_the_provider(self) -> bool {
        match self {
            // Others read more.
            Self::ContextLength | Self::TooLarge => true,
            // The operator has named the model, and the key may not use it.
            Self::NotFound | Self::Permission | Self::Unsupported => true,
            Self::RateLimit | Self::Overloaded | Self::Timeout => true,
            Self::Truncated | Self::Unreadable | Self::Upstream => true,
            Self::Invalid => false,
        }
    }

    /// The status of the response to the client.
    pub fn status(self) -> StatusCode {
        match self {
            Self::ContextLength | Self::Invalid | Self::Unsupported => StatusCode::BAD_REQUEST,
            Self::Permission => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RateLimit => StatusCode::TOO_MANY_REQUESTS,
            Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Truncated | Self::Unreadable | Self::Upstream => StatusCode::BAD_GATEWAY,
        }
    }
}

//! Every dialect into the common form and out of it: synchronous, without IO, clock or chance of their own.
//!
//! ```
//! use http::StatusCode;
//! use nantian_ai::{ClientDialect, Dialect};
//!
//! let (mut request, lost) = ClientDialect::OpenAi.decode_request(
//!     br#"{"model":"any","messages":[{"role":"user","content":"Hi"}],"logit_bias":{"50256":-100}}"#,
//! )?;
//! assert_eq!(lost.to_string(), "logit_bias");
//!
//! request.model = "claude-sonnet-4-5".to_owned();
//! let (body, _) = Dialect::Anthropic.encode_request(&request, "anthropic")?;
//! assert_eq!(
//!     body,
//!     r#"{"model":"claude-sonnet-4-5","max_tokens":64000,"messages":[{"role":"user","content":[{"type":"text","text":"Hi"}]}]}"#
//! );
//!
//! let fault = Dialect::Anthropic.decode_fault(
//!     StatusCode::from_u16(529)?,
//!     br#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
//! );
//! let (status, body) = ClientDialect::OpenAi.encode_fault(&fault);
//! assert_eq!(status, 503);
//! assert_eq!(body, r#"{"error":{"message":"Overloaded","type":"server_error","param":null,"code":"overloaded"}}"#);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

mod defaults;
mod echo;
mod embeddings;
pub(crate) mod fault;
mod fields;
mod out;
mod stream;
mod text;
mod value;

pub use self::defaults::Defaults;
pub use self::echo::Echo;
pub use self::fields::Invalid;
pub use self::stream::{StreamDecoder, StreamEncoder};

pub(crate) use self::embeddings::read_input;
pub(crate) use self::fields::Fields;
pub(crate) use self::out::{List, Object, append, object};
pub(crate) use self::stream::{MOST_KEPT, lost_of_stop};
pub(crate) use self::text::{BEGINNING, joined_text, said_by_user, says_json, text_of, titled_text_of};
pub(crate) use self::value::Value;

use bytes::Bytes;
use http::StatusCode;

use crate::dialect::{
    ClientDialect, DETAIL, Dialect, GUARDRAIL, anthropic, bedrock, gemini, ollama, openai, responses,
};
use crate::estimate::Weight;
use crate::ir::{Block, Fault, Losses, Reply, Request, Role, ToolChoice, ToolIds};
use crate::outbound::ANTHROPIC_BETA;

// === impl Dialect ===

/// Chats: Chat Completions, Responses, Messages, `/api/chat`; of providers also Converse and
/// `generateContent`.
///
/// What providers are asked, and what they answer. The other half is [`ClientDialect`]'s: nobody asks in a
/// dialect that only providers speak.
impl Dialect {
    /// Writes a request for a provider, which is a name from [`Provider`](crate::Provider) or any other: some
    /// providers of one dialect know fields that others refuse. What the dialect cannot say is named.
    ///
    /// # Errors
    /// [`Invalid`] names content that the dialect cannot carry at all.
    pub fn encode_request(self, request: &Request, provider: &str) -> Result<(Bytes, Losses), Invalid> {
        self.encode_echoing(request, provider, false)
    }

    /// The same, with whether a provider of Chat Completions is known to take reasoning back.
    pub(crate) fn encode_echoing(
        self,
        request: &Request,
        provider: &str,
        echoes: bool,
    ) -> Result<(Bytes, Losses), Invalid> {
        if let Some(ToolChoice::Tool(name)) = &request.tool_choice
            && !request.tools.iter().any(|tool| tool.name == *name)
        {
            // An answer without it would pretend that it was called.
            let problem = format!("names `{name}`, which is no tool that the client runs");
            return Err(Invalid::new("tool_choice", problem));
        }
        let hears = matches!(self, Self::Gemini | Self::OpenAi);
        if request.has_audio_of(|role| !hears || role != Role::User) {
            let of_whom = if hears { "translated of a user alone" } else { "not translated" };
            return Err(Invalid::new("messages.content.type", format!("`input_audio` is {of_whom}")));
        }
        let (body, mut losses) = match self {
            Self::Anthropic => anthropic::encode_request(request),
            Self::Bedrock => bedrock::encode_request(request),
            Self::Gemini => gemini::encode_request(request),
            Self::Ollama => ollama::encode_request(request),
            Self::OpenAi => openai::encode_request(request, provider, echoes),
            Self::Responses => responses::encode_request(request, provider),
        }?;
        // Others keep beginnings by themselves, or not at all.
        if !matches!(self, Self::Anthropic | Self::Bedrock) && request.is_to_be_cached() {
            losses.add("cache_control");
        }
        if matches!(self, Self::Gemini | Self::Ollama) && request.cache_key.is_some() {
            losses.add("prompt_cache_key");
        }
        if !matches!(self, Self::Anthropic | Self::Bedrock) && !request.betas.is_empty() {
            losses.add(ANTHROPIC_BETA);
        }
        if !matches!(self, Self::OpenAi | Self::Responses) {
            if request.has_detail(|_| true) {
                losses.add(DETAIL);
            }
            if request.verbosity.is_some() {
                losses.add("verbosity");
            }
            openai::options::lose_logprobs(request, &mut losses);
            openai::options::lose(&request.openai, &mut losses);
        }
        if self != Self::Bedrock && request.guardrail.is_some() {
            losses.add(GUARDRAIL);
        }
        Ok((Bytes::from(body), losses))
    }

    /// Reads a whole reply. `seed` makes the ids of tool calls that the provider gives none.
    ///
    /// # Errors
    /// What the provider reports instead of an answer, or that this is none.
    pub fn decode_reply(self, body: &[u8], seed: u64) -> Result<(Reply, Losses), Fault> {
        let mut ids = ToolIds::new(seed);
        match self {
            Self::Anthropic => anthropic::decode_reply(body),
            Self::Bedrock => bedrock::decode_reply(body),
            Self::Gemini => gemini::decode_reply(body, &mut ids),
            Self::Ollama => ollama::decode_reply(body, &mut ids),
            Self::OpenAi => openai::decode_reply(body, &mut ids),
            Self::Responses => responses::decode_reply(body, &mut ids),
        }
    }

    /// Reads what a provider says with a status that is no success, in whatever shape it says it.
    pub fn decode_fault(self, status: StatusCode, body: &[u8]) -> Fault {
        match self {
            _ if fault::refuses_credential(status) => fault::refused_credential(),
            Self::Bedrock => bedrock::fault(status, body),
            Self::Gemini => gemini::fault(status, body),
            _ => fault::read(status, body),
        }
    }
}

// === impl ClientDialect ===

/// What clients ask, and what they are told.
impl ClientDialect {
    /// Reads a request. What the common form cannot hold is named.
    ///
    /// # Errors
    /// [`Invalid`] names a field that breaks the dialect's rules, or that no other dialect can stand for.
    pub fn decode_request(self, body: &[u8]) -> Result<(Request, Losses), Invalid> {
        match self {
            Self::Anthropic => anthropic::decode_request(body),
            Self::Ollama => ollama::decode_request(body),
            Self::OpenAi => openai::decode_request(body),
            Self::Responses => responses::decode_request(body),
        }
    }

    /// Writes a whole reply. What the dialect cannot say is named.
    pub fn encode_reply(self, mut reply: Reply, defaults: &Defaults) -> (Bytes, Losses) {
        reply.tokens.input.get_or_insert(defaults.input_estimate);
        reply.tokens.output.get_or_insert_with(|| weight_of(&reply.content).tokens());
        let reply = &reply;
        let (body, mut losses) = match self {
            Self::Anthropic => (anthropic::encode_reply(reply, defaults), Losses::default()),
            Self::Ollama => ollama::encode_reply(reply, defaults),
            Self::OpenAi => (openai::encode_reply(reply, defaults), lost_of_stop(&reply.stop)),
            Self::Responses => (responses::encode_reply(reply, defaults), lost_of_stop(&reply.stop)),
        };
        if matches!(self, Self::Anthropic | Self::Ollama) && !reply.logprobs.is_empty() {
            losses.add("logprobs");
        }
        (Bytes::from(body), losses)
    }

    /// Writes a count of input tokens, as clients ask for one of a conversation.
    pub fn encode_count(self, count: u64) -> Bytes {
        Bytes::from(object(|body| {
            if self == Self::Responses {
                body.text("object", "response.input_tokens");
            }
            body.count("input_tokens", count);
        }))
    }

    /// Writes an error: its status and its body.
    pub fn encode_fault(self, fault: &Fault) -> (StatusCode, Bytes) {
        let body = object(|body| fault::write(body, fault, self));
        (fault::status(fault.kind, self), Bytes::from(body))
    }
}

/// Reads a count of input tokens, by the name that Bedrock, Responses and Anthropic, or Gemini have for it.
pub(crate) fn decode_count(body: &[u8]) -> Result<u64, Fault> {
    let mut fields = Fields::parse(body).map_err(|_| Fault::unreadable())?;
    let count =
        ["inputTokens", "input_tokens", "totalTokens"].into_iter().find_map(|name| fields.any_count(name));
    count.ok_or_else(Fault::unreadable)
}

/// What a model has written, whatever the provider calls it.
fn weight_of(content: &[Block]) -> Weight {
    let mut sum = Weight::default();
    for block in content {
        sum += match block {
            Block::Text(text) | Block::Refusal(text) => Weight::of(text.as_bytes()),
            Block::Reasoning(reasoning) => Weight::of(reasoning.text.as_bytes()),
            Block::ToolCall(call) => Weight::of(call.arguments.to_string().as_bytes()),
            _ => Weight::default(),
        };
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::decode_count;

    #[test]
    fn a_count_that_is_none_is_a_fault() {
        for body in [r#"{"inputTokens":42}"#, r#"{"object":"o","input_tokens":42}"#, r#"{"totalTokens":42}"#]
        {
            assert_eq!(decode_count(body.as_bytes()).unwrap(), 42);
        }
        for body in ["{}", "", r#"{"inputTokens":"many"}"#] {
            decode_count(body.as_bytes()).unwrap_err();
        }
    }
}

//! What a request asks for that a provider may refuse, so that it is asked without: what this side has added, or said in words
//! that some of a dialect's providers and models do not know.

use bytes::Bytes;
use http::StatusCode;
use memchr::memmem;

use crate::edit::Object;
use crate::foreign;
use crate::ir::Losses;

/// What may be refused. Each dialect has one at most.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wish {
    /// Bedrock: features of Claude by their names, of which each model knows others.
    Betas,
    /// Anthropic: that the model takes reasoning back. Who else speaks this dialect may have signed it, or the
    /// conversation may have begun otherwise than the model has seen it.
    Reasoning,
    /// Ollama: that a model thinks, which not every model can.
    Thinking,
    /// OpenAI: the usage of a stream.
    Usage,
}

/// Where Bedrock is told what is Claude's own.
const OWN: &str = "additionalModelRequestFields";

// === impl Wish ===

impl Wish {
    /// Whether a refusal is one of this wish.
    pub(crate) fn is_refused(self, status: StatusCode, said: &[u8]) -> bool {
        let words: &[&str] = match self {
            Self::Betas => &["invalid beta flag"],
            Self::Reasoning => &["in `thinking` block", "in `redacted_thinking` block"],
            Self::Thinking => &["does not support thinking"],
            Self::Usage => &["stream_options"],
        };
        let is_said = |words: &&str| memmem::find(said, words.as_bytes()).is_some();
        matches!(status.as_u16(), 400 | 422) && words.iter().any(is_said)
    }

    /// Whether an answer to the same request without it says that it is always refused; `streams` is whether that is a stream. The
    /// names of features and the signatures are the client's, so that nothing is learnt of them.
    pub(crate) fn is_given_up(self, streams: bool) -> bool {
        match self {
            Self::Betas | Self::Reasoning => false,
            Self::Thinking => true,
            // An answer in one piece says nothing of streams: the provider may have read another request than was read here.
            Self::Usage => streams,
        }
    }

    /// What the client loses without it.
    pub(crate) fn loss(self) -> Option<&'static str> {
        match self {
            Self::Betas => Some("anthropic-beta"),
            Self::Reasoning => Some("messages.reasoning"),
            Self::Thinking => Some("thinking"),
            Self::Usage => None,
        }
    }

    /// What is said where it is given up.
    pub(crate) fn farewell(self) -> &'static str {
        match self {
            Self::Betas => "the provider refuses `anthropic_beta`: features are left out",
            Self::Reasoning => "the provider refuses reasoning of another one: it is left out",
            Self::Thinking => "the model does not think: `think` is left out",
            Self::Usage => "the provider refuses `stream_options`: usage of streams is estimated",
        }
    }

    /// A body without it; `None` if it is not there. What else has to go with it is named.
    pub(crate) fn taken_out(self, body: &Bytes, losses: &mut Losses) -> Option<Bytes> {
        let object = Object::parse(body).ok()?;
        let left = match self {
            Self::Betas => {
                let own = Object::parse(object.value(OWN)?).ok()?.without("anthropic_beta").concat();
                object.set(body, &[(OWN, std::str::from_utf8(&own).ok()?)]).concat()
            }
            Self::Reasoning => return foreign::without_thoughts(body, losses),
            Self::Thinking => object.without("think").concat(),
            Self::Usage => object.without("stream_options").concat(),
        };
        Some(Bytes::from(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_taken_out_and_nothing_else() {
        for (wish, body, left) in [
            (Wish::Usage, r#"{"model":"m","stream_options":{"include_usage":true}}"#, r#"{"model":"m"}"#),
            (Wish::Thinking, r#"{"model":"m","think":true,"stream":true}"#, r#"{"model":"m","stream":true}"#),
            (
                Wish::Reasoning,
                r#"{"model":"claude-sonnet-4-5","messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"thinking","signature":"EqoB"},{"type":"text","text":"b"}]}]}"#,
                r#"{"model":"claude-sonnet-4-5","messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"text","text":"b"}]}]}"#,
            ),
            (
                Wish::Betas,
                r#"{"messages":[],"additionalModelRequestFields":{"anthropic_beta":["a"],"top_k":1}}"#,
                r#"{"messages":[],"additionalModelRequestFields":{"top_k":1}}"#,
            ),
        ] {
            let body = Bytes::from_static(body.as_bytes());
            assert_eq!(wish.taken_out(&body, &mut Losses::default()).unwrap(), left);
        }
        for wish in [Wish::Betas, Wish::Reasoning] {
            assert_eq!(wish.taken_out(&Bytes::from_static(b"{}"), &mut Losses::default()), None);
        }
    }
}

//! What a request asks for that a provider may refuse, so that it is asked without: what this side has added, or said in words
//! that some of a dialect's providers and models do not know.

use bytes::Bytes;
use http::StatusCode;
use memchr::memmem;

use crate::codec::fault;
use crate::dialect::{Dialect, bedrock, openai};
use crate::edit::Object;
use crate::foreign;
use crate::ir::{Losses, Request, Role, Thinking};
use crate::target::Target;

/// What may be refused.
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
    /// Chat Completions of OpenAI: that a model thinks while it has tools, which newer ones do unless they are told not to.
    Effort,
    /// Chat Completions of DeepSeek and Moonshot: that a model thinks before it calls a tool that it must call.
    ForcedTool,
    /// The same of a model that cannot but think, which is known once it refuses not to: that it must call the tool.
    ToolChoice,
    /// Chat Completions: how tokens are drawn, in which models that think let nobody have a say.
    Sampling,
    /// Chat Completions of DeepSeek and Moonshot: that what the model has said comes back without what it thought. Another one may
    /// have said it, or the client does not give it back.
    Silence,
}

/// Several of them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Wishes {
    bits: u16,
    /// The client has asked the model to think.
    thinks: bool,
}

const ALL: [Wish; 9] = [
    Wish::Betas,
    Wish::Reasoning,
    Wish::Thinking,
    Wish::Usage,
    Wish::Effort,
    Wish::ForcedTool,
    Wish::ToolChoice,
    Wish::Sampling,
    Wish::Silence,
];

/// What tells a model of DeepSeek or Moonshot not to think.
const DISABLED: &str = r#"{"type":"disabled"}"#;

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
            Self::Effort => &["Function tools with reasoning_effort are not supported"],
            Self::ForcedTool => &[
                "Thinking mode does not support this tool_choice",
                "tool_choice 'required' is incompatible with thinking enabled",
                "tool_choice 'specified' is incompatible with thinking enabled",
                "tool_choice specified is incompatible with thinking enabled",
            ],
            Self::ToolChoice => &["invalid thinking: only type=enabled is allowed"],
            Self::Sampling => &[
                "Unsupported parameter: 'temperature'",
                "Unsupported parameter: 'top_p'",
                "Unsupported value: 'temperature'",
                "Unsupported value: 'top_p'",
                "invalid temperature: only",
                "invalid top_p: only",
            ],
            Self::Silence => &[
                "Missing `reasoning_content`",
                "The `reasoning_content` in the thinking mode must be passed back",
                "thinking is enabled but reasoning_content is missing",
            ],
        };
        let is_said = || match self {
            Self::Betas | Self::Reasoning | Self::Thinking | Self::Usage => {
                words.iter().any(|words| memmem::find(said, words.as_bytes()).is_some())
            }
            // These hold for all clients from then on, and further on a refusal may quote what one has written.
            Self::Effort | Self::ForcedTool | Self::ToolChoice | Self::Sampling | Self::Silence => {
                let message = fault::read(status, said).message;
                words.iter().any(|words| message.starts_with(words))
            }
        };
        matches!(status.as_u16(), 400 | 422) && is_said()
    }

    /// Whether an answer to the same request without it says that it is always refused; `streams` is whether that is a stream. The
    /// names of features and the signatures are the client's, so that nothing is learnt of them.
    pub(crate) fn is_given_up(self, streams: bool) -> bool {
        match self {
            Self::Betas | Self::Reasoning => false,
            Self::Thinking => true,
            Self::Effort | Self::ForcedTool | Self::ToolChoice | Self::Sampling | Self::Silence => true,
            // An answer in one piece says nothing of streams: the provider may have read another request than was read here.
            Self::Usage => streams,
        }
    }

    /// What is said where it is given up.
    pub(crate) fn farewell(self) -> &'static str {
        match self {
            Self::Betas => "the provider refuses `anthropic_beta`: features are left out",
            Self::Reasoning => "the provider refuses reasoning of another one: it is left out",
            Self::Thinking => "the model does not think: `think` is left out",
            Self::Usage => "the provider refuses `stream_options`: usage of streams is estimated",
            Self::Effort => "the model does not think beside tools in this format: it is told not to",
            Self::ForcedTool => "the model does not think before a call that it must make: it is told not to",
            Self::ToolChoice => "the model cannot be made to call a tool: it is left to it",
            Self::Sampling => "the model takes no `temperature` and `top_p`: they are left out",
            Self::Silence => {
                "the model wants reasoning in what it has said: where there is none, a blank stands in"
            }
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
            Self::Effort => {
                let is_off = object.text("reasoning_effort").as_deref() == Some("none");
                (!is_off).then(|| object.set(body, &[("reasoning_effort", r#""none""#)]).concat())?
            }
            Self::ForcedTool => {
                let is_off = object.value("thinking") == Some(DISABLED.as_bytes());
                let left = (!is_off).then(|| Bytes::from(object.without("reasoning_effort").concat()))?;
                Object::parse(&left).ok()?.set(&left, &[("thinking", DISABLED)]).concat()
            }
            Self::ToolChoice => {
                let is_off = object.value("thinking") == Some(DISABLED.as_bytes());
                let left = is_off.then(|| Bytes::from(object.without("thinking").concat()))?;
                Object::parse(&left).ok()?.set(&left, &[("tool_choice", r#""auto""#)]).concat()
            }
            Self::Sampling => {
                let mut left = body.clone();
                for name in ["temperature", "top_p"] {
                    let object = Object::parse(&left).ok()?;
                    if object.value(name).is_some() {
                        losses.add(name);
                        left = Bytes::from(object.without(name).concat());
                    }
                }
                return (left.len() < body.len()).then_some(left);
            }
            Self::Silence => {
                let edits = foreign::filled(&object);
                (!edits.is_empty()).then(|| object.set_and(body, &[], edits).concat())?
            }
        };
        Some(Bytes::from(left))
    }

    /// Its place among several.
    pub(crate) fn bit(self) -> u16 {
        1 << self as u16
    }
}

// === impl Wishes ===

impl Wishes {
    /// What a request asks of a target that it may refuse. Where nothing may be lost, no refusal is answered by a loss.
    pub(crate) fn of(request: &Request, target: &Target, strict: bool) -> Self {
        let thinks = request.thinking.is_some_and(|thinking| thinking != Thinking::Off);
        let mut wishes = Self { bits: 0, thinks };
        let mut add = |wish, is_asked: bool| {
            if is_asked {
                wishes.add(wish);
            }
        };
        match target.dialect() {
            Dialect::Anthropic => add(Wish::Reasoning, request.has_reasoning() && !strict),
            Dialect::Bedrock => add(Wish::Betas, bedrock::names_features(request) && !strict),
            Dialect::Ollama => add(Wish::Thinking, thinks && !strict),
            Dialect::OpenAi => {
                let may_not_think = !(thinks && strict);
                let has_tools = !request.tools.is_empty();
                let draws = request.temperature.is_some() || request.top_p.is_some();
                add(Wish::Usage, request.stream && target.must_ask_for_usage());
                add(Wish::Effort, has_tools && may_not_think && openai::may_be_off(&request.model));
                add(Wish::ForcedTool, request.must_call() && may_not_think);
                add(Wish::ToolChoice, request.must_call() && !strict);
                add(Wish::Sampling, draws && !strict);
                add(Wish::Silence, request.messages.iter().any(|message| message.role == Role::Assistant));
            }
            Dialect::Gemini | Dialect::Responses => {}
        }
        wishes
    }

    pub(crate) fn add(&mut self, wish: Wish) {
        self.bits |= wish.bit();
    }

    pub(crate) fn remove(&mut self, wish: Wish) {
        self.bits &= !wish.bit();
    }

    pub(crate) fn is_empty(self) -> bool {
        self.bits == 0
    }

    pub(crate) fn count(self) -> u32 {
        self.bits.count_ones()
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Wish> {
        ALL.into_iter().filter(move |wish| self.bits & wish.bit() != 0)
    }

    /// What the client loses without one, apart from what is named where it is taken out.
    pub(crate) fn loss(self, wish: Wish) -> Option<&'static str> {
        match wish {
            Wish::Betas => Some("anthropic-beta"),
            Wish::Reasoning => Some("messages.reasoning"),
            Wish::Thinking => Some("thinking"),
            Wish::Effort | Wish::ForcedTool => self.thinks.then_some("thinking"),
            Wish::ToolChoice => Some("tool_choice"),
            Wish::Sampling | Wish::Silence | Wish::Usage => None,
        }
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
            (Wish::Effort, r#"{"tools":[]}"#, r#"{"reasoning_effort":"none","tools":[]}"#),
            (Wish::Effort, r#"{"reasoning_effort":"low"}"#, r#"{"reasoning_effort":"none"}"#),
            (
                Wish::ForcedTool,
                r#"{"model":"m","thinking":{"type":"enabled"},"reasoning_effort":"low"}"#,
                r#"{"model":"m","thinking":{"type":"disabled"}}"#,
            ),
            (
                Wish::ToolChoice,
                r#"{"thinking":{"type":"disabled"},"tool_choice":"required"}"#,
                r#"{"tool_choice":"auto"}"#,
            ),
            (Wish::Sampling, r#"{"model":"m","temperature":0.5,"top_p":1}"#, r#"{"model":"m"}"#),
            (
                Wish::Silence,
                r#"{"messages":[{"role":"assistant","content":"a"}]}"#,
                r#"{"messages":[{"reasoning_content":" ","role":"assistant","content":"a"}]}"#,
            ),
        ] {
            let body = Bytes::from_static(body.as_bytes());
            assert_eq!(wish.taken_out(&body, &mut Losses::default()).unwrap(), left);
        }
        for (wish, body) in [
            (Wish::Betas, "{}"),
            (Wish::Reasoning, "{}"),
            (Wish::Effort, r#"{"reasoning_effort":"none"}"#),
            (Wish::ForcedTool, r#"{"thinking":{"type":"disabled"}}"#),
            (Wish::ToolChoice, r#"{"tool_choice":"required"}"#),
            (Wish::Sampling, "{}"),
            (Wish::Silence, r#"{"messages":[{"role":"user","content":"a"}]}"#),
        ] {
            let body = Bytes::from_static(body.as_bytes());
            assert_eq!(wish.taken_out(&body, &mut Losses::default()), None, "{wish:?}");
        }
    }

    #[test]
    fn each_wish_has_a_place_of_its_own() {
        let mut wishes = Wishes::default();
        for wish in ALL {
            assert!(!wishes.iter().any(|it| it == wish));
            wishes.add(wish);
        }
        assert_eq!((wishes.iter().collect::<Vec<_>>(), wishes.count()), (ALL.to_vec(), 9));
        ALL.into_iter().for_each(|wish| wishes.remove(wish));
        assert!(wishes.is_empty());
    }
}

//! What a request asks for that a provider may refuse, so that it is asked without: what this side has added,
//! or said in words that some of a dialect's providers and models do not know.

mod left_out;
mod wishes;
mod words;

pub(crate) use self::left_out::continued;
pub(crate) use self::wishes::Wishes;

use bytes::Bytes;
use http::StatusCode;
use memchr::memmem;

use crate::codec::fault;
use crate::dialect::{bedrock, openai};
use crate::edit::Object;
use crate::ir::Losses;
use crate::outbound::foreign;

use self::words::{begins, words_of};

/// Declares what may be refused, and lists all of it.
macro_rules! wishes {
    ($($(#[doc = $doc:literal])* $name:ident,)+) => {
        /// What may be refused.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(crate) enum Wish {
            $($(#[doc = $doc])* $name,)+
        }

        const ALL: &[Wish] = &[$(Wish::$name),+];
    };
}

wishes! {
    /// Bedrock: features of Claude by their names, of which each model knows others.
    Betas,
    /// Responses: reasoning after which nothing comes.
    Afterthought,
    /// Chat Completions: what stands for signatures of Gemini in calls that have none.
    StandIn,
    /// Anthropic, Bedrock and Responses: that the model takes reasoning back. Who else speaks this dialect
    /// may have signed or encrypted it, such as another account, region or maker, or the conversation may
    /// have begun otherwise than the model has seen it. Chat Completions: that a model takes back what it has
    /// thought, or signatures of Gemini, where no name tells.
    Reasoning,
    /// Ollama: that a model thinks, which not every model can.
    Thinking,
    /// OpenAI: the usage of a stream.
    Usage,
    /// Chat Completions of OpenAI: that a model thinks while it has tools, which newer ones do unless they
    /// are told not to.
    Effort,
    /// Chat Completions of DeepSeek and Moonshot: that a model thinks before it calls a tool that it must
    /// call.
    ForcedTool,
    /// The same of a model that cannot but think, which is known once it refuses not to: that it must call
    /// the tool.
    ToolChoice,
    /// OpenRouter: that a model does not think, which not every model can but do.
    Rest,
    /// Bedrock: that a tool must be called, any or the one that is named. Of a model that refuses the one
    /// nothing is learnt of the other.
    MustCall,
    /// Bedrock, Chat Completions and Responses: how tokens are drawn, in which models that think let nobody
    /// have a say.
    Sampling,
    /// Chat Completions of DeepSeek, Moonshot and Xiaomi: that what the model has said comes back without
    /// what it thought. Another one may have said it, or the client does not give it back.
    Silence,
    /// Bedrock, and Chat Completions: that the schema of an answer is enforced; Bedrock: those of tools.
    /// Models differ in either by no rule, and by region.
    Schema,
    Strict,
    /// Anthropic, Bedrock, Gemini and Chat Completions: that a conversation ends with what the model has
    /// said. Newer ones do not go on with it.
    Prefill,
    /// Gemini and Chat Completions: penalties.
    Penalties,
    /// Chat Completions: that the limit of an answer is called `max_tokens`, or that it is called
    /// `max_completion_tokens`. Providers and models know the one, or the other, or both.
    OlderLimit,
    NewerLimit,
    /// Bedrock: stop sequences.
    Stop,
    /// Bedrock: that a model keeps beginnings of conversations, which not all do behind profiles whose names
    /// say nothing.
    Cache,
    /// Bedrock: that a model which has tools tells its answer bit by bit.
    Stream,
    /// Chat Completions: what a client says of what is to be kept, in Anthropic's words, and by what key, in
    /// OpenAI's.
    Marks,
    CacheKey,
    /// Responses: that a model tells what it thinks, which OpenAI lets no organisation see that it does not
    /// know.
    Summary,
    /// Responses: that a model encrypts what it thinks, which one refuses that does not think.
    Encryption,
    /// vLLM and llama.cpp: what is said to a model's template of how to think, where its maker's own
    /// tokenizer has none.
    Template,
    /// Bedrock, Chat Completions and Ollama: pictures, which not every model sees. They stay in a
    /// conversation.
    Pictures,
}

/// What tells a model of DeepSeek or Moonshot not to think.
const DISABLED: &str = r#"{"type":"disabled"}"#;

/// The same for OpenRouter.
const AT_REST: &str = r#"{"enabled":false}"#;

/// What Bedrock says before the words of a model's maker.
const OF_BEDROCK: &str = "The model returned the following errors: ";

// === impl Wish ===

impl Wish {
    /// Whether a refusal is one of this wish.
    pub(crate) fn is_refused(self, status: StatusCode, said: &[u8]) -> bool {
        let is_anywhere =
            |wish| words_of(wish).iter().any(|words| memmem::find(said, words.as_bytes()).is_some());
        let is_said = || match self {
            Self::Afterthought | Self::Betas | Self::Pictures => is_anywhere(self),
            // One that is too long the client has to mend.
            Self::CacheKey => is_anywhere(self) && memmem::find(said, b"too long").is_none(),
            Self::Marks => is_anywhere(self),
            Self::StandIn | Self::Thinking | Self::Usage => is_anywhere(self),
            // Who misses it names it, too.
            Self::Reasoning => is_anywhere(self) && !is_anywhere(Self::Silence),
            // These hold for all clients from then on, and further on a refusal may quote what one has
            // written.
            _ => {
                let message = fault::read(status, said).message;
                let message = message.strip_prefix(OF_BEDROCK).unwrap_or(&message);
                words_of(self).iter().any(|words| begins(message, words))
            }
        };
        let may_say_it = match status.as_u16() {
            400 | 422 => true,
            // Bedrock says so that a model keeps nothing.
            403 => self == Self::Cache,
            // OpenRouter has nobody who sees pictures.
            404 => self == Self::Pictures,
            // llama.cpp fails.
            500 => matches!(self, Self::Pictures | Self::Prefill),
            _ => false,
        };
        may_say_it && is_said()
    }

    /// Whether an answer to the same request without it says that it is always refused; `streams` is whether
    /// that is a stream. The names of features, the signatures and what is said of what is to be kept are the
    /// client's, so that nothing is learnt of them.
    pub(crate) fn is_given_up(self, streams: bool) -> bool {
        match self {
            // Another model may see them: it is asked first.
            Self::Betas | Self::MustCall | Self::Pictures => false,
            Self::Afterthought | Self::Reasoning | Self::StandIn => false,
            Self::CacheKey | Self::Marks => false,
            Self::Thinking => true,
            Self::Effort | Self::ForcedTool | Self::ToolChoice | Self::Sampling | Self::Silence => true,
            Self::Schema | Self::Strict | Self::Prefill | Self::Penalties => true,
            Self::OlderLimit | Self::NewerLimit | Self::Stop | Self::Stream | Self::Cache => true,
            Self::Rest | Self::Summary | Self::Encryption | Self::Template => true,
            // An answer in one piece says nothing of streams: the provider may have read another request than
            // was read here.
            Self::Usage => streams,
        }
    }

    /// What is said where it is given up.
    pub(crate) fn farewell(self) -> &'static str {
        match self {
            Self::Betas => "the provider refuses `anthropic_beta`: features are left out",
            Self::Afterthought => "the provider refuses reasoning after which nothing comes: it is left out",
            Self::StandIn => "the provider refuses what stands for signatures of Gemini: it is left out",
            Self::Reasoning => "the provider refuses reasoning of another one: it is left out",
            Self::Thinking => "the model does not think: `think` is left out",
            Self::Usage => "the provider refuses `stream_options`: usage of streams is estimated",
            Self::Effort => "the model does not think beside tools in this format: it is told not to",
            Self::ForcedTool => "the model does not think before a call that it must make: it is told not to",
            Self::Rest => "the model cannot but think: it is not told not to",
            Self::MustCall | Self::ToolChoice => "the model cannot be made to call a tool: it is left to it",
            Self::Sampling => "the model takes no `temperature` and `top_p`: they are left out",
            Self::Silence => {
                "the model wants reasoning in what it has said: where there is none, a blank stands in"
            }
            Self::Schema => "the model answers by no schema that is enforced: the system says it",
            Self::Strict => "the model calls no tools by schemas that are enforced: they are not strict",
            Self::Prefill => "the model does not go on with what it has said: a user asks it to",
            Self::Penalties => "the model takes no penalties: they are left out",
            Self::OlderLimit => "the provider refuses `max_tokens`: it is called `max_completion_tokens`",
            Self::NewerLimit => "the provider refuses `max_completion_tokens`: it is called `max_tokens`",
            Self::Stop => "the model takes no stop sequences: they are left out",
            Self::Cache => "the model keeps no beginnings of conversations: it is not asked to",
            Self::Marks => "the provider refuses `cache_control`: it is left out",
            Self::CacheKey => "the provider refuses `prompt_cache_key`: it is left out",
            Self::Pictures => "the model sees no pictures: they are left out",
            Self::Stream => "the model calls no tools in a stream: it is asked for whole answers",
            Self::Summary => "the provider summarises no reasoning for this organisation: it is not asked to",
            Self::Encryption => "the model encrypts no reasoning: it is not asked to",
            Self::Template => "the model has no template to be told how to think by: it is told nothing",
        }
    }

    /// A body without it; `None` if it is not there. What else has to go with it is named.
    pub(crate) fn taken_out(self, body: &Bytes, losses: &mut Losses) -> Option<Bytes> {
        let object = Object::parse(body).ok()?;
        let edited = |edits: Vec<_>| (!edits.is_empty()).then(|| object.set_and(body, &[], edits).concat());
        let left = match self {
            Self::Afterthought => return foreign::without_afterthoughts(body),
            Self::Betas => return left_out::without_inner(body, bedrock::OWN, "anthropic_beta"),
            Self::MustCall => return left_out::without_inner(body, "toolConfig", "toolChoice"),
            Self::Summary => return left_out::without_inner(body, "reasoning", "summary"),
            Self::Encryption => return left_out::without_encryption(body),
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
            Self::Rest => {
                let is_off = object.value("reasoning") == Some(AT_REST.as_bytes());
                is_off.then(|| object.without("reasoning").concat())?
            }
            Self::Sampling => {
                let names = [("temperature", "temperature"), ("top_p", "top_p"), ("topP", "top_p")];
                // 1 is what they take.
                let is_other = |drawn: &[u8]| !matches!(drawn, b"1" | b"1.0");
                return left_out::without_members(body, &names, is_other, losses);
            }
            Self::Silence => edited(foreign::filled(&object))?,
            Self::Schema => return left_out::with_schema_said(body),
            Self::Strict => return left_out::without_strict_tools(body),
            Self::Prefill => object.set_and(body, &[], vec![continued(&object)?]).concat(),
            Self::Penalties => return left_out::without_penalties(body, losses),
            Self::Stop => {
                return left_out::without_members(body, &[("stopSequences", "stop")], |_| true, losses);
            }
            Self::Cache => return left_out::without_cache_points(body),
            Self::Marks => edited(foreign::without_marks(&object, &["cache_control"], losses))?,
            Self::CacheKey => edited(foreign::without_marks(&object, &["prompt_cache_key"], losses))?,
            Self::StandIn => edited(foreign::without_stand_ins(&object))?,
            Self::Pictures => edited(foreign::without_pictures(&object))?,
            // The path says it.
            Self::Stream => return Some(body.clone()),
            Self::Template => {
                let names = [("chat_template_kwargs", "thinking"), ("reasoning_effort", "thinking")];
                // What it says was asked for only where the client has asked for it.
                return left_out::without_members(body, &names, |_| false, losses);
            }
            Self::OlderLimit | Self::NewerLimit => {
                edited(openai::limit_renamed(&object, self == Self::OlderLimit))?
            }
        };
        Some(Bytes::from(left))
    }

    /// What holds no more once the provider refuses this.
    pub(crate) fn opposite(self) -> Option<Self> {
        match self {
            Self::OlderLimit => Some(Self::NewerLimit),
            Self::NewerLimit => Some(Self::OlderLimit),
            _ => None,
        }
    }

    /// Its place among several.
    pub(crate) fn bit(self) -> u32 {
        1 << self as u32
    }
}

#[cfg(test)]
mod tests;

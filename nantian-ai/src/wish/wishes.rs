//! What one request asks for that its provider may refuse.

use super::{ALL, Wish};
use crate::dialect::{Dialect, bedrock, openai};
use crate::ir::{Block, Output, Request, Role, Thinking};
use crate::target::Target;

/// Several wishes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Wishes {
    bits: u32,
    /// What the client has said of whether and how much the model is to think.
    thinking: Option<Thinking>,
    /// What is to be kept, the client has said by a key alone.
    keeps_all: bool,
    /// A model's template may refuse to go on with what it has said, and does only while it thinks; others
    /// refuse it always.
    may_have_template: bool,
}

// === impl Wishes ===

impl Wishes {
    /// What a request asks of a target that it may refuse. Where nothing may be lost, no refusal is answered
    /// by a loss.
    pub(crate) fn of(request: &Request, target: &Target, strict: bool) -> Self {
        let thinks = request.thinking.is_some_and(|thinking| thinking != Thinking::Off);
        let has_template = openai::tells_templates(&target.config().provider);
        let is_unknown = target.dialect() == Dialect::OpenAi && target.provider().is_none();
        let may_have_template = has_template || is_unknown;
        let mut wishes =
            Self { bits: 0, thinking: request.thinking, keeps_all: request.keeps_all(), may_have_template };
        let mut add = |wish, is_asked: bool| {
            if is_asked {
                wishes.add(wish);
            }
        };
        let is_call = |block: &Block| matches!(block, Block::ToolCall(_));
        let last = request.messages.last().filter(|last| last.role == Role::Assistant);
        let ends_with_the_model = last.is_some_and(|last| !last.content.iter().any(is_call));
        let draws = request.temperature.is_some() || request.top_p.is_some();
        let penalises = request.frequency_penalty.is_some() || request.presence_penalty.is_some();
        let has_schema = matches!(request.output, Some(Output::Schema { .. }));
        match target.dialect() {
            Dialect::Anthropic => {
                add(Wish::Reasoning, request.has_reasoning() && !strict);
                add(Wish::Prefill, ends_with_the_model && !strict);
            }
            Dialect::Bedrock => {
                let has_strict = request.tools.iter().any(|tool| tool.strict == Some(true));
                add(Wish::Betas, bedrock::names_features(request) && !strict);
                add(Wish::Reasoning, request.has_reasoning() && !strict);
                add(Wish::Pictures, request.has_pictures() && !strict);
                add(Wish::Schema, has_schema && !strict);
                add(Wish::Strict, has_strict && !strict);
                add(Wish::Prefill, ends_with_the_model && !strict);
                add(Wish::Sampling, draws && !strict);
                add(Wish::Cache, (request.is_to_be_cached() || request.keeps_all()) && !strict);
                add(Wish::Stop, !request.stop.is_empty() && !strict);
                add(Wish::MustCall, request.must_call() && !strict);
                add(Wish::Stream, request.stream && !request.tools.is_empty());
            }
            Dialect::Ollama => {
                add(Wish::Thinking, thinks && !strict);
                add(Wish::Pictures, request.has_pictures() && !strict);
            }
            Dialect::OpenAi => {
                let may_not_think = !(thinks && strict);
                let has_tools = !request.tools.is_empty();
                let has_answers = request.messages.iter().any(|message| message.role == Role::Assistant);
                add(Wish::Usage, request.stream && target.must_ask_for_usage());
                add(Wish::Effort, has_tools && may_not_think && openai::may_be_off(&request.model));
                add(Wish::ForcedTool, request.must_call() && may_not_think);
                add(Wish::ToolChoice, request.must_call() && !strict);
                add(Wish::Rest, request.thinking == Some(Thinking::Off) && !strict);
                add(Wish::Sampling, draws && !strict);
                add(Wish::Penalties, penalises && !strict);
                add(Wish::Prefill, ends_with_the_model && !strict);
                add(Wish::Pictures, request.has_pictures() && !strict);
                add(Wish::Schema, has_schema && !strict);
                add(Wish::OlderLimit, request.max_output.is_some());
                add(Wish::NewerLimit, request.max_output.is_some());
                add(Wish::Silence, has_answers);
                add(Wish::StandIn, has_answers);
                add(Wish::Reasoning, has_answers && !strict);
                add(Wish::Template, has_template && request.thinking.is_some() && may_not_think);
            }
            Dialect::Gemini => {
                add(Wish::Prefill, ends_with_the_model && !strict);
                add(Wish::Penalties, penalises && !strict);
            }
            Dialect::Responses => {
                add(Wish::Reasoning, request.has_reasoning() && !strict);
                add(Wish::Sampling, draws && !strict);
                add(Wish::Summary, thinks && !strict);
                add(Wish::Encryption, true);
            }
        }
        wishes
    }

    /// What a provider may refuse of a chat that passes as it is.
    pub(crate) fn of_a_passing_chat(strict: bool) -> Self {
        let mut wishes = Self::default();
        [Wish::Silence, Wish::OlderLimit, Wish::NewerLimit].into_iter().for_each(|wish| wishes.add(wish));
        if !strict {
            [Wish::Reasoning, Wish::Marks, Wish::CacheKey, Wish::Pictures]
                .into_iter()
                .for_each(|wish| wishes.add(wish));
        }
        wishes
    }

    pub(crate) fn add(&mut self, wish: Wish) {
        self.bits |= wish.bit();
    }

    pub(crate) fn remove(&mut self, wish: Wish) {
        self.bits &= !wish.bit();
    }

    pub(crate) fn has(self, wish: Wish) -> bool {
        self.bits & wish.bit() != 0
    }

    /// None of them, of the same request.
    pub(crate) fn cleared(self) -> Self {
        Self { bits: 0, ..self }
    }

    /// Whether what comes of one says something of other requests, too. How tokens are drawn, and to a
    /// template that it goes on with what it has said, a model may refuse only while it thinks, or only while
    /// it does not, so that a client who says whether it does tells nothing of those who do not.
    pub(crate) fn may_teach(self, wish: Wish) -> bool {
        let depends = wish == Wish::Sampling || (wish == Wish::Prefill && self.may_have_template);
        !depends || self.thinking.is_none()
    }

    pub(crate) fn is_empty(self) -> bool {
        self.bits == 0
    }

    pub(crate) fn count(self) -> u32 {
        self.bits.count_ones()
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Wish> {
        ALL.iter().copied().filter(move |wish| self.has(*wish))
    }

    /// What the client loses without one, apart from what is named where it is taken out.
    pub(crate) fn losses(self, wish: Wish) -> &'static [&'static str] {
        match (wish, self.thinking) {
            (Wish::Betas, _) => &["anthropic-beta"],
            (Wish::Afterthought | Wish::Reasoning, _) => &["messages.reasoning"],
            (Wish::Rest | Wish::Thinking, _) => &["thinking"],
            (Wish::Effort | Wish::ForcedTool | Wish::Template, None | Some(Thinking::Off)) => &[],
            (Wish::Effort | Wish::ForcedTool | Wish::Template, Some(_)) => &["thinking"],
            (Wish::ToolChoice, Some(Thinking::Off)) => &["thinking", "tool_choice"],
            (Wish::MustCall | Wish::ToolChoice, _) => &["tool_choice"],
            (Wish::Schema, _) => &["response_format.json_schema"],
            (Wish::Strict, _) => &["tools.strict"],
            (Wish::Cache, _) if self.keeps_all => &["prompt_cache_key"],
            (Wish::Cache, _) => &["cache_control"],
            (Wish::Pictures, _) => &["messages.content.image"],
            (Wish::Prefill, _) => &["messages.prefill"],
            (Wish::Summary, _) => &["thinking.display"],
            (Wish::Penalties | Wish::Sampling | Wish::Silence | Wish::StandIn | Wish::Usage, _) => &[],
            (Wish::OlderLimit | Wish::NewerLimit | Wish::Stop | Wish::Stream, _) => &[],
            (Wish::CacheKey | Wish::Encryption | Wish::Marks, _) => &[],
        }
    }
}

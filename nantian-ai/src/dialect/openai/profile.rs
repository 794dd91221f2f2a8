//! What the providers of this dialect, and their models, differ in.

use std::borrow::Cow;

use super::levels::{Levels, THREE};
use super::strict::holds_answers;
use super::thinkers::Thinker;
use crate::ir::{Effort, Json, Thinking, own_id, safe_id, short_id};
use crate::target::azure;
use crate::target::provider::Provider;

/// How an id of a call is written.
type IdOf = fn(&str) -> Cow<'_, str>;

/// What a provider takes of a model of this name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Profile {
    /// Takes back the reasoning of earlier turns as `reasoning_content`.
    pub(super) echoes_reasoning: bool,
    /// Knows the same under its newer name, too: `reasoning`.
    pub(super) echoes_by_newer_name: bool,
    /// Takes back reasoning that the model's maker has encrypted, as `reasoning_details`.
    pub(super) takes_details: bool,
    /// Lets the system speak anywhere in a conversation. Many models' chat templates let it at the beginning
    /// alone, and once.
    pub(super) takes_later_system: bool,
    /// How it is told to think.
    pub(super) thinking: ThinkingBy,
    /// Tells reasoning apart from the answer only if it is asked to.
    pub(super) asks_for_reasoning: bool,
    /// The name of the limit of an answer.
    pub(super) limit: &'static str,
    /// The name of the seed, if it knows any.
    pub(super) seed: Option<&'static str>,
    /// Tells the usage of a stream only if it is asked to, by a field that others refuse.
    pub(super) asks_for_usage: bool,
    /// Knows `top_k`.
    pub(super) takes_top_k: bool,
    /// Knows `user`.
    pub(super) takes_user: bool,
    /// Knows `parallel_tool_calls`.
    pub(super) takes_parallel: bool,
    /// Has schemas of some tools enforced, and those of others not.
    pub(super) mixes_strictness: bool,
    /// Can be told which tool to call, not only that it has to call one.
    pub(super) names_tools: bool,
    /// Reads documents by their URLs, also by those that hold them, and not as files.
    pub(super) documents_by_url: bool,
    /// Answers in JSON of a schema, not only in any JSON.
    pub(super) takes_schema: bool,
    /// Holds answers to any schema, also to one that leaves something open.
    pub(super) holds_to_any_schema: bool,
    /// Holds answers to no schema, only tries to.
    pub(super) tries_schemas: bool,
    /// Answers in any JSON, not only in JSON of a schema.
    pub(super) takes_any_json: bool,
    /// Answers in JSON also where it has tools.
    pub(super) json_beside_tools: bool,
    /// Tells log probabilities.
    pub(super) takes_logprobs: bool,
    /// Knows penalties and stop sequences.
    pub(super) takes_penalties: bool,
    /// Wants ids of tool calls of nine letters and digits.
    short_ids: bool,
    /// Runs models that want to see the ids of calls as they have made them (Kimi's do), and takes any.
    takes_own_ids: bool,
    /// Lets a user speak only before the model does and after it, not after its tools, and last.
    pub(super) takes_turns: bool,
    /// The model, if it is one of OpenAI that thinks.
    thinker: Option<Thinker>,
    /// Runs OpenAI's models as OpenAI does.
    pub(super) is_openai: bool,
}

/// How a model is told to think.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ThinkingBy {
    /// It does not, or as it likes.
    Nothing,
    /// As it likes: those who run models of others, which may think unless they are told not to, in words
    /// that differ.
    Unguided,
    /// By `reasoning_effort`.
    Effort(Levels),
    /// By `reasoning_effort`, which turns it on or off: `default` and `none`.
    Switch,
    /// DeepSeek: by `thinking` and `reasoning_effort`.
    DeepSeek,
    /// vLLM and llama.cpp: by what the model's chat template reads, and `reasoning_effort`.
    Template,
}

/// The fields that say how much to think.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Wish {
    pub(super) effort: Option<&'static str>,
    /// What turns it on or off apart from the effort.
    pub(super) on: Option<bool>,
    pub(super) is_lost: bool,
}

/// Models of Mistral, wherever they run.
const MISTRALS: [&str; 7] =
    ["codestral", "devstral", "magistral", "ministral", "mistral", "open-mistral", "pixtral"];

/// Models of xAI that think, whether or not they can be told how much, and those that can.
const GROK_THINKS: [&str; 4] = ["grok-3-mini", "grok-4", "grok-code", "grok-build"];
const GROK_LEVELS: [&str; 6] =
    ["grok-4.20-multi-agent", "grok-4.3", "grok-4.5", "grok-4.6", "grok-4.7", "grok-5"];

/// Those who run models of others, behind their chat templates.
const RUNS_OTHERS: [&str; 7] = ["fireworks", "groq", "moonshot", "nvidia", "openrouter", "together", "vllm"];

/// Models of others that do not think unless they are asked to; newer ones of Claude do.
const ASKED_FIRST: [&str; 9] = [
    "claude-3",
    "claude-haiku-4",
    "claude-opus-4",
    "claude-sonnet-4",
    "gemma-3",
    "gpt-",
    "llama",
    "Llama",
    "Meta-Llama",
];

/// What is in the names of those among them that think all the same: Nemotron, and what OpenRouter is to have
/// think.
const THINK_UNASKED: [&str; 2] = ["emotron", ":thinking"];

/// Those of whom some think unless they are told not to, in words that differ.
const RUNS_THINKERS: [&str; 4] = ["fireworks", "moonshot", "openrouter", "together"];

/// Whether a provider knows a conversation's newer names: `max_completion_tokens`, and the role `developer`.
pub(crate) fn knows_newer_names(provider: &str) -> bool {
    !is_one(provider, &["deepseek", "mistral"])
}

/// Whether a model refuses its limit under the older name. Elsewhere than at OpenAI and Azure its name says
/// little.
pub(crate) fn wants_newer_limit(provider: &str, model: &str) -> bool {
    is_one(provider, &["openai", azure::NAME]) && Thinker::of(model).is_some()
}

/// The members of messages, and of the calls in them, in which a provider refuses the reasoning of earlier
/// turns, that of others or its own. What is behind an `endpoint` of the operator's own may be anything, but
/// for Azure, where each customer has one.
///
/// `extra_content` has Gemini's signatures, for which nobody else has a use, and which many refuse. A name of
/// a model that a proxy has made up tells nothing: behind an endpoint of the operator's own they are left out
/// once they are refused.
pub(crate) fn refused_reasoning(
    provider: &str,
    model: &str,
    endpoint: Option<&str>,
) -> &'static [&'static str] {
    const MEMBERS: [&str; 5] =
        ["extra_content", "reasoning_content", "reasoning_details", "thinking_blocks", "reasoning"];
    let reads_signatures = is_one(provider, &["gemini"])
        || model.to_ascii_lowercase().contains("gemini")
        || endpoint.is_some_and(|endpoint| endpoint.contains(".googleapis.com"));
    match provider.to_ascii_lowercase().as_str() {
        azure::NAME => &MEMBERS,
        "mistral" | "openai" if endpoint.is_none() => &MEMBERS,
        // It takes back what it tells in the last one.
        "groq" if endpoint.is_none() => MEMBERS.split_last().map_or(&[], |(_, others)| others),
        _ if reads_signatures || endpoint.is_some() => &[],
        _ => &["extra_content"],
    }
}

/// Whether a provider hands on what a model's chat template is told.
pub(crate) fn tells_templates(provider: &str) -> bool {
    is_one(provider, &["llamacpp", "vllm"])
}

/// Whether a provider is Mistral, which is strict about the ids of tool calls.
pub(crate) fn is_mistral(provider: &str) -> bool {
    is_one(provider, &["mistral"])
}

/// Whether a model speaks in turn with the user, also after a tool. Those of Mistral do.
pub(crate) fn takes_turns(provider: &str, model: &str) -> bool {
    is_mistral(provider) || begins(&model.to_ascii_lowercase(), &MISTRALS)
}

fn begins(model: &str, starts: &[&str]) -> bool {
    let bare = model.rsplit('/').next().unwrap_or(model);
    starts.iter().any(|start| bare.starts_with(start))
}

fn is_one(provider: &str, names: &[&str]) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case(provider))
}

// === impl Profile ===

impl Profile {
    /// How it takes ids of calls.
    pub(super) fn id_of(self) -> IdOf {
        match self {
            Self { short_ids: true, .. } => short_id,
            Self { takes_own_ids: true, .. } => own_id,
            _ => safe_id,
        }
    }

    pub(super) fn of(provider: &str, model: &str) -> Self {
        let is = |names: &[&str]| is_one(provider, names);
        let thinker = Thinker::of(model);
        let (deepseek, mistral) = (is(&["deepseek"]), is_mistral(provider));
        let takes_turns = takes_turns(provider, model);
        // A deployment of Azure may be named anything.
        let newer_limit = thinker.is_some() || is(&[azure::NAME]);
        let grok_thinks = is(&["xai"]) && begins(model, &GROK_THINKS) && !model.contains("non-reasoning");
        Self {
            // Xiaomi's models want theirs back, wherever they run.
            echoes_reasoning: is(&["deepseek", "llamacpp", "lmstudio", "moonshot", "vllm"])
                || begins(&model.to_ascii_lowercase(), &["mimo"]),
            echoes_by_newer_name: is(&["vllm"]),
            takes_details: is(&["openrouter"]),
            takes_later_system: !takes_turns && !is(&["llamacpp", "lmstudio", "vllm"]),
            thinking: ThinkingBy::of(provider, model, thinker),
            asks_for_reasoning: is(&["groq"]) && begins(model, &["qwen", "deepseek"]),
            limit: if newer_limit { "max_completion_tokens" } else { "max_tokens" },
            seed: match (deepseek, mistral) {
                (true, _) => None,
                (_, true) => Some("random_seed"),
                _ => Some("seed"),
            },
            asks_for_usage: Provider::find(provider).is_none_or(|provider| provider.asks_for_usage),
            takes_top_k: is(&["fireworks", "llamacpp", "lmstudio", "openrouter", "together", "vllm"]),
            takes_user: !deepseek && !mistral,
            takes_parallel: !deepseek && !begins(model, &["o1", "o3", "o4"]),
            mixes_strictness: !is(&["cerebras"]),
            names_tools: !is(&["lmstudio"]),
            documents_by_url: mistral,
            takes_schema: !deepseek,
            holds_to_any_schema: is(&["llamacpp", "lmstudio", "vllm"]),
            tries_schemas: is(&["groq"]) && !begins(model, &["gpt-oss"]),
            takes_any_json: !is(&["lmstudio"]),
            json_beside_tools: !is(&["groq"]),
            takes_logprobs: is(&["openai", azure::NAME, "llamacpp", "vllm"]),
            takes_penalties: !grok_thinks && thinker.is_none(),
            short_ids: mistral,
            takes_own_ids: is(&RUNS_OTHERS),
            takes_turns,
            thinker,
            is_openai: is(&["openai", azure::NAME]),
        }
    }

    /// What says how much to think, as far as the model can be told.
    pub(super) fn wish(self, thinking: Option<Thinking>) -> Wish {
        self.thinking.wish(thinking)
    }

    /// Whether the model can be told how long its answers are to be.
    pub(super) fn takes_verbosity(self) -> bool {
        self.is_openai && self.thinker.is_some_and(|thinker| thinker.takes_verbosity)
    }

    /// Whether an answer is to be held to this schema, as far as it can be.
    pub(super) fn strict(self, schema: &Json, strict: Option<bool>) -> Option<bool> {
        strict.map(|strict| {
            strict && (self.holds_to_any_schema || !self.tries_schemas && holds_answers(schema))
        })
    }

    /// Whether the model can be told how to draw tokens beside the effort of a wish.
    pub(super) fn takes_sampling(self, wish: Wish) -> bool {
        self.thinker.is_none_or(|thinker| thinker.takes_sampling(wish.effort))
    }
}

// === impl ThinkingBy ===

impl ThinkingBy {
    fn of(provider: &str, model: &str, thinker: Option<Thinker>) -> Self {
        let is = |name| is_one(provider, &[name]);
        let is_silent = begins(model, &ASKED_FIRST) && !THINK_UNASKED.iter().any(|mark| model.contains(mark));
        if is("deepseek") {
            Self::DeepSeek
        } else if tells_templates(provider) {
            Self::Template
        } else if is("groq") && begins(model, &["qwen"]) {
            Self::Switch
        } else if let Some(thinker) = thinker {
            // Only Responses know the highest one.
            let most = thinker.levels.most.min(Effort::XHigh);
            Self::Effort(Levels { most, ..thinker.levels })
        } else if begins(model, &["gpt-oss"]) {
            Self::Effort(THREE)
        } else if begins(model, &["grok-3-mini"]) {
            Self::Effort(Levels { ends_only: true, ..THREE })
        } else if begins(model, &GROK_LEVELS) {
            Self::Effort(Levels { can_be_off: begins(model, &["grok-4.3"]), ..THREE })
        } else if is_one(provider, &RUNS_THINKERS) && !is_silent {
            Self::Unguided
        } else {
            Self::Nothing
        }
    }

    fn wish(self, thinking: Option<Thinking>) -> Wish {
        let Some(thinking) = thinking else { return Wish::default() };
        let off = thinking == Thinking::Off;
        let level = match thinking {
            Thinking::Off | Thinking::Adaptive => None,
            Thinking::Effort(effort) => Some(effort),
            Thinking::Budget(tokens) => Some(Effort::of_budget(tokens)),
        };
        match self {
            // A model that does not think need not be told so.
            Self::Nothing => Wish { is_lost: level.is_some(), ..Wish::default() },
            Self::Unguided => Wish { is_lost: off || level.is_some(), ..Wish::default() },
            Self::Effort(levels) if off => {
                Wish { effort: levels.off(), is_lost: levels.off().is_none(), on: None }
            }
            Self::Effort(levels) => Wish { effort: level.map(|level| levels.name(level)), ..Wish::default() },
            Self::Switch => Wish { effort: Some(if off { "none" } else { "default" }), ..Wish::default() },
            Self::DeepSeek => Wish { effort: level.map(Effort::name), on: Some(!off), is_lost: false },
            Self::Template => {
                Wish { effort: level.map(|level| THREE.name(level)), on: Some(!off), is_lost: false }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(provider: &str, model: &str, thinking: Thinking) -> Wish {
        Profile::of(provider, model).wish(Some(thinking))
    }

    #[test]
    fn each_model_is_told_to_think_as_it_knows_it() {
        let effort = |effort| Wish { effort: Some(effort), ..Wish::default() };
        let lost = Wish { is_lost: true, ..Wish::default() };
        let high = Thinking::Effort(Effort::XHigh);
        for (provider, model, thinking, expected) in [
            ("openai", "gpt-5", high, effort("high")),
            ("openai", "gpt-5", Thinking::Off, lost),
            ("openai", "gpt-5.2", high, effort("xhigh")),
            ("openai", "gpt-5.6-terra", Thinking::Effort(Effort::Max), effort("xhigh")),
            ("azure", "gpt-5.1", Thinking::Off, effort("none")),
            ("openai", "o4-mini", Thinking::Off, lost),
            ("openai", "o3", Thinking::Budget(40_000), effort("high")),
            ("openai", "gpt-4o", high, lost),
            ("openai", "gpt-4o", Thinking::Off, Wish::default()),
            ("groq", "openai/gpt-oss-120b", high, effort("high")),
            ("groq", "openai/gpt-oss-120b", Thinking::Off, lost),
            ("groq", "qwen/qwen3-32b", high, effort("default")),
            ("groq", "qwen/qwen3-32b", Thinking::Off, effort("none")),
            ("xai", "grok-3-mini", Thinking::Effort(Effort::Medium), effort("high")),
            ("xai", "grok-4.3", Thinking::Off, effort("none")),
            ("xai", "grok-4.5", Thinking::Off, lost),
            ("xai", "grok-4.6", high, effort("high")),
            ("xai", "grok-4.20-multi-agent-0309", high, effort("high")),
            ("openrouter", "qwen/qwen3.8-27b", Thinking::Off, lost),
            ("openrouter", "openai/gpt-5.2", Thinking::Off, effort("none")),
            ("together", "meta-llama/Llama-4", Thinking::Adaptive, Wish::default()),
            ("together", "meta-llama/Llama-4", Thinking::Off, Wish::default()),
            ("openrouter", "anthropic/claude-haiku-4.5", Thinking::Off, Wish::default()),
            ("openrouter", "anthropic/claude-haiku-4.5", high, lost),
            ("openrouter", "anthropic/claude-opus-5.5", Thinking::Off, lost),
            ("openrouter", "anthropic/claude-sonnet-5", Thinking::Off, lost),
            ("openrouter", "anthropic/claude-3.7-sonnet:thinking", Thinking::Off, lost),
            ("openrouter", "nvidia/llama-3.3-nemotron-super-49b-v1.5", Thinking::Off, lost),
            ("xai", "grok-4.20-reasoning", high, lost),
            ("deepseek", "deepseek-v4-pro", high, Wish { on: Some(true), ..effort("xhigh") }),
            ("deepseek", "deepseek-chat", Thinking::Off, Wish { on: Some(false), ..Wish::default() }),
            ("vllm", "Qwen/Qwen3-8B", Thinking::Budget(9_000), Wish { on: Some(true), ..effort("medium") }),
        ] {
            assert_eq!(wish(provider, model, thinking), expected, "{provider} {model} {thinking:?}");
        }
    }

    #[test]
    fn a_model_that_thinks_at_xai_takes_no_penalties() {
        for (model, takes) in [
            ("grok-4.5", false),
            ("grok-4-fast-reasoning", false),
            ("grok-4-fast-non-reasoning", true),
            ("grok-3", true),
        ] {
            assert_eq!(Profile::of("xai", model).takes_penalties, takes, "{model}");
        }
    }
}

//! How models are told to think, as far as they can be.

use super::levels::{Levels, THREE};
use super::profile::{begins, is_mistral, is_one, tells_templates};
use super::thinkers::Thinker;
use crate::dialect::anthropic::{LEAST_BUDGET, Traits};
use crate::ir::{Effort, Thinking};

/// How a model is told to think.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ThinkingBy {
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
    /// OpenRouter: by `reasoning`, whoever has made the model; `unasked` is whether it may think unless it is
    /// told not to, and `most` the highest budget of a model that takes one.
    OpenRouter { unasked: bool, most: Option<u64> },
    /// vLLM and llama.cpp: by what the model's chat template reads, and `reasoning_effort`.
    Template,
}

/// The fields that say how much to think.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Wish {
    pub(crate) effort: Option<&'static str>,
    /// The tokens that stand in the place of the effort where the answer may have more.
    pub(super) budget: Option<u64>,
    /// What turns it on or off apart from the effort.
    pub(super) on: Option<bool>,
    pub(crate) is_lost: bool,
}

/// Models of xAI that can be told how much to think.
const GROK_LEVELS: [&str; 6] =
    ["grok-4.20-multi-agent", "grok-4.3", "grok-4.5", "grok-4.6", "grok-4.7", "grok-5"];

/// Models of Mistral that think if they are asked to, which is all that they can be told.
const MISTRAL_THINKS: [&str; 4] =
    ["mistral-medium-3-5", "mistral-medium-latest", "mistral-small-2603", "mistral-small-latest"];

/// One that can be told how much, but not that it shall not.
const MISTRAL_LEVELS: [&str; 1] = ["mistral-large-4"];

/// Models of others that do not think.
const SILENT: [&str; 7] = ["claude-3-", "claude-3.5-", "gemma-3", "gpt-", "llama", "Llama", "Meta-Llama"];

/// Models of Claude that do not think unless they are asked to; newer ones do.
const ASKED_FIRST: [&str; 4] = ["claude-3.7", "claude-haiku-4", "claude-opus-4", "claude-sonnet-4"];

/// What is in the names of those among either that think all the same: Nemotron, and what OpenRouter is to
/// have think.
const THINK_UNASKED: [&str; 2] = ["emotron", ":thinking"];

/// Those of whom some think unless they are told not to, in words that differ.
const RUNS_THINKERS: [&str; 3] = ["fireworks", "moonshot", "together"];

// === impl ThinkingBy ===

impl ThinkingBy {
    pub(super) fn of(provider: &str, model: &str) -> Self {
        let is = |name| is_one(provider, &[name]);
        let thinks_unasked = THINK_UNASKED.iter().any(|mark| model.contains(mark));
        let is_silent = begins(model, &SILENT) && !thinks_unasked;
        if is("deepseek") {
            Self::DeepSeek
        } else if tells_templates(provider) {
            Self::Template
        } else if is("groq") && begins(model, &["qwen"]) {
            Self::Switch
        } else if is_mistral(provider) && begins(model, &MISTRAL_THINKS) {
            Self::Effort(Levels { least: Effort::High, can_be_off: true, ..THREE })
        } else if is_mistral(provider) && begins(model, &MISTRAL_LEVELS) {
            Self::Effort(THREE)
        } else if let Self::Effort(levels) = Self::by_effort(model) {
            // Only Responses know the highest one.
            Self::Effort(Levels { most: levels.most.min(Effort::XHigh), ..levels })
        } else if is("openrouter") && !is_silent {
            let unasked = thinks_unasked || !begins(model, &ASKED_FIRST);
            Self::OpenRouter { unasked, most: most_budget(model) }
        } else if is_one(provider, &RUNS_THINKERS) && !is_silent {
            Self::Unguided
        } else {
            Self::Nothing
        }
    }

    /// By the effort, where the name tells a model that knows it.
    pub(crate) fn by_effort(model: &str) -> Self {
        if let Some(thinker) = Thinker::of(model) {
            Self::Effort(thinker.levels)
        } else if begins(model, &["gpt-oss"]) {
            Self::Effort(THREE)
        } else if begins(model, &["grok-3-mini"]) {
            Self::Effort(Levels { ends_only: true, ..THREE })
        } else if begins(model, &GROK_LEVELS) {
            Self::Effort(Levels { can_be_off: begins(model, &["grok-4.3"]), ..THREE })
        } else {
            Self::Nothing
        }
    }

    /// What says how much to think.
    pub(crate) fn wish(self, thinking: Option<Thinking>) -> Wish {
        let Some(thinking) = thinking else { return Wish::default() };
        let off = thinking == Thinking::Off;
        let level = match thinking {
            Thinking::Off | Thinking::Adaptive => None,
            Thinking::Effort(effort) => Some(effort),
            Thinking::Budget(tokens) => Some(Effort::of_budget(tokens)),
        };
        let budget = match thinking {
            Thinking::Budget(tokens) => Some(tokens),
            _ => None,
        };
        match self {
            // A model that does not think need not be told so.
            Self::Nothing => Wish { is_lost: level.is_some(), ..Wish::default() },
            Self::Unguided => Wish { is_lost: off || level.is_some(), ..Wish::default() },
            Self::OpenRouter { unasked, .. } if off => {
                Wish { on: unasked.then_some(false), ..Wish::default() }
            }
            Self::OpenRouter { most, .. } => Wish {
                effort: level.map(|level| level.min(Effort::XHigh).name()),
                budget: budget.zip(most).map(|(tokens, most)| tokens.max(LEAST_BUDGET).min(most)),
                on: level.is_none().then_some(true),
                is_lost: false,
            },
            Self::Effort(levels) if off => {
                Wish { effort: levels.off(), is_lost: levels.off().is_none(), ..Wish::default() }
            }
            Self::Effort(levels) => {
                let level = level.or(levels.only());
                Wish { effort: level.map(|level| levels.name(level)), ..Wish::default() }
            }
            Self::Switch => Wish { effort: Some(if off { "none" } else { "default" }), ..Wish::default() },
            Self::DeepSeek => Wish { effort: level.map(Effort::name), on: Some(!off), ..Wish::default() },
            Self::Template => {
                Wish { effort: level.map(|level| THREE.name(level)), on: Some(!off), ..Wish::default() }
            }
        }
    }
}

// === impl Wish ===

impl Wish {
    /// The budget, if it leaves some of so many tokens to the answer: an effort always does.
    pub(super) fn budget_in(self, most_output: Option<u64>) -> Option<u64> {
        self.budget.filter(|budget| most_output.is_none_or(|most| *budget < most))
    }
}

/// The highest budget that a model takes at OpenRouter, if it takes any: what is newer goes by levels.
fn most_budget(model: &str) -> Option<u64> {
    let traits = Traits::of(model);
    if traits.is_claude && traits.takes_budget {
        Some(traits.most_output - 1)
    } else {
        // Of Google's they are those to which it is said so, too.
        begins(model, &["gemini-2.5"]).then_some(24_576)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(provider: &str, model: &str, thinking: Thinking) -> Wish {
        ThinkingBy::of(provider, model).wish(Some(thinking))
    }

    #[test]
    fn each_model_is_told_to_think_as_it_knows_it() {
        let effort = |effort| Wish { effort: Some(effort), ..Wish::default() };
        let lost = Wish { is_lost: true, ..Wish::default() };
        let switched = |on| Wish { on: Some(on), ..Wish::default() };
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
            ("mistral", "mistral-medium-3-5", Thinking::Effort(Effort::Low), effort("high")),
            ("mistral", "mistral-medium-3-5-2604", Thinking::Budget(9_000), effort("high")),
            ("mistral", "mistral-small-latest", Thinking::Off, effort("none")),
            ("mistral", "mistral-small-latest", Thinking::Adaptive, effort("high")),
            ("mistral", "mistral-large-4-0", Thinking::Adaptive, Wish::default()),
            ("mistral", "mistral-medium-2508", high, lost),
            ("mistral", "mistral-large-4-0", Thinking::Effort(Effort::Low), effort("low")),
            ("mistral", "mistral-large-4-0", Thinking::Off, lost),
            (
                "vllm",
                "mistralai/mistral-small-latest",
                Thinking::Off,
                Wish { on: Some(false), ..Wish::default() },
            ),
            ("together", "Qwen/Qwen3.8-27b", Thinking::Off, lost),
            ("openrouter", "qwen/qwen3.8-27b", Thinking::Off, switched(false)),
            ("openrouter", "qwen/qwen3.8-27b", Thinking::Adaptive, switched(true)),
            ("openrouter", "qwen/qwen3.8-27b", Thinking::Effort(Effort::Max), effort("xhigh")),
            ("openrouter", "google/gemini-3-pro", Thinking::Budget(9_000), effort("medium")),
            (
                "openrouter",
                "google/gemini-2.5-flash",
                Thinking::Budget(90_000),
                Wish { budget: Some(24_576), ..effort("xhigh") },
            ),
            (
                "openrouter",
                "anthropic/claude-sonnet-4.5",
                Thinking::Budget(9),
                Wish { budget: Some(1_024), ..effort("minimal") },
            ),
            ("openrouter", "anthropic/claude-opus-4.6", Thinking::Budget(9_000), effort("medium")),
            ("openrouter", "openai/gpt-4o", high, lost),
            ("openrouter", "openai/gpt-5.2", Thinking::Off, effort("none")),
            ("together", "meta-llama/Llama-4", Thinking::Adaptive, Wish::default()),
            ("together", "meta-llama/Llama-4", Thinking::Off, Wish::default()),
            ("openrouter", "anthropic/claude-haiku-4.5", Thinking::Off, Wish::default()),
            ("openrouter", "anthropic/claude-haiku-4.5", high, effort("xhigh")),
            ("openrouter", "anthropic/claude-3.5-haiku", high, lost),
            ("openrouter", "anthropic/claude-opus-5.5", Thinking::Off, switched(false)),
            ("openrouter", "anthropic/claude-3.7-sonnet:thinking", Thinking::Off, switched(false)),
            ("openrouter", "nvidia/llama-3.3-nemotron-super-49b-v1.5", Thinking::Off, switched(false)),
            ("xai", "grok-4.20-reasoning", high, lost),
            ("deepseek", "deepseek-v4-pro", high, Wish { on: Some(true), ..effort("xhigh") }),
            ("deepseek", "deepseek-chat", Thinking::Off, Wish { on: Some(false), ..Wish::default() }),
            ("vllm", "Qwen/Qwen3-8B", Thinking::Budget(9_000), Wish { on: Some(true), ..effort("medium") }),
        ] {
            assert_eq!(wish(provider, model, thinking), expected, "{provider} {model} {thinking:?}");
        }
    }
}

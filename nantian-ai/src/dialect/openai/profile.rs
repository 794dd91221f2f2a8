//! What the providers of this dialect, and their models, differ in.

use std::borrow::Cow;

use super::strict::holds_answers;
use super::thinkers::Thinker;
use super::thinking::{ThinkingBy, Wish};
use crate::dialect::gemini;
use crate::ir::{Json, Thinking, brief_safe_id, own_id, safe_id, short_id};
use crate::target::azure;
use crate::target::provider::Provider;

/// How an id of a call is written.
pub(super) type IdOf = fn(&str) -> Cow<'_, str>;

/// What a provider takes of a model of this name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Profile {
    /// The names by which it takes back the reasoning of earlier turns.
    pub(super) echoes_as: &'static [&'static str],
    /// Takes back reasoning that the model's maker has encrypted, as `reasoning_details`.
    pub(super) takes_details: bool,
    /// Takes signatures of Gemini back with the calls: where the model may be one of it.
    pub(super) takes_signatures: bool,
    /// Runs a model of Gemini that wants its first call of several signed.
    pub(super) wants_signatures: bool,
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
    is_claude_at_openrouter: bool,
    /// The model, if it is one of OpenAI that thinks.
    thinker: Option<Thinker>,
    /// Runs OpenAI's models as OpenAI does.
    pub(super) is_openai: bool,
}

/// How most call what a model has thought.
const REASONING: &str = "reasoning_content";

/// Models of Mistral, wherever they run.
const MISTRALS: [&str; 7] =
    ["codestral", "devstral", "magistral", "ministral", "mistral", "open-mistral", "pixtral"];

/// Models of xAI that think, whether or not they can be told how much.
const GROK_THINKS: [&str; 4] = ["grok-3-mini", "grok-4", "grok-code", "grok-build"];

/// Those who run models of others, behind their chat templates.
const RUNS_OTHERS: [&str; 7] = ["fireworks", "groq", "moonshot", "nvidia", "openrouter", "together", "vllm"];

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
    let reads_signatures =
        is_gemini(provider, model) || endpoint.is_some_and(|endpoint| endpoint.contains(".googleapis.com"));
    match provider.to_ascii_lowercase().as_str() {
        azure::NAME => &MEMBERS,
        "mistral" | "openai" if endpoint.is_none() => &MEMBERS,
        // It takes back what it tells in the last one.
        "groq" if endpoint.is_none() => MEMBERS.split_last().map_or(&[], |(_, others)| others),
        _ if reads_signatures || endpoint.is_some() => &[],
        _ => &["extra_content"],
    }
}

/// Whether a provider refuses what models of Mistral have thought, as they tell it: among the parts of what
/// they have said. vLLM, which runs them, reads it, and an endpoint of the operator's own may.
pub(crate) fn refuses_thought_parts(provider: &str, endpoint: Option<&str>) -> bool {
    let may_read = endpoint.is_some() || is_one(provider, &["mistral", "vllm"]);
    !may_read || is_one(provider, &[azure::NAME])
}

/// The members in which a provider refuses to be told what is to be kept: it keeps beginnings unasked. What
/// is behind an `endpoint` of the operator's own may read them, and so may others until they refuse them.
pub(crate) fn refused_marks(provider: &str, endpoint: Option<&str>) -> &'static [&'static str] {
    match provider.to_ascii_lowercase().as_str() {
        "fireworks" if endpoint.is_none() => &["cache_control"],
        "groq" if endpoint.is_none() => &["cache_control", "prompt_cache_key"],
        _ => &[],
    }
}

fn is_gemini(provider: &str, model: &str) -> bool {
    is_one(provider, &["gemini"]) || model.to_ascii_lowercase().contains("gemini")
}

/// Whether a provider hands on what a model's chat template is told.
pub(crate) fn tells_templates(provider: &str) -> bool {
    is_one(provider, &["llamacpp", "vllm"])
}

/// Whether a provider is Mistral, which is strict about the ids of tool calls.
pub(crate) fn is_mistral(provider: &str) -> bool {
    is_one(provider, &["mistral"])
}

/// Whether a provider runs OpenAI's models, which refuse long ids of tool calls in a chat. What is behind an
/// `endpoint` of the operator's own may be anything, but for Azure.
pub(crate) fn wants_brief_ids(provider: &str, endpoint: Option<&str>) -> bool {
    is_one(provider, &[azure::NAME]) || endpoint.is_none() && is_one(provider, &["openai"])
}

/// Whether a model speaks in turn with the user, also after a tool. Those of Mistral do.
pub(crate) fn takes_turns(provider: &str, model: &str) -> bool {
    is_mistral(provider) || begins(&model.to_ascii_lowercase(), &MISTRALS)
}

pub(super) fn begins(model: &str, starts: &[&str]) -> bool {
    let bare = model.rsplit('/').next().unwrap_or(model);
    starts.iter().any(|start| bare.starts_with(start))
}

pub(super) fn is_one(provider: &str, names: &[&str]) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case(provider))
}

// === impl Profile ===

impl Profile {
    /// How it takes ids of calls.
    pub(super) fn id_of(self) -> IdOf {
        match self {
            Self { short_ids: true, .. } => short_id,
            Self { takes_own_ids: true, .. } => own_id,
            Self { is_openai: true, .. } => brief_safe_id,
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
        // OpenRouter has words of its own for them.
        let has_signatures = !is(&["openrouter"]);
        let is_known = Provider::find(provider).is_some();
        // Xiaomi's models want their reasoning back, wherever they run, and others may where nobody knows.
        let echoes = !is_known
            || is(&["deepseek", "llamacpp", "lmstudio", "moonshot"])
            || begins(&model.to_ascii_lowercase(), &["mimo"]);
        let grok_thinks = is(&["xai"]) && begins(model, &GROK_THINKS) && !model.contains("non-reasoning");
        Self {
            echoes_as: if is(&["vllm"]) {
                &[REASONING, "reasoning"]
            } else if is(&["openrouter"]) {
                &["reasoning"]
            } else if echoes {
                &[REASONING]
            } else {
                &[]
            },
            takes_details: is(&["openrouter"]),
            takes_signatures: has_signatures && (!is_known || is_gemini(provider, model)),
            wants_signatures: has_signatures && gemini::wants_signatures(model),
            takes_later_system: !takes_turns && !is(&["llamacpp", "lmstudio", "vllm"]),
            thinking: ThinkingBy::of(provider, model),
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
            is_claude_at_openrouter: is(&["openrouter"]) && begins(model, &["claude-"]),
            thinker,
            is_openai: is(&["openai", azure::NAME]),
        }
    }

    /// As it is, but that it takes reasoning back, as is known of it.
    pub(super) fn echoing(self) -> Self {
        let echoes_as = if self.echoes_as.is_empty() { &[REASONING] } else { self.echoes_as };
        Self { echoes_as, ..self }
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

    /// Whether the model can be told how to draw tokens beside a wish: Claude not while it thinks.
    pub(super) fn takes_sampling(self, wish: Wish) -> bool {
        let thinks = wish.effort.is_some() || wish.on == Some(true);
        let may_be_told = !(self.is_claude_at_openrouter && thinks);
        may_be_told && self.thinker.is_none_or(|thinker| thinker.takes_sampling(wish.effort))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

//! What is told to models apart from what all of them know: `inferenceConfig`, and the fields of their own.

use super::OWN;
use super::family::Family;
use crate::codec::{Object, object};
use crate::dialect::anthropic::{Plan, Traits};
use crate::dialect::openai::Thinker;
use crate::ir::{Block, Effort, Losses, Request, Thinking};

/// The features of Claude that Bedrock's documentation names and that change nothing about the form of a
/// request: what belongs to the others has no place in the common form, and Bedrock refuses a request with a
/// name that it does not know.
const FEATURES: [&str; 5] = [
    "context-1m-2025-08-07",
    "dev-full-thinking-2025-05-14",
    "interleaved-thinking-2025-05-14",
    "output-128k-2025-02-19",
    "token-efficient-tools-2025-02-19",
];

/// The highest of the levels of models that know three.
const HIGHEST: &str = "high";

/// How a model shall think and draw tokens.
pub(super) struct Wishes {
    limit: Option<u64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    /// The fields of its own, as an object.
    own: Vec<u8>,
}

// === impl Wishes ===

impl Wishes {
    /// What a family is told, of which `trusts` says what reasoning comes back to it.
    pub(super) fn of(
        request: &Request,
        family: Family,
        trusts: impl Fn(&Block) -> bool,
        losses: &mut Losses,
    ) -> Self {
        match family {
            Family::Claude(traits) => {
                Self::of_claude(request, traits, &Plan::of(request, traits, trusts, losses))
            }
            Family::Nova { thinks } => Self::of_nova(request, thinks, losses),
            Family::GptOss => {
                let effort = request.thinking.and_then(level);
                if request.thinking == Some(Thinking::Off) {
                    losses.add("thinking");
                }
                let own = object(|own| own.some_text("reasoning_effort", effort));
                Self::plain(request, losses, own)
            }
            Family::Gpt(thinker) => Self::of_gpt(request, thinker, losses),
            Family::Unguided | Family::Other | Family::Unnamed => {
                if request.thinking.is_some_and(|thinking| thinking != Thinking::Off) {
                    losses.add("thinking");
                }
                Self::plain(request, losses, Vec::new())
            }
        }
    }

    fn of_claude(request: &Request, traits: Traits, plan: &Plan) -> Self {
        let own = object(|own| {
            if features(request).next().is_some() {
                own.list("anthropic_beta", |list| features(request).for_each(|name| list.text(name)));
            }
            plan.write_thinking(own);
            if let Some(effort) = plan.effort() {
                own.object("output_config", |config| config.text("effort", effort));
            }
            own.some_count("top_k", plan.top_k);
        });
        // What Bedrock takes for the limit where none is named may be less than the budget.
        let own_limit = plan.has_budget().then_some(traits.most_output);
        let limit = request.max_output.or(own_limit).map(|limit| plan.limit(limit));
        Self { limit, temperature: plan.temperature, top_p: plan.top_p, own }
    }

    fn of_nova(request: &Request, thinks: bool, losses: &mut Losses) -> Self {
        let mut level = request.thinking.and_then(level);
        // At the highest level it takes neither a limit, which clients set for what it costs, nor a say in
        // how tokens are drawn.
        if thinks && level == Some(HIGHEST) && request.max_output.is_some() {
            level = Some("medium");
            losses.add("thinking");
        }
        let draws = !thinks || level != Some(HIGHEST);
        let own = object(|own| {
            if let Some(top_k) = request.top_k.filter(|_| draws) {
                own.object("inferenceConfig", |config| config.count("topK", top_k));
            }
            if let (true, Some(level)) = (thinks, level) {
                own.object("reasoningConfig", |config| {
                    config.text("type", "enabled");
                    config.text("maxReasoningEffort", level);
                });
            }
        });
        if !thinks && level.is_some() {
            losses.add("thinking");
        }
        if draws {
            return Self::clamped(request, losses, own);
        }
        for (given, name) in [
            (request.temperature.is_some(), "temperature"),
            (request.top_p.is_some(), "top_p"),
            (request.top_k.is_some(), "top_k"),
        ] {
            if given {
                losses.add(name);
            }
        }
        Self { limit: None, temperature: None, top_p: None, own }
    }

    fn of_gpt(request: &Request, thinker: Thinker, losses: &mut Losses) -> Self {
        let levels = thinker.levels;
        let effort = match request.thinking {
            None | Some(Thinking::Adaptive) => None,
            Some(Thinking::Off) => levels.off().or_else(|| {
                losses.add("thinking");
                Some(levels.name(Effort::Minimal))
            }),
            Some(Thinking::Effort(effort)) => Some(levels.name(effort)),
            Some(Thinking::Budget(tokens)) => Some(levels.name(Effort::of_budget(tokens))),
        };
        let own = object(|own| {
            if let Some(effort) = effort {
                own.object("reasoning", |config| config.text("effort", effort));
            }
        });
        Self::plain(request, losses, own)
    }

    fn plain(request: &Request, losses: &mut Losses, own: Vec<u8>) -> Self {
        if request.top_k.is_some() {
            losses.add("top_k");
        }
        Self::clamped(request, losses, own)
    }

    fn clamped(request: &Request, losses: &mut Losses, own: Vec<u8>) -> Self {
        if request.temperature.is_some_and(|temperature| temperature > 1.0) {
            losses.add("temperature");
        }
        let temperature = request.temperature.map(|temperature| temperature.min(1.0));
        Self { limit: request.max_output, temperature, top_p: request.top_p, own }
    }

    pub(super) fn write(&self, body: &mut Object<'_>, stops: &[&String]) {
        let config = object(|config| {
            config.some_count("maxTokens", self.limit);
            config.some_number("temperature", self.temperature);
            config.some_number("topP", self.top_p);
            if !stops.is_empty() {
                config.list("stopSequences", |list| stops.iter().for_each(|stop| list.text(stop)));
            }
        });
        write_members(body, "inferenceConfig", &config);
    }

    /// Writes the fields of the model's own.
    pub(super) fn write_own(&self, body: &mut Object<'_>) {
        write_members(body, OWN, &self.own);
    }
}

/// The features of Claude that are asked for and that Bedrock knows.
pub(super) fn features(request: &Request) -> impl Iterator<Item = &str> {
    request.betas.iter().map(String::as_str).filter(|name| FEATURES.contains(name))
}

/// Writes an object, if it has members.
fn write_members(body: &mut Object<'_>, name: &'static str, object: &[u8]) {
    if object.len() > b"{}".len() {
        body.raw(name, object);
    }
}

/// One of the three levels that models are told; `None` leaves it to the model.
fn level(thinking: Thinking) -> Option<&'static str> {
    let effort = match thinking {
        Thinking::Off | Thinking::Adaptive => return None,
        Thinking::Effort(effort) => effort,
        Thinking::Budget(tokens) => Effort::of_budget(tokens),
    };
    Some(effort.clamp(Effort::Low, Effort::High).name())
}

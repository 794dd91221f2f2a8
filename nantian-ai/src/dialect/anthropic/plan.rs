//! How much a model thinks before it answers, and how it draws tokens.

use super::Traits;
use crate::codec::Object;
use crate::ir::{Effort, Losses, Request, Thinking, ToolChoice};

/// The least that Anthropic takes as a budget.
const LEAST_BUDGET: u64 = 1_024;

/// What of the wishes of a request a model of Anthropic's can be told, wherever it runs.
pub(crate) struct Plan {
    thinking: Option<Thinking>,
    budget: Option<u64>,
    effort: Option<&'static str>,
    /// The temperature, 0 to 1.
    pub(crate) temperature: Option<f64>,
    /// The share of probability that tokens are drawn from.
    pub(crate) top_p: Option<f64>,
    /// How many tokens are drawn from.
    pub(crate) top_k: Option<u64>,
}

// === impl Plan ===

impl Plan {
    pub(crate) fn of(request: &Request, traits: Traits, losses: &mut Losses) -> Self {
        let thinking = thinking(request, losses);
        let wanted = match thinking {
            Some(Thinking::Budget(budget)) => Some(budget),
            Some(Thinking::Effort(effort)) => Some(effort.budget()),
            Some(Thinking::Adaptive) => Some(Effort::Medium.budget()),
            Some(Thinking::Off) | None => None,
        };
        let effort = match thinking {
            Some(Thinking::Effort(effort)) => Some(effort),
            Some(Thinking::Budget(budget)) => Some(Effort::of_budget(budget)),
            Some(Thinking::Adaptive | Thinking::Off) | None => None,
        };
        let mut plan = Self {
            thinking,
            budget: wanted.filter(|_| traits.takes_budget).map(|budget| budget.max(LEAST_BUDGET)),
            effort: effort.filter(|_| !traits.takes_budget).map(|effort| effort.max(Effort::Low).name()),
            temperature: request.temperature,
            top_p: request.top_p,
            top_k: request.top_k,
        };
        plan.restrain(traits, losses);
        plan
    }

    /// Draws tokens only as the model takes it.
    fn restrain(&mut self, traits: Traits, losses: &mut Losses) {
        if self.temperature.is_some_and(|temperature| temperature > 1.0) {
            self.temperature = Some(1.0);
            losses.add("temperature");
        }
        let thinks = self.thinking.is_some_and(|thinking| thinking != Thinking::Off);
        if !traits.takes_sampling || thinks {
            // 1 is what they take anyway.
            if self.temperature.take().is_some_and(|temperature| temperature != 1.0) {
                losses.add("temperature");
            }
            if self.top_p.take().is_some_and(|top_p| top_p != 1.0) {
                losses.add("top_p");
            }
            if self.top_k.take().is_some() {
                losses.add("top_k");
            }
        }
        if traits.takes_one && self.temperature.is_some() && self.top_p.take().is_some() {
            losses.add("top_p");
        }
    }

    /// The most tokens of an answer: it needs room beside the thinking.
    pub(crate) fn limit(&self, limit: u64) -> u64 {
        self.budget.map_or(limit, |budget| limit.max(budget.saturating_add(LEAST_BUDGET)))
    }

    /// How much it thinks, for the models that are told so by a level.
    pub(crate) fn effort(&self) -> Option<&'static str> {
        self.effort
    }

    pub(crate) fn write_thinking(&self, body: &mut Object<'_>) {
        let Some(thinking) = self.thinking else { return };
        body.object("thinking", |config| match (thinking, self.budget) {
            (Thinking::Off, _) => config.text("type", "disabled"),
            (_, Some(budget)) => {
                config.text("type", "enabled");
                config.count("budget_tokens", budget);
            }
            (_, None) => config.text("type", "adaptive"),
        });
    }
}

/// What a model that must call a tool thinks cannot be had.
fn thinking(request: &Request, losses: &mut Losses) -> Option<Thinking> {
    let thinking = request.thinking?;
    let forced = matches!(request.tool_choice, Some(ToolChoice::Any | ToolChoice::Tool(_)));
    if forced && !request.tools.is_empty() && thinking != Thinking::Off {
        losses.add("thinking");
        return None;
    }
    Some(thinking)
}

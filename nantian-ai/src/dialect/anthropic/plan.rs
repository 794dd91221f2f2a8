//! How much a model thinks before it answers, and how it draws tokens.

use super::Traits;
use super::traits::Off;
use crate::codec::Object;
use crate::ir::{Block, Effort, Losses, Message, Request, Role, Thinking};

/// The least that Anthropic takes as a budget.
pub(crate) const LEAST_BUDGET: u64 = 1_024;

/// What of the wishes of a request a model of Anthropic's can be told, wherever it runs.
pub(crate) struct Plan {
    thinking: Option<Thinking>,
    budget: Option<u64>,
    effort: Option<&'static str>,
    off: Off,
    /// The temperature, 0 to 1.
    pub(crate) temperature: Option<f64>,
    /// The share of probability that tokens are drawn from.
    pub(crate) top_p: Option<f64>,
    /// How many tokens are drawn from.
    pub(crate) top_k: Option<u64>,
}

// === impl Plan ===

impl Plan {
    /// The plan for a request to a model, of which `trusts` says what reasoning comes back to it.
    pub(crate) fn of(
        request: &Request,
        traits: Traits,
        trusts: impl Fn(&Block) -> bool,
        losses: &mut Losses,
    ) -> Self {
        let thinking = request.thinking.filter(|thinking| {
            let lost = *thinking != Thinking::Off
                && (traits.takes_forced_tools && request.must_call()
                    || traits.takes_budget && has_begun_without(&request.messages, trusts));
            if lost {
                losses.add("thinking");
            }
            !lost
        });
        let wanted = match thinking {
            Some(Thinking::Budget(budget)) => Some(budget),
            Some(Thinking::Effort(effort)) => Some(effort.budget()),
            Some(Thinking::Adaptive) => Some(Effort::Medium.budget()),
            Some(Thinking::Off) | None => None,
        };
        let effort = match thinking {
            Some(Thinking::Effort(effort)) => Some(effort),
            Some(Thinking::Budget(budget)) => Some(Effort::of_budget(budget)),
            // That is as near as it comes.
            Some(Thinking::Off) if traits.off == Off::Never => Some(Effort::Low),
            Some(Thinking::Adaptive | Thinking::Off) | None => None,
        };
        if thinking == Some(Thinking::Off) && traits.off != Off::Disabled {
            losses.add("thinking");
        }
        // An answer needs room beside it.
        let most = if traits.knows_most { traits.most_output - LEAST_BUDGET } else { u64::MAX };
        let mut plan = Self {
            thinking,
            budget: wanted.filter(|_| traits.takes_budget).map(|budget| budget.clamp(LEAST_BUDGET, most)),
            effort: effort.filter(|_| !traits.takes_budget).map(|effort| traits.effort(effort).name()),
            off: traits.off,
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

    /// Whether it thinks as many tokens as it is told.
    pub(crate) fn has_budget(&self) -> bool {
        self.budget.is_some()
    }

    /// How much it thinks, for the models that are told so by a level.
    pub(crate) fn effort(&self) -> Option<&'static str> {
        self.effort
    }

    pub(crate) fn write_thinking(&self, body: &mut Object<'_>) {
        let is_said = |thinking: &Thinking| *thinking != Thinking::Off || self.off != Off::Never;
        let Some(thinking) = self.thinking.filter(is_said) else { return };
        body.object("thinking", |config| match (thinking, self.budget) {
            (Thinking::Off, _) if self.off == Off::BetweenTools => config.text("type", "between_tools"),
            (Thinking::Off, _) => config.text("type", "disabled"),
            (_, Some(budget)) => {
                config.text("type", "enabled");
                config.count("budget_tokens", budget);
            }
            (_, None) => {
                config.text("type", "adaptive");
                // Clients show it, and newer models keep it back unless they are asked.
                config.text("display", "summarized");
            }
        });
    }
}

/// Whether the model's turn goes on, after results of its calls, that has begun without reasoning which it
/// trusts. A model that wants a budget cannot think in it then.
fn has_begun_without(messages: &[Message], trusts: impl Fn(&Block) -> bool) -> bool {
    let said: Vec<_> = messages.iter().filter(|message| message.role != Role::System).collect();
    // Neighbours of one role are one turn there.
    let turns = said.chunk_by(|one, next| one.role == next.role);
    let turns = turns.map(|turn| (turn, turn.iter().flat_map(|message| &message.content)));
    let is_of_the_model = |turn: &[&Message]| turn.first().is_some_and(|one| one.role == Role::Assistant);
    let goes_on = turns.rev().take_while(|(turn, content)| {
        is_of_the_model(turn) || content.clone().any(|block| matches!(block, Block::ToolResult(_)))
    });
    goes_on.filter(|(turn, _)| is_of_the_model(turn)).last().is_some_and(|(_, content)| {
        let mut told = content.filter(|block| !block.is_blank());
        told.find(|block| !block.is_reasoning() || trusts(block)).is_none_or(|block| !block.is_reasoning())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Json, Reasoning, ToolCall, ToolResult};

    fn thinks(turns: &[&str]) -> bool {
        let message = |turn: &&str| {
            let block = |kind| match kind {
                's' => Block::Reasoning(Reasoning { text: String::new(), signature: Some("s".to_owned()) }),
                'u' => Block::Reasoning(Reasoning { text: "hm".to_owned(), signature: None }),
                'c' => Block::ToolCall(ToolCall {
                    id: "c".to_owned(),
                    name: "f".to_owned(),
                    arguments: Json::empty_object(),
                }),
                'r' => Block::ToolResult(ToolResult { id: "c".to_owned(), content: vec![], is_error: false }),
                _ => Block::Text("x".to_owned()),
            };
            let is_said = turn.contains(['s', 'u', 'c', 'a']);
            let role = if is_said { Role::Assistant } else { Role::User };
            Message::new(role, turn.chars().map(block).collect())
        };
        let messages = turns.iter().map(message).collect();
        let thinking = Some(Thinking::Effort(Effort::High));
        let request = Request { messages, thinking, ..Request::default() };
        let trusts =
            |block: &Block| matches!(block, Block::Reasoning(reasoning) if reasoning.signature.is_some());
        let mut losses = Losses::default();
        let plan = Plan::of(&request, Traits::of("claude-sonnet-4-5"), trusts, &mut losses);
        assert_eq!(losses.is_empty(), plan.thinking.is_some());
        plan.thinking.is_some()
    }

    #[test]
    fn the_longest_thinking_leaves_room_for_an_answer_where_the_model_is_known() {
        for (model, effort, budget) in [
            ("claude-opus-4-1", Effort::Max, 30_976),
            ("claude-opus-4-1", Effort::XHigh, 30_976),
            ("claude-opus-4-1", Effort::High, 16_384),
            ("claude-sonnet-4-5", Effort::Max, 60_000),
            ("glm-4.6", Effort::Max, 60_000),
        ] {
            let request = Request { thinking: Some(Thinking::Effort(effort)), ..Request::default() };
            let traits = Traits::of(model);
            let plan = Plan::of(&request, traits, |_| true, &mut Losses::default());
            assert_eq!(plan.budget, Some(budget), "{model}");
            assert!(!traits.knows_most || plan.limit(traits.most_output) == traits.most_output, "{model}");
        }
    }

    #[test]
    fn a_turn_that_has_begun_without_reasoning_goes_on_without() {
        for (turns, thinks_on) in [
            (&["x"][..], true),
            (&["x", "c", "r"], false),
            (&["x", "uc", "r"], false),
            (&["x", "ac", "r"], false),
            (&["x", "sc", "r"], true),
            (&["x", "usc", "r"], true),
            // Only the beginning of the turn counts,
            (&["x", "sc", "r", "c", "r"], true),
            (&["x", "c", "r", "sc", "rx"], false),
            (&["x", "c", "r", "x"], false),
            (&["x", "sc", "r", "x"], true),
            // and a new turn is a new beginning.
            (&["x", "c", "r", "a", "x"], true),
        ] {
            assert_eq!(thinks(turns), thinks_on, "{turns:?}");
        }
    }
}

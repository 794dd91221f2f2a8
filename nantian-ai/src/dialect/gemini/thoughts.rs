//! How much a model thinks, in the terms of its generation.

use super::traits::Traits;
use crate::codec::Object;
use crate::ir::{Effort, Losses, Thinking};

/// How much the model shall think, and whether it shall tell what.
#[derive(Default)]
pub(super) struct Thoughts {
    level: Option<&'static str>,
    budget: Option<i64>,
    shown: bool,
}

// === impl Thoughts ===

impl Thoughts {
    pub(super) fn of(thinking: Option<Thinking>, traits: Traits, losses: &mut Losses) -> Self {
        let Some(thinking) = thinking else { return Self::default() };
        if !traits.by_level && !traits.by_budget {
            if thinking != Thinking::Off {
                losses.add("thinking");
            }
            return Self::default();
        }
        if thinking == Thinking::Off && traits.always_thinks {
            losses.add("thinking");
        }
        let mut thoughts = Self { shown: thinking != Thinking::Off, ..Self::default() };
        if traits.by_level {
            thoughts.level = match thinking {
                Thinking::Adaptive => None,
                Thinking::Off | Thinking::Effort(Effort::Minimal) if traits.takes_minimal => Some("MINIMAL"),
                Thinking::Off => Some("LOW"),
                Thinking::Effort(effort) => Some(level(effort)),
                Thinking::Budget(tokens) => Some(level(Effort::of_budget(tokens))),
            };
        } else {
            // 128 is the least that Pro takes, -1 is as much as it likes.
            thoughts.budget = Some(match thinking {
                Thinking::Adaptive => -1,
                Thinking::Off if traits.always_thinks => 128,
                Thinking::Off => 0,
                Thinking::Effort(effort) => i64::try_from(effort.budget().min(24_576)).unwrap_or(-1),
                Thinking::Budget(tokens) => i64::try_from(tokens.min(24_576)).unwrap_or(-1),
            });
        }
        thoughts
    }

    pub(super) fn write(&self, config: &mut Object<'_>) {
        if self.level.is_none() && self.budget.is_none() && !self.shown {
            return;
        }
        config.object("thinkingConfig", |thinking| {
            thinking.some_text("thinkingLevel", self.level);
            thinking.some_integer("thinkingBudget", self.budget);
            if self.shown {
                thinking.flag("includeThoughts", true);
            }
        });
    }
}

fn level(effort: Effort) -> &'static str {
    match effort {
        Effort::Minimal | Effort::Low => "LOW",
        Effort::Medium => "MEDIUM",
        Effort::High | Effort::XHigh | Effort::Max => "HIGH",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_model_is_told_the_least_that_it_takes() {
        for (model, least) in [
            ("gemini-3-flash-preview", "MINIMAL"),
            ("gemini-3.1-flash-lite", "MINIMAL"),
            ("gemini-3.5-flash", "MINIMAL"),
            ("gemini-3.5-flash-lite", "MINIMAL"),
            ("models/gemini-3.6-flash", "MINIMAL"),
            ("gemini-flash-lite-latest", "MINIMAL"),
            // They refuse it.
            ("gemini-3-pro-preview", "LOW"),
            ("gemini-3.1-pro-preview", "LOW"),
            ("gemini-3.7-flash", "LOW"),
            ("gemini-3.8-flash", "LOW"),
            ("gemini-flash-latest", "LOW"),
        ] {
            let traits = Traits::of(model);
            for thinking in [Thinking::Off, Thinking::Effort(Effort::Minimal)] {
                let mut losses = Losses::default();
                let thoughts = Thoughts::of(Some(thinking), traits, &mut losses);
                assert_eq!(thoughts.level, Some(least), "{model} {thinking:?}");
                // None of them can be told not to think at all.
                assert_eq!(losses.is_empty(), thinking != Thinking::Off, "{model}");
            }
            // Who names a budget wants some thought.
            for thinking in [Thinking::Effort(Effort::Low), Thinking::Budget(1_024)] {
                let thoughts = Thoughts::of(Some(thinking), traits, &mut Losses::default());
                assert_eq!(thoughts.level, Some("LOW"), "{model} {thinking:?}");
            }
        }
    }
}

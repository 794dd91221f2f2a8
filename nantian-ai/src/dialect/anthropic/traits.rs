//! What Anthropic's models differ in, as far as requests have to.

use crate::ir::Effort;

/// What a model takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Traits {
    /// Wants a budget for its thinking; newer models decide by themselves and take an effort.
    pub(crate) takes_budget: bool,
    /// Takes an effort, beside a budget or without.
    pub(crate) takes_effort: bool,
    /// Is one of Anthropic's, not of others that speak this dialect.
    pub(crate) is_claude: bool,
    /// Takes temperature and its like at all.
    pub(crate) takes_sampling: bool,
    /// Takes either temperature or `top_p`.
    pub(crate) takes_one: bool,
    /// Takes messages of the role `system` after what a user has said.
    pub(crate) takes_later_system: bool,
    /// Answers, and calls tools, by schemas that are enforced.
    pub(crate) takes_schemas: bool,
    /// Can be made to call a tool.
    pub(crate) takes_forced_tools: bool,
    /// How it is told not to think.
    pub(crate) off: Off,
    /// Knows the effort between `high` and `max`.
    takes_xhigh: bool,
    /// Keeps beginnings of conversations where it is asked to.
    pub(crate) keeps_prompts: bool,
    /// The most tokens that it answers with.
    pub(crate) most_output: u64,
    /// That is known, and not a guess.
    pub(crate) knows_most: bool,
}

/// How a model is told not to think.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Off {
    /// By the type `disabled`.
    Disabled,
    /// It thinks at least between calls of tools, where it is told `between_tools`.
    BetweenTools,
    /// It always thinks.
    Never,
}

/// Which of Anthropic's models it is, as far as its name says.
#[derive(Clone, Copy, Debug)]
struct Name<'m> {
    /// `opus`, `sonnet`, `haiku` and so on.
    family: &'m str,
    /// `(4, 5)` of `claude-opus-4-5-20251101`. Of names without a version it is that of one yet to come.
    version: (u32, u32),
}

// === impl Traits ===

impl Traits {
    /// What the model of this name takes. Models of others that speak this dialect take what the older ones
    /// took.
    pub(crate) fn of(model: &str) -> Self {
        let bare = model.rsplit('/').next().unwrap_or(model);
        let Some(Name { family, version }) = Name::parse(bare) else { return Self::of_others() };
        Self {
            takes_budget: version < (4, 6),
            takes_effort: version >= (4, 6) || (family, version) == ("opus", (4, 5)),
            is_claude: true,
            takes_sampling: version <= (4, 6),
            takes_one: version >= (4, 0),
            takes_later_system: version >= (4, 8) && !(family == "sonnet" && version < (5, 5)),
            takes_schemas: version >= (4, 5),
            takes_forced_tools: version < (5, 1) || family == "haiku",
            off: match family {
                "fable" | "mythos" => Off::Never,
                "opus" if version >= (5, 5) => Off::Never,
                "sonnet" if version >= (5, 5) => Off::BetweenTools,
                _ => Off::Disabled,
            },
            takes_xhigh: version >= (4, 7),
            keeps_prompts: version >= (3, 7) || (family, version) == ("haiku", (3, 5)),
            most_output: match (family, version) {
                // It is not known.
                (_, (u32::MAX, _)) => 32_000,
                (_, version) if version >= (4, 6) => 128_000,
                (_, (4, 5) | (3, 7)) | ("sonnet", (4, _)) => 64_000,
                (_, (4, _)) => 32_000,
                (_, (3, 5)) => 8_192,
                _ => 4_096,
            },
            knows_most: version.0 != u32::MAX,
        }
    }

    /// What models of others take.
    pub(crate) fn of_others() -> Self {
        Self {
            takes_budget: true,
            takes_effort: false,
            is_claude: false,
            takes_sampling: true,
            takes_one: false,
            takes_later_system: false,
            takes_schemas: true,
            takes_forced_tools: true,
            off: Off::Disabled,
            takes_xhigh: true,
            keeps_prompts: false,
            most_output: 4_096,
            knows_most: false,
        }
    }

    /// The nearest effort that it knows.
    pub(crate) fn effort(self, effort: Effort) -> Effort {
        match effort {
            Effort::Minimal => Effort::Low,
            Effort::XHigh if !self.takes_xhigh => Effort::High,
            effort => effort,
        }
    }
}

// === impl Name ===

impl<'m> Name<'m> {
    /// Reads `claude-3-7-sonnet-20250219`, `claude-opus-4-1@20250805`, `claude-opus-5.5` and the like.
    fn parse(model: &'m str) -> Option<Self> {
        let mut family = "";
        let mut numbers = Vec::new();
        for word in model.strip_prefix("claude-")?.split(['-', '.', '@']) {
            // A longer number is a date.
            match word.parse::<u32>() {
                Ok(number) if word.len() <= 2 => numbers.push(number),
                Ok(_) => break,
                Err(_) if family.is_empty() => family = word,
                Err(_) => break,
            }
        }
        let version = match numbers.as_slice() {
            [] => (u32::MAX, 0),
            [major] => (*major, 0),
            [major, minor, ..] => (*major, *minor),
        };
        Some(Self { family, version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_family_and_version() {
        for (model, family, version) in [
            ("claude-3-haiku-20240307-v1:0", "haiku", (3, 0)),
            ("claude-3-7-sonnet-20250219", "sonnet", (3, 7)),
            ("claude-3-5-haiku-latest", "haiku", (3, 5)),
            ("claude-opus-4-20250514", "opus", (4, 0)),
            ("claude-opus-4-1@20250805", "opus", (4, 1)),
            ("claude-sonnet-4-5-20250929-v1:0", "sonnet", (4, 5)),
            ("claude-opus-4-6-v1", "opus", (4, 6)),
            ("claude-sonnet-5", "sonnet", (5, 0)),
            ("claude-opus-5.5", "opus", (5, 5)),
            ("claude-fable-5-1", "fable", (5, 1)),
            ("claude-mythos-preview", "mythos", (u32::MAX, 0)),
        ] {
            let name = Name::parse(model).unwrap();
            assert_eq!((name.family, name.version), (family, version), "{model}");
        }
        assert!(Name::parse("glm-4.6").is_none());
    }

    #[test]
    fn older_models_and_those_of_others_want_a_budget() {
        for model in
            ["claude-3-7-sonnet-20250219", "claude-sonnet-4-5-20250929", "claude-opus-4-20250514", "glm-4.6"]
        {
            assert!(Traits::of(model).takes_budget, "{model}");
        }
        for model in ["claude-opus-4-6", "anthropic/claude-opus-4.7", "claude-sonnet-5"] {
            assert!(!Traits::of(model).takes_budget, "{model}");
        }
        assert!(Traits::of("claude-opus-4-6").takes_sampling);
        assert!(!Traits::of("claude-opus-4-7").takes_sampling);
    }

    #[test]
    fn an_answer_is_as_long_as_a_model_can_make_it() {
        for (model, most) in [
            ("claude-3-haiku-20240307", 4_096),
            ("claude-3-5-sonnet-20241022", 8_192),
            ("claude-3-7-sonnet-20250219", 64_000),
            ("claude-opus-4-20250514", 32_000),
            ("claude-opus-4-1-20250805", 32_000),
            ("claude-sonnet-4-20250514", 64_000),
            ("claude-haiku-4-5", 64_000),
            ("claude-opus-4-5", 64_000),
            ("claude-opus-4-6", 128_000),
            ("claude-haiku-5-5", 128_000),
            ("claude-next", 32_000),
            ("glm-4.6", 4_096),
        ] {
            assert_eq!(Traits::of(model).most_output, most, "{model}");
        }
    }

    #[test]
    fn newer_models_cannot_be_forced_nor_kept_from_thinking() {
        for (model, forced, off) in [
            ("claude-sonnet-4-5", true, Off::Disabled),
            ("claude-opus-5", true, Off::Disabled),
            ("claude-opus-5-5", false, Off::Never),
            ("claude-sonnet-5", true, Off::Disabled),
            ("claude-sonnet-5-5", false, Off::BetweenTools),
            ("claude-haiku-5-5", true, Off::Disabled),
            ("claude-fable-5", true, Off::Never),
            ("claude-fable-5-1", false, Off::Never),
            ("claude-mythos-5-1", false, Off::Never),
        ] {
            let traits = Traits::of(model);
            assert_eq!((traits.takes_forced_tools, traits.off), (forced, off), "{model}");
        }
    }

    #[test]
    fn an_effort_that_is_not_known_is_the_nearest() {
        for (model, effort) in [("claude-opus-4-6", Effort::High), ("claude-opus-4-7", Effort::XHigh)] {
            let traits = Traits::of(model);
            assert_eq!(traits.effort(Effort::XHigh), effort, "{model}");
            assert_eq!(traits.effort(Effort::Max), Effort::Max, "{model}");
        }
    }

    #[test]
    fn newer_models_take_later_system_messages() {
        for (model, takes) in [
            ("claude-opus-4-7", false),
            ("claude-opus-4-8", true),
            ("claude-sonnet-5", false),
            ("claude-sonnet-5-5", true),
            ("claude-haiku-4-5", false),
            ("claude-haiku-5-5", true),
            ("claude-fable-5", true),
            ("glm-4.6", false),
        ] {
            assert_eq!(Traits::of(model).takes_later_system, takes, "{model}");
        }
    }
}

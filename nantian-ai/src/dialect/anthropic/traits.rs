//! What Anthropic's models differ in, as far as requests have to.

/// What a model takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Traits {
    /// Wants a budget for its thinking; newer models decide by themselves and take an effort.
    pub(crate) takes_budget: bool,
    /// Is one of Anthropic's, not of others that speak this dialect.
    pub(crate) is_claude: bool,
    /// Takes temperature and its like at all.
    pub(crate) takes_sampling: bool,
    /// Takes either temperature or `top_p`.
    pub(crate) takes_one: bool,
}

/// The models that want a budget, by the start of their names.
const BUDGETS: [&str; 8] = [
    "claude-3",
    "claude-haiku-4-5",
    "claude-opus-4-0",
    "claude-opus-4-1",
    "claude-opus-4-2",
    "claude-opus-4-5",
    "claude-sonnet-4-2",
    "claude-sonnet-4-5",
];

/// Newer models that can still be told how to draw tokens.
const SAMPLED: [&str; 2] = ["claude-opus-4-6", "claude-sonnet-4-6"];

// === impl Traits ===

impl Traits {
    /// What the model of this name takes. Models of others that speak this dialect take what the older ones took.
    pub(crate) fn of(model: &str) -> Self {
        let bare = model.rsplit('/').next().unwrap_or(model);
        let begins = |starts: &[&str]| starts.iter().any(|start| bare.starts_with(start));
        let others = !bare.starts_with("claude-");
        let takes_budget = others || begins(&BUDGETS) || bare == "claude-sonnet-4-0";
        Self {
            takes_budget,
            is_claude: !others,
            takes_sampling: takes_budget || begins(&SAMPLED),
            takes_one: !others && !bare.starts_with("claude-3"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_models_and_those_of_others_want_a_budget() {
        for model in
            ["claude-3-7-sonnet-20250219", "claude-sonnet-4-5-20250929", "claude-opus-4-20250514", "glm-4.6"]
        {
            assert!(Traits::of(model).takes_budget, "{model}");
        }
        for model in ["claude-opus-4-6", "claude-opus-4-7", "claude-sonnet-5"] {
            assert!(!Traits::of(model).takes_budget, "{model}");
        }
        assert!(Traits::of("claude-opus-4-6").takes_sampling);
        assert!(!Traits::of("claude-opus-4-7").takes_sampling);
    }
}

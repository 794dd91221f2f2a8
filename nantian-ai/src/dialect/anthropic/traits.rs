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
    /// Takes messages of the role `system` after what a user has said.
    pub(crate) takes_later_system: bool,
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
    /// What the model of this name takes. Models of others that speak this dialect take what the older ones took.
    pub(crate) fn of(model: &str) -> Self {
        let bare = model.rsplit('/').next().unwrap_or(model);
        let Some(Name { family, version }) = Name::parse(bare) else { return Self::of_others() };
        Self {
            takes_budget: version < (4, 6),
            is_claude: true,
            takes_sampling: version <= (4, 6),
            takes_one: version >= (4, 0),
            takes_later_system: version >= (4, 8) && !(family == "sonnet" && version < (5, 5)),
        }
    }

    fn of_others() -> Self {
        Self {
            takes_budget: true,
            is_claude: false,
            takes_sampling: true,
            takes_one: false,
            takes_later_system: false,
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

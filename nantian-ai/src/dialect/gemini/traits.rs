//! What the generations of Gemini differ in.

use super::bare_model;

/// What a model takes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traits {
    /// Thinks by a level: from 3 on.
    pub(super) by_level: bool,
    /// Can be told to think less than a little: Flash up to 3.6, and Flash-Lite.
    pub(super) takes_minimal: bool,
    /// Draws tokens as it likes, whatever is asked for: Flash from 3.6 on, and Flash-Lite from 3.5 on.
    pub(super) ignores_sampling: bool,
    /// Thinks by a budget: 2.5.
    pub(super) by_budget: bool,
    /// Cannot but think.
    pub(super) always_thinks: bool,
    /// Wants to see signatures again: from 3 on.
    pub(super) wants_signatures: bool,
    /// Tells calls and results apart by ids: from 3 on; older ones refuse the field.
    pub(super) takes_ids: bool,
    /// Sees what stands in the results of tools beside text: from 3 on.
    pub(super) sees_results: bool,
    /// Answers in JSON where it may call tools, too: from 3 on.
    pub(super) json_beside_tools: bool,
}

// === impl Traits ===

impl Traits {
    /// What the model of this name takes. Models of other names, such as Gemma, take nothing of it.
    pub(super) fn of(model: &str) -> Self {
        let Some(name) = bare_model(model).strip_prefix("gemini-") else { return Self::default() };
        let mut parts = name.split('-');
        let number = parts.find(|part| part.starts_with(|letter: char| letter.is_ascii_digit()));
        let mut version = number.unwrap_or_default().split('.').map(|part| part.parse().ok());
        let [major, minor]: [Option<u32>; 2] = [version.next().flatten(), version.next().flatten()];
        // Of an alias such as `gemini-flash-latest` it is not known what it stands for, but that it is not an
        // old one.
        let newer = major.is_none_or(|major| major >= 3);
        let version = major.map(|major| (major, minor.unwrap_or(0)));
        let is_since = |first| version.is_none_or(|version| version >= first);
        let (is_flash, is_lite) = (name.contains("flash"), name.contains("flash-lite"));
        Self {
            by_level: newer,
            takes_minimal: newer && (is_lite || is_flash && !is_since((3, 7))),
            ignores_sampling: is_lite && is_since((3, 5)) || is_flash && is_since((3, 6)),
            by_budget: number == Some("2.5"),
            always_thinks: newer || name.contains("pro"),
            wants_signatures: newer,
            takes_ids: newer,
            sees_results: newer,
            json_beside_tools: newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_number_is_that_of_a_new_model() {
        for (model, by_level, by_budget) in [
            ("gemini-2.0-flash", false, false),
            ("gemini-2.5-flash-lite", false, true),
            ("gemini-live-2.5-flash", false, true),
            ("models/gemini-3-pro-preview", true, false),
            ("gemini-3.1-flash", true, false),
            ("gemini-flash-latest", true, false),
            ("gemini-pro-latest", true, false),
            ("gemma-3-27b-it", false, false),
        ] {
            let traits = Traits::of(model);
            assert_eq!((traits.by_level, traits.by_budget), (by_level, by_budget), "{model}");
            assert_eq!(traits.wants_signatures, by_level, "{model}");
        }
    }
}

//! What the generations of Gemini differ in.

use super::bare_model;

/// What a model takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traits {
    /// Thinks by a level: from 3 on.
    pub(super) by_level: bool,
    /// Thinks by a budget: 2.5.
    pub(super) by_budget: bool,
    /// Cannot but think.
    pub(super) always_thinks: bool,
    /// Wants to see signatures again: from 3 on.
    pub(super) wants_signatures: bool,
    /// Answers in JSON where it may call tools, too: from 3 on.
    pub(super) json_beside_tools: bool,
}

// === impl Traits ===

impl Traits {
    pub(super) fn of(model: &str) -> Self {
        let version = bare_model(model).strip_prefix("gemini-").unwrap_or_default();
        let number: String =
            version.chars().take_while(|letter| letter.is_ascii_digit() || *letter == '.').collect();
        let major: u32 = number.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
        let newer = major >= 3;
        Self {
            by_level: newer,
            by_budget: number == "2.5",
            always_thinks: newer || version.contains("pro"),
            wants_signatures: newer,
            json_beside_tools: newer,
        }
    }
}

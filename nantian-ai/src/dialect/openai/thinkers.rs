//! OpenAI's models that think before they answer: how much they can be told to, and what they refuse.
//!
//! By OpenAI's API reference of `reasoning_effort`, its guides to GPT-5.1 and later ("parameter
//! compatibility"), and where they are silent by what the API answers. Where neither says it, the narrower of
//! two readings is taken: what is left out is named, what is refused fails.

use super::levels::{Levels, THREE};
use crate::ir::Effort;

/// A model that thinks before it answers. It knows neither penalties nor stop sequences.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Thinker {
    pub(crate) levels: Levels,
    /// Can be told how long its answers are to be.
    pub(crate) takes_verbosity: bool,
    sampling: Sampling,
}

/// When a model can be told how to draw tokens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Sampling {
    Never,
    /// While it does not think, for which it has to be told so.
    Off,
    /// While it does not think, which it does not unless told so.
    ByDefault,
}

// === impl Thinker ===

impl Thinker {
    /// The model of this name, if it thinks.
    pub(crate) fn of(model: &str) -> Option<Self> {
        let bare = model.rsplit('/').next().unwrap_or(model);
        if ["o1", "o3", "o4"].iter().any(|start| bare.starts_with(start)) {
            return Some(Self { levels: THREE, takes_verbosity: false, sampling: Sampling::Never });
        }
        let (number, kind) = split(bare.strip_prefix("gpt-")?, '-');
        let (major, minor) = split(number, '.');
        let version: (u32, u32) =
            (major.parse().ok()?, if minor.is_empty() { 0 } else { minor.parse().ok()? });
        let [chat, codex, pro] = ["chat", "codex", "pro"].map(|word| kind.contains(word));
        if version < (5, 0) || (chat && version == (5, 0)) {
            return None;
        }
        let levels = Levels {
            least: match version {
                (5, 0) if pro => Effort::High,
                _ if pro || chat => Effort::Medium,
                (5, 0) if !codex => Effort::Minimal,
                _ => Effort::Low,
            },
            most: match version {
                _ if chat => Effort::Medium,
                (5, 0 | 1) if !kind.starts_with("codex-max") => Effort::High,
                (5, 0..=5) => Effort::XHigh,
                _ => Effort::Max,
            },
            ends_only: false,
            can_be_off: !(chat || codex || pro) && version.0 == 5 && version.1 > 0,
        };
        let sampling = match version {
            _ if !levels.can_be_off => Sampling::Never,
            (5, 0..=4) => Sampling::ByDefault,
            _ => Sampling::Off,
        };
        Some(Self { levels, takes_verbosity: !(codex || chat), sampling })
    }

    /// Whether it can be told how to draw tokens beside this effort.
    pub(crate) fn takes_sampling(self, effort: Option<&str>) -> bool {
        match self.sampling {
            Sampling::Never => false,
            Sampling::Off => effort.is_some() && effort == self.levels.off(),
            Sampling::ByDefault => effort.is_none() || effort == self.levels.off(),
        }
    }
}

/// Whether a model can be told not to think, as far as is known. A deployment of Azure may be named anything.
pub(crate) fn may_be_off(model: &str) -> bool {
    Thinker::of(model).is_none_or(|thinker| thinker.levels.can_be_off)
}

/// What is before and after the first mark; nothing after it if there is none.
fn split(text: &str, mark: char) -> (&str, &str) {
    text.split_once(mark).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_model_has_the_levels_that_it_takes() {
        for (model, least, most, off) in [
            ("o4-mini", "low", "high", None),
            ("o3-2025-04-16", "low", "high", None),
            ("gpt-5", "minimal", "high", None),
            ("gpt-5-nano-2025-08-07", "minimal", "high", None),
            ("gpt-5-codex", "low", "high", None),
            ("gpt-5-pro", "high", "high", None),
            ("gpt-5.1", "low", "high", Some("none")),
            ("gpt-5.1-chat-latest", "medium", "medium", None),
            ("gpt-5.1-codex-max", "low", "xhigh", None),
            ("openai/gpt-5.2", "low", "xhigh", Some("none")),
            ("gpt-5.2-pro", "medium", "xhigh", None),
            ("gpt-5.3-codex", "low", "xhigh", None),
            ("gpt-5.4-mini", "low", "xhigh", Some("none")),
            ("gpt-5.6-terra", "low", "max", Some("none")),
            ("gpt-6", "low", "max", None),
        ] {
            let levels = Thinker::of(model).unwrap().levels;
            let told = (levels.name(Effort::Minimal), levels.name(Effort::Max), levels.off());
            assert_eq!(told, (least, most, off), "{model}");
        }
        for model in ["gpt-4o", "gpt-4.1-mini", "gpt-5-chat-latest", "gpt-oss-120b", "o200k", "grok-4"] {
            assert_eq!(Thinker::of(model), None, "{model}");
        }
    }

    #[test]
    fn tokens_are_drawn_as_told_only_while_it_does_not_think() {
        for (model, unsaid, off, on) in [
            ("o4-mini", false, false, false),
            ("gpt-5", false, false, false),
            ("gpt-5.1", true, true, false),
            ("gpt-5.4", true, true, false),
            ("gpt-5.5", false, true, false),
            ("gpt-5.2-codex", false, false, false),
        ] {
            let thinker = Thinker::of(model).unwrap();
            let takes = [None, Some("none"), Some("low")].map(|effort| thinker.takes_sampling(effort));
            assert_eq!(takes, [unsaid, off, on], "{model}");
        }
    }
}

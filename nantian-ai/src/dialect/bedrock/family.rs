//! What the families of models at Bedrock differ in.

use crate::dialect::anthropic;
use crate::dialect::openai::Thinker;

/// Who has made a model, as far as its name says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Family {
    /// Anthropic's, with what the model of this name takes.
    Claude(anthropic::Traits),
    /// Amazon's Nova; the second generation can think.
    Nova { thinks: bool },
    /// OpenAI's open models.
    GptOss,
    /// OpenAI's others, and how much they can be told to think.
    Gpt(Thinker),
    /// Those which take no choice of a tool.
    Unguided,
    /// Any other whose maker is named.
    Other,
    /// Those whose name says nothing, such as an inference profile of one's own.
    Unnamed,
}

// === impl Family ===

impl Family {
    /// The family of a model id, an inference profile or an ARN: `us.anthropic.claude-…`.
    pub(super) fn of(model: &str) -> Self {
        let after = |maker: &str| model.find(maker).and_then(|at| model.get(at + maker.len()..));
        if let Some(claude) = after("anthropic.") {
            Self::Claude(anthropic::Traits::of(claude))
        } else if let Some(nova) = after("amazon.nova-") {
            Self::Nova { thinks: nova.starts_with('2') }
        } else if after("openai.gpt-oss").is_some() {
            Self::GptOss
        } else if let Some(thinker) = after("openai.").and_then(Thinker::of) {
            Self::Gpt(thinker)
        } else if after("meta.llama").is_some() || after("deepseek.").is_some() {
            Self::Unguided
        } else if model.rsplit('/').next().is_some_and(|name| name.contains('.')) {
            Self::Other
        } else {
            Self::Unnamed
        }
    }

    /// What it takes of what Claude differs in.
    pub(super) fn traits(self) -> anthropic::Traits {
        match self {
            Self::Claude(traits) => traits,
            _ => anthropic::Traits::of_others(),
        }
    }

    /// Whether a tool can be demanded.
    pub(super) fn takes_tool_choice(self) -> bool {
        !matches!(self, Self::Unguided | Self::GptOss) && self.traits().takes_forced_tools
    }

    /// Whether it keeps beginnings of conversations, or may: what it refuses is left out.
    pub(super) fn keeps_conversations(self) -> bool {
        matches!(self, Self::Nova { .. } | Self::Unnamed) || self.keeps_more()
    }

    /// Whether it keeps tools, and anything for an hour.
    pub(super) fn keeps_more(self) -> bool {
        matches!(self, Self::Claude(traits) if traits.keeps_prompts)
    }

    /// Whether reasoning comes back to it that is signed, which Claude alone does.
    pub(super) fn takes_signed(self) -> bool {
        matches!(self, Self::Claude(_) | Self::Unnamed)
    }

    /// Whether reasoning comes back to it that is encrypted. What another one has encrypted it refuses.
    pub(super) fn takes_encrypted(self) -> bool {
        matches!(self, Self::Claude(_) | Self::Gpt(_) | Self::Other | Self::Unnamed)
    }

    /// Whether it sees pictures and documents within the results of tools. All take them beside.
    pub(super) fn sees_results(self) -> bool {
        matches!(self, Self::Claude(_) | Self::Nova { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_told_by_any_form_of_its_name() {
        for model in [
            "anthropic.claude-3-haiku-20240307-v1:0",
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "arn:aws:bedrock:us-east-1:1:inference-profile/global.anthropic.claude-opus-4-6-v1",
        ] {
            assert!(matches!(Family::of(model), Family::Claude(_)), "{model}");
        }
        assert!(matches!(Family::of("us.amazon.nova-2-lite-v1:0"), Family::Nova { thinks: true }));
        assert!(matches!(Family::of("amazon.nova-pro-v1:0"), Family::Nova { thinks: false }));
        assert!(matches!(Family::of("openai.gpt-oss-120b-1:0"), Family::GptOss));
        assert!(matches!(Family::of("global.openai.gpt-6-astra"), Family::Gpt(_)));
        assert!(matches!(Family::of("moonshotai.kimi-k2.5"), Family::Other));
        let own = "arn:aws:bedrock:us-east-1:1:application-inference-profile/x";
        assert!(matches!(Family::of(own), Family::Unnamed));
    }

    #[test]
    fn older_models_refuse_to_keep_conversations() {
        for (model, keeps) in [
            ("us.anthropic.claude-3-haiku-20240307-v1:0", false),
            ("anthropic.claude-3-5-sonnet-20240620-v1:0", false),
            ("us.anthropic.claude-3-5-haiku-20241022-v1:0", true),
            ("us.anthropic.claude-3-7-sonnet-20250219-v1:0", true),
            ("us.anthropic.claude-opus-4-8-v1", true),
            ("amazon.nova-pro-v1:0", true),
            ("meta.llama3-70b-instruct-v1:0", false),
            ("arn:aws:bedrock:us-east-1:1:application-inference-profile/x", true),
        ] {
            assert_eq!(Family::of(model).keeps_conversations(), keeps, "{model}");
        }
    }
}

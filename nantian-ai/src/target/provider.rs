//! The providers whose defaults are known.

use crate::credential::Scheme;
use crate::dialect::Dialect;
use crate::target::azure;

/// What is known about a provider, so that a target needs no more than its name.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Provider {
    /// The name, in lower case.
    pub name: &'static str,
    /// The dialect spoken when none is asked for.
    pub dialect: Dialect,
    /// The base URL, in which `{region}` stands for the target's region; `None` where each customer has one
    /// of its own. Without a path the dialect's customary prefix (`/v1`, `/v1beta`, `/api`) is used.
    pub endpoint: Option<&'static str>,
    /// How the provider wants its credential.
    pub scheme: Scheme,
    /// Dialects that the same base URL is known to speak, too.
    pub also: &'static [Dialect],
    /// Whether a stream must be asked to tell its usage, by `stream_options`; others tell it anyway, and
    /// refuse the field.
    pub asks_for_usage: bool,
}

const fn openai_like(name: &'static str, endpoint: &'static str) -> Provider {
    Provider {
        name,
        dialect: Dialect::OpenAi,
        endpoint: Some(endpoint),
        scheme: Scheme::Bearer,
        also: &[],
        asks_for_usage: true,
    }
}

const fn on_this_host(name: &'static str, endpoint: &'static str) -> Provider {
    Provider { scheme: Scheme::None, ..openai_like(name, endpoint) }
}

/// In alphabetical order.
const PROVIDERS: &[Provider] = &[
    Provider {
        name: "anthropic",
        dialect: Dialect::Anthropic,
        endpoint: Some("https://api.anthropic.com"),
        scheme: Scheme::ApiKey,
        also: &[Dialect::OpenAi],
        asks_for_usage: true,
    },
    Provider {
        name: azure::NAME,
        dialect: Dialect::OpenAi,
        endpoint: None,
        scheme: Scheme::ApiKey,
        also: &[Dialect::Responses],
        asks_for_usage: true,
    },
    Provider {
        name: "bedrock",
        dialect: Dialect::Bedrock,
        endpoint: Some("https://bedrock-runtime.{region}.amazonaws.com"),
        scheme: Scheme::Aws,
        also: &[],
        asks_for_usage: true,
    },
    openai_like("cerebras", "https://api.cerebras.ai/v1"),
    openai_like("deepseek", "https://api.deepseek.com/v1"),
    openai_like("fireworks", "https://api.fireworks.ai/inference/v1"),
    Provider {
        name: "gemini",
        dialect: Dialect::Gemini,
        endpoint: Some("https://generativelanguage.googleapis.com/v1beta"),
        scheme: Scheme::ApiKey,
        also: &[],
        asks_for_usage: true,
    },
    openai_like("groq", "https://api.groq.com/openai/v1"),
    on_this_host("llamacpp", "http://localhost:8080"),
    on_this_host("lmstudio", "http://localhost:1234"),
    Provider { asks_for_usage: false, ..openai_like("mistral", "https://api.mistral.ai/v1") },
    openai_like("moonshot", "https://api.moonshot.ai/v1"),
    openai_like("nvidia", "https://integrate.api.nvidia.com/v1"),
    Provider {
        name: "ollama",
        dialect: Dialect::Ollama,
        endpoint: Some("http://localhost:11434"),
        scheme: Scheme::None,
        also: &[Dialect::OpenAi],
        asks_for_usage: true,
    },
    Provider { also: &[Dialect::Responses], ..openai_like("openai", "https://api.openai.com/v1") },
    Provider { also: &[Dialect::Anthropic], ..openai_like("openrouter", "https://openrouter.ai/api/v1") },
    openai_like("together", "https://api.together.xyz/v1"),
    on_this_host("vllm", "http://localhost:8000"),
    Provider { also: &[Dialect::Responses], ..openai_like("xai", "https://api.x.ai/v1") },
];

// === impl Provider ===

impl Provider {
    /// The provider of this name, in any case.
    pub fn find(name: &str) -> Option<&'static Self> {
        PROVIDERS.iter().find(|provider| provider.name.eq_ignore_ascii_case(name))
    }

    /// All providers, in alphabetical order.
    pub fn all() -> &'static [Self] {
        PROVIDERS
    }

    /// Whether this dialect, once it is asked for, is spoken at the default endpoint: Responses are where the
    /// rest of OpenAI's API is.
    pub(super) fn has_at_its_base(&self, dialect: Dialect) -> bool {
        self.speaks(dialect) || (dialect == Dialect::Responses && self.speaks(Dialect::OpenAi))
    }

    /// Whether the default endpoint is known to speak this dialect.
    pub fn speaks(&self, dialect: Dialect) -> bool {
        self.dialect == dialect || self.also.contains(&dialect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::endpoint::Endpoint;

    #[test]
    fn the_table_is_sorted_and_every_endpoint_parses() {
        assert!(PROVIDERS.is_sorted_by_key(|provider| provider.name));
        for provider in PROVIDERS {
            let Some(endpoint) = provider.endpoint else { continue };
            Endpoint::parse(&endpoint.replace("{region}", "eu-central-1"), provider.dialect).unwrap();
        }
    }

    #[test]
    fn a_provider_is_found_in_any_case() {
        assert_eq!(Provider::find("OpenAI").unwrap().name, "openai");
        assert!(Provider::find("nobody").is_none());
    }
}

//! The Langfuse project that the environment names.

use crate::ir::Secret;

/// A project for AIServices that do not say all of one; what the environment does not say either is `None`.
#[derive(Debug, Clone, Default)]
pub(crate) struct LangfuseProject {
    /// Its server.
    pub(crate) host: Option<String>,
    pub(crate) public_key: Option<Secret>,
    pub(crate) secret_key: Option<Secret>,
}

// === impl LangfuseProject ===

impl LangfuseProject {
    /// Reads the variables that Langfuse's own libraries know.
    pub(super) fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let filled = |name: &str| {
            let value = variable(name)?.trim().to_owned();
            (!value.is_empty()).then_some(value)
        };
        let key = |name: &str| filled(name).map(|key| Secret(key.into_bytes()));
        Self {
            host: filled("LANGFUSE_BASE_URL").or_else(|| filled("LANGFUSE_HOST")),
            public_key: key("LANGFUSE_PUBLIC_KEY"),
            secret_key: key("LANGFUSE_SECRET_KEY"),
        }
    }
}

//! Where Azure OpenAI has the operations of OpenAI's dialect.
//!
//! A dated version of the API (`2024-10-21`) names the deployment in the path; the one without date is where
//! OpenAI has it, and names the deployment as the model.

use std::borrow::Cow;

use crate::dialect::segment;

/// The provider.
pub(crate) const NAME: &str = "azure-openai";

/// The header that carries a key.
pub(super) const KEY_HEADER: &str = "api-key";

/// The query's parameter that names a version.
const PARAMETER: &str = "api-version";

/// Operations that are asked of a deployment.
const DEPLOYED: [&str; 3] = ["/chat/completions", "/completions", "/embeddings"];

/// The customary prefix of paths.
pub(crate) fn prefix(version: Option<&str>) -> &'static str {
    if version.is_some_and(is_dated) { "/openai" } else { "/openai/v1" }
}

/// Whether it can be the version of an API.
pub(super) fn is_version(version: &str) -> bool {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (1..=63).contains(&version.len()) && version.bytes().all(is_safe)
}

/// The path of an operation below the base URL.
pub(crate) fn path<'p>(path: &'p str, version: Option<&str>, deployment: &str) -> Cow<'p, str> {
    if version.is_some_and(is_dated) && DEPLOYED.contains(&path) {
        format!("/deployments/{}{path}", segment(deployment)).into()
    } else {
        path.into()
    }
}

/// The query, with the version of the target instead of the client's.
pub(crate) fn query(given: Option<&str>, version: Option<&str>) -> Option<String> {
    let is_version = |parameter: &str| parameter.split('=').next() == Some(PARAMETER);
    let given = given.into_iter().flat_map(|query| query.split('&')).filter(|it| !is_version(it));
    let version = version.map(|version| format!("{PARAMETER}={version}"));
    let all: Vec<_> = given.map(Cow::Borrowed).chain(version.map(Cow::Owned)).collect();
    (!all.is_empty()).then(|| all.join("&"))
}

fn is_dated(version: &str) -> bool {
    version.starts_with(|letter: char| letter.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dated_version_names_the_deployment_in_the_path() {
        let dated = Some("2024-10-21");
        for (at, version, expected) in [
            ("/chat/completions", dated, "/deployments/my%20gpt/chat/completions"),
            ("/embeddings", dated, "/deployments/my%20gpt/embeddings"),
            ("/responses", dated, "/responses"),
            ("/models", dated, "/models"),
            ("/chat/completions", None, "/chat/completions"),
            ("/chat/completions", Some("preview"), "/chat/completions"),
        ] {
            assert_eq!(path(at, version, "my gpt"), expected);
        }
        assert_eq!(
            (prefix(dated), prefix(None), prefix(Some("preview"))),
            ("/openai", "/openai/v1", "/openai/v1")
        );
    }

    #[test]
    fn the_version_is_the_targets() {
        for (given, version, expected) in [
            (None, None, None),
            (Some("api-version=2023-05-15"), None, None),
            (Some("a=1&api-version=x&b"), Some("2024-10-21"), Some("a=1&b&api-version=2024-10-21")),
            (None, Some("preview"), Some("api-version=preview")),
        ] {
            assert_eq!(query(given, version).as_deref(), expected);
        }
    }
}

//! The grammar of `scope`: who shares a limit.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::schema::Hint;

/// Who shares a limit: one bucket per distinct combination of its parts.
///
/// Written as parts joined with `+`, for example `route+header:x-team`. The order of the parts does not
/// matter and a repeated part counts once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope(Vec<ScopePart>);

/// One dimension of a [`Scope`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a new dimension must not compile anywhere before it is enforced"
)]
pub enum ScopePart {
    /// The matched route.
    Route,
    /// Everything the policy is attached to.
    Global,
    /// The Gateway the request came through.
    Gateway,
    /// The model the request asks for.
    Model,
    /// The API key the client presents.
    ApiKey,
    /// The user the client names.
    User,
    /// The address of the client.
    Ip,
    /// The value of a request header; the name is in lower case.
    Header(String),
}

/// The text is no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part:?} is not one of route, global, gateway, model, apiKey, user, ip, header:NAME")]
#[non_exhaustive]
pub struct InvalidScope {
    /// The part that is not understood.
    pub part: String,
}

const PATTERN: &str = "^(route|global|gateway|model|apiKey|user|ip|header:[-!#$%&'*.^_`|~0-9A-Za-z]{1,256})\
                       (\\+(route|global|gateway|model|apiKey|user|ip|header:[-!#$%&'*.^_`|~0-9A-Za-z]{1,256}))*$";

pub(crate) const HINTS: &[Hint] = &[Hint {
    pattern: PATTERN,
    meaning: "one or more of route, global, gateway, model, apiKey, user, ip and header:NAME, joined with +",
}];

const MAX_NAME: usize = 256;

// === impl Scope ===

impl Scope {
    /// The parts, sorted, each once, never empty.
    pub fn parts(&self) -> &[ScopePart] {
        &self.0
    }
}

impl Default for Scope {
    fn default() -> Self {
        Self(vec![ScopePart::Route])
    }
}

impl FromStr for Scope {
    type Err = InvalidScope;

    /// # Errors
    ///
    /// [`InvalidScope`] with the first part that is not understood.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('+').map(str::parse).collect::<Result<Vec<_>, _>>()?;
        parts.sort_unstable();
        parts.dedup();
        Ok(Self(parts))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, part) in self.0.iter().enumerate() {
            write!(f, "{}{part}", if n == 0 { "" } else { "+" })?;
        }
        Ok(())
    }
}

impl JsonSchema for Scope {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Scope".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "maxLength": 1024 })
    }
}

// === impl ScopePart ===

impl FromStr for ScopePart {
    type Err = InvalidScope;

    /// # Errors
    ///
    /// [`InvalidScope`] when the word is unknown or the header name is no HTTP token.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "route" => Self::Route,
            "global" => Self::Global,
            "gateway" => Self::Gateway,
            "model" => Self::Model,
            "apiKey" => Self::ApiKey,
            "user" => Self::User,
            "ip" => Self::Ip,
            _ => match text.strip_prefix("header:") {
                Some(name) if is_header_name(name) => Self::Header(name.to_ascii_lowercase()),
                _ => {
                    return Err(InvalidScope { part: text.to_owned() });
                }
            },
        })
    }
}

impl fmt::Display for ScopePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Route => "route",
            Self::Global => "global",
            Self::Gateway => "gateway",
            Self::Model => "model",
            Self::ApiKey => "apiKey",
            Self::User => "user",
            Self::Ip => "ip",
            Self::Header(name) => return write!(f, "header:{name}"),
        })
    }
}

/// An HTTP token (RFC 9110 section 5.6.2) without `+`, which joins parts.
fn is_header_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-!#$%&'*.^_`|~".contains(&byte))
}

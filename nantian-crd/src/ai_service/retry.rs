//! Retries of calls to a provider.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{as_written::AsWritten, duration::Duration, schema::Hint};

/// Further attempts after a failure.
///
/// A `Retry-After` of the provider, or in a 429 without one the end of a limit that is used up
/// (`x-ratelimit-reset`), is waited for, up to 30 s; while another AIService of the rule may be asked, only
/// up to `backoff`, or a second if that is longer, and for more once the others have failed. Of the calls
/// under way one in five may be a further attempt, and three always may. When no more are made, the other
/// AIServices of the rule are asked; the client gets the last failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Retry {
    /// Attempts beyond the first.
    ///
    /// Unit: attempts. Range: 0 to 100. Default: 0. Source: `spec.retry.maxRetries`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_retries: Option<u32>,
    /// The pause before the first retry, which then doubles, with full jitter; or one of the words
    /// exponential, linear and fixed for the shape of the pauses.
    ///
    /// Unit: GEP-2257 duration, or a word. Default: 500ms. Source: `spec.retry.backoff`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<AsWritten<Backoff>>,
}

/// The pauses between attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a new shape must not compile anywhere before it is enforced")]
pub enum Backoff {
    /// Doubling from this pause.
    From(Duration),
    /// Doubling from the default pause.
    #[default]
    Exponential,
    /// Growing by the default pause.
    Linear,
    /// The default pause each time.
    Fixed,
}

/// The text is neither a duration nor a shape of pauses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration such as 500ms, nor one of exponential, linear, fixed")]
#[non_exhaustive]
pub struct InvalidBackoff(pub String);

const PATTERN: &str = "^(([0-9]{1,5}(h|m|s|ms)){1,4}|exponential|linear|fixed)$";

pub(crate) const HINTS: &[Hint] =
    &[Hint { pattern: PATTERN, meaning: "a duration such as 500ms, nor one of exponential, linear, fixed" }];

// === impl Backoff ===

impl FromStr for Backoff {
    type Err = InvalidBackoff;

    /// # Errors
    ///
    /// [`InvalidBackoff`] when the text is neither a duration nor one of the words.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "exponential" => Ok(Self::Exponential),
            "linear" => Ok(Self::Linear),
            "fixed" => Ok(Self::Fixed),
            _ => text.parse().map(Self::From).map_err(|_| InvalidBackoff(text.to_owned())),
        }
    }
}

impl fmt::Display for Backoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From(pause) => fmt::Display::fmt(pause, f),
            Self::Exponential => f.write_str("exponential"),
            Self::Linear => f.write_str("linear"),
            Self::Fixed => f.write_str("fixed"),
        }
    }
}

impl JsonSchema for Backoff {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Backoff".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "maxLength": 28 })
    }
}

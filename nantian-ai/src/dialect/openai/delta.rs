//! What a chunk of a stream adds to an answer, as far as a meter wants to know it.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::dialect::lenient::Text;

/// What is added to an answer.
#[derive(Debug, Default)]
pub(super) struct Delta {
    pub(super) text: Text,
    /// Sound, pictures and what else is no text.
    pub(super) other: bool,
}

/// What a member of a delta is.
#[derive(Debug, Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Member {
    /// Who speaks, which is said before anything of an answer is there.
    #[serde(alias = "name")]
    Role,
    #[serde(
        alias = "reasoning_content",
        alias = "reasoning",
        alias = "refusal",
        alias = "tool_calls",
        alias = "function_call"
    )]
    Content,
    #[serde(other)]
    Other,
}

struct DeltaVisitor;

// === impl Delta ===

impl<'de> Deserialize<'de> for Delta {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DeltaVisitor)
    }
}

impl<'de> Visitor<'de> for DeltaVisitor {
    type Value = Delta;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Delta, A::Error> {
        let mut delta = Delta::default();
        while let Some(member) = map.next_key()? {
            match member {
                Member::Role => drop(map.next_value::<IgnoredAny>()?),
                Member::Content => delta.text.0 += map.next_value::<Text>()?.0,
                Member::Other => delta.other |= !map.next_value::<Text>()?.is_empty(),
            }
        }
        Ok(delta)
    }
}

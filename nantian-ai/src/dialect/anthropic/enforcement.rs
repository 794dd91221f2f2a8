//! What Claude is held to: the schema of an answer, and those of tools that are strict.

use std::borrow::Cow;

use super::Traits;
use super::schema::{Enforced, enforced};
use crate::dialect::openai::OF_SCHEMA;
use crate::ir::{Json, Losses, Output, Request, Tool};

/// The most tools of a request that are strict.
const MOST_STRICT: usize = 20;
/// The most properties that may be left out, and the most values of several types, in all that is enforced.
const MOST_OPTIONAL: usize = 24;
const MOST_UNIONS: usize = 16;

/// The schemas of a request, as far as Claude takes them, wherever it runs.
pub(crate) struct Enforcement<'r> {
    /// That of the answer.
    pub(crate) output: Option<Cow<'r, Json>>,
    /// What the system says instead.
    pub(crate) said: Option<String>,
    /// Those of the tools that are strict, by their places.
    strict: Vec<Option<Cow<'r, Json>>>,
}

/// What may still be enforced.
struct Room {
    strict: usize,
    optional: usize,
    unions: usize,
}

// === impl Enforcement ===

impl<'r> Enforcement<'r> {
    pub(crate) fn of(request: &'r Request, traits: Traits, losses: &mut Losses) -> Self {
        let mut room = Room { strict: MOST_STRICT, optional: MOST_OPTIONAL, unions: MOST_UNIONS };
        let mut enforcement = Self { output: None, said: None, strict: Vec::new() };
        if let Some(Output::Schema { schema, .. }) = &request.output {
            match room.enforce(schema, traits) {
                Some((schema, is_whole)) => {
                    enforcement.output = Some(schema);
                    if !is_whole {
                        losses.add("response_format.schema");
                    }
                }
                None => {
                    losses.add("response_format.json_schema");
                    enforcement.said = Some(format!("{OF_SCHEMA}{schema}"));
                }
            }
        }
        let strict = |tool: &'r Tool| {
            if tool.strict != Some(true) {
                return None;
            }
            let enforced = Some(&mut room).filter(|room| room.strict > 0);
            let enforced = enforced.and_then(|room| room.enforce(&tool.schema, traits));
            if enforced.as_ref().is_none_or(|(_, is_whole)| !is_whole) {
                losses.add("tools.strict");
            }
            let (schema, _) = enforced?;
            room.strict -= 1;
            Some(schema)
        };
        enforcement.strict = request.tools.iter().map(strict).collect();
        enforcement
    }

    /// The tools, and the schema of each that is strict.
    pub(crate) fn tools<'e>(
        &'e self,
        request: &'r Request,
    ) -> impl Iterator<Item = (&'r Tool, Option<&'e Json>)> {
        request.tools.iter().zip(self.strict.iter().map(Option::as_deref))
    }
}

// === impl Room ===

impl Room {
    /// The schema as it is enforced, and whether all that it demands is.
    fn enforce<'r>(&mut self, schema: &'r Json, traits: Traits) -> Option<(Cow<'r, Json>, bool)> {
        if !traits.is_claude {
            return Some((Cow::Borrowed(schema), true));
        }
        let Enforced { schema, is_whole, optional, unions } =
            Some(schema).filter(|_| traits.takes_schemas).and_then(enforced)?;
        // What is refused for one takes nothing of the other.
        let (optional, unions) = (self.optional.checked_sub(optional)?, self.unions.checked_sub(unions)?);
        (self.optional, self.unions) = (optional, unions);
        Some((Cow::Owned(schema), is_whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_that_is_not_enforced_takes_no_room() {
        let traits = Traits::of("claude-sonnet-4-5");
        let mut room = Room { strict: 1, optional: 1, unions: 0 };
        let schema = |kind| Json::parse(&format!(r#"{{"properties":{{"a":{{"type":{kind}}}}}}}"#)).unwrap();
        assert!(room.enforce(&schema(r#"["string","null"]"#), traits).is_none());
        assert!(room.enforce(&schema(r#""string""#), traits).is_some());
    }
}

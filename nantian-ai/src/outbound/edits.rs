//! What has to change in a body that passes, for its provider and model.

use std::ops::Range;

use super::foreign;
use crate::dialect::{ClientDialect, Operation, Surface, anthropic, openai, responses};
use crate::edit::cut::Edit;
use crate::edit::{Object, lookalike};
use crate::error::Error;
use crate::ir::Losses;
use crate::target::Target;
use crate::wish::Wish;

// === impl Target ===

impl Target {
    /// What has to change in a body that passes, beside its model and what is added to it.
    pub(super) fn edits<'e>(
        &self,
        surface: &Surface,
        object: &Object<'_>,
        adapted: &'e [(Range<usize>, String)],
        lost: &mut Losses,
    ) -> Result<Vec<(Range<usize>, &'e str)>, Error> {
        let mut edits: Vec<(_, &'e str)> = match (surface.dialect(), surface.operation()) {
            (ClientDialect::OpenAi, Operation::Chat) => self.chat_edits(object, lost),
            _ => foreign::edits(surface, object, self.model(), lost),
        };
        if surface.dialect() == ClientDialect::Responses && self.is_xai() {
            edits.extend(responses::without_null_contents(object));
        }
        edits.extend(lookalike::edits(object, lost)?);
        edits.extend(adapted.iter().map(|(place, instead)| (place.clone(), instead.as_str())));
        Ok(edits)
    }

    /// What is written anew for a model that speaks in turn with the user, or gives no answer as long as the
    /// one that the client names.
    pub(super) fn adapted(
        &self,
        surface: &Surface,
        object: &Object<'_>,
        lost: &mut Losses,
    ) -> Vec<(Range<usize>, String)> {
        let (provider, endpoint) = (&self.config().provider, self.config().endpoint.as_deref());
        match (surface.dialect(), surface.operation()) {
            (ClientDialect::OpenAi, Operation::Chat) if openai::takes_turns(provider, self.model()) => {
                foreign::for_mistral(object, openai::is_mistral(provider))
            }
            (ClientDialect::OpenAi, Operation::Chat) if openai::wants_brief_ids(provider, endpoint) => {
                foreign::for_openai(object)
            }
            (ClientDialect::Anthropic, Operation::Chat) => {
                let lowered = anthropic::lowered_limit(object, self.model());
                lowered.inspect(|_| lost.add("max_tokens")).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// What has to change in a chat that passes, for its provider and model.
    fn chat_edits(&self, object: &Object<'_>, lost: &mut Losses) -> Vec<Edit> {
        let is_refused = |wish: Wish| self.forgoes(wish).then_some(wish == Wish::OlderLimit);
        let refuses_older = is_refused(Wish::OlderLimit).or_else(|| is_refused(Wish::NewerLimit));
        let (provider, endpoint) = (&self.config().provider, self.config().endpoint.as_deref());
        let mut edits = openai::known_names(provider, self.model(), refuses_older, object);
        let refused = openai::refused_reasoning(provider, self.model(), endpoint);
        edits.extend(foreign::without(object, refused, lost));
        edits.extend(foreign::without_indices(object));
        edits.extend(foreign::without_marks(object, openai::refused_marks(provider, endpoint), lost));
        if openai::refuses_thought_parts(provider, endpoint) {
            edits.extend(foreign::without_thought_parts(object, lost));
        }
        edits
    }
}

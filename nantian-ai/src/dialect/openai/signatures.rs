//! Gemini's signatures of calls, where Chat Completions have them: in a call's `extra_content`. Its newer
//! models refuse calls of their own without.

use crate::codec::{Fields, Object};
use crate::dialect::gemini::{self, OF_GEMINI, OF_VERTEX};
use crate::ir::{Block, Losses};

/// In whose name a signature may stand there, and what it begins with in the common form.
const OWNERS: [(&str, &str); 2] = [("vertex", OF_VERTEX), (GOOGLE, OF_GEMINI)];
const GOOGLE: &str = "google";

/// A signature of Gemini, as it stands at a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signature<'s> {
    owner: &'static str,
    text: &'s str,
}

/// Takes the signature of a call, as the common form has it. What else stands there is named.
pub(super) fn take(call: &mut Fields, at: &'static str, losses: &mut Losses) -> Option<String> {
    let mut extra = call.any_object("extra_content");
    let mut signature = None;
    for (owner, mark) in OWNERS {
        let mut said = extra.any_object(owner);
        signature = said.some_text("thought_signature").map(|text| format!("{mark}{text}")).or(signature);
        said.rest_below(at, losses);
    }
    extra.rest_below(at, losses);
    signature
}

// === impl Signature ===

impl<'s> Signature<'s> {
    /// Stands for that of a call that another family, or nobody, has signed.
    pub(super) const STAND_IN: Self = Self { owner: GOOGLE, text: gemini::UNSIGNED };

    /// A signature in the common form, if it is one of Gemini.
    pub(super) fn of(signature: &'s str) -> Option<Self> {
        OWNERS.into_iter().find_map(|(owner, mark)| Some(Self { owner, text: signature.strip_prefix(mark)? }))
    }

    /// What a call is signed with, which is the reasoning right before it.
    pub(super) fn before(content: &'s [Block], call: usize) -> Option<Self> {
        match content.get(call.checked_sub(1)?)? {
            Block::Reasoning(reasoning) => Self::of(reasoning.signature.as_deref()?),
            _ => None,
        }
    }

    pub(super) fn write(self, call: &mut Object<'_>) {
        call.object("extra_content", |extra| {
            extra.object(self.owner, |said| said.text("thought_signature", self.text));
        });
    }
}

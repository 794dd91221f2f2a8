//! What has come of a call in a stream.

use crate::wire::json::Scanner;

#[derive(Clone, Debug, Default)]
pub(super) struct Call {
    pub(super) index: Option<u64>,
    pub(super) id: Option<String>,
    pub(super) name: String,
    /// What Gemini has signed it with, until it is told.
    pub(super) signature: Option<String>,
    /// Some arguments have come.
    pub(super) begun: bool,
    /// Arguments that have come before their turn.
    pub(super) waiting: String,
    /// Reads the arguments.
    pub(super) scanner: Scanner,
    /// It has been told to its end.
    pub(super) done: bool,
}

// === impl Call ===

impl Call {
    /// How much is kept of it, in bytes.
    pub(super) fn kept(&self) -> usize {
        let texts = [&self.id, &self.signature].into_iter().flatten().chain([&self.name, &self.waiting]);
        texts.map(String::len).sum()
    }

    /// What has neither a name nor arguments is none.
    pub(super) fn says_something(&self) -> bool {
        !(self.name.is_empty() && self.waiting.is_empty())
    }

    /// Whether a chunk without an id says the next call: one of another name, where this one has all of its
    /// arguments, or none. Some say a name again, with nothing behind it.
    pub(super) fn is_before(&self, name: Option<&str>, arguments: &str) -> bool {
        let is_whole = self.done || self.scanner.is_complete();
        let is_next = |name: &str| {
            let is_other = name != self.name;
            is_whole && !arguments.trim().is_empty() || is_other && (is_whole || !self.begun)
        };
        !self.name.is_empty() && name.is_some_and(is_next)
    }
}

//! What a meter learns from one piece of a reply, whatever the dialect.

use crate::estimate::Weight;

/// Token counts as a provider reports them; later reports replace earlier ones field by field.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Reported {
    pub(crate) input: Option<u64>,
    pub(crate) cache_read: Option<u64>,
    pub(crate) cache_written: Option<u64>,
    pub(crate) output: Option<u64>,
    pub(crate) reasoning: Option<u64>,
    pub(crate) total: Option<u64>,
}

/// One event of a stream, or one whole reply.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Signal {
    /// Counts in this event.
    pub(crate) reported: Reported,
    /// Text that the model produced in this event.
    pub(crate) text: Weight,
    /// Whether something of the answer itself is in it.
    pub(crate) token: bool,
    /// Whether the counts in it are the last ones.
    pub(crate) settled: bool,
    /// Whether the answer is complete with it.
    pub(crate) complete: bool,
    /// Which of several answers are complete with it, a bit each; the last bit stands for all later ones.
    pub(crate) ended: u128,
    /// Whether it says that the answer failed.
    pub(crate) failed: bool,
    /// What it tells of reasoning, if it is about that.
    pub(crate) reasoning: Option<Reasoning>,
}

/// Reasoning may be kept from whoever reads the stream, though it is paid for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reasoning {
    /// It begins, without any text.
    Begins,
    /// Some of its text is shown.
    Shown,
}

// === impl Reported ===

impl Reported {
    pub(crate) fn merge(&mut self, later: Self) {
        self.input = later.input.or(self.input);
        self.cache_read = later.cache_read.or(self.cache_read);
        self.cache_written = later.cache_written.or(self.cache_written);
        self.output = later.output.or(self.output);
        self.reasoning = later.reasoning.or(self.reasoning);
        self.total = later.total.or(self.total);
    }
}

// === impl Signal ===

impl Signal {
    /// An event that cannot be read: part of an answer, as far as anyone can tell.
    pub(crate) fn unreadable() -> Self {
        Self { token: true, ..Self::default() }
    }
}

//! The levels of `reasoning_effort`.

use crate::ir::Effort;

/// The levels that a model knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Levels {
    pub(super) least: Effort,
    pub(super) most: Effort,
    /// Knows no other than these two.
    pub(super) ends_only: bool,
    /// Need not think, which is `none`.
    pub(super) can_be_off: bool,
}

/// What most models know.
pub(super) const THREE: Levels =
    Levels { least: Effort::Low, most: Effort::High, ends_only: false, can_be_off: false };

// === impl Levels ===

impl Levels {
    /// The name of the nearest level.
    pub(crate) fn name(self, effort: Effort) -> &'static str {
        let effort = effort.clamp(self.least, self.most);
        match (self.ends_only, effort > self.least) {
            (true, true) => self.most,
            (true, false) => self.least,
            (false, _) => effort,
        }
        .name()
    }

    /// The only level of one that thinks if it is asked to: how much is up to it.
    pub(crate) fn only(self) -> Option<Effort> {
        (self.can_be_off && self.least == self.most).then_some(self.most)
    }

    /// What tells it not to think, if it can be told.
    pub(crate) fn off(self) -> Option<&'static str> {
        self.can_be_off.then_some("none")
    }
}

//! The path to the value that is being checked.

use crate::fault::FieldPath;

/// Where a walk is; spelled out only when there is a fault to report.
#[derive(Clone, Copy)]
pub(super) enum Location<'a> {
    Root(&'a FieldPath),
    Field(&'a Location<'a>, &'a str),
    Item(&'a Location<'a>, usize),
}

// === impl Location ===

impl Location<'_> {
    pub(super) fn path(&self) -> FieldPath {
        match self {
            Self::Root(path) => (*path).clone(),
            Self::Field(parent, name) => parent.path().field(name),
            Self::Item(parent, index) => parent.path().index(*index),
        }
    }
}

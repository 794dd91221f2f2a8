use crate::fault::FieldPath;

/// Where a walk is; spelled out only when there is a fault to report.
#[derive(Clone, Copy)]
pub(super) enum At<'a> {
    Root(&'a FieldPath),
    Field(&'a At<'a>, &'a str),
    Item(&'a At<'a>, usize),
}

// === impl At ===

impl At<'_> {
    pub(super) fn path(&self) -> FieldPath {
        match self {
            Self::Root(path) => (*path).clone(),
            Self::Field(parent, name) => parent.path().field(name),
            Self::Item(parent, index) => parent.path().index(*index),
        }
    }
}

//! Where an object stands, and what is wrong with it.

use std::{fmt, path::Path, sync::Arc};

use crate::ir::ObjectName;

/// One document of one file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceLocation {
    /// The file, as it was found below the path that the user gave.
    pub file: Arc<Path>,
    /// The line of the file on which the document begins, counted from 1; 0 for the file as a whole.
    pub line: usize,
}

/// An object as its author wrote it, before anything about it is known to be right.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject {
    /// The kind; the gateway may not know it.
    pub kind: String,
    /// Namespace and name; `None` where the document has no usable name.
    pub name: Option<ObjectName>,
}

/// One thing that is wrong with one document; its `Display` is the line that `validate` prints.
///
/// The value of a Secret is never part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub place: SourceLocation,
    /// The object; `None` where the document does not even say its kind.
    pub object: Option<Subject>,
    /// The field, for instance `spec.rules[0].matches[1].path.value`; empty for the object as a whole.
    pub path: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

// === impl SourceLocation ===

impl SourceLocation {
    /// A file as a whole.
    pub(super) fn whole(file: &Path) -> Self {
        Self { file: file.into(), line: 0 }
    }

    /// A fault of the whole document.
    pub(super) fn fault(&self, reason: impl fmt::Display) -> Fault {
        Fault { place: self.clone(), object: None, path: String::new(), reason: reason.to_string() }
    }
}

impl fmt::Display for SourceLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        match self.line {
            0 => Ok(()),
            line => write!(f, ":{line}"),
        }
    }
}

// === impl Subject ===

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, "/{name}"))
    }
}

// === impl Fault ===

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)
    }
}

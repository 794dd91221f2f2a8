//! What is wrong with an object, and where.

use std::fmt;

use super::conditions::{Condition, ConditionType, Detail, Reason};

/// What is wrong, of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) reason: Reason,
    /// At least one.
    details: Vec<Detail>,
}

/// Everything that is wrong, in the order in which it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Faults(Vec<Fault>);

/// The path of a field; costs nothing until it is shown.
#[derive(Clone, Copy)]
pub(super) struct Path<'a> {
    parent: Option<&'a Self>,
    segment: Segment,
}

#[derive(Clone, Copy)]
enum Segment {
    Field(&'static str),
    Index(usize),
}

/// A message names this many faults and counts the rest.
const SHOWN: usize = 8;

// === impl Fault ===

impl Fault {
    /// Something that is wrong with the object as a whole.
    pub(super) fn new(reason: Reason, problem: impl Into<String>) -> Self {
        Self { reason, details: vec![Detail { path: None, problem: problem.into(), is_absence: false }] }
    }

    /// Something that is wrong with a field.
    pub(super) fn at(reason: Reason, path: impl fmt::Display, problem: impl fmt::Display) -> Self {
        let path = Some(path.to_string()).filter(|path| !path.is_empty());
        let problem = problem.to_string();
        Self { reason, details: vec![Detail { path, problem, is_absence: false }] }
    }

    /// A value that is not valid or not enforced, and where it stands.
    pub(super) fn unsupported(path: &Path<'_>, problem: impl fmt::Display) -> Self {
        Self::at(Reason::UnsupportedValue, path, problem)
    }

    /// An error whose text begins with the path of a field, as those of [`crate::policy`] do.
    pub(super) fn of_policy(reason: Reason, error: &impl fmt::Display) -> Self {
        let text = error.to_string();
        match text.split_once(": ") {
            Some((path, problem)) => Self::at(reason, path, problem),
            None => Self::new(reason, text),
        }
    }

    /// The same, because something that the object refers to is not there, or not good.
    pub(super) fn absent(mut self) -> Self {
        self.details.iter_mut().for_each(|detail| detail.is_absence = true);
        self
    }

    /// All of it, for people.
    pub(super) fn message(&self) -> String {
        let shown: Vec<_> = self.details.iter().take(SHOWN).map(ToString::to_string).collect();
        let mut message = shown.join("; ");
        if let Some(more) = self.details.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            message.push_str(&format!("; and {more} more"));
        }
        message
    }

    pub(super) fn condition(&self, kind: ConditionType) -> Condition {
        Condition { details: self.details.clone(), ..Condition::fails(kind, self.reason, self.message()) }
    }
}

// === impl Faults ===

impl Faults {
    pub(super) fn push(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(super) fn extend(&mut self, faults: impl IntoIterator<Item = Fault>) {
        self.0.extend(faults);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts those of this reason first, so that it is the reason of all.
    pub(super) fn begin_with(&mut self, reason: Reason) {
        self.0.sort_by_key(|fault| fault.reason != reason);
    }

    /// Keeps the value of a result, and its fault apart.
    pub(super) fn keep<T>(&mut self, result: Result<T, Fault>) -> Option<T> {
        result.map_err(|fault| self.push(fault)).ok()
    }

    /// All of them as one, with the reason of the first.
    pub(super) fn summary(&self) -> Option<Fault> {
        let reason = self.0.first()?.reason;
        Some(Fault { reason, details: self.0.iter().flat_map(|fault| &fault.details).cloned().collect() })
    }

    /// The condition of this type: it fails with the faults, or holds if there are none.
    pub(super) fn condition(&self, kind: ConditionType, reason: Reason, message: &str) -> Condition {
        match self.summary() {
            Some(fault) => fault.condition(kind),
            None => Condition::holds(kind, reason, message),
        }
    }
}

impl IntoIterator for Faults {
    type Item = Fault;
    type IntoIter = std::vec::IntoIter<Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

// === impl Path ===

impl Path<'_> {
    /// The path of `spec`.
    pub(super) const SPEC: Path<'static> = Path { parent: None, segment: Segment::Field("spec") };

    pub(super) fn field(&self, name: &'static str) -> Path<'_> {
        Path { parent: Some(self), segment: Segment::Field(name) }
    }

    pub(super) fn index(&self, index: usize) -> Path<'_> {
        Path { parent: Some(self), segment: Segment::Index(index) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.segment {
            Segment::Field(name) if self.parent.is_some() => write!(f, ".{name}"),
            Segment::Field(name) => f.write_str(name),
            Segment::Index(index) => write!(f, "[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_like_a_field_path() {
        let rules = Path::SPEC.field("rules");
        let rule = rules.index(2);
        assert_eq!(rule.field("name").to_string(), "spec.rules[2].name");
    }

    #[test]
    fn a_summary_keeps_the_first_reason_and_counts_the_rest() {
        let mut faults = Faults::default();
        for n in 0..10 {
            let reason = if n == 0 { Reason::InvalidKind } else { Reason::BackendNotFound };
            faults.push(Fault::new(reason, n.to_string()));
        }
        let summary = faults.summary().unwrap();
        assert_eq!(summary.reason, Reason::InvalidKind);
        assert_eq!(summary.message(), "0; 1; 2; 3; 4; 5; 6; 7; and 2 more");
    }
}

//! Names and identities.

use std::fmt;

use serde::{Serialize, Serializer};

/// The namespace and name of an object; ordered the way Gateway API breaks ties.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// The namespace; empty for a cluster-scoped object.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectName {
    /// The object `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

impl Serialize for ObjectName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The identity of a policy object: `namespace/name`, and `@uid` where there is a UID.
///
/// State is keyed by it, so that it outlives every edit of the object, and ends when another object takes the
/// name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct PolicyId(pub String);

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A host name, or a suffix of one (`*.example.com`), or every host; always lower-case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum HostPattern {
    /// Any host.
    #[default]
    Any,
    /// Every name with at least one more label in front of this suffix, written without `*.`.
    Suffix(String),
    /// This name alone.
    Exact(String),
}

impl HostPattern {
    /// Reads `*.example.com`, `www.example.com`, or the empty string for any host.
    pub fn parse(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        if text.is_empty() || text == "*" {
            Self::Any
        } else if let Some(suffix) = text.strip_prefix("*.") {
            Self::Suffix(suffix.to_owned())
        } else {
            Self::Exact(text)
        }
    }

    /// Whether `host` (lower-case, without port) is covered.
    pub fn covers(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => name == host,
            Self::Suffix(suffix) => is_below(host, suffix),
        }
    }

    /// How specific the pattern is: Gateway API prefers names to wildcards, and then the longer ones.
    pub fn specificity(&self) -> (bool, usize) {
        match self {
            Self::Any => (false, 0),
            Self::Suffix(suffix) => (false, suffix.len() + 2),
            Self::Exact(name) => (true, name.len()),
        }
    }

    /// The narrower of the two, or `None` where no host is covered by both.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let narrower = match (self, other) {
            (Self::Any, other) => other,
            (this, Self::Any) => this,
            (Self::Exact(name), other) if other.covers(name) => self,
            (this, Self::Exact(name)) if this.covers(name) => other,
            (Self::Suffix(this), Self::Suffix(that)) if this == that || is_below(this, that) => self,
            (Self::Suffix(this), Self::Suffix(that)) if is_below(that, this) => other,
            _ => return None,
        };
        Some(narrower.clone())
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => f.write_str(name),
            Self::Suffix(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

/// Whether `host` is `something.suffix`.
fn is_below(host: &str, suffix: &str) -> bool {
    host.strip_suffix(suffix).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_needs_at_least_one_label() {
        let pattern = HostPattern::parse("*.Example.com");
        assert!(pattern.covers("a.example.com"));
        assert!(pattern.covers("a.b.example.com"));
        assert!(!pattern.covers("example.com"));
        assert!(!pattern.covers(".example.com"));
        assert!(!pattern.covers("badexample.com"));
    }

    #[test]
    fn the_intersection_is_the_narrower_pattern() {
        let cases = [
            ("", "*.example.com", Some("*.example.com")),
            ("a.example.com", "*.example.com", Some("a.example.com")),
            ("*.example.com", "*.b.example.com", Some("*.b.example.com")),
            ("*.example.com", "example.com", None),
            ("*.example.com", "*.example.net", None),
            ("a.example.com", "b.example.com", None),
        ];
        for (left, right, expected) in cases {
            let (left, right) = (HostPattern::parse(left), HostPattern::parse(right));
            let expected = expected.map(HostPattern::parse);
            assert_eq!(left.intersection(&right), expected, "{left} and {right}");
            assert_eq!(right.intersection(&left), expected, "{right} and {left}");
        }
    }
}

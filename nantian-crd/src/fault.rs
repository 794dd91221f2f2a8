//! What is wrong with an object, and where in it.

use std::{error::Error, fmt, vec};

/// Where in an object a fault is, for example `spec.targetRefs[0].kind`.
///
/// The root of an object is the empty path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldPath(String);

/// One thing that is wrong with an object.
///
/// `Display` gives one line that names the field, its value, and what is allowed:
///
/// ```text
/// spec.onLimit: "rejct" is not one of reject, queue, warn; did you mean "reject"?
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// The field.
    pub path: FieldPath,
    /// The value found there, shortened; absent for objects, lists, missing fields and secrets.
    pub value: Option<String>,
    /// What is wrong with it.
    pub kind: FaultKind,
    /// What would have been allowed, where that can be said in few words.
    pub allowed: Option<String>,
}

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// The schema has no such field.
    UnknownField {
        /// The field that was probably meant.
        suggestion: Option<String>,
    },
    /// The field has to be there.
    Missing,
    /// The value is of another type.
    WrongType {
        /// The type it is of, with its article.
        found: &'static str,
    },
    /// The value is not among those that can be chosen.
    NotOneOf {
        /// The value that was probably meant.
        suggestion: Option<String>,
    },
    /// The number is too small or too large.
    OutOfRange,
    /// The text is not of the form it has to have.
    Malformed,
    /// The text, list or object has too few or too many parts.
    WrongSize {
        /// How many it has.
        found: usize,
        /// What is counted.
        unit: &'static str,
    },
    /// The list item repeats an earlier one.
    Duplicate {
        /// The earlier item.
        earlier: FieldPath,
    },
    /// The value fits none of the alternatives.
    NoAlternative,
    /// The value fits several alternatives of which it may fit one.
    ManyAlternatives,
    /// The value is of a form that is ruled out.
    Forbidden,
    /// The value breaks a rule across fields.
    Rule {
        /// The rule in words.
        message: &'static str,
    },
    /// The object is nested more deeply than any object may be.
    TooDeep,
    /// The object passed all checks and still could not be read.
    Unreadable {
        /// The reader's complaint.
        message: String,
    },
}

/// All that is wrong with an object: at least one fault, in the order of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

// === impl FieldPath ===

impl FieldPath {
    /// The root of an object.
    pub const fn root() -> Self {
        Self(String::new())
    }

    /// The field `name` of the object here.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        let mut path = self.0.clone();
        if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_$".contains(&byte))
        {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(name);
        } else {
            path.push_str(&format!("[{name:?}]"));
        }
        Self(path)
    }

    /// The item `index` of the list here.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for FieldPath {
    /// Takes a path that is already spelled out.
    fn from(path: &str) -> Self {
        Self(path.to_owned())
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Fault ===

impl Fault {
    /// A fault that tells neither the value nor what is allowed.
    pub const fn new(path: FieldPath, kind: FaultKind) -> Self {
        Self { path, value: None, kind, allowed: None }
    }

    fn allowed(&self) -> &str {
        self.allowed.as_deref().unwrap_or("what the schema asks for")
    }

    fn write_reason(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.as_deref();
        match &self.kind {
            FaultKind::UnknownField { suggestion } => {
                f.write_str("unknown field")?;
                match (suggestion, &self.allowed) {
                    (Some(suggestion), _) => write!(f, "; did you mean {suggestion:?}?"),
                    (None, Some(allowed)) => write!(f, "; allowed: {allowed}"),
                    (None, None) => Ok(()),
                }
            }
            FaultKind::Missing => f.write_str("required field is missing"),
            FaultKind::WrongType { found } => {
                write!(f, "{} is not {}", value.unwrap_or(found), self.allowed())
            }
            FaultKind::NotOneOf { suggestion } => {
                let allowed = self.allowed();
                let one_of = if allowed.contains(", ") { "one of " } else { "" };
                write!(f, "{} is not {one_of}{allowed}", value.unwrap_or("the value"))?;
                match suggestion {
                    Some(suggestion) => write!(f, "; did you mean {suggestion:?}?"),
                    None => Ok(()),
                }
            }
            FaultKind::OutOfRange => {
                write!(f, "{} is out of range; allowed: {}", value.unwrap_or("the value"), self.allowed())
            }
            FaultKind::Malformed => write!(f, "{} is not {}", value.unwrap_or("the value"), self.allowed()),
            FaultKind::WrongSize { found, unit } => {
                write!(f, "has {found} {unit}; allowed: {}", self.allowed())
            }
            FaultKind::Duplicate { earlier } => match value {
                Some(value) => write!(f, "{value} repeats {earlier}"),
                None => write!(f, "repeats {earlier}"),
            },
            FaultKind::NoAlternative => match value {
                Some(value) => write!(f, "{value} fits none of the allowed forms"),
                None => f.write_str("fits none of the allowed forms"),
            },
            FaultKind::ManyAlternatives => f.write_str("fits several forms of which only one is allowed"),
            FaultKind::Forbidden => f.write_str("is not allowed here"),
            FaultKind::Rule { message } => match value {
                Some(value) => write!(f, "{value} {message}"),
                None => f.write_str(message),
            },
            FaultKind::TooDeep => f.write_str("is nested too deeply"),
            FaultKind::Unreadable { message } => f.write_str(message),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.0.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        self.write_reason(f)
    }
}

impl Error for Fault {}

// === impl Faults ===

impl Faults {
    /// The faults, or nothing if there are none.
    pub fn new(faults: Vec<Fault>) -> Option<Self> {
        (!faults.is_empty()).then_some(Self(faults))
    }

    /// The faults one by one.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.0.iter()
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

impl IntoIterator for Faults {
    type Item = Fault;
    type IntoIter = vec::IntoIter<Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Faults {
    type Item = &'a Fault;
    type IntoIter = std::slice::Iter<'a, Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Faults {
    /// One fault a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.0.iter().enumerate() {
            write!(f, "{}{fault}", if n == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl Error for Faults {}

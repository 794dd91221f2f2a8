//! Strings that are never printed.

use std::fmt;

use zeroize::Zeroizing;

/// A secret string: wiped from memory when dropped, never printed.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(Zeroizing<String>);

// === impl Secret ===

impl Secret {
    /// Takes a secret. Line ends at its end are removed: they come from files, never from providers.
    pub fn new(value: impl Into<String>) -> Self {
        let value = Zeroizing::new(value.into());
        Self(Zeroizing::new(value.trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// A secret that is made of pieces, which leaves no copies behind.
    pub(crate) fn joined(pieces: &[&str]) -> Self {
        let mut value = String::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
        value.extend(pieces.iter().copied());
        Self(Zeroizing::new(value))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self::new(value)
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self::new(value)
    }
}

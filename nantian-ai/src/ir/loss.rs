//! What could not be said in the other dialect.

use std::borrow::Cow;

use http::HeaderValue;

/// The most that are named; the rest is `...`.
const MOST: usize = 24;

/// The longest name of a field that a client made up.
const LONGEST: usize = 48;

/// The fields of a request or reply that have no counterpart, by their path, each once.
///
/// ```
/// use nantian_ai::ir::Losses;
///
/// let mut losses = Losses::default();
/// losses.add("logit_bias");
/// losses.add("messages.name");
/// losses.add("logit_bias");
/// assert_eq!(losses.to_string(), "logit_bias,messages.name");
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Losses {
    fields: Vec<Cow<'static, str>>,
    more: bool,
}

// === impl Losses ===

impl Losses {
    /// Names a field.
    pub fn add(&mut self, field: impl Into<Cow<'static, str>>) {
        let field = field.into();
        if self.fields.contains(&field) {
            return;
        }
        if self.fields.len() == MOST {
            self.more = true;
        } else {
            self.fields.push(field);
        }
    }

    /// Names a field that a client may have made up below `at`; what no header can carry becomes `?`.
    pub(crate) fn add_below(&mut self, at: &'static str, name: &str) {
        let safe = |letter: char| {
            if letter.is_ascii_alphanumeric() || "_-$".contains(letter) { letter } else { '?' }
        };
        let name: String = name.chars().take(LONGEST).map(safe).collect();
        self.add(if at.is_empty() { name } else { format!("{at}.{name}") });
    }

    /// Whether nothing was lost.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The fields.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(AsRef::as_ref)
    }

    /// Takes over all of `other`.
    pub fn extend(&mut self, other: Self) {
        for field in other.fields {
            self.add(field);
        }
        self.more |= other.more;
    }

    /// The fields as the value of a header, [`DROPPED`](crate::headers::DROPPED); `None` if nothing was lost.
    pub fn header_value(&self) -> Option<HeaderValue> {
        if self.is_empty() {
            return None;
        }
        HeaderValue::from_str(&self.to_string()).ok()
    }
}

impl std::fmt::Display for Losses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.fields.join(","))?;
        if self.more { f.write_str(",...") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_make_up_can_be_sent_in_a_header() {
        let mut losses = Losses::default();
        losses.add_below("", "a\r\nb: é");
        losses.add_below("messages", &"x".repeat(1_000));
        let value = losses.header_value().unwrap();
        assert_eq!(value, format!("a??b???,messages.{}", "x".repeat(48)));
    }

    #[test]
    fn there_is_an_end_to_the_list() {
        let mut losses = Losses::default();
        for at in 0..100 {
            losses.add(at.to_string());
        }
        assert_eq!(losses.iter().count(), MOST);
        assert!(losses.to_string().ends_with(",..."));
    }
}

//! Durations of the Gateway API (GEP-2257).

use std::{borrow::Cow, fmt, str::FromStr, time};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::schema::{Hint, Rule, enforcing};

/// A duration as the Gateway API writes it (GEP-2257): one to four numbers, each with a unit of `h`, `m`, `s`
/// or `ms`.
///
/// Numbers have one to five digits, units may come in any order and add up when repeated. There are no
/// fractions, no signs, no days, and no bare `0`. `Display` is canonical: descending units, each once, `0s`
/// for zero. To keep what a user wrote, hold a [`AsWritten<Duration>`](crate::AsWritten).
///
/// Unit: milliseconds. Range: `0s..=99999h59m59s999ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(time::Duration);

/// The text or the span is no GEP-2257 duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDuration {
    /// The text does not follow the grammar.
    #[error("{0:?} is not a duration such as 500ms or 1h30m")]
    Malformed(String),
    /// The span is longer than any canonical spelling can express.
    #[error("{0:?} is longer than 99999h59m59s999ms")]
    TooLong(String),
    /// The span is finer than a millisecond.
    #[error("{0:?} is not a whole number of milliseconds")]
    TooFine(time::Duration),
}

/// The grammar, without its limit on the sum.
pub(crate) const PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

pub(crate) const HINTS: &[Hint] = &[Hint { pattern: PATTERN, meaning: "a duration such as 500ms or 1h30m" }];

pub(crate) const RULES: &[Rule] = &[Rule {
    cel: "duration(self) <= duration('99999h59m59s999ms')",
    message: "must be at most 99999h59m59s999ms",
    field: None,
    holds: |value| !matches!(value.as_str().map(parse), Some(Err(InvalidDuration::TooLong(_)))),
}];

const LONGEST_MS: u64 = ((99_999 * 60 + 59) * 60 + 59) * 1000 + 999;
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

// === impl Duration ===

impl Duration {
    /// No time at all.
    pub const ZERO: Self = Self(time::Duration::ZERO);

    /// The same span for the standard library.
    pub const fn as_std(self) -> time::Duration {
        self.0
    }
}

impl TryFrom<time::Duration> for Duration {
    type Error = InvalidDuration;

    /// # Errors
    ///
    /// [`InvalidDuration::TooFine`] below a millisecond, [`InvalidDuration::TooLong`] above
    /// 99999h59m59s999ms.
    fn try_from(span: time::Duration) -> Result<Self, Self::Error> {
        if !span.subsec_nanos().is_multiple_of(1_000_000) {
            return Err(InvalidDuration::TooFine(span));
        }
        if span.as_millis() > u128::from(LONGEST_MS) {
            return Err(InvalidDuration::TooLong(format!("{span:?}")));
        }
        Ok(Self(span))
    }
}

impl From<Duration> for time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl FromStr for Duration {
    type Err = InvalidDuration;

    /// # Errors
    ///
    /// [`InvalidDuration::Malformed`] outside the grammar, [`InvalidDuration::TooLong`] when the sum has no
    /// canonical form.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text)
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() {
            return f.write_str("0s");
        }
        let mut rest = self.0.as_millis();
        for (unit, size) in UNITS {
            let count = rest / u128::from(size);
            rest %= u128::from(size);
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = json_schema!({ "type": "string", "pattern": PATTERN, "maxLength": 28 });
        enforcing(RULES)(&mut schema);
        schema
    }
}

fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let malformed = || InvalidDuration::Malformed(text.to_owned());
    let mut rest = text;
    let mut total = 0;
    for _ in 0..4 {
        let (count, unit, tail) = component(rest).ok_or_else(malformed)?;
        total += count * unit;
        rest = tail;
        if rest.is_empty() {
            break;
        }
    }
    if !rest.is_empty() {
        return Err(malformed());
    }
    if total > LONGEST_MS {
        return Err(InvalidDuration::TooLong(text.to_owned()));
    }
    Ok(Duration(time::Duration::from_millis(total)))
}

/// Splits `<digits><unit>` off the front: the count, the unit in milliseconds, and what follows.
fn component(text: &str) -> Option<(u64, u64, &str)> {
    let (digits, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (name, rest) = rest.split_at(rest.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(rest.len()));
    let (_, unit) = UNITS.into_iter().find(|(unit, _)| *unit == name)?;
    if digits.is_empty() || digits.len() > 5 {
        return None;
    }
    Some((digits.parse().ok()?, unit, rest))
}

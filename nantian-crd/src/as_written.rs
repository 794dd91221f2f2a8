//! Values that keep the text they were written as.

use std::{borrow::Cow, error::Error, fmt, ops::Deref, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A value together with the text it was written as.
///
/// A specification is never rewritten: it serialises as its author spelled it, while code reads the parsed
/// value through [`Deref`].
///
/// ```
/// use nantian_crd::{AsWritten, Duration};
///
/// let timeout: AsWritten<Duration> = "90m".parse()?;
/// assert_eq!(timeout.text(), "90m");
/// assert_eq!(timeout.as_std().as_secs(), 5400);
/// assert_eq!(timeout.value().to_string(), "1h30m");
/// # Ok::<(), nantian_crd::InvalidDuration>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct AsWritten<T> {
    text: String,
    value: T,
}

// === impl AsWritten ===

impl<T> AsWritten<T> {
    /// The text as its author wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the text means.
    pub fn value(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Display> From<T> for AsWritten<T> {
    /// Spells `value` canonically.
    fn from(value: T) -> Self {
        Self { text: value.to_string(), value }
    }
}

impl<T> Deref for AsWritten<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: FromStr> FromStr for AsWritten<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self { text: text.to_owned(), value: text.parse()? })
    }
}

impl<T> fmt::Display for AsWritten<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<T> fmt::Debug for AsWritten<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl<T> Serialize for AsWritten<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de, T> Deserialize<'de> for AsWritten<T>
where
    T: FromStr,
    T::Err: Error,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl<T: JsonSchema> JsonSchema for AsWritten<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

use std::{borrow::Cow, error::Error, fmt, ops::Deref, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A value together with the text it was written as.
///
/// A specification is never rewritten: it serialises as its author spelled it, while code reads the parsed value through
/// [`Deref`].
///
/// ```
/// use nantian_crd::{Duration, Spelled};
///
/// let timeout: Spelled<Duration> = "90m".parse()?;
/// assert_eq!(timeout.spelling(), "90m");
/// assert_eq!(timeout.as_std().as_secs(), 5400);
/// assert_eq!(timeout.value().to_string(), "1h30m");
/// # Ok::<(), nantian_crd::InvalidDuration>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Spelled<T> {
    spelling: String,
    value: T,
}

// === impl Spelled ===

impl<T> Spelled<T> {
    /// The text as its author wrote it.
    pub fn spelling(&self) -> &str {
        &self.spelling
    }

    /// What the text means.
    pub fn value(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Display> From<T> for Spelled<T> {
    /// Spells `value` canonically.
    fn from(value: T) -> Self {
        Self { spelling: value.to_string(), value }
    }
}

impl<T> Deref for Spelled<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: FromStr> FromStr for Spelled<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self { spelling: text.to_owned(), value: text.parse()? })
    }
}

impl<T> fmt::Display for Spelled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.spelling)
    }
}

impl<T> fmt::Debug for Spelled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.spelling, f)
    }
}

impl<T> Serialize for Spelled<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.spelling)
    }
}

impl<'de, T> Deserialize<'de> for Spelled<T>
where
    T: FromStr,
    T::Err: Error,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl<T: JsonSchema> JsonSchema for Spelled<T> {
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

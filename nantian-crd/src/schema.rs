//! Schemas: the CRD documents, and checking objects against any OpenAPI schema.

mod rule;

pub use self::rule::{Hint, Rule};
pub(crate) use self::rule::{child, enforcing, has, items, text};

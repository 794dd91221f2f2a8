//! Names of headers and cookies (RFC 9110 section 5.6.2).

use crate::schema::Hint;

pub(crate) const PATTERN: &str = "^[-!#$%&'*+.^_`|~0-9A-Za-z]+$";

pub(crate) const HINTS: &[Hint] =
    &[Hint { pattern: PATTERN, meaning: "a name of letters, digits and any of -!#$%&'*+.^_`|~" }];

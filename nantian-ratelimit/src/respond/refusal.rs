//! Why requests are refused.

use std::fmt;

use http::StatusCode;

use crate::error::{Denied, MissingPart, Unavailable};
use crate::scope::ScopePart;

/// Why a request is refused; it displays as the sentence that says so.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Refusal<'a> {
    /// A limit denies it.
    Denied(&'a Denied),
    /// It lacks a part of the scope: see [`MissingKey::Reject`](crate::MissingKey::Reject).
    Missing(&'a MissingPart),
    /// The store of the limits is away, and nothing passes.
    Unavailable(&'a Unavailable),
}

// === impl Refusal ===

impl Refusal<'_> {
    /// The status of HTTP for it: 429; 401 where a credential is missing and 400 where anything else is; 503.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Denied(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Missing(MissingPart { part: ScopePart::ApiKey | ScopePart::User }) => {
                StatusCode::UNAUTHORIZED
            }
            Self::Missing(_) => StatusCode::BAD_REQUEST,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(denied) => fmt::Display::fmt(denied, f),
            Self::Missing(missing) => fmt::Display::fmt(missing, f),
            Self::Unavailable(unavailable) => fmt::Display::fmt(unavailable, f),
        }
    }
}

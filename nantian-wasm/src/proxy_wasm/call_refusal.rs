//! Why a call-out is not made, for the guest and for whoever looks after it.

use std::fmt;

use super::abi::Status;
use crate::host::CallError;

/// Why a call-out is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallRefusal {
    NoNetwork,
    Incomplete,
    Malformed,
    TooMany,
    UnknownUpstream,
    UnusableUpstream,
    NotAllowed,
    NoEndpoint,
    Unavailable,
}

// === impl CallRefusal ===

impl CallRefusal {
    pub(crate) const ALL: [Self; 9] = [
        Self::NoNetwork,
        Self::Incomplete,
        Self::Malformed,
        Self::TooMany,
        Self::UnknownUpstream,
        Self::UnusableUpstream,
        Self::NotAllowed,
        Self::NoEndpoint,
        Self::Unavailable,
    ];

    /// One word for metrics.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::NoNetwork => "no_network",
            Self::Incomplete => "incomplete",
            Self::Malformed => "malformed",
            Self::TooMany => "too_many",
            Self::UnknownUpstream => "unknown_upstream",
            Self::UnusableUpstream => "unusable_upstream",
            Self::NotAllowed => "not_allowed",
            Self::NoEndpoint => "no_endpoint",
            Self::Unavailable => "unavailable",
        }
    }

    /// What the guest is told; of an upstream that it cannot have, `unknown`.
    pub(super) fn status(self, unknown: Status) -> Status {
        match self {
            Self::Incomplete => Status::BadArgument,
            Self::UnknownUpstream | Self::UnusableUpstream | Self::NotAllowed => unknown,
            Self::NoNetwork | Self::Malformed | Self::TooMany | Self::NoEndpoint | Self::Unavailable => {
                Status::InternalFailure
            }
        }
    }
}

impl fmt::Display for CallRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = match self {
            Self::NoNetwork => return f.write_str("the plugin has no network"),
            Self::Incomplete => return f.write_str("without :method, :path or :authority"),
            Self::Malformed => return f.write_str("a part of the request is no HTTP"),
            Self::TooMany => return f.write_str("too many or too large ones are under way"),
            Self::UnknownUpstream => CallError::UnknownUpstream,
            Self::UnusableUpstream => CallError::UnusableUpstream,
            Self::NotAllowed => CallError::NotAllowed,
            Self::NoEndpoint => CallError::NoEndpoint,
            Self::Unavailable => CallError::Unavailable,
        };
        error.fmt(f)
    }
}

impl From<CallError> for CallRefusal {
    fn from(error: CallError) -> Self {
        match error {
            CallError::UnknownUpstream => Self::UnknownUpstream,
            CallError::UnusableUpstream => Self::UnusableUpstream,
            CallError::NotAllowed => Self::NotAllowed,
            CallError::NoEndpoint => Self::NoEndpoint,
            CallError::Unavailable => Self::Unavailable,
        }
    }
}

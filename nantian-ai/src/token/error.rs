//! Why there is no token.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

/// A credential that could not be exchanged for a token. No part of the credential or of a token is in the
/// message.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The HTTP client got no answer.
    #[error("the token endpoint cannot be reached")]
    Unreachable {
        /// What the client said.
        #[source]
        source: Arc<dyn StdError + Send + Sync>,
    },
    /// The endpoint does not know the credential, or it may not have the token.
    #[error("the token endpoint refused the credential with {status}: {reason}")]
    Refused {
        /// The status of its answer.
        status: StatusCode,
        /// The endpoint's own name of the reason, such as `invalid_grant`.
        reason: String,
    },
    /// The endpoint could not answer now.
    #[error("the token endpoint answered {status}")]
    Unavailable {
        /// The status of its answer.
        status: StatusCode,
    },
    /// The endpoint has not answered in the time that an attempt has.
    #[error("the token endpoint gave no answer within {after:?}")]
    Late {
        /// The time.
        after: Duration,
    },
    /// The answer is none of a token endpoint.
    #[error("the token endpoint's answer holds no token that can be used")]
    Unreadable,
    /// What proves the workload's identity cannot be read.
    #[error("the workload's token cannot be read from {}", path.display())]
    Proof {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Arc<io::Error>,
    },
    /// The private key did not sign.
    #[error("the private key cannot sign")]
    Signature,
    /// The embedder's client has dropped the [`Exchange`](super::Exchange).
    #[error("the exchange was given up")]
    Abandoned,
}

// === impl TokenError ===

impl TokenError {
    /// Whether the same exchange might succeed later.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Unavailable { .. } | Self::Late { .. } | Self::Abandoned
        )
    }

    /// What an endpoint says with a status that is no success. Of its reason only the name is kept: the rest
    /// might repeat what it was sent.
    pub(super) fn of_status(status: StatusCode, reason: Option<&str>) -> Self {
        if status.is_server_error() || matches!(status.as_u16(), 408 | 429) {
            return Self::Unavailable { status };
        }
        let is_of_a_name = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
        let reason = reason.unwrap_or_default();
        let name = reason.split(|letter| !is_of_a_name(letter)).next().unwrap_or_default();
        let name = if (1..=64).contains(&name.len()) { name } else { "no reason given" };
        Self::Refused { status, reason: name.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_reason_only_its_name_is_told() {
        for (reason, told) in [
            (Some("invalid_grant"), "invalid_grant"),
            (Some("AADSTS7000215: Invalid client secret provided: s3cr3t"), "AADSTS7000215"),
            (Some(&*"x".repeat(65)), "no reason given"),
            (Some(""), "no reason given"),
            (None, "no reason given"),
        ] {
            let TokenError::Refused { reason, .. } = TokenError::of_status(StatusCode::BAD_REQUEST, reason)
            else {
                panic!("{reason:?}");
            };
            assert_eq!(reason, told);
        }
    }

    #[test]
    fn a_state_that_passes_is_no_refusal() {
        for (status, passes) in
            [(400, false), (401, false), (403, false), (408, true), (429, true), (503, true)]
        {
            let error = TokenError::of_status(StatusCode::from_u16(status).unwrap(), None);
            assert_eq!(error.is_passing(), passes, "{status}");
        }
    }
}

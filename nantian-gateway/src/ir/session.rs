//! How clients stay with their endpoints.

use std::time::Duration;

use serde::Serialize;

use super::shown;

/// Session persistence of a rule or of a backend.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SessionPersistence {
    /// The name of the cookie or header; `None` is one of the rule's own.
    pub name: Option<String>,
    /// What carries the session.
    pub carrier: SessionCarrier,
    /// The age at which a session ends.
    #[serde(serialize_with = "shown::limit")]
    pub absolute_timeout: Option<Duration>,
    /// The time without a request after which it ends.
    #[serde(serialize_with = "shown::limit")]
    pub idle_timeout: Option<Duration>,
}

/// What carries a session.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum SessionCarrier {
    /// A cookie.
    Cookie {
        /// Whether it outlives the browser, until the absolute timeout.
        permanent: bool,
        /// Its path; `None` is `/`.
        #[serde(skip_serializing_if = "Option::is_none")]
        path: Option<String>,
    },
    /// A header.
    Header,
}

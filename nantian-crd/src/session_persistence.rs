//! Session persistence of a BackendLBPolicy.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    as_written::AsWritten,
    duration::Duration,
    http_token,
    schema::{Hint, Rule, child, enforcing, has, text},
};

/// How a client stays with its endpoint (session persistence of Gateway API, GEP-1619).
///
/// It has two shapes, which are not mixed: `sessionName` and `cookieConfig`, as in Gateway API 1.1 to 1.4, or
/// `cookie` and `header`, as it was redesigned later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = enforcing(RULES))]
#[non_exhaustive]
pub struct SessionPersistence {
    /// Name of the cookie or of the header.
    ///
    /// Range: an HTTP token of up to 128 characters. Default: derived from the policy. Source:
    /// `spec.sessionPersistence.sessionName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = http_token::PATTERN))]
    pub session_name: Option<String>,
    /// Age at which a session ends, however busy it is.
    ///
    /// Unit: GEP-2257 duration. Default: never. Source: `spec.sessionPersistence.absoluteTimeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absolute_timeout: Option<AsWritten<Duration>>,
    /// Time without a request after which a session ends.
    ///
    /// Unit: GEP-2257 duration. Default: never. Source: `spec.sessionPersistence.idleTimeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<AsWritten<Duration>>,
    /// Whether a cookie or a header carries the session.
    ///
    /// Default: Cookie. Source: `spec.sessionPersistence.type`.
    #[serde(default, rename = "type")]
    pub type_: SessionPersistenceType,
    /// Only with type Cookie.
    ///
    /// Default: a session cookie. Source: `spec.sessionPersistence.cookieConfig`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie_config: Option<CookieConfig>,
    /// The cookie; only with type Cookie, and in place of sessionName and cookieConfig.
    ///
    /// Source: `spec.sessionPersistence.cookie`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<SessionCookie>,
    /// The header; only with type Header, and in place of sessionName.
    ///
    /// Source: `spec.sessionPersistence.header`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<SessionHeader>,
}

/// Whether a cookie or a header carries the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[expect(clippy::exhaustive_enums, reason = "a new carrier must not compile anywhere before it is enforced")]
pub enum SessionPersistenceType {
    /// A cookie that the gateway sets.
    #[default]
    Cookie,
    /// A response header that the client sends back.
    Header,
}

/// How the session cookie behaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct CookieConfig {
    /// Whether the cookie outlives the browser session; Permanent needs absoluteTimeout.
    ///
    /// Default: Session. Source: `spec.sessionPersistence.cookieConfig.lifetimeType`.
    #[serde(default)]
    pub lifetime_type: CookieLifetime,
}

/// The cookie that carries a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SessionCookie {
    /// Its name.
    ///
    /// Range: an HTTP token of up to 128 characters. Default: one for each rule. Source:
    /// `spec.sessionPersistence.cookie.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = http_token::PATTERN))]
    pub name: Option<String>,
    /// The path for which clients send it.
    ///
    /// Default: /. Source: `spec.sessionPersistence.cookie.path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = PATH))]
    pub path: Option<String>,
    /// Whether it outlives the browser session; Permanent needs absoluteTimeout.
    ///
    /// Default: Session. Source: `spec.sessionPersistence.cookie.lifetimeType`.
    #[serde(default)]
    pub lifetime_type: CookieLifetime,
}

/// The header that carries a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct SessionHeader {
    /// Its name.
    ///
    /// Range: an HTTP token of up to 128 characters. Default: one for each rule. Source:
    /// `spec.sessionPersistence.header.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = http_token::PATTERN))]
    pub name: Option<String>,
}

/// A path that can stand in a cookie.
const PATH: &str = "^/[!-:<-~]*$";

pub(crate) const HINTS: &[Hint] =
    &[Hint { pattern: PATH, meaning: "an absolute path without blanks and semicolons" }];

/// Whether the session cookie outlives the browser session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[expect(clippy::exhaustive_enums, reason = "a new lifetime must not compile anywhere before it is enforced")]
pub enum CookieLifetime {
    /// It has no Max-Age.
    #[default]
    Session,
    /// It has a Max-Age of absoluteTimeout.
    Permanent,
}

pub(crate) const RULES: &[Rule] = &[
    Rule {
        cel: "!has(self.cookieConfig) || !has(self.cookieConfig.lifetimeType) || \
              self.cookieConfig.lifetimeType != 'Permanent' || has(self.absoluteTimeout)",
        message: "is required for cookieConfig.lifetimeType Permanent",
        field: Some("absoluteTimeout"),
        holds: |session| {
            let lifetime = child(session, "cookieConfig").and_then(|cookie| text(cookie, "lifetimeType"));
            lifetime != Some("Permanent") || has(session, "absoluteTimeout")
        },
    },
    Rule {
        cel: "!has(self.cookieConfig) || !has(self.type) || self.type == 'Cookie'",
        message: "is only allowed for type Cookie",
        field: Some("cookieConfig"),
        holds: |session| !has(session, "cookieConfig") || text(session, "type") != Some("Header"),
    },
    Rule {
        cel: "!has(self.cookie) || !has(self.cookie.lifetimeType) || \
              self.cookie.lifetimeType != 'Permanent' || has(self.absoluteTimeout)",
        message: "is required for cookie.lifetimeType Permanent",
        field: Some("absoluteTimeout"),
        holds: |session| {
            let lifetime = child(session, "cookie").and_then(|cookie| text(cookie, "lifetimeType"));
            lifetime != Some("Permanent") || has(session, "absoluteTimeout")
        },
    },
    Rule {
        cel: "!has(self.cookie) || !has(self.type) || self.type == 'Cookie'",
        message: "is only allowed for type Cookie",
        field: Some("cookie"),
        holds: |session| !has(session, "cookie") || text(session, "type") != Some("Header"),
    },
    Rule {
        cel: "!has(self.header) || (has(self.type) && self.type == 'Header')",
        message: "is only allowed for type Header",
        field: Some("header"),
        holds: |session| {
            let type_ = child(session, "type");
            !has(session, "header") || !(type_.is_none() || text(session, "type") == Some("Cookie"))
        },
    },
    Rule {
        cel: "!has(self.cookie) || !(has(self.sessionName) || has(self.cookieConfig))",
        message: "is not allowed beside sessionName and cookieConfig",
        field: Some("cookie"),
        holds: |session| {
            !has(session, "cookie") || !(has(session, "sessionName") || has(session, "cookieConfig"))
        },
    },
    Rule {
        cel: "!has(self.header) || !has(self.sessionName)",
        message: "is not allowed beside sessionName",
        field: Some("header"),
        holds: |session| !has(session, "header") || !has(session, "sessionName"),
    },
];

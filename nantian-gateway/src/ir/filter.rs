//! Gateway API filters, resolved.

use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use super::{Cors, redact, shown};

/// One filter of a rule or of a backend reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Filter {
    /// Changes request headers.
    RequestHeaders(HeaderModifier),
    /// Changes response headers.
    ResponseHeaders(HeaderModifier),
    /// Answers with a redirect.
    Redirect(Redirect),
    /// Changes the authority or the path of the request.
    UrlRewrite(UrlRewrite),
    /// Answers preflights, and tells browsers who may read responses.
    Cors(Cors),
}

/// Header changes: `set` first, then `add`, then `remove`.
///
/// Values that may be credentials are not shown.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct HeaderModifier {
    /// Replaces all values of a header.
    #[serde(serialize_with = "redact::show_headers")]
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Adds a value to a header.
    #[serde(serialize_with = "redact::show_headers")]
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Removes a header.
    #[serde(serialize_with = "shown::names")]
    pub remove: Vec<HeaderName>,
}

/// A redirect; what is absent is taken from the request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Redirect {
    /// The scheme.
    pub scheme: Option<RedirectScheme>,
    /// The host.
    pub hostname: Option<String>,
    /// The path.
    pub path: Option<PathRewrite>,
    /// The port; if absent, that of `scheme` if given, else that of the listener.
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    #[serde(serialize_with = "shown::status")]
    pub status: StatusCode,
}

/// The scheme of a redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RedirectScheme {
    /// `http`, port 80.
    Http,
    /// `https`, port 443.
    Https,
}

/// A rewrite of the request before it reaches the backend.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct UrlRewrite {
    /// The new authority.
    #[serde(serialize_with = "shown::value")]
    pub hostname: Option<HeaderValue>,
    /// The new path.
    pub path: Option<PathRewrite>,
}

/// How a path is rewritten; the query stays.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum PathRewrite {
    /// The whole path.
    Full(String),
    /// The prefix of paths that the rule matches; a path that does not have it any more stays as it is.
    Prefix {
        /// The prefix, without a `/` at its end; empty is that of every path.
        matched: String,
        /// What takes its place.
        replacement: String,
    },
}

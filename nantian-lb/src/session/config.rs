//! How sessions are kept: plain data.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::hash::EndpointHash;

/// The name of a cookie or header: an HTTP token.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionName {
    text: Arc<str>,
    header: HeaderName,
}

/// A name that no cookie and no header can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no name of a cookie or header")]
#[non_exhaustive]
pub struct InvalidSessionName {
    /// The name.
    pub name: String,
}

/// How sessions are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionConfig {
    /// The name of the cookie or header.
    ///
    /// Source: `sessionPersistence.sessionName`.
    pub name: SessionName,
    /// What carries the token.
    ///
    /// Source: `sessionPersistence.type`, `.cookieConfig`.
    pub carrier: SessionCarrier,
    /// The age at which a session ends, however busy it is.
    ///
    /// Unit: whole seconds count. Default: never. Source: `sessionPersistence.absoluteTimeout`.
    pub absolute_timeout: Option<Duration>,
    /// The time without a request after which a session ends. A token is renewed when a quarter of it is
    /// over.
    ///
    /// Unit: whole seconds count. Default: never. Source: `sessionPersistence.idleTimeout`.
    pub idle_timeout: Option<Duration>,
}

/// What carries the token.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionCarrier {
    /// A cookie.
    Cookie(CookieConfig),
    /// A response header, which the client sends back with its requests.
    Header,
}

/// The attributes of the cookie. It is always `HttpOnly`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CookieConfig {
    /// Whether it outlives the browser.
    ///
    /// Default: [`CookieLifetime::Session`].
    pub lifetime: CookieLifetime,
    /// The paths for which browsers send it.
    ///
    /// Default: `/`.
    pub path: String,
    /// Whether requests that other sites cause carry it.
    ///
    /// Default: [`SameSite::Strict`].
    pub same_site: SameSite,
    /// Whether browsers send it over TLS alone. To be set exactly if clients come over TLS: else they would
    /// not keep it.
    ///
    /// Default: false.
    pub secure: bool,
}

/// Whether a cookie outlives the browser.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CookieLifetime {
    /// It ends with the browser, or by a timeout, whichever is first.
    #[default]
    Session,
    /// It is kept until the absolute timeout, which there must be.
    Permanent,
}

/// Whether requests that other sites cause carry the cookie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SameSite {
    /// None do.
    #[default]
    Strict,
    /// Only links that the user follows do.
    Lax,
    /// All do; needs [`secure`](CookieConfig::secure).
    None,
}

/// A configuration that cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSession {
    /// A permanent cookie without the time until when.
    #[error("a permanent cookie needs an absolute timeout")]
    Endless,
    /// The session would end by age before it can be idle for so long.
    #[error("the idle timeout, {idle:?}, is longer than the absolute timeout, {absolute:?}")]
    IdleForTooLong {
        /// The idle timeout.
        idle: Duration,
        /// The absolute timeout.
        absolute: Duration,
    },
    /// The path is no absolute path, or cannot stand in a cookie.
    #[error("{path:?} is no path of a cookie")]
    Path {
        /// The path.
        path: String,
    },
    /// Browsers refuse such a cookie.
    #[error("SameSite=None needs Secure")]
    NotSecure,
}

const DEFAULT: &str = "session";

// === impl SessionName ===

impl SessionName {
    /// A name.
    ///
    /// # Errors
    ///
    /// [`InvalidSessionName`] if it is no token (RFC 9110, section 5.6.2).
    pub fn new(name: &str) -> Result<Self, InvalidSessionName> {
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(header) => Ok(Self { text: name.into(), header }),
            Err(_) => Err(InvalidSessionName { name: name.to_owned() }),
        }
    }

    /// A name of its own for whatever the text stands for, which it does not show: `session-` and 16
    /// hexadecimal digits.
    #[must_use]
    pub fn derived_from(text: &str) -> Self {
        let name = format!("session-{:016x}", EndpointHash::of(text).0);
        // Written out, for a prefix and digits are a token whatever the digits are.
        Self::new(&name)
            .unwrap_or_else(|_| Self { text: DEFAULT.into(), header: HeaderName::from_static(DEFAULT) })
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn header(&self) -> &HeaderName {
        &self.header
    }
}

impl FromStr for SessionName {
    type Err = InvalidSessionName;

    fn from_str(name: &str) -> Result<Self, InvalidSessionName> {
        Self::new(name)
    }
}

impl AsRef<str> for SessionName {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

// === impl SessionConfig ===

impl SessionConfig {
    /// Sessions by a cookie of this name.
    #[must_use]
    pub fn cookie(name: SessionName) -> Self {
        Self::new(name, SessionCarrier::Cookie(CookieConfig::default()))
    }

    /// Sessions by a header of this name.
    #[must_use]
    pub fn header(name: SessionName) -> Self {
        Self::new(name, SessionCarrier::Header)
    }

    /// Sessions without a timeout.
    #[must_use]
    pub fn new(name: SessionName, carrier: SessionCarrier) -> Self {
        Self { name, carrier, absolute_timeout: None, idle_timeout: None }
    }

    /// Sets [`absolute_timeout`](Self::absolute_timeout).
    #[must_use]
    pub fn with_absolute_timeout(mut self, timeout: Duration) -> Self {
        self.absolute_timeout = Some(timeout);
        self
    }

    /// Sets [`idle_timeout`](Self::idle_timeout).
    #[must_use]
    pub fn with_idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    pub(super) fn validate(&self) -> Result<(), InvalidSession> {
        if let (Some(idle), Some(absolute)) = (self.idle_timeout, self.absolute_timeout)
            && idle > absolute
        {
            return Err(InvalidSession::IdleForTooLong { idle, absolute });
        }
        let SessionCarrier::Cookie(cookie) = &self.carrier else { return Ok(()) };
        if cookie.lifetime == CookieLifetime::Permanent && self.absolute_timeout.is_none() {
            return Err(InvalidSession::Endless);
        }
        if cookie.same_site == SameSite::None && !cookie.secure {
            return Err(InvalidSession::NotSecure);
        }
        let fits = |byte: u8| byte.is_ascii_graphic() && byte != b';';
        if !cookie.path.starts_with('/') || !cookie.path.bytes().all(fits) {
            return Err(InvalidSession::Path { path: cookie.path.clone() });
        }
        Ok(())
    }
}

// === impl CookieConfig ===

impl CookieConfig {
    /// Sets [`lifetime`](Self::lifetime).
    #[must_use]
    pub fn with_lifetime(mut self, lifetime: CookieLifetime) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Sets [`path`](Self::path).
    #[must_use]
    pub fn with_path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Sets [`same_site`](Self::same_site).
    #[must_use]
    pub fn with_same_site(mut self, same_site: SameSite) -> Self {
        self.same_site = same_site;
        self
    }

    /// Sets [`secure`](Self::secure).
    #[must_use]
    pub fn with_secure(mut self, secure: bool) -> Self {
        self.secure = secure;
        self
    }
}

impl Default for CookieConfig {
    fn default() -> Self {
        Self {
            lifetime: CookieLifetime::Session,
            path: "/".to_owned(),
            same_site: SameSite::Strict,
            secure: false,
        }
    }
}

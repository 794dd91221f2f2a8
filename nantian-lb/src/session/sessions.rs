//! The sessions of one place.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};

use super::config::{CookieConfig, CookieLifetime, InvalidSession, SameSite, SessionCarrier, SessionConfig};
use super::cookie::Cookies;
use super::keys::SessionKeys;
use super::token::{Codec, TEXT, Token};
use crate::hash::EndpointHash;
use crate::in_flight::InFlight;

/// The sessions of one place, such as one rule of a route. Clones share everything.
#[derive(Clone)]
pub struct Sessions {
    shared: Arc<Shared>,
    backend: EndpointHash,
}

struct Shared {
    config: SessionConfig,
    cookies: Cookies,
    codec: Codec,
}

/// A session that a request belongs to: which endpoint it is with, and since when. It is valid at the time it
/// was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    pub(crate) endpoint: EndpointHash,
    backend: EndpointHash,
    issued: u32,
    seen: u32,
}

/// How far in the future a token may be made: clocks of replicas differ, but not by a day.
const MAX_SKEW: u64 = 24 * 3600;

// === impl Sessions ===

impl Sessions {
    /// The sessions of the place `scope`: tokens are worth nothing at another one, nor under another name.
    ///
    /// # Errors
    ///
    /// [`InvalidSession`] for a configuration that cannot be kept.
    pub fn new(config: SessionConfig, scope: &str, keys: &SessionKeys) -> Result<Self, InvalidSession> {
        config.validate()?;
        let codec = Codec::new(keys, &[scope, config.name.as_str()]);
        let cookies = Cookies::new(config.name.as_str());
        Ok(Self { shared: Arc::new(Shared { config, cookies, codec }), backend: EndpointHash(0) })
    }

    /// The same sessions, where several sets of endpoints serve the place: those that are with the set of
    /// this name.
    #[must_use]
    pub fn of_backend(&self, name: &str) -> Self {
        Self { shared: Arc::clone(&self.shared), backend: EndpointHash::of(name) }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &SessionConfig {
        &self.shared.config
    }

    /// Whether a session is with this set of endpoints.
    #[must_use]
    pub fn owns(&self, session: &Session) -> bool {
        session.backend == self.backend
    }

    /// The session that a request belongs to: the first valid token that it carries.
    ///
    /// Anything else, forged, altered, expired, or of another place, is as good as no token.
    #[must_use]
    pub fn find(&self, headers: &HeaderMap, now: SystemTime) -> Option<Session> {
        let name = &self.shared.config.name;
        match &self.shared.config.carrier {
            SessionCarrier::Cookie(_) => {
                self.shared.cookies.values(headers).find_map(|value| self.open(value, now))
            }
            SessionCarrier::Header => {
                headers.get_all(name.header()).iter().find_map(|value| self.open(value.as_bytes(), now))
            }
        }
    }

    /// Takes the tokens out of a request, so that the endpoint does not see them.
    pub fn strip(&self, headers: &mut HeaderMap) {
        let name = &self.shared.config.name;
        match &self.shared.config.carrier {
            SessionCarrier::Cookie(_) => self.shared.cookies.remove(headers),
            SessionCarrier::Header => {
                headers.remove(name.header());
            }
        }
    }

    /// Adds to a response what the client needs to stay with the endpoint that answered: nothing, if the
    /// session that the request belongs to is with that endpoint and its token is young enough.
    ///
    /// A session that moves to another endpoint begins anew. A token that is renewed keeps the beginning of
    /// its session.
    pub fn write(&self, headers: &mut HeaderMap, now: SystemTime, found: Option<&Session>, at: &InFlight) {
        self.write_for(headers, now, found, at.hash());
    }

    /// As [`write`](Self::write), for an endpoint that need not be the one that answered.
    pub(crate) fn write_for(
        &self,
        headers: &mut HeaderMap,
        now: SystemTime,
        found: Option<&Session>,
        endpoint: EndpointHash,
    ) {
        let now = seconds(now);
        let kept = found.filter(|found| self.owns(found) && found.endpoint == endpoint);
        if kept.is_some_and(|kept| !self.is_due(kept, now)) {
            return;
        }
        let issued = kept.map_or(now, |kept| u64::from(kept.issued));
        let token = Token {
            backend: self.backend,
            endpoint,
            issued: u32::try_from(issued).unwrap_or(u32::MAX),
            seen: u32::try_from(now).unwrap_or(u32::MAX),
        };
        let Some(token) = self.shared.codec.seal(&token) else { return };
        match &self.shared.config.carrier {
            SessionCarrier::Cookie(cookie) => {
                if let Ok(value) =
                    HeaderValue::try_from(self.set_cookie(cookie, &token, now - issued.min(now)))
                {
                    headers.append(SET_COOKIE, value);
                }
            }
            SessionCarrier::Header => {
                if let Ok(value) = HeaderValue::try_from(token) {
                    headers.insert(self.shared.config.name.header(), value);
                }
            }
        }
    }

    fn open(&self, value: &[u8], now: SystemTime) -> Option<Session> {
        let Token { backend, endpoint, issued, seen } = self.shared.codec.open(value)?;
        let config = &self.shared.config;
        let now = seconds(now);
        let is_over = |since: u32, timeout: Option<Duration>| {
            timeout.is_some_and(|timeout| now.saturating_sub(u64::from(since)) >= timeout.as_secs().max(1))
        };
        let is_from_the_future = u64::from(seen) > now.saturating_add(MAX_SKEW);
        if is_from_the_future
            || is_over(issued, config.absolute_timeout)
            || is_over(seen, config.idle_timeout)
        {
            return None;
        }
        Some(Session { endpoint, backend, issued, seen })
    }

    fn is_due(&self, session: &Session, now: u64) -> bool {
        let Some(idle) = self.shared.config.idle_timeout else { return false };
        now.saturating_sub(u64::from(session.seen)) > idle.as_secs() / 4
    }

    fn set_cookie(&self, cookie: &CookieConfig, token: &str, age: u64) -> String {
        let config = &self.shared.config;
        let mut text = String::with_capacity(TEXT + 96);
        text.push_str(config.name.as_str());
        text.push('=');
        text.push_str(token);
        text.push_str("; Path=");
        text.push_str(&cookie.path);
        if let (CookieLifetime::Permanent, Some(absolute)) = (cookie.lifetime, config.absolute_timeout) {
            // Writing to a string does not fail.
            let _ = write!(text, "; Max-Age={}", absolute.as_secs().saturating_sub(age).max(1));
        }
        text.push_str(match cookie.same_site {
            SameSite::Strict => "; HttpOnly; SameSite=Strict",
            SameSite::Lax => "; HttpOnly; SameSite=Lax",
            SameSite::None => "; HttpOnly; SameSite=None",
        });
        if cookie.secure {
            text.push_str("; Secure");
        }
        text
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
